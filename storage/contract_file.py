"""Contracts imported from files of master data, a row for each tariff of a contract, and exported so.

Everything is checked in the database, against what is there and the other rows of the file together: a million contracts
take seconds. A contract with any faulty row is left out whole.
"""

from collections.abc import Iterator
from typing import Any

import psycopg

from metering.contract import cycle_of
from metering.contract_terms import terms_needed
from storage.contract import fetch_tariff
from storage.customer import AN_ID
from storage.master_cell import one_of, read_day, read_id, read_terms, read_text, whole
from storage.master_file import Column, Faults, Layout, Outcome, Rows, bring_up_to_date, find_faults, stage

A_DAY = "a day like 2026-11-24"
CONTRACTS = Layout(
    "contracts",
    (
        Column("contract_id", read_id, AN_ID, is_required=True),
        Column("account_id", read_id, AN_ID, is_required=True),
        Column("service_point_id", read_text, "a service point", is_required=True),
        Column("start_on", read_day, A_DAY, "date", is_required=True),
        Column("end_on", read_day, A_DAY, "date"),
        Column("billing_day", whole(1, 28), "a day of the month from 1 to 28", "integer", default=1),
        Column("delivery", one_of("email", "file", "none"), "email, file or none", default="file"),
        Column("tariff_id", read_text, "a tariff", is_required=True),
        Column("tariff_from", read_day, A_DAY, "date"),
        Column("terms", read_terms, "terms like contract_kw=20;capacity_kva=10", "jsonb", default="{}"),
    ),
    ("contract_id", "tariff_from"),
)
_PREPARE = """
alter table staged_contracts add account_no integer, add service_point_no integer, add currency text;
update staged_contracts set tariff_from = coalesce(tariff_from, start_on);
update staged_contracts s set account_no = a.account_no, currency = a.currency from account a
    where a.account_id = s.account_id;
update staged_contracts s set service_point_no = p.service_point_no from service_point p
    where p.service_point_id = s.service_point_id;
analyze staged_contracts;
"""
_KEEP_TERMS = """
update staged_contracts s set terms = t.terms from contract c join contract_tariff t using (contract_no)
    where c.contract_id = s.contract_id and t.start_on = s.tariff_from and t.replaced_at is null and t.tariff_id = s.tariff_id
"""
_ONE_ROW = "(select distinct on (contract_id) * from staged_contracts order by contract_id, line)"
_CHECKS = (
    (
        "account_id",
        "no account {!r}: import accounts first",
        "select line, account_id from staged_contracts where account_no is null",
    ),
    (
        "service_point_id",
        "no service point {!r}: import service-points or meters first",
        "select line, service_point_id from staged_contracts where service_point_no is null",
    ),
    (
        "tariff_id",
        "no tariff {!r}: `gridtally import tariff FILE` brings one",
        "select line, tariff_id from staged_contracts s where not exists (select from tariff t where t.tariff_id = s.tariff_id)",
    ),
    (
        "end_on",
        "{} is not after {}, on which the contract starts",
        "select line, end_on, start_on from staged_contracts where end_on <= start_on",
    ),
    (
        "tariff_from",
        "{} is before {}, on which the contract starts",
        "select line, tariff_from, start_on from staged_contracts where tariff_from < start_on",
    ),
    (
        "tariff_from",
        "{} is not before {}, on which the contract ends",
        "select line, tariff_from, end_on from staged_contracts where tariff_from >= end_on and start_on < end_on",
    ),
    (
        "contract_id",
        "{} is on line {} with another account, service point, start, end, billing day or delivery",
        "select s.line, s.contract_id, o.line from staged_contracts s join " + _ONE_ROW + " o using (contract_id)"
        " where (s.account_id, s.service_point_id, s.start_on, s.end_on, s.billing_day, s.delivery) is distinct from"
        " (o.account_id, o.service_point_id, o.start_on, o.end_on, o.billing_day, o.delivery)",
    ),
    (
        "tariff_from",
        "{} has a tariff from {} on line {} already",
        (
            "select line, contract_id, tariff_from, before from (select line, contract_id, tariff_from, lag(line)"
            " over (partition by contract_id, tariff_from order by line) as before from staged_contracts) s"
            " where before is not null"
        ),
    ),
    (
        "contract_id",
        "{} is there, of account {} at {} from {}: that never changes; end it, and enter a new one",
        "select s.line, c.contract_id, a.account_id, p.service_point_id, c.start_on from " + _ONE_ROW + " s"
        " join contract c using (contract_id) join account a on a.account_no = c.account_no"
        " join service_point p on p.service_point_no = c.service_point_no"
        " where (c.account_no, c.service_point_no, c.start_on) is distinct from"
        " (s.account_no, s.service_point_no, s.start_on)",
    ),
    (
        "tariff_from",
        "{} has no tariff on {}, its first day",
        "select s.line, s.contract_id, s.start_on from "
        + _ONE_ROW
        + " s where not exists (select from staged_contracts o"
        " where o.contract_id = s.contract_id and o.tariff_from <= s.start_on) and not exists"
        " (select from contract c join contract_tariff t using (contract_no) where c.contract_id = s.contract_id"
        " and t.replaced_at is null and t.start_on = s.start_on)",
    ),
    (
        "tariff_id",
        "{} is in {}, account {} in {}: one account has one currency",
        (
            "select s.line, s.tariff_id, t.currency, s.account_id, s.currency from staged_contracts s join"
            " (select tariff_id, document->>'currency' as currency from tariff offset 0) t using (tariff_id)"
            " where t.currency <> s.currency"
        ),
    ),
    (
        "end_on",
        "bill {} of {} covers days until {}: cancel it first",
        "select s.line, b.bill_no, s.contract_id, b.end_on from " + _ONE_ROW + " s join contract c using (contract_id)"
        " join bill b using (contract_no) where b.kind = 'invoice' and b.bill_no is not null and b.state <> 'cancelled'"
        " and b.end_on > s.end_on",
    ),
)
_OVERLAPS = (
    "with every as (select line, contract_id, service_point_id, start_on, end_on from " + _ONE_ROW + " s"
    " union all select null, c.contract_id, p.service_point_id, c.start_on, c.end_on from contract c"
    " join service_point p using (service_point_no) where not exists"
    " (select from staged_contracts s where s.contract_id = c.contract_id))"
    " select a.line, a.contract_id, a.service_point_id, a.start_on, coalesce(a.end_on::text, 'its end'),"
    " b.contract_id, b.start_on, coalesce(b.end_on::text, 'its end') from every a"
    " join every b using (service_point_id) where a.line is not null and a.contract_id <> b.contract_id"
    " and (b.line is null or b.line < a.line) and a.start_on < coalesce(a.end_on, 'infinity')"
    " and b.start_on < coalesce(b.end_on, 'infinity') and a.start_on < coalesce(b.end_on, 'infinity')"
    " and b.start_on < coalesce(a.end_on, 'infinity') order by a.line"
)


def apply_contracts(conn: psycopg.Connection[Any], rows: Rows, faults: Faults, who: str) -> Outcome:
    """Write contracts with their tariffs; a tariff row that differs replaces the one of its day, which is kept.

    Tariffs that the file does not name stay. A contract never changes its account, service point or first day.
    """
    conn.execute("lock table contract, contract_tariff in share row exclusive mode")
    stage(conn, rows)
    conn.execute(_PREPARE)
    if "terms" not in rows.present:
        conn.execute(_KEEP_TERMS)
    for column, fault, query in _CHECKS:
        find_faults(conn, faults, column, fault, query + " order by 1")
    fault = "{} at {} from {} until {} overlaps {}, from {} until {}"
    find_faults(conn, faults, "start_on", fault, _OVERLAPS)
    _check_terms(conn, faults)
    _drop_halves(conn, rows, faults)
    notices = _notices(conn)
    outcome = _write(conn, rows, who)
    outcome.notices = notices
    return outcome


def _drop_halves(conn: psycopg.Connection[Any], rows: Rows, faults: Faults) -> None:
    """Leave out every row of a contract that has a faulty one."""
    if faults.lines:
        wrong = list({row[1] for row in rows.rows if row[0] in faults.lines})
        conn.execute("delete from staged_contracts where contract_id = any(%s)", (wrong,))


def _check_terms(conn: psycopg.Connection[Any], faults: Faults) -> None:
    groups = conn.execute(
        "select s.tariff_id, k.names, array_agg(s.line) from staged_contracts s join tariff using (tariff_id) cross join"
        " lateral (select array(select jsonb_object_keys(s.terms) order by 1) as names) k group by 1, 2"
    ).fetchall()
    needed = {tariff_id: terms_needed(fetch_tariff(conn, tariff_id)[0]) for tariff_id in {row[0] for row in groups}}
    for tariff_id, names, lines in groups:
        for name in sorted(needed[tariff_id] - set(names)):
            for line in lines:
                faults.add(line, "terms", f"tariff {tariff_id} needs {name}, such as {name}=20")


def _notices(conn: psycopg.Connection[Any]) -> list[str]:
    found = [_late(conn)]
    for text, query in (
        (
            "{} contracts have no meter yet, such as {} at {}: they are billed for what is read when one is assigned",
            "select count(*), min(s.contract_id), (array_agg(s.service_point_id order by s.contract_id))[1] from "
            + _ONE_ROW
            + " s where not exists (select from meter_assignment a where a.service_point_no = s.service_point_no)",
        ),
        (
            "{} tariff rows have a tariff that ends before the contract or its next tariff begins, such as {} of {}",
            (
                "select count(*), min(tariff_id), (array_agg(contract_id order by tariff_id))[1] from (select s.contract_id,"
                " s.tariff_id, s.end_on, t.valid_to, lead(s.tariff_from) over (partition by s.contract_id order by s.tariff_from)"
                " as next_from from staged_contracts s join (select tariff_id, (document->'versions'->-1->>'valid_to')::date"
                " as valid_to from tariff offset 0) t using (tariff_id)) s"
                " where valid_to < coalesce(next_from, end_on, 'infinity')"
            ),
        ),
        (
            "{} contracts have their bills sent by e-mail and a customer without an address, such as {} of account {}",
            "select count(*), min(s.contract_id), (array_agg(s.account_id order by s.contract_id))[1] from "
            + _ONE_ROW
            + " s join account using (account_no) join customer c using (customer_no)"
            " where s.delivery = 'email' and c.email is null",
        ),
    ):
        row = conn.execute(query.encode()).fetchone()
        assert row is not None
        if row[0]:
            found.append(text.format(*row))
    return [text for text in found if text]


def _late(conn: psycopg.Connection[Any]) -> str:
    """Say from when on bills can be run for new contracts that start in the past."""
    rows = conn.execute(
        (
            "select count(*) over (), s.contract_id, s.start_on, s.billing_day from " + _ONE_ROW + " s"
            " where s.start_on < current_date and not exists (select from contract c where c.contract_id = s.contract_id)"
            " order by s.start_on, s.line limit 1"
        ).encode()
    ).fetchone()
    if rows is None:
        return ""
    count, contract_id, start_on, billing_day = rows
    return (
        f"{count} new contracts start in the past, the earliest ({contract_id}) on {start_on}: bills can be run from the"
        f" cycle that ends on {cycle_of(billing_day, start_on)[1]} on, for what was read since the start"
    )


def _write(conn: psycopg.Connection[Any], rows: Rows, who: str) -> Outcome:
    given = {name: name for name in ("account_no", "service_point_no", "start_on", "end_on", "billing_day", "delivery")}
    conn.execute("drop table if exists pg_temp.every_row")
    conn.execute(
        ("create temp table first_rows on commit drop as select * from " + _ONE_ROW + " s order by line").encode()
    )
    conn.execute("alter table staged_contracts rename to every_row")
    conn.execute("alter table first_rows rename to staged_contracts")
    outcome = bring_up_to_date(conn, rows, "contract", given, kept=("account_no", "service_point_no", "start_on"))
    replaced = conn.execute(
        "update contract_tariff t set replaced_at = now() from contract c join every_row s using (contract_id)"
        " where t.contract_no = c.contract_no and t.replaced_at is null and t.start_on = s.tariff_from"
        " and (t.tariff_id, t.terms) is distinct from (s.tariff_id, s.terms)"
    ).rowcount
    added = conn.execute(
        "insert into contract_tariff (contract_no, start_on, tariff_id, terms, entered_at, entered_by)"
        " select c.contract_no, s.tariff_from, s.tariff_id, s.terms, now(), %s"
        " from every_row s join contract c using (contract_id)"
        " where not exists (select from contract_tariff t where t.contract_no = c.contract_no"
        " and t.start_on = s.tariff_from and t.replaced_at is null) order by s.line",
        (who,),
    ).rowcount
    conn.execute(
        "update contract_tariff t set replaced_at = now() from contract c join staged_contracts s"
        " using (contract_id) where t.contract_no = c.contract_no and t.replaced_at is null and t.start_on >= c.end_on"
    )
    outcome.rows = len(rows.rows)
    outcome.changed += max(replaced, added - outcome.new)
    return outcome


def fetch_contract_rows(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield contracts as their layout has them, a row for each tariff."""
    yield from conn.execute(
        "select c.contract_id, a.account_id, p.service_point_id, c.start_on, c.end_on, c.billing_day, c.delivery,"
        " t.tariff_id, t.start_on, t.terms from contract c join account a using (account_no)"
        " join service_point p using (service_point_no) join contract_tariff t using (contract_no)"
        " where t.replaced_at is null order by c.contract_no, t.start_on"
    )
