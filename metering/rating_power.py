"""Lines of demand and of reactive energy."""

import dataclasses
import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from metering.bill import History, Line, make_line, round_price, sum_of
from metering.calendar import US
from metering.pricing import demand as model
from metering.pricing import fixed, reactive
from metering.pricing.rounding import decimal_from_fraction
from metering.state import Int64Column
from metering.tariff import Tariff
from metering.terms import RatingError, term
from metering.usage import Cycle, Inputs, Load, Side, Usage
from schemas.document import Table
from schemas.tariff import Contract, DemandCharge, Reactive

Peaks = tuple[tuple[str, dt.date, Fraction], ...]
BILLING_WINDOW_S = 900


@dataclasses.dataclass(frozen=True)
class Windows:
    """Demand windows of a load; columns of one length."""

    start_s: Int64Column
    energy: Mapping[str, Int64Column]
    bucket: Int64Column
    """At each window's start."""
    day: Int64Column
    """Local day of each, counted from 1970."""
    window_s: int

    def kept(self, mask: NDArray[np.bool_]) -> "Windows":
        """Return the windows of a mask."""
        energy = {name: column[mask] for name, column in self.energy.items()}
        return Windows(self.start_s[mask], energy, self.bucket[mask], self.day[mask], self.window_s)


def windows_of(tariff: Tariff, load: Load, bucket: Int64Column, demand: DemandCharge) -> Windows:
    """Return the demand windows of a load; one an interval where intervals are longer than windows."""
    start_s = load.start_us // US
    shift_s = _shift_s(start_s, tariff.demand_zone)
    window_s = max(demand.window_min * 60, load.interval_s)
    if demand.method == "sliding" and window_s > load.interval_s:
        slip_s = max(demand.slip_min * 60, load.interval_s)
        sums = {name: model.sliding_sums(start_s, wh, window_s, slip_s) for name, wh in load.registers.items()}
        first = sums["import_wh"][0]
        energy = {name: total for name, (_, total) in sums.items()}
    else:
        first = model.block_windows(start_s + shift_s, shift_s, window_s)
        energy = {name: model.block_sums(first, wh) for name, wh in load.registers.items()}
    day = (start_s + shift_s)[first] // 86_400
    return Windows(start_s[first], energy, bucket[first], day, window_s)


def _shift_s(start_s: Int64Column, zone: dt.tzinfo) -> Int64Column:
    """Return the offset of a clock from UTC at each instant, s; clocks change at quarters of an hour at the finest."""
    hours, place = np.unique(start_s // 3600, return_inverse=True)
    return np.array([_offset_s(hour, zone) for hour in hours.tolist()], np.int64)[place]


@functools.lru_cache(65_536)
def _offset_s(hour: int, zone: dt.tzinfo) -> int:
    """Return the offset of a clock at an hour since 1970; kept, since every account asks for the same hours."""
    offset = dt.datetime.fromtimestamp(hour * 3600, zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0


def billing_demand_kw(tariff: Tariff, charges: Sequence[DemandCharge], usage: Usage) -> Fraction:
    """Return the highest demand of a cycle, kW, for tiers by kW: over the window of a version's first charge, or 15 min."""
    assert usage.load is not None and usage.bucket_at_start is not None  # noqa: PT018
    windows = windows_of(tariff, usage.load, usage.bucket_at_start, charges[0] if charges else DemandCharge())
    return model.kw_from_wh(int(windows.energy["import_wh"].max(initial=0)), windows.window_s)


def demand_lines(
    tariff: Tariff, cycle: Cycle, usage: Usage, inputs: Inputs, history: History
) -> tuple[list[Line], Peaks]:
    """Return the lines of demand charges, and the peaks that later cycles look back on."""
    lines: list[Line] = []
    peaks: dict[str, Fraction] = {}
    for side, charge in _charges(tariff, cycle):
        maker = _Maker(tariff, cycle, usage, inputs, history, side, charge)
        for name, keys in maker.scopes():
            found, peak = maker.lines(name, keys)
            lines += found
            peaks[name] = max(peaks.get(name, Fraction(0)), peak)
    return lines, tuple((name, cycle.days[0], peak) for name, peak in peaks.items())


def _charges(tariff: Tariff, cycle: Cycle) -> list[tuple[Side, DemandCharge]]:
    """Return each charge with the side that it is for; one that the last version has `on_change: last` is for all days."""
    last = cycle.sides[-1]
    of_last = tariff.versions[last.version].document.demand
    for_all = {charge.id for charge in of_last if charge.on_change == "last"}
    by_side = [(side, charge) for side in cycle.sides for charge in tariff.versions[side.version].document.demand]
    whole = Side(last.version, last.season, cycle.served)
    return [item for item in by_side if item[1].id not in for_all] + [
        (whole, charge) for charge in of_last if charge.id in for_all
    ]


@dataclasses.dataclass(frozen=True)
class _Maker:
    """One demand charge on one side of a cycle."""

    tariff: Tariff
    cycle: Cycle
    usage: Usage
    inputs: Inputs
    history: History
    side: Side
    charge: DemandCharge

    def scopes(self) -> list[tuple[str, list[str] | None]]:
        """Return the name of each line and the periods that it is of; None for any."""
        if self.charge.scope != "period":
            return [(self.charge.id, None)]
        if self.charge.periods:
            return [(self.charge.id, list(self.charge.periods))]
        keys = self.tariff.versions[self.side.version].price_keys
        tables = [self.charge.prices] if self.charge.prices else [tier.prices for tier in self.charge.tiers]
        periods = [
            period
            for season, period in keys
            if season == self.side.season and any(table.at(season, period) for table in tables if table)
        ]
        return [(f"{self.charge.id}-{period}", [period]) for period in periods]

    def lines(self, name: str, periods: list[str] | None) -> tuple[list[Line], Fraction]:
        """Return the lines of one scope, and its peak."""
        charge = self.charge
        if charge.basis == "capacity":
            capacity = Fraction(term(self.tariff, self.inputs.terms, "capacity_kva"))
            return [self._line(name, capacity, "kVA", periods)], Fraction(0)
        peak = self._peak(periods)
        earlier = self.history.peaks_of(name)
        billed = peak
        if charge.average:
            average = charge.average
            months = [*(kw for _, kw in earlier), peak]
            billed = model.rolling_mean(months, average.rolling_months, Fraction(average.floor_kw), average.floor_on)
        if charge.ratchet:
            ratchet = charge.ratchet
            counted = [
                kw for day, kw in earlier[-ratchet.months :] if not ratchet.of_months or day.month in ratchet.of_months
            ]
            billed = model.ratcheted(billed, counted, Fraction(ratchet.percent), Fraction(ratchet.min_kw))
        billed = max(billed, Fraction(charge.min_kw))
        if charge.basis == "contract":
            assert charge.contract is not None  # checked on loading
            return self._contract_lines(name, billed, charge.contract, periods), peak
        if charge.tiers:
            return self._tier_lines(name, billed, periods), peak
        return [self._line(name, billed, charge.quantity, periods)], peak

    def _peak(self, periods: list[str] | None) -> Fraction:
        """Return the highest demand of the side, or the mean of its highest."""
        if self.usage.load is None or self.usage.bucket_at_start is None:
            raise RatingError(f"demand charge {self.charge.id} needs interval readings")
        windows = windows_of(self.tariff, self.usage.load, self.usage.bucket_at_start, self.charge)
        windows = windows.kept(self._mask(windows, periods))
        compared = self._compared(windows)
        count = self.charge.average.top_n if self.charge.average else 1
        distinct = self.charge.average.distinct_days if self.charge.average else False
        places = model.largest(compared, windows.day, count, distinct_days=distinct)
        values = [self._value(windows, place) for place in places]
        return sum(values, Fraction(0)) / len(values) if values else Fraction(0)

    def _mask(self, windows: Windows, periods: list[str] | None) -> NDArray[np.bool_]:
        start, end = (dt.datetime.combine(day, dt.time(), self.tariff.zone).timestamp() for day in self.side.days)
        mask = (windows.start_s >= start) & (windows.start_s < end)
        if periods is not None:
            codes = [code for code, key in enumerate(self.tariff.buckets) if key[2] in periods]
            mask &= np.isin(windows.bucket, codes)
        if self.charge.scope == "coincident":
            hit = np.zeros(len(mask), np.bool_)
            for at in self.inputs.system_peaks_s:
                hit |= (windows.start_s <= at) & (at < windows.start_s + windows.window_s)
            mask &= hit
        return mask

    def _compared(self, windows: Windows) -> Int64Column:
        if self.charge.quantity == "kW":
            return windows.energy["import_wh"]
        square = self._varh(windows) ** 2
        return square if self.charge.quantity == "kvar" else square + windows.energy["import_wh"] ** 2

    def _varh(self, windows: Windows) -> Int64Column:
        if "import_varh" not in windows.energy:
            raise RatingError(f"demand charge {self.charge.id} in {self.charge.quantity} needs import_varh in the load")
        other = windows.energy.get("export_varh")
        return windows.energy["import_varh"] + (other if other is not None else 0)

    def _value(self, windows: Windows, place: int) -> Fraction:
        energy_wh = int(windows.energy["import_wh"][place])
        if self.charge.quantity == "kW":
            return model.kw_from_wh(energy_wh, windows.window_s)
        varh = int(self._varh(windows)[place])
        if self.charge.quantity == "kvar":
            return model.kw_from_wh(varh, windows.window_s)
        return model.apparent(energy_wh, varh) * 3600 / (windows.window_s * 1000)

    def _price(self, table: Table | None, periods: list[str] | None) -> Decimal:
        assert table is not None  # checked on loading
        by_period = periods and not self.charge.periods
        price = table.at(self.side.season, periods[0] if periods and by_period else self.side.season)
        assert price is not None  # checked on loading
        discount = self.charge.discount
        if discount:
            capacity = Fraction(term(self.tariff, self.inputs.terms, discount.capacity_term))
            if Fraction(self.usage.total("import_wh"), 1000) >= capacity * Fraction(discount.kwh_per_kva_min):
                return round_price(self.tariff, price * discount.factor)
        return price

    def _units(self) -> Fraction:
        return fixed.units(self.charge.per, self.charge.prorate, self.side.days, self.cycle.days)

    def _line(self, name: str, power: Fraction, unit: str, periods: list[str] | None) -> Line:
        price, units = self._price(self.charge.prices, periods), self._units()
        return self._priced(name, power, unit, price, units)

    def _priced(self, name: str, power: Fraction, unit: str, price: Decimal, units: Fraction) -> Line:
        return make_line(self.tariff, "demand", name, (power, unit), price, amount=Fraction(price) * power * units)

    def _contract_lines(self, name: str, peak: Fraction, contract: Contract, periods: list[str] | None) -> list[Line]:
        declared = Fraction(term(self.tariff, self.inputs.terms, contract.term))
        if contract.floor_share is not None:
            capacity = Fraction(term(self.tariff, self.inputs.terms, contract.capacity_term))
            declared = max(declared, Fraction(contract.floor_share) * capacity)
        unit = self.charge.quantity
        price, units = self._price(self.charge.prices, periods), self._units()
        lines = [self._priced(name, declared, unit, price, units)] if contract.base else []
        bands = [
            (None if band.up_to_share is None else Fraction(band.up_to_share), Fraction(band.multiplier))
            for band in contract.over
        ]
        for number, (over, multiplier) in enumerate(
            model.over_contract(peak, declared, Fraction(contract.tolerance), bands), start=1
        ):
            if over:
                times = price * decimal_from_fraction(multiplier)
                lines.append(self._priced(f"{name}-over-{number}", over, unit, times.normalize(), units))
        return lines

    def _tier_lines(self, name: str, billed: Fraction, periods: list[str] | None) -> list[Line]:
        tiers, units = self.charge.tiers, self._units()
        parts = model.in_tiers(billed, [Fraction(tier.up_to_kw) for tier in tiers if tier.up_to_kw is not None])
        lines = []
        for number, (power, tier) in enumerate(zip(parts, tiers, strict=True), start=1):
            price = self._price(tier.prices, periods)
            if power or number == 1:
                label = name if number == 1 else f"{name}-tier-{number}"
                lines.append(self._priced(label, power, self.charge.quantity, price, units))
        return lines


def reactive_lines(tariff: Tariff, cycle: Cycle, usage: Usage, lines: list[Line]) -> list[Line]:
    """Return the lines of reactive energy and power factor, of the version at the cycle's end."""
    charges = tariff.versions[cycle.sides[-1].version].document.reactive
    measured = usage.pieces is not None and "import_varh" in usage.pieces.energy
    return [_reactive_line(tariff, charge, usage, lines) for charge in charges if measured or not charge.optional]


def _reactive_line(tariff: Tariff, charge: Reactive, usage: Usage, lines: list[Line]) -> Line:
    if usage.pieces is None or "import_varh" not in usage.pieces.energy:
        raise RatingError(f"reactive charge {charge.id} needs import_varh in the load")
    energy_wh = usage.total("import_wh")
    varh = usage.total("import_varh") + (usage.total("export_varh") if charge.q == "absolute_sum" else 0)
    if charge.mode in ("ratio", "kvarh"):
        ratio = Fraction(charge.ratio) if charge.mode == "ratio" else Fraction(0)
        over = reactive.excess(Fraction(varh, 1000), Fraction(energy_wh, 1000), ratio)
        return make_line(tariff, "reactive", charge.id, (over, "kvarh"), charge.price)
    if charge.mode == "kvar":
        over = reactive.excess(
            _peak_of(tariff, charge, usage, "import_varh"),
            _peak_of(tariff, charge, usage, "import_wh"),
            Fraction(charge.ratio),
        )
        return make_line(tariff, "reactive", charge.id, (over, "kvar"), charge.price)
    factor = reactive.power_factor(energy_wh, varh, charge.digits)
    percent = _percent(charge, factor)
    funds = decimal_from_fraction(Fraction(charge.less_per_kwh) * energy_wh / 1000)
    base = sum_of(lines, charge.base) - funds
    label = f"power factor {factor}"
    price = base.scaleb(-2)
    return make_line(tariff, "reactive", charge.id, (Fraction(percent), "%"), price, label=label)


def _percent(charge: Reactive, factor: Decimal) -> Decimal:
    if charge.mode == "cn_table":
        return reactive.cn_percent(factor, charge.standard)
    if charge.mode == "table":
        return reactive.table_percent(factor, [(row.from_, row.percent) for row in charge.table])
    ramp = charge.ramp
    assert ramp is not None  # checked on loading
    return reactive.ramp_percent(factor, ramp.base, ramp.step, ramp.percent, ramp.best)


def _peak_of(tariff: Tariff, charge: Reactive, usage: Usage, register: str) -> Fraction:
    assert usage.load is not None and usage.bucket_at_start is not None  # noqa: PT018
    windows = windows_of(tariff, usage.load, usage.bucket_at_start, DemandCharge(window_min=charge.window_min))
    return model.kw_from_wh(int(windows.energy[register].max(initial=0)), windows.window_s)
