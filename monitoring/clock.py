"""The only place that asks what time it is."""

import time


def now_us() -> int:
    """Return the time, epoch µs UTC."""
    return time.time_ns() // 1000
