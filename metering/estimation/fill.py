"""All gaps of one meter: cut at the readings of the register, and scaled so that intervals and register agree."""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Sequence

import numpy as np

from metering.estimation.ladder import ACTUAL, CODES, GAP_MAX_S, NONE, NOTHING, Help, Shape, scaled, shape_of
from metering.estimation.load import EstimateError, Ints, Load


@dataclasses.dataclass(frozen=True)
class Filled:
    """A load without gaps, but for what could not be estimated."""

    energy_wh: Ints
    """Shape (cells,), Wh; 0 where the rung is NONE."""
    rung: Ints
    """Shape (cells,): ACTUAL or a rung of the ladder."""
    notes: list[str]

    @property
    def codes(self) -> list[str]:
        """Return the quality code of each interval."""
        return [CODES[rung] for rung in self.rung]


@dataclasses.dataclass(frozen=True)
class _Span:
    """The cells between two readings of the register, and what the missing ones of them have together."""

    first: int
    end: int
    missing_wh: int | None


def fill(load: Load, registers: Sequence[tuple[int, int]] = (), known: Help = NOTHING) -> Filled:
    """Return the load with its gaps estimated.

    Between two readings of the register the missing intervals have what the register counted less the valid intervals, exactly.
    A register that counted less than those is contradicted: it scales nothing, and a note says so.

    Args:
        load: The meter's intervals.
        registers: (epoch s, Wh) of the cumulative register, in any order; one off the grid or outside of the load is not
            used, and a note says so.
        known: What is known besides.

    Raises:
        EstimateError: The register has two values at one instant.
    """
    notes: list[str] = []
    energy_wh, rung = np.where(load.valid, load.energy_wh, 0), np.where(load.valid, ACTUAL, NONE).astype(np.int64)
    gaps = _runs(load)
    whole: dict[tuple[int, bool], Shape] = {}
    for span in _spans(load, registers, gaps, notes):
        parts = [(max(first, span.first), min(end, span.end), first, end) for first, end in gaps]
        parts = [part for part in parts if part[0] < part[1]]
        if not parts:
            continue
        shapes = []
        for low, high, first, end in parts:
            kind = first, span.missing_wh is not None
            if kind not in whole:
                whole[kind] = shape_of(load, np.arange(first, end), known, register=kind[1])
            cut = slice(low - first, high - first)
            shapes.append(Shape(whole[kind].weight[cut], whole[kind].rung[cut], whole[kind].note))
        for (low, high, first, _), estimate in zip(parts, scaled(shapes, span.missing_wh), strict=True):
            energy_wh[low:high], rung[low:high] = estimate.energy_wh, estimate.rung
            if estimate.note and f"{_at(load, first)}: {estimate.note}" not in notes[-1:]:
                notes.append(f"{_at(load, first)}: {estimate.note}")
    return Filled(energy_wh, rung, notes)


def _runs(load: Load) -> list[tuple[int, int]]:
    """Return [first, end) of each run of cells that are not valid."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], load.valid, [True]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _spans(
    load: Load, registers: Sequence[tuple[int, int]], gaps: list[tuple[int, int]], notes: list[str]
) -> list[_Span]:
    """Return the spans between readings of the register, with what comes before the first and after the last."""
    told: dict[int, int] = {}
    unused = 0
    for at_s, wh in sorted(registers):
        place = (at_s - load.start_s) // load.interval_s
        if (at_s - load.start_s) % load.interval_s or not 0 <= place <= len(load.valid):
            unused += 1
            continue
        if told.setdefault(place, wh) != wh:
            raise EstimateError(f"the register has two values at {_at(load, place)}: {told[place]} and {wh} Wh")
    if unused:
        notes.append(f"{unused} readings of the register are off the grid or outside of the intervals: not used")
    edges = sorted({0, len(load.valid), *told})
    spans = []
    for first, end in itertools.pairwise(edges):
        missing_wh = None
        if first in told and end in told and not load.valid[first:end].all():
            missing_wh = told[end] - told[first] - int(load.energy_wh[first:end][load.valid[first:end]].sum())
            if missing_wh < 0 and not (load.energy_wh[load.valid] < 0).any():
                notes.append(
                    f"{_at(load, first)}: the register counted {-missing_wh} Wh less than the intervals: not scaled"
                )
                missing_wh = None
            elif any(low < end and high > first and (high - low) * load.interval_s > GAP_MAX_S for low, high in gaps):
                missing_wh = None
        spans.append(_Span(first, end, missing_wh))
    return spans


def _at(load: Load, cell: int) -> str:
    return dt.datetime.fromtimestamp(load.start_s + cell * load.interval_s, dt.UTC).strftime("%Y-%m-%dT%H:%MZ")
