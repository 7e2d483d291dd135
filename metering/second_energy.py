"""Energy by the second rater: what is drawn after netting, tiers, further components, what is fed in. Pure."""

import bisect
import dataclasses
import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from metering.second_clock import Piece, clock_of, season_on
from metering.second_sheet import Line, Sheet, rounded
from schemas.document import Table
from schemas.tariff import Export, Index, TierRow, Version

Series = Mapping[int, Decimal]
"""Prices by the instant from which they hold, epoch s."""


@dataclasses.dataclass
class Chunk:
    """Energy of one version, season and period: what is left of it after netting, in Wh."""

    version: int
    season: str
    period: str
    drawn_wh: Fraction
    fed_wh: Fraction
    at_s: int

    @property
    def bucket(self) -> tuple[int, str, str]:
        """Return what the price depends on."""
        return self.version, self.season, self.period


def net(sheet: Sheet, pieces: Sequence[Piece], export: Export | None, *, index: bool = False) -> list[Chunk]:
    """Return what is drawn and fed in after one was set off against the other; an index sees intervals only."""
    netting = _netting(export)
    if index and export is not None:
        netting = "interval" if sets_off_intervals(export) else "never"
    groups: dict[object, list[Piece]] = {}
    for place, piece in enumerate(pieces):
        bucket = (piece.version, piece.season, piece.period)
        key: object = place
        if netting == "hour":
            local = dt.datetime.fromtimestamp(
                piece.energy.start_s, clock_of(sheet.document.clocks.schedule, sheet.document.zone)
            )
            key = (piece.energy.start_s - local.minute * 60, *bucket)
        elif netting in ("period", "bill"):
            key = bucket
        groups.setdefault(key, []).append(piece)
    chunks = []
    for rows in groups.values():
        drawn = Fraction(sum(row.energy.import_wh for row in rows))
        fed = Fraction(sum(row.energy.export_wh or 0 for row in rows))
        off = min(drawn, fed) if netting != "never" else Fraction(0)
        first = rows[0]
        chunks.append(Chunk(first.version, first.season, first.period, drawn - off, fed - off, first.energy.start_s))
    if netting == "bill":
        _net_all(chunks)
    return chunks


def sets_off_intervals(export: Export) -> bool:
    """Return whether what is fed in is set off interval by interval, so that other components see what is left."""
    return export.netting == "interval" or (export.netting is None and export.mode.startswith("net_billing"))


def _netting(export: Export | None) -> str:
    if export is None or export.mode == "buy_all":
        return "never"
    if export.mode.startswith("nem"):  # what an interval leaves is used within the same period of the cycle
        return "bill" if export.netting == "bill" else "period"
    return export.netting or "interval"


def _net_all(chunks: list[Chunk]) -> None:
    """Set off what one period has left against what others need; what is left is shared in whole Wh."""
    off = min(sum(chunk.drawn_wh for chunk in chunks), sum(chunk.fed_wh for chunk in chunks))
    for name in ("drawn_wh", "fed_wh"):
        whole = sum((getattr(chunk, name) for chunk in chunks), Fraction(0))
        before = Fraction(0)
        for chunk in chunks:
            until = before + getattr(chunk, name)
            left = (math.floor(edge * (whole - off) / whole) if whole else 0 for edge in (before, until))
            low, high = left
            setattr(chunk, name, Fraction(high - low))
            before = until


# -- tiers ------------------------------------------------------------------------------------------------------------


def energy_lines(sheet: Sheet, chunks: Sequence[Chunk], demand_kw: Callable[[int], Fraction]) -> list[Line]:
    """Return the lines of `prices` and tiers, version by version."""
    lines: list[Line] = []
    used: dict[str, Fraction] = {}
    begun_anew = False
    for index in sheet.versions:
        version = sheet.document.versions[index]
        own = [chunk for chunk in chunks if chunk.version == index]
        rule = version.tier_rule
        if rule.on_change == "reset" and index != sheet.versions[0]:
            used, begun_anew = {}, True
        if version.prices is not None or version.tiers:
            ladder = _ladder(sheet, version, index, demand_kw)
            pools = sorted({chunk.period for chunk in own}) if rule.pooled == "per_period" else [""]
            for pool in pools:
                start = Fraction(0) if begun_anew else _used_before(sheet, version)
                start += sum((wh for period, wh in used.items() if pool in ("", period)), Fraction(0))
                rows = [chunk for chunk in own if pool in ("", chunk.period)]
                lines += _tier_lines(sheet, version, ladder, rows, start)
        for chunk in own:
            used[chunk.period] = used.get(chunk.period, Fraction(0)) + chunk.drawn_wh
    return lines


def _used_before(sheet: Sheet, version: Version) -> Fraction:
    """Return what earlier cycles of the year or season of the cycle's first day used, Wh."""
    history, per = sheet.history, version.tier_rule.per
    if per == "year" and history.year == sheet.cycle[0].year:
        return Fraction(history.year_wh)
    if per == "season" and history.season == sheet.sides[0].season:
        return Fraction(history.season_wh)
    return Fraction(0)


def _ladder(
    sheet: Sheet, version: Version, index: int, demand_kw: Callable[[int], Fraction]
) -> list[tuple[Fraction | None, TierRow]]:
    """Return the tiers with their upper bounds in Wh for this cycle."""
    rows = version.tiers.get(season_on(version, sheet.first_day_of(index)), version.tiers.get("", ()))
    rule = version.tier_rule
    factor = Fraction(1)
    days = sheet.days
    if rule.on_change == "reset":  # begun anew for the days of this version
        days = [day for side in sheet.sides if side.version == index for day in side.days]
    if rule.unit in ("kWh_per_day", "kWh_per_kW_day"):
        factor *= len(days)
    if rule.unit in ("kWh_per_kW", "kWh_per_kW_day"):
        factor *= demand_kw(index)
    if rule.prorate == "thirty":
        factor *= Fraction(len(days), 30)
    elif rule.prorate == "calendar":
        factor *= sum((Fraction(1, sheet.days_of_month(day)) for day in days), Fraction(0))
    elif rule.prorate == "months":
        since = sheet.history.service_since
        if since is not None and since.year == sheet.cycle[0].year:
            factor *= Fraction(13 - since.month, 12)
    return [(None if row.up_to_kwh is None else Fraction(row.up_to_kwh) * 1000 * factor, row) for row in rows]


def _tier_lines(
    sheet: Sheet,
    version: Version,
    ladder: Sequence[tuple[Fraction | None, TierRow]],
    chunks: Sequence[Chunk],
    start: Fraction,
) -> list[Line]:
    allocation = version.tier_rule.allocation
    if allocation == "sequential" and _netting(sheet.last.export) in ("period", "bill"):
        allocation = "proportional"  # what was netted over the cycle has no order of time
    total = sum((chunk.drawn_wh for chunk in chunks), Fraction(0))
    whole = _cut(ladder, start, total)
    if not ladder or allocation == "additive":
        lines = []
        for (_, season, period), drawn in _by_bucket(chunks).items():
            if version.prices is not None:
                price = version.prices.at(season, period)
                assert price is not None
                lines.append(sheet.line(f"energy-{season}-{period}", "energy", drawn / 1000, price))
        tiers = enumerate(zip(ladder, whole, strict=True), 1)
        return lines + [
            sheet.line(f"tier-{count}", "energy", part / 1000, row.adder)
            for count, ((_, row), part) in tiers
            if row.adder
        ]
    filled: dict[tuple[tuple[int, str, str], int], Fraction] = {}
    for chunk in chunks:
        if allocation == "sequential":
            parts = _cut(ladder, start, chunk.drawn_wh)
            start += chunk.drawn_wh
        else:
            parts = [part * chunk.drawn_wh / total if total else Fraction(0) for part in whole]
        for count, part in enumerate(parts):
            key = (chunk.bucket, count)
            filled[key] = filled.get(key, Fraction(0)) + part
    return [
        sheet.line(
            f"energy-{season}-{period}-tier-{count + 1}",
            "energy",
            part / 1000,
            _tier_price(version, ladder[count][1], season, period),
        )
        for ((_, season, period), count), part in filled.items()
    ]


def _tier_price(version: Version, row: TierRow, season: str, period: str) -> Decimal:
    if row.prices is not None:
        price = row.prices.at(season, period)
        assert price is not None
        return price
    assert version.prices is not None
    price = version.prices.at(season, period)
    assert price is not None
    return price + (row.adder or 0)


def _cut(ladder: Sequence[tuple[Fraction | None, TierRow]], start: Fraction, amount: Fraction) -> list[Fraction]:
    """Return how much of an amount that begins at a position falls into each tier."""
    low, parts = Fraction(0), []
    for bound, _ in ladder:
        end = start + amount
        high = end if bound is None else min(bound, end)
        parts.append(max(Fraction(0), high - max(low, start)))
        low = low if bound is None else bound
    return parts


def _by_bucket(chunks: Iterable[Chunk]) -> dict[tuple[int, str, str], Fraction]:
    found: dict[tuple[int, str, str], Fraction] = {}
    for chunk in chunks:
        found[chunk.bucket] = found.get(chunk.bucket, Fraction(0)) + chunk.drawn_wh
    return found


# -- components -------------------------------------------------------------------------------------------------------


def component_lines(sheet: Sheet, pieces: Sequence[Piece], series: Mapping[str, Series]) -> list[Line]:
    """Return the lines of further components: another register, kVAh, indexed prices."""
    lines = []
    for index in sheet.versions:
        for part in sheet.document.versions[index].energy:
            if part.index is not None:
                rows = net(sheet, [piece for piece in pieces if piece.version == index], sheet.last.export, index=True)
                lines += _indexed(sheet, part.id, part.index, rows, series)
                continue
            assert part.prices is not None
            amounts = []
            for piece in pieces:
                energy = piece.energy
                amount = Fraction(getattr(energy, f"{part.register}_wh") or 0)
                if part.unit == "kVAh":
                    drawn = energy.import_wh
                    if sheet.last.export is not None and sets_off_intervals(sheet.last.export):
                        drawn = max(0, drawn - (energy.export_wh or 0))
                    amount = Fraction(math.isqrt(drawn**2 + energy.varh**2))
                if piece.version == index:
                    amounts.append((piece.season, piece.period, amount))
            lines += table_lines(sheet, part.id, "energy", part.prices, amounts)
    return lines


def table_lines(
    sheet: Sheet, name: str, kind: str, table: Table, amounts: Iterable[tuple[str, str, Fraction]], sign: int = 1
) -> list[Line]:
    """Return a line for each price of a table by period; amounts are by season and period, Wh."""
    totals: dict[tuple[str, Decimal], Fraction] = {}
    for season, period, wh in amounts:
        price = table.at(season, period) or Decimal(0)
        key = ("" if isinstance(table.value, Decimal) else f"-{period}", price)
        totals[key] = totals.get(key, Fraction(0)) + wh
    return [sheet.line(name + suffix, kind, wh / 1000, sign * price) for (suffix, price), wh in totals.items()]


def _indexed(
    sheet: Sheet, name: str, index: Index, chunks: Sequence[Chunk], series: Mapping[str, Series]
) -> list[Line]:
    rows = [(chunk.period, chunk.at_s, chunk.drawn_wh) for chunk in chunks]
    total = sum((wh for _, _, wh in rows), Fraction(0))
    return [sheet.line(name, "energy", total / 1000, Decimal(0), indexed_amount(sheet, index, series, rows))]


def indexed_amount(
    sheet: Sheet, index: Index, series: Mapping[str, Series], rows: Iterable[tuple[str, int, Fraction]]
) -> Fraction:
    """Return what energies cost by published prices; rows are period, epoch s and Wh.

    Raises:
        ValueError: No price was published for a time that has energy.
    """
    prices = series.get(index.name, {})
    starts = sorted(prices)
    sums: dict[tuple[int, str], Fraction] = {}
    for period, at_s, wh in rows:
        if not wh:
            continue
        place = bisect.bisect_right(starts, at_s) - 1
        # A price holds for its interval, or until the next one.
        if place < 0 or at_s - starts[place] >= index.interval_min * 60:
            when = dt.datetime.fromtimestamp(at_s, dt.UTC).isoformat()
            raise ValueError(f"no price of {index.name} at {when}: publish it")
        key = starts[place], period
        sums[key] = sums.get(key, Fraction(0)) + wh
    return sum(
        (
            wh / 1000 * Fraction(_index_price(sheet, index, prices[since], period))
            for (since, period), wh in sums.items()
        ),
        Fraction(0),
    )


def _index_price(sheet: Sheet, index: Index, published: Decimal, period: str) -> Decimal:
    """Return the price of a kWh made of the published one."""
    price = published * index.multiply + index.add + index.add_when.get(period, Decimal(0))
    if index.max is not None:
        price = min(price, index.max)
    if index.min is not None:
        price = max(price, index.min)
    return rounded(price, sheet.document.rounding.price)


# -- what is fed in ---------------------------------------------------------------------------------------------------


def use_kwh_credits(sheet: Sheet, chunks: Sequence[Chunk], export: Export) -> list[Line]:
    """Set credits of earlier cycles off against what is drawn, keep what is left; return the line of a true-up."""
    history = sheet.history
    credit = {
        period: Fraction(math.floor(wh * Fraction(export.rollover_factor))) for period, wh in history.credit_wh.items()
    }
    whole = _netting(export) == "bill"
    first = chunks[0].period if chunks else ""
    for chunk in chunks:
        key = first if whole else chunk.period
        credit[key] = credit.get(key, Fraction(0)) + chunk.fed_wh
    for chunk in chunks:
        key = first if whole else chunk.period
        used = min(credit[key], chunk.drawn_wh)
        chunk.drawn_wh -= used
        credit[key] -= used
    history.credit_wh = {period: wh for period, wh in credit.items() if wh}
    if not sheet.ends_month(export.true_up_month):
        return []
    left = sum(history.credit_wh.values(), Fraction(0))
    history.credit_wh = {}
    return [sheet.line(f"{export.id}-true-up", "export", left / 1000, -export.year_end_price)] if left else []


def export_lines(
    sheet: Sheet, chunks: Sequence[Chunk], lines: Sequence[Line], export: Export, series: Mapping[str, Series]
) -> list[Line]:
    """Return what is paid for energy fed in, and money credits given, used and ended."""
    fed = [(chunk.season, chunk.period, chunk.fed_wh) for chunk in chunks]
    if export.index is not None:
        rows = [(chunk.period, chunk.at_s, chunk.fed_wh) for chunk in chunks]
        owed = indexed_amount(sheet, export.index, series, rows)
        total = sum((wh for _, _, wh in fed), Fraction(0)) / 1000
        found = [sheet.line(export.id, "export", total, Decimal(0), -owed)]
    else:
        found = _export_lines(sheet, export, chunks)
    if export.mode in ("net_billing", "buy_all"):
        return found
    history = sheet.history
    made = -sum((line.amount for line in found), Fraction(0))
    owed = sheet.sum_of(lines, export.against)
    at_once = min(made, max(Fraction(0), owed)) if export.mode == "nem_money" else Fraction(0)
    made, owed = made - at_once, owed - at_once
    if made:
        found.append(sheet.line(f"{export.id}-carried", "export", Fraction(1), Decimal(0), made))
    used = min(history.credit_money, max(Fraction(0), owed))
    if used:
        found.append(sheet.line(f"{export.id}-credit", "export", Fraction(1), Decimal(0), -used))
    left = history.credit_money - used + made
    if sheet.ends_month(export.true_up_month):
        if left and export.pays_out:
            found.append(sheet.line(f"{export.id}-true-up", "export", Fraction(1), Decimal(0), -left))
        left = Fraction(0)
    history.credit_money = left
    return found


def _export_lines(sheet: Sheet, export: Export, chunks: Sequence[Chunk]) -> list[Line]:
    """Return what is fed in by period and price: the last version's; one that it does not name by the version of its day.

    Raises:
        ValueError: Neither has one.
    """
    totals: dict[tuple[str, Decimal], Fraction] = {}
    for chunk in chunks:
        version = sheet.document.versions[chunk.version]
        tables = [export.prices, version.export.prices if version.export else None]
        if export.prices is None:
            tables = [version.prices]
        prices = [table.at(chunk.season, chunk.period) for table in tables if table is not None]
        price = next((price for price in prices if price is not None), None)
        if price is None:
            raise ValueError(f"{export.id} has no price for {chunk.season} {chunk.period}: give it one")
        is_flat = export.prices is not None and isinstance(export.prices.value, Decimal)
        key = (export.id if is_flat else f"{export.id}-{chunk.period}", price)
        totals[key] = totals.get(key, Fraction(0)) + chunk.fed_wh
    return [sheet.line(name, "export", wh / 1000, -price) for (name, price), wh in totals.items()]
