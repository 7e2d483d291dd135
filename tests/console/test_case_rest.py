"""REST of cases, over a real database."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from console.app import create_app
from schemas.addresses import Addresses
from schemas.settings import Settings


@pytest.fixture
def ask(database: str) -> Any:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("insert into meter (meter_no, meter_id) values (1, 'm-1'), (2, 'm-2')")
        for meter, money in ((1, "12.50"), (2, "99.00")):
            conn.execute(
                "insert into theft_case (meter_no, kind, fall_on, opened_by, missing_wh_low, missing_wh, missing_wh_high,"
                " money, currency, evidence)"
                " values (%s, 'theft_drop', '2026-10-05', 'x', 1, 2, 3, %s, 'CNY', '{\"fall_percent\": 80}')",
                (meter, money),
            )
    addresses = Addresses(
        mqtt="mqtt://127.0.0.1:1", kafka="127.0.0.1:1", database=database, console="http://127.0.0.1:1"
    )
    app = create_app(Settings(), addresses)

    def get(path: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
                return await client.get(path)

        return asyncio.run(send())

    return get


def test_cases_come_by_money_and_money_is_text(ask: Any) -> None:
    rows = ask("/api/v1/cases").json()
    assert [(row["meter_id"], row["money"], row["missing_wh"]) for row in rows] == [
        ("m-2", "99.00", 2),
        ("m-1", "12.50", 2),
    ]
    assert ask("/api/v1/cases?state=rejected").json() == []
    assert ask("/api/v1/cases?limit=1").json() == rows[:1]


def test_one_case_has_its_evidence_history_and_what_to_check(ask: Any) -> None:
    row = ask("/api/v1/cases/1").json()
    assert row["evidence"] == {"fall_percent": 80}
    assert row["history"] == []
    assert set(row["field"]) == {"en", "zh"}


@pytest.mark.parametrize(
    ("path", "code"), [("/3", 404), ("/0", 422), ("/x", 422), ("?state=old", 422), ("?limit=0", 422)]
)
def test_what_is_not_there_or_cannot_be_is_told(ask: Any, path: str, code: int) -> None:
    assert ask(f"/api/v1/cases{path}").status_code == code
