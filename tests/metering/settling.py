"""Settlement without a database: readings as batches, and a ledger that keeps what settling returns."""

import datetime as dt
from collections.abc import Sequence

import numpy as np

from metering.fact import Columns
from metering.pricebook import FAR_FUTURE_US, Meters, PriceBook
from metering.settlement import Plan, Settled, neighbours_wanted, old_rows, plan_batch, repeated_rows, settle_batch
from metering.state import MeterStates
from schemas.frame import ELECTRICAL
from schemas.reject import RejectCode

START = dt.datetime(2026, 10, 30, tzinfo=dt.UTC)
START_US = int(START.timestamp()) * 1_000_000
QUARTER_US = 900_000_000
METERS = 4
MODULUS_WH = 10**9

TARIFF = {
    "tariff_id": "test",
    "currency": "EUR",
    "zone": "Europe/Berlin",
    "versions": [
        {
            "valid_from": "2026-01-01",
            "windows": [{"period": "day", "from": "06:00", "to": "22:00"}],
            "rest": "night",
            "prices": {"day": "0.30", "night": "0.20"},
        }
    ],
}


def make_meters() -> Meters:
    size = METERS + 1
    return Meters(
        meter_id=["", *(f"m{n}" for n in range(1, size))],
        modulus_wh=np.full(size, MODULUS_WH),
        rated_power_w=np.full(size, 10_000),
        interval_s=np.full(size, 900),
        tariff_index=np.zeros(size, np.int64),
        service_point_no=np.arange(size),
        start_us=np.zeros(size, np.int64),
        end_us=np.full(size, FAR_FUTURE_US),
        irregular=np.zeros(size, np.bool_),
        epochs={},
    )


def make_batch(readings: Sequence[tuple[int, int, int]], first_offset: int = 0, origin_us: int = START_US) -> Columns:
    """Return a batch of (meter number, quarter, register Wh), one frame each."""
    count = len(readings)
    columns: Columns = {
        name: np.zeros(count, np.int64)
        for name in ("refusal", "status", "boot_id", "raw_partition", "raw_index", "frame_partition")
    }
    columns |= {name: np.full(count, np.nan, np.float32) for name in ELECTRICAL}
    columns |= {name: np.full(count, -1) for name in ("export_wh", "import_varh", "export_varh", "interval_s")}
    columns["meter_no"] = np.array([meter for meter, _, _ in readings], np.int64)
    columns["read_at"] = np.array([origin_us + q * QUARTER_US for _, q, _ in readings], np.int64)
    columns["import_wh"] = np.array([wh for _, _, wh in readings], np.int64)
    columns["seq"] = np.array([q for _, q, _ in readings], np.uint64)
    columns["frame_offset"] = first_offset + np.arange(count)
    columns["raw_offset"] = columns["frame_offset"]
    columns["received_at"] = columns["read_at"] + 1_000_000
    return columns


class Ledger:
    """Keeps what settlement returns, as the database would."""

    def __init__(self, prices: PriceBook, meters: Meters | None = None) -> None:
        self.prices = prices
        self.meters = meters or make_meters()
        self.states = MeterStates.empty(self.meters.size)
        self.rows: list[dict[str, int]] = []
        self.refused: list[tuple[int, RejectCode, str]] = []
        self.duplicates = 0

    def settle(self, batch: Columns) -> Settled:
        old = old_rows(batch, self.states)
        plan = plan_batch(batch, self.states, self.meters, repeated_rows(batch, old, self.columns()))
        history = {number: self.beside(plan, number) for number in batch["meter_no"][plan.wanted].tolist()}
        settled = settle_batch(plan, history, self.states, self.meters, self.prices)
        self.states.put(settled.touched, settled.states)
        names = list(settled.facts)
        self.rows += [
            {name: settled.facts[name][index].item() for name in names}
            for index in range(len(settled.facts["meter_no"]))
        ]
        self.refused += settled.refused
        self.duplicates += settled.duplicates
        return settled

    def columns(self) -> Columns:
        rows = [row for number in range(1, self.meters.size) for row in self.live(number)]
        names = ("meter_no", "end_at", "import_wh", "export_wh")
        return {name: np.array([row[name] for row in rows], np.int64) for name in names}

    def beside(self, plan: Plan, number: int) -> list[dict[str, int]]:
        """Return what a database gives: only the facts next to the wanted instants."""
        live, kept = self.live(number), dict[tuple[int, int], dict[str, int]]()
        for wanted, epoch, at in neighbours_wanted(plan, self.meters):
            rows = [row for row in live if wanted == number and row["epoch"] == epoch]
            before = [row for row in rows if row["end_at"] < at][-1:]
            after = [row for row in rows if row["end_at"] >= at][:1]
            kept |= {(row["epoch"], row["end_at"]): row for row in before + after}
        return [kept[key] for key in sorted(kept)]

    def live(self, number: int, since: int = 0) -> list[dict[str, int]]:
        newest: dict[tuple[int, int], dict[str, int]] = {}
        for row in self.rows:
            if row["meter_no"] == number:
                key = row["epoch"], row["end_at"]
                if key not in newest or newest[key]["revision"] < row["revision"]:
                    newest[key] = row
        chain = [newest[key] for key in sorted(newest)]
        first = max((place for place, row in enumerate(chain) if row["end_at"] < since), default=0)
        return [dict(row) for row in chain[first:]]

    def energy_wh(self, number: int) -> int:
        return sum(row["energy_wh"] for row in self.rows if row["meter_no"] == number)
