"""Contracts: entered, given tariffs over time, ended; read as the pure core takes them."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from storage.contract import (
    ContractError,
    end_contract,
    fetch_contracts,
    fetch_tariff,
    fetch_tariff_history,
    refuse_mixed_currencies,
    set_contract_tariff,
)
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


# -- tariffs over time, and the end -------------------------------------------------------------------------------------

COUNTY = "county-commercial"
NEXT_YEAR = dt.date(2027, 1, 1)


def audited(conn: psycopg.Connection) -> list[tuple[str, str, str]]:
    return conn.execute("select who, action, subject from audit order by audit_no").fetchall()


def test_a_tariff_set_for_a_day_holds_until_the_next_and_the_one_before_it_is_kept(conn: psycopg.Connection) -> None:
    terms = {"contract_kw": Decimal("20.50")}
    assert set_contract_tariff(conn, "k-1", COUNTY, dt.date(2026, 2, 1), terms, "ann") == [
        "it holds until 2026-03-01, when county-commercial begins"
    ]
    set_contract_tariff(conn, "k-1", "county-residential", dt.date(2026, 2, 1), {}, "bob")
    (found,) = fetch_contracts(conn, contract_nos=[1])
    assert [item.tariff_id for item in found.tariffs] == ["county-residential", "county-residential", COUNTY]
    history = [row for row in fetch_tariff_history(conn, "k-1") if row["start_on"] == dt.date(2026, 2, 1)]
    assert [(row["terms"], row["entered_by"], row["replaced_at"] is None) for row in history] == [
        ({"contract_kw": "20.5"}, "ann", False),
        ({}, "bob", True),
    ]
    assert audited(conn) == [("ann", "contract.tariff", "k-1"), ("bob", "contract.tariff", "k-1")]


def test_the_same_tariff_again_changes_nothing(conn: psycopg.Connection) -> None:
    set_contract_tariff(conn, "k-1", COUNTY, NEXT_YEAR, {"contract_kw": Decimal("20.0")}, "ann")
    before = fetch_tariff_history(conn, "k-1"), audited(conn)
    notices = set_contract_tariff(conn, "k-1", COUNTY, NEXT_YEAR, {"contract_kw": Decimal(20)}, "bob")
    assert notices == ["k-1 has county-commercial from 2027-01-01 already: nothing was changed"]
    assert (fetch_tariff_history(conn, "k-1"), audited(conn)) == before


@pytest.mark.parametrize(
    ("contract", "tariff", "day", "fault"),
    [
        ("k-9", COUNTY, NEXT_YEAR, "no contract 'k-9'"),
        ("k-1", "gold", NEXT_YEAR, "no tariff 'gold'"),
        ("k-1", COUNTY, dt.date(2025, 12, 31), "2025-12-31 is before 2026-01-01, on which k-1 starts"),
        ("k-2", COUNTY, dt.date(2026, 12, 1), "k-2 ends on 2026-12-01: no tariff can begin on 2026-12-01"),
        ("k-1", "euro", NEXT_YEAR, "tariff euro is in EUR, account a-1 in CNY"),
        ("k-1", "demand", NEXT_YEAR, "tariff demand needs --term contract_kw=20"),
    ],
    ids=["no contract", "no tariff", "before it starts", "after it ends", "currency", "terms"],
)
def test_a_tariff_that_cannot_be_is_refused_with_the_reason(
    conn: psycopg.Connection, contract: str, tariff: str, day: dt.date, fault: str
) -> None:
    conn.execute("update contract set end_on = '2026-12-01' where contract_id = 'k-2'")
    for name, change in (
        ("euro", {"currency": "EUR"}),
        (
            "demand",
            {"versions": [{**PLAIN, "fixed_charge": [{"amount": "5", "per": "month", "times": "contract_kw"}]}]},
        ),
    ):
        put_tariff(conn, name, change)
    before = fetch_tariff_history(conn, "k-1"), audited(conn)
    with pytest.raises(ContractError, match=fault):
        set_contract_tariff(conn, contract, tariff, day, {}, "ann")
    assert (fetch_tariff_history(conn, "k-1"), audited(conn)) == before


PLAIN = {"valid_from": "2026-01-01", "rest": "day", "prices": {"day": "0.5"}}


def put_tariff(conn: psycopg.Connection, name: str, change: dict[str, Any]) -> None:
    document = {"tariff_id": name, "name": name, "source": "a test", "currency": "CNY", "zone": "Asia/Shanghai"}
    document |= {"versions": [PLAIN]} | change
    conn.execute("insert into tariff (tariff_id, document, document_sha256) values (%s, %s, %s)", (
        name, json.dumps(document), name,
    ))  # fmt: skip


def test_a_tariff_that_has_ended_is_warned_of(conn: psycopg.Connection) -> None:
    put_tariff(conn, "old", {"versions": [{**PLAIN, "valid_to": "2026-06-01"}]})
    (notice,) = set_contract_tariff(conn, "k-1", "old", NEXT_YEAR, {}, "ann")
    assert notice == "warning: old ended on 2026-06-01: its last prices are used on, until it has newer ones"


def test_the_end_of_a_contract_takes_later_tariffs_with_it_and_lets_another_begin(conn: psycopg.Connection) -> None:
    set_contract_tariff(conn, "k-1", COUNTY, NEXT_YEAR, {}, "ann")
    assert end_contract(conn, "k-1", dt.date(2026, 12, 1), "ann") == [
        "tariff county-commercial from 2027-01-01 on is withdrawn with it"
    ]
    assert end_contract(conn, "k-1", dt.date(2026, 12, 1), "bob") == [
        "k-1 ends on 2026-12-01 already: nothing was changed"
    ]
    conn.execute(
        "insert into contract (contract_id, account_no, service_point_no, start_on) values ('k-3', 1, 1, '2026-12-01')"
    )
    with pytest.raises(ContractError, match="k-1 until 2026-12-02 overlaps k-3, which starts on 2026-12-01"):
        end_contract(conn, "k-1", dt.date(2026, 12, 2), "ann")
    with pytest.raises(ContractError, match="2026-01-01 is not after 2026-01-01, on which k-1 starts"):
        end_contract(conn, "k-1", dt.date(2026, 1, 1), "ann")
    assert audited(conn)[1:] == [("ann", "contract.end", "k-1")]


def test_a_contract_does_not_end_before_days_that_were_billed(conn: psycopg.Connection) -> None:
    conn.execute(
        "insert into bill (kind, state, bill_no, contract_no, account_no, start_on, end_on, currency, total, total_unrounded,"
        " ledger_position, document, created_by) values ('invoice', 'issued', 'B-7', 1, 1, '2026-05-01', '2026-06-01', 'CNY',"
        " 1, 1, '{}', '{}', 'ann')"
    )
    with pytest.raises(ContractError, match="bill B-7 covers 2026-05-01 until 2026-06-01: cancel it first"):
        end_contract(conn, "k-1", dt.date(2026, 5, 31), "ann")
    end_contract(conn, "k-1", dt.date(2026, 6, 1), "ann")
    (notice,) = set_contract_tariff(conn, "k-1", "county-residential", dt.date(2026, 5, 15), {}, "ann")
    assert notice == "1 bills from 2026-05-01 on are issued: they are never edited; cancel and rebill them"


def test_a_tariff_document_in_another_currency_than_its_contracts_is_refused(conn: psycopg.Connection) -> None:
    put_tariff(conn, "plain", {})
    set_contract_tariff(conn, "k-1", "plain", NEXT_YEAR, {}, "ann")
    refuse_mixed_currencies(conn, "plain")
    conn.execute("update tariff set document = document || '{\"currency\": \"EUR\"}' where tariff_id = 'plain'")
    with pytest.raises(ContractError, match="contract k-1 has it in CNY, the document is in EUR"):
        refuse_mixed_currencies(conn, "plain")
