"""The demo's past is billed once its history is settled, so that there are bills to look at."""

import dataclasses
import datetime as dt
from collections.abc import Callable

import psycopg

from monitoring.clock import local_today, now
from schemas.settings import Settings
from storage.bill import checked_ids, issue_bills
from storage.bill_make import Rules
from storage.bill_run import Selection, start_run
from storage.bill_workers import work_off

CLERK = "demo"


@dataclasses.dataclass(frozen=True)
class Billed:
    """What came of it."""

    issued: int
    held: int


def bill_the_past(settings: Settings, dsn: str, say: Callable[[str], None]) -> Billed | None:
    """Run and issue the bills of every cycle that is over; None when the demo has bills already, or no cycle is over."""
    billing, today = settings.billing, local_today(settings.console.zone)
    with psycopg.connect(dsn, autocommit=True) as conn:
        first = conn.execute("select min(start_on) from contract where not exists (select from bill)").fetchone()
        if first is None or first[0] is None:
            return None
        say("making the bills of the cycles that are over")
        begins = first[0].replace(day=1) - dt.timedelta(days=31)  # a cycle may begin before its contract
        run = start_run(conn, (begins, today), Selection(), CLERK)
        work_off(
            dsn,
            run.bill_run_no,
            who=CLERK,
            rules=Rules.of(billing),
            now=now(),
            grace_h=billing.grace_h,
            workers=billing.workers,
            progress=lambda _done, _total: None,
        )
        numbers = issue_bills(conn, checked_ids(conn, run.bill_run_no), who=CLERK, on=today, due_days=billing.due_days)
        held = conn.execute("select count(*) from bill where state = 'held'").fetchone()
    assert held is not None
    return Billed(len(numbers), int(held[0])) if numbers or held[0] else None
