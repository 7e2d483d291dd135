"""What the commands about bills share."""

import datetime as dt
import json
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from gridtally.options import EXIT_USAGE, day_of, fail

BillName = Annotated[str, typer.Argument(help="Number of a bill, or # and the id of a draft.")]


def money_of(text: str | None, option: str) -> Decimal | None:
    """Return the amount of an option, or end the command."""
    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        fail(f"{option} {text}: expected an amount such as -12.50", EXIT_USAGE)
    if not amount.is_finite():
        fail(f"{option} {text}: expected an amount such as -12.50", EXIT_USAGE)
    return amount


def month_of(text: str) -> tuple[dt.date, dt.date]:
    """Return the first days of a month and of the next, or end the command."""
    try:
        first = dt.date.fromisoformat(f"{text}-01")
    except ValueError:
        fail(f"--cycle {text}: expected a month such as 2026-10", EXIT_USAGE)
    return first, (first + dt.timedelta(days=32)).replace(day=1)


def print_json(value: Any) -> None:
    """Print data as JSON; decimals and dates as text."""
    print(json.dumps(value, indent=1, default=str, ensure_ascii=False))


def utc_now() -> dt.datetime:
    """Return the time, aware."""
    from monitoring.clock import now_us

    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=now_us())


def some_day(text: str | None, option: str) -> dt.date | None:
    """Return the day of an option that may be left out."""
    return None if text is None else day_of(text, option)
