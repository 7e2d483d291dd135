"""Master data: loaded into columns for the agents, imported from CSV by people."""

import csv
import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import psycopg
import yaml
from psycopg.pq import TransactionStatus

from metering.pricebook import FAR_FUTURE_US, Assignment, Assignments, Meters, PriceBook
from metering.tariff import Tariff, parse_tariff
from schemas.ids import is_meter_id
from storage.price_book import Books, Part, Section, fetch_books, fetch_sections

TARIFF_DEFAULT_ID = "county-residential"
MODULUS_DEFAULT_WH = 10**12
INTERVAL_DEFAULT_S = 900
METERS_IMPORT_MAX = 2_000_000
IMPORT_COLUMNS = (
    "meter_id",
    "service_point_id",
    "parent_id",
    "tariff_id",
    "rated_power_w",
    "register_modulus_wh",
    "interval_s",
    "installed_on",
)
FAULTS_LISTED_MAX = 200
REGISTRY_AGE_MAX = dt.timedelta(days=30)
LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass
class Registry:
    """Master data as of one version."""

    version: int
    meters: Meters
    prices: PriceBook
    service_point_id: list[str]
    number_of: dict[str, int]
    loaded_on: dt.date = dt.date.max
    """Day that the timelines of tariffs were made around."""

    def meter_no_of(self, meter_id: str) -> int | None:
        """Return the number of a meter, or None when it was not imported."""
        return self.number_of.get(meter_id)


def fetch_version(conn: psycopg.Connection) -> int:
    """Return the version of the master data; it rises with every change."""
    row = conn.execute("select version from registry_version").fetchone()
    assert row is not None
    return int(row[0])


def refresh_registry(conn: psycopg.Connection, registry: Registry) -> Registry:
    """Return the registry, loaded anew if the master data changed since, or it is a month old."""
    row = conn.execute("select version, current_date from registry_version").fetchone()
    assert row is not None
    is_fresh = row[0] == registry.version and row[1] - registry.loaded_on < REGISTRY_AGE_MAX
    return registry if is_fresh else load_registry(conn)


def load_registry(conn: psycopg.Connection) -> Registry:
    """Return all master data, read in one snapshot: our own, or the one that the caller's transaction already has."""
    is_outermost = conn.info.transaction_status == TransactionStatus.IDLE
    with conn.transaction():
        if is_outermost:
            conn.execute("set transaction isolation level repeatable read read only")
        version = fetch_version(conn)
        books = fetch_books(conn)
        sections = fetch_sections(conn, books)
        rows = conn.execute(
            "select meter_no, meter_id, register_modulus_wh, coalesce(rated_power_w, 0), interval_s from meter"
        ).fetchall()
        points = conn.execute("select service_point_no, service_point_id from service_point").fetchall()
        assigned = conn.execute(
            "select meter_no, service_point_no, tariff_id, (extract(epoch from start_at) * 1000000)::bigint,"
            " case when end_at = 'infinity' then null else (extract(epoch from end_at) * 1000000)::bigint end"
            " from meter_assignment order by meter_no, start_at"
        ).fetchall()
        epochs = conn.execute(
            "select meter_no, (extract(epoch from start_at) * 1000000)::bigint from register_epoch"
            " order by meter_no, epoch"
        ).fetchall()
    meters = _meters_from_rows(rows)
    _assign(meters, assigned, sections, books)
    for meter_no, start_us in epochs:
        meters.epochs.setdefault(meter_no, []).append(start_us)
        meters.irregular[meter_no] = True
    number_of = {row[1]: row[0] for row in rows}
    return Registry(
        version, meters, books.prices, _point_names(points, meters, number_of), number_of, loaded_on=books.today
    )


def _point_names(points: list[tuple[int, str]], meters: Meters, number_of: Mapping[str, int]) -> list[str]:
    """Return names by service point number; one that is a meter's too is the same string, for a million are many."""
    names = [""] * (max((no for no, _ in points), default=0) + 1)
    for no, name in points:
        names[no] = meters.meter_id[number_of[name]] if name in number_of else name
    return names


def _meters_from_rows(rows: list[tuple[Any, ...]]) -> Meters:
    size = max((row[0] for row in rows), default=0) + 1
    ids = [""] * size
    columns = np.zeros((3, size), np.int64)
    columns[0] = MODULUS_DEFAULT_WH
    columns[2] = INTERVAL_DEFAULT_S
    for meter_no, meter_id, modulus_wh, rated_w, interval_s in rows:
        ids[meter_no] = meter_id
        columns[:, meter_no] = modulus_wh, rated_w, interval_s
    return Meters(
        meter_id=ids,
        modulus_wh=columns[0],
        rated_power_w=columns[1],
        interval_s=columns[2],
        tariff_index=np.full(size, -1, np.int64),
        service_point_no=np.zeros(size, np.int64),
        start_us=np.full(size, FAR_FUTURE_US, np.int64),
        end_us=np.zeros(size, np.int64),
        irregular=np.zeros(size, np.bool_),
        epochs={},
    )


def _assign(meters: Meters, rows: list[tuple[Any, ...]], sections: Mapping[int, list[Section]], books: Books) -> None:
    """Set the newest assignment of each meter as columns; the meters that have several keep all of them."""
    newest: dict[int, tuple[int, Part]] = {}
    many: list[tuple[int, Assignment]] = []
    first_meter: dict[int, int] = {}
    shared: set[int] = set()
    for meter_no, point_no, tariff_id, start_us, end_us in rows:
        if first_meter.setdefault(point_no, meter_no) != meter_no:
            shared.add(point_no)
        span = start_us, FAR_FUTURE_US if end_us is None else end_us
        for part in books.parts(span, tuple(sections.get(point_no, ())), tariff_id):
            if meter_no in newest:
                if not meters.several[meter_no]:
                    meters.several[meter_no] = True
                    before_no, before = newest[meter_no]
                    many.append((meter_no, Assignment(before_no, *before)))
                many.append((meter_no, Assignment(point_no, *part)))
            newest[meter_no] = point_no, part
    meters.assignments = Assignments(many)
    meters.tariff_index[:] = books.of(None)
    if newest:
        meter_nos = np.fromiter(newest, np.int64, len(newest))
        meters.service_point_no[meter_nos] = [point_no for point_no, _ in newest.values()]
        parts = np.array([part for _, part in newest.values()], np.int64)
        meters.tariff_index[meter_nos] = parts[:, 0]
        meters.start_us[meter_nos], meters.end_us[meter_nos] = parts[:, 1], parts[:, 2]
        meters.whole[meter_nos] = parts[:, 3:]
    if shared:
        meters.shares_point |= np.isin(meters.service_point_no, list(shared))


def import_tariff(conn: psycopg.Connection, path: Path) -> Tariff:
    """Check a tariff document and put it into the database; the same document again changes nothing.

    Raises:
        TariffError: With every fault of the document.
    """
    document = yaml.safe_load(path.read_text("utf-8"))
    tariff = parse_tariff(document)
    text = json.dumps(document, sort_keys=True, default=str, ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    conn.execute(
        "insert into tariff (tariff_id, document, document_sha256) values (%s, %s, %s)"
        " on conflict (tariff_id) do update set document = excluded.document,"
        " document_sha256 = excluded.document_sha256, loaded_at = now()"
        " where tariff.document_sha256 <> excluded.document_sha256",
        (tariff.tariff_id, text, digest),
    )
    return tariff


@dataclasses.dataclass
class ImportReport:
    """What an import did, or why nothing was imported."""

    rows: int = 0
    new: int = 0
    changed: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)
    """`line N, column: fault`, at most FAULTS_LISTED_MAX."""


@dataclasses.dataclass
class _MeterRow:
    line: int
    meter_id: str
    service_point_id: str
    parent_id: str | None
    tariff_id: str
    rated_power_w: int | None
    register_modulus_wh: int
    interval_s: int
    installed_on: dt.date | None


class _Faults(list[str]):
    def add(self, line: int, column: str, fault: str) -> None:
        if len(self) < FAULTS_LISTED_MAX:
            self.append(f"line {line}, {column}: {fault}")


def import_meters(conn: psycopg.Connection, path: Path, *, dry_run: bool = False) -> ImportReport:
    """Import meters from a CSV file, all of it or nothing.

    A meter that is there already is brought up to date; a second meter at a service point takes over from the first on
    the day it was installed. Numbers are given in the order of the file, so the same files give the same numbers.

    Args:
        conn: Connection in autocommit mode.
        path: CSV with a header; `meter_id` is required, the other IMPORT_COLUMNS are optional.
        dry_run: Only check.
    """
    with conn.transaction():
        conn.execute("lock table meter in share row exclusive mode")
        tariffs = {row[0]: row[1] for row in conn.execute("select tariff_id, document->>'zone' from tariff")}
        faults = _Faults()
        rows = _read_rows(path, tariffs, faults)
        report = ImportReport(rows=len(rows), faults=faults)
        if not faults and not dry_run:
            _write_meters(conn, rows, tariffs, report)
        return report


def _read_rows(path: Path, tariffs: Mapping[str, str], faults: _Faults) -> list[_MeterRow]:
    rows: list[_MeterRow] = []
    seen: set[str] = set()
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        if "meter_id" not in names:
            faults.add(1, "header", "column meter_id is missing")
            return rows
        for name in sorted(set(names) - set(IMPORT_COLUMNS)):
            faults.add(1, "header", f"unknown column {name!r}; known are {', '.join(IMPORT_COLUMNS)}")
        for record in reader:
            row = _read_row(reader.line_num, record, tariffs, faults)
            if row.meter_id in seen:
                faults.add(row.line, "meter_id", f"{row.meter_id} is there twice")
            seen.add(row.meter_id)
            rows.append(row)
            if len(rows) > METERS_IMPORT_MAX:
                faults.add(row.line, "file", f"more than {METERS_IMPORT_MAX} meters")
                break
    return rows


def _read_row(line: int, record: Mapping[str, str | None], tariffs: Mapping[str, str], faults: _Faults) -> _MeterRow:
    text = {name: (record.get(name) or "").strip() for name in IMPORT_COLUMNS}

    def number(name: str, default: int | None, low: int, high: int) -> int | None:
        if not text[name]:
            return default
        if not text[name].isascii() or not text[name].isdigit() or not low <= int(text[name]) <= high:
            faults.add(line, name, f"{text[name]!r} is not a whole number from {low} to {high}")
            return default
        return int(text[name])

    if not is_meter_id(text["meter_id"]):
        faults.add(line, "meter_id", f"{text['meter_id']!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")
    tariff_id = text["tariff_id"] or TARIFF_DEFAULT_ID
    if tariff_id not in tariffs:
        faults.add(line, "tariff_id", f"unknown tariff {tariff_id!r}; known are {', '.join(sorted(tariffs))}")
    installed_on = None
    if text["installed_on"]:
        try:
            installed_on = dt.date.fromisoformat(text["installed_on"])
        except ValueError:
            faults.add(line, "installed_on", f"{text['installed_on']!r} is not a date like 2026-11-24")
    return _MeterRow(
        line=line,
        meter_id=text["meter_id"],
        service_point_id=text["service_point_id"] or text["meter_id"],
        parent_id=text["parent_id"] or None,
        tariff_id=tariff_id,
        rated_power_w=number("rated_power_w", None, 1, 2**31 - 1),
        register_modulus_wh=number("register_modulus_wh", MODULUS_DEFAULT_WH, 2, 2**62) or 0,
        interval_s=number("interval_s", INTERVAL_DEFAULT_S, 1, 86400) or 0,
        installed_on=installed_on,
    )


def _write_meters(
    conn: psycopg.Connection, rows: list[_MeterRow], zones: Mapping[str, str], report: ImportReport
) -> None:
    """Write checked rows through staging tables, so that a million meters take seconds."""
    known = {row[0] for row in conn.execute("select meter_id from meter").fetchall()}
    report.new = sum(row.meter_id not in known for row in rows)
    conn.execute(
        "create temp table staged (line int, meter_id text, service_point_id text, parent_id text, tariff_id text,"
        " rated_power_w int, register_modulus_wh bigint, interval_s int, installed_on date, start_at timestamptz)"
        " on commit drop"
    )
    with conn.cursor().copy("copy staged from stdin") as copy:
        for row in rows:
            zone = ZoneInfo(zones[row.tariff_id])
            start_at = dt.datetime.combine(row.installed_on, dt.time(), zone) if row.installed_on else LONG_AGO
            copy.write_row((*dataclasses.astuple(row), start_at))
    conn.execute("create unique index on staged (meter_id)")
    conn.execute("analyze staged")
    conn.execute(
        "insert into meter (meter_no, meter_id, parent_id, rated_power_w, register_modulus_wh, interval_s, installed_on)"
        " select (select coalesce(max(meter_no), 0) from meter) + row_number() over (order by line), meter_id,"
        " parent_id, rated_power_w, register_modulus_wh, interval_s, installed_on"
        " from staged s where not exists (select from meter m where m.meter_id = s.meter_id)"
    )
    changed = conn.execute(
        "update meter m set parent_id = s.parent_id, rated_power_w = s.rated_power_w,"
        " register_modulus_wh = s.register_modulus_wh, interval_s = s.interval_s, installed_on = s.installed_on"
        " from staged s where s.meter_id = m.meter_id and (m.parent_id, m.rated_power_w, m.register_modulus_wh,"
        " m.interval_s, m.installed_on) is distinct from (s.parent_id, s.rated_power_w, s.register_modulus_wh,"
        " s.interval_s, s.installed_on)"
    )
    report.changed = changed.rowcount
    conn.execute(
        "insert into service_point (service_point_no, service_point_id)"
        " select (select coalesce(max(service_point_no), 0) from service_point) + row_number() over (order by line),"
        " service_point_id from (select service_point_id, min(line) as line from staged group by 1) s"
        " where not exists (select from service_point p where p.service_point_id = s.service_point_id)"
    )
    _write_assignments(conn)


def _write_assignments(conn: psycopg.Connection) -> None:
    """Assign new meters; whoever measured the service point before ends where the new one starts."""
    conn.execute(
        "update meter_assignment a set end_at = s.start_at from staged s"
        " join service_point p using (service_point_id) join meter m using (meter_id)"
        " where a.service_point_no = p.service_point_no and a.meter_no <> m.meter_no"
        " and a.end_at > s.start_at and a.start_at < s.start_at"
        " and not exists (select from meter_assignment b where b.meter_no = m.meter_no)"
    )
    conn.execute(
        "insert into meter_assignment (meter_no, service_point_no, tariff_id, start_at)"
        " select m.meter_no, p.service_point_no, s.tariff_id, s.start_at from staged s"
        " join service_point p using (service_point_id) join meter m using (meter_id)"
        " where not exists (select from meter_assignment a where a.meter_no = m.meter_no)"
    )
    conn.execute(
        "update meter_assignment a set tariff_id = s.tariff_id from staged s join meter m using (meter_id)"
        " where a.meter_no = m.meter_no and a.end_at = 'infinity' and a.tariff_id <> s.tariff_id"
    )
