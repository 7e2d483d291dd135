"""From a meter to a correction on the next bill, on the running system: the story of one customer."""

import datetime as dt
import json
import time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.fixtures.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]
ZONE = ZoneInfo("Asia/Shanghai")
HOUR = dt.timedelta(hours=1)
LOST_HOURS = range(202, 214)
"""Of the first month, lost at first: they reach over two changes of price."""


def month_before(day: dt.date) -> dt.date:
    return (day.replace(day=1) - dt.timedelta(days=1)).replace(day=1)


def instant(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), ZONE)


class Home:
    """A meter with a customer; what it uses by hour is known."""

    def __init__(self, stack: Stack, first_on: dt.date, until_on: dt.date) -> None:
        self.stack = stack
        self.sent = 0
        self.name = f"story-{time.time_ns()}"
        hours = int((instant(until_on) - instant(first_on)) / HOUR)
        energy = [300 + 2_000 * (hour % 24 in range(19, 23)) + hour % 7 for hour in range(hours)]
        self.registers = [(instant(first_on), 10_000)]
        for hour, wh in enumerate(energy):
            at, before = self.registers[-1]
            self.registers.append((at + HOUR, before + wh + 40 * (hour in LOST_HOURS)))
        rows = [{"meter_id": self.name, "service_point_id": self.name, "interval_s": 3600}]
        stack.import_meters(rows)
        files = {
            "customers": f"customer_id,name\n{self.name},Story\n",
            "accounts": f"account_id,customer_id,currency\n{self.name},{self.name},CNY\n",
            "contracts": "contract_id,account_id,service_point_id,start_on,tariff_id\n"
            f"{self.name},{self.name},{self.name},{first_on},county-residential\n",
        }
        for kind, text in files.items():
            path = stack.data_dir / f"{self.name}-{kind}.csv"
            path.write_text(text, "utf-8")
            stack.run("import", kind, str(path), "--as", "ann")

    def send(self, numbers: list[int]) -> None:
        rows = [
            {"seq": number, "read_at": self.registers[number][0].isoformat(), "import_wh": self.registers[number][1]}
            for number in numbers
        ]
        with self.stack.sender(self.name) as sender:
            for start in range(0, len(rows), 500):
                self.stack.publish(sender, f"meters/{self.name}/readings", rows[start : start + 500])
        query = "select count(*) from fact join meter using (meter_no) where meter_id = %s and revision = 0"
        self.sent += len(numbers)
        self.stack.wait(lambda: self.stack.sql(query, self.name)[0][0] >= self.sent, 60, "the readings to be settled")

    def charge(self) -> dict[str, Any]:
        rows = self.stack.get(f"/api/v1/accounts/{self.name}/charge")["charges"]
        found: dict[str, Any] = rows[0]
        return found

    def run_month(self, month: dt.date) -> str:
        self.stack.run("bill", "run", "--cycle", f"{month:%Y-%m}", "--account", self.name, "--as", "ann")
        ((bill_id, state),) = self.stack.sql(
            "select bill_id, b.state from bill b join account using (account_no) where account_id = %s and bill_no is null",
            self.name,
        )
        if state == "held":
            self.stack.run("bill", "release", f"#{bill_id}", "--reason", "looked at", "--as", "ann")
        self.stack.run("bill", "issue", f"#{bill_id}", "--as", "ann")
        return str(self.stack.sql("select bill_no from bill where bill_id = %s", bill_id)[0][0])

    def bill(self, number: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.stack.run("bill", "show", number, "--json").stdout)["document"]
        return shown


def test_readings_move_the_charge_the_month_is_billed_and_a_late_reading_is_corrected_on_the_next_bill(
    stack: Stack,
) -> None:
    today = dt.datetime.fromtimestamp(time.time(), ZONE).date()
    second = month_before(today)
    first = month_before(second)
    home = Home(stack, first, today.replace(day=1))
    end_of_first = int((instant(second) - instant(first)) / HOUR)
    lost = [hour + 1 for hour in LOST_HOURS]
    early = [number for number in range(end_of_first + 1) if number not in lost]

    home.send(early[:100])
    before = Decimal(home.charge()["so_far"]["total"])
    home.send(early[100:])
    assert Decimal(home.charge()["so_far"]["total"]) > before, "the running charge moved"

    number = home.run_month(first)
    bill = home.bill(number)
    assert bill["energy_wh"] == home.registers[end_of_first][1] - home.registers[0][1]
    assert sum(Decimal(line["amount_unrounded"]) for line in bill["lines"]) == Decimal(bill["total_unrounded"])

    home.send(lost)
    home.send(list(range(end_of_first + 1, len(home.registers))))
    kept = home.bill(number)
    assert kept == bill, "an issued bill is never edited"
    following = home.bill(home.run_month(second))
    corrections = [line for line in following["lines"] if line["kind"] == "correction"]
    assert [line["corrects_bill_no"] for line in corrections] == [number]
    assert corrections[0]["start_on"] == first.isoformat()
    assert Decimal(corrections[0]["amount"]) != 0
    explained = json.loads(stack.run("bill", "explain", following["bill_no"], "--limit", "100", "--json").stdout)
    causes = next(line for line in explained["lines"] if line["line"]["kind"] == "correction")["readings"]
    assert len(causes) == len(lost) + 1, "the late readings, and the rest of the interval that they part"

    stack.run("bill", "rebill", number, "--reason", "after the late readings", "--as", "ann")
    proposal = stack.sql("select max(proposal_id) from proposal")[0][0]
    assert stack.run("bill", "approve", str(proposal), "--as", "ann", check=False).returncode == 1
    stack.run("bill", "approve", str(proposal), "--as", "bob")
    again = stack.sql(
        "select total from bill b join account using (account_no) where account_id = %s and kind = 'invoice'"
        " and b.state <> 'cancelled' and start_on = %s",
        home.name,
        first,
    )
    assert again == [(Decimal(bill["total"]) + Decimal(corrections[0]["amount"]),)]
    stack.assert_books_balance()
