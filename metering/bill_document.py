"""From a rated cycle to the document that is kept with a bill. Pure."""

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from metering.billing import BilledLine, CycleBill
from metering.calendar import US, local_midnight_s
from metering.contract import Contract
from metering.pricing.fixed import DaySpan
from metering.pricing.rounding import decimal_from_fraction
from metering.state import Int64Column
from metering.tariff import Tariff
from schemas.bill import BillLine, DayUse, TariffPart

QUANTITY_DIGITS = 6


def bill_line(line_no: int, row: BilledLine, tariff_document_no: int | None) -> BillLine:
    """Return a rated line as a row of a bill."""
    line = row.line
    return BillLine(
        line_no=line_no,
        line_id=line.id,
        kind=line.kind,
        label=line.label,
        quantity=plain(decimal_from_fraction(line.quantity, QUANTITY_DIGITS)),
        unit=line.unit,
        price=line.price,
        amount=row.amount,
        amount_unrounded=line.amount_unrounded,
        start_on=row.days[0],
        end_on=row.days[1],
        tariff_document_no=tariff_document_no,
        tariff_version=row.version,
        bucket=line.bucket,
        tier=line.tier,
        included=line.included,
    )


def plain(value: Decimal) -> Decimal:
    """Return a decimal without zeros at its end, never in powers of ten.

    Example:
        >>> plain(Decimal("120.500000")), plain(Decimal("1E+2"))
        (Decimal('120.5'), Decimal('100'))
    """
    short = value.normalize()
    return short.quantize(Decimal(1)) if int(short.as_tuple().exponent) > 0 else short


def tariff_parts(
    contract: Contract, cycle: DaySpan, tariffs: Mapping[str, Tariff], documents: Mapping[str, tuple[int, str]]
) -> tuple[TariffPart, ...]:
    """Return the tariffs of a cycle; `documents` has number and SHA-256 of each tariff's document."""
    return tuple(
        TariffPart(
            tariff_id=item.tariff_id,
            name=tariffs[item.tariff_id].name,
            tariff_document_no=documents[item.tariff_id][0],
            document_sha256=documents[item.tariff_id][1],
            start_on=days[0],
            end_on=days[1],
            terms=dict(item.terms),
        )
        for days, item in contract.parts(cycle)
    )


def day_uses(
    tariff: Tariff, days: DaySpan, start_us: Int64Column, columns: Mapping[str, Int64Column]
) -> tuple[DayUse, ...]:
    """Return the energy of each local day that any interval is known of.

    Args:
        tariff: Has the zone.
        days: Of the bill.
        start_us: Shape (n,), start of each interval, epoch µs.
        columns: `import_wh`, `estimated_wh` and perhaps `export_wh`, shape (n,), Wh.
    """
    dates = [days[0] + dt.timedelta(days=number) for number in range((days[1] - days[0]).days)]
    edges = np.array([local_midnight_s(tariff, day) for day in [*dates, days[1]]], np.int64) * US
    place = np.searchsorted(edges, start_us, side="right") - 1
    inside = (place >= 0) & (place < len(dates))

    def by_day(name: str) -> list[int]:
        total = np.zeros(len(dates), np.int64)
        if name in columns:
            np.add.at(total, place[inside], columns[name][inside])
        return [int(value) for value in total]

    seen = np.zeros(len(dates), np.bool_)
    seen[place[inside]] = True
    rows = zip(dates, by_day("import_wh"), by_day("export_wh"), by_day("estimated_wh"), seen.tolist(), strict=True)
    return tuple(
        DayUse(day=day, energy_wh=used, export_wh=fed, estimated_wh=estimated)
        for day, used, fed, estimated, is_seen in rows
        if is_seen
    )


def bill_lines(bill: CycleBill, documents: Mapping[str, tuple[int, str]]) -> list[BillLine]:
    """Return the lines of a rated cycle, numbered from 1."""
    return [bill_line(number, row, documents[row.tariff_id][0]) for number, row in enumerate(bill.lines, 1)]


def totals_of(lines: Sequence[BillLine]) -> Decimal:
    """Return the unrounded sum of lines."""
    return sum((line.amount_unrounded for line in lines), Decimal(0))
