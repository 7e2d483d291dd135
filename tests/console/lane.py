"""A lane of meters with a known past, in the running system, for the console's tests to look at."""

import dataclasses
import datetime as dt
import time
from typing import Any
from zoneinfo import ZoneInfo

from tests.fixtures.stack import Stack

STEP_S = 900
DAYS = 2
HISTORY, SOLAR, SILENT, LIVE, OPENED, GATEWAY = (f"lane-{word}" for word in ("a", "pv", "none", "live", "open", "gw"))


@dataclasses.dataclass
class Lane:
    """What was sent."""

    stack: Stack
    start_s: int
    registers_wh: list[int]
    """Of HISTORY, one a quarter-hour from `start_s` on."""
    seq: int = dataclasses.field(default_factory=lambda: int(time.time()))
    """Of LIVE, the last that was sent; so are the register and the time. They rise from one run to the next."""
    live_wh: int = dataclasses.field(default_factory=lambda: int(time.time()) % 10**8 * 1_000)
    live_at_s: int = 0

    @property
    def end_s(self) -> int:
        """Return when the last reading of the past was made."""
        return self.start_s + (len(self.registers_wh) - 1) * STEP_S

    def send_live(self, *watts: int) -> int:
        """Send LIVE's readings now, one a power, each a second or more after the one before; return the last seq."""
        with self.stack.sender("lane") as sender:
            for power_w in watts:
                at_s = max(int(time.time()), self.live_at_s + 1)
                self.live_wh += power_w * (at_s - self.live_at_s) // 3600 if self.live_at_s else 0
                self.seq, self.live_at_s = self.seq + 1, at_s
                reading = {"seq": self.seq, "read_at": at_s, "import_wh": self.live_wh}
                self.stack.publish(sender, f"meters/{LIVE}/readings", reading)
        return self.seq

    def live_amount(self) -> str:
        """Return LIVE's running charge by REST."""
        return str(self.stack.get(f"/api/v1/meters/{LIVE}")["running_charge"]["amount"])

    def wait_live(self) -> None:
        """Wait until LIVE's last reading is settled."""
        path = f"/api/v1/meters/{LIVE}"
        self.stack.wait(lambda: (self.stack.get(path)["last_reading"] or {}).get("seq") == self.seq, 20, "the reading")


def lay(stack: Stack) -> Lane:
    """Import the meters, send their past, and wait until it is settled."""
    names = (HISTORY, SOLAR, SILENT, LIVE, OPENED, GATEWAY)
    rows: list[dict[str, Any]] = [
        {"meter_id": name, "parent_id": "feeder-9/transformer-9", "interval_s": 60 if name == LIVE else STEP_S}
        for name in names
    ]
    stack.import_meters(rows)
    end_s = int(time.time()) // STEP_S * STEP_S
    start_s = end_s - DAYS * 86_400
    registers = [5_000 + 137 * place + (place % 7) * 11 for place in range(DAYS * 96 + 1)]
    lane = Lane(stack, start_s, registers)
    with stack.sender("lane") as sender:
        past = [{"seq": n, "read_at": start_s + n * STEP_S, "import_wh": wh} for n, wh in enumerate(registers)]
        solar = [
            {**row, "import_wh": 100 * n, "export_wh": 300 * n, "voltage_v": 231.5, "current_a": 1.25}
            for n, row in enumerate(past[-9:])
        ]
        stack.publish(sender, f"meters/{HISTORY}/readings", past)
        stack.publish(sender, f"meters/{SOLAR}/readings", solar)
        stack.publish(sender, f"gateways/{GATEWAY}/readings", [{**row, "meter_id": GATEWAY} for row in past[-3:]])
        stack.publish(sender, f"meters/{HISTORY}/readings", b'{"seq": 7, "read_at": "<b>yester', b"\xff\xfe<script>")
        event = {"seq": 1, "at": end_s, "code": "cover_open", "detail": "<i>terminal</i> cover"}
        stack.publish(sender, f"meters/{SOLAR}/events", event)
        stack.publish(sender, "meters/stranger/readings", {"seq": 1, "read_at": end_s, "import_wh": 1})
        stack.wait(lambda: count(stack) == len(past) + len(solar) + 3, 60, "the past to be settled")
        stack.wait(lambda: stack.get("/api/v1/alarms"), 60, "the alarm")
        refused = "select count(*) from dead_letter where mqtt_topic like %s or mqtt_topic like %s"
        patterns = f"%meters/{HISTORY}/%", "%meters/stranger/%"
        stack.wait(lambda: stack.sql(refused, *patterns)[0][0] >= 3, 60, "the dead letters")
    bill(stack, start_s)
    return lane


MASTER_FILES = {
    "customers": "customer_id,name,language,postal_address\nlane-c,Lane & Sons <Ltd>,en,Mill Lane 9\n",
    "accounts": "account_id,customer_id,class,currency\nlane-acc,lane-c,residential,CNY\n",
    "contracts": "contract_id,account_id,service_point_id,start_on,tariff_id\nlane-k,lane-acc,lane-a,{day},county-residential\n",
}
ACCOUNT, CLERK = "lane-acc", "lane"


def bill(stack: Stack, start_s: int) -> None:
    """Give HISTORY a customer and a contract, bill its month, and leave a proposal waiting; once in a data directory."""
    if stack.sql("select 1 from account where account_id = %s", ACCOUNT):
        return
    day = dt.datetime.fromtimestamp(start_s, ZoneInfo("Asia/Shanghai")).date()
    for kind, text in MASTER_FILES.items():
        path = stack.data_dir / f"lane-{kind}.csv"
        path.write_text(text.format(day=day), "utf-8")
        stack.run("import", kind, str(path), "--as", CLERK)
    stack.run("bill", "run", "--cycle", f"{day:%Y-%m}", "--account", ACCOUNT, "--early", "--as", CLERK)
    ((number,),) = stack.sql("select bill_id from bill join account using (account_no) where account_id = %s", ACCOUNT)
    held = stack.sql("select 1 from bill where bill_id = %s and state = 'held'", number)
    if held:
        stack.run("bill", "release", f"#{number}", "--reason", "a short month", "--as", CLERK)
    stack.run("bill", "issue", f"#{number}", "--as", CLERK)
    name = stack.sql("select bill_no from bill where bill_id = %s", number)[0][0]
    stack.run("bill", "amend", name, "--amount=-1.00", "--reason", "goodwill", "--as", CLERK)


def count(stack: Stack) -> int:
    """Return how many readings of the lane's past are settled."""
    query = "select count(*) from fact join meter using (meter_no) where meter_id = any(%s)"
    return int(stack.sql(query, [HISTORY, SOLAR, GATEWAY])[0][0])
