"""The pictures of a bill as SVG: daily use, and the week of a tariff. The same picture goes into the page and the PDF.

Coordinates are tenths of a pixel and integers, so that the same bill makes the same bytes everywhere.
"""

import datetime as dt
import itertools
from collections.abc import Sequence
from html import escape

from connectors.paper.words import Speech
from metering.tariff import TariffVersion
from metering.week import SLOT_MIN, week_grid
from schemas.bill import DayUse

FONT = "Noto Sans SC, Noto Sans CJK SC, PingFang SC, Microsoft YaHei, sans-serif"
INK, SOFT, GRID, USE, FED, GAP = "#1b2a33", "#5d6b75", "#d9dfe3", "#1f6f8b", "#8a6d1f", "#eceff1"
PERIOD_COLOURS = {
    "sharp": "#163a5f",
    "super peak": "#163a5f",
    "critical peak": "#163a5f",
    "peak": "#2f6c9e",
    "mid peak": "#7fb0d1",
    "half peak": "#7fb0d1",
    "shoulder": "#7fb0d1",
    "flat": "#a9cbe2",
    "day": "#a9cbe2",
    "off peak": "#dbe9f3",
    "valley": "#dbe9f3",
    "night": "#dbe9f3",
    "deep valley": "#f1f4ee",
    "deep": "#f1f4ee",
}
OTHER_COLOURS = ("#2f6c9e", "#dbe9f3", "#c9b98a", "#7fb0d1", "#163a5f", "#b7c4b1", "#8f7fa8", "#e8e2d0")
"""Neither red nor green: red is alarm."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 6800, 1560, 480, 80, 230
DAYS_MAX = 400


def _open(width: int, height: int, name: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width // 10}"'
        f' height="{height // 10}" font-family="{FONT}" font-size="105" role="img" aria-label="{escape(name)}">'
        f"<title>{escape(name)}</title>"
    )


def nice_top(most_wh: int) -> int:
    """Return a round value, Wh, at or above the highest bar: 1, 2, 2.5 or 5 times a power of ten, times four.

    Example:
        >>> nice_top(9_300), nice_top(0)
        (10000, 4)
    """
    step = 1
    while True:
        for quarters in (step, 2 * step, 5 * step // 2 if step % 2 == 0 else 5 * step, 5 * step):
            if quarters * 4 >= most_wh:
                return quarters * 4
        step *= 10


def daily_chart(days: Sequence[DayUse], start_on: dt.date, end_on: dt.date, speech: Speech) -> str:
    """Return bars of daily use; the estimated part is hatched, a day without readings is a gap, never zero."""
    by_day = {day.day: day for day in days}
    count = min((end_on - start_on).days, DAYS_MAX)
    use_top = nice_top(max((day.energy_wh for day in days), default=0))
    fed_most = max((day.export_wh for day in days), default=0)
    fed_top = nice_top(fed_most) if fed_most else 0
    plot = HEIGHT - TOP - BOTTOM
    zero = TOP + plot * use_top // (use_top + fed_top)
    most = max((day.energy_wh for day in days), default=0)
    last = end_on - dt.timedelta(days=1)
    name = speech.word("chart_name", start=speech.day(start_on), end=speech.day(last), most=speech.energy(most))
    parts = [
        _open(WIDTH, HEIGHT, name),
        (
            '<defs><pattern id="estimated" width="60" height="60" patternUnits="userSpaceOnUse">'
            f'<rect width="60" height="60" fill="#fff"/><path d="M-15 15L15 -15M0 60L60 0M45 75L75 45" stroke="{USE}"'
            ' stroke-width="16"/></pattern><pattern id="missing" width="50" height="50" patternUnits="userSpaceOnUse">'
            f'<rect width="50" height="50" fill="{GAP}"/><circle cx="25" cy="25" r="8" fill="#9aa5ad"/></pattern></defs>'
        ),
    ]
    parts += _axis(zero, plot, use_top, fed_top)
    for place in range(count):
        day = start_on + dt.timedelta(days=place)
        low = LEFT + (WIDTH - LEFT) * place // count
        wide = max(LEFT + (WIDTH - LEFT) * (place + 1) // count - low - max(1200 // count, 4), 6)
        parts.append(_bar(by_day.get(day), (low, wide, zero, plot), use_top + fed_top, speech, day))
    parts.append(f'<path d="M{LEFT} {zero}H{WIDTH}" stroke="{INK}" stroke-width="10"/>')
    parts += _day_labels(start_on, count, speech)
    return "".join(parts) + "</svg>"


def _axis(zero: int, plot: int, use_top: int, fed_top: int) -> list[str]:
    parts = []
    for level in range(0, use_top + 1, use_top // 4):
        y = zero - plot * level // (use_top + fed_top)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH}" stroke="{GRID}" stroke-width="6"/>')
        parts.append(f'<text x="{LEFT - 60}" y="{y + 36}" text-anchor="end" fill="{SOFT}">{_kwh(level)}</text>')
    if fed_top:
        y = zero + plot * fed_top // (use_top + fed_top)
        parts.append(f'<text x="{LEFT - 60}" y="{y + 36}" text-anchor="end" fill="{SOFT}">{_kwh(fed_top)}</text>')
    return parts


def _kwh(energy_wh: int) -> str:
    whole, rest = divmod(energy_wh, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")


def _bar(day: DayUse | None, box: tuple[int, int, int, int], span_wh: int, speech: Speech, at: dt.date) -> str:
    low, wide, zero, plot = box
    if day is None:
        name = f"{speech.day(at)}: {speech.word('legend_missing')}"
        return (
            f'<rect x="{low}" y="{TOP}" width="{wide}" height="{plot}" fill="url(#missing)">'
            f"<title>{name}</title></rect>"
        )
    name = f"{speech.day(at)}: {speech.energy(day.energy_wh)}"
    high = plot * max(day.energy_wh, 0) // span_wh
    hatched = plot * min(max(day.estimated_wh, 0), max(day.energy_wh, 0)) // span_wh
    found = f'<g><title>{escape(name)}</title><rect x="{low}" y="{zero - high}" width="{wide}" height="{high}" fill="{USE}"/>'
    if hatched:
        found += (
            f'<rect x="{low + 4}" y="{zero - high}" width="{max(wide - 8, 4)}" height="{hatched}" fill="url(#estimated)"'
            f' stroke="{USE}" stroke-width="8"/>'
        )
    if day.export_wh > 0:
        found += f'<rect x="{low}" y="{zero}" width="{wide}" height="{plot * day.export_wh // span_wh}" fill="{FED}"/>'
    return found + "</g>"


def _day_labels(start_on: dt.date, count: int, speech: Speech) -> list[str]:
    step = next(step for step in (1, 2, 5, 7, 14, 31, 62) if count <= step * 12 or step == 62)
    parts = []
    for place in range(0, count, step):
        day = start_on + dt.timedelta(days=place)
        x = LEFT + (WIDTH - LEFT) * (2 * place + 1) // (2 * count)
        text = f"{day.month:02d}-{day.day:02d}" if speech.is_chinese else speech.day(day).rsplit(" ", 1)[0]
        anchor = ' text-anchor="middle"'
        if x > WIDTH - 250:
            x, anchor = WIDTH, ' text-anchor="end"'
        parts.append(f'<text x="{x}" y="{HEIGHT - 80}"{anchor} fill="{SOFT}">{text}</text>')
    return parts


def swatch(kind: str) -> str:
    """Return a small square as the legend has it: ``use``, ``estimated``, ``missing`` or ``fed``."""
    inner = {
        "use": f'<rect width="120" height="120" fill="{USE}"/>',
        "fed": f'<rect width="120" height="120" fill="{FED}"/>',
        "estimated": (
            f'<rect x="6" y="6" width="108" height="108" fill="#fff" stroke="{USE}" stroke-width="12"/>'
            f'<path d="M6 70L70 6M20 114L114 20" stroke="{USE}" stroke-width="16"/>'
        ),
        "missing": (
            f'<rect width="120" height="120" fill="{GAP}"/>'
            '<g fill="#9aa5ad"><circle cx="35" cy="35" r="11"/><circle cx="85" cy="35" r="11"/>'
            '<circle cx="35" cy="85" r="11"/><circle cx="85" cy="85" r="11"/></g>'
        ),
    }[kind]
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 120" width="12" height="12" aria-hidden="true">{inner}</svg>'


def week_picture(version: TariffVersion, season: str, speech: Speech) -> str:
    """Return the week of a season: a row for days that are alike, coloured by period, with the prices of periods."""
    rows = _alike(week_grid(version, season), speech)
    periods = list(dict.fromkeys(period for _, slots in rows for period in slots))
    colours = _colours(periods)
    left, cell, high, gap = 1150, (WIDTH - 1150) // 48, 190, 50
    parts, y = [], 60
    for label, slots in rows:
        parts.append(f'<text x="0" y="{y + 130}" fill="{INK}">{escape(label)}</text>')
        place = 0
        for period, same in itertools.groupby(slots):
            count = len(list(same))
            text = speech.label(period)
            x, wide = left + place * cell, count * cell
            parts.append(
                f'<rect x="{x}" y="{y}" width="{wide - 8}" height="{high}" rx="24" fill="{colours[period]}">'
                f"<title>{escape(f'{label} {_clock(place)} – {_clock(place + count)}: {text}')}</title></rect>"
            )
            if len(text) * 75 < wide:
                ink = "#fff" if colours[period] in ("#163a5f", "#2f6c9e", "#8f7fa8") else INK
                parts.append(
                    f'<text x="{x + wide // 2}" y="{y + 130}" text-anchor="middle" fill="{ink}">{escape(text)}</text>'
                )
            place += count
        y += high + gap
    for hour in range(0, 25, 4):
        x = left + hour * 2 * cell
        anchor = "start" if hour == 0 else "end" if hour == 24 else "middle"
        parts.append(f'<text x="{x}" y="{y + 70}" text-anchor="{anchor}" fill="{SOFT}">{hour:02d}:00</text>')
    name = f"{speech.word('week_name')}, {speech.label(season)}"
    return _open(WIDTH, y + 120, name) + "".join(parts) + "</svg>"


def _clock(slot: int) -> str:
    minute = slot * SLOT_MIN
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _colours(periods: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for period in periods:
        wanted = PERIOD_COLOURS.get(period.replace("_", " ").replace("-", " ").lower())
        free = [colour for colour in OTHER_COLOURS if colour not in found.values()] or list(OTHER_COLOURS)
        found[period] = wanted if wanted and wanted not in found.values() else free[0]
    return found


def _alike(grid: dict[str, list[str]], speech: Speech) -> list[tuple[str, list[str]]]:
    """Return rows of days that are alike, with what these are called."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, slots in grid.items():
        groups.setdefault(tuple(slots), []).append(name)
    return [(_called(names, list(grid), speech), list(slots)) for slots, names in groups.items()]


def _called(names: list[str], every: list[str], speech: Speech) -> str:
    if names == every:
        return speech.word("every_day")
    workdays, weekend = every[:5], every[5:7]
    found, rest = [], list(names)
    for part, word in ((workdays, "workday"), (weekend, "weekend"), (every[7:], "holiday")):
        if all(name in rest for name in part):
            found.append(speech.word(word))
            rest = [name for name in rest if name not in part]
    return ("、" if speech.is_chinese else ", ").join(found + [speech.word(name) for name in rest])
