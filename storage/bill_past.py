"""Bills of earlier cycles: what they leave, what this one is compared to, and which of them something changed since."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg

from metering.bill import History
from metering.bill_check import last_year_of
from metering.billing import decode_history
from metering.contract import Contract
from metering.tariff import parse_tariff
from schemas.bill import Comparison

OPEN_STATES = ("issued", "sent", "paid", "overdue")


@dataclasses.dataclass(frozen=True)
class PastBill:
    """An invoice of a contract that stands."""

    bill_id: int
    bill_no: str | None
    state: str
    start_on: dt.date
    end_on: dt.date
    total: Decimal
    """Without the corrections of other cycles that are on it."""
    energy_wh: int
    refresh_no: int
    created_at: dt.datetime
    history_before: History
    history_after: History
    corrected: Decimal
    """Sum of the corrections of it on later bills."""
    is_corrected: bool
    corrected_refresh_no: int


def fetch_past_bills(
    conn: psycopg.Connection[Any], contract_nos: Sequence[int], limit: int
) -> dict[int, list[PastBill]]:
    """Return the newest invoices of contracts that are not cancelled, oldest first.

    Args:
        conn: Connection.
        contract_nos: Of whom.
        limit: Of each contract at most so many.
    """
    found: dict[int, list[PastBill]] = {number: [] for number in contract_nos}
    rows = conn.execute(
        "select b.contract_no, b.bill_id, b.bill_no, b.state, b.start_on, b.end_on,"
        " b.total - coalesce((select sum(l.amount) from bill_line l where l.bill_id = b.bill_id"
        " and l.kind = 'correction'), 0),"
        " b.energy_wh, b.refresh_no, b.created_at, b.history_before, b.history_after,"
        " coalesce(k.amount, 0), k.amount is not null, coalesce(k.refresh_no, 0)"
        " from unnest(%(contracts)s::int4[]) w(contract_no) cross join lateral (select * from bill x"
        " where x.contract_no = w.contract_no and x.kind = 'invoice' and x.state <> 'cancelled'"
        " order by x.start_on desc limit %(limit)s) b"
        " left join lateral (select sum(l.amount) as amount, max(o.refresh_no) as refresh_no from bill_line l"
        " join bill o using (bill_id) where l.corrects = b.bill_id and l.kind = 'correction' and o.kind = 'invoice'"
        " and o.state <> 'cancelled') k on true"
        " order by b.contract_no, b.start_on",
        {"contracts": list(contract_nos), "limit": limit},
    ).fetchall()
    for number, *row in rows:
        row[9], row[10] = decode_history(row[9]), decode_history(row[10])
        found[number].append(PastBill(*row))
    return found


def comparisons_of(past: Sequence[PastBill], start_on: dt.date) -> tuple[Comparison, ...]:
    """Return the bills of last period and last year, where there are any."""
    found = []
    for what, bills in (
        ("last_period", [bill for bill in past if bill.end_on == start_on]),
        ("last_year", [bill for bill in past if bill.start_on == last_year_of(start_on)]),
    ):
        found += [
            Comparison(
                what=what, start_on=bill.start_on, end_on=bill.end_on, energy_wh=bill.energy_wh, total=bill.total
            )
            for bill in bills[-1:]
        ]
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Changes:
    """What came to be known after bills were made, of some contracts."""

    usage: Mapping[int, Sequence[tuple[dt.date, int]]]
    """Changed UTC days by contract, with the refresh that changed them."""
    contract_at: Mapping[int, dt.datetime]
    """When tariffs of a contract were last entered or replaced."""
    exchange_at: Mapping[int, Sequence[tuple[dt.date, dt.datetime]]]
    """Meter exchanges by service point: their day, and when they were entered."""
    tariff_at: Mapping[str, dt.datetime]
    flags: Sequence[tuple[dt.date, dt.datetime]]
    series: Mapping[str, Sequence[tuple[dt.date, dt.datetime]]]

    def of(self, contract: Contract, bill: PastBill, series: Sequence[str]) -> list[str]:
        """Return what may have changed a bill of a contract, in words."""
        low, high = bill.start_on - dt.timedelta(days=1), bill.end_on + dt.timedelta(days=1)
        since, refresh_no = bill.created_at, max(bill.refresh_no, 0)
        found = []
        days = [
            day for day, number in self.usage.get(contract.contract_no, ()) if low <= day < high and number > refresh_no
        ]
        if days:
            found.append(f"readings of {min(days)} to {max(days)}" if len(days) > 1 else f"readings of {days[0]}")
        if self.contract_at.get(contract.contract_no, since) > since:
            found.append("the contract's tariff")
        if any(low <= day < high and at > since for day, at in self.exchange_at.get(contract.service_point_no, ())):
            found.append("a meter exchange")
        names = [item.tariff_id for _, item in contract.parts((bill.start_on, bill.end_on))]
        found += [f"tariff {name}" for name in dict.fromkeys(names) if self.tariff_at.get(name, since) > since]
        days = sorted({day for day, at in self.flags if bill.start_on <= day < bill.end_on and at > since})
        if days:
            found.append(f"day flags of {', '.join(map(str, days[:5]))}")
        for name in series:
            if any(low <= day < high and at > since for day, at in self.series.get(name, ())):
                found.append(f"prices of {name}")
        return found


def fetch_changes(
    conn: psycopg.Connection[Any],
    contracts: Sequence[Contract],
    past: Mapping[int, Sequence[PastBill]],
    refresh_no: int,
) -> Changes | None:
    """Return what became known after the oldest of some bills was made, up to a refresh; None when there are no bills."""
    bills = [bill for items in past.values() for bill in items if bill.bill_no is not None]
    if not bills:
        return None
    given = {
        "contracts": [contract.contract_no for contract in contracts],
        "points": [contract.service_point_no for contract in contracts],
        "since": min(bill.created_at for bill in bills),
        "oldest": min(bill.refresh_no for bill in bills),
        "refresh": refresh_no,
        "low": min(bill.start_on for bill in bills) - dt.timedelta(days=2),
        "high": max(bill.end_on for bill in bills) + dt.timedelta(days=2),
    }

    def grouped(query: str) -> dict[Any, list[tuple[Any, Any]]]:
        found: dict[Any, list[tuple[Any, Any]]] = {}
        for key, first, second in conn.execute(query, given):
            found.setdefault(key, []).append((first, second))
        return found

    return Changes(
        usage=grouped(
            "select distinct w.contract_no, u.day, u.refresh_no from unnest(%(contracts)s::int4[], %(points)s::int4[])"
            " w(contract_no, point) join meter_assignment a on a.service_point_no = w.point join usage_change u"
            " using (meter_no) where u.day between %(low)s and %(high)s and u.refresh_no > %(oldest)s"
            " and u.refresh_no <= %(refresh)s"
        ),
        contract_at=dict(
            conn.execute(
                "select contract_no, max(greatest(entered_at, replaced_at)) from contract_tariff"
                " where contract_no = any(%(contracts)s) group by 1",
                given,
            ).fetchall()
        ),
        exchange_at=grouped(
            "select service_point_no, (at at time zone 'UTC')::date, entered_at from meter_exchange"
            " where service_point_no = any(%(points)s) and entered_at > %(since)s"
        ),
        tariff_at=dict(
            conn.execute("select tariff_id, max(loaded_at) from tariff_document group by 1", given).fetchall()
        ),
        flags=conn.execute(
            "select day, greatest(published_at, withdrawn_at) from day_flag where day between %(low)s and %(high)s"
            " and greatest(published_at, withdrawn_at) > %(since)s",
            given,
        ).fetchall(),
        series=grouped(
            "select series, (start_at at time zone 'UTC')::date, max(published_at) from price_series"
            " where start_at between %(low)s and %(high)s and published_at > %(since)s group by 1, 2"
        ),
    )


class TariffsThen:
    """Tells whether a tariff's newer document differs for the days of a bill, so that a version for later costs nothing."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        """Compare at the first use; answers are kept."""
        self._conn = conn
        self._same: dict[tuple[int, int, dt.date, dt.date], bool] = {}

    def is_same(self, old_no: int, new_no: int, start_on: dt.date, end_on: dt.date) -> bool:
        """Return whether two documents have the same versions in force on some days."""
        key = (old_no, new_no, start_on, end_on)
        if old_no == new_no:
            return True
        if key not in self._same:
            first, second = (self._in_force(number, start_on, end_on) for number in (old_no, new_no))
            self._same[key] = first == second
        return self._same[key]

    def _in_force(self, number: int, start_on: dt.date, end_on: dt.date) -> Any:
        row = self._conn.execute(
            "select document from tariff_document where tariff_document_no = %s", (number,)
        ).fetchone()
        assert row is not None
        tariff = parse_tariff(row[0])
        days = [start_on + dt.timedelta(days=count) for count in range((end_on - start_on).days)]
        versions = {tariff.version_index_on(day): day for day in reversed(days)}
        rest = {key: value for key, value in row[0].items() if key not in ("versions", "sources", "name")}
        texts = sorted(row[0]["versions"], key=lambda version: str(version["valid_from"]))
        # When a version begins matters only inside of the days.
        return rest, [
            (
                max(tariff.versions[index].valid_from, start_on),
                {name: value for name, value in texts[index].items() if name not in ("valid_from", "valid_to")},
            )
            for index in sorted(versions)
        ]


def fetch_documents_used(conn: psycopg.Connection[Any], bill_id: int) -> dict[str, int]:
    """Return the tariff documents that a bill was made of, by tariff."""
    row = conn.execute("select document -> 'tariffs' from bill where bill_id = %s", (bill_id,)).fetchone()
    return {part["tariff_id"]: part["tariff_document_no"] for part in (row[0] if row else []) or []}
