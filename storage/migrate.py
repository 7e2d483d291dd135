"""Migrations: numbered SQL files, each applied once, in order, under one lock."""

import hashlib
from pathlib import Path

import psycopg

from storage.timescale import use_timescaledb

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
        use_timescaledb(conn)
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
