"""What changing bills needs of the settings, the day, and a connection that may write."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import psycopg

from console.web import Console, DatabaseAwayError
from monitoring.clock import now_us
from schemas.settings import Settings
from storage.bill_make import Rules
from storage.proposal import Desk

STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 5_000


def desk_of(settings: Settings) -> Desk:
    """Return what deciding about bills needs of the settings, today by the console's clock."""
    billing = settings.billing
    today = dt.datetime.fromtimestamp(now_us() / 1e6, ZoneInfo(settings.console.zone)).date()
    return Desk(today, billing.due_days, Rules.of(billing))


@contextlib.contextmanager
def writable(console: Console) -> Iterator[psycopg.Connection]:
    """Give a connection that may write, for one request.

    Raises:
        DatabaseAwayError: It does not answer, or not in time.
    """
    options = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
    try:
        with psycopg.connect(
            console.addresses.database, autocommit=True, options=options, connect_timeout=5, application_name="console"
        ) as conn:
            yield conn
    except psycopg.OperationalError as error:
        raise DatabaseAwayError("the database does not answer") from error
