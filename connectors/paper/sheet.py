"""The sheet of a bill: every word and figure that page and PDF show, in the customer's language.

Nothing else is computed where they are drawn, so that both say the same.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

from connectors.paper.picture import daily_chart, swatch, week_picture
from connectors.paper.words import MINUS, TERMS, Speech, exact, grouped
from metering.bill import KINDS
from metering.tariff import Tariff
from schemas.bill import BillDocument, BillLine, RegisterSpan

NO_QUANTITY = ("correction", "adjustment", "credit")
KIND_ORDER = (*KINDS, "correction", "adjustment", "credit")
TEXT_CHARS_MAX = 600
WEEKS_MAX = 4


@dataclasses.dataclass(frozen=True)
class Paper:
    """What a bill's sheet is made of."""

    document: BillDocument
    tariffs: Mapping[int, Tariff] = dataclasses.field(default_factory=dict)
    """By the number of their document; one that is missing has no picture."""
    balance_before: Decimal | None = None
    """What the account owed when the bill was issued, negative in its favour; None is not shown."""
    has_bundle: bool = True


def make_sheet(paper: Paper) -> dict[str, Any]:
    """Return the sheet of a bill: text, and pictures as SVG, for the templates."""
    document = paper.document
    speech = Speech(document.party.language)
    title = speech.word(document.kind)
    number = document.bill_no or speech.word("draft")
    return {
        "lang": speech.lang,
        "title": title,
        "number": number,
        "doc_title": f"{title} {number} – {clean(document.issuer)}",
        "is_draft": document.bill_no is None,
        "words": {key: speech.word(key) for key in _WORDS_USED} | _filled(document, speech),
        "issuer": clean(document.issuer),
        "issuer_short": clean(document.issuer)[:40],
        "party": _party(document),
        "facts": _facts(document, speech),
        "due": _due(document, speech),
        "glance": _glance(document, speech),
        "groups": _groups(document, speech),
        "rounding": _rounding(document, speech),
        "total": speech.money(document.total, document.currency, document.digits),
        "registers": _registers(document, speech),
        "chart": _chart(document, speech),
        "compared": _compared(document, speech),
        "tariffs": [_tariff(part, paper, speech) for part in document.tariffs],
        "notes": _notes(document, speech),
        "balance": _balance(paper, speech),
        "proof": speech.word("proof") if paper.has_bundle and document.bill_no else "",
    }


_WORDS_USED = (
    *("charges", "line", "quantity", "price", "amount", "total", "rounded_once", "registers", "meter", "direction"),
    *("opening", "closing", "difference", "period", "daily", "compared", "used", "a_day", "change", "tariff", "notes"),
    *("reason", "estimated_note", "rounding", "page", "balance_before", "one_price", "draft"),
)


def clean(text: str) -> str:
    """Return a text as one line of printable signs, not endless: what others entered must not break a sheet."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return plain if len(plain) <= TEXT_CHARS_MAX else plain[: TEXT_CHARS_MAX - 1] + "…"


def _filled(document: BillDocument, speech: Speech) -> dict[str, str]:
    return {"unit_of_money": speech.word("unit_of_money", currency=document.currency)}


def _party(document: BillDocument) -> dict[str, Any]:
    party = document.party
    lines = [clean(line) for line in party.postal_address.splitlines() if line.strip()]
    return {"name": clean(party.name), "address": lines[:6]}


def _facts(document: BillDocument, speech: Speech) -> list[list[str]]:
    party = document.party
    days = (document.end_on - document.start_on).days
    period = f"{speech.period(document.start_on, document.end_on)} ({speech.word('days', n=days)})"
    facts = [["bill_no", document.bill_no or speech.word("draft")]]
    if document.corrects_bill_no:
        facts.append(["corrects", document.corrects_bill_no])
    if document.issued_on:
        facts.append(["issued_on", speech.day(document.issued_on)])
    facts.append(["period", period])
    facts += [["customer", party.customer_id], ["account", party.account_id], ["contract", party.contract_id]]
    facts.append(["service_point", party.service_point_id])
    if party.service_address.strip():
        facts.append(["service_address", clean(party.service_address)])
    return [[speech.word(key), value] for key, value in facts]


def _due(document: BillDocument, speech: Speech) -> dict[str, str]:
    total, money = document.total, speech.money(abs(document.total), document.currency, document.digits)
    if total < 0:
        return {"label": speech.word("amount_back"), "amount": money, "text": speech.word("settled_with")}
    if total == 0:
        return {"label": speech.word("nothing_due"), "amount": money, "text": ""}
    by = speech.word("due_by", day=speech.day(document.due_on)) if document.due_on else ""
    return {"label": speech.word("amount_due"), "amount": money, "text": by}


def _glance(document: BillDocument, speech: Speech) -> list[list[str]]:
    if not (document.days or document.registers or document.energy_wh or document.export_wh):
        return []
    days = max((document.end_on - document.start_on).days, 1)
    found = [
        [speech.word("used"), speech.energy(document.energy_wh)],
        [speech.word("a_day"), speech.energy((document.energy_wh + days // 2) // days)],
    ]
    if document.export_wh:
        found.insert(1, [speech.word("fed"), speech.energy(document.export_wh)])
    if document.estimated_wh:
        share = percent(document.estimated_wh, document.energy_wh)
        found.append([speech.word("estimated"), f"{speech.energy(document.estimated_wh)} ({share})"])
    return found


def percent(part: int, whole: int, *, signed: bool = False) -> str:
    """Return a share in percent with one decimal; a dash of nothing."""
    if whole == 0:
        return "–"
    value = Decimal(part) * 100 / Decimal(whole)
    sign = "+" if signed and value > 0 else ""
    return f"{sign}{grouped(value, 1)} %"


def _groups(document: BillDocument, speech: Speech) -> list[dict[str, Any]]:
    by_kind: dict[str, list[BillLine]] = {}
    for line in document.lines:
        by_kind.setdefault(line.kind, []).append(line)
    order = {kind: place for place, kind in enumerate(KIND_ORDER)}
    return [
        {
            "name": speech.word(f"kind_{kind}") if kind in KIND_ORDER else kind,
            "subtotal": grouped(sum((line.amount for line in lines), Decimal(0)), document.digits),
            "rows": [_row(line, document, speech) for line in lines],
        }
        for kind, lines in sorted(by_kind.items(), key=lambda item: order.get(item[0], len(order)))
    ]


def _row(line: BillLine, document: BillDocument, speech: Speech) -> dict[str, str]:
    quantity, price = _quantity(line, document, speech)
    notes = []
    if line.unit == "correction" and line.corrects_bill_no:  # or the credit of one
        label = speech.word("correction_of", no=line.corrects_bill_no, period=speech.period(line.start_on, line.end_on))
    elif line.unit == line.kind == "adjustment":
        label = speech.word("adjustment")
    else:
        label = speech.label(clean(line.label))
        if (line.start_on, line.end_on) != (document.start_on, document.end_on):
            notes.append(speech.period(line.start_on, line.end_on))
    if line.included is not None:
        notes.append(speech.word("contains", amount=grouped(line.included, document.digits)))
    if line.reason and line.kind != "credit":
        notes.append(speech.reason(clean(line.reason)))
    return {
        "label": label,
        "note": " · ".join(notes),
        "quantity": quantity,
        "price": price,
        "amount": grouped(line.amount, document.digits),
    }


def _quantity(line: BillLine, document: BillDocument, speech: Speech) -> tuple[str, str]:
    if line.unit in NO_QUANTITY:
        return "", ""
    if line.unit == "%":
        base = line.price * 100 if line.price else Decimal(0)
        return f"{exact(line.quantity)} %", f"× {grouped(base, document.digits)}"
    if line.unit == document.currency:
        return speech.money(line.quantity, line.unit, document.digits), f"{exact(line.price * 100)} %"
    unit = speech.unit(line.unit)
    return f"{exact(line.quantity, 0, 3)} {unit}".strip(), exact(line.price, 2, 6)


def _rounding(document: BillDocument, speech: Speech) -> str:
    """Return the difference of the total to the sum of the lines shown, empty when there is none."""
    left = document.total - sum((line.amount for line in document.lines), Decimal(0))
    return grouped(left, max(document.digits, -int(left.normalize().as_tuple().exponent))) if left else ""


def _registers(document: BillDocument, speech: Speech) -> list[list[str]]:
    zone = ZoneInfo(document.zone)
    return [_register(span, zone, speech) for span in document.registers]


def _register(span: RegisterSpan, zone: dt.tzinfo, speech: Speech) -> list[str]:
    start, end = (at.astimezone(zone) for at in (span.start_at, span.end_at))
    over = speech.word("rolled_over") if span.end_wh < span.start_wh else ""
    return [
        clean(span.meter_id),
        speech.word("register_export" if span.register == "export" else "register_import"),
        f"{speech.day(start.date())} {start:%H:%M}",
        grouped(Decimal(span.start_wh) / 1000, 3),
        f"{speech.day(end.date())} {end:%H:%M}",
        grouped(Decimal(span.end_wh) / 1000, 3) + (f" {over}" if over else ""),
        speech.energy(span.energy_wh),
    ]


def _chart(document: BillDocument, speech: Speech) -> dict[str, Any] | None:
    if not document.days:
        return None
    count = (document.end_on - document.start_on).days
    missing = count - len({day.day for day in document.days})
    legend = [[swatch("use"), speech.word("legend_measured")]]
    if document.export_wh:
        legend.append([swatch("fed"), speech.word("fed")])
    if any(day.estimated_wh for day in document.days):
        legend.append([swatch("estimated"), speech.word("legend_estimated")])
    if missing:
        legend.append([swatch("missing"), speech.word("legend_missing")])
    svg = daily_chart(document.days, document.start_on, document.end_on, speech)
    return {
        "svg": svg,
        "alt": _name_of(svg),
        "unit": speech.unit("kWh"),
        "legend": legend,
        "missing": speech.word("missing_days", n=missing) if missing else "",
    }


def _name_of(svg: str) -> str:
    return unescape(svg.split("<title>", 1)[1].split("</title>", 1)[0])


def _compared(document: BillDocument, speech: Speech) -> list[list[str]]:
    if not document.comparisons:
        return []
    days = max((document.end_on - document.start_on).days, 1)

    def row(name: str, span: tuple[dt.date, dt.date], energy_wh: int, total: Decimal) -> list[str]:
        length = max((span[1] - span[0]).days, 1)
        change = percent(document.energy_wh * length - energy_wh * days, energy_wh * days, signed=True)
        money = speech.money(total, document.currency, document.digits)
        mean = speech.energy((energy_wh + length // 2) // length)
        return [name, speech.period(*span), speech.energy(energy_wh), mean, change, money]

    own = row(speech.word("this_period"), (document.start_on, document.end_on), document.energy_wh, document.total)
    own[4] = ""
    return [own] + [
        row(speech.word(item.what), (item.start_on, item.end_on), item.energy_wh, item.total)
        for item in sorted(document.comparisons, key=lambda item: item.what)
    ]


def _tariff(part: Any, paper: Paper, speech: Speech) -> dict[str, Any]:
    last = part.end_on - dt.timedelta(days=1)
    words = speech.word("tariff_days", start=speech.day(part.start_on), end=speech.day(last))
    terms = [
        TERMS[name][0 if speech.is_chinese else 1].format(value=exact(value))
        if name in TERMS
        else f"{name} {exact(value)}"
        for name, value in sorted(part.terms.items())
    ]
    tariff = paper.tariffs.get(part.tariff_document_no)
    weeks = _weeks(tariff, (part.start_on, part.end_on), speech) if tariff else []
    return {
        "name": clean(part.name) or part.tariff_id,
        "days": words,
        "terms": (f"{speech.word('terms')}: " + ", ".join(terms)) if terms else "",
        "weeks": weeks,
        "is_flat": tariff is not None and not weeks,
    }


def _weeks(tariff: Tariff, days: tuple[dt.date, dt.date], speech: Speech) -> list[dict[str, str]]:
    """Return a picture of each version and season that some days are in; of one price at all hours there is none."""
    seen: dict[tuple[int, str], None] = {}
    for offset in range((days[1] - days[0]).days):
        day = days[0] + dt.timedelta(days=offset)
        index = tariff.version_index_on(day)
        seen.setdefault((index, tariff.versions[index].season_of(day)))
    found = []
    for index, season in list(seen)[:WEEKS_MAX]:
        version = tariff.versions[index]
        periods = [period for name, period in version.price_keys if name == season]
        if len(periods) < 2:
            continue
        prices = [
            f"{speech.label(period)} {exact(version.prices_per_kwh[season, period], 2)}"
            for period in periods
            if (season, period) in version.prices_per_kwh
        ]
        name = speech.label(season) if len(seen) > 1 or season != "all_year" else ""
        unit = speech.money(Decimal(0), tariff.currency, 0).replace("0", "").strip()
        shown = f"{' · '.join(prices)} ({unit}/{speech.unit('kWh')})" if prices else ""
        svg = week_picture(version, season, speech)
        found.append({"svg": svg, "alt": _name_of(svg), "season": name, "prices": shown})
    return found


def _notes(document: BillDocument, speech: Speech) -> list[list[str]]:
    found = []
    if document.reason:
        found.append([speech.word(document.kind), document.corrects_bill_no or "", clean(document.reason)])
    return found


def _balance(paper: Paper, speech: Speech) -> list[list[str]]:
    if paper.balance_before is None:
        return []
    document = paper.document
    rows: Sequence[tuple[str, Decimal]] = (
        (speech.word("balance_before"), paper.balance_before),
        (speech.word(document.kind), document.total),
        (speech.word("balance_after"), paper.balance_before + document.total),
    )
    found = []
    for place, (name, value) in enumerate(rows):
        text = speech.money(value, document.currency, document.digits)
        if place != 1 and value:
            text = text.removeprefix(MINUS)
            text += ("" if speech.is_chinese else " ") + speech.word("balance_owed" if value > 0 else "balance_credit")
        found.append([name, text])
    return found
