"""Alarms worked over REST and in Chromium: acknowledged by a button, shelved, assigned, and what is refused."""

from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from selenium.webdriver.common.by import By

from metering.alarm.condition import Condition
from monitoring.clock import now
from storage.alarm import apply_conditions, clear_alarm
from tests.console.browser import Browser
from tests.console.lane import HISTORY, Lane

pytestmark = [pytest.mark.stack, pytest.mark.timeout(90)]
KIND = "register_fault"


@pytest.fixture
def alarm_id(lane: Lane) -> Iterator[int]:
    """Raise an alarm about a meter of the lane, and close it afterwards."""
    at = now()
    with psycopg.connect(lane.stack.addresses["database"], autocommit=True) as conn:
        (change,) = apply_conditions(conn, [Condition(HISTORY, KIND, is_active=True, at=at, detail="made by a test")])
    yield change.alarm_id
    with psycopg.connect(lane.stack.addresses["database"], autocommit=True) as conn:
        clear_alarm(conn, HISTORY, KIND, now(), "the test is over")
        conn.execute("update alarm set state = 'cleared', shelved_until = null where alarm_id = %s", (change.alarm_id,))


def post(lane: Lane, path: str, body: Any = None, user: str | None = "ann") -> httpx.Response:
    headers = {"X-Gridtally-User": user} if user else {}
    return httpx.post(f"{lane.stack.addresses['console']}/api/v1/alarms/{path}", json=body, headers=headers, timeout=20)


def state(lane: Lane, alarm_id: int) -> str:
    return str(lane.stack.get(f"/api/v1/alarms/{alarm_id}")["alarm"]["state"])


def test_an_alarm_is_shelved_taken_back_assigned_and_acknowledged_and_its_history_says_by_whom(
    lane: Lane, alarm_id: int
) -> None:
    assert post(lane, f"{alarm_id}/shelve", {"reason": "works", "minutes": 60}).json() == [
        {"alarm_id": alarm_id, "state": "shelved"}
    ]
    assert post(lane, f"{alarm_id}/unshelve").json() == [{"alarm_id": alarm_id, "state": "unacknowledged"}]
    assert post(lane, f"{alarm_id}/assign", {"to": "ben"}).status_code == 200
    assert post(lane, f"{alarm_id}/comment", {"text": "seen"}, user="ben").status_code == 200
    assert (
        post(lane, "acknowledge", {"alarm_ids": [alarm_id], "note": "on the way"}).json()[0]["state"] == "acknowledged"
    )
    found = lane.stack.get(f"/api/v1/alarms/{alarm_id}")
    assert found["alarm"]["assigned_to"] == "ben"
    assert [(one["who"], one["why"]) for one in found["transitions"]] == [
        ("gridtally", "made by a test"), ("ann", "works"), ("ann", "unshelved"), ("ann", "assigned to ben"),
        ("ben", "seen"), ("ann", "on the way"),
    ]  # fmt: skip


def test_what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing(lane: Lane, alarm_id: int) -> None:
    assert post(lane, "acknowledge", {"alarm_ids": [alarm_id]}, user=None).status_code == 422
    refused = post(lane, f"{alarm_id}/shelve", {"reason": "works", "minutes": 481})
    assert (refused.status_code, "8 h at most" in refused.json()["detail"]) == (409, True)
    assert post(lane, f"{alarm_id}/unshelve").status_code == 409
    assert post(lane, f"{alarm_id}/reset", {"text": "x"}).status_code == 409
    assert post(lane, "999999999/assign", {"to": "ben"}).status_code == 404
    assert httpx.get(f"{lane.stack.addresses['console']}/alarms/999999999").status_code == 404
    out = {"subject": HISTORY, "kind": "nonsense", "until": "2099-01-01T00:00:00Z", "reason": "x"}
    assert post(lane, "out-of-service", out).status_code == 409
    assert state(lane, alarm_id) == "unacknowledged"


def test_a_chosen_alarm_is_acknowledged_by_the_button_under_the_name_that_was_typed(
    browser: Browser, lane: Lane, alarm_id: int
) -> None:
    browser.open(f"/alarms?lang=en&kind={KIND}")
    box = browser.driver.find_element(By.CSS_SELECTOR, f"input[name=alarm][value='{alarm_id}']")
    box.click()
    browser.driver.find_element(By.ID, "who").send_keys("carol")
    browser.driver.find_element(By.CSS_SELECTOR, "#desk form button").click()
    browser.wait(lambda: state(lane, alarm_id) == "acknowledged", "the acknowledgement")
    assert lane.stack.get(f"/api/v1/alarms/{alarm_id}")["alarm"]["acknowledged_by"] == "carol"


def test_kinds_and_performance_are_answered_in_full(lane: Lane, alarm_id: int) -> None:
    del alarm_id
    kinds = {kind["kind"]: kind for kind in lane.stack.get("/api/v1/alarm-kinds")}
    assert kinds["silent"]["zh"]["name"] == "无读数"
    assert all(kind[language][field] for kind in kinds.values() for language in ("zh", "en") for field in kind["en"])
    found = lane.stack.get("/api/v1/alarms/performance", days=1)
    assert found["raised"] >= 1
    assert found["ten_minutes_max"] >= 1
