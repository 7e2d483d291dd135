"""Contracts in the database: read as the pure types of `metering.contract`, entered, given tariffs, ended."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg

from metering.contract import Contract, ContractTariff
from metering.tariff import Tariff, parse_tariff


class ContractError(ValueError):
    """What was asked of a contract cannot be; the text says why and what to do."""


def fetch_contracts(
    conn: psycopg.Connection[Any],
    *,
    contract_nos: Sequence[int] | None = None,
    service_point_nos: Sequence[int] | None = None,
    account_ids: Sequence[str] | None = None,
    known_at: dt.datetime | None = None,
) -> list[Contract]:
    """Return contracts with their tariffs, by number; those that no tariff was entered for are left out.

    Args:
        conn: Connection, in a transaction or not.
        contract_nos: Only these; None is all, and so for the other two.
        service_point_nos: Only at these service points.
        account_ids: Only of these accounts, by the name that people give them.
        known_at: Tariffs as they were entered at that instant; None is now.
    """
    rows = conn.execute(
        "select c.contract_no, c.contract_id, c.account_no, c.service_point_no, c.start_on, c.end_on, c.billing_day,"
        " t.start_on, t.tariff_id, t.terms"
        " from contract c join account a using (account_no) join contract_tariff t using (contract_no)"
        " where (%(nos)s::int[] is null or c.contract_no = any(%(nos)s))"
        " and (%(points)s::int[] is null or c.service_point_no = any(%(points)s))"
        " and (%(accounts)s::text[] is null or a.account_id = any(%(accounts)s))"
        " and case when %(known)s::timestamptz is null then t.replaced_at is null"
        " else t.entered_at <= %(known)s and coalesce(t.replaced_at > %(known)s, true) end"
        " order by c.contract_no, t.start_on",
        {
            "nos": None if contract_nos is None else list(contract_nos),
            "points": None if service_point_nos is None else list(service_point_nos),
            "accounts": None if account_ids is None else list(account_ids),
            "known": known_at,
        },
    ).fetchall()
    found: dict[int, Contract] = {}
    for no, contract_id, account_no, point_no, start_on, end_on, billing_day, since, tariff_id, terms in rows:
        before = found.get(no)
        item = ContractTariff(since, tariff_id, {name: Decimal(value) for name, value in terms.items()})
        items = (item,) if before is None else (*before.tariffs, item)
        found[no] = Contract(no, contract_id, account_no, point_no, start_on, end_on, billing_day, items)
    return list(found.values())


def fetch_tariff(
    conn: psycopg.Connection[Any], tariff_id: str, known_at: dt.datetime | None = None
) -> tuple[Tariff, int, str]:
    """Return a tariff with the number and SHA-256 of its document: the newest, or the one known at an instant.

    Raises:
        ContractError: There is none of that name, or there was none yet.
    """
    row = conn.execute(
        "select document, tariff_document_no, document_sha256 from tariff_document"
        " where tariff_id = %s and loaded_at <= coalesce(%s::timestamptz, 'infinity')"
        " order by loaded_at desc, tariff_document_no desc limit 1",
        (tariff_id, known_at),
    ).fetchone()
    if row is None:
        known = "" if known_at is None else f" at {known_at.isoformat()}"
        raise ContractError(f"no tariff {tariff_id!r}{known}: `gridtally import tariff FILE` brings one")
    return parse_tariff(row[0]), int(row[1]), str(row[2])
