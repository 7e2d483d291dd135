"""Proposed tariffs tried on every account's past, in bulk: from the sub-totals of days, by several processes."""

import concurrent.futures
import dataclasses
import datetime as dt
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg

from metering.billing import interval_s_of, needs_varh
from metering.calendar import US, local_midnight_s
from metering.contract import Contract
from metering.contract_terms import terms_needed
from metering.impact import AccountImpact, Rated, rate_months, under
from metering.profile import DAY_US
from metering.tariff import Tariff
from metering.usage import Compiled, Inputs
from storage.bill_input import fetch_inputs
from storage.contract import fetch_contracts, fetch_tariff
from storage.load import EPOCH, ServiceLoad, fetch_load, fetch_placements
from storage.usage_day import fetch_profiles

CHUNK = 50
"""Contracts at once: a year of their quarter-hours is 60 MB."""
NAMED_MAX = 10


class ImpactError(ValueError):
    """A proposed tariff cannot be tried on the accounts; the text says which, why and what to do."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is tried on whom."""

    contracts: tuple[Contract, ...]
    class_of: Mapping[int, str]
    """By account number."""
    account_id_of: Mapping[int, str]
    edges: tuple[dt.date, ...]
    """First days of the months, and of the month after the last."""
    proposed: tuple[Tariff, ...]
    against: Tariff | None
    """None is the tariff that each contract had."""
    tariffs: Mapping[str, Tariff]
    """Of all contracts."""
    terms: Mapping[str, Decimal]
    """For contracts that have none of their own."""
    inputs: Inputs
    without_tariff: tuple[str, ...] = ()
    """Contracts of the months that no tariff is entered for."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was rated, and whom it was not possible for."""

    rows: tuple[AccountImpact, ...]
    without_readings: tuple[str, ...]
    """Contracts without a reading in the months."""


def plan_impact(  # an argument each
    conn: psycopg.Connection[Any],
    proposed: Sequence[Tariff],
    edges: Sequence[dt.date],
    *,
    against: Tariff | None = None,
    class_name: str | None = None,
    terms: Mapping[str, Decimal] | None = None,
) -> Job:
    """Return what there is to rate.

    Args:
        conn: Connection.
        proposed: Tariffs to try.
        edges: First days of months, and of the month after the last.
        against: Compare with this one instead of what each contract had.
        class_name: Only accounts of this class.
        terms: For contracts that have none of their own.

    Raises:
        ImpactError: Currencies differ, terms are missing, or there is nobody.
    """
    accounts = conn.execute(
        "select account_no, account_id, class, currency from account where %(class)s::text is null or class = %(class)s",
        {"class": class_name},
    ).fetchall()
    by_no = {row[0]: row for row in accounts}
    found = [item for item in fetch_contracts(conn) if item.account_no in by_no and item.parts((edges[0], edges[-1]))]
    missing = conn.execute(
        "select contract_id from contract c where account_no = any(%s) and start_on < %s"
        " and coalesce(end_on > %s, true) and not exists (select from contract_tariff t"
        " where t.contract_no = c.contract_no and t.replaced_at is null) order by 1",
        (list(by_no), edges[-1], edges[0]),
    ).fetchall()
    if not found:
        raise ImpactError(
            f"no contract with a tariff from {edges[0]} to {edges[-1]}"
            + (f" in class {class_name}" if class_name else "")
        )
    names = sorted({part.tariff_id for item in found for _, part in item.parts((edges[0], edges[-1]))})
    tariffs = {name: fetch_tariff(conn, name)[0] for name in names}
    tried = [*proposed, *([against] if against else [])]
    _refuse_currencies(tried, [by_no[item.account_no] for item in found])
    for tariff in tried:
        _refuse_missing_terms(tariff, found, {no: row[1] for no, row in by_no.items()}, terms or {})
    low, high = _bounds_us([*tariffs.values(), *tried], edges)
    return Job(
        contracts=tuple(dataclasses.replace(item, billing_day=1) for item in found),
        class_of={no: row[2] for no, row in by_no.items()},
        account_id_of={no: row[1] for no, row in by_no.items()},
        edges=tuple(edges),
        proposed=tuple(proposed),
        against=against,
        tariffs=tariffs,
        terms=dict(terms or {}),
        inputs=fetch_inputs(conn, [*tariffs.values(), *tried], low, high),
        without_tariff=tuple(row[0] for row in missing),
    )


def _refuse_currencies(tried: Sequence[Tariff], accounts: Sequence[tuple[Any, ...]]) -> None:
    for tariff in tried:
        wrong = sorted({row[1] for row in accounts if row[3] != tariff.currency})
        if wrong:
            raise ImpactError(
                f"{tariff.tariff_id} is in {tariff.currency}, {_named(wrong)} not: choose a class with --class"
            )


def _refuse_missing_terms(
    tariff: Tariff, contracts: Sequence[Contract], account_id_of: Mapping[int, str], terms: Mapping[str, Decimal]
) -> None:
    needed = terms_needed(tariff) - set(terms)
    for name in sorted(needed):
        without = sorted(
            {
                account_id_of[item.account_no]
                for item in contracts
                if not any(name in part.terms for part in item.tariffs)
            }
        )
        if without:
            raise ImpactError(
                f"{tariff.tariff_id} needs {name}, which the contracts of {_named(without)} do not have:"
                f" give what to take for them, --term {name}=20"
            )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more accounts" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


def _bounds_us(tariffs: Sequence[Tariff], edges: Sequence[dt.date]) -> tuple[int, int]:
    """Return from when to when loads are needed by any of the tariffs' clocks, epoch µs."""
    low = min(local_midnight_s(tariff, edges[0]) for tariff in tariffs)
    high = max(local_midnight_s(tariff, edges[-1]) for tariff in tariffs)
    return low * US, high * US


@dataclasses.dataclass
class _Worker:
    """What a process keeps between chunks."""

    conn: psycopg.Connection[Any]
    job: Job
    kept: "Kept"


class Kept:
    """Calendars that are compiled once a process: a set for each role, since a proposal may have the name of what it replaces."""

    def __init__(self, job: Job) -> None:
        """Begin with nothing."""
        self.current: Compiled = {}
        self.proposed: list[Compiled] = [{} for _ in job.proposed]


_worker: _Worker | None = None


def rate_impact(
    dsn: str, job: Job, *, workers: int = 2, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Outcome:
    """Rate every contract of a job under both tariffs.

    Args:
        dsn: Of the database; each process has its own connection.
        job: Of `plan_impact`.
        workers: Processes; with 1 the work is done in this one.
        progress: Told contracts done, and contracts in all.

    Raises:
        RatingError: A tariff needs something that is not there, such as a published price.
    """
    chunks = [range(low, min(low + CHUNK, len(job.contracts))) for low in range(0, len(job.contracts), CHUNK)]
    rows: list[AccountImpact] = []
    without: list[str] = []
    done = 0
    for found in _work(dsn, job, chunks, workers):
        rows += found.rows
        without += found.without_readings
        done += len(found.rows) + len(found.without_readings)
        progress(done, len(job.contracts))
    return Outcome(tuple(rows), tuple(without))


def _work(dsn: str, job: Job, chunks: Sequence[range], workers: int) -> Iterator[Outcome]:
    if workers == 1:
        with psycopg.connect(dsn, autocommit=True) as conn:
            kept = Kept(job)
            yield from (rate_chunk(conn, job, chunk, kept) for chunk in chunks)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start, initargs=(dsn, job)) as pool:
        yield from pool.map(_rate, chunks)


def _start(dsn: str, job: Job) -> None:
    global _worker  # noqa: PLW0603  # a process of the pool has one
    _worker = _Worker(psycopg.connect(dsn, autocommit=True), job, Kept(job))


def _rate(chunk: range) -> Outcome:
    assert _worker is not None
    return rate_chunk(_worker.conn, _worker.job, chunk, _worker.kept)


def rate_chunk(conn: psycopg.Connection[Any], job: Job, chunk: range, kept: Kept) -> Outcome:
    """Return the impact of some of a job's contracts."""
    contracts = [job.contracts[number] for number in chunk]
    loads = _fetch_loads(conn, job, contracts)
    rows, without = [], []
    for contract in contracts:
        load = loads[contract.contract_no]
        if load is None or not len(load.load.start_us):
            without.append(contract.contract_id)
            continue
        rows.append(_impact_of(job, contract, load, kept))
    return Outcome(tuple(rows), tuple(without))


def _impact_of(job: Job, contract: Contract, load: ServiceLoad, kept: Kept) -> AccountImpact:
    def rated(tariff: Tariff, compiled: Compiled) -> Rated:
        item = under(contract, tariff.tariff_id, job.terms)
        return rate_months(item, {tariff.tariff_id: tariff}, load.load, job.edges, job.inputs, compiled)

    if job.against is not None:
        current = rated(job.against, kept.current)
    else:
        current = rate_months(contract, job.tariffs, load.load, job.edges, job.inputs, kept.current)
    days = contract.parts((job.edges[0], job.edges[-1]))
    span_s = (days[-1][0][1] - days[0][0][0]).days * 86_400
    return AccountImpact(
        account_id=job.account_id_of[contract.account_no],
        contract_id=contract.contract_id,
        class_name=job.class_of[contract.account_no],
        energy_wh=sum(current.energy_wh.values()),
        covered=min(Decimal(int(load.covered_s.sum())) / span_s, Decimal(1)),
        current=current,
        proposed=tuple(rated(tariff, own) for tariff, own in zip(job.proposed, kept.proposed, strict=True)),
    )


def _fetch_loads(
    conn: psycopg.Connection[Any], job: Job, contracts: Sequence[Contract]
) -> dict[int, ServiceLoad | None]:
    """Return the load of each contract over the months, from the sub-totals of days where these do."""
    tariffs = [*job.tariffs.values(), *job.proposed, *([job.against] if job.against else [])]
    low, high = _bounds_us(tariffs, job.edges)
    step_s = interval_s_of(tariffs)
    from_facts = step_s < 900 or needs_varh(tariffs)
    points = sorted({item.service_point_no for item in contracts})
    placements = fetch_placements(conn, points, low, high)
    meters = sorted({item.meter_no for item in placements})
    first, end = EPOCH.date() + dt.timedelta(days=low // DAY_US), EPOCH.date() + dt.timedelta(days=-(-high // DAY_US))
    profiles = None if from_facts or not meters else fetch_profiles(conn, meters, first, end)
    found: dict[int, ServiceLoad | None] = {}
    for contract in contracts:
        own = [item for item in placements if item.service_point_no == contract.service_point_no]
        load = profiles.load(own, low, high) if profiles is not None else None
        if load is None and own:
            load = fetch_load(conn, contract.service_point_no, low, high, interval_s=step_s)
        found[contract.contract_no] = load
    return found
