"""Colours of the sheet: enough contrast on every ground (WCAG), and one list of dark tokens, not two that drift apart."""

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parent.parent.parent / "console" / "static"
GROUNDS = ("bg", "panel", "head", "sel")
TEXTS = ("ink", "ink2", "ink3", "accent", "ok", "warn", "bad")
MARKS = ("edge", "p1", "p2", "p3e", "p4", "actual", "est", "sus")
DIGITS = tuple((f"onp{priority}", f"p{priority}") for priority in (1, 2, 3, 4))


def tokens(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z0-9]+):(#[0-9A-F]{6})", block))


def block_after(text: str, selector: str) -> str:
    start = text.index(selector)
    return text[start : text.index("}", start)]


APP, PAGE = ((STATIC / name).read_text("utf-8") for name in ("app.css", "page.css"))
LIGHT = tokens(block_after(APP, ":root{"))
DARK = tokens(block_after(APP, ":root[data-theme=dark]{"))


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable_on_every_ground(theme: dict[str, str]) -> None:
    assert {(text, ground): round(contrast(theme[text], theme[ground]), 2) for text in TEXTS for ground in GROUNDS
            if contrast(theme[text], theme[ground]) < 4.5} == {}  # fmt: skip
    assert contrast(theme["onaccent"], theme["accent"]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_marks_stand_out_on_every_ground(theme: dict[str, str]) -> None:
    assert {(mark, ground) for mark in MARKS for ground in GROUNDS if contrast(theme[mark], theme[ground]) < 3} == set()
    assert all(contrast(theme[digit], theme[fill]) >= 4.5 for digit, fill in DIGITS)


def test_a_system_that_is_dark_gets_the_same_dark() -> None:
    assert len(DARK) > 25
    assert tokens(block_after(PAGE, ":root:not([data-theme]){")) == DARK
    assert set(DARK) == set(LIGHT)
