"""What settlement publishes after the commit: charges, receipts, live figures."""

import dataclasses
import functools
import json
from typing import Any

import numpy as np
import pyarrow as pa

from agents.frames import ReadingBatch
from metering.calendar import Timeline
from metering.pricebook import PriceBook
from metering.running import charge_columns, compile_cycle
from metering.settlement import Settled, mean_power_w
from metering.state import NEVER, Int64Column
from schemas.frame import CHARGES_SCHEMA, RECEIPTS_SCHEMA, encode_frame
from schemas.topic import GRID_LIVE, METER_CHARGES, METER_RECEIPTS
from storage.registry import Registry


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to publish."""

    topic: str
    payload: bytes


class Charges:
    """Computes the running charges of meters; keeps the compiled cycles of one version of the master data."""

    def __init__(self, registry: Registry) -> None:
        """Take the master data as of one version."""
        self._registry = registry
        self._ids = pa.array(registry.meters.meter_id)
        self._points = pa.array(registry.service_point_id)
        self.cycle = functools.lru_cache(256)(self._compile)

    def _compile(self, tariff_index: int, cycle_start: int) -> Any:
        prices: PriceBook = self._registry.prices
        line: Timeline = prices.timelines[tariff_index]
        cycle = int(np.searchsorted(line.cycle_start_s, cycle_start // 1_000_000))
        return compile_cycle(prices.tariffs[tariff_index], line, cycle)

    def frame(self, settled: Settled, batch: ReadingBatch) -> Outgoing | None:
        """Return the charges of all meters with new facts."""
        rows = np.flatnonzero(settled.charged & (settled.states.cycle_start != NEVER))
        if not len(rows):
            return None
        meter_no = settled.touched[rows]
        states = settled.states.take(rows)
        meters = self._registry.meters
        tariff = meters.tariff_index[meter_no]
        amount = np.zeros(len(rows), np.int64)
        scale = np.zeros(len(rows), np.int8)
        for index, cycle_start in {*zip(tariff.tolist(), states.cycle_start.tolist(), strict=True)}:
            same = (tariff == index) & (states.cycle_start == cycle_start)
            pricing = self.cycle(index, cycle_start)
            as_of = int(states.last_at[same].max())
            amount[same] = charge_columns(pricing, states.quantities_wh[same], as_of)
            scale[same] = pricing.amount_scale
        currency = [item.currency for item in self._registry.prices.tariffs]
        arrays = [
            self._ids.take(pa.array(meter_no)),
            self._points.take(pa.array(meters.service_point_no[meter_no])),
            pa.array(states.last_at),
            pa.array(states.import_wh),
            pa.array(_newest_power_w(settled)[rows]),
            pa.array(states.cycle_start),
            pa.array(states.quantities_wh.sum(axis=1)),
            pa.array(amount),
            pa.array(scale),
            pa.array(currency, pa.string()).take(pa.array(tariff)),
            pa.array(_newest(settled.touched, batch, "received_at")[rows]),
        ]
        frame = pa.RecordBatch.from_arrays(arrays, schema=CHARGES_SCHEMA)
        return Outgoing(METER_CHARGES, encode_frame(frame))

    def receipts(self, settled: Settled, batch: ReadingBatch) -> Outgoing | None:
        """Return the receipts of all meters that sent anything: a repeated reading is a receipt that was missed."""
        rows = np.flatnonzero(settled.states.boot_id != NEVER)
        if not len(rows):
            return None
        states = settled.states.take(rows)
        last_row = np.zeros(len(settled.touched), np.int64)
        place = np.searchsorted(settled.touched, batch.columns["meter_no"])
        last_row[place] = np.arange(len(place))
        arrays = [
            self._ids.take(pa.array(settled.touched[rows])),
            batch.gateway_id.take(pa.array(last_row[rows])).combine_chunks(),
            pa.array(states.boot_id.astype(np.uint32)),
            pa.array(states.seq_first),
            pa.array(states.seq),
            pa.array(states.seq_read_at),
        ]
        frame = pa.RecordBatch.from_arrays(arrays, schema=RECEIPTS_SCHEMA)
        return Outgoing(METER_RECEIPTS, encode_frame(frame))


def _newest(touched: Int64Column, batch: ReadingBatch, name: str) -> Int64Column:
    values = np.zeros(len(touched), np.int64)
    place = np.searchsorted(touched, batch.columns["meter_no"])
    np.maximum.at(values, place, batch.columns[name])
    return values


def _newest_power_w(settled: Settled) -> Int64Column:
    """Return the mean power of the newest interval of each touched meter, W."""
    facts = settled.facts
    place = np.searchsorted(settled.touched, facts["meter_no"])
    newest = (facts["end_at"] == settled.states.last_at[place]) & (facts["revision"] % 2 == 0)
    power_w = np.zeros(len(settled.touched), np.int64)
    net_wh = facts["energy_wh"] - facts["export_energy_wh"]
    power_w[place[newest]] = mean_power_w(facts["start_at"], facts["end_at"], net_wh)[newest]
    return power_w


def live_figures(settled: Settled, batch: ReadingBatch, partition: int, next_offset: int, now_us: int) -> Outgoing:
    """Return the figures of a batch for the live page."""
    delay_us = now_us - batch.columns["received_at"]
    figures = {
        "partition": partition,
        "next_offset": next_offset,
        "readings": len(delay_us),
        "accepted": settled.accepted,
        "duplicate": settled.duplicates,
        "late": settled.late,
        "refused": len(settled.refused) + settled.refused_before,
        "charges": int(np.count_nonzero(settled.charged)),
        "energy_wh": int(settled.facts["energy_wh"].sum()),
        "delay_ms_max": int(delay_us.max(initial=0)) // 1000,
        "delay_ms_p50": int(np.median(delay_us)) // 1000 if len(delay_us) else 0,
        "committed_at": now_us,
    }
    return Outgoing(GRID_LIVE, json.dumps(figures).encode())
