"""The pages in a real Chromium, on the running system: what moves, what must not, and who can read and use them."""

import itertools
import os
import re
import signal
import time

import httpx
import psycopg
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from console.figure import span_text
from console.words import _WORDS
from monitoring.clock import now_us
from storage.alarm import clear_alarm, raise_alarm
from tests.console.browser import Browser
from tests.console.lane import HISTORY, LIVE, OPENED, SILENT, SOLAR, Lane

pytestmark = [pytest.mark.stack, pytest.mark.timeout(90)]

FAR_WORDS = ("live", "csv")  # short ones that may stand inside something else
CJK = re.compile(r"[\u3400-\u9fff]")


def raw_path(lane: Lane, meter_id: str) -> str:
    last = lane.stack.get(f"/api/v1/meters/{meter_id}")["last_reading"]
    return f"/raw/{last['raw_partition']}/{last['raw_offset']}/{last['raw_index']}"


def refused_path(lane: Lane) -> str:
    letter = lane.stack.get("/api/v1/dead-letters", code="bad_json")[0]
    return f"/raw/{letter['raw_partition']}/{letter['raw_offset']}/{letter['raw_index']}"


def pages(lane: Lane) -> list[str]:
    meters = [
        f"/meters/{HISTORY}",
        f"/meters/{HISTORY}?days=31&explain=3",
        f"/meters/{SOLAR}?days=7",
        f"/meters/{SILENT}",
    ]
    return ["/", *meters, raw_path(lane, HISTORY), refused_path(lane)]


def column(browser: Browser, css: str, name: str) -> list[str]:
    return list(
        browser.js("return [...document.querySelectorAll(arguments[0])].map(e => e.dataset[arguments[1]])", css, name)
    )


# -- the control room ------------------------------------------------------------------------------------------------


def test_a_published_reading_moves_the_charge_on_the_open_page_within_seconds(browser: Browser, lane: Lane) -> None:
    lane.send_live(600_000, 1_200_000)
    row = f'#top tr[data-meter="{LIVE}"]'
    browser.wait(lambda: browser.open("/") or browser.all(row), "the meter on the list")
    browser.wait_live()
    before = browser.wait(
        lambda: browser.text(f"{row} [data-money]").startswith("0.") and browser.text(f"{row} [data-money]"), "a charge"
    )
    order = column(browser, "#top tr", "meter")
    began = time.monotonic()
    lane.send_live(90_000_000)
    browser.wait(lambda: browser.text(f"{row} [data-money]") != before, "the new charge", 5)
    assert time.monotonic() - began < 5
    shown = browser.text(f"{row} [data-money]").split()[0]
    assert shown == lane.stack.get(f"/api/v1/meters/{LIVE}")["running_charge"]["amount"]
    assert column(browser, "#top tr", "meter") == order


def test_ages_tick_by_the_servers_clock(browser: Browser, lane: Lane) -> None:
    browser.open("/")
    browser.wait_live()
    age = '#alarms [data-age="database"]'
    seen = {browser.wait(lambda: re.fullmatch(r"\d+ s", browser.text(age)), "an age")[0]}
    browser.wait(lambda: seen.add(browser.text(age)) or len(seen) > 1, "the age to change", 5)
    assert all(int(text.split()[0]) < 10 for text in seen)
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
    browser.wait(lambda: browser.is_shown("#new-alarms"), "the button", 5)
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
    assert "现场查看封印和接线" in shown
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
        browser.wait(lambda: len(column(browser, "#alarm-rows tr", "alarm")) == len(rows) + 1, "the alarm", 8)
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
    browser.wait(lambda: browser.js("return latest.at") > time.time() * 1000 - 1500 and browser.js("return number") < number,
                 "figures of the new process", 30)  # fmt: skip
    assert browser.text("#live") == "Live"
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
        lambda: browser.text("#registers tr td.num") != register and browser.text("#total") != total, "figures", 5
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


# -- every page --------------------------------------------------------------------------------------------------------


def test_no_page_complains_in_any_language_and_theme(browser: Browser, lane: Lane) -> None:
    looks = [("zh", "light"), ("en", "dark")]
    every = [*itertools.product(pages(lane), looks), ("/", ("zh", "dark")), ("/", ("en", "light"))]
    for path, (language, theme) in every:
        browser.open(f"{path}{'&' if '?' in path else '?'}lang={language}&theme={theme}")
        assert browser.js("return document.documentElement.lang") == {"zh": "zh-CN", "en": "en"}[language]
        assert browser.js("return document.documentElement.dataset.theme") == theme
        assert browser.faults() == [], path
    browser.js("document.body.setAttribute('style', 'color: red')")
    browser.forgive("Content Security Policy")  # that is, such a complaint would have been seen


def test_nothing_is_left_in_the_other_language(browser: Browser, lane: Lane) -> None:
    texts = """
        const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
          const e = walk.currentNode.parentElement;
          if (!e.closest("script,noscript,pre,.mono,[lang]:not(html)")) found.push(walk.currentNode.data.trim());
        }
        for (const e of document.querySelectorAll("[title],[aria-label],[placeholder]"))
          for (const name of ["title", "aria-label", "placeholder"]) if (e.getAttribute(name)) found.push(e.getAttribute(name));
        return found.filter(text => text);
    """
    english = {word for name, (zh, word) in _WORDS.items() if word != zh and name not in FAR_WORDS and len(word) > 3}
    for path in pages(lane):
        browser.open(f"{path}{'&' if '?' in path else '?'}lang=en")
        assert [text for text in browser.js(texts) if CJK.search(text)] == [], path
        browser.open(f"{path}{'&' if '?' in path else '?'}lang=zh")
        assert [text for text in browser.js(texts) if text in english] == [], path


def test_a_phone_never_scrolls_sideways(browser: Browser, lane: Lane) -> None:
    small = [*itertools.product(pages(lane), ("zh", "en"), (320,)), ("/", "en", 390), (f"/meters/{HISTORY}", "en", 390)]
    for path, language, width in small:
        browser.size(width, 800)
        browser.open(f"{path}{'&' if '?' in path else '?'}lang={language}")
        wide = browser.js("return document.documentElement.scrollWidth")
        assert wide <= width, (path, language, width, wide)


def test_targets_are_large_enough_and_graphics_have_names(browser: Browser, lane: Lane) -> None:
    small = """
        return [...document.querySelectorAll("a[href],button,summary,input:not([type=checkbox]),label:has(input)")]
          .filter(e => e.checkVisibility() && !e.closest("p,.vh") && !e.classList.contains("skip"))
          .map(e => [e.textContent.trim().slice(0, 30), Math.round(e.getBoundingClientRect().height * 10) / 10])
          .filter(([, height]) => height < 23.9);
    """
    unnamed = """
        return [...document.querySelectorAll("svg:not(svg svg)")].filter(e =>
          !(e.getAttribute("role") === "img" && e.getAttribute("aria-label")) && e.getAttribute("aria-hidden") !== "true").length;
    """
    for width, path in itertools.product((390, 1280), pages(lane)):
        browser.size(width, 900)
        browser.open(path)
        assert browser.js(small) == [], (width, path)
        assert browser.js(unnamed) == 0, path
        headers = browser.js(
            "return [...document.querySelectorAll('thead th')].filter(e => !e.textContent.trim()).length"
        )
        assert headers == 0, path
        assert browser.js("return document.querySelectorAll('h1').length") == 1, path


def test_the_focus_goes_through_everything_in_order_and_is_never_hidden(browser: Browser, lane: Lane) -> None:
    browser.size(1280, 600)
    browser.open(f"/meters/{HISTORY}")
    look = """
        const e = document.activeElement, box = e.getBoundingClientRect();
        const at = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        return [e.tagName, [...document.querySelectorAll("a[href],button,summary,input")].indexOf(e),
          e === at || e.contains(at) || at?.contains(e), getComputedStyle(e).outlineStyle];
    """
    walks: list[list[int]] = [[], []]
    for shift, walk in enumerate(walks):  # backwards, the page scrolls up under the sticky bar
        for _ in range(80):
            browser.press(Keys.TAB, shift=bool(shift))
            tag, place, is_clear, outline = browser.js(look)
            if tag == "BODY" or place in walk:
                break
            assert is_clear, (tag, place)
            assert outline != "none", (tag, place)
            walk.append(place)
    there, back = walks
    assert len(there) > 30
    assert there == sorted(there)
    assert back == sorted(there, reverse=True)


def test_the_theme_follows_the_system_until_a_person_chooses(browser: Browser) -> None:
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    browser.prefer(prefers_color_scheme="dark")
    browser.open("/")
    assert browser.js(ground) == "rgb(20, 23, 26)"
    browser.one("#theme").click()
    assert browser.js(ground) == "rgb(228, 231, 234)"
    browser.driver.refresh()
    assert browser.js(ground) == "rgb(228, 231, 234)"
    browser.prefer(prefers_color_scheme="light")
    browser.one("#theme").click()
    browser.open(f"/meters/{HISTORY}")
    assert browser.js(ground) == "rgb(20, 23, 26)"


def test_the_language_switch_keeps_the_page_and_the_choice(browser: Browser) -> None:
    browser.open(f"/meters/{HISTORY}?days=7&lang=zh")
    assert browser.text("#charge h2").startswith("滚动电费")
    browser.one("#language").click()
    browser.wait(lambda: browser.text("#charge h2").startswith("Running charge"), "English")
    assert "days=7" in browser.driver.current_url
    assert browser.text("nav.sub b") == "week"
    browser.open("/")
    assert browser.js("return document.documentElement.lang") == "en"


def test_single_keys_can_be_switched_off_and_pulsing_stopped(browser: Browser) -> None:
    browser.open("/")
    browser.wait_live()
    animation = "return getComputedStyle(document.querySelector('.blink .f')).animationName"
    assert browser.js(animation) == "bl"
    browser.one("#still").click()
    assert browser.js(animation) == "none"
    browser.one(".keys summary").click()
    browser.one("#keys").click()
    browser.driver.refresh()
    assert browser.js(animation) == "none"
    browser.press("/")
    assert browser.js("return document.activeElement.id") != "q"
    browser.one(".keys summary").click()
    browser.one("#keys").click()
    browser.one("body").send_keys("/")
    assert browser.js("return document.activeElement.id") == "q"
    browser.prefer(prefers_reduced_motion="reduce")
    browser.one("#still").click()
    assert browser.js(animation) == "none"


def test_pages_are_readable_without_a_script(lane: Lane) -> None:
    address = lane.stack.addresses["console"]
    lane.send_live(1_200_000, 1_200_000)
    shown = lane.stack.wait(
        lambda: re.search(r'<span id="load">([\d.,]+)</span>', httpx.get(address, timeout=10).text), 10, "a load"
    )
    assert float(shown[1].replace(",", "")) > 0
    page = httpx.get(address, headers={"Accept-Language": "en"}, timeout=10).text
    figures = dict(re.findall(r'<span id="([a-z0-9-]+)">([^<]*)</span>', page))
    for name in ("load", "fed", "heard", "meters", "readings", "charges", "letters-count", "settled", "active-2"):
        assert figures[name] not in ("", "–"), name
    assert re.search(r"<noscript>.*figures are of \d\d:\d\d:\d\d", page, re.DOTALL)
    assert re.search(r'data-stage="settle".*?data-lag>\d+ s<', page, re.DOTALL)


def test_the_stream_resumes_with_the_newest_state_and_sends_one_a_second(lane: Lane) -> None:
    address = lane.stack.addresses["console"]

    def numbers(start: int, count: int) -> list[int]:
        found: list[int] = []
        with httpx.stream("GET", f"{address}/stream", params={"from": start}, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    found.append(int(line[4:]))
                if len(found) == count:
                    break
        return found

    first = numbers(-1, 1)[0]
    began = now_us()
    assert numbers(first, 3) == [first + 1, first + 2, first + 3]
    assert 1_000_000 < now_us() - began < 6_000_000
