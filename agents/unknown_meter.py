"""Receipts of meters that are not in the master data: their readings are kept as dead letters, and receipted too."""

from collections.abc import Iterable
from typing import Any

import psycopg
import pyarrow as pa

from agents.decoding import Lineage
from metering.receipt import Cover, extend_cover
from schemas.frame import RECEIPTS_SCHEMA, encode_frame
from schemas.ids import is_meter_id
from schemas.message import Refusal
from storage.state import pending_from_text, text_from_pending

Refused = tuple[Lineage, Refusal, int | None, str | None]


def receipts_of_unknown(conn: psycopg.Connection, refused: Iterable[Refused]) -> bytes | None:
    """Keep, in the caller's transaction, how far unknown meters are receipted; return the receipts frame, if any."""
    groups: dict[str, list[Refused]] = {}
    for item in refused:
        _, refusal, number, _ = item
        if number is None and refusal.seq is not None and refusal.meter_id and is_meter_id(refusal.meter_id):
            groups.setdefault(refusal.meter_id, []).append(item)
    rows = [_receipt_one(conn, meter_id, items) for meter_id, items in sorted(groups.items())]
    return encode_frame(pa.RecordBatch.from_pylist(rows, schema=RECEIPTS_SCHEMA)) if rows else None


def _receipt_one(conn: psycopg.Connection, meter_id: str, items: list[Refused]) -> dict[str, Any]:
    boot_id = max(refusal.boot_id for _, refusal, *_ in items)
    seqs = [refusal.seq for _, refusal, *_ in items if refusal.boot_id == boot_id and refusal.seq is not None]
    row = conn.execute(
        "select boot_id, seq_first, seq, seq_pending from unknown_meter_receipt where meter_id = %s for update",
        (meter_id,),
    ).fetchone()
    same = row is not None and row[0] == boot_id
    before = Cover(int(row[1]), int(row[2]), pending_from_text(row[3]) or ()) if same and row else None
    cover = extend_cover(before, seqs)
    read_at = max(lineage.received_at for lineage, *_ in items)
    conn.execute(
        "insert into unknown_meter_receipt (meter_id, boot_id, seq_first, seq, seq_pending, read_at)"
        " values (%s, %s, %s, %s, %s, %s) on conflict (meter_id) do update set boot_id = excluded.boot_id,"
        " seq_first = excluded.seq_first, seq = excluded.seq, seq_pending = excluded.seq_pending,"
        " read_at = excluded.read_at",
        (meter_id, boot_id, cover.first, cover.last, text_from_pending(cover.pending), read_at),
    )
    return {
        "meter_id": meter_id,
        "gateway_id": items[-1][3],
        "boot_id": boot_id,
        "first_seq": cover.first,
        "seq": cover.last,
        "read_at": read_at,
    }
