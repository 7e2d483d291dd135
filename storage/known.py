"""What was known then: usage, charge and bills as they were shown at an instant of the past.

The ledger is never changed, and settlement notes how far it had come (`ledger_time.position_at`); tariffs, contracts' tariffs,
flags and prices keep when each row was entered and replaced. So the same code that answers now answers for then, with less.
Of meters' places at service points and of a contract's first day no history is kept: those are as of now.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import psycopg

from metering.bill import History
from metering.billing import CycleBill, bill_cycle, interval_s_of, span_us
from metering.calendar import US
from metering.contract import Contract, ContractTariff
from metering.pricing.fixed import DaySpan
from metering.tariff import Tariff
from metering.usage import Inputs
from storage.bill_input import fetch_history, fetch_inputs
from storage.bill_past import OPEN_STATES
from storage.contract import fetch_contracts, fetch_tariff
from storage.ledger_time import KNOWN_SQL, Position, offsets_by_partition, position_at
from storage.load import ServiceLoad, fetch_load, instant, until_us
from storage.payment import open_items
from storage.snapshot import one_snapshot

BILL_ROWS_MAX = 1_000


@dataclasses.dataclass(frozen=True)
class ChargeKnown:
    """The charge so far of a service point's billing cycle, with all that it was made of."""

    service_point_no: int
    contract: Contract
    cycle: DaySpan
    tariffs: Mapping[str, Tariff]
    load: ServiceLoad
    """Of the cycle, up to `read_us`."""
    inputs: Inputs
    history: History
    until: dt.date
    """Day up to which charges per day are counted."""
    read_us: int
    """Until when there are readings, epoch µs."""
    bill: CycleBill

    @property
    def zone(self) -> dt.tzinfo:
        """Return the local clock of the cycle's last tariff."""
        return self.tariffs[self.contract.parts(self.cycle)[-1][1].tariff_id].zone


def find_service_point(conn: psycopg.Connection[Any], name: str) -> int:
    """Return the number of a service point by its name, or of the one that a meter measures or measured last.

    Raises:
        LookupError: There is neither.
    """
    row = conn.execute("select service_point_no from service_point where service_point_id = %s", (name,)).fetchone()
    row = (
        row
        or conn.execute(
            "select service_point_no from meter_assignment join meter using (meter_no) where meter_id = %s"
            " order by start_at desc limit 1",
            (name,),
        ).fetchone()
    )
    if row is None:
        raise LookupError(f"no service point or meter {name!r}")
    return int(row[0])


def fetch_usage_known(
    conn: psycopg.Connection[Any],
    service_point_no: int,
    start: dt.datetime,
    end: dt.datetime,
    known_at: dt.datetime | None = None,
) -> ServiceLoad:
    """Return the quarter-hours of a service point in ``[start, end)``, as now or as known at an instant.

    Both ends are taken out to whole quarter-hours.
    """
    step_us = 900 * US
    start_us, end_us = (round(at.timestamp()) * US for at in (start, end))
    start_us, end_us = start_us // step_us * step_us, -(-end_us // step_us) * step_us
    with one_snapshot(conn):
        return fetch_load(conn, service_point_no, start_us, end_us, known=_position(conn, known_at))


def _position(conn: psycopg.Connection[Any], known_at: dt.datetime | None) -> Position | None:
    return None if known_at is None else position_at(conn, known_at)


def fetch_charge_known(
    conn: psycopg.Connection[Any], service_point_no: int, known_at: dt.datetime | None = None
) -> ChargeKnown | None:
    """Return the charge so far of the cycle of the newest reading, as now or as known at an instant.

    None: there was no reading, or no tariff for its day.

    Raises:
        RatingError: A tariff needs something that was not there.
        ContractError: A tariff of the contract was not loaded then.
    """
    with one_snapshot(conn):
        position = _position(conn, known_at)
        read_us = _newest_us(conn, service_point_no, position)
        if read_us is None:
            return None
        return _charge_at(conn, service_point_no, read_us, (known_at, position))


def _charge_at(
    conn: psycopg.Connection[Any],
    service_point_no: int,
    read_us: int,
    then: tuple[dt.datetime | None, Position | None],
) -> ChargeKnown | None:
    known_at, position = then
    found = _contract_at(conn, service_point_no, read_us, known_at)
    if found is None:
        return None
    contract, day, zone = found
    cycle = contract.cycle_of(day)
    tariffs = {item.tariff_id: fetch_tariff(conn, item.tariff_id, known_at)[0] for _, item in contract.parts(cycle)}
    start_us, end_us = span_us(contract, cycle, tariffs)
    step_s = interval_s_of(list(tariffs.values()))
    load = until_us(fetch_load(conn, service_point_no, start_us, end_us, known=position, interval_s=step_s), read_us)
    inputs = fetch_inputs(conn, list(tariffs.values()), start_us, end_us, known_at)
    history = fetch_history(conn, contract, cycle, known_at)
    until = min(dt.datetime.fromtimestamp(read_us // US, zone).date() + dt.timedelta(days=1), cycle[1])
    bill = bill_cycle(contract, cycle, tariffs, load.load, inputs, history, until=until)
    return ChargeKnown(service_point_no, contract, cycle, tariffs, load, inputs, history, until, read_us, bill)


def _newest_us(conn: psycopg.Connection[Any], service_point_no: int, position: Position | None) -> int | None:
    """Return the end of the newest known interval at a service point, epoch µs."""
    row = conn.execute(
        "select (extract(epoch from max(n.end_at)) * 1000000)::int8 from meter_assignment a cross join lateral"
        " (select f.end_at from fact f where f.meter_no = a.meter_no and f.end_at > a.start_at and f.end_at <= a.end_at"
        f" and {KNOWN_SQL} order by f.end_at desc limit 1) n where a.service_point_no = %(point)s",
        {"point": service_point_no, "offsets": offsets_by_partition(position)},
    ).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def _contract_at(
    conn: psycopg.Connection[Any], service_point_no: int, read_us: int, known_at: dt.datetime | None
) -> tuple[Contract, dt.date, dt.tzinfo] | None:
    """Return the contract that covers the day that an instant ends, that day, and the local clock."""
    for contract in fetch_contracts(conn, service_point_nos=[service_point_no], known_at=known_at):
        known = contract if known_at is None else _with_end_then(conn, contract, known_at)
        day, zone = _local_day(conn, known.tariffs, read_us, known_at)
        if known.start_on <= day and (known.end_on is None or day < known.end_on):
            return known, day, zone
    row = conn.execute(
        "select a.tariff_id, p.service_point_id from meter_assignment a join service_point p using (service_point_no)"
        " where a.service_point_no = %s and a.start_at < %s and a.tariff_id is not null order by a.start_at desc limit 1",
        (service_point_no, instant(read_us)),
    ).fetchone()
    if row is None:
        return None
    # where only the meter has a tariff, calendar months of it stand for a contract, as in the running charge
    tariffs = (ContractTariff(dt.date.min, row[0]),)
    day, zone = _local_day(conn, tariffs, read_us, known_at)
    return Contract(0, row[1], 0, service_point_no, dt.date.min, None, 1, tariffs), day, zone


def _local_day(
    conn: psycopg.Connection[Any],
    tariffs: tuple[ContractTariff, ...],
    read_us: int,
    known_at: dt.datetime | None,
) -> tuple[dt.date, dt.tzinfo]:
    zone = fetch_tariff(conn, tariffs[-1].tariff_id, known_at)[0].zone
    return dt.datetime.fromtimestamp((read_us - 1) // US, zone).date(), zone


def _with_end_then(conn: psycopg.Connection[Any], contract: Contract, known_at: dt.datetime) -> Contract:
    """Return a contract with its end as it was before it was ended later than an instant, by the audit trail."""
    row = conn.execute(
        "select detail->>'before' from audit where action = 'contract.end' and subject = %s and at > %s"
        " order by audit_no limit 1",
        (contract.contract_id, known_at),
    ).fetchone()
    if row is None:
        return contract
    return dataclasses.replace(contract, end_on=dt.date.fromisoformat(row[0]) if row[0] else None)


@dataclasses.dataclass(frozen=True)
class BillKnown:
    """A bill as it stood at an instant."""

    bill_id: int
    bill_no: str | None
    """None while it was not issued."""
    kind: str
    state: str
    contract_id: str
    account_id: str
    start_on: dt.date
    end_on: dt.date
    currency: str
    total: Decimal
    energy_wh: int


def bills_known_at(
    conn: psycopg.Connection[Any], at: dt.datetime, *, account_id: str | None = None, limit: int = BILL_ROWS_MAX
) -> list[BillKnown]:
    """Return the bills that there were at an instant, newest first, with the state that they had then.

    A bill is known from when it was made; drafts that were deleted since are not kept, and what an issued bill says never
    changes. Whether it was paid follows from what was issued and entered by then; it was overdue from the day after it was due.
    """
    rows = conn.execute(
        "select b.bill_id, b.account_no, b.due_on, case when b.issued_at <= %(at)s then b.bill_no end, b.kind,"
        " case when b.cancelled_at <= %(at)s then 'cancelled'"
        " when b.issued_at is null or b.issued_at > %(at)s then case when exists (select from bill_hold h"
        " where h.bill_id = b.bill_id and coalesce(h.released_at > %(at)s, true)) then 'held' else 'checked' end"
        " when b.sent_at <= %(at)s then 'sent' else 'issued' end,"
        " c.contract_id, a.account_id, b.start_on, b.end_on, b.currency, b.total, b.energy_wh"
        " from bill b join contract c using (contract_no) join account a on a.account_no = b.account_no"
        " where b.created_at <= %(at)s and (%(account)s::text is null or a.account_id = %(account)s)"
        " order by b.bill_id desc limit %(limit)s",
        {"at": at, "account": account_id, "limit": limit},
    ).fetchall()
    accounts = {row[1] for row in rows if row[5] in OPEN_STATES}
    unpaid = {item.bill_id for number in accounts for item in open_items(conn, number, at)[0] if item.open > 0}
    found = []
    for bill_id, _, due_on, *rest in rows:
        state = rest[2]
        if state in OPEN_STATES:
            late = due_on is not None and due_on < at.date()
            state = "paid" if bill_id not in unpaid else "overdue" if late else state
        found.append(BillKnown(bill_id, rest[0], rest[1], state, *rest[3:]))
    return found


def fetch_service_points(conn: psycopg.Connection[Any], name: str) -> list[tuple[int, str]]:
    """Return number and name of the service points of an account; or of one service point, or of a meter's.

    Raises:
        LookupError: There is none of that name.
    """
    rows = conn.execute(
        "select distinct c.service_point_no, p.service_point_id from account a join contract c using (account_no)"
        " join service_point p using (service_point_no) where a.account_id = %s order by 1",
        (name,),
    ).fetchall()
    if rows:
        return [(int(number), str(point)) for number, point in rows]
    try:
        number = find_service_point(conn, name)
    except LookupError:
        raise LookupError(f"no account with a contract, service point or meter {name!r}") from None
    row = conn.execute("select service_point_id from service_point where service_point_no = %s", (number,)).fetchone()
    assert row is not None
    return [(number, row[0])]


def usage_as_json(found: ServiceLoad) -> dict[str, Any]:
    """Return usage for the API and `gridtally usage --json`; instants as RFC 3339, energies in Wh."""
    names = list(found.load.registers)
    intervals = []
    for row, start_us in enumerate(found.load.start_us.tolist()):
        values = {name: int(found.load.registers[name][row]) for name in names}
        values |= {"covered_s": int(found.covered_s[row]), "estimated_wh": int(found.estimated_wh[row])}
        intervals.append({"start": instant(start_us).isoformat(), **values, "quality": int(found.quality[row])})
    return {
        "interval_s": found.load.interval_s,
        "energy_wh": found.energy_wh,
        "export_wh": found.export_wh,
        "registers": [msgspec.to_builtins(span) for span in found.spans],
        "intervals": intervals,
    }
