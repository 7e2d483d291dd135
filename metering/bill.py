"""What rating makes: lines and bills, and what one cycle leaves to the next."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from metering.pricing.rounding import decimal_from_fraction, round_to
from metering.tariff import Tariff

KINDS = ("energy", "demand", "fixed", "reactive", "export", "minimum", "surcharge", "discount", "tax")


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of a bill."""

    id: str
    kind: str
    """Of KINDS."""
    label: str
    """Period, tier or charge as people know it."""
    quantity: Fraction
    unit: str
    price: Decimal
    """Currency per unit; of an indexed price the mean."""
    amount_unrounded: Decimal
    included: Decimal | None = None
    """Tax that the bill contains; such a line's own amount is zero."""
    bucket: int | None = None
    """Price bucket of an energy line."""
    tier: int | None = None
    """Number of the tier, from 1, of a line that is for one."""
    energy_wh: Fraction = Fraction(0)
    """Energy that the line is the price of, for what is per kWh later."""
    version: int | None = None
    """Tariff version whose days the line is of; None is the one at the cycle's end."""
    days: tuple[dt.date, dt.date] | None = None
    """Its days; None is all that the tariff holds for."""


@dataclasses.dataclass(frozen=True)
class Bill:
    """The charge of one cycle."""

    start_on: dt.date
    end_on: dt.date
    lines: tuple[Line, ...]
    total: Decimal
    total_unrounded: Decimal


@dataclasses.dataclass(frozen=True)
class History:
    """What earlier cycles leave to the next one."""

    year: int = 0
    year_wh: int = 0
    """Energy since the beginning of `year`, Wh: position on an annual ladder."""
    season: str = ""
    season_wh: int = 0
    year_billed: Decimal = Decimal(0)
    service_since: dt.date | None = None
    """First day of service, for bounds by months in service."""
    peaks_kw: tuple[tuple[str, dt.date, Fraction], ...] = ()
    """Demand charge, first day of the cycle and its peak, oldest first."""
    credit_wh: tuple[tuple[str, Fraction], ...] = ()
    """Energy credit by period."""
    credit_money: Decimal = Decimal(0)

    def peaks_of(self, demand_id: str) -> list[tuple[dt.date, Fraction]]:
        """Return the peaks of a demand charge, oldest first."""
        return [(day, peak) for name, day, peak in self.peaks_kw if name == demand_id]


def make_line(  # noqa: PLR0913  # a row has that many columns
    tariff: Tariff,
    kind: str,
    line_id: str,
    quantity: tuple[Fraction, str],
    price: Decimal,
    *,
    label: str = "",
    bucket: int | None = None,
    tier: int | None = None,
    energy_wh: Fraction = Fraction(0),
    amount: Fraction | None = None,
) -> Line:
    """Return a line; here money is made of a quantity and a price.

    Args:
        tariff: Says how a line's quantity is rounded.
        kind: Of KINDS.
        line_id: Name within the bill.
        quantity: And its unit.
        price: Currency per unit.
        label: For people; the id when not given.
        bucket: Price bucket.
        tier: Number of the tier.
        energy_wh: Energy that the line prices, Wh.
        amount: In place of quantity times price.
    """
    count, unit = quantity
    rule = tariff.rounding.quantity
    if rule and rule.of == "line" and unit in ("kWh", "kVAh"):
        count = Fraction(round_to(decimal_from_fraction(count), rule.step, rule.mode))
    money = decimal_from_fraction(Fraction(price) * count if amount is None else amount)
    return Line(line_id, kind, label or line_id, count, unit, price, money, None, bucket, tier, energy_wh)


def round_price(tariff: Tariff, price: Decimal) -> Decimal:
    """Return a price made by a formula as the tariff rounds it."""
    rule = tariff.rounding.price
    return round_to(price, rule.step, rule.mode) if rule else price


def line_amount(tariff: Tariff, line: Line) -> Decimal:
    """Return the amount of a line as it is shown, and billed where the tariff rounds lines."""
    rule = tariff.rounding.line
    return round_to(line.amount_unrounded, rule.step, rule.mode) if rule else tariff.round_money(line.amount_unrounded)


def sum_of(lines: Sequence[Line], names: Sequence[str] = (), exempt: Sequence[str] = ()) -> Decimal:
    """Return the unrounded sum of lines of some kinds or charges (all if none are named) without the exempt ones."""
    return sum(
        (
            line.amount_unrounded
            for line in lines
            if (not names or is_named(line, names)) and not is_named(line, exempt)
        ),
        Decimal(0),
    )


def is_named(line: Line, names: Sequence[str]) -> bool:
    """Return whether a line is of a kind or a charge: an id, or its beginning before a dash."""
    return any(name in (line.kind, line.id) or line.id.startswith(f"{name}-") for name in names)


def make_bill(tariff: Tariff, start_on: dt.date, end_on: dt.date, lines: Sequence[Line]) -> Bill:
    """Return a bill with its totals: rounded once, or the sum of rounded lines where the tariff rounds lines."""
    unrounded = sum_of(lines)
    lines_rounded = sum((line_amount(tariff, line) for line in lines), Decimal(0))
    total = lines_rounded if tariff.rounding.line else unrounded
    return Bill(start_on, end_on, tuple(lines), tariff.round_money(total), unrounded)
