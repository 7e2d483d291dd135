"""Contracts in the database: read as the pure types of `metering.contract`, entered, given tariffs, ended."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from metering.contract import Contract, ContractTariff
from metering.contract_terms import terms_needed
from metering.tariff import Tariff, parse_tariff
from storage.audit import write_audit


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


def _lock_contract(conn: psycopg.Connection[Any], contract_id: str) -> tuple[int, dt.date, dt.date | None, str, str]:
    """Return number, first day, end, account and currency of a contract, locked until the transaction ends."""
    row = conn.execute(
        "select contract_no, start_on, end_on, account_id, currency from contract join account using (account_no)"
        " where contract_id = %s for update of contract",
        (contract_id,),
    ).fetchone()
    if row is None:
        raise ContractError(f"no contract {contract_id!r}: `gridtally import contracts FILE` enters one")
    return row[0], row[1], row[2], row[3], row[4]


def refuse_mixed_currencies(conn: psycopg.Connection[Any], tariff_id: str) -> None:
    """Refuse a tariff document whose currency is not that of every account under it.

    Raises:
        ContractError: Naming a contract; the caller's transaction is to be rolled back.
    """
    row = conn.execute(
        "select c.contract_id, a.currency, t.document->>'currency' from contract_tariff k join tariff t using (tariff_id)"
        " join contract c using (contract_no) join account a using (account_no) where k.tariff_id = %s"
        " and k.replaced_at is null and a.currency <> t.document->>'currency' limit 1",
        (tariff_id,),
    ).fetchone()
    if row is not None:
        raise ContractError(
            f"contract {row[0]} has it in {row[1]}, the document is in {row[2]}: one account, one currency"
        )


def check_tariff(
    conn: psycopg.Connection[Any], contract_id: str, tariff_id: str, terms: Mapping[str, Decimal], start_on: dt.date
) -> None:
    """Refuse a tariff that a contract cannot have from a day on.

    Raises:
        ContractError: Another currency, a day outside the contract, a term that is missing, an unknown name.
    """
    _, first_on, end_on, account_id, currency = _lock_contract(conn, contract_id)
    tariff, _, _ = fetch_tariff(conn, tariff_id)
    if tariff.document.currency != currency:
        raise ContractError(
            f"tariff {tariff_id} is in {tariff.document.currency}, account {account_id} in {currency}: one account has one"
            " currency"
        )
    if start_on < first_on:
        raise ContractError(f"{start_on} is before {first_on}, on which {contract_id} starts")
    if end_on is not None and start_on >= end_on:
        raise ContractError(f"{contract_id} ends on {end_on}: no tariff can begin on {start_on}")
    if missing := sorted(terms_needed(tariff) - set(terms)):
        raise ContractError(f"tariff {tariff_id} needs " + ", ".join(f"--term {name}=20" for name in missing))


def set_contract_tariff(  # a row has that many columns
    conn: psycopg.Connection[Any],
    contract_id: str,
    tariff_id: str,
    start_on: dt.date,
    terms: Mapping[str, Decimal],
    who: str,
) -> list[str]:
    """Give a contract a tariff from a day on, until its next tariff's day; return what should be known about it.

    A tariff that was entered for the same day is replaced, and kept with when. The same again changes nothing.

    Raises:
        ContractError: With what is wrong; nothing was changed.
    """
    written = {name: format(value.normalize(), "f") for name, value in sorted(terms.items())}
    with conn.transaction():
        number, _, _, _, _ = _lock_contract(conn, contract_id)
        check_tariff(conn, contract_id, tariff_id, terms, start_on)
        live = conn.execute(
            "select tariff_id, terms from contract_tariff where contract_no = %s and start_on = %s and replaced_at is null",
            (number, start_on),
        ).fetchone()
        if live == (tariff_id, written):
            return [f"{contract_id} has {tariff_id} from {start_on} already: nothing was changed"]
        conn.execute(
            "update contract_tariff set replaced_at = now()"
            " where contract_no = %s and start_on = %s and replaced_at is null",
            (number, start_on),
        )
        conn.execute(
            "insert into contract_tariff (contract_no, start_on, tariff_id, terms, entered_by) values (%s, %s, %s, %s, %s)",
            (number, start_on, tariff_id, json.dumps(written), who),
        )
        detail = {"tariff": tariff_id, "start_on": start_on, "terms": written, "instead_of": live and live[0]}
        write_audit(conn, who, "contract.tariff", contract_id, detail)
        return _tariff_notices(conn, number, tariff_id, start_on)


def _tariff_notices(conn: psycopg.Connection[Any], number: int, tariff_id: str, start_on: dt.date) -> list[str]:
    found = []
    later = conn.execute(
        "select start_on, tariff_id from contract_tariff where contract_no = %s and start_on > %s and replaced_at is null"
        " order by start_on limit 1",
        (number, start_on),
    ).fetchone()
    if later is not None:
        found.append(f"it holds until {later[0]}, when {later[1]} begins")
    tariff, _, _ = fetch_tariff(conn, tariff_id)
    valid_to = tariff.versions[-1].document.valid_to
    if valid_to is not None and valid_to <= start_on:
        found.append(f"warning: {tariff_id} ended on {valid_to}: its last prices are used on, until it has newer ones")
    billed = conn.execute(
        "select count(*), min(start_on) from bill where contract_no = %s and kind = 'invoice' and bill_no is not null"
        " and state <> 'cancelled' and end_on > %s",
        (number, start_on),
    ).fetchone()
    assert billed is not None
    if billed[0]:
        found.append(f"{billed[0]} bills from {billed[1]} on are issued: they are never edited; cancel and rebill them")
    return found


def end_contract(conn: psycopg.Connection[Any], contract_id: str, end_on: dt.date, who: str) -> list[str]:
    """End a contract before a day; return what should be known about it. The same again changes nothing.

    Raises:
        ContractError: The day is not after its first, bills of later days are issued, or another contract begins.
    """
    with conn.transaction():
        number, start_on, before, _, _ = _lock_contract(conn, contract_id)
        if before == end_on:
            return [f"{contract_id} ends on {end_on} already: nothing was changed"]
        if end_on <= start_on:
            raise ContractError(f"{end_on} is not after {start_on}, on which {contract_id} starts")
        billed = conn.execute(
            "select bill_no, start_on, end_on from bill where contract_no = %s and kind = 'invoice' and bill_no is not null"
            " and state <> 'cancelled' and end_on > %s order by end_on limit 1",
            (number, end_on),
        ).fetchone()
        if billed is not None:
            raise ContractError(f"bill {billed[0]} covers {billed[1]} until {billed[2]}: cancel it first")
        _refuse_overlap(conn, number, contract_id, end_on)
        conn.execute("update contract set end_on = %s where contract_no = %s", (end_on, number))
        gone = conn.execute(
            "update contract_tariff set replaced_at = now() where contract_no = %s and start_on >= %s"
            " and replaced_at is null returning tariff_id, start_on",
            (number, end_on),
        ).fetchall()
        write_audit(conn, who, "contract.end", contract_id, {"end_on": end_on, "before": before})
    return [f"tariff {tariff_id} from {day} on is withdrawn with it" for tariff_id, day in gone]


def _refuse_overlap(conn: psycopg.Connection[Any], number: int, contract_id: str, end_on: dt.date) -> None:
    other = conn.execute(
        "select o.contract_id, o.start_on from contract c join contract o using (service_point_no)"
        " where c.contract_no = %s and o.contract_no <> c.contract_no and o.start_on >= c.start_on and o.start_on < %s"
        " order by o.start_on limit 1",
        (number, end_on),
    ).fetchone()
    if other is not None:
        raise ContractError(f"{contract_id} until {end_on} overlaps {other[0]}, which starts on {other[1]}")


def fetch_contract_list(
    conn: psycopg.Connection[Any],
    *,
    account_id: str | None = None,
    service_point_id: str | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Return contracts as people see them, by name, with the tariff that was entered for their last day."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select c.contract_id, a.account_id, u.customer_id, u.name, p.service_point_id, c.start_on, c.end_on,"
            " c.billing_day, c.delivery, t.tariff_id, t.start_on as tariff_from, t.terms"
            " from contract c join account a using (account_no) join customer u using (customer_no)"
            " join service_point p using (service_point_no) left join lateral (select * from contract_tariff t"
            " where t.contract_no = c.contract_no and t.replaced_at is null order by t.start_on desc limit 1) t on true"
            " where (%(account)s::text is null or a.account_id = %(account)s)"
            " and (%(point)s::text is null or p.service_point_id = %(point)s) order by c.contract_id limit %(limit)s",
            {"account": account_id, "point": service_point_id, "limit": limit},
        ).fetchall()


def fetch_tariff_history(conn: psycopg.Connection[Any], contract_id: str) -> list[dict[str, Any]]:
    """Return every tariff that was ever entered for a contract, with by whom, and when it was replaced.

    Raises:
        ContractError: There is no such contract.
    """
    if conn.execute("select from contract where contract_id = %s", (contract_id,)).fetchone() is None:
        raise ContractError(f"no contract {contract_id!r}")
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select t.start_on, t.tariff_id, t.terms, t.entered_at, t.entered_by, t.replaced_at"
            " from contract_tariff t join contract using (contract_no) where contract_id = %s"
            " order by t.start_on, t.contract_tariff_no",
            (contract_id,),
        ).fetchall()
