"""Lines of further energy components: other registers, other units, prices that follow a published series."""

import datetime as dt
from decimal import Decimal
from fractions import Fraction

import numpy as np

from metering.bill import Line, make_line, round_price
from metering.calendar import US
from metering.pricing import indexed
from metering.pricing.rounding import decimal_from_fraction
from metering.pricing.time_of_use import wh_by_bucket
from metering.state import Int64Column
from metering.tariff import Tariff
from metering.terms import RatingError
from metering.usage import Cycle, Inputs, Usage
from schemas.tariff import EnergyComponent, Index

REGISTER_COLUMNS = {"import": "import_wh", "export": "export_wh", "controlled": "controlled_wh"}


def component_lines(tariff: Tariff, cycle: Cycle, usage: Usage, inputs: Inputs) -> list[Line]:
    """Return the lines of further energy components, version after version."""
    lines: list[Line] = []
    for version, _ in cycle.versions:
        for part in tariff.versions[version].document.energy:
            assert usage.pieces is not None  # settlement refuses tariffs with components
            here = np.array([tariff.buckets[bucket][0] == version for bucket in usage.pieces.bucket.tolist()], np.bool_)
            energy_wh = np.where(here, _component_wh(part, usage), 0)
            if part.index is not None:
                lines.append(indexed_line(tariff, ("energy", part.id), part.index, (usage, energy_wh), inputs))
                continue
            assert part.prices is not None
            total_wh = wh_by_bucket(usage.pieces.bucket, energy_wh, len(tariff.buckets))
            by_price: dict[tuple[str, Decimal], int] = {}
            for bucket in np.unique(usage.pieces.bucket[here]).tolist():
                _, season, period = tariff.buckets[bucket]
                price = part.prices.at(season, period)
                assert price is not None  # checked on loading
                label = part.id if isinstance(part.prices.value, Decimal) else f"{part.id} {period}"
                by_price[label, price] = by_price.get((label, price), 0) + int(total_wh[bucket])
            lines += [
                make_line(
                    tariff, "energy", label.replace(" ", "-"), (Fraction(wh, 1000), part.unit), price, label=label
                )
                for (label, price), wh in by_price.items()
            ]
    return lines


def _component_wh(part: EnergyComponent, usage: Usage) -> Int64Column:
    """Return the energy that a component prices, by piece: netted where it is of import or export."""
    pieces = usage.pieces
    assert pieces is not None
    netted = {"import": pieces.net_import_wh, "export": pieces.net_export_wh}.get(part.register)
    column = netted if netted is not None else pieces.energy.get(REGISTER_COLUMNS[part.register])
    if column is None:
        raise RatingError(f"energy component {part.id} needs {REGISTER_COLUMNS[part.register]} in the load")
    return apparent_wh(column, usage) if part.unit == "kVAh" else column


def apparent_wh(active_wh: Int64Column, usage: Usage) -> Int64Column:
    """Return the apparent energy of each piece, whole VAh rounded down, as meters count it."""
    assert usage.pieces is not None
    names = [name for name in ("import_varh", "export_varh") if name in usage.pieces.energy]
    if not names:
        raise RatingError("energy in kVAh needs import_varh in the load")
    square = active_wh**2 + sum(usage.pieces.energy[name] for name in names) ** 2
    root = np.sqrt(square.astype(np.float64)).astype(np.int64)  # a first guess, made exact in whole numbers
    root -= root**2 > square
    return root + ((root + 1) ** 2 <= square)


def indexed_line(
    tariff: Tariff, name: tuple[str, str], index: Index, energy: tuple[Usage, Int64Column], inputs: Inputs
) -> Line:
    """Return the one line of an indexed price: exact interval by interval, its price the mean.

    Args:
        tariff: Says how made prices are rounded.
        name: Kind and id of the line; what is paid for export is negative.
        index: How the price is made.
        energy: Usage, and Wh of each of its pieces.
        inputs: Price series.

    Raises:
        RatingError: No series of that name, or none of its prices holds at some instant.
    """
    usage, energy_wh = energy
    assert usage.pieces is not None
    series = inputs.indices.get(index.name)
    if series is None:
        raise RatingError(f"price series {index.name!r} is needed")
    used = np.flatnonzero(energy_wh)
    try:
        place = indexed.place_in_series(series, usage.pieces.start_us[used] // US, index.interval_min * 60)
    except indexed.MissingPriceError as error:
        at = dt.datetime.fromtimestamp(int(str(error)), tariff.zone)
        raise RatingError(f"price series {index.name!r} has no price at {at.isoformat()}") from None
    formula = indexed.Formula(index.multiply, index.add, index.add_when, index.min, index.max)
    bucket = usage.pieces.bucket[used]
    keys, where = np.unique(np.stack([place, bucket]), axis=1, return_inverse=True)
    total_wh = wh_by_bucket(where.reshape(-1), energy_wh[used], keys.shape[1])
    amount = Fraction(0)
    for at, code, wh in zip(*keys.tolist(), total_wh.tolist(), strict=True):
        price = indexed.price_of(series.price[at], tariff.buckets[code][2], formula)
        amount += Fraction(round_price(tariff, price)) * wh / 1000
    total = Fraction(int(energy_wh.sum()), 1000)
    kind, line_id = name
    sign = -1 if kind == "export" else 1
    mean = decimal_from_fraction(amount / total, 8) if total else Decimal(0)
    return make_line(tariff, kind, line_id, (total, "kWh"), sign * mean, amount=sign * amount)
