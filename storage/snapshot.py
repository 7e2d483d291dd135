"""One snapshot for several queries: what they read was true at the same moment."""

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg.pq import TransactionStatus


@contextlib.contextmanager
def one_snapshot(conn: psycopg.Connection) -> Iterator[None]:
    """Read in one snapshot: our own, or the one that the caller's transaction already has."""
    is_outermost = conn.info.transaction_status == TransactionStatus.IDLE
    with conn.transaction():
        if is_outermost:
            conn.execute("set transaction isolation level repeatable read read only")
        yield
