"""Tariffs and loads by chance, of every kind that docs/tariffs.md knows; the same ones for the same seed."""

import datetime as dt
import random
from typing import Any

ZONES = ["Europe/Berlin", "Europe/London", "America/New_York", "Australia/Sydney", "Asia/Shanghai", "Asia/Kolkata"]
CLOCKS = ["zone", "zone", "zone", "utc", "+08:00", "-05:00"]
PERIODS = ["rest", "peak", "sharp"]
DAY_TYPES = ["workday", "weekend", "holiday", "saturday", "sunday", "monday", "festival", "heat_day"]
TERMS = {"contract_kw": 4, "capacity_kva": 9}
NONE: dict[str, Any] = {}


class Maker:
    """Makes the parts of a document by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.index_min = self.chance.choice([15, 30, 60])
        """Interval of the price series."""

    def odds(self, share: float) -> bool:
        return self.chance.random() < share

    def price(self, high: float, digits: int = 5) -> str:
        return f"{self.chance.uniform(0, high):.{digits}f}"

    def by_season(self, seasons: list[str], high: float) -> Any:
        return {name: self.price(high) for name in seasons} if seasons and self.odds(0.5) else self.price(high)

    def table(self, seasons: list[str], high: float) -> Any:
        kind = self.chance.choice(["one", "period", "both"] if seasons else ["one", "period"])
        if kind == "one":
            return self.price(high)
        by_period = {period: self.price(high) for period in PERIODS}
        return by_period if kind == "period" else {name: {p: self.price(high) for p in PERIODS} for name in seasons}

    def windows(self, seasons: list[str], edge_min: int) -> list[dict[str, Any]]:
        rows = []
        for _ in range(self.chance.randint(1, 4)):
            low, high = sorted(self.chance.sample(range(1440 // edge_min + 1), 2))
            row: dict[str, Any] = {
                "period": self.chance.choice(PERIODS[1:]),
                "from": clock_text(low * edge_min),
                "to": clock_text(high * edge_min),
            }
            if seasons and self.odds(0.3):
                row["seasons"] = [self.chance.choice(seasons)]
            if self.odds(0.6):
                row["day_types"] = self.chance.sample(DAY_TYPES, self.chance.randint(1, 3))
            rows.append(row)
        # Every period is named somewhere, so that tables by period know it.
        rows += [
            {"period": period, "from": "03:00", "to": "04:00", "day_types": ["festival"]} for period in PERIODS[1:]
        ]
        return rows

    def tiers(self, seasons: list[str]) -> dict[str, Any]:
        allocation = self.chance.choice(["additive", "sequential", "proportional"])
        unit = self.chance.choice(["kWh", "kWh", "kWh_per_day", "kWh_per_kW", "kWh_per_kW_day"])
        high = {"kWh": 900, "kWh_per_day": 30, "kWh_per_kW": 300, "kWh_per_kW_day": 10}[unit]
        bounds = sorted(self.chance.sample(range(1, high + 1), self.chance.randint(1, 2)))

        own = bool(seasons) and self.odds(0.3)

        def row(bound: int | None) -> dict[str, Any]:
            last = NONE if bound is None else {"up_to_kwh": bound}
            if allocation == "additive" or self.odds(0.5):
                return {**last, "adder": self.price(0.3)}
            return {**last, "prices": self.table([] if own else seasons, 0.5)}

        def ladder() -> list[dict[str, Any]]:
            return [row(bound) for bound in [*bounds, None]]

        rule = {
            "allocation": allocation,
            "unit": unit,
            "per": self.chance.choice(["cycle", "cycle", "season", "year"]),
            "prorate": self.chance.choice(["none", "thirty", "calendar", "months"]),
            "on_change": self.chance.choice(["carry", "reset"]),
        }
        if rule["per"] != "cycle":  # a ladder of a year or season that begins anew is not kept by the history
            rule["on_change"] = "carry"
        if rule["per"] == "cycle" and allocation != "additive":
            rule["pooled"] = self.chance.choice(["all", "per_period"])
        return {
            "tiers": {name: ladder() for name in seasons} if own else ladder(),
            "tier_rule": rule,
        }

    def fixed(self, seasons: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "id": f"fixed{place}",
                "amount": self.by_season(seasons, 20),
                "per": self.chance.choice(["cycle", "day", "month", "year"]),
                "prorate": self.chance.choice(["none", "calendar", "thirty", "annual"]),
                **({"times": self.chance.choice(list(TERMS))} if self.odds(0.3) else NONE),
            }
            for place in range(self.chance.randint(1, 3))
        ]

    def demand(self, seasons: list[str], place: int) -> dict[str, Any]:
        charge: dict[str, Any] = {
            "id": f"demand{place}",
            "quantity": self.chance.choice(["kW", "kW", "kVA", "kvar"]),
            "window_min": self.chance.choice([15, 30, 60]),
            "method": self.chance.choice(["block", "block", "sliding"]),
            "per": self.chance.choice(["cycle", "day", "month", "year"]),
            "prorate": self.chance.choice(["none", "calendar", "thirty", "annual"]),
            "on_change": self.chance.choice(["per_side_days", "per_side_days", "last"]),
            "scope": self.chance.choice(["anytime", "anytime", "period", "coincident"]),
        }
        by_period = False
        if charge["scope"] == "period":
            by_period = self.odds(0.6)
            charge |= NONE if by_period else {"periods": self.chance.sample(PERIODS, 2)}

        def prices() -> Any:
            return self.table(seasons, 9) if by_period else self.by_season(seasons, 9)

        if self.odds(0.2):
            charge |= {"tiers": [{"up_to_kw": 2, "prices": prices()}, {"prices": prices()}]}
        else:
            charge |= {"prices": prices(), "basis": self.chance.choice(["actual", "actual", "contract", "capacity"])}
        if charge.get("basis") == "contract":
            bands = [{"up_to_share": "0.10", "multiplier": "2"}, {"multiplier": "3"}]
            charge["contract"] = {
                "tolerance": "1.05",
                "over": bands[self.chance.randint(0, 1) :],
                "base": self.odds(0.7),
                **({"floor_share": "0.40"} if self.odds(0.4) else NONE),
            }
        if self.odds(0.3):
            months = {"of_months": [6, 7, 8]} if self.odds(0.4) else NONE
            charge["ratchet"] = {"percent": "85", "months": self.chance.randint(1, 6), "min_kw": "1", **months}
        if self.odds(0.3):
            charge["average"] = {
                "top_n": self.chance.randint(1, 4),
                "distinct_days": self.odds(0.5),
                "rolling_months": self.chance.randint(1, 4),
                "floor_kw": "3",
                "floor_on": self.chance.choice(["month", "mean"]),
            }
        if self.odds(0.2):
            charge["discount"] = {"kwh_per_kva_min": 60, "factor": "0.90"}
        if self.odds(0.2):
            charge["min_kw"] = "3.5"
        return charge

    def reactive(self) -> list[dict[str, Any]]:
        mode = self.chance.choice(["cn_table", "table", "ramp", "ratio", "kvarh", "kvar"])
        return [
            {
                "id": "reactive",
                "mode": mode,
                "standard": self.chance.choice(["0.90", "0.85", "0.80"]),
                "table": [
                    {"from": "0.95", "percent": "-1.5"},
                    {"from": "0.8", "percent": "0.5"},
                    {"from": "0", "percent": "4"},
                ],
                "ramp": {"base": "0.85", "percent": "0.3", "best": "0.95"},
                "q": self.chance.choice(["absolute_sum", "import"]),
                "digits": self.chance.choice([2, 3]),
                "less_per_kwh": "0.01",
                "ratio": "0.3",
                "price": "0.02",
                "window_min": self.chance.choice([15, 60]),
            }
        ]

    def export(self, seasons: list[str]) -> dict[str, Any]:
        mode = self.chance.choice(["nem_kwh", "nem_money", "net_billing", "net_billing_carry", "buy_all"])
        found: dict[str, Any] = {
            "mode": mode,
            "prices": self.table(seasons, 0.1),
            "true_up_month": self.chance.choice([4, 12]),
            "year_end_price": "0.03",
            "rollover_factor": self.chance.choice(["1", "0.9"]),
            "pays_out": self.odds(0.5),
            "against": self.chance.choice([["energy"], ["energy", "fixed"]]),
        }
        if mode != "buy_all" and self.odds(0.6):
            found["netting"] = self.chance.choice(["interval", "hour", "period", "bill"])
        if found.get("netting") == "bill" and mode == "nem_kwh":  # credits of a bill are kept under one of its periods
            found["netting"] = "period"
        if found.get("netting") == "bill":  # whose price is meant by what is left of a whole bill is open
            found["prices"] = self.price(0.1)
        return found

    def money(self, seasons: list[str]) -> dict[str, Any]:
        """Return surcharges, discounts, minimum and taxes."""
        found: dict[str, Any] = {
            "surcharges": [
                {"id": "levy", "per": "kWh", "amount": self.table(seasons, 0.05)},
                {
                    "id": "bands",
                    "per": "kWh",
                    "bands": [{"up_to_kwh": 300, "amount": "0.01"}, {"amount": "0.02"}],
                    "per_days": self.odds(0.5),
                },
                {"id": "bill", "per": "cycle", "amount": self.by_season(seasons, 5)},
                {"id": "daily", "per": "day", "amount": self.by_season(seasons, 0.2)},
                {"id": "city", "per": "percent", "amount": "4", "base": ["energy", "surcharge"]},
            ],
            "discounts": [
                {"id": "free", "kwh_free": 50},
                {"id": "loyal", "percent": "2", "base": ["energy", "fixed"]},
                {"id": "flat", "amount": "1.5"},
            ],
            "minimum": [
                {
                    "id": "least",
                    "amount": self.price(300, 2),
                    "per": self.chance.choice(["cycle", "month", "year"]),
                    "prorate": self.chance.choice(["none", "thirty", "calendar"]),
                }
            ],
            "taxes": [
                {"id": "vat", "rate": "0.2", "exempt": ["levy"]},
                {"id": "duty", "rate": "0.05", "base": ["energy", "fixed"]},
                {"id": "gst", "rate": "0.1", "inclusive": True},
            ],
        }
        for name in list(found):
            found[name] = [item for item in found[name] if self.odds(0.4)]
        if not any(item["id"] == "levy" for item in found["surcharges"]):
            found["taxes"] = [{**item, "exempt": []} for item in found["taxes"]]
        return found

    def components(self, seasons: list[str]) -> list[dict[str, Any]]:
        rows = [
            {"id": "controlled", "register": "controlled", "prices": self.table(seasons, 0.2)},
            {"id": "apparent", "unit": "kVAh", "prices": self.table(seasons, 0.1)},
            {
                "id": "spot",
                "index": {
                    "name": "spot",
                    "interval_min": self.index_min,
                    "multiply": "1.1",
                    "add": "0.02",
                    "add_when": {"peak": "0.05"},
                    "min": "-0.05",
                    "max": "0.3",
                },
            },
        ]
        return [row for row in rows if self.odds(0.4)]

    def version(self, valid_from: str, edge_min: int, export: dict[str, Any] | None) -> dict[str, Any]:
        seasons = ["summer", "winter"] if self.odds(0.6) else []
        cut = self.chance.choice(["04-01", "07-10", "11-05"])
        version: dict[str, Any] = {
            "valid_from": valid_from,
            "seasons": [
                {"name": "summer", "from": cut, "to": "12-03"},
                {"name": "winter", "from": "12-04", "to": day_before(cut)},
            ]
            if seasons
            else [],
            "holidays": ["2026-04-06", "2026-11-01"],
            "days": {"festival": ["2026-04-07", "2026-10-30"]},
            "flags": ["heat_day"],
            "windows": self.windows(seasons, edge_min),
            "rest": "rest",
            "prices": self.table(seasons, 0.5),
            **self.money(seasons),
        }
        if self.odds(0.6):
            version |= self.tiers(seasons)
        if self.odds(0.5):
            version["fixed_charge"] = self.fixed(seasons)
        if self.odds(0.6):
            version["demand"] = [self.demand(seasons, place) for place in range(self.chance.randint(1, 2))]
        if self.odds(0.3):
            version["reactive"] = self.reactive()
        if self.odds(0.3):
            version["energy"] = self.components(seasons)
        if export is not None:
            version["export"] = export
            if export.get("netting") == "hour":  # which interval of an hour is set off is open
                version["energy"] = [item for item in version.get("energy", []) if item["id"] == "controlled"]
        return version

    def rounding(self) -> dict[str, Any]:
        modes = ["half_up", "half_even", "down", "up"]
        rules = {
            "line": {"step": "0.01", "mode": self.chance.choice(modes)},
            "total": {"step": self.chance.choice(["1", "0.05"]), "mode": self.chance.choice(modes)},
            "quantity": {"step": "0.01", "mode": "half_even", "of": self.chance.choice(["interval", "line"])},
            "price": {"step": "0.0001"},
        }
        return {name: rule for name, rule in rules.items() if self.odds(0.15)}

    def document(self) -> dict[str, Any]:
        edge_min = self.chance.choice([60, 30, 15, 15, 5])
        export = self.export([]) if self.odds(0.4) else None
        starts = [
            "2026-01-01",
            *(["2026-04-03"] if self.odds(0.4) else []),
            *(["2026-10-28"] if self.odds(0.3) else []),
        ]
        return {
            "tariff_id": "random",
            "currency": "EUR",
            "zone": self.chance.choice(ZONES),
            "clocks": {"schedule": self.chance.choice(CLOCKS), "demand": self.chance.choice(CLOCKS)},
            "digits": self.chance.choice([2, 2, 3, 0]),
            "rounding": self.rounding(),
            "terms": TERMS,
            "versions": [self.version(start, edge_min, export) for start in starts],
        }


def clock_text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def day_before(month_day: str) -> str:
    return (dt.date.fromisoformat(f"2025-{month_day}") - dt.timedelta(days=1)).isoformat()[5:]
