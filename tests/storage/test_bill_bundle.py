"""A bill's bundle: made from the ledger, verified without it, and every change of it noticed."""

import copy
import datetime as dt
import json
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from connectors.bill_key import KeyFileError, public_pem, read_public_key, signing_key
from gridtally.cli import app
from metering.bundle import (
    PARTS,
    BundleError,
    canonical,
    decode_bundle,
    digest,
    encode_bundle,
    sign_bundle,
    verify_bundle,
)
from storage.bill import BillError
from storage.bill_bundle import fetch_bundle_parts, recompute
from storage.proposal import Desk, approve, propose
from tests.storage.made_county import (
    LENIENT,
    OCTOBER,
    SEPTEMBER,
    START,
    TARIFF,
    TODAY,
    make_county,
    put_tariff,
    run_and_issue,
)
from tests.storage.made_ledger import US


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


@pytest.fixture
def bills(conn: psycopg.Connection, database: str) -> list[str]:
    """Issue two months of one customer; a reading that came late corrects the first on the second."""
    ledger = make_county(conn, 1)
    first = int(START.timestamp()) * US
    ledger.read(1, first, 0)
    ledger.read(1, first + 16 * 3600 * US, 16_000)
    ledger.read_steadily(1, START + dt.timedelta(hours=16), START + dt.timedelta(days=61), 500, first_wh=16_000)
    ledger.flush()
    names = run_and_issue(conn, database, SEPTEMBER)
    ledger.read(1, first + 4 * 3600 * US, 16_000)
    ledger.flush()
    return names + run_and_issue(conn, database, OCTOBER)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def flipped(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return "x" if value is None else not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("1" if value[-1] != "1" else "2") if value else "x"
    return [0] if isinstance(value, list) else {"x": 0}


def test_a_bill_made_again_from_its_bundle_alone_is_the_same(
    conn: psycopg.Connection, bills: list[str], tmp_path: Path
) -> None:
    key = signing_key(tmp_path)
    for name in bills:
        text = encode_bundle(sign_bundle(fetch_bundle_parts(conn, name), key))
        bundle = decode_bundle(text)
        verdict = verify_bundle(bundle, key.public_key(), recompute)
        assert verdict.differences == ()
        assert verdict.bill_no == name
        assert set(bundle) == set(PARTS)
        assert bundle["known"]["ledger_position"], "it says as known at which position of the ledger"
        assert len(bundle["ledger"]["rows"]["columns"]["end_us"]) > 28 * 24
        assert encode_bundle(sign_bundle(fetch_bundle_parts(conn, name), key)) == text, "the same bytes again"
    assert "1 lines correct other bills, -2.40 CNY" in verdict.notes[0]


def test_the_bundle_of_a_corrected_bill_holds_what_was_known_when_it_was_made(
    conn: psycopg.Connection, bills: list[str]
) -> None:
    rows = fetch_bundle_parts(conn, bills[0])["ledger"]["rows"]["columns"]
    first = int(START.timestamp()) * US
    assert first + 16 * 3600 * US in rows["end_us"]
    assert first + 4 * 3600 * US not in rows["end_us"], "the reading that came after the bill is not of it"


def test_a_bill_over_an_exchange_a_tariff_change_and_gaps_is_made_again_too(
    conn: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    ledger = make_county(conn, 1)
    exchange = START + dt.timedelta(days=40, minutes=20)
    conn.execute("update meter_assignment set end_at = %s where meter_no = 1", (exchange,))
    ledger.add_meter(2, 1, start_at=exchange)
    other = copy.deepcopy(TARIFF) | {"tariff_id": "other"}
    other["versions"][0]["flags"] = ["heat_day"]  # type: ignore[index]
    other["versions"][0]["windows"].insert(
        0, {"period": "peak", "from": "00:00", "to": "08:00", "day_types": ["heat_day"]}
    )  # type: ignore[index]
    other["versions"][0]["export"] = {"mode": "net_billing", "netting": "interval", "prices": "0.04"}  # type: ignore[index]
    put_tariff(conn, other)
    conn.execute("insert into day_flag (flag, day, published_by) values ('heat_day', '2026-10-20', 'x')")
    conn.execute(
        "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by) values (1, '2026-10-16', 'other', 'x')"
    )
    for number, low, high in ((1, START, exchange), (2, exchange, START + dt.timedelta(days=62))):
        at, wh, rng = int(low.timestamp()) * US, 7_777_777, random.Random(number)
        ledger.read(number, at, wh, wh)
        while at < int(high.timestamp()) * US:
            step_s = rng.choice((900, 900, 900, 3600, 5 * 3600, 40_000))
            at = min(at + step_s * US, int(high.timestamp()) * US)
            wh += rng.randrange(0, step_s)
            ledger.read(number, at, wh, wh // 3 + 5_185_184)
    ledger.flush()
    key = signing_key(tmp_path)
    for days in (SEPTEMBER, OCTOBER):
        (name,) = run_and_issue(conn, database, days)
        bundle = decode_bundle(encode_bundle(sign_bundle(fetch_bundle_parts(conn, name), key)))
        assert verify_bundle(bundle, key.public_key(), recompute).differences == ()
    assert len(bundle["ledger"]["rows"]["meters"]) == 2
    assert {item["document"]["tariff_id"] for item in bundle["tariffs"]} == {"county", "other"}
    assert bundle["inputs"]["flags"] == {"heat_day": ["2026-10-20"]}
    assert bundle["bill"]["export_wh"] > 0


def test_a_change_of_any_single_field_is_noticed(conn: psycopg.Connection, bills: list[str], tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    bundle = decode_bundle(encode_bundle(sign_bundle(fetch_bundle_parts(conn, bills[1]), key)))
    paths = list(leaves(bundle))
    rest = [path for path in paths if path[0] not in ("ledger", "load")]
    chosen = rest + random.Random(4).sample([path for path in paths if path[0] in ("ledger", "load")], 150)
    assert len(rest) > 100
    for path in chosen:
        changed = copy.deepcopy(bundle)
        put(changed, path, flipped(at(changed, path)))
        try:
            verdict = verify_bundle(decode_bundle(encode_bundle(changed)), key.public_key(), lambda _: ([], []))
        except BundleError:
            continue  # no bundle any more
        assert verdict.differences, path


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("bill", "lines", 0, "price"), "line "),
        (("bill", "total"), "bill.total"),
        (("bill", "lines", 0, "tariff_version"), "line "),
        (("bill", "days", 3, "energy_wh"), "bill.days[3].energy_wh"),
        (("bill", "registers", 0, "end_wh"), "bill.registers[0].end_wh"),
        (("load", "registers", "import_wh", 100), "load.registers.import_wh[100]"),
        (("ledger", "rows", "columns", "energy_wh", 50), "load."),
        (("tariffs", 0, "document", "versions", 0, "prices", "peak"), "line "),
        (("contract", "tariffs", 0, "start_on"), "bill"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_the_issuer_signs_wrongly_is_found_by_making_the_bill_again(
    conn: psycopg.Connection, bills: list[str], tmp_path: Path, path: tuple[Any, ...], where: str
) -> None:
    key = signing_key(tmp_path)
    parts = fetch_bundle_parts(conn, bills[0])
    value = at(parts, path)
    new = value + 7 if isinstance(value, int) else str(Decimal(value) + 1) if path[-1] != "start_on" else "2026-09-05"
    put(parts, path, new)
    parts["ledger"]["sha256"] = digest(parts["ledger"]["rows"])
    verdict = verify_bundle(decode_bundle(encode_bundle(sign_bundle(parts, key))), key.public_key(), recompute)
    assert not [item for item in verdict.differences if item.where.startswith("signature")]
    assert any(item.where.startswith(where) for item in verdict.differences), verdict.differences[:5]


def test_a_bundle_of_another_key_is_not_taken_for_the_issuers(
    conn: psycopg.Connection, bills: list[str], tmp_path: Path
) -> None:
    own, other = signing_key(tmp_path / "own"), signing_key(tmp_path / "other")
    bundle = decode_bundle(encode_bundle(sign_bundle(fetch_bundle_parts(conn, bills[0]), other)))
    assert verify_bundle(bundle, None, recompute).is_proven
    (found,) = verify_bundle(bundle, own.public_key(), recompute).differences
    assert found.where == "signature.public_key"


def test_a_credit_note_has_a_bundle_whose_lines_are_summed(
    conn: psycopg.Connection, bills: list[str], tmp_path: Path
) -> None:
    desk = Desk(today=TODAY, rules=LENIENT)
    proposal = propose(conn, "cancel", bills[1], reason="asked for", who="ann", desk=desk)
    (note,) = approve(conn, proposal.proposal_id, who="ben", desk=desk)
    key = signing_key(tmp_path)
    bundle = decode_bundle(encode_bundle(sign_bundle(fetch_bundle_parts(conn, note), key)))
    verdict = verify_bundle(bundle, key.public_key(), recompute)
    assert verdict.is_proven
    assert "a credit note has no intervals" in verdict.notes[0]
    with pytest.raises(BillError, match="only issued bills have bundles"):
        fetch_bundle_parts(conn, "2026-999999")


def test_verify_needs_no_database_and_says_what_differs(
    conn: psycopg.Connection, bills: list[str], tmp_path: Path
) -> None:
    key = signing_key(tmp_path)
    bundle = sign_bundle(fetch_bundle_parts(conn, bills[0]), key)
    good, bad, pem = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "key.pem"
    good.write_bytes(encode_bundle(bundle))
    pem.write_text(public_pem(key.public_key()))
    changed = copy.deepcopy(bundle)
    changed["bill"]["lines"][0]["amount"] = "999.99"
    bad.write_bytes(encode_bundle(changed))
    found = CliRunner().invoke(app, ["bill", "verify", str(good), "--public-key", str(pem)])
    assert (found.exit_code, "nothing differs" in found.output) == (0, True), found.output
    found = CliRunner().invoke(app, ["bill", "verify", str(bad), "--public-key", str(pem)])
    assert found.exit_code == 1
    assert "signature: not of this content" in found.output
    assert ".amount: 999.99, but" in found.output
    found = CliRunner().invoke(app, ["bill", "verify", str(bad), "--json"])
    assert json.loads(found.output)["is_proven"] is False


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"format": "gridtally-bill-bundle/1"}',
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"a": NaN}',
    ],
    ids=range(8),
)
def test_what_is_no_bundle_is_refused_with_a_reason(text: bytes) -> None:
    with pytest.raises(BundleError):
        decode_bundle(text)


def test_hostile_parts_give_differences_and_no_other_error(
    conn: psycopg.Connection, bills: list[str], tmp_path: Path
) -> None:
    key = signing_key(tmp_path)
    parts = fetch_bundle_parts(conn, bills[0])
    for name in ("bill", "contract", "cycle", "tariffs", "inputs", "history_before", "load"):
        for wrong in ([], {}, "x", 10**400, {"x": None}):
            changed = {**parts, name: wrong}
            try:
                text = encode_bundle(sign_bundle(changed, key))
            except (BundleError, ValueError):
                continue
            try:
                found = verify_bundle(decode_bundle(text), key.public_key(), recompute)
            except BundleError:
                continue
            assert found.differences or name == "history_before", (name, wrong)  # none given is a first bill's


def test_the_key_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    first = signing_key(tmp_path)
    path = tmp_path / "keys" / "bill-signing.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert canonical(public_pem(signing_key(tmp_path).public_key())) == canonical(public_pem(first.public_key()))
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="can be read by others"):
        signing_key(tmp_path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(KeyFileError, match="is no key"):
        signing_key(tmp_path)
    with pytest.raises(KeyFileError, match="is no public key"):
        read_public_key(path)
