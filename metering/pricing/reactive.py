"""Reactive energy and power factor."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from metering.pricing.rounding import round_to

# (83)水电财字第215号: best hundredth with its table of reductions, then how much each hundredth below costs.
_REDUCTIONS = {
    "0.90": {91: "0.15", 92: "0.30", 93: "0.45", 94: "0.60", 95: "0.75"},
    "0.85": {
        **{85 + step: f"0.{step}" for step in range(1, 6)},
        91: "0.65",
        92: "0.80",
        93: "0.95",
        94: "1.10",
    },
    "0.80": {**{80 + step: f"{step / 10}" for step in range(1, 11)}, 91: "1.15", 92: "1.30"},
}


def power_factor(energy_wh: int, reactive_varh: int, digits: int) -> Decimal:
    """Return P / sqrt(P² + Q²), rounded half up; 1 where nothing was used.

    Example:
        >>> power_factor(720_000, 430_000, 2)
        Decimal('0.86')
    """
    if energy_wh <= 0:
        return Decimal(1)
    active = Decimal(energy_wh)
    factor = active / (active**2 + Decimal(reactive_varh) ** 2).sqrt()
    return round_to(factor, Decimal(1).scaleb(-digits), "half_up")


def cn_percent(factor: Decimal, standard: str) -> Decimal:
    """Return the adjustment of the Chinese power-factor tables in percent; negative for a reduction.

    The 0.85 table's last entry, 1.10 % from 0.94 on, is the annex's as known; another reader of it has 1.00 %.

    Example:
        >>> [str(cn_percent(Decimal(f), "0.90")) for f in ("0.97", "0.90", "0.86", "0.70", "0.65", "0.64")]
        ['-0.75', '0', '2.0', '10.0', '15', '17']
    """
    hundredths = int(factor * 100)
    target = int(Decimal(standard) * 100)
    if hundredths > target:
        table = _REDUCTIONS[standard]
        return -Decimal(table[min(hundredths, max(table))])
    below = target - hundredths
    if below <= 20:
        return Decimal("0.5") * below if below else Decimal(0)
    return Decimal(below - 10) if below <= 25 else Decimal(15 + 2 * (below - 25))


def table_percent(factor: Decimal, rows: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
    """Return the percentage of the first row whose power factor is reached; of the last where none is.

    Args:
        factor: Power factor.
        rows: Power factor from which on, and percent, highest first.
    """
    return next((percent for reached, percent in rows if factor >= reached), rows[-1][1])


def ramp_percent(factor: Decimal, base: Decimal, step: Decimal, percent: Decimal, best: Decimal) -> Decimal:
    """Return a percentage for each step that a power factor is below a base; negative above, up to the best.

    Example:
        >>> ramp_percent(Decimal("0.98"), Decimal("0.80"), Decimal("0.01"), Decimal("0.1"), Decimal("0.95"))
        Decimal('-1.5')
    """
    return (base - min(factor, best)) / step * percent


def excess(reactive: Fraction, active: Fraction, ratio: Fraction) -> Fraction:
    """Return what of a reactive quantity is above a share of the active one."""
    return max(reactive - active * ratio, Fraction(0))
