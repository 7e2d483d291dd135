"""Demand: energy in windows, their maxima and means, and what of it is billed."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np

from metering.state import Int64Column


def block_windows(local_s: Int64Column, shift_s: Int64Column, window_s: int) -> Int64Column:
    """Return the first row of each window aligned to the clock.

    Args:
        local_s: Shape (n,), what the demand clock shows at each interval's start, in seconds; sorted by time.
        shift_s: Shape (n,), offset of that clock from UTC: the hour that comes twice has windows of its own.
        window_s: Length, s.
    """
    key = local_s // window_s
    first = np.ones(len(key), np.bool_)
    first[1:] = (key[1:] != key[:-1]) | (shift_s[1:] != shift_s[:-1])
    return np.flatnonzero(first)


def block_sums(first: Int64Column, energy_wh: Int64Column) -> Int64Column:
    """Return the energy of each window of `block_windows`, Wh."""
    return np.add.reduceat(energy_wh, first) if len(first) else energy_wh[:0]


def sliding_sums(
    start_s: Int64Column, energy_wh: Int64Column, window_s: int, slip_s: int
) -> tuple[Int64Column, Int64Column]:
    """Return the first row and the energy of windows that begin at intervals' starts, `slip_s` apart.

    Args:
        start_s: Shape (n,), start of each interval, epoch seconds, sorted; gaps count as no energy.
        energy_wh: Shape (n,), Wh.
        window_s: Length, s.
        slip_s: Distance of windows, s, not less than an interval.
    """
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(energy_wh)])
    first = np.flatnonzero(start_s % slip_s == 0)
    end = np.searchsorted(start_s, start_s[first] + window_s)
    return first, total[end] - total[first]


def kw_from_wh(energy_wh: int, window_s: int) -> Fraction:
    """Return the mean power over a window, kW."""
    return Fraction(energy_wh * 3600, window_s * 1000)


def apparent(energy_wh: int, reactive_varh: int) -> Fraction:
    """Return the apparent energy, VAh, to 12 decimals."""
    root = (Decimal(energy_wh) ** 2 + Decimal(reactive_varh) ** 2).sqrt()
    return Fraction(root.quantize(Decimal("1e-12")))


def largest(energy_wh: Int64Column, day: Int64Column, count: int, *, distinct_days: bool) -> list[int]:
    """Return the places of the largest windows, largest first, the earlier one of equals; at most one a day if so said.

    Args:
        energy_wh: Shape (n,), what is compared.
        day: Shape (n,), local day of each window.
        count: How many.
        distinct_days: Of each day only the largest.
    """
    order = np.lexsort((np.arange(len(energy_wh)), -energy_wh))
    if distinct_days and count > 1:
        _, first = np.unique(day[order], return_index=True)
        order = order[np.sort(first)]
    return [int(place) for place in order[:count]]


def over_contract(
    peak_kw: Fraction, contract_kw: Fraction, tolerance: Fraction, bands: Sequence[tuple[Fraction | None, Fraction]]
) -> list[tuple[Fraction, Fraction]]:
    """Return what exceeds a contract by band: power and how many times the price it costs.

    Args:
        peak_kw: Highest demand.
        contract_kw: Contracted.
        tolerance: Times the contract up to which nothing is exceeded.
        bands: Upper end as a share of the contract (None: open) and multiplier, in order.
    """
    over = max(peak_kw - contract_kw * tolerance, Fraction(0))
    found, low = [], Fraction(0)
    for share, multiplier in bands:
        high = over if share is None else min(over, share * contract_kw)
        found.append((max(high - low, Fraction(0)), multiplier))
        low = max(low, high)
    return found


def ratcheted(peak_kw: Fraction, earlier_kw: Sequence[Fraction], percent: Fraction, min_kw: Fraction) -> Fraction:
    """Return the billed demand: at least a percentage of the highest of earlier cycles, and at least a minimum."""
    return max(peak_kw, min_kw, max(earlier_kw, default=Fraction(0)) * percent / 100)


def rolling_mean(monthly_kw: Sequence[Fraction], months: int, floor_kw: Fraction, floor_on: str) -> Fraction:
    """Return the mean of the newest months' peaks with a floor on each month or on the mean.

    Args:
        monthly_kw: Peaks, oldest first, the current one last.
        months: How many count.
        floor_kw: Least value.
        floor_on: ``month`` or ``mean``.
    """
    newest = list(monthly_kw[-months:])
    if floor_on == "month":
        newest = [max(peak, floor_kw) for peak in newest]
    return max(sum(newest, Fraction(0)) / len(newest), floor_kw)


def in_tiers(billed_kw: Fraction, bounds_kw: Sequence[Fraction]) -> list[Fraction]:
    """Return how much of a demand lies in each tier."""
    edges = [Fraction(0), *bounds_kw]
    highs = [*(min(billed_kw, bound) for bound in bounds_kw), billed_kw]
    return [max(high - low, Fraction(0)) for low, high in zip(edges, highs, strict=True)]
