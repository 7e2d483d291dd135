"""Offers: what a past load would have cost under one tariff and another, by billing cycle. Pure."""

import copy
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from metering.bill import History
from metering.calendar import US, local_midnight_s
from metering.contract import Contract, ContractTariff, cycle_of, cycles_between
from metering.rating import rate
from metering.tariff import Tariff, parse_tariff
from metering.usage import Inputs, Load

CYCLES = 12


@dataclasses.dataclass(frozen=True)
class Month:
    """One billing cycle, or what there is of it, under both tariffs."""

    start_on: dt.date
    end_on: dt.date
    energy_wh: int
    present: Decimal
    proposed: Decimal

    @property
    def difference(self) -> Decimal:
        """Return what the proposed tariff costs more; negative is saved."""
        return self.proposed - self.present


def tariff_as_of(document: Mapping[str, Any], day: dt.date) -> Tariff:
    """Return a tariff as if the version of a day had always been in force, so that a past year is priced as it then is.

    Days before a tariff's first version have that one. Holidays of all versions are kept, for those of the past year are in
    the version of then.
    """
    versions = document["versions"]
    started = [version for version in versions if str(version["valid_from"]) <= day.isoformat()]
    only = copy.deepcopy(dict(started[-1] if started else versions[0]))
    only.pop("valid_to", None)
    holidays = sorted({str(one) for version in versions for one in version.get("holidays") or ()})
    if holidays:
        only["holidays"] = holidays
    return parse_tariff({**document, "versions": [only]})


def present_tariff(contract: Contract, day: dt.date) -> ContractTariff:
    """Return the tariff that a contract has on a day, or its first."""
    started = [item for item in contract.tariffs if item.start_on <= day]
    return started[-1] if started else contract.tariffs[0]


def past_span(contract: Contract, today: dt.date) -> tuple[dt.date, dt.date]:
    """Return the days of the last twelve whole billing cycles that the contract covers; without a whole one, what there is."""
    end = cycle_of(contract.billing_day, today)[0]
    start = end
    for _ in range(CYCLES):
        start = cycle_of(contract.billing_day, start - dt.timedelta(days=1))[0]
    start = max(start, contract.start_on)
    return (start, end) if start < end else (start, max(today, start))


def edges_of(contract: Contract, start_on: dt.date, end_on: dt.date) -> list[dt.date]:
    """Return where the billing cycles within some days begin, and their end."""
    inner = [cycle[0] for cycle in cycles_between(contract.billing_day, start_on, end_on) if cycle[0] > start_on]
    return [start_on, *inner, end_on]


def compare(
    load: Load,
    edges: Sequence[dt.date],
    present: tuple[Tariff, Inputs],
    proposed: tuple[Tariff, Inputs],
    since: dt.date,
) -> list[Month]:
    """Return each cycle under both tariffs.

    Args:
        load: Of the past.
        edges: Local days at which billing cycles begin, and the last one's end.
        present: Tariff, with terms, flags and price series.
        proposed: The same of the other.
        since: First day of service.
    """
    one, other = (
        rate(tariff, load, edges, inputs, History(service_since=since)) for tariff, inputs in (present, proposed)
    )
    bounds = np.array([local_midnight_s(present[0], edge) * US for edge in edges], np.int64)
    places = np.searchsorted(load.start_us, bounds)
    import_wh = load.registers["import_wh"]
    return [
        Month(first.start_on, first.end_on, int(import_wh[low:high].sum()), first.total, second.total)
        for first, second, low, high in zip(one, other, places[:-1], places[1:], strict=True)
    ]
