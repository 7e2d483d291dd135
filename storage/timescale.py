"""TimescaleDB where it is: facts in daily chunks that become columns, and the load curve kept ready (design §3.9).

Money does not depend on it: the same statements write and read `fact` whether it is a hypertable or partitioned natively.
Facts are kept for ever. There is no retention policy, and `gridtally check` refuses one: dropping a day would take the
entries away that bills, late readings and the sum check stand on. As columns a meter at 15 minutes takes 0.4 MB a year.
"""

import sys

import psycopg
from psycopg import sql

VERSION_MIN = (2, 28, 3)
"""Older ones lost rows at a conflict in a compressed chunk (#7672) or refreshed aggregates wrongly (#9571)."""
COLUMNSTORE_AFTER = "35 days"
"""Late readings are cheaper before; after it they still work, and their chunk is converted again."""
REFRESH_LAG = "1 hour"
"""The newest quarter-hours are read from the facts themselves, so that they are never stale."""

# No segmentby, ordered by meter and time: 36 bytes a row where segments by meter took 66 (reference/peers.md). The range of
# frame offsets keeps the search for facts after a checkpoint short. Without the Bloom filter of the key, which TimescaleDB
# adds by itself, a reading takes 1.2 bytes less and late rows enter a compressed chunk 30 % faster.
_HYPERTABLE = f"""
    alter table fact rename to fact_native;
    create table fact (like fact_native including defaults including constraints);
    drop table fact_native;
    select create_hypertable('fact', by_range('end_at', interval '1 day'), create_default_indexes => false);
    create unique index fact_key on fact (meter_no, end_at, revision);
    create index fact_frame on fact using brin (frame_offset) with (pages_per_range = 32, autosummarize = on);
    create trigger fact_append_only before update or delete on fact
        for each row execute function refuse_change();
    create trigger fact_never_truncated before truncate on fact
        for each statement execute function refuse_change();
    alter table fact set (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'meter_no, end_at, revision', timescaledb.sparse_index = 'minmax(frame_offset)');
    call add_columnstore_policy('fact', after => interval '{COLUMNSTORE_AFTER}');
"""
# A bucket of [q + 1 µs, q + 15 min + 1 µs) holds the ends in (q, q + 15 min]. Refreshing begins at the oldest change, however
# old (no start_offset): a late reading marks only its own day, and history loaded afterwards is in the chart too.
_LOAD_QUARTER = f"""
    create materialized view load_quarter with (timescaledb.continuous, timescaledb.materialized_only = false) as
        select time_bucket('15 minutes', end_at, "offset" => interval '1 microsecond') as quarter_at,
               sum(energy_wh)::bigint as energy_wh, sum(export_energy_wh)::bigint as export_energy_wh,
               count(*) filter (where revision % 2 = 0) as readings
        from fact where quality & 16 = 0 and start_at < end_at group by 1 with no data;
    select add_continuous_aggregate_policy('load_quarter', start_offset => null,
        end_offset => interval '{REFRESH_LAG}', schedule_interval => interval '15 minutes');
    create or replace function load_curve(from_at timestamptz, until_at timestamptz)
        returns table (quarter_at timestamptz, energy_wh bigint, export_energy_wh bigint, readings bigint)
        language sql stable as $$
        select q.quarter_at - interval '1 microsecond', q.energy_wh, q.export_energy_wh, q.readings
        from load_quarter q where q.quarter_at > from_at and q.quarter_at <= until_at
    $$;
"""


def has_timescaledb(conn: psycopg.Connection) -> bool:
    """Return whether the facts are in a hypertable."""
    installed = conn.execute("select 1 from pg_extension where extname = 'timescaledb'").fetchone()
    return installed is not None and (
        conn.execute("select 1 from timescaledb_information.hypertables where hypertable_name = 'fact'").fetchone()
        is not None
    )


def use_timescaledb(conn: psycopg.Connection) -> None:
    """Make `fact` a hypertable where TimescaleDB can be used and there are no facts yet; else say why not, and leave it."""
    version = conn.execute(
        "select coalesce(installed_version, default_version) from pg_available_extensions where name = 'timescaledb'"
    ).fetchone()
    if version is None or has_timescaledb(conn):
        return
    obstacle = _obstacle(conn, version[0])
    if obstacle:
        print(f"TimescaleDB is not used: {obstacle}; facts are in daily partitions", file=sys.stderr)  # noqa: T201
        return
    conn.execute("create extension if not exists timescaledb")
    with conn.transaction():
        conn.execute(sql.SQL(_HYPERTABLE))
        conn.execute(sql.SQL(_LOAD_QUARTER))


def _obstacle(conn: psycopg.Connection, version: str) -> str:
    if conn.execute("select 1 from fact limit 1").fetchone():
        return "there are facts already"
    if _version(version) < VERSION_MIN:
        return f"version {version} is older than {'.'.join(map(str, VERSION_MIN))}"
    preloaded = conn.execute("show shared_preload_libraries").fetchone()
    if preloaded is None or "timescaledb" not in preloaded[0]:
        return "shared_preload_libraries does not name it"
    return ""


def _version(text: str) -> tuple[int, ...]:
    """Return a version as numbers.

    Example:
        >>> _version("2.30.0-dev")
        (2, 30, 0)
    """
    return tuple(int(part) for part in text.split("-", 1)[0].split("."))


def refresh_load_curve(conn: psycopg.Connection) -> None:
    """Bring the materialised quarter-hours up to date, as the policy does; outside of a transaction."""
    conn.execute(
        sql.SQL("call refresh_continuous_aggregate('load_quarter', null, now() - interval {})").format(REFRESH_LAG)
    )
