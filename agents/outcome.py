"""What became of the readings of a settled batch: refusals kept as dead letters, outcomes counted for the metrics."""

from collections.abc import Callable, Sequence

import psycopg

from agents.frames import ReadingBatch
from metering.fact import Columns
from metering.settlement import Settled
from monitoring.clock import now_us
from monitoring.metrics import BATCH_READINGS, DEAD_LETTERS, DELAY_SECONDS, READINGS
from schemas.reject import RejectCode
from storage.dead_letter import DeadLetter, write_dead_letters

CONSUMER = "settle"


def keep_refused(
    conn: psycopg.Connection,
    batch: Columns,
    refused: Sequence[tuple[int, RejectCode, str]],
    describe: Callable[[int], tuple[str, str, bytes]],
) -> int:
    """Keep refused readings with their bytes; return how many are new: the same lineage again changes nothing.

    Args:
        conn: Inside the settlement transaction.
        batch: The batch that `refused` names rows of.
        refused: Row, code, detail.
        describe: Gives MQTT topic, meter id and payload of a row.
    """
    letters = []
    for row, code, detail in refused:
        topic, meter_id, payload = describe(row)
        boot_id, seq, partition, offset, index, received_at = (
            int(batch[name][row])
            for name in ("boot_id", "seq", "raw_partition", "raw_offset", "raw_index", "received_at")
        )
        raw = partition, offset, index
        letters.append(DeadLetter(code, detail, topic, meter_id, boot_id, seq, payload, raw, received_at))
    return write_dead_letters(conn, CONSUMER, letters)


def show_outcomes(batch: ReadingBatch, settled: Settled, refused: int) -> None:
    """Count the outcomes of a committed batch for the metrics."""
    counts = {
        "accepted": settled.accepted - settled.late,
        "late": settled.late,
        "duplicate": settled.duplicates + len(settled.refused) - refused,
        "rejected": refused,
        "rejected_before": settled.refused_before,
    }
    for outcome, count in counts.items():
        READINGS.labels(CONSUMER, outcome).inc(count)
    for _, code, _ in settled.refused:
        DEAD_LETTERS.labels(CONSUMER, code.word).inc()
    BATCH_READINGS.labels(CONSUMER).observe(len(batch.columns["read_at"]))
    DELAY_SECONDS.observe((now_us() - batch.columns["received_at"]) / 1e6)
