"""Every bill made again by the second rater, from the facts: no difference may be left.

It shares no code with what makes bills: facts, contracts, tariffs, published days and prices are read by queries of its own
(`second_known`), as they were known to the bill, and rated by `metering.second_rater`. A sample, the same one each time, where
there are more bills than a minute or two can rate; what needs no rating is looked at for all of them (`second_books`).
"""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg

from metering.second_cycle import Days, Part, SlowCycle, cycle_about, rate_parts, series_named, span_s, step_s
from metering.second_sheet import SlowHistory, read_history
from storage.check_result import FINDINGS_MAX, CheckResult
from storage.second_books import book_findings
from storage.second_known import (
    Conn,
    documented,
    fetch_document_no,
    fetch_intervals,
    fetch_parts,
    fetch_published,
)

RATINGS_MAX = 300
"""Cycles rated in one check: about a minute."""
PAST_MAX = 24
"""Closed cycles that one bill's corrections are made again from."""
NEAR = Fraction(1, 10**9)
NOT_RATED = (ValueError, LookupError, TypeError, ArithmeticError, AssertionError)
"""What rating raises on a bill or tariff that was broken: a finding, and the check goes on."""
MONEY_KINDS = ("energy", "demand", "fixed", "reactive", "export", "minimum", "surcharge", "discount", "tax")


@dataclasses.dataclass(frozen=True)
class Bill:
    """An issued invoice as the check needs it."""

    bill_id: int
    bill_no: str
    contract_no: int
    service_point_no: int
    billing_day: int
    days: Days
    total: Decimal
    total_unrounded: Decimal
    energy_wh: int
    position: str
    """Of the ledger: offsets by partition, JSON."""
    created_at: dt.datetime
    issued_at: dt.datetime
    cancelled_at: dt.datetime | None
    history_before: dict[str, Any]
    history_after: dict[str, Any]
    tariffs: list[dict[str, Any]] | None
    """`document.tariffs`: the parts that the bill says it is of."""

    @property
    def cycle(self) -> Days:
        """Return the whole cycle that its days lie in."""
        return cycle_about(self.billing_day, self.days[0])


_BILL = (
    "select b.bill_id, b.bill_no, b.contract_no, c.service_point_no, c.billing_day, b.start_on, b.end_on, b.total,"
    " b.total_unrounded, b.energy_wh, b.ledger_position::text, b.created_at, b.issued_at, b.cancelled_at, b.history_before,"
    " b.history_after, b.document -> 'tariffs' from bill b join contract c using (contract_no)"
    " where b.kind = 'invoice' and b.bill_no is not null"
)


def _bills(rows: Iterable[Any]) -> list[Bill]:
    return [Bill(*(*row[:5], (row[5], row[6]), *row[7:])) for row in rows]


@dataclasses.dataclass(frozen=True)
class _Row:
    line_id: str
    kind: str
    amount: Decimal
    amount_unrounded: Decimal
    corrects: int | None
    tariff_document_no: int | None


def _lines_of(conn: Conn, bill: Bill) -> list[_Row]:
    rows = conn.execute(
        "select line_id, kind, amount, amount_unrounded, corrects, tariff_document_no from bill_line where bill_id = %s"
        " order by line_no",
        (bill.bill_id,),
    ).fetchall()
    return [_Row(*row) for row in rows]


class _Work:
    """Counts what is rated, and keeps what was not and why."""

    def __init__(self) -> None:
        self.bills = 0
        self.corrections = 0
        self.ratings = 0
        self.unchecked: list[str] = []


def check_bills(conn: psycopg.Connection[Any]) -> CheckResult:
    """Return whether every bill is what the second rater makes of the same facts, and the books of bills fit together."""
    findings, looked_at = book_findings(conn)
    work = _Work()
    row = conn.execute("select count(*) from bill where kind = 'invoice' and bill_no is not null").fetchone()
    assert row is not None
    # The same ones each time, in an order that has nothing to do with who or when.
    sample = _bills(conn.execute(f"{_BILL} order by md5(b.bill_id::text) limit %s", (RATINGS_MAX,)).fetchall())
    for bill in sample:
        if work.ratings >= RATINGS_MAX or len(findings) >= FINDINGS_MAX:
            break
        work.bills += 1
        findings += _check_bill(conn, bill, work)
    what = f"{work.bills} of {row[0]} bills and {work.corrections} corrections rated again; {looked_at}"
    if work.unchecked:
        what += f"; not checked: {'; '.join(work.unchecked[:FINDINGS_MAX])}"
        what += f" and {len(work.unchecked) - FINDINGS_MAX} more" if len(work.unchecked) > FINDINGS_MAX else ""
    return CheckResult("I15", "bills are what the second rater makes of the facts", what, findings[:FINDINGS_MAX])


def _check_bill(conn: Conn, bill: Bill, work: _Work) -> list[str]:
    later = _exchanged_later(conn, bill)
    if later:
        work.unchecked.append(f"bill {bill.bill_no}: {later}")
        return []
    rows = _lines_of(conn, bill)
    found: list[str] = []
    first: list[str] = []
    # What was entered while a run was at work may be in its bills or not: both are right, the next bill corrects.
    for at in (bill.created_at, bill.issued_at):
        found = _differences(conn, bill, rows, at, work)
        if not found:
            break
        first = first or found
    found = first if found else []
    return found + _correction_findings(conn, bill, rows, work)


def _exchanged_later(conn: Conn, bill: Bill) -> str:
    """Return why the meters of a bill are not known as they were: places of meters have no history."""
    row = conn.execute(
        "select at from meter_exchange where service_point_no = %s and entered_at > %s and at < %s::date + 2 limit 1",
        (bill.service_point_no, bill.created_at, bill.days[1]),
    ).fetchone()
    return "" if row is None else f"a meter exchange of {row[0].isoformat()} was entered after it"


# -- one bill -------------------------------------------------------------------------------------------------------------


def _differences(conn: Conn, bill: Bill, rows: Sequence[_Row], at: dt.datetime, work: _Work) -> list[str]:
    name = f"bill {bill.bill_no}"
    own = [row for row in rows if row.kind != "correction"]
    try:
        parts = _parts_of(conn, bill, own, at)
        second, energy_wh = _rate(conn, bill, parts, bill.cycle, (read_history(bill.history_before), at), work)
    except NOT_RATED as error:
        return [f"{name}: the second rater cannot make it: {error or type(error).__name__}"]
    corrections = sum((row.amount for row in rows if row.kind == "correction"), Decimal(0))
    found = _line_findings(name, own, second)
    if second.total + corrections != bill.total:
        found.append(f"{name} total: {bill.total}, the second rater has {second.total + corrections}")
    exact = second.total_unrounded + Fraction(corrections)
    if abs(exact - Fraction(bill.total_unrounded)) > NEAR:
        found.append(f"{name} total unrounded: {bill.total_unrounded}, the second rater has {_money(exact)}")
    if energy_wh != bill.energy_wh:
        found.append(f"{name} energy: {bill.energy_wh} Wh, the facts say {energy_wh} Wh")
    return found + _history_findings(name, bill, second.history)


def _parts_of(conn: Conn, bill: Bill, own: Sequence[_Row], at: dt.datetime) -> list[Part]:
    """Return the parts of a bill as they were known then; with the tariff documents that its lines name.

    Raises:
        ValueError: The bill says something else about its parts, or its lines name other documents than it does.
    """
    if not bill.tariffs:
        raise ValueError("its document names no tariffs")
    # Of a contract's first day no history is kept: a bill of days before it was made when it was another.
    known = fetch_parts(conn, bill.contract_no, bill.cycle, at, since=bill.days[0])
    said = [
        (
            (dt.date.fromisoformat(part["start_on"]), dt.date.fromisoformat(part["end_on"])),
            part["tariff_id"],
            {name: Decimal(value) for name, value in part["terms"].items()},
        )
        for part in bill.tariffs
    ]
    if known != said:
        raise ValueError(f"its parts are {_told(said)}, the contract had {_told(known)}")
    numbers = [int(part["tariff_document_no"]) for part in bill.tariffs]
    named = {row.tariff_document_no for row in own if row.tariff_document_no is not None}
    if not named <= set(numbers):
        raise ValueError(f"its lines name tariff documents {sorted(named)}, the bill {sorted(set(numbers))}")
    return [
        Part(days, tariff_id, terms, fetch_document_no(conn, number))
        for (days, tariff_id, terms), number in zip(said, numbers, strict=True)
    ]


def _told(parts: Sequence[tuple[Days, str, dict[str, Decimal]]]) -> str:
    rows = [f"{days[0]} to {days[1]} {name} {terms or ''}".strip() for days, name, terms in parts]
    return ", ".join(rows) or "none"


def _rate(
    conn: Conn, bill: Bill, parts: Sequence[Part], cycle: Days, then: tuple[SlowHistory, dt.datetime], work: _Work
) -> tuple[SlowCycle, int]:
    """Return a cycle of a bill's contract rated as known to that bill, and its energy, Wh."""
    history, at = then
    work.ratings += 1
    documents = [part.document for part in parts]
    span = span_s(parts)
    intervals = fetch_intervals(conn, bill.service_point_no, span, step_s(documents), bill.position)
    published = fetch_published(conn, series_named(documents), span, at)
    rated = rate_parts(parts, cycle, intervals, published, history)
    return rated, sum(interval.import_wh for interval in intervals)


def _line_findings(name: str, rows: Sequence[_Row], second: SlowCycle) -> list[str]:
    """Return where the sums of a kind differ, with the lines that the second rater has not."""
    found = []
    for kind in dict.fromkeys([*MONEY_KINDS, *(row.kind for row in rows)]):
        ours = [row for row in rows if row.kind == kind]
        theirs = [line.amount for line in second.lines if line.kind == kind]
        one = sum((Fraction(row.amount_unrounded) for row in ours), Fraction(0))
        other = sum(theirs, Fraction(0))
        if abs(one - other) <= NEAR:
            continue
        odd = []
        for row in ours:
            same = next((amount for amount in theirs if abs(amount - Fraction(row.amount_unrounded)) <= NEAR), None)
            if same is None:
                odd.append(row)
            else:
                theirs.remove(same)
        pairs = itertools.zip_longest(odd, theirs)
        lines = [
            f"{name} line {row.line_id if row else f'({kind}) missing'}: {_money(Fraction(row.amount_unrounded if row else 0))},"
            f" the second rater has {'none' if amount is None else _money(amount)}"
            for row, amount in pairs
        ]
        found += lines or [f"{name} {kind}: {_money(one)}, the second rater has {_money(other)}"]
    return found


def _history_findings(name: str, bill: Bill, second: SlowHistory) -> list[str]:
    """Return what the bill leaves to the next one and the second rater does not."""
    first = read_history(bill.history_after)
    found = []
    for field in ("year_wh", "season_wh", "year_billed", "credit_money"):
        one, other = getattr(first, field), getattr(second, field)
        if abs(one - other) > NEAR:
            found.append(f"{name} leaves {field} {_money(one)}, the second rater {_money(other)}")
    if first.credit_wh != second.credit_wh:
        found.append(f"{name} leaves credits of {first.credit_wh}, the second rater {second.credit_wh}")
    ours, theirs = ({(row[0], row[1]): row[2] for row in item.peaks_kw} for item in (first, second))
    return found + [
        f"{name} leaves a peak {key[0]} of {ours.get(key)} kW, the second rater {theirs.get(key)} kW"
        for key in sorted({*ours, *theirs})
        if abs(ours.get(key, Fraction(0)) - theirs.get(key, Fraction(0))) > NEAR
    ]


def _money(value: Fraction) -> Decimal:
    found = Decimal(round(value * 10**9)).scaleb(-9).normalize()
    return found.quantize(Decimal(1)) if int(found.as_tuple().exponent) > 0 else found


# -- corrections ----------------------------------------------------------------------------------------------------------


def _correction_findings(conn: Conn, bill: Bill, rows: Sequence[_Row], work: _Work) -> list[str]:
    lines = {row.corrects: row.amount for row in rows if row.kind == "correction" and row.corrects is not None}
    if not lines:
        return []
    past = _past(conn, bill)
    numbers = {item.bill_id: item.bill_no for item in past}
    work.corrections += len(lines)
    for key in [key for key in lines if key not in numbers]:
        work.unchecked.append(
            f"bill {bill.bill_no}: its correction of a bill that is not among the {PAST_MAX} before it"
        )
        lines.pop(key)
    earlier = _corrected_before(conn, bill, past)
    touched = [place for place, item in enumerate(past) if item.bill_id in lines or item.bill_id in earlier]
    if not lines:
        return []
    found: list[str] = []
    # What changed nothing in money may still change what a cycle leaves: so from the oldest one when it is not right.
    for start in dict.fromkeys([touched[0], 0]):
        try:
            differences = _chain(conn, bill, past[start:], earlier, work)
        except NOT_RATED as error:
            work.unchecked.append(f"bill {bill.bill_no}: its corrections, {error}")
            return []
        found = [
            f"bill {bill.bill_no} line correction-{numbers[key]}: {lines.get(key, Decimal(0))},"
            f" the second rater has {differences.get(key, Decimal(0))}"
            for key in sorted({*lines, *differences})
            if lines.get(key, Decimal(0)) != differences.get(key, Decimal(0))
        ]
        if not found:
            break
    return found


def _past(conn: Conn, bill: Bill) -> list[Bill]:
    """Return the invoices of a contract before a bill that stood when it was made, oldest first."""
    rows = conn.execute(
        f"{_BILL} and b.contract_no = %(contract)s and b.end_on <= %(start)s and b.created_at < %(at)s"
        " and coalesce(b.cancelled_at > %(at)s, true) order by b.start_on desc limit %(limit)s",
        {"contract": bill.contract_no, "start": bill.days[0], "at": bill.created_at, "limit": PAST_MAX},
    ).fetchall()
    return _bills(rows)[::-1]


def _corrected_before(conn: Conn, bill: Bill, past: Sequence[Bill]) -> dict[int, Decimal]:
    """Return what bills before one had charged as corrections of earlier cycles when it was made."""
    return dict(
        conn.execute(
            "select l.corrects, sum(l.amount) from bill_line l join bill o using (bill_id) where l.corrects = any(%(ids)s)"
            " and l.kind = 'correction' and o.kind = 'invoice' and o.created_at < %(at)s and o.bill_id <> %(own)s"
            " and coalesce(o.cancelled_at > %(at)s, true) group by 1",
            {"ids": [item.bill_id for item in past], "at": bill.created_at, "own": bill.bill_id},
        ).fetchall()
    )


def _chain(
    conn: Conn, bill: Bill, past: Sequence[Bill], earlier: dict[int, Decimal], work: _Work
) -> dict[int, Decimal]:
    """Return by bill what closed cycles cost more now than was charged for them: each rated with what the one before leaves."""
    history = read_history(past[0].history_before)
    found = {}
    for item in past:
        parts = documented(conn, fetch_parts(conn, bill.contract_no, item.cycle, bill.created_at), bill.created_at)
        if not parts:
            raise ValueError(f"the contract had no tariff from {item.cycle[0]}")
        rated, _ = _rate(conn, bill, parts, item.cycle, (history, bill.created_at), work)
        history = rated.history
        own = sum((row.amount for row in _lines_of(conn, item) if row.kind == "correction"), Decimal(0))
        difference = rated.total - (item.total - own) - earlier.get(item.bill_id, Decimal(0))
        if difference and item.issued_at <= bill.created_at:
            found[item.bill_id] = difference
    return found
