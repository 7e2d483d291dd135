"""A town of meters that knows the truth: it keeps a log until receipts cover it, as the meters of the contract do."""

import dataclasses
import json
import random
import time

import psycopg

from connectors.meter_log import MeterSender, array_payload
from tests.fixtures.stack import Stack

STEP_S = 900
PAST_DAYS = 60
RESEND_AFTER_S = 3.0
BATCH_MAX = 200
TICK_S = 0.02


@dataclasses.dataclass
class Meter:
    """One meter: its register at each sequence number, and how far it has sent."""

    meter_id: str
    registers_wh: list[int]
    receipted: int = -1
    sent: int = -1
    moved_at: float = 0.0

    @property
    def newest(self) -> int:
        """Return the newest sequence number."""
        return len(self.registers_wh) - 1


class Town:
    """Publishes readings through a sender, repeats some, sends others late, and re-sends what no receipt covers."""

    def __init__(self, stack: Stack, sender: MeterSender, name: str, meters: int, seed: int) -> None:
        print(f"town {name}: seed {seed}")
        self.stack, self.sender = stack, sender
        self.draw = random.Random(seed)
        self.start_s = int(time.time()) // STEP_S * STEP_S - PAST_DAYS * 86_400
        self.meters = {f"{name}-{n:03d}": Meter(f"{name}-{n:03d}", []) for n in range(meters)}
        stack.import_meters([{"meter_id": meter_id} for meter_id in self.meters])
        sender.on_receipt = self._receipted

    def _receipted(self, meter_id: str, seq: int) -> None:
        meter = self.meters.get(meter_id)
        if meter is not None and seq > meter.receipted:
            meter.receipted, meter.moved_at = seq, time.monotonic()

    def element(self, meter: Meter, seq: int) -> bytes:
        """Return one reading as JSON."""
        reading = {"seq": seq, "read_at": self.start_s + seq * STEP_S, "import_wh": meter.registers_wh[seq]}
        return json.dumps(reading).encode()

    def live(self, seconds: float, per_s: int = 300) -> None:
        """Let readings be made and sent for a while."""
        began, made = time.monotonic(), 0
        names = list(self.meters)
        while (passed := time.monotonic() - began) < seconds:
            while made < passed * per_s and self.sender.has_room():
                self._make(self.meters[self.draw.choice(names)])
                made += 1
            self._resend()
            self.sender.flush()
            self.sender.poll(TICK_S)

    def _make(self, meter: Meter) -> None:
        before = meter.registers_wh[-1] if meter.registers_wh else self.draw.randrange(10**6)
        meter.registers_wh.append(before + self.draw.randrange(500))
        if meter.sent < 0:
            meter.moved_at = time.monotonic()
        chance = self.draw.random()
        if chance < 0.05:
            return  # this one goes out late, when it is re-sent
        meter.sent = meter.newest
        self._publish(meter, [meter.newest])
        if chance > 0.97:
            self._publish(meter, [meter.newest])  # twice

    def _publish(self, meter: Meter, seqs: list[int]) -> None:
        payload = array_payload([self.element(meter, seq) for seq in seqs])
        self.sender.publish_later(f"gridtally/v1/meters/{meter.meter_id}/readings", payload)

    def _resend(self) -> None:
        now = time.monotonic()
        for meter in self.meters.values():
            if meter.receipted < meter.newest and now - meter.moved_at > RESEND_AFTER_S and self.sender.has_room():
                meter.moved_at = now
                first = meter.receipted + 1
                self._publish(meter, list(range(first, min(meter.newest + 1, first + BATCH_MAX))))

    def settle_down(self, timeout_s: float = 90) -> None:
        """Make no more readings, and wait until receipts cover every one."""
        deadline = time.monotonic() + timeout_s
        while waiting := [meter for meter in self.meters.values() if meter.receipted < meter.newest]:
            if time.monotonic() > deadline:
                rows = [(meter.meter_id, meter.receipted, meter.newest) for meter in waiting[:5]]
                raise AssertionError(f"{len(waiting)} meters without a receipt after {timeout_s} s: {rows}")
            self._resend()
            self.sender.flush()
            self.sender.poll(TICK_S)

    def assert_receipted_are_durable(self) -> None:
        """Check I1: every reading that a receipt covers is in the ledger, with its register."""
        numbers = dict(self.stack.sql("select meter_id, meter_no from meter"))
        for meter in self.meters.values():
            facts = dict(
                self.stack.sql(
                    "select distinct on (end_at) extract(epoch from end_at)::bigint, import_wh from fact"
                    " where meter_no = %s order by end_at, revision desc",
                    numbers[meter.meter_id],
                )
            )
            for seq in range(meter.receipted + 1):
                found = facts.get(self.start_s + seq * STEP_S)
                assert found == meter.registers_wh[seq], (meter.meter_id, seq, found, meter.registers_wh[seq])

    def assert_exact(self) -> None:
        """Check that the ledger is the truth: every reading once, every Wh, and that the books balance."""
        self.assert_receipted_are_durable()
        totals = self.stack.sql(
            "select m.meter_id, count(*) filter (where revision = 0), sum(energy_wh)::bigint from fact"
            " join meter m using (meter_no) group by 1"
        )
        found = {meter_id: (count, energy_wh) for meter_id, count, energy_wh in totals}
        for meter in self.meters.values():
            if meter.registers_wh:
                energy_wh = meter.registers_wh[-1] - meter.registers_wh[0]
                assert found[meter.meter_id] == (len(meter.registers_wh), energy_wh), meter.meter_id
        self.stack.assert_books_balance()

    def readings(self) -> int:
        """Return how many readings were made."""
        return sum(len(meter.registers_wh) for meter in self.meters.values())


def wait_for_database(stack: Stack, timeout_s: float = 30) -> None:
    """Wait until the database answers again."""

    def answers() -> bool:
        try:
            return bool(stack.sql("select 1"))
        except psycopg.Error:
            return False

    stack.wait(answers, timeout_s, "the database")
