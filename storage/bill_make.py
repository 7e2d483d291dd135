"""Drafts of bills: many contracts' cycles fetched at once, rated, compared, checked; nothing is written here."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

import msgspec
import psycopg

from metering.bill import History
from metering.bill_check import Bounds, Hold, check_bill
from metering.bill_document import bill_lines, day_uses, tariff_parts
from metering.billing import CycleBill, bill_cycle, span_us
from metering.calendar import US
from metering.contract import Contract
from metering.pricing.fixed import DaySpan
from metering.pricing.indexed import MissingPriceError
from metering.tariff import Tariff
from metering.terms import RatingError
from metering.usage import Compiled, Inputs
from schemas.bill import BillDocument, BillLine, Party
from schemas.settings import BillingSettings
from storage.bill_input import fetch_inputs, series_of
from storage.bill_load import Work, fetch_loads
from storage.bill_past import (
    Changes,
    PastBill,
    TariffsThen,
    comparisons_of,
    fetch_changes,
    fetch_documents_used,
    fetch_past_bills,
)
from storage.contract import ContractError, fetch_tariff
from storage.ledger_time import Position
from storage.load import ServiceLoad


@dataclasses.dataclass(frozen=True)
class Rules:
    """What the settings say about making bills."""

    issuer: str = "County Utility"
    bounds: Bounds = dataclasses.field(default_factory=Bounds)
    correction_cycles_max: int = 24

    @classmethod
    def of(cls, settings: BillingSettings) -> Self:
        """Return the rules that the settings give."""
        bounds = Bounds(
            estimated_percent=settings.estimated_percent_max,
            missing_percent=settings.missing_percent_max,
            change_percent=settings.change_percent_max,
            change_wh=settings.change_wh_min,
            register_wh=settings.register_wh_max,
        )
        return cls(settings.issuer, bounds, settings.correction_cycles_max)


@dataclasses.dataclass(frozen=True)
class Draft:
    """A bill that was made and not written."""

    contract: Contract
    document: BillDocument
    holds: tuple[Hold, ...]
    history_before: History
    history_after: History
    corrected: Mapping[str, int]
    """Ids of the bills that lines correct, by their numbers."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why there is no bill for a contract's cycle."""

    contract_id: str
    start_on: dt.date
    text: str


class BillMaker:
    """Makes drafts from the ledger as it stood at one position; keeps tariffs between calls."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        rules: Rules,
        *,
        known: Position | None,
        refresh_no: int | None,
        known_at: dt.datetime | None = None,
    ) -> None:
        """Take the ledger's position, see `bill_load.fetch_loads`; and when master data began to be read, by default now."""
        self.conn = conn
        self.rules = rules
        self.known = known
        self.refresh_no = refresh_no
        row = conn.execute("select clock_timestamp()").fetchone()
        assert row is not None
        self.known_at: dt.datetime = row[0] if known_at is None else known_at
        self._tariffs: dict[str, tuple[Tariff, int, str]] = {}
        self._then = TariffsThen(conn)
        self._compiled: Compiled = {}

    def make(self, work: Sequence[Work], *, corrects: bool = True) -> tuple[list[Draft], list[Problem]]:
        """Return drafts, and problems of what cannot be billed.

        Args:
            work: Contracts and cycles, some hundred at once.
            corrects: Look for what changed in closed cycles, and correct it with lines.
        """
        able, problems = self._able(work)
        if not able:
            return [], problems
        contracts = [contract for contract, _ in able]
        parties = fetch_parties(self.conn, [contract.contract_no for contract in contracts])
        past = fetch_past_bills(
            self.conn, sorted({contract.contract_no for contract in contracts}), self.rules.correction_cycles_max
        )
        refresh = 2**62 if self.refresh_no is None else self.refresh_no
        changes = fetch_changes(self.conn, contracts, past, refresh) if corrects else None
        tariffs = self.tariffs
        loads = fetch_loads(self.conn, able, tariffs, known=self.known, refresh_no=self.refresh_no)
        inputs = self._inputs(able)
        drafts = []
        for (contract, cycle), load in zip(able, loads, strict=True):
            party, currency = parties[contract.contract_no]
            before = [bill for bill in past[contract.contract_no] if bill.end_on <= max(cycle[0], contract.start_on)]
            try:
                lines, history = self._corrections(contract, before, changes)
                bill = bill_cycle(contract, cycle, tariffs, load.load, inputs, history, compiled=self._compiled)
            except (RatingError, MissingPriceError, ContractError) as error:
                problems.append(Problem(contract.contract_id, cycle[0], _text_of(error)))
                continue
            document = self._document(contract, bill, load, party, lines, before)
            low, high = span_us(contract, cycle, tariffs)
            holds = check_bill(
                document,
                self.rules.bounds,
                expected_s=(high - low) // US,
                covered_s=int(load.covered_s.sum()),
                cycle=cycle,
                account_currency=currency,
            )
            ids = {past_bill.bill_no: past_bill.bill_id for past_bill in before if past_bill.bill_no}
            drafts.append(Draft(contract, document, tuple(holds), history, bill.history, ids))
        return drafts, problems

    @property
    def tariffs(self) -> dict[str, Tariff]:
        """Return the tariffs seen so far, by name."""
        return {name: item[0] for name, item in self._tariffs.items()}

    @property
    def documents(self) -> dict[str, tuple[int, str]]:
        """Return number and SHA-256 of their documents."""
        return {name: item[1:] for name, item in self._tariffs.items()}

    def _able(self, work: Sequence[Work]) -> tuple[list[Work], list[Problem]]:
        """Return what can be tried, with its tariffs loaded."""
        able, problems = [], []
        for contract, cycle in work:
            try:
                self.load_tariffs(contract)
                span_us(contract, cycle, self.tariffs)
                able.append((contract, cycle))
            except (ContractError, RatingError) as error:
                problems.append(Problem(contract.contract_id, cycle[0], _text_of(error)))
        return able, problems

    def load_tariffs(self, contract: Contract) -> None:
        """Bring the tariffs of a contract in.

        Raises:
            ContractError: One is not there.
        """
        for item in contract.tariffs:
            if item.tariff_id not in self._tariffs:
                self._tariffs[item.tariff_id] = fetch_tariff(self.conn, item.tariff_id)

    def _inputs(self, work: Sequence[Work]) -> Inputs:
        spans = [span_us(contract, cycle, self.tariffs) for contract, cycle in work]
        low, high = min(span[0] for span in spans), max(span[1] for span in spans)
        return fetch_inputs(self.conn, self.tariffs.values(), low, high)

    def rate(self, contract: Contract, cycle: DaySpan, history: History) -> tuple[CycleBill, ServiceLoad]:
        """Return one cycle rated from the ledger."""
        self.load_tariffs(contract)
        (load,) = fetch_loads(
            self.conn, [(contract, cycle)], self.tariffs, known=self.known, refresh_no=self.refresh_no
        )
        inputs = self._inputs([(contract, cycle)])
        bill = bill_cycle(contract, cycle, self.tariffs, load.load, inputs, history, compiled=self._compiled)
        return bill, load

    def corrections(self, contracts: Sequence[Contract]) -> list[tuple[Contract, BillLine]]:
        """Return what would correct the closed cycles of contracts, for those that have no next bill to put it on.

        Raises:
            ContractError: A tariff is not there.
            RatingError: A cycle cannot be rated.
        """
        past = fetch_past_bills(
            self.conn, [contract.contract_no for contract in contracts], self.rules.correction_cycles_max
        )
        refresh = 2**62 if self.refresh_no is None else self.refresh_no
        changes = fetch_changes(self.conn, contracts, past, refresh)
        found = []
        for contract in contracts if changes else ():
            self.load_tariffs(contract)
            lines, _ = self._corrections(contract, past[contract.contract_no], changes)
            found += [(contract, line) for line in lines]
        return found

    def _corrections(
        self, contract: Contract, before: Sequence[PastBill], changes: Changes | None
    ) -> tuple[list[BillLine], History]:
        """Return the lines that correct closed cycles, and what these leave to the next as it is now known.

        From the first cycle that something changed in, each is rated anew with what the one before it leaves now; what is
        charged is the difference to the bill and the corrections that it has had.
        """
        if not before:
            return [], History(service_since=contract.start_on)
        causes = {bill.bill_id: self._causes(contract, bill, changes) for bill in before} if changes else {}
        changed = [place for place, bill in enumerate(before) if causes.get(bill.bill_id)]
        if not changed:
            return [], before[-1].history_after
        first = min([*changed, *(place for place, bill in enumerate(before) if bill.is_corrected)])
        history, lines = before[first].history_before, []
        for bill in before[first:]:
            cycle = contract.cycle_of(bill.start_on)
            total, energy_wh = Decimal(0), 0
            if contract.parts(cycle):  # else the contract does not reach here any more
                rated, load = self.rate(contract, cycle, history)
                history, total, energy_wh = rated.history, rated.total, load.energy_wh
            difference = total - bill.total - bill.corrected
            if difference and bill.bill_no is not None:
                lines.append(_correction(bill, difference, energy_wh, causes[bill.bill_id]))
        return lines, history

    def _causes(self, contract: Contract, bill: PastBill, changes: Changes) -> list[str]:
        since = dataclasses.replace(bill, refresh_no=max(bill.refresh_no, bill.corrected_refresh_no))
        found = changes.of(contract, since, series_of(self.tariffs.values()))
        parts = contract.parts(contract.cycle_of(bill.start_on))
        if not parts or (parts[0][0][0], parts[-1][0][1]) != (bill.start_on, bill.end_on):
            found.append("the contract's days")
        tariff_causes = [text for text in found if text.startswith("tariff ")]
        if tariff_causes and bill.bill_no is not None:
            used = fetch_documents_used(self.conn, bill.bill_id)
            for name, number in used.items():
                newest = self._tariffs.get(name)
                if newest and self._then.is_same(number, newest[1], bill.start_on, bill.end_on):
                    found = [text for text in found if text != f"tariff {name}"]
        return found

    def _document(  # all that a bill shows
        self,
        contract: Contract,
        bill: CycleBill,
        load: ServiceLoad,
        party: Party,
        corrections: Sequence[BillLine],
        before: Sequence[PastBill],
    ) -> BillDocument:
        tariff = self.tariffs[contract.parts(bill.cycle)[-1][1].tariff_id]
        lines = bill_lines(bill, self.documents)
        lines += [numbered(line, len(lines) + number) for number, line in enumerate(corrections, 1)]
        extra = sum((line.amount for line in corrections), Decimal(0))
        columns = {**load.load.registers, "estimated_wh": load.estimated_wh}
        return BillDocument(
            kind="invoice",
            bill_no=None,
            issuer=self.rules.issuer,
            party=party,
            start_on=bill.days[0],
            end_on=bill.days[1],
            zone=tariff.zone.key,
            currency=bill.currency,
            digits=bill.digits,
            lines=tuple(lines),
            total=bill.total + extra,
            total_unrounded=bill.total_unrounded + extra,
            energy_wh=load.energy_wh,
            export_wh=load.export_wh,
            estimated_wh=int(load.estimated_wh.sum()),
            registers=load.spans,
            days=day_uses(tariff, bill.days, load.load.start_us, columns),
            tariffs=tariff_parts(contract, bill.cycle, self.tariffs, self.documents),
            comparisons=comparisons_of(before, bill.days[0]),
        )


def numbered(line: BillLine, line_no: int) -> BillLine:
    """Return a line with its place on the bill."""
    return msgspec.structs.replace(line, line_no=line_no)


def _correction(bill: PastBill, difference: Decimal, energy_wh: int, causes: Sequence[str]) -> BillLine:
    used = f"{_kwh(bill.energy_wh)} → {_kwh(energy_wh)} kWh" if energy_wh != bill.energy_wh else ""
    cause = ", ".join(causes) or "a correction of an earlier cycle"
    return BillLine(
        line_no=0,
        line_id=f"correction-{bill.bill_no}",
        kind="correction",
        label=f"{bill.start_on} – {bill.end_on}",
        quantity=Decimal(1),
        unit="correction",
        price=difference,
        amount=difference,
        amount_unrounded=difference,
        start_on=bill.start_on,
        end_on=bill.end_on,
        corrects_bill_no=bill.bill_no,
        reason=f"known after the bill: {cause}" + (f"; {used}" if used else ""),
    )


def _kwh(energy_wh: int) -> Decimal:
    return Decimal(energy_wh) / 1000


def _text_of(error: Exception) -> str:
    if isinstance(error, MissingPriceError):
        at = dt.datetime.fromtimestamp(int(error.args[0]), dt.UTC)
        return f"a price series has no price for {at.isoformat()}: publish it"
    return str(error)


def fetch_parties(conn: psycopg.Connection[Any], contract_nos: Sequence[int]) -> dict[int, tuple[Party, str]]:
    """Return who bills are for, and the currency of the account, by contract."""
    rows = conn.execute(
        "select c.contract_no, u.customer_id, u.name, u.postal_address, u.email, u.language, a.account_id, c.contract_id,"
        " p.service_point_id, p.postal_address, a.currency from contract c join account a using (account_no)"
        " join customer u using (customer_no) join service_point p using (service_point_no)"
        " where c.contract_no = any(%s)",
        (list(contract_nos),),
    ).fetchall()
    return {
        row[0]: (
            Party(
                customer_id=row[1],
                name=row[2],
                postal_address=row[3],
                email=row[4],
                language=row[5],
                account_id=row[6],
                contract_id=row[7],
                service_point_id=row[8],
                service_address=row[9],
            ),
            row[10],
        )
        for row in rows
    }
