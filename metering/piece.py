"""Facts cut into pieces by the timelines of their tariffs: which energy is of which cycle, bucket and key."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metering.calendar import segment_of, split_energy_columns
from metering.fact import MIXED_PERIOD, Columns
from metering.pricebook import Meters, PriceBook
from metering.state import Int64Column
from schemas.quality import Quality

LONG_TENTHS = 15
"""An interval over 1.5 times the meter's own is flagged LONG."""
BoolColumn = NDArray[np.bool_]


@dataclasses.dataclass
class Pieces:
    """Energy of facts in the segments of their tariffs' timelines; straddling facts have several pieces."""

    fact_row: Int64Column
    tariff_index: Int64Column
    cycle: Int64Column
    """Of the tariff's timeline."""
    segment: Int64Column
    slot: Int64Column
    cycle_start: Int64Column
    energy_wh: Int64Column
    key: Int64Column
    """Of the cycle (`metering.cycle_shape`), 0 where its charge comes from the ledger."""
    is_ordered: BoolColumn
    """Pieces of cycles in which the order of facts matters."""


def price_facts(facts: Columns, meters: Meters, prices: PriceBook) -> Pieces:
    """Set period, tariff version and quality of facts, and return their energy by price bucket."""
    place = meters.place_of(facts["meter_no"], facts["start_at"], facts["end_at"])
    parts = []
    straddling = np.zeros(len(place.tariff_index), np.bool_)
    for index in np.unique(place.tariff_index).tolist():
        rows = np.flatnonzero(place.tariff_index == index)
        line = prices.timelines[index]
        row, segment, energy_wh = split_energy_columns(
            line, facts["start_at"][rows], facts["end_at"][rows], facts["energy_wh"][rows]
        )
        at_start = segment_of(line, facts["start_at"][rows])
        count = np.bincount(row, minlength=len(rows))
        facts["tariff_version"][rows] = line.version[at_start]
        facts["period"][rows] = np.where(count > 1, MIXED_PERIOD, line.bucket[at_start])
        straddling[rows] = count > 1
        cycle = line.cycle[segment].astype(np.int64)
        key, is_ordered = prices.shapes[index].keys(cycle)
        fact_row = rows[row]
        is_whole = (cycle >= place.whole_from[fact_row]) & (cycle < place.whole_until[fact_row])
        parts.append(
            (
                fact_row,
                np.full(len(row), index, np.int64),
                cycle,
                segment,
                line.slot[segment].astype(np.int64),
                line.cycle_start_s[cycle] * 1_000_000,
                energy_wh,
                key * is_whole,
                is_ordered & is_whole,
            )
        )
    facts["quality"] = facts["quality"] | _shape_flags(facts, straddling, meters)
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Pieces(nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing > 0)
    return Pieces(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _shape_flags(facts: Columns, straddling: BoolColumn, meters: Meters) -> Int64Column:
    duration_us = facts["end_at"] - facts["start_at"]
    meter_no = facts["meter_no"]
    is_long = duration_us * 10 > meters.interval_s[meter_no] * (1_000_000 * LONG_TENTHS)
    rated_w = meters.rated_power_w[meter_no]
    # In watts and floor division: energy x µs an hour would leave 64 bits beyond 2.5 GWh.
    mean_w = np.abs(facts["energy_wh"]) * 3600 // np.maximum(duration_us // 1_000_000, 1)
    is_high = (rated_w > 0) & (mean_w > rated_w) & (duration_us > 0)
    return (
        straddling * np.int64(Quality.STRADDLING) | is_long * np.int64(Quality.LONG) | is_high * np.int64(Quality.HIGH)
    )
