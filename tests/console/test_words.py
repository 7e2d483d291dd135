"""Every word that a page can need is there in both languages."""

import re
import string
from pathlib import Path

import pytest

from console.code_words import EVENTS, REJECT_ACTIONS_ZH, REJECTS
from console.words import _WORDS, LANGUAGES, Words, words_of
from metering.alarm.catalogue import KINDS
from metering.alarm.life_cycle import State
from metering.detect.events import CLEARING, RAISING
from schemas.quality import Quality
from schemas.reject import RejectCode
from storage.query import STAGES

CONSOLE = Path(__file__).parent.parent.parent / "console"
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))
SOURCES = sorted(CONSOLE.glob("*.py"))
METHODS = {name for name in dir(Words) if not name.startswith("_")} - {"get"}
PERIODS = (
    "flat",
    "peak",
    "sharp",
    "valley",
    "deep_valley",
    "summer",
    "winter",
    "all_year",
    "workday",
    "weekend",
    "holiday",
)
ALARM_STATES = tuple(State)


def words_used() -> set[str]:
    """Return the words that templates and code name."""
    used: set[str] = set()
    for path in [*TEMPLATES, *SOURCES]:
        text = path.read_text("utf-8")
        used |= set(re.findall(r"\bw(?:ords)?\.([a-z][a-z_0-9]*)\b(?!\()", text))
        used |= set(re.findall(r"\bw(?:ords)?\.say\(\s*['\"]([a-z_0-9]+)['\"]", text))
        used |= set(re.findall(r"\bself\.say\(\s*['\"]([a-z_0-9]+)['\"]", text))
    return used - METHODS


def test_every_word_that_is_used_is_there() -> None:
    assert len(words_used()) > 100
    assert words_used() - set(_WORDS) == set()


def test_no_word_is_kept_that_nothing_uses() -> None:
    dynamic = {*PERIODS, *ALARM_STATES, *STAGES, *(word for flag in Quality for word in flag.words), "actual"}
    others = [
        path for path in SOURCES if path.name not in ("words.py", "code_words.py", "billing_words.py", "alarm_words.py")
    ]
    quoted = set(re.findall(r'"([a-z_0-9]+)"', "".join(path.read_text("utf-8") for path in others)))
    browser = set(re.findall(r"words\.([a-z_]+)", (CONSOLE / "static" / "live.js").read_text("utf-8")))
    patterns = ("kind_", "means_", "priority_", "letter_", "state_", "bill_kind_", "action_", "hold_", "change_")
    patterns += ("case_state_", "line_", "basis_", "last_", "no_account", "no_bill")
    left = {word for word in _WORDS if not word.startswith(patterns)} - words_used() - dynamic - quoted - browser
    assert left == set()


@pytest.mark.parametrize("table", [_WORDS, REJECTS, EVENTS], ids=["words", "rejects", "events"])
def test_both_languages_say_the_same_values(table: dict[object, tuple[str, str]]) -> None:
    for name, (chinese, english) in table.items():
        assert chinese.strip() or name == "comma", name
        assert english.strip(), name
        fields = [
            sorted(field for _, field, _, _ in string.Formatter().parse(text) if field) for text in (chinese, english)
        ]
        assert fields[0] == fields[1], name
        assert not re.search(r"[\u4e00-\u9fff]", english), name


def test_chinese_is_chinese_except_for_what_has_no_other_name() -> None:
    same = {name for name, (chinese, _) in _WORDS.items() if not re.search(r"[\u3000-\u9fff\uff00-\uffef]", chinese)}
    assert same == {"csv"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_codes_have_words(language: str) -> None:
    words = words_of(language)
    for code in RejectCode:
        assert words.reject(code.word) != code.word, code
        assert words.reject_action(code.word), code
    for event in (event for table in (RAISING, CLEARING) for codes in table.values() for event in codes):
        assert event in EVENTS or words.event(event) != event
        assert words.event(event.upper().replace("_", "-")) == words.event(event)
    for kind in KINDS:
        assert words.kind(kind) != kind
        assert words.means(kind)
    for name in (*ALARM_STATES, *STAGES, *(word for flag in Quality for word in flag.words)):
        assert words[name]
    assert words.quality(int(Quality.LATE | Quality.LONG)).count(words["late"]) == 1


def test_reject_actions_are_complete() -> None:
    assert set(REJECT_ACTIONS_ZH) == set(REJECTS) == set(RejectCode)


def test_no_word_hides_behind_a_method() -> None:
    assert {name for name in _WORDS if hasattr(dict, name) or name in METHODS} == set()


def test_details_that_the_agent_writes_are_said_in_chinese_and_others_are_kept() -> None:
    words = words_of("zh")
    assert words.detail("no reading for more than 180 s, 3 intervals") == "超过 180 秒（3 个周期）没有读数"
    assert words.detail("event cover_open: terminal cover") == "开盖: terminal cover"
    assert words.detail("event x-vendor-7") == "x-vendor-7"
    assert words.detail("something else {0}") == "something else {0}"
    assert words.detail("event cover_open: {braces} stay") == "开盖: {braces} stay"


def test_labels_of_charge_lines() -> None:
    assert words_of("zh").label("summer peak") == "夏季 峰"
    assert words_of("zh").label("tier 2") == "第 2 档加价"
    assert words_of("en").label("fixed") == "fixed charge"
    assert words_of("en").label("a period of their own") == "a period of their own"


def test_templates_have_no_inline_style_script_or_handler() -> None:
    for path in TEMPLATES:
        text = path.read_text("utf-8")
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?![^>]*\ssrc=)", text), path.name
