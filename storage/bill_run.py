"""Bill runs: each contract's cycle billed once, in chunks that are transactions, from the ledger as it was at the start.

A run that is cut off anywhere goes on with what has no bill yet: a chunk's bills are there together or not at all, and the
database refuses a second invoice of a contract for the same days.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from metering.billing import span_us
from metering.calendar import US
from metering.contract import Contract, cycles_between
from metering.pricing.fixed import DaySpan
from metering.terms import RatingError
from storage.audit import write_audit
from storage.bill_load import Work
from storage.bill_make import BillMaker, Problem, Rules
from storage.bill_write import write_drafts
from storage.contract import ContractError, fetch_contracts
from storage.usage_day import refresh_usage_days

CHUNK = 200
"""Contracts of one transaction: 75 MB of sub-totals, and what is done again after a crash."""
TRIES = 3
LOCK_SPACE = 0x6269_6C6C


class BillRunError(ValueError):
    """A run cannot be made or gone on with; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which contracts a run is for; nothing named is all."""

    account_ids: tuple[str, ...] = ()
    account_class: str | None = None
    early: bool = False
    """Bill cycles that are not over, or whose grace is not."""


@dataclasses.dataclass(frozen=True)
class BillRun:
    """A row of `bill_run`."""

    bill_run_no: int
    start_on: dt.date
    end_on: dt.date
    selection: Selection
    state: str
    total: int
    done: int
    ledger_position: Mapping[int, int]
    refresh_no: int
    created_by: str
    problems: Sequence[Mapping[str, str]]
    uncontracted: Sequence[Mapping[str, Any]]


def start_run(
    conn: psycopg.Connection[Any],
    days: DaySpan,
    selection: Selection,
    who: str,
    refreshed: Callable[[int, int], None] = lambda _done, _total: None,
) -> BillRun:
    """Bring the sub-totals up to date, and note a new run with the position of the ledger that it is of.

    Args:
        conn: In autocommit.
        days: Cycles that begin on these local days are billed.
        selection: Of which contracts.
        who: Name of the clerk.
        refreshed: Told days refreshed, and days in all.

    Raises:
        BillRunError: The days are none.
    """
    if days[0] >= days[1]:
        raise BillRunError(f"from {days[0]} to {days[1]} there is no day")
    done = refresh_usage_days(conn, progress=refreshed)
    with conn.transaction():
        row = conn.execute(
            "insert into bill_run (start_on, end_on, selection, ledger_position, refresh_no, created_by, uncontracted)"
            " values (%s, %s, %s, %s, %s, %s, %s) returning bill_run_no",
            (
                *days,
                json.dumps(dataclasses.asdict(selection)),
                json.dumps(done.position),
                done.refresh_no,
                who,
                json.dumps(uncontracted_usage(conn, days)),
            ),
        ).fetchone()
        assert row is not None
        detail = {"from": days[0], "to": days[1], **dataclasses.asdict(selection)}
        write_audit(conn, who, "bill.run", f"bill-run {row[0]}", detail)
    return fetch_run(conn, int(row[0]))


def fetch_run(conn: psycopg.Connection[Any], bill_run_no: int) -> BillRun:
    """Return a run.

    Raises:
        BillRunError: There is none of that number.
    """
    row = conn.execute(
        "select bill_run_no, start_on, end_on, selection, state, total, done, ledger_position, refresh_no, created_by,"
        " problems, uncontracted from bill_run where bill_run_no = %s",
        (bill_run_no,),
    ).fetchone()
    if row is None:
        raise BillRunError(f"no bill run {bill_run_no}: `gridtally bill runs` lists them")
    values = list(row)
    values[3] = Selection(**{**row[3], "account_ids": tuple(row[3]["account_ids"])})
    values[7] = {int(partition): offset for partition, offset in row[7].items()}
    return BillRun(*values)


def fetch_runs(conn: psycopg.Connection[Any], limit: int = 20) -> list[BillRun]:
    """Return runs, newest first."""
    rows = conn.execute("select bill_run_no from bill_run order by 1 desc limit %s", (limit,)).fetchall()
    return [fetch_run(conn, row[0]) for row in rows]


def plan_run(conn: psycopg.Connection[Any], run: BillRun, now: dt.datetime, grace_h: int) -> list[Work]:
    """Return the contracts and cycles of a run that have no invoice yet, and note how many there are in all.

    Args:
        conn: Connection.
        run: Of `start_run`, or one to be gone on with.
        now: Aware.
        grace_h: How long after its end a cycle is billed.
    """
    selection = run.selection
    contracts = fetch_contracts(conn, account_ids=selection.account_ids or None)
    if selection.account_class is not None:
        known = {
            row[0]
            for row in conn.execute("select account_no from account where class = %s", (selection.account_class,))
        }
        contracts = [contract for contract in contracts if contract.account_no in known]
    maker = BillMaker(conn, Rules(), known=None, refresh_no=None)
    before = now - dt.timedelta(hours=grace_h)
    work = [
        (contract, cycle)
        for contract in contracts
        for cycle in _cycles(contract, (run.start_on, run.end_on))
        if selection.early or _is_over(maker, contract, cycle, before)
    ]
    billed = _billed(conn, run)
    left = [(contract, cycle) for contract, cycle in work if not _is_billed(billed, contract, cycle)]
    ended = [contract for contract in contracts if contract.end_on is not None and contract.end_on <= run.start_on]
    problems = [_problem(item) for item in (*_without_tariff(conn, run), *_due_after_the_end(conn, run, ended))]
    conn.execute(
        "update bill_run set total = %s, done = %s, problems = %s where bill_run_no = %s",
        (len(work), len(work) - len(left), json.dumps(problems), run.bill_run_no),
    )
    return left


def _without_tariff(conn: psycopg.Connection[Any], run: BillRun) -> list[Problem]:
    """Return the contracts of a run that no tariff was entered for, which are otherwise not seen at all."""
    selection = run.selection
    rows = conn.execute(
        "select contract_id, greatest(c.start_on, %(low)s) from contract c join account a using (account_no)"
        " where c.start_on < %(high)s and coalesce(c.end_on, 'infinity') > %(low)s"
        " and (%(every)s or a.account_id = any(%(ids)s)) and a.class = coalesce(%(class)s, a.class)"
        " and not exists (select from contract_tariff t where t.contract_no = c.contract_no and t.replaced_at is null)"
        " order by 1",
        {
            "low": run.start_on,
            "high": run.end_on,
            "every": not selection.account_ids,
            "ids": list(selection.account_ids),
            "class": selection.account_class,
        },
    ).fetchall()
    return [
        Problem(row[0], row[1], "no tariff is entered for it: `gridtally contract tariff` enters one") for row in rows
    ]


def _due_after_the_end(conn: psycopg.Connection[Any], run: BillRun, ended: Sequence[Contract]) -> list[Problem]:
    """Return what became known about contracts after their last bill: there is no next one to correct it on."""
    maker = BillMaker(conn, Rules(), known=run.ledger_position, refresh_no=run.refresh_no)
    found = []
    for start in range(0, len(ended), CHUNK):
        try:
            lines = maker.corrections(ended[start : start + CHUNK])
        except (ContractError, RatingError) as error:
            found.append(Problem(ended[start].contract_id, run.start_on, str(error)))
            continue
        found += [
            Problem(
                contract.contract_id,
                line.start_on,
                f"bill {line.corrects_bill_no} would be corrected by {line.amount} ({line.reason}), and the contract has no"
                f" next bill: `gridtally bill rebill {line.corrects_bill_no}`",
            )
            for contract, line in lines
        ]
    return found


def _cycles(contract: Contract, days: DaySpan) -> list[DaySpan]:
    """Return the cycles that begin on some days and that a contract has a day of; the first one of it as well."""
    return [
        cycle
        for cycle in cycles_between(contract.billing_day, *days)
        if days[0] <= cycle[0] < days[1]
        and cycle[0] < (contract.end_on or dt.date.max)
        and cycle[1] > contract.start_on
    ]


def _is_over(maker: BillMaker, contract: Contract, cycle: DaySpan, before: dt.datetime) -> bool:
    try:
        maker.load_tariffs(contract)
        return span_us(contract, cycle, maker.tariffs)[1] <= int(before.timestamp()) * US
    except (ContractError, RatingError):
        return True  # the run names what is wrong with it


def _billed(
    conn: psycopg.Connection[Any], run: BillRun, contract_nos: Sequence[int] | None = None
) -> dict[int, list[DaySpan]]:
    found: dict[int, list[DaySpan]] = {}
    for contract_no, start_on, end_on in conn.execute(
        "select contract_no, start_on, end_on from bill where kind = 'invoice' and state <> 'cancelled'"
        " and end_on > %s and start_on < %s::date + 62 and (%s::int4[] is null or contract_no = any(%s))",
        (run.start_on, run.end_on, contract_nos, contract_nos),
    ):
        found.setdefault(contract_no, []).append((start_on, end_on))
    return found


def _is_billed(billed: Mapping[int, Sequence[DaySpan]], contract: Contract, cycle: DaySpan) -> bool:
    return any(low < cycle[1] and cycle[0] < high for low, high in billed.get(contract.contract_no, ()))


def bill_chunk(conn: psycopg.Connection[Any], maker: BillMaker, run: BillRun, work: Sequence[Work], who: str) -> int:
    """Bill some contracts in one transaction; return how many bills that made.

    Contracts that another run has billed meanwhile are left out.

    Args:
        conn: In autocommit.
        maker: At the run's position.
        run: The run.
        work: At most CHUNK contracts and cycles that had no bill.
        who: Name of the clerk.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with conn.transaction():
                return _bill_chunk(conn, maker, run, work, who)
        except (psycopg.errors.ExclusionViolation, psycopg.errors.DeadlockDetected):
            if attempt == TRIES:
                raise
    return 0


def _bill_chunk(conn: psycopg.Connection[Any], maker: BillMaker, run: BillRun, work: Sequence[Work], who: str) -> int:
    billed = _billed(conn, run, [contract.contract_no for contract, _ in work])
    todo = [item for item in work if not _is_billed(billed, *item)]
    drafts, problems = maker.make(todo)
    write_drafts(
        conn,
        drafts,
        who=who,
        position=run.ledger_position,
        refresh_no=run.refresh_no,
        known_at=maker.known_at,
        bill_run_no=run.bill_run_no,
    )
    conn.execute(
        "update bill_run set done = done + %s, problems = problems || %s::jsonb where bill_run_no = %s",
        (len(work) - len(problems), json.dumps([_problem(item) for item in problems]), run.bill_run_no),
    )
    return len(drafts)


def _problem(problem: Problem) -> dict[str, str]:
    return {"contract_id": problem.contract_id, "start_on": str(problem.start_on), "text": problem.text}


def finish_run(conn: psycopg.Connection[Any], run: BillRun, who: str) -> BillRun:
    """Note that a run is done, and return it as it ended."""
    with conn.transaction():
        changed = conn.execute(
            "update bill_run set state = 'done', finished_at = clock_timestamp() where bill_run_no = %s and state = 'running'",
            (run.bill_run_no,),
        ).rowcount
        ended = fetch_run(conn, run.bill_run_no)
        if changed:
            detail = {"bills": ended.done, "of": ended.total, "problems": len(ended.problems)}
            write_audit(conn, who, "bill.run-done", f"bill-run {run.bill_run_no}", detail)
    return ended


def lock_run(conn: psycopg.Connection[Any], bill_run_no: int) -> None:
    """Take a run for this session, which holds it until it ends.

    Raises:
        BillRunError: Another process is at it.
    """
    row = conn.execute("select pg_try_advisory_lock(%s, %s)", (LOCK_SPACE, bill_run_no)).fetchone()
    if row != (True,):
        raise BillRunError(f"bill run {bill_run_no} is being worked on by another process: wait for it")


def uncontracted_usage(conn: psycopg.Connection[Any], days: DaySpan) -> list[dict[str, Any]]:
    """Return service points with energy on days that no contract covers: it is charged when one is entered.

    At most 1,000 of them; from the sub-totals, by UTC days: one that a contract's first or last local day reaches into is
    left out.
    """
    rows = conn.execute(
        "select p.service_point_id, min(u.day)::text, max(u.day)::text, count(*) from meter_assignment a"
        " join service_point p using (service_point_no)"
        " join lateral (select day from usage_day u where u.meter_no = a.meter_no and u.day >= greatest(%(low)s,"
        " (a.start_at at time zone 'UTC')::date) and u.day < least(%(high)s, (a.end_at at time zone 'UTC')::date)) u on true"
        " where not daterange(%(low)s, %(high)s) <@ coalesce((select range_agg(daterange(k.start_on, k.end_on))"
        " from contract k where k.service_point_no = a.service_point_no), '{}'::datemultirange)"
        " and not exists (select from contract c where c.service_point_no = a.service_point_no and c.start_on <= u.day + 1"
        " and u.day <= coalesce(c.end_on, 'infinity')) group by 1 order by 1 limit 1000",
        {"low": days[0], "high": days[1]},
    ).fetchall()
    return [{"service_point_id": row[0], "first_day": row[1], "last_day": row[2], "days": row[3]} for row in rows]
