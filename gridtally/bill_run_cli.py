"""`gridtally bill run` and `runs`."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.bill_options import month_of, print_json, some_day, utc_now
from gridtally.options import EXIT_FAILED, EXIT_USAGE, As, AsJson, Config, DataDir, connect, fail, running, settings_of

if TYPE_CHECKING:
    from storage.bill_run import BillRun


def bill_run(  # options
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    *,
    cycle: Annotated[str | None, typer.Option(help="Cycles that begin in this month, such as 2026-10.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Cycles that begin on this day or later.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="And before this one.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Only accounts of this class.")] = None,
    account: Annotated[list[str] | None, typer.Option(help="Only this account. May be repeated.")] = None,
    resume: Annotated[int | None, typer.Option(help="Go on with a run that was cut off.")] = None,
    early: Annotated[bool, typer.Option("--early", help="Cycles that are not over, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the bills of cycles that are over; nobody gets one twice, and a run that is cut off goes on with --resume.

    Example: gridtally bill run --cycle 2026-10 --as ann
    """
    from storage.bill_make import Rules
    from storage.bill_run import BillRunError, Selection, start_run
    from storage.bill_workers import work_off

    loaded = settings_of(data_dir, config)
    settings = loaded.settings.billing
    with connect(loaded) as conn, _Progress(quiet=as_json) as progress:
        try:
            if resume is None:
                days = _days_of(cycle, from_, to)
                chosen = Selection(tuple(account or ()), class_, early)
                resume = start_run(conn, days, chosen, who, progress.refreshed).bill_run_no
                print_unless(
                    as_json, f"bill run {resume}; if it is cut off: gridtally bill run --resume {resume} --as {who}"
                )
            run = work_off(
                running(loaded, "database").database,
                resume,
                who=who,
                rules=Rules.of(settings),
                now=utc_now(),
                grace_h=settings.grace_h,
                workers=settings.workers,
                progress=progress.billed,
            )
        except BillRunError as error:
            fail(str(error), EXIT_FAILED)
        summary = _summary(conn, run)
    if as_json:
        print_json(summary)
        return
    _print_summary(summary)


def _days_of(cycle: str | None, from_: str | None, to: str | None) -> tuple[dt.date, dt.date]:
    if cycle is not None and from_ is None and to is None:
        return month_of(cycle)
    low, high = some_day(from_, "--from"), some_day(to, "--to")
    if cycle is not None or low is None or high is None:
        fail("give --cycle MONTH, or --from DAY --to DAY, or --resume RUN", EXIT_USAGE)
    return low, high


def print_unless(silent: bool, text: str) -> None:
    """Print a line for people, unless JSON is asked for."""
    if not silent:
        print(text, flush=True)


class _Progress:
    """A bar on a terminal, a line every so often elsewhere."""

    STEP_S = 5.0

    def __init__(self, *, quiet: bool) -> None:
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._quiet = quiet
        self._is_bar = sys.stdout.isatty() and not quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(),
            disable=not self._is_bar,
        )
        self._tasks: dict[str, Any] = {}
        self._printed_at = 0.0

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def refreshed(self, done: int, total: int) -> None:
        """Show days refreshed."""
        self._show("days refreshed", done, total)

    def billed(self, done: int, total: int) -> None:
        """Show contracts billed."""
        self._show("contracts billed", done, total)

    def _show(self, what: str, done: int, total: int) -> None:
        import time

        if self._is_bar:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done, total=total)
        elif not self._quiet and (done == total or time.monotonic() - self._printed_at > self.STEP_S):
            self._printed_at = time.monotonic()
            print(f"{what}: {done} of {total}", flush=True)


def _summary(conn: Any, run: "BillRun") -> dict[str, Any]:
    rows = conn.execute(
        "select state, currency, count(*), sum(total) from bill where bill_run_no = %s group by 1, 2 order by 1, 2",
        (run.bill_run_no,),
    ).fetchall()
    return {
        "bill_run_no": run.bill_run_no,
        "state": run.state,
        "contracts": run.total,
        "done": run.done,
        "bills": [dict(zip(("state", "currency", "bills", "total"), row, strict=True)) for row in rows],
        "problems": run.problems,
        "uncontracted": run.uncontracted,
    }


def _print_summary(summary: dict[str, Any]) -> None:
    print(f"bill run {summary['bill_run_no']}: {summary['done']} of {summary['contracts']} contracts have their bill")
    for row in summary["bills"]:
        print(f"  {row['state']:10} {row['bills']:8} bills {row['total']:>16} {row['currency']}")
    for problem in summary["problems"]:
        print(f"  no bill for {problem['contract_id']} from {problem['start_on']}: {problem['text']}")
    for row in summary["uncontracted"]:
        print(
            f"  {row['service_point_id']} has usage without a contract on {row['days']} days from {row['first_day']}"
            f" to {row['last_day']}: it is charged when one is entered"
        )


def bill_runs(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """List the newest bill runs and how far they came. Example: gridtally bill runs"""
    from storage.bill_run import fetch_runs

    with connect(settings_of(data_dir, config)) as conn:
        rows = [_summary(conn, run) for run in fetch_runs(conn)]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        _print_summary(row)
