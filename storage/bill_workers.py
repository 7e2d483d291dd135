"""The processes of a bill run: chunks are handed out a few ahead, so that a long run needs no more memory than a short one."""

import concurrent.futures
import dataclasses
import datetime as dt
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from storage.bill_load import Work
from storage.bill_make import BillMaker, Rules
from storage.bill_run import CHUNK, BillRun, bill_chunk, fetch_run, finish_run, lock_run, plan_run
from storage.bill_write import clock_of

AHEAD = 2
"""Chunks waiting for each process."""
_ORPHAN_POLL_S = 0.5


@dataclasses.dataclass
class _Worker:
    """What a process keeps between chunks."""

    conn: psycopg.Connection[Any]
    run: BillRun
    maker: BillMaker
    who: str


_worker: _Worker | None = None


def work_off(  # noqa: PLR0913  # all that a run needs
    dsn: str,
    bill_run_no: int,
    *,
    who: str,
    rules: Rules,
    now: dt.datetime,
    grace_h: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BillRun:
    """Bill what a run has left, and return it as it ended; a run that was cut off goes on.

    Args:
        dsn: Of the database; each process has its own connection.
        bill_run_no: Of `start_run`.
        who: Name of the clerk.
        rules: Of the settings.
        now: Aware; says which cycles are over.
        grace_h: How long after its end a cycle is billed.
        workers: Processes; with 1 the work is done in this one.
        progress: Told contracts done, and contracts in all.

    Raises:
        BillRunError: There is no such run, or another process is at it.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        run = fetch_run(conn, bill_run_no)
        lock_run(conn, bill_run_no)
        known_at = clock_of(conn)
        left = plan_run(conn, run, now, grace_h)
        total = fetch_run(conn, bill_run_no).total
        done = total - len(left)
        progress(done, total)
        for count in _results(dsn, run, left, (who, rules, workers, known_at)):
            done += count
            progress(done, total)
        return finish_run(conn, run, who)


def _results(dsn: str, run: BillRun, left: Sequence[Work], how: tuple[str, Rules, int, dt.datetime]) -> Any:
    who, rules, workers, known_at = how
    # Small runs are shared out evenly too.
    size = max(1, min(CHUNK, -(-len(left) // workers)))
    chunks = iter([left[start : start + size] for start in range(0, len(left), size)])
    if workers == 1 or len(left) <= size:
        with psycopg.connect(dsn, autocommit=True) as conn:
            maker = BillMaker(conn, rules, known=run.ledger_position, refresh_no=run.refresh_no, known_at=known_at)
            for chunk in chunks:
                bill_chunk(conn, maker, run, chunk, who)
                yield len(chunk)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_begin, initargs=(dsn, run, rules, (who, known_at), os.getpid())
    ) as pool:
        waiting = {pool.submit(_bill, chunk) for chunk in itertools.islice(chunks, AHEAD * workers)}
        while waiting:
            ready, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            waiting |= {pool.submit(_bill, chunk) for chunk in itertools.islice(chunks, len(ready))}
            for future in ready:
                yield future.result()


def _begin(dsn: str, run: BillRun, rules: Rules, by: tuple[str, dt.datetime], parent: int) -> None:
    global _worker  # noqa: PLW0603  # one a process, as the pool's initializer has it
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    conn = psycopg.connect(dsn, autocommit=True)
    maker = BillMaker(conn, rules, known=run.ledger_position, refresh_no=run.refresh_no, known_at=by[1])
    _worker = _Worker(conn, run, maker, by[0])


def _end_with(parent: int) -> None:
    """End this process when the one that started it was killed: nobody is left to hand out work."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_POLL_S)
    os._exit(1)


def _bill(chunk: Sequence[Work]) -> int:
    assert _worker is not None
    bill_chunk(_worker.conn, _worker.maker, _worker.run, chunk, _worker.who)
    return len(chunk)
