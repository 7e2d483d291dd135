"""What the second rater is given, by simple queries of its own, as it was known at an instant.

Contracts, tariffs, published days and prices; and the load of a service point straight from the facts.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg

from metering.second_clock import Flags, Interval
from metering.second_cycle import Days, Part
from metering.second_energy import Series

US = 1_000_000
Conn = psycopg.Connection[Any]
FAR_DAY = dt.date(9999, 12, 31)
MARGIN = dt.timedelta(days=2)
"""How far before a span the reading is looked for that its first rise of reactive energy begins with."""
REGISTERS = ("import_wh", "export_wh", "import_varh", "export_varh")
Row = dict[str, Any]
Instant = dt.datetime | str
"""Aware, or NOW."""
NOW = "infinity"


def instant(at_us: int) -> dt.datetime:
    """Return an instant of epoch µs."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=at_us)


# -- master data ----------------------------------------------------------------------------------------------------------


def fetch_document(conn: Conn, tariff_id: str, at: Instant) -> tuple[int, Mapping[str, Any]] | None:
    """Return number and text of the newest document of a tariff at an instant."""
    row = conn.execute(
        "select tariff_document_no, document from tariff_document where tariff_id = %s and loaded_at <= %s::timestamptz"
        " order by tariff_document_no desc limit 1",
        (tariff_id, at),
    ).fetchone()
    return None if row is None else (int(row[0]), row[1])


def fetch_document_no(conn: Conn, number: int) -> Mapping[str, Any]:
    """Return a tariff document by its number.

    Raises:
        ValueError: There is none.
    """
    row = conn.execute("select document from tariff_document where tariff_document_no = %s", (number,)).fetchone()
    if row is None:
        raise ValueError(f"there is no tariff document {number}")
    found: Mapping[str, Any] = row[0]
    return found


def fetch_parts(
    conn: Conn, contract_no: int, span: Days, at: Instant, since: dt.date = FAR_DAY
) -> list[tuple[Days, str, dict[str, Decimal]]]:
    """Return the parts of a span that a contract covers, with tariff and terms, as they were entered at an instant.

    When a contract was ended later, it is as before that: the audit trail says so. A contract that began on `since` or before
    has its first day from then.
    """
    row = conn.execute(
        "select c.start_on, coalesce(c.end_on, 'infinity')::text, (select coalesce(a.detail ->> 'before', 'infinity')"
        " from audit a where a.action = 'contract.end' and a.subject = c.contract_id and a.at > %s::timestamptz"
        " order by a.audit_no limit 1) from contract c where c.contract_no = %s",
        (at, contract_no),
    ).fetchone()
    assert row is not None
    start_on, end_on = row[0], _day(row[1] if row[2] is None else row[2])
    rows = conn.execute(
        "select start_on, tariff_id, terms from contract_tariff where contract_no = %(no)s"
        " and entered_at <= %(at)s::timestamptz"
        " and (replaced_at is null or replaced_at > %(at)s::timestamptz) order by start_on",
        {"no": contract_no, "at": at},
    ).fetchall()
    found = []
    for place, (from_on, tariff_id, terms) in enumerate(rows):
        until = rows[place + 1][0] if place + 1 < len(rows) else FAR_DAY
        low, high = max(from_on, min(start_on, since), span[0]), min(until, end_on, span[1])
        if low < high:
            found.append(((low, high), str(tariff_id), {name: Decimal(value) for name, value in terms.items()}))
    return found


def _day(text: str) -> dt.date:
    return FAR_DAY if text == "infinity" else dt.date.fromisoformat(text)


def documented(conn: Conn, rows: Sequence[tuple[Days, str, dict[str, Decimal]]], at: Instant) -> list[Part]:
    """Return parts with the tariff documents that held at an instant.

    Raises:
        ValueError: One was not there.
    """
    parts = []
    for days, tariff_id, terms in rows:
        found = fetch_document(conn, tariff_id, at)
        if found is None:
            raise ValueError(f"there was no tariff {tariff_id}")
        parts.append(Part(days, tariff_id, terms, found[1]))
    return parts


def fetch_published(
    conn: Conn, names: Iterable[str], span_s: tuple[int, int], at: Instant
) -> tuple[Flags, Mapping[str, Series]]:
    """Return days by flag and prices by series around a span of time, as they were published at an instant."""
    given = {
        "low": instant(span_s[0] * US) - MARGIN,
        "high": instant(span_s[1] * US) + MARGIN,
        "names": sorted(names),
        "at": at,
    }
    flags: dict[str, set[dt.date]] = {}
    for flag, day in conn.execute(
        "select flag, day from day_flag where day between %(low)s::date and %(high)s::date"
        " and published_at <= %(at)s::timestamptz and coalesce(withdrawn_at > %(at)s::timestamptz, true)",
        given,
    ):
        flags.setdefault(flag, set()).add(day)
    series: dict[str, dict[int, Decimal]] = {}
    for name, start_s, price in conn.execute(
        "select series, extract(epoch from start_at)::int8, price from price_series where series = any(%(names)s)"
        " and start_at between %(low)s and %(high)s and published_at <= %(at)s::timestamptz order by published_at",
        given,
    ):
        series.setdefault(name, {})[start_s] = price  # of one instant the one published last
    return {flag: frozenset(days) for flag, days in flags.items()}, dict(series)


# -- the load -------------------------------------------------------------------------------------------------------------

_FACT = (
    "select epoch, (extract(epoch from start_at) * 1000000)::int8 as start_us, (extract(epoch from end_at) * 1000000)::int8"
    " as end_us, revision, energy_wh as import_wh, export_energy_wh as export_wh, export_wh as fed_register,"
    " import_varh, export_varh from fact f where meter_no = %(meter)s"
    " and (%(position)s::jsonb is null or f.frame_offset < coalesce((%(position)s::jsonb ->> f.frame_partition::text)::int8, 0))"
)


def fetch_intervals(
    conn: Conn, service_point_no: int, span_s: tuple[int, int], step_s: int, position: str | None
) -> list[Interval]:
    """Return the load of a service point in equal intervals, those that readings cover at least in part.

    Args:
        conn: Connection.
        service_point_no: Where.
        span_s: From when to when, epoch s.
        step_s: Length of an interval, s; a longer fact is spread evenly over them, what is before an edge rounded down.
        position: Only facts below it: JSON of offsets by partition; None is all.
    """
    low_us, high_us = span_s[0] * US, span_s[1] * US
    totals: dict[int, list[int]] = {}
    known: set[str] = {"import_wh"}
    for meter_no, from_us, to_us in conn.execute(
        "select meter_no, greatest((extract(epoch from start_at) * 1000000)::int8, %(low)s), case when end_at = 'infinity'"
        " then %(high)s else least((extract(epoch from end_at) * 1000000)::int8, %(high)s) end from meter_assignment"
        " where service_point_no = %(point)s and start_at < %(until)s and end_at > %(since)s",
        {
            "low": low_us,
            "high": high_us,
            "point": service_point_no,
            "since": instant(low_us),
            "until": instant(high_us),
        },
    ).fetchall():
        for fact in _facts(conn, meter_no, (from_us, to_us), position):
            known |= {name for name in ("import_varh", "export_varh") if fact["has_" + name]}
            known |= {"export_wh"} if fact["fed_register"] is not None else set()
            _spread(fact, max(from_us, fact["start_us"]), min(to_us, fact["end_us"]), step_s * US, totals)
    return [
        Interval(
            slot * step_s,
            step_s,
            **{name: wh if name in known else None for name, wh in zip(REGISTERS, row, strict=True)},  # type: ignore[arg-type]
        )
        for slot, row in sorted(totals.items())
    ]


def _facts(conn: Conn, meter_no: int, span_us: tuple[int, int], position: str | None) -> list[Row]:
    """Return the live facts of a meter about a span, in order, with how far reactive registers rose over each."""
    given = {
        "meter": meter_no,
        "position": position,
        "since": instant(span_us[0]) - MARGIN,
        "until": instant(span_us[1]),
    }
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute(f"{_FACT} and end_at > %(since)s and end_at <= %(until)s", given).fetchall()
        # Facts follow each other: of those that end later only the first can begin before.
        rows += cursor.execute(
            f"{_FACT} and end_at > %(until)s order by end_at, revision desc limit 1", given
        ).fetchall()
    newest: dict[int, Row] = {}
    for row in rows:
        if row["end_us"] not in newest or newest[row["end_us"]]["revision"] < row["revision"]:
            newest[row["end_us"]] = row
    live = [newest[end] for end in sorted(newest) if newest[end]["revision"] % 2 == 0]
    before: Row | None = None
    found = []
    for row in live:
        values: Row = dict(row)
        for name in ("import_varh", "export_varh"):
            values["has_" + name] = row[name] is not None
            is_next = before is not None and before["epoch"] == row["epoch"] and before[name] is not None
            values[name] = max(0, row[name] - before[name]) if is_next and before and row[name] is not None else 0
        before = row
        found.append(values)
    return found


def _spread(fact: Row, low_us: int, high_us: int, step_us: int, totals: dict[int, list[int]]) -> None:
    """Add the energies of a fact between two instants to the slots that they lie in."""
    start_us, length_us = fact["start_us"], fact["end_us"] - fact["start_us"]
    at_us = low_us
    while at_us < high_us:
        slot = at_us // step_us
        until_us = min((slot + 1) * step_us, high_us)
        row = totals.setdefault(slot, [0] * len(REGISTERS))
        for place, name in enumerate(REGISTERS):
            until, before = (fact[name] * (edge - start_us) // length_us for edge in (until_us, at_us))
            row[place] += until - before
        at_us = until_us
