"""A tariff as a sheet for people, with a picture of the week's periods as text or SVG."""

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from html import escape
from typing import Any

from metering.tariff import Tariff, TariffVersion
from metering.tariff_check import LABELS
from metering.week import week_grid
from schemas.document import Table

MARKS = "#=+-.o*%@&~:xwvz"
COLOURS = ("#b3261e", "#e07b39", "#f2c14e", "#7fb069", "#3d7ea6", "#6a5d7b", "#a1a1a1", "#17bebb")
DAYS = (*LABELS,)


def sheet(tariff: Tariff) -> str:
    """Return the whole sheet as text."""
    head = [f"{tariff.tariff_id}: {tariff.name}", f"{tariff.currency}, {tariff.zone.key}"]
    if tariff.document.source:
        head.append(f"source: {tariff.document.source}")
    head += [
        "source: " + ", ".join(str(item) for item in dataclasses.astuple(source) if item)
        for source in tariff.document.sources
    ]
    parts = ["\n".join(head)]
    for version in tariff.versions:
        until = f" until {version.document.valid_to}" if version.document.valid_to else ""
        parts.append(f"--- from {version.valid_from}{until}")
        parts += [week_text(version, season) for season in dict.fromkeys(key[0] for key in version.price_keys)]
        parts.append("\n".join(_charges(version)))
    if tariff.warnings:
        parts.append("\n".join(f"warning: {text}" for text in tariff.warnings))
    return "\n\n".join(parts)


def _season_text(version: TariffVersion, season: str) -> str:
    spans = [
        f"{part.first[0]:02d}-{part.first[1]:02d} to {part.last[0]:02d}-{part.last[1]:02d}"
        for part in version.seasons
        if part.name == season
    ]
    return f"{season} ({', '.join(spans)})" if spans else season


def week_text(version: TariffVersion, season: str) -> str:
    """Return a season's week as text: a mark a half hour, and what the marks mean."""
    grid = week_grid(version, season)
    periods = list(dict.fromkeys(period for row in grid.values() for period in row))
    mark = {period: MARKS[place % len(MARKS)] for place, period in enumerate(periods)}
    ruler = " " * 11 + "".join(f"{hour:<6d}" for hour in range(0, 24, 3)) + "24"
    rows = [f"{name:<10} " + "".join(mark[period] for period in row) for name, row in grid.items()]
    prices = []
    for period in periods:
        price = version.prices_per_kwh.get((season, period))
        prices.append(f"  {mark[period]} {period}" + (f"  {price} a kWh" if price is not None else ""))
    return "\n".join([_season_text(version, season), ruler, *rows, *prices])


def _charges(version: TariffVersion) -> list[str]:
    """Return the other charges of a version, a line each, as they are written."""
    lines = []
    for name, value in _given(version.document).items():
        if name not in ("valid_from", "valid_to", "seasons", "windows", "rest", "prices", "holidays"):
            lines.append(f"{name}: {_words(value)}")
    if version.document.holidays:
        lines.append(f"holidays: {', '.join(map(str, version.document.holidays))}")
    return lines or ["no other charges"]


def _given(item: Any) -> dict[str, Any]:
    """Return the fields of a document part that are not as they are when left out."""
    found = {}
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value != default:
            found[field.name.rstrip("_")] = value
    return found


def _words(value: Any) -> str:
    if isinstance(value, Table):
        return _words(value.value)
    if dataclasses.is_dataclass(value):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in _given(value).items())
    if isinstance(value, Mapping):
        return (
            "{" + "; ".join(f"{name} {_words(inner)}" if name else _words(inner) for name, inner in value.items()) + "}"
        )
    if isinstance(value, tuple):
        return "; ".join(_words(inner) for inner in value)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def week_svg(tariff: Tariff) -> str:
    """Return the week of each season of the newest version as one SVG picture."""
    version = tariff.versions[-1]
    seasons = list(dict.fromkeys(key[0] for key in version.price_keys))
    periods = list(dict.fromkeys(period for _, period in version.price_keys))
    colour = {period: COLOURS[place % len(COLOURS)] for place, period in enumerate(periods)}
    cell, row, left, top = 10, 16, 90, 24
    parts, y = [], 0
    for season in seasons:
        parts.append(f'<text x="0" y="{y + 14}" font-weight="bold">{escape(_season_text(version, season))}</text>')
        for line, (name, slots) in enumerate(week_grid(version, season).items()):
            at = y + top + line * row
            parts.append(f'<text x="0" y="{at + 12}">{name}</text>')
            for place, period in enumerate(slots):
                parts.append(
                    f'<rect x="{left + place * cell}" y="{at}" width="{cell}" height="{row - 2}"'
                    f' fill="{colour.get(period, "#ddd")}"><title>{name} {place // 2:02d}:{place % 2 * 30:02d}'
                    f" {escape(period)}</title></rect>"
                )
        y += top + len(DAYS) * row + 8
    for place, period in enumerate(periods):
        parts.append(f'<rect x="{place * 110}" y="{y}" width="12" height="12" fill="{colour[period]}"/>')
        parts.append(f'<text x="{place * 110 + 16}" y="{y + 11}">{escape(period)}</text>')
    width = max(left + 48 * cell, 110 * len(periods))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 20}" font-family="sans-serif"'
        f' font-size="12" role="img"><title>{escape(tariff.tariff_id)}</title>{"".join(parts)}</svg>\n'
    )
