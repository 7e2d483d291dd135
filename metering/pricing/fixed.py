"""How many times a charge by time is due for some days of a cycle."""

import calendar
import datetime as dt
from fractions import Fraction

DaySpan = tuple[dt.date, dt.date]
"""Half-open local days."""


def days_of(span: DaySpan) -> int:
    """Return the number of days of a span."""
    return (span[1] - span[0]).days


def months_calendar(span: DaySpan) -> Fraction:
    """Return days / days of their month, summed."""
    total, day = Fraction(0), span[0]
    while day < span[1]:
        following = (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        upto = min(following, span[1])
        total += Fraction((upto - day).days, calendar.monthrange(day.year, day.month)[1])
        day = upto
    return total


def years_calendar(span: DaySpan) -> Fraction:
    """Return days / days of their year, summed."""
    total, day = Fraction(0), span[0]
    while day < span[1]:
        upto = min(dt.date(day.year + 1, 1, 1), span[1])
        total += Fraction((upto - day).days, 366 if calendar.isleap(day.year) else 365)
        day = upto
    return total


def units(per: str, prorate: str, span: DaySpan, cycle: DaySpan) -> Fraction:
    """Return how many times an amount is due.

    Args:
        per: ``cycle``, ``day``, ``month`` or ``year``.
        prorate: Of a month or year: ``none`` (one month, or a twelfth of a year, a cycle), ``calendar``, ``thirty``
            (30 and 360 days) or ``annual`` (365 days a year, a month being its twelfth).
        span: Days that the amount holds for, within the cycle.
        cycle: Days of the cycle.

    Example:
        >>> january = dt.date(2026, 1, 1), dt.date(2026, 2, 1)
        >>> units("month", "none", january, january), units("year", "annual", january, january)
        (Fraction(1, 1), Fraction(31, 365))
    """
    days = days_of(span)
    if per == "day":
        return Fraction(days)
    if per == "cycle" or prorate == "none":
        share = Fraction(days, days_of(cycle))
        return share / 12 if per == "year" else share
    if prorate == "calendar":
        return months_calendar(span) if per == "month" else years_calendar(span)
    year = Fraction(days, 360 if prorate == "thirty" else 365)
    return year * 12 if per == "month" else year
