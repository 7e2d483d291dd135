"""Bills on paper: page and PDF say the same, whatever is on the bill; nothing that others entered breaks them."""

import datetime as dt
import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.paper.page import bill_html, content_policy
from connectors.paper.picture import daily_chart, nice_top
from connectors.paper.print import bill_pdf, bill_png
from connectors.paper.sheet import Paper, make_sheet
from connectors.paper.words import WORDS, Speech
from schemas.bill import BillDocument, DayUse
from tests.connectors import made_bill
from tests.connectors.made_bill import END, START, line

LONG = "Unpronounceable" * 20
CHINESE = "浙江省湖州市安吉县递铺街道云鸿西路工业园区第三期标准厂房" * 8


def many_lines(count: int) -> tuple[Any, ...]:
    return tuple(line(number, "energy", f"peak, tier {number}", "1.5", "kWh", "0.6") for number in range(1, count + 1))


def credit_note() -> BillDocument:
    rows = tuple(
        msgspec.structs.replace(
            row, kind="credit", amount=-row.amount, amount_unrounded=-row.amount_unrounded, quantity=-row.quantity
        )
        for row in made_bill.lines()
    )
    total = -made_bill.document().total
    return made_bill.document(
        "zh", lines=rows, kind="credit_note", total=total, days=(), registers=(), tariffs=(), comparisons=(), energy_wh=0,
        corrects_bill_no="2026-000122", reason="抄错表号",
    )  # fmt: skip


BILLS: dict[str, BillDocument] = {
    "zh": made_bill.document("zh"),
    "en": made_bill.document("en"),
    "another language": made_bill.document("fr"),
    "120 lines": made_bill.document("en", lines=many_lines(120)),
    "no lines": made_bill.document("zh", lines=()),
    "long names": made_bill.document("en", party=made_bill.party("en", name=LONG, service_address=LONG), issuer=LONG),
    "long Chinese": made_bill.document(
        "zh", party=made_bill.party("zh", name=CHINESE, postal_address=CHINESE), issuer=CHINESE
    ),
    "hostile": made_bill.document(
        "en",
        party=made_bill.party(
            "en", name="<script>alert(1)</script> #panic() \\ $x$ \0\x1b[2J", postal_address="*a*\n_b_\n= c"
        ),
    ),
    "negative total": made_bill.document("en", total=Decimal("-12.30")),
    "zero total": made_bill.document("zh", total=Decimal("0.00")),
    "credit note": credit_note(),
    "draft": made_bill.document("zh", bill_no=None, issued_on=None, due_on=None),
    "fed in": made_bill.document(
        "en", days=tuple(msgspec.structs.replace(day, export_wh=5_000) for day in made_bill.days()), export_wh=145_000
    ),
    "a year": made_bill.document("en", start_on=dt.date(2025, 11, 1)),
    "another money": made_bill.document("zh", currency="XAU", digits=0),
    "no days": made_bill.document("en", days=()),
}


def paper(document: BillDocument) -> Paper:
    return Paper(document, {1: made_bill.tariff()}, Decimal("-3.20"))


@pytest.mark.parametrize("name", BILLS)
def test_every_bill_becomes_a_page_and_a_pdf_that_is_the_same_twice(name: str) -> None:
    one = paper(BILLS[name])
    pdf = bill_pdf(one)
    assert pdf.startswith(b"%PDF-1.7")
    assert pdf == bill_pdf(one)
    page = bill_html(one)
    assert page == bill_html(one)
    assert page.count("<h1>") == 1
    assert "None" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_the_pdf_has_title_language_tags_and_its_fonts() -> None:
    pdf = bill_pdf(made_bill.paper("zh"))
    for part in (b"/MarkInfo", b"/Lang", b"/Title", b"/FontFile", b"NotoSansSC", b"pdfuaid"):
        assert part in pdf, part


def test_a_long_bill_runs_over_pages() -> None:
    assert len(bill_png(paper(BILLS["120 lines"]), 30)) > len(bill_png(paper(BILLS["en"]), 30)) >= 1


def test_what_others_entered_is_text_and_never_markup() -> None:
    page = bill_html(paper(BILLS["hostile"]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page and "\0" not in page  # noqa: PT018


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = bill_html(made_bill.paper("en"))
    assert not re.search(r"<(script|link|img|iframe|object)\b| on\w+=| style=", page)
    assert set(re.findall(r"https?://[^\"' <]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in content_policy()
    assert "unsafe" not in content_policy()


def test_subtotals_and_rounding_add_up_to_the_total() -> None:
    sheet = make_sheet(made_bill.paper("en"))

    def number(text: str) -> Decimal:
        return Decimal(re.sub(r"[^0-9.−]", "", text).replace("−", "-") or "0")

    parts = [number(group["subtotal"]) for group in sheet["groups"]] + [number(sheet["rounding"])]
    assert sum(parts) == number(sheet["total"]) == Decimal("164.17")
    rows = [number(row["amount"]) for group in sheet["groups"] for row in group["rows"]]
    assert sum(rows) + number(sheet["rounding"]) == Decimal("164.17")


def test_a_missing_day_is_a_gap_and_a_day_of_nothing_is_none() -> None:
    use = [DayUse(day=START, energy_wh=0), DayUse(day=START + dt.timedelta(days=2), energy_wh=900, estimated_wh=300)]
    svg = daily_chart(use, START, START + dt.timedelta(days=4), Speech("en"))
    assert svg.count('fill="url(#missing)"') == 2
    assert svg.count('fill="url(#estimated)"') == 1
    assert "1 Oct 2026: 0.0 kWh" in svg
    assert "2 Oct 2026: missing" in svg


@pytest.mark.parametrize("most_wh", [0, 1, 3, 4, 5, 999, 1000, 1001, 9_300, 123_456_789])
def test_the_axis_reaches_over_the_highest_bar_and_not_far(most_wh: int) -> None:
    top = nice_top(most_wh)
    assert most_wh <= top <= max(4, most_wh * 5 // 2 + 4)
    assert top % 4 == 0


def test_every_word_is_there_in_both_languages_with_the_same_blanks() -> None:
    for key, (chinese, english) in WORDS.items():
        blanks = [sorted(re.findall(r"\{(\w+)\}", text)) for text in (chinese, english)]
        assert blanks[0] == blanks[1], key
        assert not re.search(r"[a-zA-Z]{4,}", re.sub(r"\{\w+\}|gridtally bill verify|JSON", "", chinese)), key


def test_days_and_money_are_said_as_the_console_says_them() -> None:
    chinese, english = Speech("zh"), Speech("en")
    assert chinese.money(Decimal("128.73"), "CNY", 2) == "128.73 元"
    assert english.money(Decimal("-1128.73"), "CNY", 2) == "−¥1,128.73"
    assert english.money(Decimal("-0.001"), "GBP", 2) == "£0.00"
    assert chinese.period(START, END) == "2026-10-01 至 2026-10-31"
    assert english.period(START, END) == "1 Oct 2026 to 31 Oct 2026"
