"""The slow path: readings of one meter one by one, against its live facts.

For what columns cannot do: late readings, duplicates of what is settled, rollovers, register epochs, exchanged meters.
Each reading gives one outcome. A late reading inside a settled interval appends a reversal and two new facts (design §3.6).
"""

import bisect
import dataclasses
from typing import Any

from metering.pricebook import Meters
from metering.register import is_rollover
from schemas.quality import Quality
from schemas.reject import RejectCode

Row = dict[str, Any]
"""One fact, by the names of `metering.fact.FACT_COLUMNS`."""


@dataclasses.dataclass
class SlowOutcome:
    """What the readings of one meter came to."""

    facts: list[Row] = dataclasses.field(default_factory=list)
    duplicates: int = 0
    late: int = 0
    accepted: int = 0
    refused: list[tuple[int, RejectCode, str]] = dataclasses.field(default_factory=list)
    """Row of the batch, code, detail."""


class MeterLedger:
    """The live facts of one meter around the readings to be settled."""

    def __init__(self, meter_no: int, meters: Meters, live: list[Row]) -> None:
        """Take the live facts from the predecessor of the earliest reading on, sorted by epoch and end."""
        self.meter_no = meter_no
        self.meters = meters
        self.chains: dict[int, list[Row]] = {}
        for row in live:
            self.chains.setdefault(row["epoch"], []).append(row)
        self.out = SlowOutcome()

    def settle(self, index: int, reading: Row) -> None:
        """Settle one reading; `index` names it in refusals."""
        at = reading["end_at"]
        if not self.meters.is_assigned(self.meter_no, at):
            self._refuse(index, RejectCode.NO_TARIFF, "the meter is at no service point at that time")
            return
        reading["epoch"] = self.meters.epoch_at(self.meter_no, at)
        chain = self.chains.setdefault(reading["epoch"], [])
        place = bisect.bisect_left(chain, at, key=lambda row: row["end_at"])
        if place < len(chain) and chain[place]["end_at"] == at:
            self._compare(index, reading, chain[place])
        elif place == len(chain):
            self._append(index, reading, chain)
        else:
            self._insert(index, reading, chain, place)

    def _refuse(self, index: int, code: RejectCode, detail: str) -> None:
        self.out.refused.append((index, code, detail))

    def _compare(self, index: int, reading: Row, present: Row) -> None:
        same_export = reading["export_wh"] in (-1, present["export_wh"])
        if reading["import_wh"] == present["import_wh"] and same_export:
            self.out.duplicates += 1
            return
        self._refuse(
            index,
            RejectCode.CONFLICTING_DUPLICATE,
            f"register {reading['import_wh']} Wh, but {present['import_wh']} Wh is settled for that instant",
        )

    def _append(self, index: int, reading: Row, chain: list[Row]) -> None:
        if not chain:
            self._accept(chain, 0, opened(reading))
            return
        before = chain[-1]
        energy_wh = reading["import_wh"] - before["import_wh"]
        quality = 0
        if energy_wh < 0:
            energy_wh %= int(self.meters.modulus_wh[self.meter_no])
            duration_us = reading["end_at"] - before["end_at"]
            if not is_rollover(energy_wh, duration_us, int(self.meters.rated_power_w[self.meter_no])):
                self._decreased(index, reading, before["import_wh"])
                return
            quality = int(Quality.ROLLOVER)
        export = continued_export(before["export_wh"], reading["export_wh"])
        if export is None:
            self._decreased(index, reading, before["export_wh"], "export ")
            return
        fact = {
            **reading,
            "start_at": before["end_at"],
            "energy_wh": energy_wh,
            "quality": quality,
            "export_wh": export[0],
            "export_energy_wh": export[1],
        }
        self._accept(chain, len(chain), fact)

    def _decreased(self, index: int, reading: Row, before_wh: int, which: str = "") -> None:
        value = reading["export_wh" if which else "import_wh"]
        detail = f"{which}register fell from {before_wh} Wh to {value} Wh"
        self._refuse(index, RejectCode.REGISTER_DECREASED, detail)

    def _accept(self, chain: list[Row], place: int, fact: Row) -> None:
        chain.insert(place, fact)
        self.out.accepted += 1
        self.out.facts.append(fact)

    def _insert(self, index: int, reading: Row, chain: list[Row], place: int) -> None:
        """Put a late reading before a settled one: reversal of that, and both parts anew."""
        after = chain[place]
        parts = split_fact(reading, after, int(self.meters.modulus_wh[self.meter_no]))
        if parts is None:
            start_wh = (after["import_wh"] - after["energy_wh"]) % int(self.meters.modulus_wh[self.meter_no])
            detail = (
                f"late register {reading['import_wh']} Wh lies outside its neighbours'"
                f" {start_wh} to {after['import_wh']} Wh"
            )
            self._refuse(index, RejectCode.REGISTER_DECREASED, detail)
            return
        first, second = parts
        cause = {name: reading[name] for name in ("frame_partition", "frame_offset")}
        reversal = {
            **after,
            **cause,
            "revision": after["revision"] + 1,
            "energy_wh": -after["energy_wh"],
            "export_energy_wh": -after["export_energy_wh"],
        }
        chain[place] = {**second, **cause, "revision": after["revision"] + 2}
        self.out.facts += [reversal, chain[place]]
        self._accept(chain, place, first)
        self.out.late += 1


def opened(reading: Row) -> Row:
    """Return the fact of the first reading of a register epoch: no interval, no energy."""
    return {
        **reading,
        "start_at": reading["end_at"],
        "energy_wh": 0,
        "export_energy_wh": 0,
        "quality": int(Quality.OPENING),
    }


def continued_export(before_wh: int, now_wh: int) -> tuple[int, int] | None:
    """Return the export register carried on and its energy in Wh, or None when it fell; -1 is a register not seen."""
    if now_wh < 0:
        return before_wh, 0
    if before_wh < 0:
        return now_wh, 0
    return (now_wh, now_wh - before_wh) if now_wh >= before_wh else None


def split_fact(reading: Row, after: Row, modulus_wh: int) -> tuple[Row, Row] | None:
    """Return the two facts that a late reading makes of a settled one, or None where the registers contradict it."""
    late = int(Quality.LATE)
    is_opening = after["quality"] & Quality.OPENING
    total_wh = (after["import_wh"] - reading["import_wh"]) if is_opening else after["energy_wh"]
    start_wh = reading["import_wh"] if is_opening else (after["import_wh"] - after["energy_wh"]) % modulus_wh
    first_wh = (reading["import_wh"] - start_wh) % modulus_wh
    if not 0 <= first_wh <= total_wh:
        return None
    export_total = after["export_energy_wh"]
    export_start = after["export_wh"] - export_total if after["export_wh"] >= 0 else -1
    export_now = reading["export_wh"] if after["export_wh"] >= 0 else -1
    if is_opening and export_now >= 0:
        export_start, export_total = export_now, after["export_wh"] - export_now
    export_now = export_now if export_now >= 0 else export_start
    export_first = export_now - export_start
    if not 0 <= export_first <= max(export_total, 0) or export_total < 0:
        return None
    wraps = after["quality"] & Quality.ROLLOVER
    first_wraps = int(wraps and reading["import_wh"] < start_wh) * Quality.ROLLOVER
    second_wraps = int(wraps and reading["import_wh"] > after["import_wh"]) * Quality.ROLLOVER
    first = {
        **reading,
        "start_at": reading["end_at"] if is_opening else after["start_at"],
        "energy_wh": first_wh,
        "export_wh": export_now,
        "export_energy_wh": export_first,
        "quality": late | int(is_opening) | int(first_wraps),
    }
    second = {
        **after,
        "start_at": reading["end_at"],
        "energy_wh": total_wh - first_wh,
        "export_energy_wh": export_total - export_first,
        "quality": int(after["quality"] & Quality.LATE) | int(second_wraps),
    }
    return first, second
