"""Migrations: numbered SQL files, each applied once, in order, under one lock."""

import hashlib
import sys
from pathlib import Path

import psycopg
from psycopg import sql

MIGRATIONS_DIR = Path(__file__).parent / "migrations"
LOCK_KEY = 0x6772_6964  # "grid": one migrator at a time


class MigrationError(RuntimeError):
    """The database and the migration files do not fit together."""


def migrate(dsn: str) -> list[str]:
    """Bring the database to the newest schema and return the names of what was applied.

    Raises:
        MigrationError: An applied migration was changed afterwards, or the database is newer than this program.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pg_advisory_lock(%s)", (LOCK_KEY,))
        conn.execute(
            "create table if not exists migration (name text primary key, sha256 text not null,"
            " applied_at timestamptz not null default now())"
        )
        known: dict[str, str] = dict(conn.execute("select name, sha256 from migration").fetchall())
        files = sorted(MIGRATIONS_DIR.glob("*.sql"))
        newer = set(known) - {file.name for file in files}
        if newer:
            raise MigrationError(f"the database has migrations unknown to this program: {sorted(newer)}")
        applied = [file.name for file in files if _apply(conn, file, known.get(file.name))]
        _use_timescaledb(conn)
        return applied


def _apply(conn: psycopg.Connection, file: Path, known_sha256: str | None) -> bool:
    text = file.read_text("utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    if known_sha256 is not None:
        if known_sha256 != digest:
            raise MigrationError(f"{file.name} was changed after it was applied")
        return False
    with conn.transaction():
        conn.execute(text)  # type: ignore[arg-type]  # our own file, not input
        conn.execute("insert into migration (name, sha256) values (%s, %s)", (file.name, digest))
    return True


def has_timescaledb(conn: psycopg.Connection) -> bool:
    """Return whether the extension is installed in this database."""
    return conn.execute("select 1 from pg_extension where extname = 'timescaledb'").fetchone() is not None


def _use_timescaledb(conn: psycopg.Connection) -> None:
    """Make `fact` a hypertable where the extension can be had and the table is still empty.

    One-day chunks, no ``segmentby``, ordered by meter and time: design §3.9 has the measurements.
    """
    available = conn.execute("select 1 from pg_available_extensions where name = 'timescaledb'").fetchone()
    if not available:
        return
    if not has_timescaledb(conn):
        conn.execute("create extension if not exists timescaledb")
    if conn.execute("select 1 from pg_class where relname = 'fact' and relkind = 'r'").fetchone():
        return
    if conn.execute("select 1 from fact limit 1").fetchone():
        print("timescaledb is there, but fact already has rows in native partitions: left as it is", file=sys.stderr)  # noqa: T201
        return
    with conn.transaction():
        _recreate_fact_as_hypertable(conn)


def _recreate_fact_as_hypertable(conn: psycopg.Connection) -> None:
    conn.execute("drop view load_quarter")
    conn.execute("alter table fact rename to fact_native")
    conn.execute("create table fact (like fact_native including defaults including constraints)")
    conn.execute("drop table fact_native")
    for statement in (
        "select create_hypertable('fact', by_range('end_at', interval '1 day'), create_default_indexes => false)",
        "create unique index fact_key on fact (meter_no, end_at, revision)",
        "create index fact_frame on fact using brin (frame_offset) with (pages_per_range = 32, autosummarize = on)",
        "create trigger fact_append_only before update or delete on fact for each row execute function refuse_change()",
        (
            "alter table fact set (timescaledb.enable_columnstore, timescaledb.segmentby = '',"
            " timescaledb.orderby = 'meter_no, end_at, revision')"
        ),
        "call add_columnstore_policy('fact', after => interval '35 days')",
        (
            "create materialized view load_quarter with (timescaledb.continuous, timescaledb.materialized_only = false) as"
            " select time_bucket('15 minutes', end_at, \"offset\" => interval '1 microsecond') as quarter,"
            " sum(energy_wh)::bigint as energy_wh, sum(export_energy_wh)::bigint as export_energy_wh,"
            " count(*) filter (where revision % 2 = 0) as readings"
            " from fact where quality & 16 = 0 and start_at < end_at group by 1 with no data"
        ),
        (
            "select add_continuous_aggregate_policy('load_quarter', start_offset => interval '40 days',"
            " end_offset => interval '1 hour', schedule_interval => interval '15 minutes')"
        ),
    ):
        conn.execute(sql.SQL(statement))
