"""A customer's account: the charge so far with how the period may end, bills, payments (console guide §4, Customer home)."""

import datetime as dt
from decimal import Decimal
from html import escape
from typing import Any

import psycopg

from console.bill_page import ROWS_A_PAGE, bill_values, money_text, period_text, plain_text
from console.words import Words
from metering.pricing.rounding import decimal_from_fraction
from metering.terms import RatingError
from storage.bill import BillQuery, fetch_bills
from storage.billing_overview import fetch_charge_changes, fetch_meters_at, fetch_payments
from storage.contract import ContractError, fetch_contracts
from storage.load import instant
from storage.payment import open_items
from storage.projection import Projection, fetch_projection

CONTRACTS_MAX = 20
ROOM = Decimal("1.15")
"""The picture's axis ends so far beyond the largest amount."""


def account_page(conn: psycopg.Connection[Any], account: dict[str, Any], words: Words) -> dict[str, Any]:
    """Return the values of an account's page.

    Args:
        conn: Connection.
        account: As `storage.billing_overview.fetch_account` gives it.
        words: Of the visitor's language.
    """
    contracts = fetch_contracts(conn, account_ids=[account["account_id"]])[-CONTRACTS_MAX:]
    charges = []
    for contract in contracts:
        values: dict[str, Any] = {"contract_id": contract.contract_id, "lines": None, "tariff_name": "", "why": ""}
        try:
            found = fetch_projection(conn, contract.service_point_no)
        except (RatingError, ContractError) as error:
            values["why"] = str(error)
        else:
            if found is not None and found.charge.contract.contract_no == contract.contract_no:
                values |= charge_values(conn, found, words)
        charges.append(values)
    bills = fetch_bills(conn, BillQuery(account_id=account["account_id"], limit=ROWS_A_PAGE))
    _, balance = open_items(conn, account["account_no"])
    return {
        "account": account,
        "balance": money_text(balance),
        "charges": charges,
        "bills": [bill_values(row) for row in bills],
        "payments": [
            row | {"amount": money_text(row["amount"])} for row in fetch_payments(conn, account["account_no"])
        ],
        "zone": _zone_of(charges),
    }


def _zone_of(charges: list[dict[str, Any]]) -> Any:
    return next((item["zone"] for item in charges if "zone" in item), dt.UTC)


def charge_values(conn: psycopg.Connection[Any], found: Projection, words: Words) -> dict[str, Any]:
    """Return the charge so far of one contract as its page shows it."""
    charge = found.charge
    tariff = charge.tariffs[charge.contract.parts(charge.cycle)[-1][1].tariff_id]
    unit = words.currency(charge.bill.currency)
    since = dt.datetime.combine(charge.cycle[0], dt.time(), charge.zone)
    changes = fetch_charge_changes(conn, charge.service_point_no, since)
    return {
        "zone": charge.zone,
        "tariff_name": tariff.name,
        "as_of": instant(charge.read_us),
        "amount": money_text(charge.bill.total),
        "unit": unit,
        "start_on": charge.cycle[0],
        "end_on": charge.cycle[1] - dt.timedelta(days=1),
        "period": period_text(*charge.cycle),
        "projection": _projection(found, words),
        "picture": _picture(found, words),
        "lines": [
            {
                "label": words.bill_label(row.line.kind, row.line.label),
                "quantity": f"{plain_text(decimal_from_fraction(row.line.quantity, 3))} {row.line.unit}",
                "price": plain_text(row.line.price),
                "amount": money_text(row.amount),
            }
            for row in charge.bill.lines
        ],
        "changes": [
            row
            | {
                "old_amount": money_text(round(row["old_amount"], charge.bill.digits)),
                "new_amount": money_text(round(row["new_amount"], charge.bill.digits)),
            }
            for row in changes
        ],
        "meters": fetch_meters_at(conn, charge.service_point_no),
    }


def _whole(amount: Decimal) -> Decimal:
    """Return an amount in whole units of money: a projection is not known to the cent."""
    return amount.quantize(Decimal(1))


def _totals(found: Projection) -> tuple[Decimal, Decimal, Decimal] | None:
    bills = found.low.bill, found.middle.bill, found.high.bill
    if bills[0] is None or bills[1] is None or bills[2] is None:
        return None
    return bills[0].total, bills[1].total, bills[2].total


def _projection(found: Projection, words: Words) -> dict[str, str] | None:
    totals = _totals(found)
    if totals is None or found.basis == "over":
        return None
    low, middle, high = (money_text(_whole(total)) for total in totals)
    basis = words.say("basis_own", days=found.own_days) if found.basis == "own" else words[f"basis_{found.basis}"]
    return {"low": low, "middle": middle, "high": high, "basis": basis}


def _picture(found: Projection, words: Words) -> str:
    """Return the projection as a bar with its range, where there is one and no amount is below zero."""
    totals = _totals(found)
    now = found.charge.bill.total
    if totals is None or found.basis == "over" or min(*totals, now) < 0 or totals[2] <= 0:
        return ""
    low, middle, high = totals
    whole = max(high, now) * ROOM

    def x(amount: Decimal) -> str:
        return f"{100 * amount / whole:.2f}%"

    sentence = words.say(
        "bullet_sentence",
        now=money_text(now),
        middle=money_text(_whole(middle)),
        low=money_text(_whole(low)),
        high=money_text(_whole(high)),
    )
    return (
        f'<svg class="chart" width="100%" height="66" role="img" aria-label="{escape(sentence)}">'
        '<rect class="b2" x="0" y="24" width="100%" height="14"/>'
        f'<rect class="b1" x="0" y="24" width="{x(now)}" height="14"/>'
        f'<rect class="band" x="{x(low)}" y="18" width="{100 * (high - low) / whole:.2f}%" height="26"/>'
        f'<line class="main" x1="{x(middle)}" x2="{x(middle)}" y1="16" y2="46"/>'
        f'<text x="0" y="14">{escape(words.so_far)} {escape(money_text(now))}</text>'
        f'<text class="strong" x="{x(middle)}" y="60" text-anchor="middle">{escape(money_text(_whole(middle)))}</text></svg>'
    )
