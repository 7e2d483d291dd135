"""The tariffs that gridtally brings, for a database that has none yet."""

from pathlib import Path

import psycopg

from storage.registry import import_tariff

TARIFFS_DIR = Path(__file__).parent.parent / "tariffs"


def import_first_tariffs(dsn: str, directory: Path = TARIFFS_DIR) -> list[str]:
    """Put the tariff documents of a directory into an empty tariff table, all or none; return their ids.

    Where there is any tariff, nothing is done: what the utility put in force is not ours to add to.
    """
    with psycopg.connect(dsn) as conn:
        if conn.execute("select 1 from tariff limit 1").fetchone():
            return []
        return [import_tariff(conn, path).tariff_id for path in sorted(directory.glob("*.yaml"))]
