"""Charts: what is missing is drawn as missing, what is negative below zero, and nothing breaks out of its text."""

import datetime as dt
import re
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from console.chart import Bar, Span, load_chart, meter_chart, missing_spans, scale_of, time_ticks

QUARTER = dt.timedelta(minutes=15)
START = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
END = START + dt.timedelta(days=1)
SHANGHAI = ZoneInfo("Asia/Shanghai")
HOSTILE = "<script>alert('x')</script>\"&"


def load(used: list[tuple[dt.datetime, float]], **more: object) -> str:
    values: dict[str, object] = {
        "step": QUARTER,
        "zone": SHANGHAI,
        "sentence": "load",
        "words": ("missing", "load", "fed"),
    }
    return load_chart(used, [], START, END, **(values | more))  # type: ignore[arg-type]


def meter(bars: list[Bar], strip: list[Span] = [], **more: object) -> str:  # noqa: B006
    values: dict[str, object] = {
        "zone": SHANGHAI,
        "unit": "kW",
        "sentence": "m",
        "missing": "missing",
        "least_gap": QUARTER,
    }
    return meter_chart(bars, strip, START, END, **(values | more))  # type: ignore[arg-type]


def rects(svg: str, css: str) -> list[ElementTree.Element]:
    return [item for item in ElementTree.fromstring(svg).iter("rect") if item.get("class") == css]


def share(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "").removesuffix("%"))


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_an_axis_holds_its_values_and_zero_between_few_round_ticks(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    scale = scale_of(low, high)
    slack = scale.step * 1e-6
    assert scale.low - slack <= min(low, 0.0)
    assert max(high, 0.0) <= scale.high + slack
    assert 2 <= len(scale.ticks) <= 8
    assert any(abs(tick) < slack for tick in scale.ticks)


def test_ticks_say_as_many_decimals_as_their_step_needs() -> None:
    assert [scale_of(0, 0.7).label(tick) for tick in scale_of(0, 0.7).ticks] == ["0", "0.2", "0.4", "0.6", "0.8"]
    assert [scale_of(-900, 3000).label(tick) for tick in scale_of(-900, 3000).ticks] == [
        "-1,000", "0", "1,000", "2,000", "3,000",
    ]  # fmt: skip


def test_a_day_without_a_value_is_a_band_with_the_word_and_no_line() -> None:
    svg = load([])
    assert len(rects(svg, "q-m")) == 1
    assert "missing" in svg
    assert "<path" not in svg


def test_a_gap_breaks_the_line_and_is_as_wide_as_what_is_missing() -> None:
    before = [(START + QUARTER * place, 5.0) for place in range(40)]
    after = [(START + QUARTER * place, 7.0) for place in range(56, 96)]
    svg = load(before + after)
    (band,) = rects(svg, "q-m")
    assert abs(share(band, "x") - 100 * 40 / 96) < 0.01
    assert abs(share(band, "width") - 100 * 16 / 96) < 0.01
    path = re.search(r' d="([^"]+)"', svg)
    assert path is not None
    assert path[1].count("M") == 2


def test_full_data_has_no_missing_band() -> None:
    assert not rects(load([(START + QUARTER * place, 5.0) for place in range(96)]), "q-m")


@given(st.lists(st.tuples(st.integers(0, 1440), st.integers(1, 200)), max_size=12))
def test_spans_and_gaps_cover_the_day_exactly(pairs: list[tuple[int, int]]) -> None:
    minute = dt.timedelta(minutes=1)
    spans = sorted((START + minute * low, START + minute * (low + length)) for low, length in pairs)
    covered = {at for low, length in pairs for at in range(low, min(low + length, 1440))}
    gaps = missing_spans(spans, START, END, minute)
    empty = {at for low, high in gaps for at in range((low - START) // minute, (high - START) // minute)}
    assert empty == set(range(1440)) - covered


def test_what_is_fed_in_hangs_below_zero() -> None:
    hour = dt.timedelta(hours=1)
    svg = meter([Bar(START, START + hour, 2.0, "actual"), Bar(START, START + hour, -3.0, "exported")])
    (used,), (fed,) = rects(svg, "q-a"), rects(svg, "q-x")
    zero = share(used, "y") + share(used, "height")
    assert abs(share(fed, "y") - zero) < 0.01
    assert abs(share(fed, "height") - 1.5 * share(used, "height")) < 0.01


def test_each_quality_has_its_own_form_not_only_a_colour() -> None:
    hour = dt.timedelta(hours=1)
    kinds = ("actual", "averaged", "suspect")
    svg = meter([Bar(START + hour * place, START + hour * (place + 1), 1.0, kind) for place, kind in enumerate(kinds)])
    assert len(rects(svg, "q-a")) == len(rects(svg, "q-s")) == 1
    (averaged,) = rects(svg, "q-e")
    assert averaged.get("fill") == "url(#hatch)"
    assert 'id="hatch"' in svg


def test_hostile_words_stay_text() -> None:
    hour = dt.timedelta(hours=1)
    strip = [Span(START, END, 1, HOSTILE)]
    svg = meter(
        [Bar(START, START + hour, 1.0, "actual", HOSTILE)], strip, sentence=HOSTILE, missing=HOSTILE, unit=HOSTILE
    )
    tree = ElementTree.fromstring(svg)
    assert not [item for item in tree.iter() if item.tag == "script"]
    assert HOSTILE in [item.text for item in tree.iter("title")]


def test_charts_have_a_name_and_no_inline_style() -> None:
    for svg in (load([(START, 1.0)]), meter([Bar(START, END, 1.0, "actual")])):
        (chart,) = [item for item in ElementTree.fromstring(svg).iter("svg") if item.get("role") == "img"]
        assert chart.get("aria-label")
        assert "style=" not in svg


def test_labels_follow_the_clock_over_a_day_of_23_and_one_of_25_hours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for day, hours in ((dt.date(2026, 3, 29), 23), (dt.date(2026, 10, 25), 25)):
        start = dt.datetime.combine(day, dt.time(), berlin).astimezone(dt.UTC)
        end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), berlin).astimezone(dt.UTC)
        ticks = time_ticks(start, end, berlin)
        assert (end - start).total_seconds() == hours * 3600
        assert [text for _, text, _ in ticks] == [
            f"{day:%m-%d}", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00",
            f"{day + dt.timedelta(days=1):%m-%d}",
        ]  # fmt: skip
        assert all(f"{at.astimezone(berlin):%H:%M}" == text for at, text, _ in ticks if ":" in text)


def test_a_phone_gets_at_most_six_labels() -> None:
    for days in (1, 2, 7, 31):
        ticks = time_ticks(END - dt.timedelta(days=days), END, SHANGHAI)
        assert 2 <= sum(not minor for *_, minor in ticks) <= 6, days
