"""An exchange and a register by hand through the whole path: the ledger has the energy of both meters, and balances."""

import datetime as dt
import re
import time
from pathlib import Path

import pytest

from tests.fixtures.stack import Stack

pytestmark = pytest.mark.stack
HOUR = dt.timedelta(hours=1)


def energy(stack: Stack, *meter_ids: str) -> list[int]:
    return [
        int(stack.sql("select coalesce(sum(energy_wh), 0) from fact join meter using (meter_no) where meter_id = %s", one)[0][0])
        for one in meter_ids
    ]  # fmt: skip


def settled(stack: Stack, meter_id: str) -> list[tuple[int, int]]:
    """Return the live registers of a meter with the numbering of their boots."""
    rows = stack.sql(
        "select distinct on (end_at) import_wh, boot_id from fact join meter using (meter_no) where meter_id = %s"
        " order by end_at, revision desc",
        meter_id,
    )
    return [(int(import_wh), int(boot_id)) for import_wh, boot_id in rows]


def test_the_energy_of_an_exchange_is_old_to_final_and_new_from_initial_and_the_books_balance(
    stack: Stack, tmp_path: Path
) -> None:
    key = time.time_ns()
    old, new, point = f"old-{key}", f"new-{key}", f"swap-{key}"
    stack.import_meters([{"meter_id": old, "service_point_id": point}, {"meter_id": new}])
    at = dt.datetime.fromtimestamp(time.time(), dt.UTC).replace(minute=0, second=0, microsecond=0) - HOUR
    exchange = [
        *("meter", "exchange", "--service-point", point, "--old", old, "--final-kwh", "12.5", "--new", new),
        *("--initial-kwh", "0.1", "--at", at.isoformat(), "--reason", "worn", "--as", "ann"),
    ]
    with stack.sender() as sender:
        for seq, (hours, wh) in enumerate(((-3, 10_000), (-2, 11_000), (-1, 12_000))):
            reading = {"seq": seq, "read_at": (at + hours * HOUR).isoformat(), "import_wh": wh}
            stack.publish(sender, f"meters/{old}/readings", reading)
        stack.wait_receipt(sender, old, 2)
        assert f"{new} in the place of {old}" in stack.run(*exchange).stdout
        stack.wait(lambda: len(settled(stack, old)) == 4 and len(settled(stack, new)) == 1, 30, "both registers")
        stack.publish(
            sender, f"meters/{new}/readings", {"seq": 0, "read_at": (at + HOUR / 2).isoformat(), "import_wh": 700}
        )
        stack.wait_receipt(sender, new, 0)
    assert energy(stack, old, new) == [2500, 600]
    before = stack.sql("select count(*) from fact")
    again = stack.run(*exchange).stdout
    assert "(entered before)" in again
    assert "its readings are settled" in again
    assert stack.sql("select count(*) from fact") == before
    lineage = stack.sql(
        "select raw_offset, f.meter_no from fact f join meter using (meter_no) where meter_id = any(%s) and boot_id > 0",
        [old, new],
    )
    assert len(lineage) == 2, "each came in a raw message of its own"
    file = tmp_path / "exchanges.csv"
    stack.run("export", "exchanges", "-o", str(file))
    assert f"{point},{at.isoformat()},{old},12.5,{new},0.1,worn" in file.read_text("utf-8")
    told = stack.run("import", "exchanges", str(file), "--as", "ann").stdout
    assert re.search(r"imported \d+ exchanges: 0 new, 0 changed", told)
    stack.assert_books_balance()


def test_registers_by_hand_are_settled_once_and_a_lower_one_is_refused_with_both_values(stack: Stack) -> None:
    meter_id = f"hand-{time.time_ns()}"
    stack.import_meters([{"meter_id": meter_id}])
    at = dt.datetime.fromtimestamp(time.time(), dt.UTC).replace(microsecond=0) - 48 * HOUR

    def enter(hours: int, kwh: str, *, check: bool = True) -> str:
        done = stack.run(
            *("meter", "reading", meter_id, "--at", (at + hours * HOUR).isoformat(), "--import-kwh", kwh),
            *("--reason", "card", "--as", "ann"),
            check=check,
        )
        return done.stdout + done.stderr

    enter(0, "6193.2")
    stack.wait(lambda: len(settled(stack, meter_id)) == 1, 30, "the first register")
    enter(24, "6202.905")
    stack.wait(lambda: len(settled(stack, meter_id)) == 2, 30, "the second register")
    assert "its readings are settled" in enter(24, "6202.905")
    refused = enter(30, "6193.2", check=False)
    assert "reading 6193.2 kWh is lower than the last, 6202.905 kWh" in refused
    assert "If the meter was exchanged, enter the exchange first" in refused
    assert energy(stack, meter_id) == [9705]
    stack.assert_books_balance()


def test_without_kafka_an_exchange_is_kept_and_says_what_to_do(stack: Stack, tmp_path: Path) -> None:
    key = time.time_ns()
    stack.import_meters([{"meter_id": f"a-{key}", "service_point_id": f"p-{key}"}, {"meter_id": f"b-{key}"}])
    at = dt.datetime.fromtimestamp(time.time(), dt.UTC).replace(microsecond=0) - HOUR
    words = [
        *("meter", "exchange", "--service-point", f"p-{key}", "--old", f"a-{key}", "--final-kwh", "1"),
        *("--new", f"b-{key}", "--initial-kwh", "0", "--at", at.isoformat(), "--reason", "worn", "--as", "ann"),
    ]
    from typer.testing import CliRunner

    from gridtally.cli import app

    env = {"GRIDTALLY_DATABASE__DSN": stack.addresses["database"]}
    alone = CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path)], env=env)
    assert alone.exit_code == 3
    assert "its readings are not sent yet: start Kafka, and run the same command again" in alone.stderr
    assert "(entered before)" in stack.run(*words).stdout
    stack.wait(lambda: len(settled(stack, f"b-{key}")) == 1, 30, "the register of the new meter")
    stack.assert_books_balance()
