"""The tariff document: what a utility writes (docs/tariffs.md), as types; its JSON Schema is made from them.

Money and prices are decimals in quotes. Amounts of energy, power and time may be whole numbers. Everything that has
several values by season or time-of-use period is a table: one number, by period (or by season), or by season and period.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from schemas.document import (
    Between,
    Clock,
    Date,
    MonthDay,
    Name,
    Number,
    OneOrBySeason,
    OneOrMany,
    Quantity,
    Table,
    Text,
    schema_of,
)

Prorate = Literal["none", "calendar", "thirty", "annual"]
Mode = Literal["half_up", "half_even", "down", "up"]


def note(meaning: str, **default: Any) -> Any:
    """Return a field with what it means; `default` or `default_factory` as of `dataclasses.field`."""
    return dataclasses.field(metadata={"meaning": meaning}, **default)


def no_items() -> Any:
    """Return a field that is an empty tuple unless given."""
    return dataclasses.field(default=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeasonPart:
    """Part of the year from a first to a last day, both included; several parts may have one name."""

    name: Name
    from_: MonthDay
    to: MonthDay


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowRow:
    """A time of day that belongs to a period; the first window that fits a moment decides."""

    period: Name
    from_: Clock
    to: Clock
    seasons: tuple[Name, ...] | None = note("All when not given.", default=None)
    day_types: tuple[Name, ...] | None = note(
        "workday, saturday, sunday, weekend, holiday, monday ... sunday, a name of `days` or `flags`.", default=None
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composed:
    """Parts that a listed price is made of; only a check, the listed price is billed."""

    parts: Mapping[str, Number]
    floats: tuple[Name, ...] = note("Parts that the multipliers act on.", default=())
    multipliers: Mapping[str, Number] = note("By period.", default_factory=dict)
    digits: Annotated[int, Between(0, 12)] = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """A published price series, and how the price of a kWh is made of it."""

    name: Name
    interval_min: Annotated[int, Between(5, 60)] = 30
    multiply: Number = note("Of the published price, in currency per kWh.", default=Decimal(1))
    add: Number = Decimal(0)
    add_when: Mapping[str, Number] = note("Added in a period.", default_factory=dict)
    min: Number | None = None
    max: Number | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyComponent:
    """A further price of energy beside `prices`: of another register, in another unit, or indexed."""

    id: Name
    register: Literal["import", "export", "controlled"] = "import"
    unit: Literal["kWh", "kVAh"] = "kWh"
    prices: Table | None = None
    index: Index | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TierRow:
    """Energy up to a bound, and what is added to every price in it, or the prices in it."""

    up_to_kwh: Quantity | None = note("None for the last: open.", default=None)
    adder: Number | None = None
    prices: Table | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TierRule:
    """How energy is counted into tiers."""

    allocation: Literal["additive", "sequential", "proportional"] = note(
        "additive: adders on the total; sequential: in order of time; proportional: each tier shared over the periods.",
        default="additive",
    )
    unit: Literal["kWh", "kWh_per_day", "kWh_per_kW", "kWh_per_kW_day"] = "kWh"
    per: Literal["cycle", "season", "year"] = "cycle"
    prorate: Literal["none", "thirty", "calendar", "months"] = note(
        "Bounds by days / 30, by days / days of the month, or (per: year) by months in service / 12.", default="none"
    )
    on_change: Literal["carry", "reset"] = note("Position when a new version begins inside the cycle.", default="carry")
    pooled: Literal["all", "per_period"] = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedCharge:
    """An amount by time, not by use."""

    id: Name = "fixed"
    amount: Table
    per: Literal["cycle", "day", "month", "year"] = "cycle"
    prorate: Prorate = note(
        "none: one a cycle; calendar: days of the month or year; thirty: 30 and 360; annual: 365.", default="none"
    )
    times: Name | None = note("A term of the contract, such as contract_kw or capacity_kva.", default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverBand:
    """Power over the contract up to a share of it, and how many times the price it costs."""

    up_to_share: Number | None = None
    multiplier: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract:
    """Charged by the contracted power, with what exceeds it."""

    term: Name = "contract_kw"
    tolerance: Number = note("Times the contracted power before it counts as exceeded.", default=Decimal(1))
    over: tuple[OverBand, ...] = ()
    floor_share: Number | None = note("Least contracted power, as a share of the capacity.", default=None)
    capacity_term: Name = "capacity_kva"
    base: bool = note("False: only what exceeds is charged (the contract has its own fixed charge).", default=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratchet:
    """Billed demand is at least a share of the highest of earlier cycles."""

    percent: Number
    months: Annotated[int, Between(1, 24)] = 11
    of_months: tuple[Annotated[int, Between(1, 12)], ...] = note("Earlier months that count; all if none.", default=())
    min_kw: Quantity = Decimal(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Average:
    """A mean of highest demands in place of the one highest."""

    top_n: Annotated[int, Between(1, 31)] = 1
    distinct_days: bool = True
    rolling_months: Annotated[int, Between(1, 36)] = 1
    floor_kw: Quantity = Decimal(0)
    floor_on: Literal["month", "mean"] = "month"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemandTier:
    """Power up to a bound, and its prices."""

    up_to_kw: Quantity | None = None
    prices: Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemandDiscount:
    """A factor on the price in cycles with much energy for the capacity."""

    kwh_per_kva_min: Quantity
    factor: Number
    capacity_term: Name = "capacity_kva"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemandCharge:
    """A price of power."""

    id: Name = "demand"
    scope: Literal["anytime", "period", "coincident"] = "anytime"
    periods: tuple[Name, ...] = note(
        "Of scope period: one line for the highest demand in any of these, its price by season; else a line a period.",
        default=(),
    )
    quantity: Literal["kW", "kVA", "kvar"] = "kW"
    window_min: Annotated[int, Between(5, 1440)] = 15
    method: Literal["block", "sliding"] = "block"
    slip_min: Annotated[int, Between(1, 60)] = 5
    basis: Literal["actual", "contract", "capacity"] = "actual"
    prices: Table | None = None
    tiers: tuple[DemandTier, ...] = ()
    per: Literal["cycle", "day", "month", "year"] = "month"
    prorate: Prorate = "none"
    contract: Contract | None = None
    ratchet: Ratchet | None = None
    average: Average | None = None
    discount: DemandDiscount | None = None
    min_kw: Quantity = Decimal(0)
    on_change: Literal["per_side_days", "last"] = note(
        "Maximum of each version or season by its days, or only of the last.", default="per_side_days"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerFactorRow:
    """From a power factor on: percent of the base, negative for a reduction."""

    from_: Number
    percent: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ramp:
    """A percentage for each step of the power factor away from a base."""

    base: Number
    step: Number = Decimal("0.01")
    percent: Number
    best: Number = Decimal(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reactive:
    """Reactive energy and power factor."""

    id: Name = "reactive"
    mode: Literal["cn_table", "table", "ramp", "ratio", "kvarh", "kvar"]
    standard: Literal["0.90", "0.85", "0.80"] = note("Of mode cn_table.", default="0.90")
    table: tuple[PowerFactorRow, ...] = note("Highest first.", default=())
    ramp: Ramp | None = None
    digits: Annotated[int, Between(0, 6)] = note("That the power factor is rounded to.", default=2)
    q: Literal["absolute_sum", "import"] = note("Both directions, or only what is drawn.", default="absolute_sum")
    base: tuple[Name, ...] = note("Kinds or ids of lines that the percentage is of.", default=("energy", "demand"))
    less_per_kwh: Number = note("Taken off the base for each kWh (government funds).", default=Decimal(0))
    ratio: Number = note("kvarh per kWh (or kvar per kW) that is free.", default=Decimal(0))
    price: Number = note("Per kvarh or kvar.", default=Decimal(0))
    window_min: Annotated[int, Between(5, 60)] = 15
    optional: bool = note("True: no line where the load has no reactive energy; else that is an error.", default=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """What is paid for energy fed in, and how it is set against energy drawn."""

    id: Name = "export"
    mode: Literal["nem_kwh", "nem_money", "net_billing", "net_billing_carry", "buy_all"]
    netting: Literal["interval", "hour", "period", "bill"] | None = note(
        "nem_*: period when not given; net_billing*: interval; buy_all: never.", default=None
    )
    prices: Table | None = None
    index: Index | None = None
    against: tuple[Name, ...] = note("Kinds or ids of lines that money credits are used against.", default=("energy",))
    rollover_factor: Number = Decimal(1)
    true_up_month: Annotated[int, Between(1, 12)] = 12
    year_end_price: Number = note("Per kWh of credit left at true-up (nem_kwh).", default=Decimal(0))
    pays_out: bool = note("Money left at true-up is paid out; else it is forfeited.", default=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Minimum:
    """A bill's least amount, filled up by a line."""

    id: Name = "minimum"
    amount: Number
    per: Literal["cycle", "day", "month", "year"] = "cycle"
    prorate: Prorate = "none"
    tops_up: tuple[Name, ...] = ("energy", "demand", "fixed", "reactive", "surcharge", "discount")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurchargeBand:
    """Energy of a cycle up to a bound, and what each kWh of it costs more."""

    up_to_kwh: Quantity | None = None
    amount: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surcharge:
    """An amount by energy, by bill, by day, or in percent of other lines."""

    id: Name
    per: Literal["kWh", "cycle", "day", "percent"]
    amount: Table | None = None
    bands: tuple[SurchargeBand, ...] = no_items()
    per_days: bool = note("The bounds of bands are of a 30-day month and follow the days of the cycle.", default=False)
    base: tuple[Name, ...] = ("energy", "demand", "fixed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Discount:
    """Energy for nothing, a percentage, or an amount off."""

    id: Name
    kwh_free: Quantity | None = note("At the mean price of the cycle's energy.", default=None)
    percent: Number | None = None
    amount: Number | None = None
    base: tuple[Name, ...] = ("energy", "demand", "fixed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tax:
    """A tax on the sum of lines."""

    id: Name
    rate: Number = note('A fraction: "0.05" is 5 %.')
    inclusive: bool = False
    base: tuple[Name, ...] = note("Kinds or ids; all if none.", default=())
    exempt: tuple[Name, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """A step and how halves go."""

    step: Number
    mode: Mode = "half_up"


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantityRound:
    """How energy is rounded before it is priced, in kWh."""

    step: Number
    mode: Mode = "half_even"
    of: Literal["interval", "line"] = "interval"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounding:
    """What is rounded, and where; what is not named is not rounded but the total."""

    quantity: QuantityRound | None = None
    price: Round | None = note("Prices made by index, composition or discount.", default=None)
    line: Round | None = note("Each line; the total is then the sum of rounded lines.", default=None)
    total: Round | None = note("The bill; to `digits`, half up, when not given.", default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clocks:
    """Clocks other than the zone's: ``zone``, ``utc`` or a fixed offset such as ``+08:00``."""

    schedule: Text = note("That switches periods, seasons and day types.", default="zone")
    demand: Text = note("That demand windows are aligned to.", default="zone")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where the figures are from."""

    url: Text | None = None
    doc_no: Text | None = None
    retrieved: Date | None = None
    licence: Text | None = None
    verified_by: Text | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """What holds from a local day on, until `valid_to` or the next version."""

    valid_from: Date
    valid_to: Date | None = note("First day that it does not hold.", default=None)
    seasons: tuple[SeasonPart, ...] = no_items()
    holidays: tuple[Date, ...] = no_items()
    days: Mapping[str, tuple[Date, ...]] = note("Named days, beside their ordinary day type.", default_factory=dict)
    flags: tuple[Name, ...] = note("Published day flags; they may arrive late.", default=())
    windows: tuple[WindowRow, ...] = no_items()
    rest: Name | None = note(
        "Period of what no window names; without it the windows must tile every day.", default=None
    )
    prices: Table | None = note("Currency per kWh of the import register.", default=None)
    composed: Composed | None = None
    tiers: Annotated[Mapping[str, tuple[TierRow, ...]], OneOrBySeason()] = note(
        "A list of tiers, or one by season (that of the cycle's first day).", default_factory=dict
    )
    tier_rule: TierRule = dataclasses.field(default_factory=TierRule)
    energy: tuple[EnergyComponent, ...] = no_items()
    fixed_charge: Annotated[tuple[FixedCharge, ...], OneOrMany()] = no_items()
    demand: Annotated[tuple[DemandCharge, ...], OneOrMany()] = no_items()
    reactive: Annotated[tuple[Reactive, ...], OneOrMany()] = no_items()
    export: Export | None = None
    minimum: Annotated[tuple[Minimum, ...], OneOrMany()] = no_items()
    surcharges: tuple[Surcharge, ...] = no_items()
    discounts: tuple[Discount, ...] = no_items()
    taxes: tuple[Tax, ...] = no_items()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TariffDocument:
    """A price structure with all its versions, oldest first."""

    tariff_id: Name
    name: Text = ""
    source: Text | None = None
    sources: tuple[Source, ...] = no_items()
    eligibility: Mapping[str, Text] = dataclasses.field(default_factory=dict)
    currency: Text
    zone: Text
    clocks: Clocks = dataclasses.field(default_factory=Clocks)
    digits: Annotated[int, Between(0, 6)] = note("Decimals of a bill's total.", default=2)
    rounding: Rounding = dataclasses.field(default_factory=Rounding)
    terms: Mapping[str, Quantity] = note("Terms of a contract when it has none of its own.", default_factory=dict)
    not_represented: tuple[Text, ...] = note("What an import could not say in this format.", default=())
    versions: tuple[Version, ...]


def tariff_schema() -> dict[str, Any]:
    """Return the JSON Schema of a tariff document."""
    definitions: dict[str, Any] = {}
    top = schema_of(TariffDocument, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gridtally tariff",
        **top,
        "$defs": definitions,
    }


def main(arguments: list[str]) -> int:
    """Write the schema into a directory; called by `make docs`."""
    if len(arguments) != 1:
        print("usage: python -m schemas.tariff DIRECTORY", file=sys.stderr)  # noqa: T201  # it is a command here
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tariff.json").write_text(json.dumps(tariff_schema(), indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
