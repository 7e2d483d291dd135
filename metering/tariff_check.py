"""What a tariff document must hold beyond its shape: every fault with its place, and warnings."""

import datetime as dt
import re
from collections.abc import Iterable
from decimal import Decimal
from zoneinfo import ZoneInfo

from metering.pricing.rounding import round_to
from schemas.document import Faults, Table
from schemas.tariff import DemandCharge, TariffDocument, Version

ALL_YEAR = "all_year"
DAY_TYPES = ("workday", "weekend", "holiday")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LABELS = {
    name: frozenset({name, "workday"} if index < 5 else {name, "weekend"}) for index, name in enumerate(WEEKDAYS)
} | {"holiday": frozenset({"holiday"})}
"""What the days of each kind are called in `day_types`."""
KINDS = ("energy", "demand", "fixed", "reactive", "export", "minimum", "surcharge", "discount", "tax")
TIERS_MAX = 16
MINUTES_A_DAY = 1440
VERSIONS_MAX = 500


def season_holds(first: tuple[int, int], last: tuple[int, int], day: dt.date) -> bool:
    """Return whether a day lies between two days of the year, both included, perhaps over New Year."""
    at = (day.month, day.day)
    return first <= at <= last if first <= last else at >= first or at <= last


def season_names(version: Version) -> list[str]:
    """Return the seasons of a version; ALL_YEAR is what the others leave."""
    names = list(dict.fromkeys(part.name for part in version.seasons))
    leap_year = (dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(366))
    covered = all(any(season_holds(part.from_, part.to, day) for part in version.seasons) for day in leap_year)
    return names if covered else [*names, ALL_YEAR]


def period_names(version: Version) -> list[str]:
    """Return the periods of a version, the rest first."""
    rest = [version.rest] if version.rest else []
    return list(dict.fromkeys([*rest, *(window.period for window in version.windows)]))


def used_periods(version: Version) -> list[tuple[str, str]]:
    """Return each season with the periods that a window or the rest gives it."""
    return [
        (season, period)
        for season in season_names(version)
        for period in period_names(version)
        if period == version.rest
        or any(row.period == period and (row.seasons is None or season in row.seasons) for row in version.windows)
    ]


def zone_of(name: str, place: str, faults: Faults) -> ZoneInfo:
    """Return a time zone; UTC and a fault where there is none of that name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        faults.add(place, f"{name!r} is not a time zone")
        return ZoneInfo("UTC")


def clock_of(text: str, zone: ZoneInfo, place: str, faults: Faults) -> dt.tzinfo:
    """Return the clock that is named: the zone's, UTC, or a fixed offset."""
    if text == "zone":
        return zone
    if text == "utc":
        return dt.UTC
    found = re.fullmatch(r"([+-])(0\d|1[0-4]):([0-5]\d)", text)
    if not found:
        faults.add(place, f"{text!r} is not zone, utc or an offset such as +08:00")
        return dt.UTC
    offset = dt.timedelta(hours=int(found[2]), minutes=int(found[3]))
    return dt.timezone(-offset if found[1] == "-" else offset)


def check_versions(document: TariffDocument, faults: Faults) -> None:
    """Note versions that are missing, unordered, overlapping or apart."""
    versions = document.versions
    if not versions:
        faults.add("versions", "at least one is needed")
    if len(versions) > VERSIONS_MAX:
        faults.add("versions", f"more than {VERSIONS_MAX}")
    starts = [version.valid_from for version in versions]
    if starts != sorted(set(starts)):
        faults.add("versions", "must be sorted by valid_from, each date once")
    for index, version in enumerate(versions):
        following = versions[index + 1].valid_from if index + 1 < len(versions) else None
        place = f"versions[{index}].valid_to"
        if version.valid_to is None:
            continue
        if version.valid_to <= version.valid_from:
            faults.add(place, "must be after valid_from")
        elif following is not None and version.valid_to > following:
            faults.add(place, f"overlaps the next version, which begins on {following}")
        elif following is not None and version.valid_to < following:
            faults.add(place, f"nothing holds from {version.valid_to} to {following}")


def check_version(version: Version, place: str, faults: Faults, warnings: list[str]) -> None:
    """Note every fault of a version, and what is only suspicious."""
    seasons, periods = season_names(version), period_names(version)
    for name in sorted(set(seasons) & set(periods)):
        faults.add(f"{place}.seasons", f"{name!r} is a season and a period")
    _check_windows(version, place, faults, warnings)
    if version.rest is None:
        _check_tiling(version, place, faults)
    if version.prices is not None:
        check_table(version.prices, f"{place}.prices", used_periods(version), faults)
    elif not version.energy:
        faults.add(f"{place}.prices", "has no price: give `prices`, or components in `energy`")
    _check_components(version, place, faults)
    for name, rows in version.tiers.items():
        if name and name not in seasons:
            faults.add(f"{place}.tiers.{name}", "unknown season")
        _check_ladder(version, name, rows, f"{place}.tiers.{name}" if name else f"{place}.tiers", faults)
    _check_time_charges(version, place, faults)
    _check_other_charges(version, place, faults)
    _check_ids(version, place, faults)
    _check_composed(version, place, warnings)


def _check_components(version: Version, place: str, faults: Faults) -> None:
    for index, part in enumerate(version.energy):
        at = f"{place}.energy[{index}]"
        if (part.prices is None) == (part.index is None):
            faults.add(at, "needs either prices or index")
        if part.prices is not None:
            check_table(part.prices, f"{at}.prices", used_periods(version), faults)
        for name in sorted(set(part.index.add_when if part.index else ()) - set(period_names(version))):
            faults.add(f"{at}.index.add_when.{name}", "unknown period")


def _check_windows(version: Version, place: str, faults: Faults, warnings: list[str]) -> None:
    seasons = season_names(version)
    known = {*DAY_TYPES, *WEEKDAYS, *version.days, *version.flags}
    for index, window in enumerate(version.windows):
        at = f"{place}.windows[{index}]"
        if not window.from_ < window.to:
            faults.add(at, "`from` must be before `to`; a window over midnight is written as two")
        for name in sorted(set(window.seasons or ()) - set(seasons)):
            faults.add(f"{at}.seasons", f"unknown season {name!r}")
        for name in sorted(set(window.day_types or ()) - known):
            faults.add(f"{at}.day_types", f"unknown day type {name!r}; known are {', '.join(sorted(known))}")
        before = [row for row in version.windows[:index] if row.seasons is None and row.day_types is None]
        if any(row.from_ <= window.from_ and window.to <= row.to for row in before):
            warnings.append(f"{at}: never decides, a window before it covers it")


def _check_tiling(version: Version, place: str, faults: Faults) -> None:
    holes: dict[str, list[str]] = {}
    for season in season_names(version):
        for kind, labels in LABELS.items():
            for start, end in _untiled(version, season, labels):
                text = f"season {season}, {start // 60:02d}:{start % 60:02d} to {end // 60:02d}:{end % 60:02d}"
                holes.setdefault(text, []).append(kind)
    for text, kinds in holes.items():
        faults.add(f"{place}.windows", f"{text} is in no window on {', '.join(kinds)}, and there is no `rest`")


def _untiled(version: Version, season: str, labels: frozenset[str]) -> list[tuple[int, int]]:
    spans = sorted(
        (row.from_, row.to)
        for row in version.windows
        if (row.seasons is None or season in row.seasons)
        and (row.day_types is None or not labels.isdisjoint(row.day_types))
    )
    holes, reached = [], 0
    for start, end in spans:
        if start > reached:
            holes.append((reached, start))
        reached = max(reached, end)
    return [*holes, (reached, MINUTES_A_DAY)] if reached < MINUTES_A_DAY else holes


def check_table(table: Table, place: str, needed: Iterable[tuple[str, str]], faults: Faults) -> None:
    """Note names that a table of prices does not know, and prices that it lacks."""
    keys = list(needed)
    seasons, periods = {season for season, _ in keys}, {period for _, period in keys}
    if isinstance(table.value, Decimal):
        return
    by_season = bool(table.value) and all(name in seasons for name in table.value)
    known = seasons if by_season else seasons | periods
    for name, inner in table.value.items():
        if name not in known:
            faults.add(f"{place}.{name}", f"unknown; known are {', '.join(sorted(periods | seasons))}")
        for second in inner if not isinstance(inner, Decimal) else ():
            if second not in periods or name not in seasons:
                faults.add(f"{place}.{name}.{second}", f"unknown; known are {', '.join(sorted(periods))}")
    for season, period in keys:
        if table.at(season, period) is None:
            nested = any(not isinstance(inner, Decimal) for inner in table.value.values())
            faults.add(f"{place}.{season}.{period}" if nested or by_season else f"{place}.{period}", "has no price")


def _check_ladder(version: Version, season: str, rows: tuple, place: str, faults: Faults) -> None:  # type: ignore[type-arg]
    if len(rows) > TIERS_MAX:
        faults.add(place, f"more than {TIERS_MAX} tiers")
    below = Decimal(0)
    used = [key for key in used_periods(version) if not season or key[0] == season]
    for index, row in enumerate(rows):
        at, bound = f"{place}[{index}]", row.up_to_kwh
        if (index == len(rows) - 1) != (bound is None):
            faults.add(f"{at}.up_to_kwh", "the last tier is open, and only the last")
        if bound is not None and (bound <= below or (bound * 1000) % 1):
            faults.add(f"{at}.up_to_kwh", "must be a number of kWh above the tier before, with at most 3 places")
        below = bound if bound is not None else below
        if row.prices is not None:
            check_table(row.prices, f"{at}.prices", used, faults)
            if version.tier_rule.allocation == "additive":
                faults.add(f"{at}.prices", "need tier_rule.allocation sequential or proportional; additive has adders")
        elif row.adder is None:
            faults.add(f"{at}.adder", "is missing: an adder or prices")
        elif version.prices is None:
            faults.add(f"{at}.adder", "is added to `prices`, which are not there")


def _check_time_charges(version: Version, place: str, faults: Faults) -> None:
    seasons, used = season_names(version), used_periods(version)
    by_season = [(season, season) for season in seasons]
    for index, fixed in enumerate(version.fixed_charge):
        at = (
            f"{place}.fixed_charge.amount"
            if len(version.fixed_charge) == 1
            else f"{place}.fixed_charge[{index}].amount"
        )
        check_table(fixed.amount, at, by_season, faults)
    for index, demand in enumerate(version.demand):
        by_period = demand.scope == "period" and not demand.periods
        _check_demand(demand, f"{place}.demand[{index}]", used if by_period else by_season, faults)
        for name in sorted(set(demand.periods) - set(period_names(version))):
            faults.add(f"{place}.demand[{index}].periods", f"unknown period {name!r}")
    for index, reactive in enumerate(version.reactive):
        if reactive.mode in ("table", "ramp") and not getattr(reactive, reactive.mode):
            faults.add(f"{place}.reactive[{index}].{reactive.mode}", "is missing")


def _check_other_charges(version: Version, place: str, faults: Faults) -> None:
    used, by_season = used_periods(version), [(season, season) for season in season_names(version)]
    export = version.export
    if export is not None:
        if export.prices is not None:
            check_table(export.prices, f"{place}.export.prices", used, faults)
        elif export.index is None and export.mode not in ("nem_kwh", "nem_money"):
            faults.add(f"{place}.export.prices", "is missing: prices or index")
    for index, surcharge in enumerate(version.surcharges):
        at = f"{place}.surcharges[{index}]"
        if (surcharge.amount is None) == (not surcharge.bands):
            faults.add(at, "needs either amount or bands")
        if surcharge.amount is not None:
            check_table(surcharge.amount, f"{at}.amount", used if surcharge.per == "kWh" else by_season, faults)
        if surcharge.bands and (surcharge.per != "kWh" or surcharge.bands[-1].up_to_kwh is not None):
            faults.add(f"{at}.bands", "are per kWh, and the last is open")
    for index, discount in enumerate(version.discounts):
        if sum(item is not None for item in (discount.kwh_free, discount.percent, discount.amount)) != 1:
            faults.add(f"{place}.discounts[{index}]", "needs one of kwh_free, percent and amount")


def _check_demand(demand: DemandCharge, place: str, keys: list[tuple[str, str]], faults: Faults) -> None:
    if (demand.prices is None) == (not demand.tiers):
        faults.add(place, "needs either prices or tiers")
    if demand.prices is not None:
        check_table(demand.prices, f"{place}.prices", keys, faults)
    for index, tier in enumerate(demand.tiers):
        check_table(tier.prices, f"{place}.tiers[{index}].prices", keys, faults)
        if (index == len(demand.tiers) - 1) != (tier.up_to_kw is None):
            faults.add(f"{place}.tiers[{index}].up_to_kw", "the last tier is open, and only the last")
    if demand.basis == "contract" and demand.contract is None:
        faults.add(f"{place}.contract", "is missing")
    if demand.tiers and demand.basis == "contract":
        faults.add(f"{place}.tiers", "do not go with basis contract")


def _check_ids(version: Version, place: str, faults: Faults) -> None:
    parts = ("energy", "fixed_charge", "demand", "reactive", "minimum", "surcharges", "discounts", "taxes")
    ids = [item.id for part in parts for item in getattr(version, part)]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        faults.add(place, f"id {name!r} is there {ids.count(name)} times")
    known = {*ids, *KINDS, "export"}
    for part, field in (
        ("reactive", "base"),
        ("export", "against"),
        ("minimum", "tops_up"),
        ("surcharges", "base"),
        ("discounts", "base"),
        ("taxes", "base"),
        ("taxes", "exempt"),
    ):
        given = getattr(version, part) or ()
        for index, item in enumerate(given if isinstance(given, tuple) else (given,)):
            at = f"{place}.{part}[{index}].{field}" if isinstance(given, tuple) else f"{place}.{part}.{field}"
            for name in sorted(set(getattr(item, field)) - known):
                faults.add(at, f"{name!r} is no kind and no id of a line")


def _check_composed(version: Version, place: str, warnings: list[str]) -> None:
    """Warn where a listed price is not what its parts give; the listed one is billed."""
    composed = version.composed
    if composed is None or version.prices is None:
        return
    base = sum((composed.parts[name] for name in composed.floats if name in composed.parts), Decimal(0))
    whole = sum(composed.parts.values(), Decimal(0))
    for season, period in used_periods(version):
        multiplier = composed.multipliers.get(period, Decimal(1))
        made = round_to(whole + base * (multiplier - 1), Decimal(1).scaleb(-composed.digits), "half_up")
        listed = version.prices.at(season, period)
        if listed is not None and listed != made:
            warnings.append(f"{place}.prices: {period} is listed as {listed}, its parts give {made}")
