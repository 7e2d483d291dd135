"""The parts of a bundle written down, read back, and its bill made again with the engine that bills are made with. Pure."""

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

import msgspec
import numpy as np

from metering.bill import History
from metering.bill_document import bill_lines, day_uses, tariff_parts, totals_of
from metering.billing import bill_cycle, decode_history
from metering.bundle import BundleError, Difference, differing
from metering.contract import Contract, ContractTariff
from metering.pricing.indexed import MissingPriceError, Series
from metering.state import Int64Column
from metering.tariff import Tariff, parse_tariff
from metering.terms import RatingError
from metering.usage import REGISTERS, Inputs, Load
from schemas.bill import BillDocument

NOT_RATED = ("correction", "adjustment", "credit")
"""Kinds of lines that other bills are the ground of."""
FIELDS_OF_LOAD = ("covered_s", "estimated_wh", "quality")
ANYTHING_BAD = (
    *(KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, ZeroDivisionError, InvalidOperation),
    *(msgspec.MsgspecError, RatingError, MissingPriceError, AssertionError, ArithmeticError),
)
"""What the parts of a bundle that somebody changed may raise."""


class MeasuredLoad(Protocol):
    """Intervals with their quality, as the ledger gives them."""

    @property
    def load(self) -> Load:
        """Return the energies."""

    @property
    def covered_s(self) -> Int64Column:
        """Return the seconds that readings cover."""

    @property
    def estimated_wh(self) -> Int64Column:
        """Return the energy whose place in time is estimated."""

    @property
    def quality(self) -> Int64Column:
        """Return the flags of the readings."""


def contract_part(contract: Contract) -> dict[str, Any]:
    """Return a contract as the bundle has it."""
    return {
        "contract_id": contract.contract_id,
        "start_on": contract.start_on.isoformat(),
        "end_on": contract.end_on and contract.end_on.isoformat(),
        "billing_day": contract.billing_day,
        "tariffs": [
            {
                "start_on": item.start_on.isoformat(),
                "tariff_id": item.tariff_id,
                "terms": {name: str(value) for name, value in sorted(item.terms.items())},
            }
            for item in contract.tariffs
        ],
    }


def read_contract(value: Mapping[str, Any]) -> Contract:
    """Return the contract of a bundle; it has no numbers of a database."""
    return Contract(
        contract_no=0,
        contract_id=str(value["contract_id"]),
        account_no=0,
        service_point_no=0,
        start_on=dt.date.fromisoformat(value["start_on"]),
        end_on=dt.date.fromisoformat(value["end_on"]) if value["end_on"] else None,
        billing_day=int(value["billing_day"]),
        tariffs=tuple(
            ContractTariff(
                dt.date.fromisoformat(item["start_on"]),
                str(item["tariff_id"]),
                {name: Decimal(text) for name, text in item["terms"].items()},
            )
            for item in value["tariffs"]
        ),
    )


def inputs_part(inputs: Inputs) -> dict[str, Any]:
    """Return published days and prices as the bundle has them."""
    return {
        "flags": {flag: sorted(day.isoformat() for day in days) for flag, days in sorted(inputs.flags.items())},
        "indices": {
            name: {"start_s": series.start_s.tolist(), "price": [str(price) for price in series.price]}
            for name, series in sorted(inputs.indices.items())
        },
    }


def read_inputs(value: Mapping[str, Any]) -> Inputs:
    """Return the published days and prices of a bundle."""
    return Inputs(
        flags={flag: frozenset(map(dt.date.fromisoformat, days)) for flag, days in value["flags"].items()},
        indices={
            name: Series(np.array(series["start_s"], np.int64), [Decimal(text) for text in series["price"]])
            for name, series in value["indices"].items()
        },
    )


def load_part(measured: MeasuredLoad) -> dict[str, Any]:
    """Return a load by intervals as the bundle has it."""
    load = measured.load
    return {
        "interval_s": load.interval_s,
        "start_s": (load.start_us // 1_000_000).tolist(),
        "registers": {name: column.tolist() for name, column in sorted(load.registers.items())},
        **{name: getattr(measured, name).tolist() for name in FIELDS_OF_LOAD},
    }


def read_load(value: Mapping[str, Any]) -> Load:
    """Return the load of a bundle."""
    start_us = np.array(value["start_s"], np.int64) * 1_000_000
    registers = {name: np.array(value["registers"][name], np.int64) for name in REGISTERS if name in value["registers"]}
    if "import_wh" not in registers or any(column.shape != start_us.shape for column in registers.values()):
        raise BundleError("the bundle's load has columns of different lengths, or no import_wh")
    if (np.diff(start_us) <= 0).any():
        raise BundleError("the bundle's load is not in order of time")
    return Load(start_us, int(value["interval_s"]), registers)


def recompute_bill(bundle: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """Return what differs between the bill of a bundle and the one that its parts make, and what was taken as given."""
    try:
        document = msgspec.convert(bundle["bill"], BillDocument)
        found = _sums(document)
        if document.kind != "invoice":
            return found, [f"a {document.kind.replace('_', ' ')} has no intervals: its lines were summed, not rated"]
        found += _rated(document, bundle)
    except ANYTHING_BAD as error:
        text = f"{type(error).__name__}: {error}"[:300]
        return [Difference("bill", "cannot be made again", text)], []
    given = [line for line in document.lines if line.kind in NOT_RATED]
    notes = []
    if given:
        notes.append(
            f"{len(given)} lines correct other bills, {sum((line.amount for line in given), Decimal(0))}"
            f" {document.currency}: taken as given"
        )
    return found, notes


def _sums(document: BillDocument) -> list[Difference]:
    found = []
    if (total := totals_of(document.lines)) != document.total_unrounded:
        found.append(
            Difference("bill.total_unrounded", str(document.total_unrounded), f"{total}, the sum of its lines")
        )
    for place, line in enumerate(document.lines, 1):
        if line.line_no != place:
            found.append(Difference(f"bill.lines[{place - 1}].line_no", str(line.line_no), str(place)))
    return found


def _rated(document: BillDocument, bundle: Mapping[str, Any]) -> list[Difference]:
    contract = read_contract(bundle["contract"])
    first, end = (dt.date.fromisoformat(day) for day in bundle["cycle"])
    tariffs: dict[str, Tariff] = {}
    documents: dict[str, tuple[int, str]] = {}
    for item in bundle["tariffs"]:
        tariff = parse_tariff(item["document"])
        tariffs[tariff.tariff_id] = tariff
        documents[tariff.tariff_id] = (item["tariff_document_no"], item["document_sha256"])
    load = read_load(bundle["load"])
    history: History = decode_history(bundle["history_before"])
    bill = bill_cycle(contract, (first, end), tariffs, load, read_inputs(bundle["inputs"]), history)
    extra = [line for line in document.lines if line.kind in NOT_RATED]
    estimated = np.array(bundle["load"]["estimated_wh"], np.int64)
    last = tariffs[contract.parts((first, end))[-1][1].tariff_id]
    columns = {**load.registers, "estimated_wh": estimated}
    made = msgspec.structs.replace(
        document,
        start_on=bill.days[0],
        end_on=bill.days[1],
        zone=last.zone.key,
        currency=bill.currency,
        digits=bill.digits,
        lines=(*bill_lines(bill, documents), *extra),
        total=bill.total + sum((line.amount for line in extra), Decimal(0)),
        total_unrounded=bill.total_unrounded + totals_of(extra),
        energy_wh=int(load.registers["import_wh"].sum()),
        export_wh=int(load.registers["export_wh"].sum()) if "export_wh" in load.registers else 0,
        estimated_wh=int(estimated.sum()),
        days=day_uses(last, bill.days, load.start_us, columns),
        tariffs=tariff_parts(contract, (first, end), tariffs, documents),
    )
    return _named(document, made)


def _named(document: BillDocument, made: BillDocument) -> list[Difference]:
    """Return differences, those of lines under the lines' own names."""
    given, again = (msgspec.to_builtins(item) for item in (document, made))
    by_name = [{line["line_id"]: line for line in item.pop("lines")} for item in (given, again)]
    found = differing("bill", given, again)
    for name in dict.fromkeys([*by_name[0], *by_name[1]]):
        one, other = (lines.get(name) for lines in by_name)
        if one is None or other is None:
            words = [f"{line['amount']} {document.currency}" if line else "no such line" for line in (one, other)]
            found.append(Difference(f"line {name}", *words))
        else:
            found += differing(f"line {name}", one, other)
    return found
