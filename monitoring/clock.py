"""The only place that asks what time it is."""

import datetime as dt
import time
from zoneinfo import ZoneInfo


def now_us() -> int:
    """Return the time, epoch µs UTC."""
    return time.time_ns() // 1000


def now() -> dt.datetime:
    """Return the time, UTC."""
    return dt.datetime.fromtimestamp(now_us() / 1e6, dt.UTC)


def local_today(zone: str) -> dt.date:
    """Return the day that a zone's clocks show."""
    return dt.datetime.fromtimestamp(now_us() / 1e6, ZoneInfo(zone)).date()
