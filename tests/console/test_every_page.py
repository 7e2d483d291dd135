"""Every page in a real Chromium: nothing to complain of, both languages, any width, by keyboard, without a script."""

import itertools
import re

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from console.words import _WORDS
from monitoring.clock import now_us
from tests.console.browser import Browser
from tests.console.lane import ACCOUNT, HISTORY, SILENT, SOLAR, Lane

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
    ((bill_id,),) = lane.stack.sql("select min(bill_id) from bill")
    bills = ["/bills", f"/bills/{bill_id}", f"/accounts/{ACCOUNT}"]
    ((alarm_id,),) = lane.stack.sql("select min(alarm_id) from alarm")
    alarms = ["/alarms", f"/alarms/{alarm_id}", "/alarms/kinds", "/alarms/performance", "/cases"]
    return ["/", *meters, *bills, *alarms, raw_path(lane, HISTORY), refused_path(lane)]


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
    browser.wait(lambda: browser.driver.get_cookie("theme"), "the cookie")
    browser.driver.refresh()
    assert browser.js(ground) == "rgb(228, 231, 234)"
    browser.prefer(prefers_color_scheme="light")
    browser.one("#theme").click()
    browser.wait(lambda: (browser.driver.get_cookie("theme") or {}).get("value") == "dark", "the cookie")
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
    browser.wait(lambda: browser.driver.get_cookie("still") and browser.driver.get_cookie("keys"), "the cookies")
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
