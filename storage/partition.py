"""Daily partitions of `fact` on plain PostgreSQL, made ahead and on demand; TimescaleDB makes its own chunks."""

import datetime as dt

import psycopg
from psycopg import sql

PARTITIONS_MAX = 2_000
"""Days of facts; beyond it something dates readings wildly, and settling halts with a clear error."""


class TooManyPartitionsError(RuntimeError):
    """Readings would need more daily partitions than PARTITIONS_MAX."""


class DailyPartitions:
    """Knows which days have a partition, and makes those that are missing."""

    def __init__(self) -> None:
        """Start knowing nothing; the database is asked at the first use."""
        self._days: set[dt.date] | None = None
        self._native = True

    def ensure(self, conn: psycopg.Connection, days: set[dt.date]) -> None:
        """Make the partitions of some days, outside of any transaction of the caller."""
        if self._days is None:
            self._load(conn)
        assert self._days is not None
        missing = sorted(days - self._days) if self._native else []
        if len(missing) + len(self._days) > PARTITIONS_MAX:
            raise TooManyPartitionsError(f"{len(missing)} more days of facts than {PARTITIONS_MAX}")
        for day in missing:
            _create(conn, day)
            self._days.add(day)

    def _load(self, conn: psycopg.Connection) -> None:
        row = conn.execute("select relkind::text from pg_class where oid = 'fact'::regclass").fetchone()
        self._native = row is not None and row[0] == "p"
        names = conn.execute(
            "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            " where i.inhparent = 'fact'::regclass"
        ).fetchall()
        self._days = {
            dt.datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=dt.UTC).date() for (name,) in names if self._native
        }


def _create(conn: psycopg.Connection, day: dt.date) -> None:
    """Make one partition; another worker may be doing the same."""
    name = sql.Identifier(f"fact_{day:%Y%m%d}")
    start, end = (f"{moment} 00:00:00+00" for moment in (day, day + dt.timedelta(days=1)))
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (day.toordinal(),))
        conn.execute(
            sql.SQL("create table if not exists {} partition of fact for values from ({}) to ({})").format(
                name, sql.Literal(start), sql.Literal(end)
            )
        )
