"""OpenEI URDB rates (version 8) made into tariff documents; what the format cannot say is named, nothing is dropped silently.

URDB schedules are 12 months × 24 hours of the local standard clock, without holidays; months alike make a season here, and a
period is each combination of an energy, a demand and a coincident period that occurs.
"""

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
OPEN = Decimal(10) ** 30
TEXT_MAX = 4000
HORSEPOWER_KW = Decimal("0.745699872")
ALIASES = {
    "supercedes": "supersedes",
    "demandreactpwrcharge": "demandreactivepowercharge",
    "flatdemandunits": "flatdemandunit",
    "demandrateunits": "demandrateunit",
    "coincidentrateunits": "coincidentrateunit",
}
TIER_UNITS = {
    "kwh": "kWh",
    "kwh/kw": "kWh_per_kW",
    "kwh daily": "kWh_per_day",
    "kwh/kw daily": "kWh_per_kW_day",
}
EXPORT_MODES = {
    "net metering": {"mode": "nem_kwh"},
    "net billing instantaneous": {"mode": "net_billing", "netting": "interval"},
    "net billing hourly": {"mode": "net_billing", "netting": "hour"},
    "buy all sell all": {"mode": "buy_all"},
}
SCHEDULES = ("energy", "demand")


class UrdbError(ValueError):
    """A rate is not a URDB rate; `faults` lists what is wrong with its place."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def parse_urdb(text: str) -> Mapping[str, Any]:
    """Return the rate of a URDB file, its keys in lower case and of the newest spelling, numbers exact.

    Raises:
        UrdbError: It is not JSON, or not one rate.
    """
    try:
        found = json.loads(text, parse_float=Decimal)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UrdbError([f"not JSON: {error}"]) from None
    if isinstance(found, Mapping) and isinstance(found.get("items"), list):
        found = found["items"]
    if isinstance(found, list):
        if len(found) != 1:
            raise UrdbError([f"{len(found)} rates in the file; one is needed"])
        found = found[0]
    if not isinstance(found, Mapping):
        raise UrdbError(["not a rate: must be a mapping"])
    return {ALIASES.get(key.lower(), key.lower()): value for key, value in found.items() if value is not None}


def document_from_urdb(rate: Mapping[str, Any], zone: str | None = None, tiers: str = "sequential") -> dict[str, Any]:
    """Return a tariff document.

    Args:
        rate: Of `parse_urdb`.
        zone: Time zone; UTC when not given, which is then named in the document.
        tiers: ``sequential`` (PySAM's net billing) or ``proportional`` (its net metering).

    Raises:
        UrdbError: With the faults of its structures.
    """
    return _Converter(rate, zone, tiers).document()


@dataclasses.dataclass(frozen=True)
class _Rung:
    """A tier of a URDB structure."""

    upto: Decimal
    price: Decimal
    sell: Decimal


class _Converter:
    def __init__(self, rate: Mapping[str, Any], zone: str | None, tiers: str) -> None:
        self.rate = dict(rate)
        self.zone = zone
        self.allocation = tiers
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.used: set[str] = set()
        self.terms: dict[str, int] = {}

    def take(self, key: str, default: Any = None) -> Any:
        """Return a value and note that it was looked at."""
        self.used.add(key)
        return self.rate.get(key, default)

    def number(self, key: str) -> Decimal:
        """Return a number, 0 where it is not given."""
        return self._decimal(self.take(key, 0), key)

    def _decimal(self, value: Any, place: str) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.faults.append(f"{place}: {value!r} is not a number")
            return Decimal(0)
        return Decimal(value)

    def document(self) -> dict[str, Any]:
        """Return the whole document."""
        version = self._version()
        if self.faults:
            raise UrdbError(self.faults)
        zone = self.zone or "UTC"
        if self.zone is None:
            self.notes.append("the rate has no time zone: UTC was taken; import it with --zone")
        standard = _standard_offset(zone)
        document: dict[str, Any] = {
            "tariff_id": _name(f"urdb-{self.take('label', 'rate')}"),
            "name": str(self.take("name", "URDB rate"))[:TEXT_MAX],
            "currency": "USD",
            "zone": zone,
            "clocks": {"schedule": standard, "demand": standard},
        }
        sources = {"url": self.take("uri") or self.take("source"), "doc_no": self.take("sourceparent")}
        document["sources"] = [{key: str(value) for key, value in sources.items() if value}]
        if self.terms:
            document["terms"] = self.terms
        document["eligibility"] = self._rest()
        if self.notes:
            document["not_represented"] = self.notes
        document["versions"] = [version]
        return {key: value for key, value in document.items() if value not in ([{}], {}, [])}

    def _rest(self) -> dict[str, str]:
        """Return what is only told, not computed; name what is neither."""
        told = {}
        for key, value in self.rate.items():
            if key in self.used and key not in ("uri", "source", "sourceparent"):
                continue
            if isinstance(value, str | int | Decimal) and str(value):
                told[key] = str(value)[:TEXT_MAX]
            elif key in ("revisions", "attrs", "fixedattrs", "demandattrs", "energyattrs", "sourceattrs"):
                told[key] = json.dumps(value, default=str)[:TEXT_MAX]
            else:
                self.notes.append(f"{key}: {json.dumps(value, default=str)[:500]}")
        return told

    def _version(self) -> dict[str, Any]:
        start = self.take("startdate")
        version: dict[str, Any] = {"valid_from": _day(start) if start else "2000-01-01"}
        if end := self.take("enddate"):
            version["valid_to"] = _day(end)
        energy = self._structure("energyratestructure")
        if not energy:
            self.faults.append("energyratestructure: is missing")
            return version
        calendar = _Calendar(self, len(energy))
        if self.faults:
            return version
        version["seasons"] = calendar.seasons()
        version["windows"] = calendar.windows()
        self._energy(version, energy, calendar)
        self._export(version, energy, calendar)
        version["demand"] = self._demand(calendar)
        self._by_time(version, calendar)
        return {key: value for key, value in version.items() if value not in ([], {})}

    def _structure(self, key: str) -> list[list[_Rung]]:
        """Return a rate structure: tiers by period, prices with their adjustments, the last tier open."""
        found = []
        for place, rows in enumerate(self.take(key, [])):
            rungs = []
            for number, row in enumerate(rows):
                at = f"{key}[{place}][{number}]"
                price = self._decimal(row.get("rate", 0), f"{at}.rate") + self._decimal(row.get("adj", 0), f"{at}.adj")
                upto = self._decimal(row["max"], f"{at}.max") if row.get("max") is not None else OPEN
                if number == len(rows) - 1 and upto < OPEN:
                    self.notes.append(f"{at}.max: {upto} ends the last tier; it is open here")
                    upto = OPEN
                rungs.append(_Rung(upto, price, self._decimal(row.get("sell", 0), f"{at}.sell")))
                for name in sorted(set(row) - {"rate", "adj", "max", "unit", "sell"}):
                    self.notes.append(f"{at}.{name}: {row[name]}")
            if [rung.upto for rung in rungs] != sorted({rung.upto for rung in rungs}):
                self.faults.append(f"{key}[{place}]: tiers must have rising bounds, the last one open")
            found.append(rungs)
        return found

    def _energy(self, version: dict[str, Any], energy: list[list[_Rung]], calendar: "_Calendar") -> None:
        units = {
            str(row.get("unit", "kWh")).lower()
            for rows in self.rate["energyratestructure"]
            if len(rows) > 1
            for row in rows
        }
        for unit in sorted(units - set(TIER_UNITS)):
            self.faults.append(f"energyratestructure: unit {unit!r} is not known")
        if len(units) > 1:
            self.faults.append(f"energyratestructure: units {', '.join(sorted(units))} in one rate")
        period = calendar.energy_period
        version["prices"] = {name: _text(energy[code][0].price) for name, code in period.items()}
        ladders = {season: calendar.codes_in(season, 0) for season in calendar.season_names}
        edges = {season: _edges(energy, codes) for season, codes in ladders.items()}
        if not any(edges.values()):
            return
        if any(len({tuple(r.upto for r in energy[code]) for code in codes}) > 1 for codes in ladders.values()):
            self.notes.append(
                "energyratestructure: bounds differ between periods of one month: all are bounds of its total"
            )
        version["tiers"] = {
            season: [
                {
                    **({"up_to_kwh": _bound(upto)} if upto < OPEN else {}),
                    "prices": {
                        name: _text(_rung_at(energy[code], upto).price)
                        for name, code in period.items()
                        if name in calendar.periods_in(season)
                    },
                }
                for upto in (*edges[season], OPEN)
            ]
            for season in calendar.season_names
        }
        unit = TIER_UNITS.get(next(iter(units), "kwh"), "kWh")
        version["tier_rule"] = {"allocation": self.allocation, "unit": unit}

    def _export(self, version: dict[str, Any], energy: list[list[_Rung]], calendar: "_Calendar") -> None:
        rule = self.take("dgrules")
        sells = any(rung.sell for rungs in energy for rung in rungs)
        if rule is None:
            if sells:
                self.notes.append("energyratestructure: sell prices without dgrules; nothing is paid for energy fed in")
            return
        mode = EXPORT_MODES.get(str(rule).lower())
        if mode is None:
            self.notes.append(f"dgrules: {rule!r} is not known; nothing is paid for energy fed in")
            return
        if any(len({rung.sell for rung in rungs}) > 1 for rungs in energy):
            self.notes.append("energyratestructure: sell prices differ between tiers; the first tier's are paid")
        prices = {name: _text(energy[code][0].sell) for name, code in calendar.energy_period.items()}
        version["export"] = mode if mode["mode"] == "nem_kwh" else {**mode, "prices": prices}
        if mode["mode"] == "nem_kwh" and sells:
            version["export"] = {**mode}
            self.notes.append("energyratestructure: sell prices under net metering; energy is set off in kWh")

    def _demand(self, calendar: "_Calendar") -> list[dict[str, Any]]:
        found = []
        window = {"window_min": int(self.take("demandwindow", 15))}
        ratchet = self._ratchet()
        flat = self._structure("flatdemandstructure")
        months = self.take("flatdemandmonths")
        if flat and (not isinstance(months, list) or len(months) != 12):
            self.faults.append("flatdemandmonths: must be 12 indices")
        elif flat:
            quantity = self._demand_unit("flatdemandunit")
            index = {season: flat[int(months[calendar.month_in(season)])] for season in calendar.season_names}
            found.append({"id": "flat-demand", **window, **quantity, **ratchet, **self._demand_prices(index, quantity)})
        for place, rungs in enumerate(self._structure("demandratestructure")):
            names = calendar.names_with(1, place)
            if names:
                quantity = self._demand_unit("demandrateunit")
                same = dict.fromkeys(calendar.season_names, rungs)
                charge = {"id": f"tou-demand-{place}", "scope": "period", "periods": names, **window, **quantity}
                found.append({**charge, **ratchet, **self._demand_prices(same, quantity)})
            else:
                self.notes.append(f"demandratestructure[{place}]: no hour has this period")
        return [*found, *self._coincident(calendar)]

    def _coincident(self, calendar: "_Calendar") -> list[dict[str, Any]]:
        found = []
        rows = self.take("coincidentrateschedule")
        for place, rungs in enumerate(self._structure("coincidentratestructure")):
            quantity = self._demand_unit("coincidentrateunit")
            same = dict.fromkeys(calendar.season_names, rungs)
            charge = {"id": f"coincident-demand-{place}", "scope": "coincident", "window_min": 60, **quantity}
            found.append({**charge, **self._demand_prices(same, quantity)})
        if rows is not None:
            self.notes.append("coincidentrateschedule: the system's peak hours are given with --system-peak")
        return found

    def _demand_unit(self, key: str) -> dict[str, Any]:
        unit = str(self.take(key, "kW"))
        base = unit.lower().removesuffix(" daily")
        if unit.lower().endswith(" daily"):
            self.notes.append(
                f"{key}: {unit!r}: a price for each day's peak is charged on the cycle's peak for each day"
            )
            return {"per": "day", "quantity": "kVA" if base == "kva" else "kW"}
        if base == "hp":
            self.notes.append(f"{key}: horsepower is charged as kW, 1 hp = {HORSEPOWER_KW} kW")
        elif base not in ("kw", "kva"):
            self.notes.append(f"{key}: {unit!r} is taken for kW")
        return {"quantity": "kVA" if base == "kva" else "kW"}

    def _demand_prices(self, by_season: Mapping[str, list[_Rung]], quantity: Mapping[str, Any]) -> dict[str, Any]:
        assert quantity
        edges = sorted({rung.upto for rungs in by_season.values() for rung in rungs if rung.upto < OPEN})
        if not edges:
            return {"prices": _one_or_table({season: _text(rungs[0].price) for season, rungs in by_season.items()})}
        return {
            "tiers": [
                {
                    **({"up_to_kw": _bound(upto)} if upto < OPEN else {}),
                    "prices": _one_or_table(
                        {season: _text(_rung_at(rungs, upto).price) for season, rungs in by_season.items()}
                    ),
                }
                for upto in (*edges, OPEN)
            ]
        }

    def _ratchet(self) -> dict[str, Any]:
        percent = self.number("lookbackpercent")
        span = int(self.take("lookbackrange", 0) or 0)
        months = [place + 1 for place, flag in enumerate(self.take("lookbackmonths", [])) if flag]
        legacy = [self._decimal(item, "demandratchetpercentage") for item in self.take("demandratchetpercentage", [])]
        if legacy and any(legacy):
            if len(set(legacy)) > 1:
                self.notes.append(f"demandratchetpercentage: differs by month: {', '.join(map(str, legacy))}")
            elif not percent:
                percent = legacy[0]
        if not percent:
            return {}
        hundred = percent * 100 if percent <= 1 else percent
        ratchet: dict[str, Any] = {"percent": _text(hundred), "months": min(max(span or 11, 1), 24)}
        return {"ratchet": ratchet | ({"of_months": months} if months else {})}

    def _by_time(self, version: dict[str, Any], calendar: "_Calendar") -> None:
        """Fixed charges, minimum bills, reactive power, fuel adjustments."""
        fixed = []
        for key, name in (("fixedchargefirstmeter", "fixed"), ("fixedmonthlycharge", "fixed-monthly")):
            if amount := self.number(key):
                per = self._per("fixedchargeunits") if key == "fixedchargefirstmeter" else "month"
                fixed.append({"id": name, "amount": _text(amount), "per": per})
        if amount := self.number("fixedchargeeaaddl"):
            self.terms["additional_meters"] = 0
            per = self._per("fixedchargeunits")
            fixed.append({"id": "additional", "amount": _text(amount), "per": per, "times": "additional_meters"})
        version["fixed_charge"] = fixed
        minimum = []
        if amount := self.number("mincharge"):
            minimum.append({"id": "minimum", "amount": _text(amount), "per": self._per("minchargeunits")})
        if amount := self.number("annualmincharge"):
            minimum.append({"id": "annual-minimum", "amount": _text(amount), "per": "year"})
        for item in minimum:
            item["tops_up"] = ["energy", "demand", "fixed"]  # type: ignore[assignment]  # what PySAM tops up
        version["minimum"] = minimum
        if price := self.number("demandreactivepowercharge"):
            version["reactive"] = [{"id": "reactive-power", "mode": "kvar", "price": _text(price), "optional": True}]
        fuel = [self._decimal(item, "fueladjustmentsmonthly") for item in self.take("fueladjustmentsmonthly", [])]
        if len(fuel) == 12 and any(fuel):
            table = {season: _text(fuel[calendar.month_in(season)]) for season in calendar.season_names}
            version["surcharges"] = [{"id": "fuel-adjustment", "per": "kWh", "amount": table}]

    def _per(self, key: str) -> str:
        unit = str(self.take(key, "$/month"))
        per = {"$/day": "day", "$/month": "month", "$/year": "year"}.get(unit)
        if per is None:
            self.notes.append(f"{key}: {unit!r} is taken for $/month")
        return per or "month"


class _Calendar:
    """Seasons, windows and periods of a rate's schedules."""

    def __init__(self, converter: _Converter, energy_periods: int) -> None:
        self.grids: list[tuple[Any, Any]] = []
        take = converter.take
        for kind in SCHEDULES:
            grids = tuple(
                self._grid(converter, take(f"{kind}{part}schedule"), f"{kind}{part}schedule")
                for part in ("weekday", "weekend")
            )
            self.grids.append(grids)  # type: ignore[arg-type]
        labels = take("energytoulabels", [])
        self._labels = labels if isinstance(labels, list) and len(labels) == energy_periods else []
        self._has_demand = "demandratestructure" in converter.rate
        highest = max(code for grid in self.grids[0] for row in grid for code in row)
        if highest >= energy_periods:
            converter.faults.append(f"energyweekdayschedule: period {highest} is not in energyratestructure")
        flat, fuel = take("flatdemandmonths"), take("fueladjustmentsmonthly")
        groups: dict[Any, list[int]] = {}
        for month in range(12):
            key = (
                *(tuple(grid[month]) for grids in self.grids for grid in grids),
                *(series[month] for series in (flat, fuel) if isinstance(series, list) and len(series) == 12),
            )
            groups.setdefault(key, []).append(month)
        self._months = {_season_name(months): months for months in groups.values()}
        self.season_names = list(self._months)

    @staticmethod
    def _grid(converter: _Converter, rows: Any, place: str) -> list[list[int]]:
        if rows is None:
            return [[0] * 24 for _ in range(12)]
        good = (
            isinstance(rows, list) and len(rows) == 12 and all(isinstance(row, list) and len(row) == 24 for row in rows)
        )
        if not good or not all(isinstance(code, int) and code >= 0 for row in rows for code in row):
            converter.faults.append(f"{place}: must be 12 rows of 24 period numbers")
            return [[0] * 24 for _ in range(12)]
        return rows

    def month_in(self, season: str) -> int:
        """Return the first month of a season, from 0."""
        return self._months[season][0]

    def seasons(self) -> list[dict[str, str]]:
        """Return the seasons' parts: runs of months."""
        parts = []
        for name, months in self._months.items():
            for first in (month for month in months if month - 1 not in months):
                last = first
                while last + 1 in months:
                    last += 1
                end = (dt.date(2024, last + 1, 28) + dt.timedelta(days=4)).replace(day=1) - dt.timedelta(days=1)
                parts.append({"name": name, "from": f"{first + 1:02d}-01", "to": f"{last + 1:02d}-{end.day:02d}"})
        return parts

    def _combos(self, month: int, part: int) -> list[tuple[int, int]]:
        energy, demand = (grids[part][month] for grids in self.grids)
        return list(zip(energy, demand, strict=True))

    def _period(self, combo: tuple[int, int]) -> str:
        energy, demand = combo
        name = f"{_name(str(self._labels[energy]))}" if self._labels else f"e{energy}"
        if self._labels and self._labels.count(self._labels[energy]) > 1:
            name += f"_e{energy}"
        return f"{name}_d{demand}" if self._has_demand else name

    def windows(self) -> list[dict[str, Any]]:
        """Return the windows of all seasons: runs of hours."""
        found: list[dict[str, Any]] = []
        for season in self.season_names:
            month = self.month_in(season)
            weekday, weekend = (self._combos(month, part) for part in (0, 1))
            kinds: list[tuple[list[str] | None, list[tuple[int, int]]]] = [(None, weekday)]
            if weekday != weekend:
                kinds = [(["workday"], weekday), (["weekend", "holiday"], weekend)]
            for day_types, hours in kinds:
                for first in (hour for hour in range(24) if hour == 0 or hours[hour] != hours[hour - 1]):
                    end = next((hour for hour in range(first, 24) if hours[hour] != hours[first]), 24)
                    window: dict[str, Any] = {
                        "period": self._period(hours[first]),
                        "from": f"{first:02d}:00",
                        "to": f"{end:02d}:00",
                        "seasons": [season],
                    }
                    found.append(window | ({"day_types": [*day_types]} if day_types else {}))
        return found

    def _all(self, wanted: Callable[[int], bool] = lambda _: True) -> list[tuple[int, int]]:
        combos = [
            combo
            for season in self.season_names
            if wanted(self.month_in(season))
            for part in (0, 1)
            for combo in self._combos(self.month_in(season), part)
        ]
        return list(dict.fromkeys(combos))

    @property
    def energy_period(self) -> dict[str, int]:
        """Return the energy period of each period."""
        return {self._period(combo): combo[0] for combo in sorted(self._all())}

    def names_with(self, kind: int, code: int) -> list[str]:
        """Return the periods that a URDB period of energy (0) or demand (1) is part of."""
        return [self._period(combo) for combo in sorted(self._all()) if combo[kind] == code]

    def periods_in(self, season: str) -> set[str]:
        """Return the periods that occur in a season."""
        return {self._period(combo) for combo in self._all(lambda month: month == self.month_in(season))}

    def codes_in(self, season: str, kind: int) -> list[int]:
        """Return the URDB periods that occur in a season."""
        return sorted({combo[kind] for combo in self._all(lambda month: month == self.month_in(season))})


def _season_name(months: Sequence[int]) -> str:
    return "all_months" if len(months) == 12 else "_".join(MONTHS[month] for month in months)


def _edges(energy: list[list[_Rung]], codes: Sequence[int]) -> list[Decimal]:
    return sorted({rung.upto for code in codes for rung in energy[code] if rung.upto < OPEN})


def _rung_at(rungs: Sequence[_Rung], upto: Decimal) -> _Rung:
    """Return the tier that energy or power just below a bound is in."""
    return next(rung for rung in rungs if upto <= rung.upto)


def _text(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _bound(number: Decimal) -> int | str:
    return int(number) if number == int(number) else _text(number)


def _one_or_table(prices: Mapping[str, str]) -> Any:
    return next(iter(prices.values())) if len(set(prices.values())) == 1 else dict(prices)


def _name(text: str) -> str:
    return re.sub(r"[\s.:/\[\]]+", "-", text)[:60] or "rate"


def _day(epoch_s: Any) -> str:
    return dt.datetime.fromtimestamp(int(epoch_s), dt.UTC).date().isoformat()


def _standard_offset(zone: str) -> str:
    """Return the standard offset of a zone, as URDB's hours are counted."""
    moment = dt.datetime(2026, 1, 15, tzinfo=ZoneInfo(zone))
    offset = (moment.utcoffset() or dt.timedelta()) - (moment.dst() or dt.timedelta())
    minutes = int(offset.total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
