"""The pages of theft cases in Chromium, and their pictures: what is missing is a gap, never nothing used."""

import json
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from console.case_pages import HEIGHT, WIDTH, pictures_of, points_of
from tests.console.browser import Browser
from tests.console.lane import HISTORY, Lane

EVIDENCE = {
    "weeks": ["2026-10-26", "2026-11-02", "2026-11-09"],
    "own_week_wh": [None, 50_000, 25_000],
    "neighbours_week_wh": [60_000, 61_000, 60_500],
    "own_hour_before_wh": [400] * 24,
    "own_hour_after_wh": [200] * 24,
    "events": ["2026-11-09"],
    "node": "feeder-9/transformer-9",
}


def test_a_line_has_a_gap_where_nothing_is_known_and_its_highest_value_touches_the_top() -> None:
    assert points_of([1, None, 2], 2) == [f"0.0,{HEIGHT / 2:.1f}", f"{WIDTH:.1f},0.0"]
    assert points_of([None, None], 1) == []
    assert points_of([5], 5) == ["0.0,0.0"]


def test_pictures_are_those_that_the_evidence_has_numbers_for() -> None:
    weeks, day = pictures_of(EVIDENCE)
    assert [line["name"] for line in weeks["lines"]] == ["this_meter", "neighbours"]
    assert weeks["most"] == 61_000
    assert (day["labels"][0], day["labels"][-1]) == ("00", "23")
    assert pictures_of({}) == []
    assert pictures_of({"weeks": ["2026-10-26"], "own_week_wh": [0]})[0]["most"] == 1


@pytest.fixture
def case_no(lane: Lane) -> Iterator[int]:
    """Open a case about a meter of the lane, and reject it afterwards."""
    with psycopg.connect(lane.stack.addresses["database"], autocommit=True) as conn:
        row = conn.execute(
            "insert into theft_case (meter_no, kind, fall_on, opened_by, evidence, missing_wh_low, missing_wh, missing_wh_high,"
            " money_low, money, money_high, currency) select meter_no, 'theft_tamper_and_drop', '2026-11-09', 'tests', %s,"
            " 20000, 25000, 30000, 12.5, 15.25, 18, 'CNY' from meter where meter_id = %s returning case_no",
            (json.dumps(EVIDENCE), HISTORY),
        ).fetchone()
        assert row is not None
        conn.execute("insert into theft_case_event (case_no, who, to_state) values (%s, 'tests', 'new')", row)
    yield int(row[0])
    with psycopg.connect(lane.stack.addresses["database"], autocommit=True) as conn:
        conn.execute("update theft_case set state = 'rejected' where case_no = %s", row)


@pytest.mark.stack
@pytest.mark.timeout(90)
def test_a_case_shows_what_is_missing_its_pictures_and_what_to_check(
    browser: Browser, lane: Lane, case_no: int
) -> None:
    for language, said in (("zh", "现场核查"), ("en", "What to check in the field")):
        browser.open(f"/cases?lang={language}")
        assert HISTORY in browser.text("#main")
        browser.open(f"/cases/{case_no}?lang={language}&theme=dark")
        shown = browser.text("#main")
        assert said in shown
        assert "15.25" in shown
        assert "25.0" in shown
        assert browser.js("return document.querySelectorAll('main svg polyline').length") == 4
        assert browser.faults() == []
    missing = httpx.get(f"{lane.stack.addresses['console']}/cases/999999?lang=en")
    assert missing.status_code == 404
    assert "There is no case 999999" in missing.text
