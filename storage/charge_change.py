"""What a running charge was and became when something other than the next reading changed it."""

import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg

LATE_READING = "late_reading"
CLOSED_CYCLE = "closed_cycle"
"""The reading is of an earlier cycle: both amounts are the present charge of the current one."""
UNPRICED = "late_reading_unpriced"
"""There were too many at once to price; amounts that are not known are 0."""


@dataclasses.dataclass(frozen=True)
class ChargeChange:
    """One change, and the reading that made it."""

    service_point_no: int
    meter_no: int
    cycle_start: int
    """Epoch µs."""
    reason: str
    """LATE_READING, CLOSED_CYCLE or UNPRICED."""
    currency: str
    old_amount: Decimal
    new_amount: Decimal
    end_at: int
    """Epoch µs, of the reading."""
    revision: int
    raw: tuple[int, int, int]
    """Partition, offset and index of the message."""


def write_changes(conn: psycopg.Connection[Any], changes: Sequence[ChargeChange]) -> None:
    """Write changes, inside the settlement transaction."""
    if changes:
        with conn.cursor() as cursor:
            cursor.executemany(
                "insert into charge_change (service_point_no, meter_no, cycle_start, reason, currency, old_amount,"
                " new_amount, end_at, revision, raw_partition, raw_offset, raw_index) values (%s, %s,"
                " to_timestamp(0) + %s * interval '1 microsecond', %s, %s, %s, %s,"
                " to_timestamp(0) + %s * interval '1 microsecond', %s, %s, %s, %s)",
                [
                    (
                        row.service_point_no, row.meter_no, row.cycle_start, row.reason, row.currency, row.old_amount,
                        row.new_amount, row.end_at, row.revision, *row.raw,
                    )
                    for row in changes
                ],
            )  # fmt: skip
