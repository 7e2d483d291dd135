"""What pages and the REST interface read."""

import datetime as dt
from typing import Any

import psycopg
from psycopg.rows import dict_row

from storage.offset import fetch_later_facts_from
from storage.snapshot import one_snapshot

ROWS_MAX = 10_000
STAGES = ("validate", "settle", "detect")
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
            f" voltage_v1, current_a1, seq, boot_id, revision, raw_partition, raw_offset,"
            f" raw_index_of(raw_place) as raw_index from {_LIVE}"
            " order by end_at limit %(limit)s",
            {"no": meter_no, "start": start, "end": end, "limit": min(limit, ROWS_MAX)},
        ).fetchall()


def fetch_last_reading(conn: psycopg.Connection, meter_no: int) -> dict[str, Any] | None:
    """Return the newest live reading of a meter, or None.

    It is not older than the one in the meter's checkpoint, or comes after its partition's checkpoint where there is none;
    without that bound every day of facts there is would be opened.
    """
    with one_snapshot(conn):
        row = conn.execute(
            "select (to_timestamp(0) + last_at * interval '1 microsecond')::text from meter_state"
            " where meter_no = %s and last_at >= 0",
            (meter_no,),
        ).fetchone()
        since = row[0] if row else fetch_later_facts_from(conn)
        with conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(
                "select start_at, end_at, energy_wh, import_wh, export_wh, export_energy_wh, quality, power_w, voltage_v1,"
                " current_a1, seq, boot_id, revision, raw_partition, raw_offset,"
                " raw_index_of(raw_place) as raw_index from fact where meter_no = %s"
                " and end_at >= %s::timestamptz order by end_at desc, revision desc limit 1",
                (meter_no, since),
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
    """Return start, used Wh, fed-in Wh and number of readings of each quarter-hour with data that begins in [start, end)."""
    return conn.execute(
        "select quarter_at, energy_wh, export_energy_wh, readings from load_curve(%s, %s) order by 1", (start, end)
    ).fetchall()


def fetch_long_spans(
    conn: psycopg.Connection, start: dt.datetime, end: dt.datetime
) -> list[tuple[dt.datetime, dt.datetime, int, int]]:
    """Return start, end, used Wh and fed-in Wh of the long intervals that touch [start, end): not in the load curve.

    Intervals that begin in one quarter-hour and end in another are added up, their starts and ends averaged, so that an
    outage of a whole town is a few rows.
    """
    return conn.execute(
        "select to_timestamp(avg(extract(epoch from start_at))), to_timestamp(avg(extract(epoch from end_at))),"
        " sum(energy_wh)::bigint, sum(export_energy_wh)::bigint from fact"
        " where quality & 16 > 0 and start_at < end_at and end_at > %s and start_at < %s"
        " group by date_bin('15 minutes', start_at, timestamptz '2000-01-01 00:00+00'),"
        " date_bin('15 minutes', end_at, timestamptz '2000-01-01 00:00+00')"
        " having sum(energy_wh) <> 0 or sum(export_energy_wh) <> 0 order by 1",
        (start, end),
    ).fetchall()


def fetch_newest_powers(conn: psycopg.Connection, since: dt.datetime) -> list[tuple[int, int, int]]:
    """Return meter number, end (epoch µs) and mean net power of the newest interval, W, of the meters read since then."""
    return conn.execute(
        "select meter_no, (extract(epoch from end_at) * 1000000)::bigint, ((energy_wh - export_energy_wh) * 3600"
        " / greatest(extract(epoch from end_at - start_at), 1))::bigint from (select distinct on (meter_no) * from fact"
        " where end_at > %s order by meter_no, end_at desc, revision desc) f where start_at < end_at",
        (since,),
    ).fetchall()


def fetch_bins(
    conn: psycopg.Connection, meter_no: int, start: dt.datetime, end: dt.datetime, bin_s: int
) -> list[dict[str, Any]]:
    """Return the live intervals of a meter that end in (start, end], added up by bins of the clock, oldest first.

    An interval longer than a bin stays by itself, so that its energy does not pile up where it ended.

    Args:
        conn: Connection.
        meter_no: Number of the meter.
        start: Lower bound of ends.
        end: Upper bound of ends.
        bin_s: Length of a bin, seconds.

    Returns:
        Rows with `start_at`, `end_at`, `covered_s` (below end - start where readings are missing), `energy_wh`,
        `export_energy_wh`, `quality` (all flags together) and `intervals`; at most ROWS_MAX.
    """
    width = dt.timedelta(seconds=bin_s)
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select min(start_at) as start_at, max(end_at) as end_at,"
            " extract(epoch from sum(end_at - start_at))::float8 as covered_s, sum(energy_wh)::bigint as energy_wh,"
            " sum(export_energy_wh)::bigint as export_energy_wh, bit_or(quality) as quality, count(*) as intervals"
            f" from {_LIVE} where start_at < end_at group by case when end_at - start_at > %(bin)s then end_at"
            " else date_bin(%(bin)s, end_at - interval '1 microsecond', timestamptz '2000-01-01 00:00+00') + %(bin)s end,"
            " end_at - start_at > %(bin)s order by 2 limit %(limit)s",
            {"no": meter_no, "start": start, "end": end, "bin": width, "limit": ROWS_MAX},
        ).fetchall()


def fetch_period_days(
    conn: psycopg.Connection, meter_no: int, start: dt.datetime, end: dt.datetime, zone: str, period: int | None
) -> list[dict[str, Any]]:
    """Return the live intervals in a billing cycle added up by local day, oldest first.

    Args:
        conn: Connection.
        meter_no: Number of the meter.
        start: Of the cycle; intervals that begin before it count by what `period` says, never twice.
        end: Upper bound of ends.
        zone: Name of the tariff's time zone.
        period: Price bucket as kept in the facts; None: all.

    Returns:
        Rows with `day`, `energy_wh`, `export_energy_wh`, `covered_s`, `intervals`, and of these `long`, `high` and `late`;
        `long_wh` is the energy of the long ones.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select ((end_at - interval '1 microsecond') at time zone %(zone)s)::date as day,"
            " sum(energy_wh)::bigint as energy_wh, sum(export_energy_wh)::bigint as export_energy_wh,"
            " extract(epoch from sum(end_at - start_at))::float8 as covered_s, count(*) as intervals,"
            " count(*) filter (where quality & 16 > 0) as long, count(*) filter (where quality & 32 > 0) as high,"
            " coalesce(sum(energy_wh) filter (where quality & 16 > 0), 0)::bigint as long_wh,"
            f" count(*) filter (where quality & 8 > 0) as late from {_LIVE} where start_at < end_at"
            " and (%(period)s::int is null or period = %(period)s) group by 1 order by 1",
            {"no": meter_no, "start": start, "end": end, "zone": zone, "period": period},
        ).fetchall()


def fetch_newest_of_period(
    conn: psycopg.Connection, meter_no: int, start: dt.datetime, end: dt.datetime, period: int | None, limit: int
) -> list[dict[str, Any]]:
    """Return the newest live intervals in (start, end] of one price bucket, or of all, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select start_at, end_at, energy_wh, import_wh, quality, raw_partition, raw_offset,"
            " raw_index_of(raw_place) as raw_index"
            f" from {_LIVE} where start_at < end_at and (%(period)s::int is null or period = %(period)s)"
            " order by end_at desc limit %(limit)s",
            {"no": meter_no, "start": start, "end": end, "period": period, "limit": limit},
        ).fetchall()


def fetch_overview(conn: psycopg.Connection) -> dict[str, Any]:
    """Return the counts of the live page: new dead letters, when the newest came, and readings settled ever."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "select (select count(*) from dead_letter where state = 'new') as dead_letters,"
            " (select received_at from dead_letter order by dead_letter_id desc limit 1) as dead_letter_at,"
            " (select coalesce(sum(readings), 0)::bigint from stream_offset where consumer = 'settle') as readings"
        ).fetchone()
    assert row is not None
    return row


def fetch_progress(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """Return how far each consumer has come in each partition, by the database; `watermark` is null before the first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select consumer, topic, partition, next_offset, checkpoint_offset, readings, accepted, duplicate, late,"
            " refused, refused_before, updated_at,"
            " case when watermark_us > 0 then to_timestamp(watermark_us / 1e6) end as watermark from stream_offset"
            " order by 1, 2, 3"
        ).fetchall()


def fetch_refusals(conn: psycopg.Connection, partition: int, offset: int, index: int) -> list[dict[str, Any]]:
    """Return the dead letters that one raw message, or one element of it, became, with their bytes."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select dead_letter_id, stage, code, detail, mqtt_topic, meter_id, received_at, state, payload"
            " from dead_letter where stage = any(%s) and raw_partition = %s and raw_offset = %s and raw_index = %s",
            (list(STAGES), partition, offset, index),
        ).fetchall()


def fetch_alarm_subjects(conn: psycopg.Connection, subject: str) -> list[dict[str, Any]]:
    """Return the alarms of one subject, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select alarm_id, kind, priority, state, detail, raised_at, cleared_at from alarm where subject = %s"
            " order by cleared_at is not null, raised_at desc limit 20",
            (subject,),
        ).fetchall()
