"""Customers, their accounts, and the service points: imported from files of master data, and exported."""

from collections.abc import Iterator
from typing import Any

import psycopg

from storage.master_cell import one_of, read_currency, read_email, read_id, read_text, read_word
from storage.master_file import Column, Faults, Layout, Outcome, Rows, bring_up_to_date, drop_faulty, find_faults, stage

AN_ID = "1 to 64 of A-Z a-z 0-9 . _ -"
CUSTOMERS = Layout(
    "customers",
    (
        Column("customer_id", read_id, AN_ID, is_required=True),
        Column("name", read_text, "a name", is_required=True),
        Column("email", read_email, "an e-mail address"),
        Column("phone", read_text, "a telephone number"),
        Column("postal_address", read_text, "an address", default=""),
        Column("language", one_of("en", "zh"), "en or zh", default="en"),
    ),
    ("customer_id",),
)
ACCOUNTS = Layout(
    "accounts",
    (
        Column("account_id", read_id, AN_ID, is_required=True),
        Column("customer_id", read_id, AN_ID, is_required=True),
        Column("class", read_word, "a word in small letters, such as residential", default="residential"),
        Column("currency", read_currency, "a currency such as CNY", is_required=True),
    ),
    ("account_id",),
)
SERVICE_POINTS = Layout(
    "service-points",
    (
        Column("service_point_id", read_text, "a name of at most 64 signs", is_required=True),
        Column("postal_address", read_text, "an address", default=""),
        Column("area", read_text, "an area", default=""),
    ),
    ("service_point_id",),
)


def apply_customers(conn: psycopg.Connection[Any], rows: Rows, faults: Faults, who: str) -> Outcome:
    """Write customers; what was faulty is left out, and nothing is ever taken away."""
    del who, faults
    stage(conn, rows)
    given = {name: name for name in CUSTOMERS.names[1:]}
    return bring_up_to_date(conn, rows, "customer", given)


def fetch_customers(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield customers as their layout has them, in the order in which they were entered."""
    yield from conn.execute(
        "select customer_id, name, email, phone, postal_address, language from customer order by customer_no"
    )


def apply_accounts(conn: psycopg.Connection[Any], rows: Rows, faults: Faults, who: str) -> Outcome:
    """Write accounts."""
    del who
    stage(conn, rows)
    conn.execute("alter table staged_accounts add customer_no integer")
    conn.execute(
        "update staged_accounts s set customer_no = c.customer_no from customer c where c.customer_id = s.customer_id"
    )
    find_faults(
        conn,
        faults,
        "customer_id",
        "no customer {!r}: import customers first",
        "select line, customer_id from staged_accounts where customer_no is null order by line",
    )
    find_faults(
        conn,
        faults,
        "currency",
        "{} has contracts whose tariffs are in {}, not {}",
        "select s.line, s.account_id, min(t.document->>'currency'), s.currency from staged_accounts s"
        " join account a using (account_id) join contract c using (account_no)"
        " join contract_tariff k on k.contract_no = c.contract_no and k.replaced_at is null"
        " join tariff t on t.tariff_id = k.tariff_id"
        " where a.currency <> s.currency and t.document->>'currency' <> s.currency group by 1, 2, 4 order by 1",
    )
    drop_faulty(conn, ACCOUNTS, faults)
    given = {"customer_no": "customer_no", "class": "class", "currency": "currency"}
    return bring_up_to_date(conn, rows, "account", given)


def fetch_accounts(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield accounts as their layout has them."""
    yield from conn.execute(
        "select account_id, customer_id, class, currency from account join customer using (customer_no)"
        " order by account_no"
    )


def apply_service_points(conn: psycopg.Connection[Any], rows: Rows, faults: Faults, who: str) -> Outcome:
    """Write service points; their numbers go on from the highest, as those that come with meters."""
    del who, faults
    conn.execute("lock table meter in share row exclusive mode")  # numbers are given under this lock, by `registry` too
    stage(conn, rows)
    conn.execute("alter table staged_service_points add service_point_no integer")
    conn.execute(
        "update staged_service_points s set service_point_no = n.number from"
        " (select s.line, (select coalesce(max(service_point_no), 0) from service_point)"
        " + row_number() over (order by s.line) as number from staged_service_points s where not exists"
        " (select from service_point p where p.service_point_id = s.service_point_id)) n where n.line = s.line"
    )
    given = {"service_point_no": "service_point_no", "postal_address": "postal_address", "area": "area"}
    return bring_up_to_date(conn, rows, "service_point", given, kept=("service_point_no",))


def fetch_service_points(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield service points as their layout has them."""
    yield from conn.execute(
        "select service_point_id, postal_address, area from service_point order by service_point_no"
    )
