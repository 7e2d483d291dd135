"""Contracts: which tariff holds for which days, and the billing cycles they are cut into. Pure."""

import calendar
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal

from metering.pricing.fixed import DaySpan

FAR_DAY = dt.date(9999, 12, 31)


@dataclasses.dataclass(frozen=True)
class ContractTariff:
    """The tariff of a contract from a day on, until the next one's first day."""

    start_on: dt.date
    tariff_id: str
    terms: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Contract:
    """What is agreed for a service point, for the local days ``[start_on, end_on)``."""

    contract_no: int
    contract_id: str
    account_no: int
    service_point_no: int
    start_on: dt.date
    end_on: dt.date | None
    billing_day: int
    tariffs: tuple[ContractTariff, ...]
    """Oldest first; the first one begins with the contract."""

    def cycle_of(self, day: dt.date) -> DaySpan:
        """Return the whole billing cycle that holds a day, whether the contract covers all of it or not."""
        return cycle_of(self.billing_day, day)

    def parts(self, span: DaySpan) -> list[tuple[DaySpan, ContractTariff]]:
        """Return the days of a span that the contract covers, with the tariff of each part, in order."""
        found = []
        ends = [item.start_on for item in self.tariffs[1:]] + [self.end_on or FAR_DAY]
        for item, end_on in zip(self.tariffs, ends, strict=True):
            low, high = max(span[0], item.start_on, self.start_on), min(span[1], end_on, self.end_on or FAR_DAY)
            if low < high:
                found.append(((low, high), item))
        return found


def cycle_of(billing_day: int, day: dt.date) -> DaySpan:
    """Return the billing cycle that holds a day: from a day of the month to that day of the next month.

    Example:
        >>> cycle_of(15, dt.date(2026, 1, 3))
        (datetime.date(2025, 12, 15), datetime.date(2026, 1, 15))
    """
    start = day.replace(day=billing_day)
    if start > day:
        start = (start.replace(day=1) - dt.timedelta(days=1)).replace(day=billing_day)
    days = calendar.monthrange(start.year, start.month)[1]
    return start, (start.replace(day=1) + dt.timedelta(days=days)).replace(day=billing_day)


def cycles_between(billing_day: int, start_on: dt.date, end_on: dt.date) -> Sequence[DaySpan]:
    """Return the cycles that touch the days ``[start_on, end_on)``, in order."""
    found = []
    day = start_on
    while day < end_on:
        found.append(cycle_of(billing_day, day))
        day = found[-1][1]
    return found
