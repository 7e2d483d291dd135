"""Sums of the ledger per meter, for whoever holds the truth from elsewhere and compares."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

import psycopg

from schemas.quality import Quality

STATEMENT_TIMEOUT_MS = 300_000


@dataclasses.dataclass(frozen=True)
class MeterSum:
    """What the ledger holds of one meter in a span."""

    energy_wh: int
    export_energy_wh: int
    readings: int
    """Accepted readings; a correction is none."""
    flags: dict[str, int]
    """Number of live intervals by quality word; plain ones are left out."""


@dataclasses.dataclass(frozen=True)
class MeterEnds:
    """First and newest reading of one meter."""

    first_at: dt.datetime
    last_at: dt.datetime
    import_wh: int
    export_wh: int | None


def fetch_meter_sums(
    conn: psycopg.Connection, meter_ids: Sequence[str], start: dt.datetime, end: dt.datetime
) -> dict[str, MeterSum]:
    """Return the sums of the intervals that end in [start, end], by meter; a meter without facts is left out."""
    with conn.transaction():
        conn.execute(f"set local statement_timeout = {STATEMENT_TIMEOUT_MS}")
        rows = conn.execute(
            "select m.meter_id, sum(energy_wh)::bigint, sum(export_energy_wh)::bigint,"
            " count(*) filter (where revision = 0) from fact f join meter m using (meter_no)"
            " where m.meter_id = any(%s) and f.end_at >= %s and f.end_at <= %s group by 1",
            (list(meter_ids), start, end),
        ).fetchall()
        flagged = conn.execute(
            "select meter_id, quality, count(*) from (select distinct on (meter_no, epoch, end_at) meter_no, quality"
            " from fact where meter_no in (select meter_no from meter where meter_id = any(%s)) and end_at >= %s"
            " and end_at <= %s order by meter_no, epoch, end_at, revision desc) live join meter m using (meter_no)"
            " where quality <> 0 group by 1, 2",
            (list(meter_ids), start, end),
        ).fetchall()
    flags: dict[str, dict[str, int]] = {}
    for meter_id, quality, count in flagged:
        of_meter = flags.setdefault(meter_id, {})
        for word in Quality(quality).words:
            of_meter[word] = of_meter.get(word, 0) + count
    return {row[0]: MeterSum(row[1], row[2], row[3], flags.get(row[0], {})) for row in rows}


def fetch_meter_ends(conn: psycopg.Connection, meter_ids: Sequence[str]) -> dict[str, MeterEnds]:
    """Return the first and the newest reading in the ledger, by meter; a meter without facts is left out."""
    rows = conn.execute(
        "select m.meter_id, first.end_at, newest.end_at, newest.import_wh, newest.export_wh from meter m"
        " cross join lateral (select end_at from fact f where f.meter_no = m.meter_no order by end_at limit 1) first"
        " cross join lateral (select end_at, import_wh, export_wh from fact f where f.meter_no = m.meter_no"
        " order by end_at desc, revision desc limit 1) newest where m.meter_id = any(%s)",
        (list(meter_ids),),
    ).fetchall()
    return {row[0]: MeterEnds(*row[1:]) for row in rows}


def count_settled(conn: psycopg.Connection) -> tuple[int, int]:
    """Return how many readings of all meters settlement accepted, and how many it took for duplicates, ever."""
    row = conn.execute(
        "select coalesce(sum(accepted), 0)::bigint, coalesce(sum(duplicate), 0)::bigint from stream_offset"
        " where consumer = 'settle'"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def count_dead_letters_of(
    conn: psycopg.Connection, meter_ids: Sequence[str], mqtt_topics: Sequence[str]
) -> list[tuple[str, str, str | None, int]]:
    """Return stage, code, meter and number of the dead letters of some meters, or that came by some MQTT topics."""
    return conn.execute(
        "select stage, code, meter_id, count(*) from dead_letter where meter_id = any(%s) or mqtt_topic = any(%s)"
        " group by 1, 2, 3 order by 1, 2, 3",
        (list(meter_ids), list(mqtt_topics)),
    ).fetchall()


def fetch_masters(conn: psycopg.Connection, meter_ids: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
    """Return service point and tariff as of now of the meters that are in the master data, by meter."""
    rows = conn.execute(
        "select m.meter_id, p.service_point_id, a.tariff_id from meter m left join lateral (select * from"
        " meter_assignment a where a.meter_no = m.meter_no order by start_at desc limit 1) a on true"
        " left join service_point p using (service_point_no) where m.meter_id = any(%s)",
        (list(meter_ids),),
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def fetch_tariff_zones(conn: psycopg.Connection) -> dict[str, str]:
    """Return the time zone of each tariff."""
    return {row[0]: row[1] for row in conn.execute("select tariff_id, document->>'zone' from tariff order by 1")}
