"""Charts as SVG text, drawn by the server: pure functions, no inline styles (the CSP forbids them).

Places are per cent of the plot and text is in pixels: a chart fills its panel at any width, and its words keep their size.
`minor` marks labels that a phone leaves out.
"""

import dataclasses
import datetime as dt
import math
from collections.abc import Sequence
from html import escape

from console.figure import span_text

TICKS = 4
LEAST_RANGE = 1e-9
"""kW or kWh: a smaller range is drawn as none."""
WIDE_PX, PHONE_PX = 1000, 300
"""Least width of a plot on a screen and on a phone: decides which words fit into a band."""
HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatchbg" width="6" height="6"/><line class="hatchline" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
)


@dataclasses.dataclass(frozen=True)
class Bar:
    """An amount over an interval: mean power in kW, or energy in kWh."""

    start: dt.datetime
    end: dt.datetime
    value: float
    quality: str
    """``actual``, ``averaged``, ``suspect`` or ``exported``."""
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of the time-of-use strip."""

    start: dt.datetime
    end: dt.datetime
    place: int
    """0 sharp, 1 peak, 2 flat, 3 valley."""
    label: str


@dataclasses.dataclass(frozen=True)
class Scale:
    """A value axis: round ticks that hold all values, and zero."""

    low: float
    high: float
    step: float

    @property
    def ticks(self) -> list[float]:
        """Return the values that have a line."""
        return [self.low + place * self.step for place in range(round((self.high - self.low) / self.step) + 1)]

    def label(self, value: float) -> str:
        """Return a tick's text, with as many decimals as the step needs."""
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return "0" if abs(value) < self.step / 2 else f"{value:,.{digits}f}"


def scale_of(low: float, high: float) -> Scale:
    """Return an axis for values from low to high; zero is always on it.

    Example:
        >>> scale_of(0, 3.1), scale_of(-2.0, 5.0).ticks, scale_of(0, 0).ticks
        (Scale(low=0.0, high=4.0, step=1.0), [-2.0, 0.0, 2.0, 4.0, 6.0], [0.0, 1.0])
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < LEAST_RANGE:
        return Scale(0.0, 1.0, 1.0)
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999999)
    return Scale(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step)


@dataclasses.dataclass(frozen=True)
class _Frame:
    start: dt.datetime
    end: dt.datetime
    scale: Scale

    def x(self, at: dt.datetime) -> float:
        return 100 * min(max((at - self.start) / (self.end - self.start), 0.0), 1.0)

    def y(self, value: float) -> float:
        kept = min(self.scale.high, max(value, self.scale.low))
        return 100 * (self.scale.high - kept) / (self.scale.high - self.scale.low)

    def rect(self, css: str, x: tuple[float, float], y: tuple[float, float], inside: str = "", more: str = "") -> str:
        return (
            f'<rect class="{css}"{more} x="{x[0]:.3f}%" y="{y[0]:.2f}%" width="{max(x[1] - x[0], 0.02):.3f}%"'
            f' height="{max(y[1] - y[0], 0.15):.2f}%">{inside}</rect>'
        )


def _svg(css: str, sentence: str, parts: Sequence[str]) -> str:
    head = f'<div class="plot {css}"><svg class="chart" role="img" aria-label="{escape(sentence)}">'
    return head + "".join(parts) + "</svg></div>"


def _value_axis(frame: _Frame, unit: str) -> list[str]:
    parts = [f'<text class="unit" x="-8" y="0" dy="-14" text-anchor="end">{escape(unit)}</text>']
    for value in frame.scale.ticks:
        y = frame.y(value)
        css = "axis" if value == 0 else "grid"
        parts.append(f'<line class="{css}" x1="0" x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/>')
        parts.append(f'<text x="-8" y="{y:.2f}%" dy="4" text-anchor="end">{frame.scale.label(value)}</text>')
    return parts


def time_ticks(start: dt.datetime, end: dt.datetime, zone: dt.tzinfo) -> list[tuple[dt.datetime, str, bool]]:
    """Return instants to label between start and end, their text, and whether a phone leaves them out.

    Hours are counted on the clock of the zone, so a day of 23 or 25 hours has its labels where they belong.
    """
    span_h = (end - start).total_seconds() / 3600
    step_h, major_h = (3, 6) if span_h <= 30 else (6, 12) if span_h <= 80 else (24, 24)
    tick = start.astimezone(zone).replace(minute=0, second=0, microsecond=0).astimezone(dt.UTC)
    found = []
    midnights = 0
    while tick <= end:
        local = tick.astimezone(zone)
        if tick >= start and local.hour % step_h == 0 and local.minute == 0:
            midnights += local.hour == 0
            every = 1 if span_h <= 200 else 5
            if step_h < 24 or midnights % every == 0:
                text = f"{local:%m-%d}" if local.hour == 0 else f"{local:%H:%M}"
                minor = local.hour % major_h != 0 if step_h < 24 else midnights % (2 * every) == 0
                found.append((tick, text, minor))
        tick += dt.timedelta(hours=1)
    return found


def _time_axis(frame: _Frame, zone: dt.tzinfo, drop_px: int) -> list[str]:
    return [
        f'<text class="{"minor" if minor else "major"}" x="{frame.x(at):.2f}%" y="100%" dy="{drop_px}"'
        f' text-anchor="middle">{text}</text>'
        for at, text, minor in time_ticks(frame.start, frame.end, zone)
    ]


def missing_spans(
    spans: Sequence[tuple[dt.datetime, dt.datetime]], start: dt.datetime, end: dt.datetime, least: dt.timedelta
) -> list[tuple[dt.datetime, dt.datetime]]:
    """Return where no span covers the time between start and end, leaving out what is shorter than `least`.

    Args:
        spans: Half-open, sorted by start.
        start: Left edge.
        end: Right edge.
        least: Shortest gap to tell.
    """
    gaps = []
    edge = start
    for low, high in [*spans, (end, end)]:
        if low - edge >= least:
            gaps.append((edge, min(low, end)))
        edge = max(edge, high)
    return gaps


def _missing_bands(frame: _Frame, gaps: Sequence[tuple[dt.datetime, dt.datetime]], word: str) -> list[str]:
    parts = []
    for low, high in gaps:
        x1, x2 = frame.x(low), frame.x(high)
        title = f"<title>{escape(word)} {span_text((high - low).total_seconds())}</title>"
        parts.append(frame.rect("q-m", (x1, x2), (0, 100), title))
        parts += _word("q-mt", (x1, x2), 'y="0" dy="16"', word)
    return parts


def _word(css: str, x: tuple[float, float], place: str, text: str) -> list[str]:
    """Return a word in the middle of a band where it fits."""
    share, width_px = (x[1] - x[0]) / 100, 6 + sum(12 if ord(sign) > 0x2E80 else 7 for sign in text)
    if share * WIDE_PX < width_px:
        return []
    minor = "" if share * PHONE_PX >= width_px else " minor"
    return [
        f'<text class="{css}{minor}" x="{(x[0] + x[1]) / 2:.2f}%" {place} text-anchor="middle">{escape(text)}</text>'
    ]


def load_chart(
    used: Sequence[tuple[dt.datetime, float]],
    fed: Sequence[tuple[dt.datetime, float]],
    start: dt.datetime,
    end: dt.datetime,
    *,
    step: dt.timedelta,
    zone: dt.tzinfo,
    sentence: str,
    words: tuple[str, str, str],
    bands: Sequence[tuple[dt.datetime, dt.datetime, str]] = (),
) -> str:
    """Return total load as a step line; where a step has no data there is a gap with a band and the word.

    Args:
        used: Start of each step and its mean power, kW, ascending.
        fed: The same of what is fed in; drawn only if there is any.
        start: Left edge.
        end: Right edge, the last value's end.
        step: Length of a step.
        zone: Of the labels.
        sentence: What the picture shows, for those who cannot see it.
        words: For missing, for total load and for fed in.
        bands: Start, end and text of stretches that are partly estimated.
    """
    missing, load_word, fed_word = words
    has_fed = any(value > 0 for _, value in fed)
    scale = scale_of(0.0, max((value for _, value in [*used, *(fed if has_fed else [])]), default=0.0))
    frame = _Frame(start, end, scale)
    gaps = missing_spans([(at, at + step) for at, _ in used], start, end, step / 2)
    parts = [HATCH] if bands else []
    for low, high, text in bands:
        x = frame.x(low), frame.x(high)
        parts.append(frame.rect("band-e", x, (0, 100), f"<title>{escape(text)}</title>", ' fill="url(#hatch)"'))
        place, anchor = (x[0] - 0.5, "end") if x[1] > 60 else (x[1] + 0.5, "start")
        parts.append(f'<text class="minor" x="{place:.2f}%" y="0" dy="12" text-anchor="{anchor}">{escape(text)}</text>')
    parts += _missing_bands(frame, gaps, missing) + _value_axis(frame, "kW") + _time_axis(frame, zone, 18)
    if has_fed:
        parts.append(_step_line(frame, "wk", fed, step))
        at, value = max(fed, key=lambda point: point[1])
        parts.append(
            f'<text class="minor" x="{frame.x(at):.2f}%" y="{frame.y(value):.2f}%" dy="-5"'
            f' text-anchor="{"end" if frame.x(at) > 80 else "start"}">{escape(fed_word)}</text>'
        )
    if used:
        parts.append(_step_line(frame, "main", used, step))
        at, value = used[-1]
        if at + step >= end:
            text = f"{load_word} {value:,.1f} kW"
            parts.append(
                f'<text class="strong" x="100%" y="{frame.y(value):.2f}%" dy="-9" text-anchor="end">{escape(text)}</text>'
            )
    return _svg("", sentence, parts)


def _step_line(frame: _Frame, css: str, points: Sequence[tuple[dt.datetime, float]], step: dt.timedelta) -> str:
    """Return a path in a stretched box of its own: a path knows no per cent."""
    path: list[str] = []
    before = None
    for at, value in points:
        y = frame.y(value) * 10
        joined = before is not None and at - before <= step
        path.append(f"{'L' if joined else 'M'}{frame.x(at) * 10:.1f} {y:.1f}H{frame.x(at + step) * 10:.1f}")
        before = at
    return (
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" overflow="visible">'
        f'<path class="{css}" vector-effect="non-scaling-stroke" d="{"".join(path)}"/></svg>'
    )


def meter_chart(
    bars: Sequence[Bar],
    strip: Sequence[Span],
    start: dt.datetime,
    end: dt.datetime,
    *,
    zone: dt.tzinfo,
    unit: str,
    sentence: str,
    missing: str,
    least_gap: dt.timedelta,
) -> str:
    """Return a meter's intervals or days as bars with quality marks, and the time-of-use strip under them.

    Args:
        bars: Sorted by start; what is fed in has bars of its own, below zero.
        strip: Periods of the tariff; empty: no strip.
        start: Left edge.
        end: Right edge.
        zone: Of the labels.
        unit: kW or kWh.
        sentence: What the picture shows, for those who cannot see it.
        missing: The word for missing.
        least_gap: Shortest time without a bar that is shown as missing.
    """
    values = [bar.value for bar in bars]
    frame = _Frame(start, end, scale_of(min(values, default=0.0), max(values, default=0.0)))
    covered = [(bar.start, bar.end) for bar in bars if bar.quality != "exported"]
    parts = [HATCH] if any(bar.quality == "averaged" for bar in bars) else []
    parts += _missing_bands(frame, missing_spans(covered, start, end, least_gap), missing)
    parts += _value_axis(frame, unit) + _time_axis(frame, zone, 34 if strip else 18)
    parts += [_bar(frame, bar) for bar in bars]
    for span in strip:
        x = frame.x(span.start), frame.x(span.end)
        parts.append(
            f'<rect class="t{span.place}" x="{x[0]:.3f}%" y="100%" width="{x[1] - x[0]:.3f}%" height="14"'
            f' transform="translate(0 4)"><title>{escape(span.label)}</title></rect>'
        )
        parts += _word("tl", x, 'y="100%" dy="15"', span.label)
    return _svg("strip" if strip else "", sentence, parts)


def _bar(frame: _Frame, bar: Bar) -> str:
    css = {"averaged": "q-e", "suspect": "q-s", "exported": "q-x"}.get(bar.quality, "q-a")
    fill = ' fill="url(#hatch)"' if css == "q-e" else ""
    low, high = sorted((frame.y(0.0), frame.y(bar.value)))
    title = f"<title>{escape(bar.title)}</title>"
    return frame.rect(css, (frame.x(bar.start), frame.x(bar.end)), (low, high), title, fill)
