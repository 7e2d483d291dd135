"""Pages and REST of bills on a real database: what they show, what they refuse, and who did it."""

import asyncio
import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from console.app import create_app
from gridtally.sheets import Sheets
from schemas.addresses import Addresses
from schemas.settings import Settings
from tests.storage.made_county import LENIENT, OCTOBER, SEPTEMBER, make_county, read_months, run_and_issue, run_bills

ANN, BOB = {"X-Gridtally-User": "ann"}, {"X-Gridtally-User": "bob"}


class Office:
    """A county of three with bills, and a client of its console."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.ledger = make_county(self.conn, 3)
        read_months(self.ledger, 3)
        self.numbers = run_and_issue(self.conn, dsn, SEPTEMBER, rules=LENIENT)
        addresses = Addresses(
            mqtt="mqtt://127.0.0.1:1", kafka="127.0.0.1:1", database=dsn, console="http://127.0.0.1:1"
        )
        self.app = create_app(Settings(), addresses, Sheets())  # its feed is not started: these pages need none

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    def get(self, path: str, code: int = 200, **asked: Any) -> Any:
        answer = self.ask("GET", path, params=asked)
        assert answer.status_code == code, answer.text
        return answer.json() if path.startswith("/api/") else answer.text

    def post(self, path: str, body: dict[str, Any], user: dict[str, str], code: int = 200) -> Any:
        answer = self.ask("POST", path, json=body, headers=user)
        assert answer.status_code == code, answer.text
        return answer.json()

    def bill_id(self, number: str) -> int:
        return int(self.get("/api/v1/bills", number=number)[0]["bill_id"])


@pytest.fixture
def office(database: str) -> Iterator[Office]:
    found = Office(database)
    yield found
    found.conn.close()


def test_the_list_finds_bills_by_number_account_meter_and_customer(office: Office) -> None:
    for asked in (office.numbers[1], "a-2", "m-2", "c-2", "Customer 2"):
        text = office.get("/bills", q=asked, lang="en")
        assert office.numbers[1] in text, asked
        assert office.numbers[0] not in text, asked
    assert "No bills." in office.get("/bills", q="nobody", lang="en")
    assert "No bills." in office.get("/bills", state="paid", lang="en")
    assert office.numbers[0] in office.get("/bills", month="2026-09", lang="en")
    assert "No bills." in office.get("/bills", month="2026-12", lang="en")


def test_a_bill_shows_its_lines_and_leads_each_to_the_raw_message(office: Office) -> None:
    bill_id = office.bill_id(office.numbers[0])
    api = office.get(f"/api/v1/bills/{bill_id}")
    text = office.get(f"/bills/{bill_id}", lang="en")
    for line in api["document"]["lines"]:
        assert line["amount"] in text
    assert api["document"]["total"] in text
    peak = next(line for line in api["document"]["lines"] if "peak" in line["line_id"])
    explained = office.get(f"/api/v1/bills/{bill_id}/explain", line=peak["line_no"])["lines"][0]
    assert sum(item["energy_wh"] for item in explained["intervals"]) == float(peak["quantity"]) * 1000
    newest = explained["readings"][-1]
    href = f"/raw/{newest['raw_partition']}/{newest['raw_offset']}/{newest['raw_index']}"
    assert href in office.get(f"/bills/{bill_id}", line=peak["line_no"], lang="en")


def test_an_account_shows_the_charge_so_far_and_how_it_may_end(office: Office) -> None:
    text = office.get("/accounts/a-1", lang="en")
    charge = office.get("/api/v1/accounts/a-1/charge")["charges"][0]
    assert charge["so_far"]["total"] in text
    assert office.numbers[0] in text
    low, middle, high = (float(charge["projection"][name]["total"]) for name in ("low", "middle", "high"))
    assert low <= middle <= high


@pytest.mark.parametrize("path", ["/bills/999999", "/accounts/nobody", "/accounts/<script>"])
def test_what_is_not_there_is_said_with_what_to_do(office: Office, path: str) -> None:
    text = office.get(path, 404, lang="en")
    assert "look for it on the page of bills" in text
    assert "<script>" not in re.sub(r"<script src[^>]*>", "", text)


def test_every_page_is_there_in_both_languages_with_nothing_left_in_the_other(office: Office) -> None:
    bill_id = office.bill_id(office.numbers[0])
    for path in ("/bills", f"/bills/{bill_id}", "/accounts/a-1"):
        english = re.sub(r"<[^>]+>", "", office.get(path, lang="en")).replace("中文", "")
        assert not re.findall(r"[\u3400-\u9fff]+", english), path
        assert "电费账单" in office.get(path, lang="zh")


def test_a_change_needs_a_user(office: Office) -> None:
    bill_id = office.bill_id(office.numbers[0])
    body = {"action": "cancel", "reason": "wrong meter"}
    assert "X-Gridtally-User" in office.post(f"/api/v1/bills/{bill_id}/proposals", body, {}, 422)["detail"]
    assert office.get("/api/v1/proposals") == []


def test_one_proposes_and_another_decides(office: Office) -> None:
    bill_id = office.bill_id(office.numbers[0])
    made = office.post(
        f"/api/v1/bills/{bill_id}/proposals", {"action": "amend", "reason": "goodwill", "amount": "-5"}, ANN, 201
    )
    assert "goodwill" in office.get("/bills", lang="en")
    second = {"action": "cancel", "reason": "no"}
    assert "ann" in office.post(f"/api/v1/bills/{bill_id}/proposals", second, BOB, 409)["detail"]
    path = f"/api/v1/proposals/{made['proposal_id']}"
    assert "own" in office.post(f"{path}/approve", {}, ANN, 409)["detail"]
    numbers = office.post(f"{path}/approve", {}, BOB)
    assert office.get("/api/v1/bills", number=numbers[0])[0]["total"] == "-5.00"
    assert office.get("/api/v1/bills", number=office.numbers[0])[0]["state"] != "cancelled"
    history = office.get(f"/api/v1/bills/{bill_id}")["history"]
    assert [row["who"] for row in history[:2]] == ["bob", "ann"]


def test_an_amount_is_given_with_an_amendment_and_with_nothing_else(office: Office) -> None:
    path = f"/api/v1/bills/{office.bill_id(office.numbers[0])}/proposals"
    office.post(path, {"action": "amend", "reason": "x"}, ANN, 422)
    office.post(path, {"action": "cancel", "reason": "x", "amount": "1"}, ANN, 422)
    office.post(path, {"action": "delete", "reason": "x"}, ANN, 422)
    office.post("/api/v1/bills/999999/proposals", {"action": "cancel", "reason": "x"}, ANN, 404)


def test_a_held_bill_is_released_and_issued_over_the_api(office: Office) -> None:
    run_bills(office.conn, office.dsn, OCTOBER)
    office.conn.execute("update bill set state = 'held' where bill_no is null")
    office.conn.execute(
        "insert into bill_hold (bill_id, reason, value, bound) select bill_id, 'zero_use', '0 kWh', 'some' from bill"
        " where bill_no is null on conflict do nothing"
    )
    held = office.get("/api/v1/bills", state="held")
    ids = [row["bill_id"] for row in held]
    assert "no use at all" in office.get(f"/bills/{ids[0]}", lang="en")
    assert "held" in office.post("/api/v1/bills/issue", {"bill_ids": ids}, ANN, 409)["detail"]
    for bill_id in ids:
        assert office.post(f"/api/v1/bills/{bill_id}/release", {"note": "seen"}, ANN)["state"] == "checked"
    numbers = office.post("/api/v1/bills/issue", {"bill_ids": ids}, ANN)
    assert len(set(numbers)) == len(ids) == 3


def test_a_payment_counts_once_and_stands_in_the_statement(office: Office) -> None:
    total = office.get("/api/v1/bills", number=office.numbers[0])[0]["total"]
    paid = {"amount": total, "received_on": "2026-11-10", "reference": "bank-1"}
    office.post("/api/v1/accounts/a-1/payments", paid, ANN, 201)
    assert "already" in office.post("/api/v1/accounts/a-1/payments", paid, ANN, 409)["detail"]
    assert office.get("/api/v1/bills", number=office.numbers[0])[0]["state"] == "paid"
    entries = office.get("/api/v1/accounts/a-1/statement")["entries"]
    assert float(entries[-1]["balance"]) == 0
    assert "bank-1" in office.get("/accounts/a-1", lang="en")


def test_the_past_can_be_asked_for(office: Office) -> None:
    row = office.conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    before = row[0] - dt.timedelta(days=1)
    assert office.get("/api/v1/bills/known", as_known_at=before.isoformat()) == []
    assert len(office.get("/api/v1/bills/known", as_known_at=row[0].isoformat())) == 3
    office.get("/api/v1/bills/known", 422, as_known_at="2026-11-01T00:00:00")
    span = {"start": "2026-09-01T00:00:00+08:00", "end": "2026-09-02T00:00:00+08:00"}
    used = office.get("/api/v1/service-points/p-1/usage", **span)
    assert sum(item["import_wh"] for item in used["intervals"]) == 24 * 500
    office.get("/api/v1/service-points/nobody/usage", 404, **span)


def test_a_bill_can_be_had_as_a_sheet_and_as_a_pdf(office: Office) -> None:
    bill_id = office.bill_id(office.numbers[0])
    page = office.ask("GET", f"/bills/{bill_id}/bill.html")
    assert office.numbers[0] in page.text
    assert "'sha256-" in page.headers["Content-Security-Policy"]
    pdf = office.ask("GET", f"/bills/{bill_id}/bill.pdf")
    assert pdf.content.startswith(b"%PDF-")
    assert pdf.headers["Content-Disposition"] == f'inline; filename="{office.numbers[0]}.pdf"'
    assert office.ask("GET", f"/bills/{bill_id}/bill.exe").status_code == 422
