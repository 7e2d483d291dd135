"""Lines of energy fed in, in five modes; netting over a whole cycle and credits from cycle to cycle."""

import dataclasses
from decimal import Decimal
from fractions import Fraction

import numpy as np

from metering.bill import History, Line, make_line, sum_of
from metering.pricing.export import pool, use_credit, use_money
from metering.pricing.time_of_use import wh_by_bucket
from metering.rating_component import indexed_line
from metering.tariff import Tariff
from metering.terms import RatingError
from metering.usage import Cycle, Inputs, Usage
from schemas.tariff import Export

MONEY_MODES = ("nem_money", "net_billing_carry")


def export_of(tariff: Tariff, cycle: Cycle) -> Export | None:
    """Return the export rule of a cycle: that of the version at its end."""
    return tariff.versions[cycle.sides[-1].version].document.export


def net_over_bill(tariff: Tariff, cycle: Cycle, usage: Usage, history: History) -> tuple[Usage, History, list[Line]]:
    """Return the usage with import and export set off by period or over the cycle, credits in kWh used, and lines of these.

    Netting within intervals and hours was done when the load was measured.
    """
    export = export_of(tariff, cycle)
    if export is None or (not export.mode.startswith("nem") and export.netting not in ("period", "bill")):
        return usage, history, []
    if not usage.export_wh.any() and not history.credit_wh:
        return usage, history, []
    buckets = np.unique(usage.bucket)
    size = len(tariff.buckets)
    drawn = wh_by_bucket(usage.bucket, usage.import_wh, size)[buckets]
    net = drawn - wh_by_bucket(usage.bucket, usage.export_wh, size)[buckets]
    if export.netting == "bill":
        net = pool(net)
    lines: list[Line] = []
    if export.mode == "nem_kwh":
        net, history, lines = _carry_kwh(tariff, cycle, export, (buckets, net), history)
    netted = dataclasses.replace(
        usage, bucket=buckets, import_wh=np.maximum(net, 0), export_wh=np.maximum(-net, 0), in_order=False
    )
    return netted, history, lines


def _carry_kwh(tariff: Tariff, cycle: Cycle, export: Export, energy: tuple, history: History) -> tuple:  # type: ignore[type-arg]
    """Return net energy after credits in kWh, the history with those left, and the line of a true-up."""
    credit = {period: int(wh * Fraction(export.rollover_factor)) for period, wh in history.credit_wh}
    billed = []
    for bucket, wh in zip(*(column.tolist() for column in energy), strict=True):
        period = tariff.buckets[bucket][2]
        drawn, credit[period] = use_credit(wh, credit.get(period, 0))
        billed.append(drawn)
    lines = []
    if _is_true_up(cycle, export):
        left = sum(credit.values())
        if left and export.year_end_price:
            quantity = (Fraction(left, 1000), "kWh")
            lines.append(make_line(tariff, "export", f"{export.id}-true-up", quantity, -export.year_end_price))
        credit = {}
    kept = tuple((period, Fraction(wh)) for period, wh in credit.items() if wh)
    return np.array(billed, np.int64), dataclasses.replace(history, credit_wh=kept), lines


def _is_true_up(cycle: Cycle, export: Export) -> bool:
    """Return whether the cycle is the one that ends the true-up month."""
    start_on, end_on = cycle.days
    return start_on.month == export.true_up_month and end_on.month != export.true_up_month


def export_lines(tariff: Tariff, cycle: Cycle, usage: Usage, inputs: Inputs) -> list[Line]:
    """Return the lines of what is paid for energy fed in; their amounts are negative."""
    export = export_of(tariff, cycle)
    if export is None or export.mode == "nem_kwh":
        return []
    if export.index is not None:
        assert usage.pieces is not None  # settlement refuses tariffs with export
        column = usage.pieces.net_export_wh
        return [indexed_line(tariff, ("export", export.id), export.index, (usage, column), inputs)]
    total_wh = wh_by_bucket(usage.bucket, usage.export_wh, len(tariff.buckets))
    by_price: dict[tuple[str, Decimal], int] = {}
    for bucket in np.unique(usage.bucket).tolist():
        period = tariff.buckets[bucket][2]
        price = _export_price(tariff, export, bucket) if export.prices else tariff.bucket_price(bucket)
        label = export.id if export.prices and isinstance(export.prices.value, Decimal) else f"{export.id}-{period}"
        by_price[label, price] = by_price.get((label, price), 0) + int(total_wh[bucket])
    return [
        make_line(tariff, "export", label, (Fraction(wh, 1000), "kWh"), -price)
        for (label, price), wh in by_price.items()
    ]


def _export_price(tariff: Tariff, export: Export, bucket: int) -> Decimal:
    """Return the price of a bucket; where it names neither season nor period of an earlier version, that version's own.

    Raises:
        RatingError: That one has none either.
    """
    version, season, period = tariff.buckets[bucket]
    own = tariff.versions[version].document.export
    for prices in (export.prices, own.prices if own else None):
        price = prices.at(season, period) if prices else None
        if price is not None:
            return price
    since = tariff.versions[version].valid_from
    raise RatingError(
        f"{export.id} has no price for {season} {period} of the version of {since}: give that version one"
    )


def settle_credit(tariff: Tariff, cycle: Cycle, lines: list[Line], history: History) -> tuple[list[Line], History]:
    """Return the lines that use, carry over or pay out credits in money, and the history after them."""
    export = export_of(tariff, cycle)
    if export is None or export.mode not in MONEY_MODES:
        return [], history
    earned = -sum_of(lines, [export.id])
    charged = sum_of([line for line in lines if line.kind != "export"], export.against)
    # Net metering in money sets off within the cycle first; net billing with carry-over credits the next cycle only.
    at_once = min(earned, max(charged, Decimal(0))) if export.mode == "nem_money" else Decimal(0)
    used, credit = use_money(charged - at_once, history.credit_money)
    found = []

    def line(name: str, amount: Decimal) -> None:
        found.append(make_line(tariff, "export", f"{export.id}-{name}", (Fraction(1), "credit"), amount))

    if earned > at_once:
        line("carried", earned - at_once)
        credit += earned - at_once
    if used:
        line("credit", -used)
    if credit and _is_true_up(cycle, export):
        if export.pays_out:
            line("true-up", -credit)
        credit = Decimal(0)
    return found, dataclasses.replace(history, credit_money=credit)
