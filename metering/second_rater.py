"""A second rater, slow and independent: every bill is made again by it, and must be the same.

It shares nothing with `metering.rating`: it was written from docs/tariffs.md, one interval at a time, as a clerk would with a
tariff sheet, a calendar and exact fractions. Where the two differ, the page decides. Pure.
"""

import copy
import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from metering.second_clock import Flags, Interval, Piece, pieces_of, read_sheet, series_of
from metering.second_energy import (
    Series,
    component_lines,
    energy_lines,
    export_lines,
    net,
    use_kwh_credits,
)
from metering.second_power import demand_lines, reactive_lines, windows_of
from metering.second_rest import (
    discount_lines,
    fixed_lines,
    minimum_lines,
    surcharge_lines,
    tax_lines,
)
from metering.second_sheet import Line, Sheet, SlowHistory, read_history, to_step
from schemas.tariff import DemandCharge, TariffDocument

__all__ = ["Interval", "Line", "SlowBill", "SlowHistory", "rate_slowly", "read_history", "rounded_total"]


@dataclasses.dataclass(frozen=True)
class SlowBill:
    """A bill as the second rater makes it."""

    lines: tuple[Line, ...]
    total: Decimal
    total_unrounded: Fraction
    due: Fraction
    """What `total` is rounded of: the sum of unrounded lines, or of rounded ones where the tariff rounds lines."""
    history: SlowHistory
    """What this cycle leaves to the next."""


def rate_slowly(  # noqa: PLR0913  # all that a bill is made of
    document: Mapping[str, Any],
    intervals: Iterable[Interval],
    start_on: dt.date,
    end_on: dt.date,
    *,
    terms: Mapping[str, Decimal] | None = None,
    flags: Flags | None = None,
    series: Mapping[str, Series] | None = None,
    history: SlowHistory | None = None,
    part: tuple[dt.date, dt.date] | None = None,
    system_peaks_s: Sequence[int] = (),
    until: dt.date | None = None,
) -> SlowBill:
    """Return the bill of one cycle.

    Args:
        document: Tariff document, as docs/tariffs.md.
        intervals: Energies, in any order, each instant once; what lies outside of the cycle is left out.
        start_on: First local day of the cycle.
        end_on: Local day after its last.
        terms: Terms of the contract, such as ``contract_kw``.
        flags: Days published under each flag.
        series: Published prices by series and epoch s.
        history: What earlier cycles left; it is not changed.
        part: Days of the cycle that this tariff holds for, where a contract has it for some only.
        system_peaks_s: Instants of the system's peak, epoch s.
        until: Day up to which fixed charges by the day are counted, while the cycle runs.

    Raises:
        ValueError: The tariff needs something that is not there.
    """
    span = part or (start_on, end_on)
    sheet = Sheet(read_sheet(document), (start_on, end_on), span, terms or {}, copy.deepcopy(history or SlowHistory()))
    rows = [sheet.measured(interval) for interval in intervals]
    prices_from_s = _price_starts(sheet, series or {})
    pieces = pieces_of(sheet.document, rows, span, flags or {}, prices_from_s=prices_from_s)
    whole = pieces_of(sheet.document, rows, span, flags or {}, cut=False)
    export = sheet.last.export
    chunks = net(sheet, pieces, export)
    lines: list[Line] = []
    if export is not None and export.mode == "nem_kwh":
        lines += use_kwh_credits(sheet, chunks, export)
    used_kwh = sum((chunk.drawn_wh for chunk in chunks), Fraction(0)) / 1000

    def peak_kw(version: int) -> Fraction:
        charge = next(iter(sheet.document.versions[version].demand), DemandCharge())
        charge = dataclasses.replace(charge, quantity="kW")
        return max((row[1] for row in windows_of(sheet, whole, charge)), default=Fraction(0))

    lines += energy_lines(sheet, chunks, peak_kw)
    lines += component_lines(sheet, pieces, series or {})
    lines += fixed_lines(sheet, until)
    drawn_kwh = Fraction(sum(piece.energy.import_wh for piece in pieces), 1000)
    lines += demand_lines(sheet, whole, system_peaks_s, drawn_kwh)
    lines += reactive_lines(sheet, pieces, whole, lines)
    if export is not None and export.mode != "nem_kwh":
        lines += export_lines(sheet, chunks, lines, export, series or {})
    lines += surcharge_lines(sheet, chunks, lines)
    lines += discount_lines(sheet, lines, used_kwh + _controlled_kwh(sheet, pieces))
    lines += minimum_lines(sheet, lines)
    lines += tax_lines(sheet, lines)
    return _bill(sheet, lines, used_kwh)


def _price_starts(sheet: Sheet, series: Mapping[str, Series]) -> list[int]:
    """Return the instants from which published prices hold, epoch s."""
    used = series_of(sheet.document, sheet.part)
    return sorted({at_s for name in used for at_s in series.get(name, ())})


def _controlled_kwh(sheet: Sheet, pieces: Sequence[Piece]) -> Fraction:
    """Return the energy of the controlled register where a price is for it."""
    components = [row for index in sheet.versions for row in sheet.document.versions[index].energy]
    if not any(row.register == "controlled" for row in components):
        return Fraction(0)
    return Fraction(sum(piece.energy.controlled_wh or 0 for piece in pieces), 1000)


def _bill(sheet: Sheet, lines: Sequence[Line], used_kwh: Fraction) -> SlowBill:
    rounding = sheet.document.rounding
    unrounded = sum((line.amount for line in lines), Fraction(0))
    due = unrounded
    if rounding.line is not None:
        due = sum(
            (to_step(line.amount, Fraction(rounding.line.step), rounding.line.mode) for line in lines), Fraction(0)
        )
    history = sheet.history
    year, season = sheet.cycle[0].year, sheet.sides[0].season
    first = history.year != year
    history.year_wh = used_kwh * 1000 + (0 if first else history.year_wh)
    history.year_billed = unrounded + (0 if first else history.year_billed)
    history.season_wh = used_kwh * 1000 + (history.season_wh if history.season == season else 0)
    history.year, history.season = year, season
    return SlowBill(tuple(lines), rounded_total(sheet.document, due), unrounded, due, history)


def rounded_total(document: TariffDocument, due: Fraction) -> Decimal:
    """Return what is to be paid, as the tariff rounds it."""
    step, mode = Fraction(1, 10**document.digits), "half_up"
    if document.rounding.total is not None:
        step, mode = Fraction(document.rounding.total.step), document.rounding.total.mode
    total = to_step(due, step, mode)
    return Decimal(total.numerator) / Decimal(total.denominator)
