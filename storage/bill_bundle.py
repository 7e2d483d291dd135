"""The parts of a bill's bundle from the database: what the bill was made of, as it was known then."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import psycopg

from metering.billing import interval_s_of, span_us
from metering.bundle import Difference, differing, digest
from metering.bundle_bill import ANYTHING_BAD, contract_part, inputs_part, load_part, recompute_bill
from metering.contract import Contract
from metering.tariff import Tariff, parse_tariff
from schemas.bill import BillDocument, decode_bill
from storage.bill import BillError
from storage.bill_input import fetch_inputs
from storage.contract import fetch_contracts
from storage.load import NUMBERS, Placement, fetch_facts, fetch_placements, load_of_facts
from storage.snapshot import one_snapshot

_SELECT = (
    "select b.bill_no, b.kind, b.contract_no, b.ledger_position, b.created_at, b.history_before, b.document::text"
    " from bill b where b.bill_no = %s"
)


def fetch_bundle_parts(conn: psycopg.Connection[Any], bill_no: str) -> dict[str, Any]:
    """Return the parts of an issued bill's bundle, see `metering.bundle.sign_bundle`.

    Raises:
        BillError: There is no issued bill of that number, or what it was made of is no longer there.
    """
    with one_snapshot(conn):
        row = conn.execute(_SELECT, (bill_no,)).fetchone()
        if row is None:
            raise BillError(f"no issued bill {bill_no!r}: only issued bills have bundles")
        position = {int(partition): int(offset) for partition, offset in row[3].items()}
        parts: dict[str, Any] = {
            "bill": msgspec.json.decode(row[6]),
            "known": {
                "at": row[4].isoformat(),
                "ledger_position": {str(partition): offset for partition, offset in sorted(position.items())},
            },
            "history_before": row[5],
        }
        if row[1] != "invoice":
            return parts | _nothing_rated()
        contracts = fetch_contracts(conn, contract_nos=[row[2]], known_at=row[4])
        if not contracts:
            raise BillError(f"the tariffs of bill {bill_no}'s contract at {row[4]} are not there any more")
        document = decode_bill(row[6])
        tariffs = fetch_bill_tariffs(conn, document)
        return parts | _rated_parts(conn, contracts[0], document, tariffs, (position, row[4]))


def _nothing_rated() -> dict[str, Any]:
    rows = {"meters": [], "columns": {name: [] for name in NUMBERS}}
    return {
        "contract": None,
        "cycle": None,
        "tariffs": [],
        "inputs": {"flags": {}, "indices": {}},
        "load": None,
        "ledger": {"rows": rows, "sha256": digest(rows)},
    }


def fetch_bill_tariffs(
    conn: psycopg.Connection[Any], document: BillDocument
) -> dict[int, tuple[Tariff, dict[str, Any], str]]:
    """Return the tariffs of a bill with document and SHA-256, by the number of the document."""
    numbers = sorted({part.tariff_document_no for part in document.tariffs})
    rows = conn.execute(
        "select tariff_document_no, document, document_sha256 from tariff_document where tariff_document_no = any(%s)",
        (numbers,),
    ).fetchall()
    return {number: (parse_tariff(value), value, sha256) for number, value, sha256 in rows}


def _rated_parts(
    conn: psycopg.Connection[Any],
    contract: Contract,
    document: BillDocument,
    tariffs: Mapping[int, tuple[Tariff, dict[str, Any], str]],
    known: tuple[dict[int, int], Any],
) -> dict[str, Any]:
    position, known_at = known
    by_name = {item[0].tariff_id: item[0] for item in tariffs.values()}
    cycle = contract.cycle_of(document.start_on)
    used = [by_name[item.tariff_id] for _, item in contract.parts(cycle)]
    low, high = span_us(contract, cycle, by_name)
    placements = fetch_placements(conn, [contract.service_point_no], low, high)
    facts = fetch_facts(conn, sorted({item.meter_no for item in placements}), low, high, position)
    measured = load_of_facts(placements, facts, low, high, interval_s_of(used))
    rows = {
        "meters": [
            {
                "meter_no": item.meter_no,
                "meter_id": item.meter_id,
                "register_modulus_wh": item.modulus_wh,
                "start_us": item.start_us,
                "end_us": item.end_us,
            }
            for item in placements
        ],
        "columns": {name: facts[name].tolist() for name in NUMBERS},
    }
    return {
        "contract": contract_part(contract),
        "cycle": [day.isoformat() for day in cycle],
        "tariffs": [
            {"tariff_document_no": number, "document_sha256": sha256, "document": value}
            for number, (_, value, sha256) in sorted(tariffs.items())
        ],
        "inputs": inputs_part(fetch_inputs(conn, used, low, high, known_at)),
        "load": {**load_part(measured), "from_us": low, "to_us": high},
        "ledger": {"rows": rows, "sha256": digest(rows)},
    }


def recompute(bundle: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """Return what differs when a bundle's readings are made its load, and its load its bill; no database is asked."""
    found, notes = recompute_bill(bundle)
    if bundle["load"] is None:
        return found, notes
    try:
        more = _load_again(bundle)
    except ANYTHING_BAD as error:
        more = [Difference("load", "cannot be made again", f"{type(error).__name__}: {error}"[:300])]
    return more + found, notes


def _load_again(bundle: Mapping[str, Any]) -> list[Difference]:
    given, rows = bundle["load"], bundle["ledger"]["rows"]
    facts = {name: np.array(rows["columns"][name], np.int64) for name in NUMBERS}
    placements = [
        Placement(0, item["meter_no"], item["meter_id"], item["register_modulus_wh"], item["start_us"], item["end_us"])
        for item in rows["meters"]
    ]
    low, high, interval_s = (int(given[name]) for name in ("from_us", "to_us", "interval_s"))
    if not 0 < high - low <= 400 * 86_400 * 1_000_000 or interval_s not in (60, 300, 900):
        return [Difference("load", f"from {low} to {high} by {interval_s} s", "a cycle by 60, 300 or 900 s")]
    measured = load_of_facts(placements, facts, low, high, interval_s)
    again = {**load_part(measured), "from_us": low, "to_us": high}
    spans = msgspec.to_builtins(measured.spans)
    return differing("load", dict(given), again) + differing("bill.registers", bundle["bill"]["registers"], list(spans))
