"""The calendar of the second rater: one instant at a time, from the tariff sheet and nothing of the first rater. Pure."""

import bisect
import dataclasses
import datetime as dt
import functools
import math
import zoneinfo
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from schemas.document import Faults, read_document
from schemas.tariff import TariffDocument, Version

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
OFFSET_STEP_MIN = 15
"""Offsets of today's zones are multiples of it."""

Flags = Mapping[str, Collection[dt.date]]


@dataclasses.dataclass(frozen=True)
class Interval:
    """Energy of ``[start_s, start_s + duration_s)``, epoch s, in whole Wh; None of a register that the load has not."""

    start_s: int
    duration_s: int
    import_wh: int = 0
    export_wh: int | None = None
    import_varh: int | None = None
    export_varh: int | None = None
    controlled_wh: int | None = None

    @property
    def varh(self) -> int:
        """Return the reactive energy of both directions."""
        return (self.import_varh or 0) + (self.export_varh or 0)


REGISTERS = ("import_wh", "export_wh", "import_varh", "export_varh", "controlled_wh")


@dataclasses.dataclass(frozen=True)
class Piece:
    """An interval, or a part of one, that lies in one day, season and period."""

    energy: Interval
    day: dt.date
    """Local day of the tariff's zone: it decides the version."""
    version: int
    season: str
    period: str


def read_sheet(document: Mapping[str, Any]) -> TariffDocument:
    """Return a tariff document as typed values.

    Raises:
        ValueError: It has faults of shape.
    """
    faults = Faults()
    sheet: TariffDocument = read_document(TariffDocument, document, "", faults)
    if faults:
        raise ValueError("; ".join(faults))
    return sheet


@functools.cache
def clock_of(text: str, zone: str) -> dt.tzinfo:
    """Return the clock of ``zone``, ``utc`` or an offset such as ``+08:00``."""
    if text == "zone":
        return zoneinfo.ZoneInfo(zone)
    if text == "utc":
        return dt.UTC
    sign = -1 if text[0] == "-" else 1
    return dt.timezone(sign * dt.timedelta(hours=int(text[1:3]), minutes=int(text[4:6])))


def midnight_s(zone: str, day: dt.date) -> int:
    """Return the epoch s at which a local day begins."""
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=clock_of("zone", zone)).timestamp())


def days_between(start_on: dt.date, end_on: dt.date) -> list[dt.date]:
    """Return the days ``[start_on, end_on)``."""
    return [start_on + dt.timedelta(days=count) for count in range((end_on - start_on).days)]


def version_on(sheet: TariffDocument, day: dt.date) -> int:
    """Return which version holds on a day: the last one begun; the first one for days before all."""
    begun = [index for index, version in enumerate(sheet.versions) if version.valid_from <= day]
    return begun[-1] if begun else 0


def season_on(version: Version, day: dt.date) -> str:
    """Return the season of a day, ``all_year`` where none is named."""
    at = (day.month, day.day)
    for part in version.seasons:
        if part.from_ <= part.to and part.from_ <= at <= part.to:
            return part.name
        if part.from_ > part.to and (at >= part.from_ or at <= part.to):
            return part.name
    return "all_year"


def labels_on(version: Version, day: dt.date, flags: Flags) -> set[str]:
    """Return all that a day is called in `day_types`."""
    labels = {name for name, days in version.days.items() if day in days}
    labels |= {name for name in version.flags if day in flags.get(name, ())}
    if day in version.holidays:
        return labels | {"holiday"}
    return labels | {WEEKDAYS[day.weekday()], "workday" if day.weekday() < 5 else "weekend"}


def period_at(version: Version, day: dt.date, minute: int, flags: Flags) -> str:
    """Return the period of a minute of a day: of the first window that fits, or the rest."""
    season, labels = season_on(version, day), labels_on(version, day, flags)
    for window in version.windows:
        if not window.from_ <= minute < window.to:
            continue
        if window.seasons is not None and season not in window.seasons:
            continue
        if window.day_types is not None and not labels.intersection(window.day_types):
            continue
        return window.period
    return version.rest or ""


def periods_of(version: Version, season: str) -> list[str]:
    """Return the periods that a season can have by its windows and the rest."""
    rows = [row.period for row in version.windows if row.seasons is None or season in row.seasons]
    return list(dict.fromkeys([*([version.rest] if version.rest else []), *rows]))


def pieces_of(
    sheet: TariffDocument,
    intervals: Iterable[Interval],
    span: tuple[dt.date, dt.date],
    flags: Flags,
    *,
    cut: bool = True,
    prices_from_s: Sequence[int] = (),
) -> list[Piece]:
    """Return what lies in the days of a span, in order of time, cut where anything about the price changes.

    That is also where a published price begins: `prices_from_s`, ascending. With `cut` false intervals stay whole and are where
    they begin: the mean power of a half of one is not known.
    """
    low_s, high_s = midnight_s(sheet.zone, span[0]), midnight_s(sheet.zone, span[1])
    zone, schedule = clock_of("zone", sheet.zone), clock_of(sheet.clocks.schedule, sheet.zone)
    known: dict[tuple[dt.date, dt.date, int], tuple[dt.date, int, str, str]] = {}

    def place(at_s: int) -> tuple[dt.date, int, str, str]:
        day = dt.datetime.fromtimestamp(at_s, zone).date()
        clock = dt.datetime.fromtimestamp(at_s, schedule)
        minute = clock.hour * 60 + clock.minute
        key = (day, clock.date(), minute)
        if key not in known:
            index = version_on(sheet, day)
            version = sheet.versions[index]
            season = season_on(version, clock.date())
            known[key] = (day, index, season, period_at(version, clock.date(), minute, flags))
        return known[key]

    edges = [edge for version in sheet.versions for row in version.windows for edge in (row.from_, row.to)]
    step_s = math.gcd(OFFSET_STEP_MIN * 60, *(edge * 60 for edge in edges))
    found = []
    for interval in sorted(intervals, key=lambda item: item.start_s):
        new_prices = _within(prices_from_s, interval) if cut else []
        starts = [interval.start_s, *(_steps(interval, step_s) if cut else ())]
        if new_prices:
            starts = sorted({*starts, *new_prices})
        places = [place(at_s) for at_s in starts]
        cuts = [0] + [
            index
            for index in range(1, len(starts))
            if places[index] != places[index - 1] or starts[index] in new_prices
        ]
        for index, part in zip(cuts, _split(interval, [starts[cut] for cut in cuts]), strict=True):
            if low_s <= part.start_s < high_s:
                found.append(Piece(part, *places[index]))
    return found


def _within(instants_s: Sequence[int], interval: Interval) -> list[int]:
    """Return the instants that lie inside of an interval, not at its edges."""
    low = bisect.bisect_right(instants_s, interval.start_s)
    return list(instants_s[low : bisect.bisect_left(instants_s, interval.start_s + interval.duration_s, low)])


def series_of(sheet: TariffDocument, span: tuple[dt.date, dt.date]) -> set[str]:
    """Return the price series that are used on the days of a span."""
    used = {version_on(sheet, day) for day in days_between(*span)}
    indices = [part.index for index in used for part in sheet.versions[index].energy]
    exports = [sheet.versions[index].export for index in used]
    return {index.name for index in [*indices, *(export.index for export in exports if export)] if index}


def _steps(interval: Interval, step_s: int) -> Iterator[int]:
    first = (interval.start_s // step_s + 1) * step_s
    return iter(range(first, interval.start_s + interval.duration_s, step_s))


def _split(interval: Interval, starts: list[int]) -> list[Interval]:
    """Return an interval cut at some instants: even over time, whole Wh, what is before an instant rounded down."""
    if len(starts) == 1:
        return [interval]
    ends = [*starts[1:], interval.start_s + interval.duration_s]

    def share(total: int | None, start_s: int, end_s: int) -> int | None:
        if total is None:
            return None
        before, until = (total * (edge - interval.start_s) // (interval.duration_s) for edge in (start_s, end_s))
        return until - before

    return [
        Interval(start, end - start, **{name: share(getattr(interval, name), start, end) for name in REGISTERS})  # type: ignore[arg-type]
        for start, end in zip(starts, ends, strict=True)
    ]
