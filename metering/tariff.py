"""Tariffs as checked documents: versions by date, seasons, day types, windows, prices, tiers, fixed charge."""

import dataclasses
import datetime as dt
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

DAY_TYPES = ("workday", "weekend", "holiday")
ALL_YEAR = "all_year"
PRICE_DIGITS_MAX = 8
TIERS_MAX = 16
MINUTES_A_DAY = 1440

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_MONTH_DAY = re.compile(r"(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")


class TariffError(ValueError):
    """A tariff document has faults; `faults` lists every one with its place."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclasses.dataclass(frozen=True)
class Window:
    """A period of the local day, ``[start_minute, end_minute)``, on some day types in some seasons."""

    period: str
    start_minute: int
    end_minute: int
    seasons: frozenset[str]
    day_types: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Season:
    """Part of the year, first and last day as (month, day), both included; it may pass New Year."""

    name: str
    first: tuple[int, int]
    last: tuple[int, int]

    def holds(self, day: dt.date) -> bool:
        """Return whether a day lies in the season."""
        at = (day.month, day.day)
        if self.first <= self.last:
            return self.first <= at <= self.last
        return at >= self.first or at <= self.last


@dataclasses.dataclass(frozen=True)
class Tier:
    """Energy of a cycle up to a bound, and what is added to every price of a kWh in it."""

    up_to_wh: int | None
    adder_per_kwh: Decimal


@dataclasses.dataclass(frozen=True)
class TariffVersion:
    """What holds from a local day on, until the next version."""

    valid_from: dt.date
    seasons: tuple[Season, ...]
    holidays: frozenset[dt.date]
    windows: tuple[Window, ...]
    rest_period: str
    prices_per_kwh: Mapping[tuple[str, str], Decimal]
    """By season and period."""
    tiers: Mapping[str, tuple[Tier, ...]]
    """By season (that of the first day of the cycle)."""
    fixed_amount: Decimal
    fixed_per: str
    """``cycle`` or ``day``."""

    def season_of(self, day: dt.date) -> str:
        """Return the season of a local day."""
        for season in self.seasons:
            if season.holds(day):
                return season.name
        return ALL_YEAR

    def day_type_of(self, day: dt.date) -> str:
        """Return the type of a local day."""
        if day in self.holidays:
            return "holiday"
        return "weekend" if day.weekday() >= 5 else "workday"

    def period_of(self, season: str, day_type: str, minute: int) -> str:
        """Return the period of a minute of the local clock; what no window names is the rest."""
        for window in self.windows:
            if (
                window.start_minute <= minute < window.end_minute
                and season in window.seasons
                and day_type in window.day_types
            ):
                return window.period
        return self.rest_period


@dataclasses.dataclass(frozen=True)
class Tariff:
    """A price structure with all its versions, oldest first."""

    tariff_id: str
    name: str
    currency: str
    zone: ZoneInfo
    digits: int
    versions: tuple[TariffVersion, ...]
    buckets: tuple[tuple[int, str, str], ...]
    """Version, season and period of each price bucket; the index is the bucket's code, kept in facts."""

    def version_index_on(self, day: dt.date) -> int:
        """Return which version holds on a local day; days before the first version have the first."""
        started = [index for index, version in enumerate(self.versions) if version.valid_from <= day]
        return started[-1] if started else 0

    def bucket_price(self, bucket: int) -> Decimal:
        """Return the price of a bucket, in currency per kWh."""
        version, season, period = self.buckets[bucket]
        return self.versions[version].prices_per_kwh[season, period]

    def round_money(self, amount: Decimal) -> Decimal:
        """Return an amount as it is billed: rounded once, half up, to the tariff's digits."""
        return amount.quantize(Decimal(1).scaleb(-self.digits), ROUND_HALF_UP)


def _decimal_of(value: Any) -> Decimal | None:
    """Return a finite decimal written as text with at most PRICE_DIGITS_MAX places, or None."""
    try:
        number = Decimal(value) if isinstance(value, str) else Decimal("NaN")
    except InvalidOperation:
        return None
    return number if number.is_finite() and -int(number.as_tuple().exponent) <= PRICE_DIGITS_MAX else None


class _Reader:
    """Reads a document and collects its faults with their places."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, place: str, what: str) -> None:
        self.faults.append(f"{place}: {what}")

    def mapping(self, value: Any, place: str, known: set[str]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.fault(place, "must be a mapping")
            return {}
        for key in sorted(set(map(str, value)) - known):
            self.fault(f"{place}.{key}", "unknown key")
        return value

    def items(self, value: Any, place: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.fault(place, "must be a list")
            return []
        return value

    def text(self, value: Any, place: str, default: str = "") -> str:
        if isinstance(value, str) and value:
            return value
        self.fault(place, "must be a text")
        return default

    def decimal(self, value: Any, place: str) -> Decimal:
        number = _decimal_of(value)
        if number is None:
            self.fault(place, f'{value!r} is not a decimal in quotes, such as "0.6089"')
            return Decimal(0)
        return number

    def date(self, value: Any, place: str) -> dt.date:
        if isinstance(value, dt.date):
            return value
        try:
            return dt.date.fromisoformat(value)
        except (TypeError, ValueError):
            self.fault(place, f"{value!r} is not a date like 2026-01-31")
            return dt.date.max

    def minute(self, value: Any, place: str) -> int:
        if isinstance(value, str) and _CLOCK.fullmatch(value):
            hours, minutes = value.split(":")
            return int(hours) * 60 + int(minutes)
        self.fault(place, f'{value!r} is not a time in quotes, such as "08:00" or "24:00"')
        return 0

    def month_day(self, value: Any, place: str) -> tuple[int, int]:
        if isinstance(value, str) and _MONTH_DAY.fullmatch(value):
            return int(value[:2]), int(value[3:])
        self.fault(place, f'{value!r} is not a month and day in quotes, such as "05-01"')
        return (1, 1)


def parse_tariff(document: Any) -> Tariff:
    """Return a checked tariff.

    Args:
        document: As in ``tariffs/*.yaml``; prices are decimals in quotes, in currency per kWh.

    Raises:
        TariffError: With every fault of the document and its place.
    """
    reader = _Reader()
    known = {"tariff_id", "name", "source", "currency", "zone", "digits", "versions"}
    top = reader.mapping(document, "tariff", known)
    zone = ZoneInfo("UTC")
    try:
        zone = ZoneInfo(reader.text(top.get("zone"), "zone", "UTC"))
    except (KeyError, ValueError, OSError):
        reader.fault("zone", f"{top.get('zone')!r} is not a time zone")
    versions = [
        _version(reader, item, f"versions[{index}]")
        for index, item in enumerate(reader.items(top.get("versions"), "versions"))
    ]
    if not versions:
        reader.fault("versions", "at least one is needed")
    starts = [version.valid_from for version in versions]
    if starts != sorted(set(starts)):
        reader.fault("versions", "must be sorted by valid_from, each date once")
    digits = top.get("digits", 2)
    if not isinstance(digits, int) or not 0 <= digits <= 6:
        reader.fault("digits", "must be a whole number from 0 to 6")
    tariff = Tariff(
        tariff_id=reader.text(top.get("tariff_id"), "tariff_id"),
        name=str(top.get("name", "")),
        currency=reader.text(top.get("currency"), "currency"),
        zone=zone,
        digits=digits,
        versions=tuple(versions),
        buckets=tuple(
            (index, season, period)
            for index, version in enumerate(versions)
            for season, period in version.prices_per_kwh
        ),
    )
    if reader.faults:
        raise TariffError(reader.faults)
    return tariff


def _version(reader: _Reader, value: Any, place: str) -> TariffVersion:
    known = {"valid_from", "seasons", "holidays", "windows", "rest", "prices", "tiers", "fixed_charge"}
    item = reader.mapping(value, place, known)
    seasons = _seasons(reader, item.get("seasons"), f"{place}.seasons")
    names = [season.name for season in seasons]
    if _days_uncovered(seasons):
        names.append(ALL_YEAR)
    windows = _windows(reader, item.get("windows"), f"{place}.windows", names)
    rest = reader.text(item.get("rest"), f"{place}.rest")
    periods = list(dict.fromkeys([rest, *(window.period for window in windows)]))
    holidays = reader.items(item.get("holidays"), f"{place}.holidays")
    fixed = reader.mapping(item.get("fixed_charge", {}), f"{place}.fixed_charge", {"amount", "per"})
    if fixed.get("per", "cycle") not in ("cycle", "day"):
        reader.fault(f"{place}.fixed_charge.per", "must be cycle or day")
    return TariffVersion(
        valid_from=reader.date(item.get("valid_from"), f"{place}.valid_from"),
        seasons=tuple(seasons),
        holidays=frozenset(reader.date(day, f"{place}.holidays") for day in holidays),
        windows=tuple(windows),
        rest_period=rest,
        prices_per_kwh=_prices(reader, item.get("prices"), f"{place}.prices", names, periods),
        tiers=_tiers(reader, item.get("tiers"), f"{place}.tiers", names),
        fixed_amount=reader.decimal(fixed.get("amount", "0"), f"{place}.fixed_charge.amount"),
        fixed_per=str(fixed.get("per", "cycle")),
    )


def _days_uncovered(seasons: list[Season]) -> bool:
    leap_year = (dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(366))
    return any(not any(season.holds(day) for season in seasons) for day in leap_year)


def _seasons(reader: _Reader, value: Any, place: str) -> list[Season]:
    seasons = []
    for index, entry in enumerate(reader.items(value, place)):
        at = f"{place}[{index}]"
        item = reader.mapping(entry, at, {"name", "from", "to"})
        season = Season(
            reader.text(item.get("name"), f"{at}.name"),
            reader.month_day(item.get("from"), f"{at}.from"),
            reader.month_day(item.get("to"), f"{at}.to"),
        )
        seasons.append(season)
    return seasons


def _windows(reader: _Reader, value: Any, place: str, seasons: list[str]) -> list[Window]:
    windows = []
    for index, entry in enumerate(reader.items(value, place)):
        at = f"{place}[{index}]"
        item = reader.mapping(entry, at, {"period", "from", "to", "seasons", "day_types"})
        start = reader.minute(item.get("from"), f"{at}.from")
        end = reader.minute(item.get("to"), f"{at}.to")
        if not start < end <= MINUTES_A_DAY:
            reader.fault(at, "`from` must be before `to`; a window over midnight is written as two")
        in_seasons = reader.items(item.get("seasons", seasons), f"{at}.seasons")
        day_types = reader.items(item.get("day_types", list(DAY_TYPES)), f"{at}.day_types")
        for name in set(in_seasons) - set(seasons):
            reader.fault(f"{at}.seasons", f"unknown season {name!r}")
        for name in set(day_types) - set(DAY_TYPES):
            reader.fault(f"{at}.day_types", f"unknown day type {name!r}; known are {', '.join(DAY_TYPES)}")
        period = reader.text(item.get("period"), f"{at}.period")
        windows.append(Window(period, start, end, frozenset(in_seasons), frozenset(day_types)))
    return windows


def _prices(
    reader: _Reader, value: Any, place: str, seasons: list[str], periods: list[str]
) -> dict[tuple[str, str], Decimal]:
    if not isinstance(value, Mapping):
        reader.fault(place, "must be a mapping of periods, or of seasons and periods, to prices")
        return {}
    by_season = all(isinstance(inner, Mapping) for inner in value.values())
    known = set(seasons if by_season else periods)
    for name in sorted(set(map(str, value)) - known):
        reader.fault(f"{place}.{name}", f"unknown; known are {', '.join(sorted(known))}")
    prices = {}
    for season in seasons:
        table = value.get(season, {}) if by_season else value
        for period in periods:
            at = f"{place}.{season}.{period}" if by_season else f"{place}.{period}"
            if period not in table:
                reader.fault(at, "has no price")
                continue
            prices[season, period] = reader.decimal(table[period], at)
    return prices


def _tiers(reader: _Reader, value: Any, place: str, seasons: list[str]) -> dict[str, tuple[Tier, ...]]:
    if isinstance(value, Mapping):
        for name in sorted(set(map(str, value)) - set(seasons)):
            reader.fault(f"{place}.{name}", "unknown season")
        return {name: _ladder(reader, value.get(name), f"{place}.{name}") for name in seasons}
    return dict.fromkeys(seasons, _ladder(reader, value, place))


def _ladder(reader: _Reader, value: Any, place: str) -> tuple[Tier, ...]:
    tiers: list[Tier] = []
    below = 0
    entries = reader.items(value, place)
    if len(entries) > TIERS_MAX:
        reader.fault(place, f"more than {TIERS_MAX} tiers")
    for index, entry in enumerate(entries):
        at = f"{place}[{index}]"
        item = reader.mapping(entry, at, {"up_to_kwh", "adder"})
        bound = item.get("up_to_kwh")
        last = index == len(entries) - 1
        if last != (bound is None):
            reader.fault(f"{at}.up_to_kwh", "the last tier is open, and only the last")
        if bound is not None and (not isinstance(bound, int) or bound * 1000 <= below):
            reader.fault(f"{at}.up_to_kwh", "must be a whole number of kWh above the tier before")
            bound = None
        below = bound * 1000 if bound is not None else below
        up_to_wh = None if bound is None else bound * 1000
        tiers.append(Tier(up_to_wh, reader.decimal(item.get("adder"), f"{at}.adder")))
    return tuple(tiers)
