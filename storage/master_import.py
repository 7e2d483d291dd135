"""Import and export of all master data: any number of files in one transaction, or nothing of them."""

import csv
import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import psycopg

from storage.audit import write_audit
from storage.contract_file import CONTRACTS, apply_contracts, fetch_contract_rows
from storage.customer import (
    ACCOUNTS,
    CUSTOMERS,
    SERVICE_POINTS,
    apply_accounts,
    apply_customers,
    apply_service_points,
    fetch_accounts,
    fetch_customers,
    fetch_service_points,
)
from storage.exchange import EXCHANGES, apply_exchanges, fetch_exchange_rows
from storage.master_cell import read_text
from storage.master_file import FAULTS_LISTED_MAX, Column, Faults, Layout, Outcome, Rows, read_file, write_file
from storage.published import (
    FLAGS,
    PRICE_SERIES,
    apply_flags,
    apply_price_series,
    fetch_flag_rows,
    fetch_price_rows,
)
from storage.registry import IMPORT_COLUMNS, import_meters

Apply = Callable[[psycopg.Connection[Any], Rows, Faults, str], Outcome]
Fetch = Callable[[psycopg.Connection[Any]], Iterator[tuple[Any, ...]]]
METERS = Layout("meters", tuple(Column(name, read_text, "text") for name in IMPORT_COLUMNS), ("meter_id",))
_FAULT = re.compile(r"line (\d+), ([^:]*): (.*)", re.DOTALL)


@dataclasses.dataclass
class Imported:
    """What an import did, would do, or why nothing was done."""

    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)
    """Each with file, line and column; at most FAULTS_LISTED_MAX."""
    fault_count: int = 0


def _fetch_meters(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    yield from conn.execute(
        "select m.meter_id, p.service_point_id, m.parent_id, a.tariff_id, m.rated_power_w, m.register_modulus_wh,"
        " m.interval_s, m.installed_on from meter m left join lateral (select * from meter_assignment a"
        " where a.meter_no = m.meter_no order by start_at desc limit 1) a on true"
        " left join service_point p using (service_point_no) order by m.meter_no"
    )


KINDS: dict[str, tuple[Layout, Apply | None, Fetch]] = {
    "customers": (CUSTOMERS, apply_customers, fetch_customers),
    "accounts": (ACCOUNTS, apply_accounts, fetch_accounts),
    "service-points": (SERVICE_POINTS, apply_service_points, fetch_service_points),
    "meters": (METERS, None, _fetch_meters),
    "contracts": (CONTRACTS, apply_contracts, fetch_contract_rows),
    "exchanges": (EXCHANGES, apply_exchanges, fetch_exchange_rows),
    "flags": (FLAGS, apply_flags, fetch_flag_rows),
    "price-series": (PRICE_SERIES, apply_price_series, fetch_price_rows),
}
"""By name, in the order in which one refers to another; meters have an import of their own."""


def import_files(
    conn: psycopg.Connection[Any], files: Mapping[str, Path], who: str, *, dry_run: bool = False
) -> Imported:
    """Import files, all of them or nothing.

    A dry run does everything and takes it back, so what it says is what an import meets.

    Args:
        conn: Connection in autocommit mode.
        files: By kind, of KINDS.
        who: For the audit trail.
        dry_run: Only check.
    """
    done, has_meters = Imported(), True
    with conn.transaction():
        for kind, (layout, apply, _) in KINDS.items():
            if kind not in files:
                continue
            path = files[kind]
            faults = Faults(path.name)
            if apply is None:
                outcome = _import_meters(conn, path, faults)
                has_meters = not faults.count
            else:
                rows = read_file(path, layout, faults)
                needs_meters = kind in ("contracts", "exchanges") and "meters" in files
                outcome = apply(conn, rows, faults, who) if not needs_meters or has_meters else _put_off(rows)
            done.outcomes[kind] = outcome
            done.faults += faults.listed[: FAULTS_LISTED_MAX - len(done.faults)]
            done.fault_count += faults.count
            if (outcome.new or outcome.changed) and not faults.count:
                _audit(conn, who, kind, path, outcome)
        if done.fault_count or dry_run:
            raise psycopg.Rollback
    return done


def _put_off(rows: Rows) -> Outcome:
    text = "what it refers to was not checked: put the file of meters right first"
    return Outcome(len(rows.rows), notices=[text])


def _audit(conn: psycopg.Connection[Any], who: str, kind: str, path: Path, outcome: Outcome) -> None:
    detail = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",  # not of a pipe
        "rows": outcome.rows,
        "new": outcome.new,
        "changed": outcome.changed,
        "before": outcome.before,
    }
    write_audit(conn, who, f"import.{kind}", path.name, detail)


def _import_meters(conn: psycopg.Connection[Any], path: Path, faults: Faults) -> Outcome:
    """Import meters; a JSON file is made into the CSV that the registry reads, and its faults are of its own lines."""
    lines: list[int] = []
    with tempfile.TemporaryDirectory() as directory:
        source = path
        if path.suffix.lower() == ".json":
            rows = read_file(path, METERS, faults)
            lines = [row[0] for row in rows.rows]
            source = Path(directory) / "meters.csv"
            with source.open("w", encoding="utf-8", newline="") as file:
                write_file(file, METERS, (row[1:] for row in rows.rows), as_json=False)
        try:
            report = import_meters(conn, source)
        except UnicodeDecodeError:
            faults.add(1, "file", "is not text in UTF-8: save it as CSV (UTF-8) or JSON")
            return Outcome()
        except csv.Error as error:
            faults.add(1, "file", f"cannot be read: {error}")
            return Outcome()
    for text in report.faults:
        found = _FAULT.fullmatch(text)
        assert found is not None, text
        line = int(found[1])
        faults.add(lines[line - 2] if 2 <= line < len(lines) + 2 else line, found[2], found[3])
    return Outcome(report.rows, report.new, report.changed)


def export_file(conn: psycopg.Connection[Any], kind: str, stream: TextIO, *, as_json: bool) -> int:
    """Write all rows of a kind, as `import_files` takes them; return how many."""
    layout, _, fetch = KINDS[kind]
    return write_file(stream, layout, fetch(conn), as_json=as_json)


def find_master_files(directory: Path) -> dict[str, Path]:
    """Return the files of a directory by kind: KIND.csv or KIND.json.

    Raises:
        ValueError: There is none, or two of one kind.
    """
    found: dict[str, Path] = {}
    for kind in KINDS:
        paths = [path for path in (directory / f"{kind}.csv", directory / f"{kind}.json") if path.is_file()]
        if len(paths) > 1:
            raise ValueError(f"{paths[0].name} and {paths[1].name} are both there: keep one of them")
        if paths:
            found[kind] = paths[0]
    if not found:
        names = ", ".join(f"{kind}.csv" for kind in KINDS)
        raise ValueError(f"{directory} has none of {names} (or .json)")
    return found
