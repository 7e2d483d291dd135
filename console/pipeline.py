"""How far each stage of the path has come: by the offsets and watermarks in the database, against the ends of the topics."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from console.figure import MISSING, count_text, span_text
from schemas.topic import METER_RAW, METER_READINGS

STAGE_TOPICS = {"validate": METER_RAW, "settle": METER_READINGS, "detect": METER_READINGS}


@dataclasses.dataclass(frozen=True)
class StageRow:
    """One stage over all its partitions."""

    name: str
    as_of_us: int | None
    """Watermark of the partition that is furthest behind."""
    waiting: int | None
    """Records of its topic that are not done; None when Kafka does not tell."""
    readings: int | None
    """Done ever; None where the stage does not count them."""
    behind_after_us: int

    def is_behind(self, now_us: int) -> bool:
        """Return whether it lags more than it should."""
        return self.as_of_us is None or now_us - self.as_of_us > self.behind_after_us

    def to_dict(self, now_us: int) -> dict[str, Any]:
        """Return the row for the stream."""
        return {
            "name": self.name,
            "lag": MISSING if self.as_of_us is None else span_text((now_us - self.as_of_us) / 1e6),
            "behind": self.is_behind(now_us),
            "waiting": count_text(self.waiting),
            "done": "" if self.readings is None else count_text(self.readings),
        }


def stage_rows(
    progress: Sequence[Mapping[str, Any]], ends: Mapping[str, Mapping[int, int]] | None, behind_after_s: float
) -> list[StageRow]:
    """Return a row for each stage, in the order of the path.

    Args:
        progress: Rows of `storage.query.fetch_progress`.
        ends: Next offset of each partition by topic, as Kafka has them; None when it does not answer.
        behind_after_s: Lag from which a stage counts as behind; covers the bridge's heartbeat and checkpoints.
    """
    rows = []
    for name, topic in STAGE_TOPICS.items():
        ours = [row for row in progress if row["consumer"] == name and row["topic"] == topic]
        marks = [row["watermark"] for row in ours if row["watermark"] is not None]
        waiting = None
        if ends is not None and topic in ends:
            done = {row["partition"]: row["next_offset"] for row in ours}
            waiting = sum(max(0, end - done.get(partition, 0)) for partition, end in ends[topic].items())
        counted = name != "detect"  # it keeps no counts of readings
        rows.append(
            StageRow(
                name,
                _us(min(marks)) if marks else None,
                waiting,
                sum(row["readings"] for row in ours) if counted else None,
                int(behind_after_s * 1e6),
            )
        )
    return rows


def settled_until(progress: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return the watermark that settlement has come to in each partition, epoch µs; without those that had none yet."""
    return {
        row["partition"]: _us(row["watermark"])
        for row in progress
        if row["consumer"] == "settle" and row["topic"] == METER_READINGS and row["watermark"] is not None
    }


def _us(moment: dt.datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
