"""What the parts of the second rater share: a cycle of a tariff sheet, its lines, its rounding, what it leaves. Pure."""

import calendar
import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from metering.second_clock import REGISTERS, Interval, days_between, season_on, version_on
from schemas.tariff import Round, TariffDocument, Version

AMOUNT_DIGITS = 12
PEAKS_MAX_MONTHS = 36


class Line(NamedTuple):
    """One row of the bill; `amount` is unrounded, which is to 12 decimals."""

    id: str
    kind: str
    quantity: Fraction
    price: Decimal
    amount: Fraction
    included: Fraction = Fraction(0)


@dataclasses.dataclass
class SlowHistory:
    """What earlier cycles leave to later ones; the same names as in `bill.history_before`."""

    year: int = 0
    year_wh: Fraction = Fraction(0)
    season: str = ""
    season_wh: Fraction = Fraction(0)
    year_billed: Fraction = Fraction(0)
    service_since: dt.date | None = None
    peaks_kw: list[tuple[str, dt.date, Fraction]] = dataclasses.field(default_factory=list)
    credit_wh: dict[str, Fraction] = dataclasses.field(default_factory=dict)
    credit_money: Fraction = Fraction(0)


def read_history(value: Mapping[str, Any]) -> SlowHistory:
    """Return a history of its JSON: energies are whole Wh or ``n/d``, money is a decimal, days are ISO."""
    since = value.get("service_since")
    return SlowHistory(
        year=int(value.get("year") or 0),
        year_wh=Fraction(value.get("year_wh") or 0),
        season=str(value.get("season") or ""),
        season_wh=Fraction(value.get("season_wh") or 0),
        year_billed=Fraction(value.get("year_billed") or 0),
        service_since=dt.date.fromisoformat(since) if since else None,
        peaks_kw=[(name, dt.date.fromisoformat(day), Fraction(kw)) for name, day, kw in value.get("peaks_kw") or ()],
        credit_wh={period: Fraction(wh) for period, wh in value.get("credit_wh") or ()},
        credit_money=Fraction(value.get("credit_money") or 0),
    )


@dataclasses.dataclass(frozen=True)
class Side:
    """Days that follow each other in one version and one season."""

    version: int
    season: str
    days: Sequence[dt.date]


class Sheet:
    """A cycle as a clerk has it before him: the tariff, the days, the terms, and what was before."""

    def __init__(
        self,
        document: TariffDocument,
        cycle: tuple[dt.date, dt.date],
        part: tuple[dt.date, dt.date],
        terms: Mapping[str, Decimal],
        history: SlowHistory,
    ) -> None:
        self.document = document
        self.cycle = cycle
        self.part = part
        self.terms = {**document.terms, **terms}
        self.history = history
        self.days = days_between(*part)
        self.cycle_days = (cycle[1] - cycle[0]).days
        self.sides = self._sides()
        self.versions = list(dict.fromkeys(side.version for side in self.sides))

    def _sides(self) -> list[Side]:
        sides: list[Side] = []
        for day in self.days:
            index = version_on(self.document, day)
            season = season_on(self.document.versions[index], day)
            if sides and (sides[-1].version, sides[-1].season) == (index, season):
                sides[-1] = Side(index, season, [*sides[-1].days, day])
            else:
                sides.append(Side(index, season, [day]))
        return sides

    @property
    def last(self) -> Version:
        """Return the version at the end, which decides about all that is not of days."""
        return self.document.versions[self.versions[-1]]

    def term(self, name: str) -> Fraction:
        """Return a term of the contract.

        Raises:
            ValueError: It has none of that name.
        """
        if name not in self.terms:
            raise ValueError(f"the contract has no term {name}: enter it")
        return Fraction(self.terms[name])

    def measured(self, interval: Interval) -> Interval:
        """Return an interval with its energies as they are priced."""
        rule = self.document.rounding.quantity
        if rule is None or rule.of != "interval":
            return interval
        step_wh = Fraction(rule.step) * 1000
        changes: dict[str, Any] = {
            name: int(to_step(Fraction(wh), step_wh, rule.mode))
            for name in REGISTERS
            if (wh := getattr(interval, name)) is not None
        }
        return dataclasses.replace(interval, **changes)

    def line(
        self,
        name: str,
        kind: str,
        quantity: Fraction,
        price: Decimal,
        amount: Fraction | None = None,
        unit: str = "kWh",
    ) -> Line:
        """Return a row: quantity times price unless an amount is given."""
        rule = self.document.rounding.quantity
        if amount is None:
            if rule is not None and rule.of == "line" and unit == "kWh":
                quantity = to_step(quantity, Fraction(rule.step), rule.mode)
            amount = quantity * Fraction(price)
        return Line(name, kind, quantity, price, to_step(amount, Fraction(1, 10**AMOUNT_DIGITS), "half_up"))

    def sum_of(self, lines: Iterable[Line], names: Sequence[str]) -> Fraction:
        """Return the sum of lines of some kinds or ids."""
        return sum((line.amount for line in lines if is_named(line, names)), Fraction(0))

    def first_day_of(self, version: int) -> dt.date:
        """Return the first day of the cycle that a version holds on."""
        return next(side.days[0] for side in self.sides if side.version == version)

    def ends_month(self, month: int) -> bool:
        """Return whether the last day of a month of the year lies in the cycle."""
        days = days_between(*self.cycle)
        return any(day.month == month and day.day == self.days_of_month(day) for day in days)

    def days_of_month(self, day: dt.date) -> int:
        """Return how many days the month of a day has."""
        return calendar.monthrange(day.year, day.month)[1]

    def count(self, per: str, prorate: str, days: Sequence[dt.date]) -> Fraction:
        """Return how many times an amount by cycle, day, month or year is owed for some days of the cycle."""
        share = Fraction(len(days), self.cycle_days)
        if per == "day":
            return Fraction(len(days))
        if per == "cycle" or prorate == "none":
            return share / 12 if per == "year" else share
        if prorate == "calendar":
            units = [365 + calendar.isleap(day.year) if per == "year" else self.days_of_month(day) for day in days]
            return sum((Fraction(1, unit) for unit in units), Fraction(0))
        if prorate == "thirty":
            return Fraction(len(days), 360 if per == "year" else 30)
        return Fraction(len(days) * (1 if per == "year" else 12), 365)


def is_named(line: Line, names: Sequence[str]) -> bool:
    """Return whether a line is of one of some kinds or ids."""
    return line.kind in names or line.id in names or any(line.id.startswith(f"{name}-") for name in names)


def to_step(value: Fraction, step: Fraction, mode: str) -> Fraction:
    """Return a value as a multiple of a step; halves go away from zero or to the even one, `up` goes away from zero."""
    one = value.denominator * step.numerator  # in whole numbers: fractions take ten times as long
    whole, rest = divmod(abs(value.numerator) * step.denominator, one)
    more = {
        "half_up": 2 * rest >= one,
        "half_even": 2 * rest > one or (2 * rest == one and whole % 2 == 1),
        "up": rest > 0,
        "down": False,
    }[mode]
    return (whole + more) * (-step if value < 0 else step)


def rounded(price: Decimal, rule: Round | None) -> Decimal:
    """Return a price by its rule; as it is without one."""
    if rule is None:
        return price
    return decimal_of(to_step(Fraction(price), Fraction(rule.step), rule.mode))


def decimal_of(value: Fraction) -> Decimal:
    """Return a value of at most 12 decimals."""
    scaled = value * 10**AMOUNT_DIGITS
    assert scaled.denominator == 1
    return Decimal(scaled.numerator).scaleb(-AMOUNT_DIGITS)
