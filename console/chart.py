"""Charts as SVG text, drawn by the server: pure functions, no inline styles (the CSP forbids them)."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from html import escape

LEFT, TOP, BOTTOM = 46, 14, 26
STRIP = 14


@dataclasses.dataclass(frozen=True)
class Bar:
    """Mean power over an interval."""

    start: dt.datetime
    end: dt.datetime
    watts: float
    quality: str
    """``actual``, ``estimated`` or ``suspect``."""
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of the time-of-use strip."""

    start: dt.datetime
    end: dt.datetime
    place: int
    """0 sharp, 1 peak, 2 flat, 3 valley."""
    label: str


def nice_ceiling(value: float) -> float:
    """Return a round number at or above a value.

    Example:
        >>> nice_ceiling(3.1), nice_ceiling(0.0), nice_ceiling(64)
        (4.0, 1.0, 80.0)
    """
    if value <= 0:
        return 1.0
    step = 1.0
    while step * 10 < value:
        step *= 10
    while step > value:
        step /= 10
    for factor in (1, 2, 4, 5, 8, 10):
        if value <= factor * step:
            return factor * step
    return 10 * step


@dataclasses.dataclass(frozen=True)
class _Frame:
    width: int
    height: int
    start: dt.datetime
    end: dt.datetime
    top: float
    """Value at the upper edge."""
    strip: int = 0

    @property
    def base(self) -> int:
        return self.height - BOTTOM - self.strip

    def x(self, at: dt.datetime) -> float:
        share = (at - self.start) / (self.end - self.start)
        return LEFT + (self.width - LEFT - 8) * min(max(share, 0.0), 1.0)

    def y(self, value: float) -> float:
        low = min(self.top, max(value, 0.0))
        return TOP + (self.base - TOP) * (1 - low / self.top)


def _axes(frame: _Frame, unit: str, zone: dt.tzinfo, hours: int) -> list[str]:
    parts = [f'<text x="4" y="{TOP - 2}">{escape(unit)}</text>']
    for part in range(5):
        value = frame.top * part / 4
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{frame.width - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    tick = frame.start.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    while tick <= frame.end:
        if tick >= frame.start and tick.hour % hours == 0:
            text = f"{tick:%m-%d}" if tick.hour == 0 else f"{tick:%H:%M}"
            parts.append(f'<text x="{frame.x(tick):.1f}" y="{frame.height - 8}" text-anchor="middle">{text}</text>')
        tick += dt.timedelta(hours=1)
    return parts


def _svg(width: int, height: int, sentence: str, parts: Sequence[str]) -> str:
    head = f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(sentence)}">'
    return head + "".join(parts) + "</svg>"


def load_chart(
    points: Sequence[tuple[dt.datetime, float]],
    start: dt.datetime,
    end: dt.datetime,
    *,
    step: dt.timedelta,
    unit: str,
    zone: dt.tzinfo,
    sentence: str,
    missing: str,
    width: int = 940,
    height: int = 280,
) -> str:
    """Return total load as a step line; where a step has no data there is a gap with a band and the word.

    Args:
        points: Start of each step and its mean power, in `unit`, ascending.
        start: Left edge.
        end: Right edge, now.
        step: Length of a step.
        unit: Of the power.
        zone: Of the labels.
        sentence: What the picture shows, for those who cannot see it.
        missing: The word for missing.
        width: Of the view box.
        height: Of the view box.
    """
    frame = _Frame(width, height, start, end, nice_ceiling(max((value for _, value in points), default=0.0)))
    parts = _missing_bands(frame, [(at, at + step) for at, _ in points], missing)
    parts += _axes(frame, unit, zone, 3)
    path, before = [], None
    for at, value in points:
        y = frame.y(value)
        move = "L" if before is not None and at - before <= step else "M"
        path.append(f"{move}{frame.x(at):.1f} {y:.1f}L{frame.x(at + step):.1f} {y:.1f}")
        before = at
    if path:
        parts.append(f'<path class="main" d="{"".join(path)}"/>')
    return _svg(width, height, sentence, parts)


def _missing_bands(frame: _Frame, spans: Sequence[tuple[dt.datetime, dt.datetime]], word: str) -> list[str]:
    """Return bands where no span covers the time, each with the word when it fits."""
    parts = []
    edge = frame.start
    for start, end in [*spans, (frame.end, frame.end)]:
        if (start - edge).total_seconds() > 60 and spans:
            x1, x2 = frame.x(edge), frame.x(start)
            height = frame.base - TOP
            parts.append(f'<rect class="q-m" x="{x1:.1f}" y="{TOP}" width="{x2 - x1:.1f}" height="{height}"/>')
            if x2 - x1 > 40:
                middle = (x1 + x2) / 2
                parts.append(
                    f'<text class="q-mt" x="{middle:.1f}" y="{TOP + 14}" text-anchor="middle">{escape(word)}</text>'
                )
        edge = max(edge, end)
    return parts


def meter_chart(
    bars: Sequence[Bar],
    strip: Sequence[Span],
    start: dt.datetime,
    end: dt.datetime,
    *,
    zone: dt.tzinfo,
    sentence: str,
    missing: str,
    hours: int = 6,
    width: int = 1240,
    height: int = 300,
) -> str:
    """Return a meter's intervals as bars of mean kW, with quality marks and the time-of-use strip."""
    top = nice_ceiling(max((bar.watts / 1000 for bar in bars), default=0.0))
    frame = _Frame(width, height, start, end, top, STRIP + 4)
    parts = [
        (
            '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            '<rect class="hatchbg" width="6" height="6"/><line class="hatchline" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
        )
    ]
    parts += _missing_bands(frame, [(bar.start, bar.end) for bar in bars], missing)
    parts += _axes(frame, "kW", zone, hours)
    for bar in bars:
        x1, x2 = frame.x(bar.start), frame.x(bar.end)
        y = frame.y(bar.watts / 1000)
        mark = {"estimated": "q-e", "suspect": "q-s"}.get(bar.quality, "q-a")
        fill = ' fill="url(#hatch)"' if mark == "q-e" else ""
        parts.append(
            f'<rect class="{mark}"{fill} x="{x1:.1f}" y="{y:.1f}" width="{max(x2 - x1 - 0.4, 0.5):.1f}"'
            f' height="{max(frame.base - y, 0.5):.1f}"><title>{escape(bar.title)}</title></rect>'
        )
    for span in strip:
        x1, x2 = frame.x(span.start), frame.x(span.end)
        parts.append(
            f'<rect class="t{span.place}" x="{x1:.1f}" y="{frame.base + 4}" width="{x2 - x1:.1f}" height="{STRIP}"/>'
        )
        if x2 - x1 > 24:
            middle = (x1 + x2) / 2
            parts.append(
                f'<text class="tl" x="{middle:.1f}" y="{frame.base + 15}" text-anchor="middle">{escape(span.label)}</text>'
            )
    return _svg(width, height, sentence, parts)
