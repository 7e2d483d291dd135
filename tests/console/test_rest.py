"""REST on the running system: what the OpenAPI document says is what is answered."""

import datetime as dt
import itertools
import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.console.lane import DAYS, HISTORY, SILENT, SOLAR, STEP_S, Lane
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.stack

BILLING_PATHS = {
    "/api/v1/accounts/{name}/charge",
    "/api/v1/accounts/{name}/payments",
    "/api/v1/accounts/{name}/statement",
    "/api/v1/bills",
    "/api/v1/bills/issue",
    "/api/v1/bills/known",
    "/api/v1/bills/{bill_id}",
    "/api/v1/bills/{bill_id}/explain",
    "/api/v1/bills/{bill_id}/proposals",
    "/api/v1/bills/{bill_id}/release",
    "/api/v1/proposals",
    "/api/v1/proposals/{proposal_id}/approve",
    "/api/v1/proposals/{proposal_id}/reject",
    "/api/v1/service-points/{name}/usage",
}
"""Tried in test_billing_pages.py; what changes anything there asks for its user."""
CASE_PATHS = {"/api/v1/cases", "/api/v1/cases/{case_no}"}
"""Tried in test_case_rest.py."""
ALARM_PATHS = {
    "/api/v1/alarm-kinds",
    "/api/v1/alarms/acknowledge",
    "/api/v1/alarms/out-of-service",
    "/api/v1/alarms/performance",
    "/api/v1/alarms/return-to-service",
    "/api/v1/alarms/{alarm_id}",
    *(f"/api/v1/alarms/{{alarm_id}}/{word}" for word in ("assign", "comment", "reset", "shelve", "unshelve")),
}
"""Tried in test_alarm_pages.py."""
PATHS = {
    "/api/v1/meters/{meter_id}",
    "/api/v1/meters/{meter_id}/readings",
    "/api/v1/meters/{meter_id}/usage",
    "/api/v1/alarms",
    "/api/v1/dead-letters",
    "/api/v1/status",
}


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = stack.get("/api/v1/openapi.json")
    return found


def ask(stack: Stack, path: str, **query: Any) -> httpx.Response:
    return httpx.get(stack.addresses["console"] + path, params=query or None, timeout=20)


def validate(document: dict[str, Any], schema: dict[str, Any], body: Any) -> None:
    root = Registry().with_resource("urn:document", Resource.from_contents(document, DRAFT202012))
    pointed = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
    Draft202012Validator(pointed, registry=root).validate(body)


def span_of(lane: Lane) -> dict[str, str]:
    start, end = (dt.datetime.fromtimestamp(at_s, dt.UTC) for at_s in (lane.start_s - 1, lane.end_s))
    return {"start": start.isoformat(), "end": end.isoformat()}


def test_every_path_of_the_document_answers_as_it_says(document: dict[str, Any], lane: Lane) -> None:
    assert set(document["paths"]) == PATHS | BILLING_PATHS | CASE_PATHS | ALARM_PATHS
    for path in sorted(PATHS):
        methods = document["paths"][path]
        assert set(methods) == {"get"}, "what meters sent is only read"
        answers = methods["get"]["responses"]
        schema = answers["200"]["content"]["application/json"]["schema"]
        for meter_id in (HISTORY, SOLAR, SILENT) if "{" in path else ("",):
            answer = ask(lane.stack, path.format(meter_id=meter_id))
            assert answer.status_code == 200, answer.text
            validate(document, schema, answer.json())
        assert answer.json() != [] or "meters" in path, path
        assert {"422", "503"} <= set(answers)


def test_the_document_describes_objects_field_by_field(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert {"Meter", "Reading", "Usage", "RunningCharge", "ChargeLine", "Alarm", "DeadLetter", "Status"} <= set(schemas)
    for name, schema in schemas.items():
        assert schema.get("properties"), name
        assert schema.get("description"), name


def test_what_changes_anything_asks_for_its_user(document: dict[str, Any]) -> None:
    changing = [methods["post"] for methods in document["paths"].values() if "post" in methods]
    assert len(changing) == 14
    for method in changing:
        (header,) = [item for item in method["parameters"] if item["in"] == "header"]
        assert header["name"] == "X-Gridtally-User"
        assert header["required"]


def test_problems_are_answered_as_the_document_says(document: dict[str, Any], stack: Stack) -> None:
    for path in sorted(PATHS):
        methods = document["paths"][path]
        answers = methods["get"]["responses"]
        if "{" in path:
            answer = ask(stack, path.format(meter_id="no-such-meter"))
            assert answer.status_code == 404
            assert "gridtally import meters" in answer.json()["detail"]
            validate(document, answers["404"]["content"]["application/json"]["schema"], answer.json())
        for parameter in methods["get"].get("parameters", []):
            if parameter["in"] == "query":
                answer = ask(stack, path.format(meter_id=HISTORY), **{parameter["name"]: "-1e99\0"})
                assert answer.status_code == 422, (path, parameter["name"], answer.text)
                assert answer.json()["detail"].startswith(f"{parameter['name']}: ")
                validate(document, answers["422"]["content"]["application/json"]["schema"], answer.json())


def test_usage_adds_up_to_the_registers(lane: Lane) -> None:
    rows = lane.stack.get(f"/api/v1/meters/{HISTORY}/usage", **span_of(lane))
    assert len(rows) == DAYS * 96
    assert sum(row["energy_wh"] for row in rows) == lane.registers_wh[-1] - lane.registers_wh[0]
    assert all(row["end"] == following["start"] for row, following in itertools.pairwise(rows))
    assert {word for row in rows for word in row["quality"]} == {"actual", "straddling"} or all(
        row["quality"] == ["actual"] for row in rows
    )


def test_readings_are_the_registers_that_were_sent(lane: Lane) -> None:
    rows = lane.stack.get(f"/api/v1/meters/{HISTORY}/readings", **span_of(lane))
    assert [row["import_wh"] for row in rows] == lane.registers_wh
    assert dt.datetime.fromisoformat(rows[3]["read_at"]).timestamp() == lane.start_s + 3 * STEP_S
    assert rows[0]["quality"] == ["opening"]
    assert rows[0]["start_at"] == rows[0]["end_at"]


def test_the_bounds_of_a_range_are_half_open_at_the_start(lane: Lane) -> None:
    start, end = (dt.datetime.fromtimestamp(lane.start_s + n * STEP_S, dt.UTC).isoformat() for n in (4, 6))
    rows = lane.stack.get(f"/api/v1/meters/{HISTORY}/readings", start=start, end=end)
    assert [row["seq"] for row in rows] == [5, 6]
    plain = lane.stack.get(f"/api/v1/meters/{HISTORY}/readings", start=start.removesuffix("+00:00"), end=end)
    assert plain == rows


def test_following_the_links_gives_every_row_once(lane: Lane) -> None:
    path, query, found = f"/api/v1/meters/{HISTORY}/readings", span_of(lane) | {"limit": "50"}, []
    while path:
        answer = ask(lane.stack, path, **query)
        found += answer.json()
        path, query = answer.links.get("next", {}).get("url", ""), {}
    assert [row["import_wh"] for row in found] == lane.registers_wh


def test_money_and_kwh_are_text_and_lines_add_up_to_the_charge(lane: Lane) -> None:
    charge = lane.stack.get(f"/api/v1/meters/{HISTORY}")["running_charge"]
    texts = [charge["amount"], charge["amount_unrounded"]]
    texts += [
        line[name] for line in charge["lines"] for name in ("quantity_kwh", "price", "amount", "amount_unrounded")
    ]
    assert all(isinstance(text, str) and "e" not in text.lower() for text in texts)
    exact = Decimal(charge["amount_unrounded"])
    assert sum(Decimal(line["amount_unrounded"]) for line in charge["lines"]) == exact
    assert abs(Decimal(charge["amount"]) - exact) <= Decimal("0.005")
    energy = [line for line in charge["lines"] if line["kind"] == "energy"]
    assert sum(Decimal(line["quantity_kwh"]) for line in energy) * 1000 == charge["energy_wh"]


def test_a_meter_that_sent_nothing_has_no_reading_and_no_charge(lane: Lane) -> None:
    found = lane.stack.get(f"/api/v1/meters/{SILENT}")
    assert (found["meter_id"], found["last_reading"], found["running_charge"]) == (SILENT, None, None)
    assert lane.stack.get(f"/api/v1/meters/{SILENT}/usage") == []


def test_what_a_meter_does_not_report_is_null_and_what_it_does_is_there(lane: Lane) -> None:
    plain, solar = (lane.stack.get(f"/api/v1/meters/{name}")["last_reading"] for name in (HISTORY, SOLAR))
    assert (plain["export_wh"], plain["voltage_v1"]) == (None, None)
    assert (solar["export_wh"], solar["voltage_v1"], solar["current_a1"]) == (2400, 231.5, 1.25)
    assert solar["export_energy_wh"] == 300


def test_dead_letters_are_listed_newest_first_by_code_and_page(lane: Lane) -> None:
    rows = lane.stack.get("/api/v1/dead-letters", limit=1000)
    assert [row["dead_letter_id"] for row in rows] == sorted((row["dead_letter_id"] for row in rows), reverse=True)
    assert {"bad_json", "unknown_meter"} <= {row["code"] for row in rows}
    assert all("payload" not in row for row in rows)
    strangers = lane.stack.get("/api/v1/dead-letters", code="unknown_meter", limit=1000)
    assert {row["code"] for row in strangers} == {"unknown_meter"}
    older = lane.stack.get("/api/v1/dead-letters", before_id=rows[0]["dead_letter_id"], limit=1)
    assert older[0]["dead_letter_id"] == rows[1]["dead_letter_id"]


def test_status_says_what_runs_and_how_far_it_is_and_keeps_the_password(lane: Lane) -> None:
    dsn = lane.stack.addresses["database"]
    password = dsn.split("://", 1)[1].split("@", 1)[0].split(":", 1)[1]
    assert len(password) > 8
    answer = ask(lane.stack, "/api/v1/status")
    assert password not in answer.text
    found = answer.json()
    assert found["database"] == f"postgresql://{dsn.rsplit('@', 1)[1]}"
    assert {"bridge", "validate", "settle", "detect", "console"} <= {row["name"] for row in found["processes"]}
    settle = [row for row in found["progress"] if row["consumer"] == "settle"]
    assert sum(row["readings"] for row in settle) >= len(lane.registers_wh)
    assert all(row["watermark"] is None or row["watermark"] > "2020" for row in found["progress"])
