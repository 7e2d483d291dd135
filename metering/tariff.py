"""Tariffs as checked documents: versions by date, seasons, day types, windows, prices, tiers, and the other charges."""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from metering import tariff_check
from metering.pricing.rounding import round_to
from metering.tariff_check import ALL_YEAR, DAY_TYPES, WEEKDAYS
from schemas import tariff as document_types
from schemas.document import Faults, Table, read_document
from schemas.tariff import Round, Rounding, TariffDocument, Version

__all__ = [
    "ALL_YEAR",
    "DAY_TYPES",
    "Season",
    "Tariff",
    "TariffError",
    "TariffVersion",
    "Tier",
    "Window",
    "parse_tariff",
]


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
        return tariff_check.season_holds(self.first, self.last, day)


@dataclasses.dataclass(frozen=True)
class Tier:
    """Energy of a cycle up to a bound, and what is added to every price of a kWh in it, or the prices in it."""

    up_to_wh: int | None
    """Wh; of a ladder by kW or day, Wh per kW or day."""
    adder_per_kwh: Decimal
    prices: Table | None = None


@dataclasses.dataclass(frozen=True)
class TariffVersion:
    """What holds from a local day on, until the next version."""

    document: Version
    seasons: tuple[Season, ...]
    windows: tuple[Window, ...]
    prices_per_kwh: Mapping[tuple[str, str], Decimal]
    """By season and period; what is charged for the import register beside tiers and further components."""
    price_keys: tuple[tuple[str, str], ...]
    """Season and period of each price bucket of this version."""
    tiers: Mapping[str, tuple[Tier, ...]]
    """By season (that of the first day of the cycle)."""

    @property
    def valid_from(self) -> dt.date:
        """Return the first local day."""
        return self.document.valid_from

    @property
    def rest_period(self) -> str:
        """Return the period of what no window names; empty where windows tile every day."""
        return self.document.rest or ""

    @property
    def fixed_per(self) -> str:
        """Return what the first fixed charge is counted by."""
        return self.document.fixed_charge[0].per if self.document.fixed_charge else "cycle"

    def season_of(self, day: dt.date) -> str:
        """Return the season of a local day."""
        for season in self.seasons:
            if season.holds(day):
                return season.name
        return ALL_YEAR

    def labels_of(self, day: dt.date, flags: frozenset[str] = frozenset()) -> frozenset[str]:
        """Return what a day is called: flags and named days, and holiday or its weekday."""
        named = {name for name, days in self.document.days.items() if day in days}
        if day in self.document.holidays:
            return frozenset({"holiday", *named, *flags})
        return frozenset({*named, *flags, *tariff_check.LABELS[WEEKDAYS[day.weekday()]]})

    def period_of(self, season: str, labels: frozenset[str], minute: int) -> str:
        """Return the period of a minute of the local clock: of the first window that fits, or the rest."""
        for window in self.windows:
            if (
                window.start_minute <= minute < window.end_minute
                and season in window.seasons
                and not window.day_types.isdisjoint(labels)
            ):
                return window.period
        return self.rest_period


@dataclasses.dataclass(frozen=True)
class Tariff:
    """A price structure with all its versions, oldest first."""

    document: TariffDocument
    zone: ZoneInfo
    schedule_zone: dt.tzinfo
    """Clock that switches periods, seasons and day types."""
    demand_zone: dt.tzinfo
    versions: tuple[TariffVersion, ...]
    buckets: tuple[tuple[int, str, str], ...]
    """Version, season and period of each price bucket; the index is the bucket's code, kept in facts."""
    warnings: tuple[str, ...]

    @property
    def tariff_id(self) -> str:
        """Return the tariff's name in contracts."""
        return self.document.tariff_id

    @property
    def name(self) -> str:
        """Return its name for people."""
        return self.document.name

    @property
    def currency(self) -> str:
        """Return the currency's code."""
        return self.document.currency

    @property
    def digits(self) -> int:
        """Return the decimals of a bill's total."""
        return self.document.digits

    @property
    def rounding(self) -> Rounding:
        """Return what is rounded where."""
        return self.document.rounding

    def version_index_on(self, day: dt.date) -> int:
        """Return which version holds on a local day; days before the first version have the first."""
        started = [index for index, version in enumerate(self.versions) if version.valid_from <= day]
        return started[-1] if started else 0

    def bucket_price(self, bucket: int) -> Decimal:
        """Return the price of a bucket, in currency per kWh."""
        version, season, period = self.buckets[bucket]
        return self.versions[version].prices_per_kwh[season, period]

    def round_money(self, amount: Decimal) -> Decimal:
        """Return an amount as it is billed: rounded once, by default half up to the tariff's digits."""
        rule = self.rounding.total or Round(step=Decimal(1).scaleb(-self.digits))
        return round_to(amount, rule.step, rule.mode)


def parse_tariff(document: Any) -> Tariff:
    """Return a checked tariff.

    Args:
        document: As `schemas.tariff.TariffDocument`; prices are decimals in quotes, in currency per kWh.

    Raises:
        TariffError: With every fault of the document and its place.
    """
    faults = Faults()
    read: TariffDocument = read_document(document_types.TariffDocument, document, "", faults)
    warnings: list[str] = []
    zone = tariff_check.zone_of(read.zone, "zone", faults)
    versions = []
    for index, version in enumerate(read.versions):
        tariff_check.check_version(version, f"versions[{index}]", faults, warnings)
        versions.append(_compile_version(version))
    tariff_check.check_versions(read, faults)
    clocks = {
        name: tariff_check.clock_of(getattr(read.clocks, name), zone, f"clocks.{name}", faults)
        for name in ("schedule", "demand")
    }
    if faults:
        raise TariffError(list(dict.fromkeys(faults)))
    return Tariff(
        document=read,
        zone=zone,
        schedule_zone=clocks["schedule"],
        demand_zone=clocks["demand"],
        versions=tuple(versions),
        buckets=tuple((index, *key) for index, version in enumerate(versions) for key in version.price_keys),
        warnings=(*warnings, *(f"not represented: {text}" for text in read.not_represented)),
    )


def _compile_version(version: Version) -> TariffVersion:
    names = tariff_check.season_names(version)
    windows = tuple(
        Window(
            row.period,
            row.from_,
            row.to,
            frozenset(names if row.seasons is None else row.seasons),
            frozenset(DAY_TYPES if row.day_types is None else row.day_types),
        )
        for row in version.windows
    )
    keys = tariff_check.used_periods(version)
    every = [(season, period) for season in names for period in tariff_check.period_names(version)]
    prices = {key: price for key in every if version.prices and (price := version.prices.at(*key)) is not None}
    return TariffVersion(
        document=version,
        seasons=tuple(Season(part.name, part.from_, part.to) for part in version.seasons),
        windows=windows,
        prices_per_kwh=prices,
        price_keys=tuple(key for key in every if key in prices or key in keys),
        tiers={name: _ladder(version, name) for name in names},
    )


def _ladder(version: Version, season: str) -> tuple[Tier, ...]:
    rows = version.tiers.get(season, version.tiers.get("", ()))
    return tuple(
        Tier(None if row.up_to_kwh is None else int(row.up_to_kwh * 1000), row.adder or Decimal(0), row.prices)
        for row in rows
    )
