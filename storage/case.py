"""The case file of theft: a lead becomes a case, a person looks into it, and its outcome feeds the precision figures.

One open case a meter, by a database key. Everything has who and when, in the case's own history and in the audit trail.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from metering.theft.ledger import THEFT_KINDS, Lead
from storage.audit import write_audit
from storage.bill import BillError, fetch_bill
from storage.case_evidence import Evidence
from storage.case_money import worth_of
from storage.proposal import Desk, Proposal, propose

SYSTEM = "gridtally"
STATES = ("new", "investigating", "confirmed", "rejected", "recovered")
OPEN_STATES = ("new", "investigating", "confirmed")
OUTCOMES = {
    "confirmed": ("bypass", "tampered_meter", "magnet", "direct_connection", "wrong_wiring", "other"),
    "rejected": ("empty_home", "new_tenant", "solar", "appliances", "meter_fault", "master_data", "other"),
}
"""What was found, by the state that it leads to."""
LISTED_MAX = 1000
TEXT_MAX = 2000
SAME_DAYS = 21
"""A lead whose fall is so near to that of a concluded case is the same one: it opens no second case."""


class CaseError(ValueError):
    """What was asked of a case cannot be; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class CaseRow:
    """One case."""

    case_no: int
    meter_no: int
    meter_id: str
    state: str
    kind: str
    fall_on: dt.date
    opened_at: dt.datetime
    opened_by: str
    run_no: int | None
    alarm_ids: list[int]
    evidence: Mapping[str, Any]
    missing_wh_low: int
    missing_wh: int
    missing_wh_high: int
    money_low: Decimal | None
    money: Decimal | None
    money_high: Decimal | None
    currency: str | None
    money_note: str
    assigned_to: str | None
    outcome: str | None
    note: str
    proposal_id: int | None
    row_version: int


@dataclasses.dataclass(frozen=True)
class CaseEvent:
    """One step of a case."""

    at: dt.datetime
    who: str
    from_state: str | None
    to_state: str
    note: str


@dataclasses.dataclass(frozen=True)
class Precision:
    """How often a kind of lead was right."""

    kind: str
    opened: int
    confirmed: int
    """Recovered ones too."""
    concluded: int
    percent: int | None
    """Confirmed of concluded; None before the first."""


_SELECT = "select " + ", ".join(
    "m.meter_id" if field.name == "meter_id" else f"c.{field.name}" for field in dataclasses.fields(CaseRow)
)
_FROM = " from theft_case c join meter m using (meter_no)"


# -- looking ---------------------------------------------------------------------------------------------------------


def fetch_cases(
    conn: psycopg.Connection[Any], *, states: Sequence[str] | None = None, limit: int = 200
) -> list[CaseRow]:
    """Return cases, most money first, then most energy; by default the open ones.

    Raises:
        CaseError: A state that there is none of.
    """
    if unknown := set(states or ()) - set(STATES):
        raise CaseError(f"{', '.join(sorted(unknown))}: a case is one of {', '.join(STATES)}")
    return (
        conn.cursor(row_factory=class_row(CaseRow))
        .execute(
            f"{_SELECT}{_FROM} where c.state = any(%s) order by c.money desc nulls last, c.missing_wh desc, c.case_no"
            " limit %s",
            (list(states or OPEN_STATES), max(1, min(limit, LISTED_MAX))),
        )
        .fetchall()
    )


def fetch_case(conn: psycopg.Connection[Any], case_no: int) -> tuple[CaseRow, list[CaseEvent]] | None:
    """Return one case with its history, oldest first."""
    row = (
        conn.cursor(row_factory=class_row(CaseRow))
        .execute(f"{_SELECT}{_FROM} where case_no = %s", (case_no,))
        .fetchone()
    )
    if row is None:
        return None
    events = (
        conn.cursor(row_factory=class_row(CaseEvent))
        .execute(
            "select at, who, from_state, to_state, note from theft_case_event where case_no = %s"
            " order by theft_case_event_no limit %s",
            (case_no, LISTED_MAX),
        )
        .fetchall()
    )
    return row, events


def fetch_precision(conn: psycopg.Connection[Any]) -> list[Precision]:
    """Return how often each kind of lead was right, and all together last."""
    counted = {
        kind: (opened, right, concluded)
        for kind, opened, right, concluded in conn.execute(
            "select kind, count(*), count(*) filter (where state in ('confirmed', 'recovered')),"
            " count(*) filter (where state in ('confirmed', 'recovered', 'rejected')) from theft_case group by 1"
        )
    }
    rows = [_precision(kind, *counted.get(kind, (0, 0, 0))) for kind in THEFT_KINDS]
    opened, right, concluded = (
        sum(getattr(row, name) for row in rows) for name in ("opened", "confirmed", "concluded")
    )
    return [*rows, _precision("all", opened, right, concluded)]


def _precision(kind: str, opened: int, right: int, concluded: int) -> Precision:
    return Precision(kind, opened, right, concluded, round(100 * right / concluded) if concluded else None)


# -- opening ---------------------------------------------------------------------------------------------------------


def open_cases(
    conn: psycopg.Connection[Any], leads: Iterable[Lead], evidence: Mapping[str, Evidence], run_no: int
) -> list[int]:
    """Open a case for each lead of a meter that has none; return their numbers. In the caller's transaction."""
    opened = []
    for lead in leads:
        own = evidence.get(lead.subject)
        row = conn.execute("select meter_no from meter where meter_id = %s for update", (lead.subject,)).fetchone()
        if own is None or row is None:
            continue
        alarm_ids = [
            one[0]
            for one in conn.execute(
                "select alarm_id from alarm where subject = %s and state <> 'cleared' and kind = any(%s) order by 1",
                (lead.subject, list(THEFT_KINDS)),
            )
        ]
        if _is_known(conn, row[0], own.fall.day, alarm_ids):
            continue
        opened.append(_open(conn, row[0], lead, own, (run_no, alarm_ids)))
    return opened


def _is_known(conn: psycopg.Connection[Any], meter_no: int, fall_on: dt.date, alarm_ids: list[int]) -> bool:
    row = conn.execute(
        "select from theft_case where meter_no = %s and (state = any(%s) or alarm_ids && %s::bigint[]"
        " or abs(fall_on - %s::date) <= %s) limit 1",
        (meter_no, list(OPEN_STATES), alarm_ids, fall_on, SAME_DAYS),
    ).fetchone()
    return row is not None


def _open(conn: psycopg.Connection[Any], meter_no: int, lead: Lead, own: Evidence, run: tuple[int, list[int]]) -> int:
    fall = own.fall
    last = conn.execute("select end_on from theft_run where run_no = %s", (run[0],)).fetchone()
    assert last is not None
    worth = worth_of(conn, meter_no, (fall.day, last[0]), fall.missing_wh)
    low, likely, high = worth.amounts or (None, None, None)
    row = conn.execute(
        "insert into theft_case (meter_no, kind, fall_on, opened_by, run_no, alarm_ids, evidence, missing_wh_low,"
        " missing_wh, missing_wh_high, money_low, money, money_high, currency, money_note)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning case_no",
        (
            meter_no,
            lead.kind,
            fall.day,
            SYSTEM,
            run[0],
            run[1],
            Jsonb({**own.document, "run_no": run[0], "until": last[0].isoformat()}),
            *fall.missing_wh,
            low,
            likely,
            high,
            worth.currency,
            worth.note,
        ),
    ).fetchone()
    assert row is not None
    _note(conn, int(row[0]), None, "new", SYSTEM, lead.detail)
    write_audit(conn, SYSTEM, "case.open", f"case {row[0]}", {"meter": lead.subject, "kind": lead.kind})
    return int(row[0])


# -- working ---------------------------------------------------------------------------------------------------------


def take(conn: psycopg.Connection[Any], case_no: int, *, who: str, note: str = "") -> CaseRow:
    """Take a case to look into it; taken again by the same person it stays as it is.

    Raises:
        CaseError: It is concluded, or another person has it; nothing was changed.
    """
    with conn.transaction():
        case = _locked(conn, case_no)
        if case.state == "investigating" and case.assigned_to == who:
            return case
        if case.state != "new":
            by = f" by {case.assigned_to}" if case.assigned_to else ""
            raise CaseError(f"case {case_no} is {case.state}{by}: only a new one can be taken")
        return _moved(conn, case, "investigating", (who, "case.take", note), assigned_to=who)


def conclude(
    conn: psycopg.Connection[Any], case_no: int, *, who: str, outcome: str, note: str, is_confirmed: bool
) -> CaseRow:
    """Say what was found, which the precision figures count.

    Args:
        conn: In autocommit or not.
        case_no: Of a case that is being investigated.
        who: Who says it.
        outcome: Of OUTCOMES of the state.
        note: What was seen.
        is_confirmed: It was theft; or it was not.

    Raises:
        CaseError: Nothing was changed.
    """
    state = "confirmed" if is_confirmed else "rejected"
    if outcome not in OUTCOMES[state]:
        raise CaseError(f"{outcome!r} is no outcome of a {state} case: one of {', '.join(OUTCOMES[state])}")
    if not note.strip():
        raise CaseError("an outcome needs a note of what was seen")
    with conn.transaction():
        case = _locked(conn, case_no)
        if (case.state, case.outcome, case.note) == (state, outcome, note[:TEXT_MAX]):
            return case
        if case.state != "investigating":
            raise CaseError(f"case {case_no} is {case.state}: take it first, only then it is concluded")
        return _moved(conn, case, state, (who, f"case.{state}", note), outcome=outcome, note=note[:TEXT_MAX])


def recover(
    conn: psycopg.Connection[Any], case_no: int, *, who: str, desk: Desk, amount: Decimal | None = None
) -> tuple[CaseRow, Proposal]:
    """Propose to bill what is missing: an adjustment of the newest bill of the meter, that a second person approves.

    Args:
        conn: In autocommit.
        case_no: Of a confirmed case.
        who: Who proposes.
        desk: Settings and day of proposals.
        amount: Of the adjustment; None is the case's likely sum.

    Raises:
        CaseError: It is not confirmed, there is nothing to bill, or no bill to adjust; the text says what to do.
    """
    with conn.transaction():
        case = _locked(conn, case_no)
        if case.state != "confirmed":
            raise CaseError(f"case {case_no} is {case.state}: only a confirmed one is recovered")
        wanted = case.money if amount is None else amount
        if wanted is None:
            raise CaseError(f"case {case_no} has no sum ({case.money_note}): give the amount")
        if wanted <= 0:
            raise CaseError(f"case {case_no}: there is nothing to bill, the sum is {wanted}")
        bill_no = _bill_of(conn, case)
        reason = f"theft case {case_no}: {case.missing_wh} Wh not counted since {case.fall_on}"
        try:
            _, document = fetch_bill(conn, bill_no)
            exact = wanted.quantize(Decimal(1).scaleb(-document.digits), ROUND_HALF_UP) if amount is None else wanted
            made = propose(conn, "amend", bill_no, reason=reason, who=who, desk=desk, amount=exact)
        except BillError as error:
            raise CaseError(f"case {case_no}: {error}") from None
        note = f"proposal {made.proposal_id}: {exact} {case.currency or ''} on bill {bill_no}".replace("  ", " ")
        row = _moved(conn, case, "recovered", (who, "case.recover", note), proposal_id=made.proposal_id)
    return row, made


def _bill_of(conn: psycopg.Connection[Any], case: CaseRow) -> str:
    row = conn.execute(
        "select b.bill_no from bill b join contract c using (contract_no) join meter_assignment a using (service_point_no)"
        " where a.meter_no = %s and b.kind = 'invoice' and b.bill_no is not null and b.end_on > %s"
        " and b.state in ('issued', 'sent', 'paid', 'overdue') and a.start_at < b.end_on and a.end_at > b.start_on"
        " order by b.end_on desc limit 1",
        (case.meter_no, case.fall_on),
    ).fetchone()
    if row is None:
        raise CaseError(
            f"case {case.case_no}: {case.meter_id} has no issued bill of days since {case.fall_on} to adjust: run and issue"
            " the bills of those days (gridtally bill run), then recover again"
        )
    return str(row[0])


def _locked(conn: psycopg.Connection[Any], case_no: int) -> CaseRow:
    row = (
        conn.cursor(row_factory=class_row(CaseRow))
        .execute(f"{_SELECT}{_FROM} where case_no = %s for update of c", (case_no,))
        .fetchone()
    )
    if row is None:
        raise CaseError(f"there is no case {case_no}")
    return row


def _moved(
    conn: psycopg.Connection[Any], case: CaseRow, state: str, cause: tuple[str, str, str], **values: Any
) -> CaseRow:
    who, action, note = cause
    if not who.strip():
        raise CaseError("a change needs the name of who makes it")
    conn.execute(
        "update theft_case set state = %(state)s, row_version = row_version + 1"
        + "".join(f", {name} = %({name})s" for name in values)
        + " where case_no = %(case_no)s",
        {**values, "state": state, "case_no": case.case_no},
    )
    _note(conn, case.case_no, case.state, state, who, note)
    write_audit(conn, who, action, f"case {case.case_no}", {"meter": case.meter_id, "note": note[:TEXT_MAX], **values})
    return dataclasses.replace(case, state=state, row_version=case.row_version + 1, **values)


def _note(
    conn: psycopg.Connection[Any], case_no: int, from_state: str | None, to_state: str, who: str, note: str
) -> None:
    conn.execute(
        "insert into theft_case_event (case_no, who, from_state, to_state, note) values (%s, %s, %s, %s, %s)",
        (case_no, who, from_state, to_state, note[:TEXT_MAX]),
    )
