"""The published schemas are those of the code, and the simulator, the receipts and the decoder live by them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from connectors.simulator import OPEN_EVENT_AFTER_LIVE_S, Simulator
from schemas.message import GatewayReading, Reading, Receipt, decode_message, json_schemas, schema_text
from schemas.settings import Settings
from schemas.topic import source_of

DIRECTORY = Path(__file__).parent.parent.parent / "docs" / "schemas"
SCHEMAS = {name: Draft202012Validator(schema) for name, schema in json_schemas().items()}


def is_valid(name: str, value: Any) -> bool:
    return not list(SCHEMAS[name].iter_errors(value))


def test_published_schemas_are_those_of_the_code_and_no_others() -> None:
    published = {path.name: path.read_text("utf-8") for path in DIRECTORY.iterdir() if path.name != "tariff.json"}
    assert published == {f"{name}.json": schema_text(schema) for name, schema in json_schemas().items()}, (
        "run `make docs`"
    )


def test_make_docs_writes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemas.message", str(tmp_path / "new" / "schemas")]
    subprocess.run(command, check=True, cwd=DIRECTORY.parent.parent)
    tariff = [part.replace("schemas.message", "schemas.tariff") for part in command]
    subprocess.run(tariff, check=True, cwd=DIRECTORY.parent.parent)
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "new" / "schemas").iterdir()}
    assert written == {path.name: path.read_text("utf-8") for path in DIRECTORY.iterdir()}
    no_directory = subprocess.run(
        command[:-1], capture_output=True, text=True, check=False, cwd=DIRECTORY.parent.parent
    )
    assert no_directory.returncode == 2
    assert "usage" in no_directory.stderr


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_is_a_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(json.loads((DIRECTORY / f"{name}.json").read_text("utf-8")))


GOOD: dict[str, Any] = {"seq": 1, "read_at": 1795507200, "import_wh": 5}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"seq": 2**64 - 1},
        {"read_at": "2026-11-24T08:00:00Z"},
        {"voltage_v": [230.0, 231, 232], "current_a": 1, "status": ["a"], "interval_s": 900, "anything": None},
        {"seq": -1},
        {"import_wh": -1},
        {"import_wh": "5"},
        {"import_wh": 5.5},
        {"boot_id": 2**32},
        {"voltage_v": [1, 2, 3, 4]},
        {"current_a": []},
        {"interval_s": 0},
        {"status": "x"},
        {"power_w": True},
        {"read_at": None},
    ],
    ids=str,
)
def test_schema_and_decoder_agree(change: dict[str, Any]) -> None:
    for name, kind, value in (
        ("meter_readings", Reading, GOOD | change),
        ("meter_readings", Reading, [GOOD | change]),
        ("gateway_readings", GatewayReading, [GOOD | change | {"meter_id": "m"}]),
    ):
        _, refused = decode_message(kind, json.dumps(value).encode())
        assert is_valid(name, value) == (not refused)


def test_schema_and_decoder_agree_on_how_many() -> None:
    for count in (0, 1, 1000, 1001):
        value = [GOOD] * count
        _, refused = decode_message(Reading, json.dumps(value).encode())
        assert is_valid("meter_readings", value) == (not refused) == (0 < count <= 1000)


def test_everything_that_the_simulator_sends_is_valid_but_for_its_rubbish(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path})
    simulator = Simulator(settings, "mqtt://127.0.0.1:1", meters=60, days=1, live_s=60)
    simulator.begin()
    simulator._send_window(0, 3, lambda: True)
    first = simulator.stretches[-1].first_seq
    for seq in (first, first + 1):
        for number in range(simulator.utility.size):
            simulator._send_live(number, seq)
    simulator.live_from_s -= OPEN_EVENT_AFTER_LIVE_S + 2
    simulator._send_events()
    rubbish = f"gridtally/v1/meters/{simulator.utility.ids[simulator.utility.bad['rubbish']]}/readings"
    seen: dict[str, int] = {}
    for _, topic, payload, _ in simulator.sender._queue:
        source = source_of(topic.decode())
        assert source
        name = f"{source.owner[:-1]}_{source.kind}"
        try:
            value = json.loads(payload)
        except ValueError:
            name = "rubbish"
            assert topic.decode() == rubbish
        else:
            assert is_valid(name, value), value
        seen[name] = seen.get(name, 0) + 1
    assert set(seen) == {"gateway_readings", "meter_readings", "meter_events", "rubbish"}, (
        "sometimes: each kind was there"
    )
    assert seen["meter_readings"] >= 2 * simulator.utility.size


def test_receipts_are_valid() -> None:
    receipt = json.loads(msgspec.json.encode(Receipt(0, 2**64 - 1, "2026-11-24T08:00:00+00:00")))
    assert is_valid("meter_receipt", receipt)
    assert is_valid("gateway_receipts", {"m.1": receipt})
    assert not is_valid("meter_receipt", receipt | {"seq": "1"})
