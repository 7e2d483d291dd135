"""A ledger made by hand: readings in any order become facts as settlement makes them, without its workers."""

import datetime as dt
from typing import Any

import numpy as np
import psycopg

from metering.fact import FACT_COLUMNS, Columns
from schemas.frame import ELECTRICAL
from schemas.quality import Quality
from storage.partition import DailyPartitions
from storage.settlement import copy_facts, days_of

US = 1_000_000
MODULUS_WH = 10**12


class MadeLedger:
    """Facts of some meters, written in frames."""

    def __init__(self, conn: psycopg.Connection[Any], partitions: int = 2, interval_s: int = 900) -> None:
        self.conn = conn
        self.partitions = partitions
        self.interval_us = interval_s * US
        self.live: dict[int, list[dict[str, Any]]] = {}
        self.pending: list[dict[str, Any]] = []
        self.next_offset = dict.fromkeys(range(partitions), 0)
        self.days = DailyPartitions()

    def add_meter(self, meter_no: int, service_point_no: int, start_on: str = "2026-01-01", **more: Any) -> None:
        self.conn.execute("insert into meter (meter_no, meter_id) values (%s, %s)", (meter_no, f"m-{meter_no}"))
        self.conn.execute(
            "insert into service_point (service_point_no, service_point_id) values (%s, %s) on conflict do nothing",
            (service_point_no, f"p-{service_point_no}"),
        )
        self.conn.execute(
            "insert into meter_assignment values (%s, %s, null, %s, %s)",
            (meter_no, service_point_no, more.get("start_at", f"{start_on}T00:00:00Z"), more.get("end_at", "infinity")),
        )

    def read(self, meter_no: int, at_us: int, import_wh: int, export_wh: int = -1, varh: int = -1) -> None:
        """Take a reading; one that lies between others takes back the interval that it is in."""
        chain = self.live.setdefault(meter_no, [])
        later = [row for row in chain if row["end_at"] >= at_us]
        reading = dict.fromkeys(FACT_COLUMNS, 0) | dict.fromkeys(ELECTRICAL, float("nan"))
        reading |= {"meter_no": meter_no, "end_at": at_us, "import_wh": import_wh, "export_wh": export_wh}
        reading |= {"import_varh": varh, "export_varh": -1, "revision": 0}
        if later and later[0]["end_at"] == at_us:
            return
        before = [row for row in chain if row["end_at"] < at_us]
        previous = before[-1] if before else None
        self._append(chain, reading, previous)
        if later:
            after = later[0]
            back = {**after, "revision": after["revision"] + 1, "energy_wh": -after["energy_wh"]}
            back["export_energy_wh"] = -after["export_energy_wh"]
            self.pending.append(back)
            chain.remove(after)
            self._append(chain, {**after, "revision": after["revision"] + 2}, reading)
        chain.sort(key=lambda row: row["end_at"])

    def _append(self, chain: list[dict[str, Any]], row: dict[str, Any], previous: dict[str, Any] | None) -> None:
        row["start_at"] = previous["end_at"] if previous else row["end_at"]
        row["energy_wh"] = row["import_wh"] - previous["import_wh"] if previous else 0
        fed = previous is not None and min(previous["export_wh"], row["export_wh"]) >= 0
        row["export_energy_wh"] = row["export_wh"] - previous["export_wh"] if previous and fed else 0
        row["quality"] = int(Quality.OPENING) if previous is None else 0
        if 2 * (row["end_at"] - row["start_at"]) > 3 * self.interval_us:
            row["quality"] = int(Quality.LONG)
        chain.append(row)
        self.pending.append(row)

    def flush(self) -> None:
        """Write what was read since as one frame of each partition, as a settlement transaction does."""
        groups: dict[int, list[dict[str, Any]]] = {}
        for row in self.pending:
            groups.setdefault(row["meter_no"] % self.partitions, []).append(row)
        self.pending = []
        for partition, rows in groups.items():
            offset = self.next_offset[partition]
            columns: Columns = {
                name: np.array([row[name] for row in rows], np.float32 if name in ELECTRICAL else np.int64)
                for name in FACT_COLUMNS
            }
            for row in rows:
                row.setdefault("message", offset)  # an interval that is entered again names the message it had
            columns["frame_offset"][:] = offset
            columns["raw_offset"] = np.array([row["message"] for row in rows], np.int64)
            columns["frame_partition"][:] = columns["raw_partition"][:] = partition
            columns["raw_index"] = np.arange(len(rows), dtype=np.int64)
            self.days.ensure(self.conn, days_of(columns["end_at"]))
            self.next_offset[partition] = offset + 1
            with self.conn.transaction():
                copy_facts(self.conn, columns)
                self.conn.execute(
                    "insert into stream_offset (consumer, topic, partition, next_offset) values"
                    " ('settle', 'meter.readings', %(p)s, %(n)s) on conflict (consumer, topic, partition)"
                    " do update set next_offset = excluded.next_offset, updated_at = now()",
                    {"p": partition, "n": offset + 1},
                )
                for day in days_of(columns["end_at"]):
                    self.conn.execute(
                        "insert into ledger_day values (%s, %s, %s) on conflict (day, partition)"
                        " do update set next_offset = excluded.next_offset",
                        (day, partition, offset + 1),
                    )
                self.conn.execute(
                    "insert into ledger_clock values (%s, clock_timestamp(), %s)", (partition, offset + 1)
                )

    def read_steadily(self, meter_no: int, start: dt.datetime, end: dt.datetime, wh: Any, *, first_wh: int = 0) -> int:
        """Take readings of every interval in ``(start, end]``, and the opening one; return the last register."""
        at, register, number = int(start.timestamp()) * US, first_wh, 0
        self.read(meter_no, at, register)
        while at < int(end.timestamp()) * US:
            at += self.interval_us
            register += wh(number) if callable(wh) else wh
            number += 1
            self.read(meter_no, at, register)
        return register
