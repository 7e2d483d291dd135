"""Contracts: entered, given tariffs over time, ended; read as the pure core takes them."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest

from storage.contract import ContractError, fetch_contracts, fetch_tariff
from storage.first_tariffs import import_first_tariffs


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    import_first_tariffs(database)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("insert into service_point values (1, 'p-1'), (2, 'p-2')")
        conn.execute("insert into customer (customer_id, name) values ('c-1', 'Li')")
        conn.execute("insert into account (account_id, customer_no, currency) values ('a-1', 1, 'CNY')")
        conn.execute(
            "insert into contract (contract_id, account_no, service_point_no, start_on)"
            " values ('k-1', 1, 1, '2026-01-01'), ('k-2', 1, 2, '2026-02-01')"
        )
        conn.execute(
            "insert into contract_tariff (contract_no, start_on, tariff_id, terms, entered_by, entered_at, replaced_at)"
            " values (1, '2026-01-01', 'county-residential', '{}', 'ann', '2026-01-01', null),"
            " (1, '2026-03-01', 'county-residential', '{\"contract_kw\": \"20.5\"}', 'ann', '2026-02-10', '2026-02-20'),"
            " (1, '2026-03-01', 'county-commercial', '{\"contract_kw\": \"30\"}', 'ann', '2026-02-20', null)"
        )
        yield conn


def test_a_contract_comes_with_its_tariffs_oldest_first(conn: psycopg.Connection) -> None:
    (found,) = fetch_contracts(conn, account_ids=["a-1"])
    assert [(item.start_on.month, item.tariff_id) for item in found.tariffs] == [
        (1, "county-residential"),
        (3, "county-commercial"),
    ]
    assert found.tariffs[1].terms == {"contract_kw": Decimal(30)}
    assert fetch_contracts(conn, service_point_nos=[2]) == [], "without a tariff nothing can be billed"
    assert fetch_contracts(conn, contract_nos=[]) == []


def test_a_contract_can_be_asked_for_as_it_was_known_then(conn: psycopg.Connection) -> None:
    known = {
        day: fetch_contracts(conn, contract_nos=[1], known_at=dt.datetime(2026, 2, day, tzinfo=dt.UTC))
        for day in (1, 15)
    }
    assert [len(found[0].tariffs) for found in known.values()] == [1, 2]
    assert known[15][0].tariffs[1].terms == {"contract_kw": Decimal("20.5")}


def test_a_tariff_comes_with_the_document_it_was_read_from(conn: psycopg.Connection) -> None:
    tariff, number, digest = fetch_tariff(conn, "county-residential")
    assert (tariff.tariff_id, len(digest)) == ("county-residential", 64)
    conn.execute("update tariff set document_sha256 = 'new' where tariff_id = 'county-residential'")
    _, later, new_digest = fetch_tariff(conn, "county-residential")
    assert (later > number, new_digest) == (True, "new")
    with pytest.raises(ContractError, match=r"no tariff 'county-residential' at 2020"):
        fetch_tariff(conn, "county-residential", dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
