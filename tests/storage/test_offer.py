"""Offers: the past year under both tariffs by hand arithmetic, and what deciding them does."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from storage.contract import fetch_contracts
from storage.offer import OfferError, Proposed, decide_offer, fetch_offers, make_offers
from tests.storage.made_ledger import MadeLedger

ZONE = ZoneInfo("Asia/Shanghai")
NOW = dt.datetime(2026, 11, 10, 12, tzinfo=ZONE)
FLAT = {"valid_from": "2026-01-01", "rest": "day", "prices": {"day": "0.50"}}
OFFERED = Proposed(["cheap"], {}, dt.date(2026, 12, 1), dt.date(2026, 11, 20))


def put_tariff(conn: psycopg.Connection[Any], name: str, *versions: dict[str, Any], currency: str = "CNY") -> None:
    document = {"tariff_id": name, "name": name, "source": "a test", "currency": currency, "zone": "Asia/Shanghai"}
    document["versions"] = list(versions)  # type: ignore[assignment]
    text = json.dumps(document)
    conn.execute("insert into tariff (tariff_id, document, document_sha256) values (%s, %s, %s)", (name, text, name))


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Two contracts; the first used 1 kWh an hour from 2026-09-20 on, local days, the other nothing."""
    with psycopg.connect(database, autocommit=True) as conn:
        put_tariff(conn, "flat", FLAT)
        dear, cheap = ({"rest": "day", "prices": {"day": price}} for price in ("9", "0.40"))
        put_tariff(
            conn,
            "cheap",
            {"valid_from": "2026-06-01", "valid_to": "2026-12-01", **dear},
            {"valid_from": "2026-12-01", **cheap, "fixed_charge": [{"amount": "10", "per": "cycle"}]},
        )
        put_tariff(conn, "euro", FLAT, currency="EUR")
        ledger = MadeLedger(conn, interval_s=3600)
        for number in (1, 2):
            ledger.add_meter(number, number)
        ledger.read_steadily(1, dt.datetime(2026, 9, 20, tzinfo=ZONE), dt.datetime(2026, 11, 10, 12, tzinfo=ZONE), 1000)
        ledger.flush()
        conn.execute("insert into customer (customer_id, name) values ('c-1', 'Li')")
        conn.execute("insert into account (account_id, customer_no, currency) values ('a-1', 1, 'CNY')")
        for number in (1, 2):
            conn.execute(
                "insert into contract (contract_id, account_no, service_point_no, start_on)"
                " values (%s, 1, %s, '2026-01-01')",
                (f"k-{number}", number),
            )
            conn.execute(
                "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by)"
                " values (%s, '2026-01-01', 'flat', 'ann')",
                (number,),
            )
        yield conn


def test_an_offer_prices_the_own_past_by_cycle_at_the_prices_of_its_day(conn: psycopg.Connection[Any]) -> None:
    (made,) = make_offers(conn, "k-1", OFFERED, NOW, "ann")
    september, october = 11 * 24, 31 * 24  # kWh; whole cycles only, from the first day that is known
    assert [
        (month["start_on"], month["energy_wh"], month["present"], month["proposed"]) for month in made["months"]
    ] == [
        ("2026-09-20", september * 1000, "132.00", "115.60"),
        ("2026-10-01", october * 1000, "372.00", "307.60"),
    ]
    assert (made["start_on"], made["end_on"], made["days"], made["covered_days"]) == (
        "2026-09-20", "2026-11-01", 42, "42.0",
    )  # fmt: skip
    assert made["present"] == {"tariff_id": "flat", "terms": {}, "total": "504.00"}
    assert made["difference"] == str(Decimal("115.60") + Decimal("307.60") - 504)
    (kept,) = fetch_offers(conn, contract_id="k-1")
    assert (kept["state"], kept["comparison"]["difference"]) == ("open", made["difference"])


def test_an_accepted_offer_becomes_the_tariff_of_the_contract_and_is_decided_once(
    conn: psycopg.Connection[Any],
) -> None:
    (made,) = make_offers(conn, "k-1", Proposed(["cheap"], {"contract_kw": Decimal(20)}, OFFERED.start_on,
                                                OFFERED.valid_until), NOW, "ann")  # fmt: skip
    decide_offer(conn, made["offer_no"], NOW, "bob", accepts=True)
    (contract,) = fetch_contracts(conn, contract_nos=[1])
    assert [(item.tariff_id, item.start_on, item.terms) for item in contract.tariffs][1:] == [
        ("cheap", dt.date(2026, 12, 1), {"contract_kw": Decimal(20)})
    ]
    for accepts in (True, False):
        with pytest.raises(OfferError, match="was accepted by bob on"):
            decide_offer(conn, made["offer_no"], NOW, "ann", accepts=accepts)
    actions = conn.execute("select who, action from audit order by audit_no").fetchall()
    assert actions == [("ann", "offer.make"), ("bob", "contract.tariff"), ("bob", "offer.accept")]


def test_an_expired_or_declined_offer_changes_nothing_and_says_why(conn: psycopg.Connection[Any]) -> None:
    one, other = (make_offers(conn, "k-1", OFFERED, NOW, "ann")[0]["offer_no"] for _ in range(2))
    with pytest.raises(OfferError, match=r"has expired: it was valid until 2026-11-20\. Make another"):
        decide_offer(conn, one, dt.datetime(2026, 11, 20, tzinfo=ZONE), "bob", accepts=True)
    decide_offer(conn, other, NOW, "bob", accepts=False)
    with pytest.raises(OfferError, match="was declined by bob"):
        decide_offer(conn, other, NOW, "bob", accepts=True)
    assert len(fetch_contracts(conn, contract_nos=[1])[0].tariffs) == 1
    with pytest.raises(OfferError, match="no offer 99"):
        decide_offer(conn, 99, NOW, "bob", accepts=True)


def test_the_last_moment_before_its_day_is_early_enough(conn: psycopg.Connection[Any]) -> None:
    (made,) = make_offers(conn, "k-1", OFFERED, NOW, "ann")
    decide_offer(conn, made["offer_no"], dt.datetime(2026, 11, 19, 23, 59, 59, tzinfo=ZONE), "bob", accepts=True)


@pytest.mark.parametrize(
    ("contract", "offered", "fault"),
    [
        ("k-9", OFFERED, "no contract 'k-9'"),
        ("k-1", Proposed(["gold"], {}, OFFERED.start_on, OFFERED.valid_until), "no tariff 'gold'"),
        (
            "k-1",
            Proposed(["cheap", "euro"], {}, OFFERED.start_on, OFFERED.valid_until),
            "tariff euro is in EUR, account a-1",
        ),
        ("k-1", Proposed([], {}, OFFERED.start_on, OFFERED.valid_until), "0 tariffs: offer 1 to 10 at once"),
        ("k-1", Proposed(["cheap"], {}, OFFERED.start_on, dt.date(2026, 11, 10)), "has expired today, 2026-11-10"),
        ("k-1", Proposed(["cheap"], {}, dt.date(2025, 1, 1), OFFERED.valid_until), "2025-01-01 is before 2026-01-01"),
        ("k-2", OFFERED, "k-2 has no usage from 2026-01-01 until 2026-11-01: nothing can be compared yet"),
    ],
    ids=["contract", "tariff", "currency", "none", "expired", "before the contract", "no usage"],
)
def test_an_offer_that_cannot_be_made_is_none(
    conn: psycopg.Connection[Any], contract: str, offered: Proposed, fault: str
) -> None:
    with pytest.raises(OfferError, match=fault):
        make_offers(conn, contract, offered, NOW, "ann")
    assert fetch_offers(conn) == []
    assert conn.execute("select count(*) from audit").fetchone() == (0,)
