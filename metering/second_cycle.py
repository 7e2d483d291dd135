"""A contract's cycle by the second rater: its parts under their tariffs, rated one after the other, rounded once. Pure."""

import calendar
import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from metering.second_clock import Flags, Interval, midnight_s, read_sheet
from metering.second_energy import Series
from metering.second_rater import rate_slowly, rounded_total
from metering.second_sheet import Line, SlowHistory

STEPS_S = (900, 300, 60)
Days = tuple[dt.date, dt.date]


@dataclasses.dataclass(frozen=True)
class Part:
    """Days of a cycle under one tariff."""

    days: Days
    tariff_id: str
    terms: Mapping[str, Decimal]
    document: Mapping[str, Any]

    @property
    def zone(self) -> str:
        """Return the zone of its days."""
        return str(self.document["zone"])


@dataclasses.dataclass(frozen=True)
class SlowCycle:
    """What a contract owes for a cycle."""

    lines: tuple[Line, ...]
    total: Decimal
    total_unrounded: Fraction
    history: SlowHistory


def cycle_about(billing_day: int, day: dt.date) -> Days:
    """Return the cycle that holds a day: from the billing day to that day of the next month."""
    start = day.replace(day=billing_day)
    if day.day < billing_day:
        start = (day.replace(day=1) - dt.timedelta(days=1)).replace(day=billing_day)
    length = calendar.monthrange(start.year, start.month)[1]
    return start, start + dt.timedelta(days=length)


def span_s(parts: Sequence[Part]) -> tuple[int, int]:
    """Return from when to when a load is needed, epoch s."""
    edges = [midnight_s(part.zone, day) for part in parts for day in part.days]
    return min(edges), max(edges)


def step_s(documents: Iterable[Mapping[str, Any]]) -> int:
    """Return how long the intervals of a load are: a quarter-hour, or 5 min or 1 min where a tariff is finer."""
    minutes: set[int] = set()
    for document in documents:
        for version in read_sheet(document).versions:
            minutes |= {edge for row in version.windows for edge in (row.from_, row.to)}
            indices = [part.index for part in version.energy] + [version.export.index if version.export else None]
            minutes |= {index.interval_min for index in indices if index}
            minutes |= {charge.window_min for charge in version.demand}
            minutes |= {charge.slip_min for charge in version.demand if charge.method == "sliding" and charge.slip_min}
    return next(step for step in STEPS_S if all(minute * 60 % step == 0 for minute in minutes))


def series_named(documents: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the price series that tariffs follow."""
    found = set()
    for document in documents:
        for version in read_sheet(document).versions:
            indices = [part.index for part in version.energy] + [version.export.index if version.export else None]
            found |= {index.name for index in indices if index}
    return found


def rate_parts(  # all that a cycle is made of
    parts: Sequence[Part],
    cycle: Days,
    intervals: Sequence[Interval],
    published: tuple[Flags, Mapping[str, Series]],
    history: SlowHistory,
    until: dt.date | None = None,
) -> SlowCycle:
    """Return what a contract owes for a cycle.

    Args:
        parts: In order of days.
        cycle: All of its days.
        intervals: Load of the service point.
        published: Days by flag, and prices by series.
        history: What cycles before leave.
        until: Day up to which fixed charges by the day are counted, while the cycle runs.

    Raises:
        ValueError: A tariff needs something that is not there.
    """
    lines: list[Line] = []
    exact, due = Fraction(0), Fraction(0)
    flags, series = published
    for part in parts:
        bill = rate_slowly(
            part.document,
            intervals,
            *cycle,
            terms=part.terms,
            flags=flags,
            series=series,
            history=history,
            part=part.days,
            until=until,
        )
        history = bill.history
        lines += bill.lines
        exact += bill.total_unrounded
        due += bill.due
    return SlowCycle(tuple(lines), rounded_total(read_sheet(parts[-1].document), due), exact, history)
