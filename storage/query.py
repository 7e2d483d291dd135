"""What pages and the REST interface read."""

import datetime as dt
from typing import Any

import psycopg
from psycopg.rows import dict_row

ROWS_MAX = 10_000
_LIVE = (
    "(select distinct on (epoch, end_at) * from fact where meter_no = %(no)s and end_at > %(start)s and end_at <= %(end)s"
    " order by epoch, end_at, revision desc) f"
)


def fetch_meter(conn: psycopg.Connection, meter_id: str) -> dict[str, Any] | None:
    """Return the master data of a meter, or None."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select m.meter_no, m.meter_id, m.parent_id, m.rated_power_w, m.interval_s, a.tariff_id, p.service_point_id"
            " from meter m left join lateral (select * from meter_assignment a where a.meter_no = m.meter_no"
            " order by start_at desc limit 1) a on true left join service_point p using (service_point_no)"
            " where m.meter_id = %s",
            (meter_id,),
        ).fetchone()


def fetch_readings(
    conn: psycopg.Connection, meter_no: int, start: dt.datetime, end: dt.datetime, limit: int = ROWS_MAX
) -> list[dict[str, Any]]:
    """Return the live readings of a meter with an end in (start, end], oldest first, with where each came from."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"select start_at, end_at, energy_wh, import_wh, export_wh, export_energy_wh, quality, period, power_w,"
            f" voltage_v1, current_a1, seq, boot_id, revision, raw_partition, raw_offset, raw_index from {_LIVE}"
            " order by end_at limit %(limit)s",
            {"no": meter_no, "start": start, "end": end, "limit": min(limit, ROWS_MAX)},
        ).fetchall()


def fetch_last_reading(conn: psycopg.Connection, meter_no: int) -> dict[str, Any] | None:
    """Return the newest live reading of a meter, or None."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select start_at, end_at, energy_wh, import_wh, export_wh, export_energy_wh, quality, power_w, voltage_v1,"
            " current_a1, seq, boot_id, raw_partition, raw_offset, raw_index from fact where meter_no = %s"
            " order by end_at desc, revision desc limit 1",
            (meter_no,),
        ).fetchone()


def fetch_events(conn: psycopg.Connection, meter_no: int, limit: int = 20) -> list[dict[str, Any]]:
    """Return the newest events of a meter."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select at, code, detail, raw_partition, raw_offset, raw_index from meter_event where meter_no = %s"
            " order by at desc limit %s",
            (meter_no, limit),
        ).fetchall()


def fetch_load_curve(
    conn: psycopg.Connection, start: dt.datetime, end: dt.datetime
) -> list[tuple[dt.datetime, int, int, int]]:
    """Return start, used Wh, fed-in Wh and number of readings of each quarter-hour with data in [start, end)."""
    return conn.execute(
        "select date_bin('15 minutes', quarter, '2000-01-01'), sum(energy_wh)::bigint, sum(export_energy_wh)::bigint,"
        " sum(readings)::bigint from load_quarter where quarter >= %s and quarter < %s group by 1 order by 1",
        (start, end),
    ).fetchall()


def fetch_newest_powers(conn: psycopg.Connection, since: dt.datetime) -> list[tuple[str, dt.datetime, int]]:
    """Return meter, time and mean net power of the newest interval, W, of the meters read since an instant."""
    return conn.execute(
        "select m.meter_id, f.end_at, ((f.energy_wh - f.export_energy_wh) * 3600"
        " / greatest(extract(epoch from f.end_at - f.start_at), 1))::bigint from (select distinct on (meter_no) * from fact"
        " where end_at > %s order by meter_no, end_at desc, revision desc) f join meter m using (meter_no)",
        (since,),
    ).fetchall()


def fetch_overview(conn: psycopg.Connection) -> dict[str, Any]:
    """Return the counts that the live page begins with."""
    row = conn.execute(
        "select (select count(*) from meter), (select count(*) from dead_letter where state = 'new'),"
        " (select coalesce(sum(readings), 0) from stream_offset where consumer = 'settle'),"
        " (select coalesce(max(interval_s), 900) from meter)"
    ).fetchone()
    assert row is not None
    return {"meters": row[0], "dead_letters": row[1], "readings": int(row[2]), "interval_s_max": row[3]}


def fetch_progress(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """Return how far each consumer has come in each partition, by the database."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select consumer, topic, partition, next_offset, checkpoint_offset, readings, accepted, duplicate, late,"
            " refused, refused_before, updated_at, to_timestamp(watermark_us / 1e6) as watermark from stream_offset"
            " order by 1, 2, 3"
        ).fetchall()


def fetch_alarm_subjects(conn: psycopg.Connection, subject: str) -> list[dict[str, Any]]:
    """Return the alarms of one subject, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select alarm_id, kind, priority, state, detail, raised_at, cleared_at from alarm where subject = %s"
            " order by cleared_at is not null, raised_at desc limit 20",
            (subject,),
        ).fetchall()
