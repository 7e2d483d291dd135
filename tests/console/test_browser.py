"""The pages in a real Chromium, on the running system: what moves, what must not, and who can read and use them."""

import os
import re
import signal
import time

import psycopg
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from console.figure import span_text
from storage.alarm import clear_alarm, raise_alarm
from tests.console.browser import Browser
from tests.console.lane import HISTORY, LIVE, OPENED, SILENT, Lane

pytestmark = [pytest.mark.stack, pytest.mark.timeout(90)]


def column(browser: Browser, css: str, name: str) -> list[str]:
    return list(
        browser.js("return [...document.querySelectorAll(arguments[0])].map(e => e.dataset[arguments[1]])", css, name)
    )


# -- the control room ------------------------------------------------------------------------------------------------


def test_a_published_reading_moves_the_charge_on_the_open_page_within_seconds(browser: Browser, lane: Lane) -> None:
    lane.send_live(600_000, 1_200_000)
    lane.wait_live()
    money = f'#top tr[data-meter="{LIVE}"] [data-money]'
    browser.wait(lambda: browser.open("/") or browser.all(money), "the meter on the list")
    browser.wait_live()
    amount = f"{float(lane.live_amount()):,.2f}"
    browser.wait(lambda: browser.text(money).split()[0] == amount, "the charge so far")
    order = column(browser, "#top tr", "meter")
    lane.send_live(90_000_000)
    began = time.monotonic()
    browser.wait(lambda: browser.text(money).split()[0] != amount, "the new charge")
    assert time.monotonic() - began < 10
    assert browser.text(money).split()[0] == f"{float(lane.live_amount()):,.2f}"
    assert column(browser, "#top tr", "meter") == order


def test_ages_tick_by_the_servers_clock(browser: Browser, lane: Lane) -> None:
    browser.open("/")
    browser.wait_live()
    age = '#alarms [data-age="database"]'
    seen = {browser.wait(lambda: re.fullmatch(r"\d+ s", browser.text(age)), "an age")[0]}
    browser.wait(lambda: seen.add(browser.text(age)) or len(seen) > 1, "the age to change")
    assert all(int(text.split()[0]) < 20 for text in seen)
    spans = (0, 59, 59.6, 61, 3599, 3601, 172_799, 200_000)
    assert browser.js("return arguments[0].map(s => span(s * 1000))", spans) == [span_text(s) for s in spans]


def test_a_new_alarm_waits_behind_the_button_and_no_row_moves(browser: Browser, lane: Lane) -> None:
    browser.open("/?lang=zh")
    browser.wait_live()
    rows = column(browser, "#alarm-rows tr", "alarm")
    unacked = int(browser.text("#unacked-2"))
    top = browser.js("return document.querySelector('#alarm-rows tr').getBoundingClientRect().top")
    assert not browser.is_shown("#new-alarms")
    with lane.stack.sender("alarm") as sender:
        event = {"seq": 1, "at": int(time.time()), "code": "magnetic_field", "detail": ""}
        lane.stack.publish(sender, f"meters/{OPENED}/events", event)
    browser.wait(lambda: browser.is_shown("#new-alarms"), "the button")
    assert browser.text("#new-alarms") == "1 条新告警，按 r 排入"
    browser.wait(lambda: int(browser.text("#unacked-2")) == unacked + 1, "the count")
    assert column(browser, "#alarm-rows tr", "alarm") == rows
    assert browser.js("return document.querySelector('#alarm-rows tr').getBoundingClientRect().top") == top
    browser.press("r")
    browser.wait(lambda: len(column(browser, "#alarm-rows tr", "alarm")) == len(rows) + 1, "the row")
    assert not browser.is_shown("#new-alarms")
    shown = browser.text("#alarm-rows")
    assert OPENED in shown
    assert "强磁" in shown
    assert "再派人带封印清单现场核查" in shown
    assert "event magnetic_field" not in shown


def test_an_alarm_of_priority_1_enters_at_once_on_top_and_the_view_stays(browser: Browser, lane: Lane) -> None:
    browser.size(1280, 500)
    browser.open("/")
    browser.wait_live()
    ActionChains(browser.driver).move_to_element(browser.one("#alarm-rows tr:last-child td")).perform()
    rows = column(browser, "#alarm-rows tr", "alarm")
    place = "return document.querySelector('#alarm-rows tr:last-child').getBoundingClientRect().top"
    before = browser.js(place)
    with psycopg.connect(lane.stack.addresses["database"]) as conn:
        at = conn.execute("select now()").fetchone()
        assert at is not None
        raise_alarm(conn, SILENT, "silent", priority=1, detail="no reading for more than 180 s, 3 intervals", at=at[0])
    try:
        browser.wait(lambda: len(column(browser, "#alarm-rows tr", "alarm")) == len(rows) + 1, "the alarm")
        assert column(browser, "#alarm-rows tr", "alarm")[1:] == rows
        assert abs(browser.js(place) - before) < 2
        assert browser.text("#say") or browser.text("#active-1") == "1"
    finally:
        with psycopg.connect(lane.stack.addresses["database"]) as conn:
            clear_alarm(conn, SILENT, "silent", at[0], "the test is over")


def test_a_stream_that_stops_is_marked_and_one_that_comes_back_goes_on(browser: Browser, lane: Lane) -> None:
    browser.open("/?lang=en")
    browser.wait_live()
    assert not browser.all(".stale")
    pid = lane.stack.pid("console")
    os.kill(pid, signal.SIGSTOP)
    try:
        browser.js(
            "const real = performance.now.bind(performance), p = performance; window.later = 25000; p.now = () => real() + later"
        )  # instead of waiting
        browser.wait(lambda: len(browser.all("main .stale")) >= 10, "the outlines")
        assert browser.text("#live").startswith("stale since ")
        assert not browser.is_shown("#banner")
        browser.js("window.later = 65000")
        browser.wait(lambda: browser.is_shown("#banner"), "the banner")
        assert "what is shown is from before" in browser.text("#banner")
        assert browser.all(".gone")
    finally:
        browser.js("window.later = 0")
        os.kill(pid, signal.SIGCONT)
    browser.wait(lambda: not browser.all(".stale") and not browser.is_shown("#banner"), "the page to recover")


def test_a_page_goes_on_by_itself_after_the_console_was_killed(browser: Browser, lane: Lane) -> None:
    browser.open("/?lang=en")
    browser.wait_live()
    number = browser.js("return number")
    lane.stack.kill("console")
    lane.send_live(400_000, 500_000)  # while nobody listens
    browser.wait(lambda: browser.js("return latest.at") > time.time() * 1000 - 1500 and browser.js("return number") < number,
                 "figures of the new process", 30)  # fmt: skip
    assert browser.text("#live") == "Live"
    lane.wait_live()
    amount = f"{float(lane.live_amount()):,.2f}"
    money = f'#top tr[data-meter="{LIVE}"] [data-money]'
    browser.wait(lambda: browser.press("r") or browser.text(money).split(" ")[0] == amount, "what came meanwhile")
    browser.wait(lane.stack.is_up, "the console to be ready", 20)
    browser.forgive("/stream")


# -- a meter and its messages ------------------------------------------------------------------------------------------


def test_a_meters_page_explains_a_line_down_to_the_raw_message(browser: Browser, lane: Lane) -> None:
    browser.open(f"/meters/{HISTORY}?lang=en")
    lines = lane.stack.get(f"/api/v1/meters/{HISTORY}")["running_charge"]["lines"]
    place = next(n for n, line in enumerate(lines) if line["label"] == "valley")
    browser.all("#charge tbody a.btn")[place].click()
    browser.wait(lambda: browser.text("#explained h2") == "Explain: valley", "the explanation")
    shown = browser.text("#explained")
    line = lines[place]
    assert f"{float(line['quantity_kwh']):,.3f} kWh × {line['price']} = {line['amount_unrounded'].rstrip('0')}" in shown
    assert "valley: 00:00–08:00" in shown
    assert browser.all("#explained tr[class], #explained table tbody tr")
    difference = [text.replace(",", "") for text in browser.texts("#explained tbody tr:first-child td.num")]
    assert round(1000 * (float(difference[1]) - float(difference[0]))) == int(difference[2])
    browser.one("#explained details summary a").click()
    raw = browser.wait(lambda: browser.text("#explained pre"), "the raw message")
    assert re.fullmatch(r'\{"seq": ?\d+, ?"read_at": ?\d+, ?"import_wh": ?\d+\}', raw)
    browser.one("#intervals tbody a").click()
    browser.wait(lambda: browser.text("h1") == "Raw message", "the message's page")
    assert f'"import_wh":{lane.registers_wh[-1]}' in browser.text("#payload").replace(" ", "")
    browser.one("main a").click()
    browser.wait(lambda: browser.text("h1").startswith(HISTORY), "the way back")


def test_a_new_reading_renews_the_meters_figures_and_leaves_its_lists_alone(browser: Browser, lane: Lane) -> None:
    lane.send_live(60_000, 60_000)
    lane.wait_live()
    browser.open(f"/meters/{LIVE}?lang=en")
    browser.wait_live()
    register, total = browser.text("#registers tr td.num"), browser.text("#total")
    intervals = browser.texts("#intervals tbody tr")
    browser.one("#intervals a").send_keys("")  # hold the focus in the list
    lane.send_live(60_000_000)
    browser.wait(
        lambda: browser.text("#registers tr td.num") != register and browser.text("#total") != total, "figures"
    )
    assert browser.texts("#intervals tbody tr") == intervals
    assert browser.is_shown("#new-intervals")
    assert browser.js("return document.activeElement.closest('#intervals') !== null")


def test_a_refused_message_says_why_and_what_to_do_and_stays_text(browser: Browser, lane: Lane) -> None:
    for letter in lane.stack.get("/api/v1/dead-letters", code="bad_json", limit=10):
        browser.open(f"/raw/{letter['raw_partition']}/{letter['raw_offset']}/{letter['raw_index']}?lang=zh")
        assert "不是有效的 JSON" in browser.text(".note")
        assert not browser.all("pre *")
    browser.open("/?lang=zh")
    assert "查看字节，更正发送方" in browser.text("#letters")


def test_a_message_that_is_not_there_is_told_apart(browser: Browser, lane: Lane) -> None:
    browser.open("/raw/0/999999999/0?lang=en")
    assert "There is no such message yet" in browser.text("main")
    browser.forgive("404")


def test_a_meter_without_readings_and_one_that_is_not_there_say_what_to_do(browser: Browser) -> None:
    browser.open(f"/meters/{SILENT}?lang=en")
    assert "Register and charge appear here with its first reading" in browser.text("main")
    assert browser.texts(".hero .v")[0].startswith("–")
    assert "0.00" not in browser.text("#hero")
    browser.one("#q").send_keys("no-such" + Keys.ENTER)
    browser.wait(lambda: "There is no meter no-such" in browser.text("h1"), "the page")
    assert "gridtally import meters" in browser.text("main")
    browser.forgive("404")
