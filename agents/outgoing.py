"""What settlement publishes after the commit: charges, receipts, live figures."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents.frames import ReadingBatch
from metering.calendar import US
from metering.pricebook import FAR_FUTURE_US
from metering.running import AMOUNT_MAX, charge_columns, fits_columns, pricing_of
from metering.settlement import Settled, mean_power_w
from metering.state import NEVER, Int64Column, MeterStates
from schemas.frame import CHARGES_SCHEMA, RECEIPTS_SCHEMA, encode_frame
from schemas.topic import GRID_LIVE, METER_CHARGES, METER_RECEIPTS
from storage.charge import ChargeSoFar
from storage.registry import Registry

SCALE_MAX = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to publish."""

    topic: str
    payload: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Amounts:
    """Charges of meters; columns of one length."""

    tariff_index: Int64Column
    amount: Int64Column
    """Units of 10^-scale of the tariff's currency."""
    scale: NDArray[np.int8]
    is_known: NDArray[np.bool_]
    is_charged: NDArray[np.bool_]
    """False: no contract and no tariff, so there is no charge."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slow:
    """A meter with new facts whose charge is not had from columns."""

    meter_no: int
    power_w: int
    received_at_us: int


class Charges:
    """Computes the running charges of meters from their states; what these do not carry is left to `agents.slow_charge`."""

    def __init__(self, registry: Registry) -> None:
        """Take the master data as of one version."""
        self._registry = registry
        self._ids = pa.array(registry.meters.meter_id)
        self._points = pa.array(registry.service_point_id)
        self._currencies = pa.array([item.currency for item in registry.prices.tariffs], pa.string())

    def price(self, meter_no: Int64Column, states: MeterStates, as_of_us: Int64Column) -> "Amounts":
        """Return the charges so far of meters.

        Args:
            meter_no: Shape (n,).
            states: Of these meters, shape (n,).
            as_of_us: Until when, epoch µs, shape (n,).
        """
        meters, prices = self._registry.meters, self._registry.prices
        last_at = states.last_at
        place = meters.place_of(meter_no, last_at - 1, last_at)
        size = len(meter_no)
        found = Amounts(
            place.tariff_index, np.zeros(size, np.int64), np.zeros(size, np.int8), np.zeros(size, np.bool_),
            place.tariff_index != prices.none_index,
        )  # fmt: skip
        begun = meters.start_us[meter_no] > states.cycle_start
        ended = meters.end_us[meter_no] < FAR_FUTURE_US
        is_shared = meters.shares_point[meter_no] & (begun | ended) | meters.several[meter_no] & begun
        live = (states.cycle_key != 0) & ~is_shared
        groups = zip(place.tariff_index[live].tolist(), states.cycle_start[live].tolist(), strict=True)
        for index, cycle_start in {*groups}:
            line = prices.timelines[index]
            cycle = int(np.searchsorted(line.cycle_start_s, cycle_start // US))
            if cycle == len(line.cycle_start_s) or int(line.cycle_start_s[cycle]) * US != cycle_start:
                continue
            pricing = pricing_of(prices.shapes[index], cycle)
            if pricing is None or not pricing.has_columns:
                continue
            same = live & (place.tariff_index == index) & (states.cycle_start == cycle_start)
            same &= (states.cycle_key == pricing.shape.key) & (place.whole_from <= cycle) & (cycle < place.whole_until)
            same[same] = fits_columns(pricing, states.quantities_wh[same])
            if same.any():
                as_of = int(as_of_us[same].max())
                found.amount[same] = charge_columns(pricing, states.quantities_wh[same], as_of)
                found.scale[same] = pricing.amount_scale
                found.is_known[same] = True
        return found

    def frame(self, settled: Settled, batch: ReadingBatch) -> tuple[Outgoing | None, "list[Slow]"]:
        """Return the charges of all meters with new facts, and the meters whose amounts have to be had another way."""
        rows = np.flatnonzero(settled.charged & (settled.states.cycle_start != NEVER))
        if not len(rows):
            return None, []
        meter_no = settled.touched[rows]
        states = settled.states.take(rows)
        amounts = self.price(meter_no, states, states.last_at)
        power_w, received_at = _newest_power_w(settled)[rows], _newest(settled.touched, batch)[rows]
        frame = self._frame(meter_no, states, amounts, power_w, received_at)
        apart = amounts.is_charged & ~amounts.is_known
        columns = (column[apart].tolist() for column in (meter_no, power_w, received_at))
        return frame, [Slow(*row) for row in zip(*columns, strict=True)]

    def slow_frame(self, slow: "Slow", state: MeterStates, charge: ChargeSoFar) -> Outgoing:
        """Return the charge of one meter that was had from the ledger or line by line."""
        scale = min(SCALE_MAX, max(0, -int(charge.total_unrounded.normalize().as_tuple().exponent)))
        while abs(charge.total_unrounded).scaleb(scale) >= AMOUNT_MAX:
            scale -= 1
        number = np.array([slow.meter_no])
        amounts = Amounts(
            self._registry.meters.place_of(number, state.last_at - 1, state.last_at).tariff_index,
            np.array([int(charge.total_unrounded.scaleb(scale))]), np.array([scale], np.int8), np.array([True]),
            np.array([True]),
        )  # fmt: skip
        return self._frame(number, state, amounts, np.array([slow.power_w]), np.array([slow.received_at_us]))

    def _frame(
        self,
        meter_no: Int64Column,
        states: MeterStates,
        amounts: "Amounts",
        power_w: Int64Column,
        received_at: Int64Column,
    ) -> Outgoing:
        arrays = [
            self._ids.take(pa.array(meter_no)),
            self._points.take(pa.array(self._registry.meters.service_point_no[meter_no])),
            pa.array(states.last_at),
            pa.array(states.import_wh),
            pa.array(power_w),
            pa.array(states.cycle_start),
            pa.array(states.cycle_energy_wh()),
            pa.array(amounts.amount, mask=~amounts.is_known),
            pa.array(amounts.scale),
            self._currencies.take(pa.array(amounts.tariff_index)),
            pa.array(received_at),
        ]
        return Outgoing(METER_CHARGES, encode_frame(pa.RecordBatch.from_arrays(arrays, schema=CHARGES_SCHEMA)))

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


def _newest(touched: Int64Column, batch: ReadingBatch, name: str = "received_at") -> Int64Column:
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
