"""Bills for tests of paper, mail and bundles: a Chinese and an English one, made up."""

import datetime as dt
from decimal import Decimal
from typing import Any

import msgspec

from connectors.paper.sheet import Paper
from metering.tariff import Tariff, parse_tariff
from schemas.bill import BillDocument, BillLine, Comparison, DayUse, Party, RegisterSpan, TariffPart

START, END = dt.date(2026, 10, 1), dt.date(2026, 11, 1)
TARIFF = {
    "tariff_id": "county",
    "name": "County time of use",
    "currency": "CNY",
    "zone": "Asia/Shanghai",
    "versions": [
        {
            "valid_from": "2026-01-01",
            "windows": [
                {"period": "sharp", "from": "19:00", "to": "21:00", "day_types": ["workday"]},
                {"period": "peak", "from": "08:00", "to": "22:00", "day_types": ["workday"]},
                {"period": "flat", "from": "08:00", "to": "22:00"},
            ],
            "rest": "valley",
            "prices": {"sharp": "0.8", "peak": "0.6", "flat": "0.5", "valley": "0.3"},
        }
    ],
}


def tariff(**more: Any) -> Tariff:
    return parse_tariff({**TARIFF, **more})


def line(line_no: int, kind: str, label: str, quantity: str, unit: str, price: str, **more: Any) -> BillLine:
    exact = Decimal(quantity) * Decimal(price)
    given = {
        "amount_unrounded": exact,
        "amount": exact.quantize(Decimal("0.01")),
        "start_on": START,
        "end_on": END,
    } | more
    return BillLine(
        line_no=line_no,
        line_id=f"{kind}-{line_no}",
        kind=kind,
        label=label,
        quantity=Decimal(quantity),
        unit=unit,
        price=Decimal(price),
        **given,
    )


def party(language: str, **more: Any) -> Party:
    is_chinese = language == "zh"
    base = Party(
        customer_id="C-10482",
        name="王建国" if is_chinese else "Margaret Ellison",
        postal_address="浙江省安吉县递铺街道\n云鸿西路 88 号 3 幢 502 室"
        if is_chinese
        else "14 Quarry Lane\nHathersage\nS32 1AB",
        email="customer@example.org",
        language=language,
        account_id="A-3300107",
        contract_id="K-3300107",
        service_point_id="SP-0017-0042",
        service_address="云鸿西路 88 号 3 幢 502 室" if is_chinese else "14 Quarry Lane, Hathersage",
    )
    return msgspec.structs.replace(base, **more)


def days(*, missing: tuple[int, ...] = (9, 10), estimated: tuple[int, ...] = (11, 12)) -> tuple[DayUse, ...]:
    found = []
    for number in range((END - START).days):
        day = START + dt.timedelta(days=number)
        used = 7_400 + (number * 2_713) % 5_300 + (2_600 if day.weekday() >= 5 else 0)
        if number in missing:
            continue
        found.append(DayUse(day=day, energy_wh=used, estimated_wh=used * 2 // 3 if number in estimated else 0))
    return tuple(found)


def lines() -> tuple[BillLine, ...]:
    return (
        line(1, "energy", "sharp", "31.25", "kWh", "0.8"),
        line(2, "energy", "peak", "118.4", "kWh", "0.6"),
        line(3, "energy", "flat", "63.908", "kWh", "0.5"),
        line(4, "energy", "valley", "86.1", "kWh", "0.3"),
        line(5, "energy", "tier 2", "39.658", "kWh", "0.05"),
        line(6, "fixed", "standing", "31", "day", "0.12"),
        line(7, "surcharge", "fund", "299.658", "kWh", "0.0235"),
        line(
            8,
            "tax",
            "vat",
            "182.02",
            "CNY",
            "0.13",
            amount=Decimal(0),
            amount_unrounded=Decimal(0),
            included=Decimal("20.94"),
        ),
        line(
            9,
            "correction",
            "2026-09-01 – 2026-10-01",
            "1",
            "correction",
            "-2.40",
            corrects_bill_no="2026-000017",
            reason="known after the bill: readings of 2026-09-11; 289.4 → 285.4 kWh",
            start_on=dt.date(2026, 9, 1),
            end_on=dt.date(2026, 10, 1),
        ),
    )


def document(language: str = "zh", **more: Any) -> BillDocument:
    rows = more.pop("lines", lines())
    exact = sum((row.amount_unrounded for row in rows), Decimal(0))
    use = more.pop("days", days())
    used = sum(day.energy_wh for day in use)
    noon = dt.datetime(2026, 9, 30, 16, tzinfo=dt.UTC)
    base = BillDocument(
        kind="invoice",
        bill_no="2026-000123",
        issuer="安吉县供电公司" if language == "zh" else "County Utility",
        party=party(language),
        start_on=START,
        end_on=END,
        zone="Asia/Shanghai",
        currency="CNY",
        digits=2,
        lines=tuple(rows),
        total=exact.quantize(Decimal("0.01")),
        total_unrounded=exact,
        issued_on=dt.date(2026, 11, 2),
        due_on=dt.date(2026, 11, 23),
        energy_wh=used,
        estimated_wh=sum(day.estimated_wh for day in use),
        registers=(
            RegisterSpan(
                meter_id="330100041718",
                register="import",
                start_at=noon,
                end_at=noon + dt.timedelta(days=31),
                start_wh=6_193_240,
                end_wh=6_193_240 + used,
                energy_wh=used,
            ),
        ),
        days=use,
        tariffs=(
            TariffPart(
                tariff_id="county",
                name="安吉县居民峰谷电价" if language == "zh" else "County time of use",
                tariff_document_no=1,
                document_sha256="0" * 64,
                start_on=START,
                end_on=END,
                terms={"contract_kw": Decimal(8)},
            ),
        ),
        comparisons=(
            Comparison(
                what="last_period",
                start_on=dt.date(2026, 9, 1),
                end_on=dt.date(2026, 10, 1),
                energy_wh=289_400,
                total=Decimal("171.36"),
            ),
            Comparison(
                what="last_year",
                start_on=dt.date(2025, 10, 1),
                end_on=dt.date(2025, 11, 1),
                energy_wh=276_900,
                total=Decimal("158.02"),
            ),
        ),
    )
    return msgspec.structs.replace(base, **more)


def paper(language: str = "zh", **more: Any) -> Paper:
    return Paper(document(language, **more), {1: tariff()}, Decimal("23.50"))
