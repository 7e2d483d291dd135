"""Pages of bills: the list with what waits for somebody, and one bill down to the raw message (console guide §4)."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from console.chart import Bar, meter_chart
from console.explain import plain_decimal
from console.figure import kilo_text
from console.words import Words
from schemas.bill import BillDocument, BillLine
from storage.audit import fetch_audit
from storage.bill import BillQuery, BillRow, fetch_bill, fetch_bills, fetch_holds
from storage.bill_explain import LineExplained, explain_bill
from storage.bill_run import fetch_runs
from storage.billing_overview import fetch_failed_deliveries, fetch_hold_reasons, fetch_state_counts
from storage.proposal import Proposal, fetch_proposals

STATES = ("draft", "held", "checked", "issued", "sent", "paid", "overdue", "cancelled")
STEPS = ("draft", "checked", "issued", "sent", "paid")
ROWS_A_PAGE = 100
READINGS_SHOWN = 4
ESTIMATED_PART = 4
"""A day is drawn as averaged when more than one part in so many of its energy is estimated."""
MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


def money_text(amount: Decimal) -> str:
    """Return an amount with its thousands set apart and a real minus sign.

    Example:
        >>> money_text(Decimal("-1234.50"))
        '−1,234.50'
    """
    return f"{amount:,}".replace("-", "−")


def plain_text(value: Decimal) -> str:
    """Return a decimal without an exponent and without trailing zeros, with a real minus sign."""
    return plain_decimal(value).replace("-", "−")


def period_text(start_on: dt.date, end_on: dt.date) -> str:
    """Return a period with its last day, as people write it.

    Example:
        >>> period_text(dt.date(2026, 10, 1), dt.date(2026, 11, 1))
        '2026-10-01 – 10-31'
    """
    last = end_on - dt.timedelta(days=1)
    return f"{start_on} – {last:%m-%d}" if last.year == start_on.year else f"{start_on} – {last}"


def bills_page(conn: psycopg.Connection[Any], asked: Mapping[str, Any], words: Words) -> dict[str, Any]:
    """Return the values of the list's page; `asked` has `q`, `state`, `month` and `offset`."""
    rows = find_bills(conn, asked)
    more = len(rows) > ROWS_A_PAGE
    rows = rows[:ROWS_A_PAGE]
    holds = fetch_hold_reasons(conn, [row.bill_id for row in rows if row.state == "held"])
    counts = fetch_state_counts(conn)
    return {
        "asked": asked,
        "states": STATES,
        "counts": [{"state": state, "count": counts.get(state, 0)} for state in STATES if counts.get(state)],
        "proposals": [proposal_values(item) for item in fetch_proposals(conn)],
        "failed": fetch_failed_deliveries(conn),
        "run": next(iter(fetch_runs(conn, 1)), None),
        "bills": [
            bill_values(row) | {"holds": ", ".join(words.hold(one) for one in holds.get(row.bill_id, ()))}
            for row in rows
        ],
        "next_offset": asked["offset"] + ROWS_A_PAGE if more else None,
    }


def find_bills(conn: psycopg.Connection[Any], asked: Mapping[str, Any]) -> list[BillRow]:
    """Return the bills asked for, one more than a page: by the beginning of a number, an account, a meter or a customer."""
    month = MONTH.fullmatch(asked["month"])
    span: dict[str, Any] = {}
    if month:
        first = dt.date(int(month[1]), int(month[2]), 1)
        span = {"from_on": first, "to_on": (first + dt.timedelta(days=32)).replace(day=1)}
    states = (asked["state"],) if asked["state"] in STATES else ()
    base = {"states": states, "limit": ROWS_A_PAGE + 1, "offset": asked["offset"], **span}
    if not asked["q"]:
        return fetch_bills(conn, BillQuery(**base))
    for name in ("bill_no", "account_id", "meter_id", "customer"):
        if rows := fetch_bills(conn, BillQuery(**base, **{name: asked["q"]})):
            return rows
    return []


def bill_values(row: BillRow) -> dict[str, Any]:
    """Return a bill as a row of a list."""
    return {
        "bill_id": row.bill_id,
        "bill_no": row.bill_no,
        "kind": row.kind,
        "state": row.state,
        "name": row.customer_name,
        "account_id": row.account_id,
        "period": period_text(row.start_on, row.end_on),
        "energy_wh": row.energy_wh,
        "amount": money_text(row.total),
        "currency": row.currency,
        "due_on": row.due_on,
    }


def proposal_values(item: Proposal) -> dict[str, Any]:
    """Return a proposal as pages show it."""
    change = item.effect.get("change")
    return {
        "proposal_id": item.proposal_id,
        "bill_id": item.bill_id,
        "bill_no": item.bill_no,
        "action": item.action,
        "reason": item.reason,
        "proposed_by": item.proposed_by,
        "proposed_at": item.proposed_at,
        "effect_text": money_text(Decimal(change)) if change is not None else "",
    }


def bill_page(conn: psycopg.Connection[Any], bill_id: int, line_no: int | None, words: Words) -> dict[str, Any]:
    """Return the values of a bill's page.

    Args:
        conn: Connection.
        bill_id: Which.
        line_no: Line to explain; None is the one with the largest amount.
        words: Of the visitor's language.

    Raises:
        BillError: There is no such bill.
    """
    row, document = fetch_bill(conn, f"#{bill_id}")
    zone = ZoneInfo(document.zone)
    wanted = line_no if line_no is not None else _largest(document.lines)
    line = next((item for item in document.lines if item.line_no == wanted), None)
    proposals = [item for item in fetch_proposals(conn) if item.bill_id == bill_id]
    share = 100 * document.estimated_wh / document.energy_wh if document.energy_wh else 0
    return {
        "row": row,
        "doc": document,
        "zone": zone,
        "title": words.say("bill_n", no=row.bill_no) if row.bill_no else words.say("draft_no", no=row.bill_id),
        "unit": words.currency(document.currency),
        "period": period_text(document.start_on, document.end_on),
        "is_credit": document.total < 0,
        "total": money_text(document.total),
        "total_unrounded": plain_text(document.total_unrounded),
        "estimated": f"{share:.1f}",
        "comparisons": [
            {
                "what": item.what,
                "period": period_text(item.start_on, item.end_on),
                "total": money_text(item.total),
                "energy_wh": item.energy_wh,
            }
            for item in document.comparisons
        ],
        "flow": _flow(row, document, words),
        "holds": fetch_holds(conn, [bill_id]),
        "lines": [line_values(item, words) for item in document.lines],
        "explained": _explained(conn, bill_id, line, words) if line else None,
        "chart": _day_chart(document, zone, words),
        "proposal": proposal_values(proposals[0]) if proposals else None,
        "history": _history(conn, row),
    }


def _largest(lines: Sequence[BillLine]) -> int | None:
    return max(lines, key=lambda line: abs(line.amount_unrounded)).line_no if lines else None


def line_values(line: BillLine, words: Words) -> dict[str, Any]:
    """Return a bill's line as pages show it."""
    has_price = line.quantity != 0 or line.price != 0
    return {
        "line_no": line.line_no,
        "label": words.bill_label(line.kind, line.label),
        "period": period_text(line.start_on, line.end_on),
        "reason": line.reason,
        "quantity": f"{plain_text(line.quantity)} {line.unit}" if has_price else "",
        "price": plain_text(line.price) if has_price else "",
        "amount": money_text(line.amount),
        "unrounded": plain_text(line.amount_unrounded),
    }


def _flow(row: BillRow, document: BillDocument, words: Words) -> list[dict[str, Any]]:
    """Return how far a bill has come; what is held, overdue or cancelled stands where it left the way."""
    place = {"held": "draft", "overdue": "sent", "cancelled": "sent"}.get(row.state, row.state)
    reached = STEPS.index(place)
    steps = []
    for number, step in enumerate(STEPS):
        now = number == reached
        on = f"{document.issued_on:%m-%d}" if step == "issued" and document.issued_on else ""
        word = row.state if now else step
        steps.append({"word": words.bill_state(word), "now": now, "done": number < reached, "on": on})
    return steps


def _history(conn: psycopg.Connection[Any], row: BillRow) -> list[dict[str, Any]]:
    """Return what people did with a bill, newest first: under its number, and under its id before it had one."""
    names = [f"bill #{row.bill_id}", *([f"bill {row.bill_no}"] if row.bill_no else [])]
    rows = [item for name in names for item in fetch_audit(conn, name)]
    rows.sort(key=lambda item: item["audit_no"], reverse=True)
    return [
        {
            "at": item["at"],
            "who": item["who"],
            "action": item["action"],
            "text": " · ".join(str(item["detail"][name]) for name in ("reason", "note") if item["detail"].get(name)),
        }
        for item in rows
    ]


def _day_chart(document: BillDocument, zone: dt.tzinfo, words: Words) -> str:
    if not document.days:
        return ""
    bars = [
        Bar(
            _midnight(item.day, zone),
            _midnight(item.day + dt.timedelta(days=1), zone),
            item.energy_wh / 1000,
            "averaged" if item.estimated_wh * ESTIMATED_PART > item.energy_wh else "actual",
            f"{item.day:%m-%d} {kilo_text(item.energy_wh, 3)} kWh",
        )
        for item in document.days
    ]
    high = max(bar.value for bar in bars)
    return meter_chart(
        bars,
        [],
        bars[0].start,
        bars[-1].end,
        zone=zone,
        unit="kWh",
        sentence=words.say("by_day_sentence", days=len(bars), high=f"{high:,.2f}"),
        missing=words.missing,
        least_gap=dt.timedelta(days=1),
    )


def _midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def _explained(conn: psycopg.Connection[Any], bill_id: int, line: BillLine, words: Words) -> dict[str, Any]:
    """Return the steps from a line down to the newest of its readings."""
    found = explain_bill(conn, f"#{bill_id}", str(line.line_no)).lines[0]
    estimated_wh = sum(item.estimated_wh for item in found.intervals)
    return {
        **line_values(line, words),
        "kind_text": words[f"basis_line_{line.kind}"],
        "tariff": found.tariff,
        "rules": _rules(found, words),
        "intervals": len(found.intervals),
        "energy_wh": found.energy_wh if found.intervals else None,
        "estimated_wh": estimated_wh,
        "count": len(found.readings),
        "readings": [
            {**vars(item), "marks": "、".join(words.get(one, one) for one in item.quality.split())}
            for item in found.readings[-READINGS_SHOWN:]
        ],
    }


def _rules(found: LineExplained, words: Words) -> list[str]:
    tariff = found.tariff
    if tariff is None:
        return []
    where = " ".join(words.get(name, name) for name in (tariff.season, tariff.period) if name and name != "all_year")
    if tariff.listed_price is None:
        return [where] if where else []
    return [f"{where}{words.colon}{plain_text(tariff.listed_price)}" if where else plain_text(tariff.listed_price)]
