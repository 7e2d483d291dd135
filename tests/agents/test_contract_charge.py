"""Settlement under contracts on a real database: which tariff holds, what changes charges, what is noted beside them."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from agents.consumer import Record
from agents.publisher import Publisher
from agents.settle import SettleHandler
from metering.rating import rate
from metering.tariff import parse_tariff
from metering.usage import Inputs
from schemas.frame import decode_charges
from schemas.settings import Settings
from storage.charge import ChargeSoFar, fetch_charge
from storage.check import check_all
from storage.load import fetch_load
from storage.registry import load_registry
from tests.fixtures.fix_ledger import frame_of

US = 1_000_000
ZONE = "Europe/Berlin"
NOON = int(dt.datetime(2026, 11, 10, 11, tzinfo=dt.UTC).timestamp())
"""12:00 in Berlin."""
BUSY = {
    "windows": [{"period": "peak", "from": "12:00", "to": "14:00"}],
    "rest": "night",
    "flags": ["heat_day"],
    "prices": {"peak": "0.50", "night": "0.20"},
    "tiers": [{"up_to_kwh": 2, "adder": "0"}, {"adder": "0.25"}],
    "tier_rule": {"allocation": "sequential"},
    "demand": {"prices": "6", "window_min": 15},
    "taxes": [{"id": "vat", "rate": "0.19"}],
}
HOT = {
    **BUSY,
    "windows": [{"period": "peak", "from": "00:00", "to": "24:00", "day_types": ["heat_day"]}, *BUSY["windows"]],
}
FLAT = {"rest": "all", "prices": "0.30"}
INDEXED = {"rest": "all", "energy": [{"id": "spot", "index": {"name": "spot", "interval_min": 15}}]}


class Kept(Publisher):
    """Keeps what is published, by topic."""

    def __init__(self) -> None:
        self.records: dict[str, list[bytes]] = {}

    def produce(self, topic: str, partition: int, value: bytes, headers: dict[str, Any] | None = None) -> None:
        self.records.setdefault(topic, []).append(value)

    def flush(self, timeout_s: float = 0) -> None:
        """Everything is there already."""

    def amounts(self, meter_id: str) -> list[Decimal | None]:
        """Return the charges of a meter as they were published."""
        rows = [row for frame in self.records.get("meter.charges", []) for row in decode_charges(frame).to_pylist()]
        return [
            None if row["amount"] is None else Decimal(row["amount"]).scaleb(-row["amount_scale"])
            for row in rows
            if row["meter_id"] == meter_id
        ]


class Town:
    """Meters at service points, and a worker that settles them."""

    def __init__(self, dsn: str) -> None:
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.published = Kept()
        settings = Settings.model_validate({"settle": {"checkpoint_batches": 2}})
        self.handler = SettleHandler(settings, dsn, "127.0.0.1:1", self.published)
        self.handler.next_offsets({(self.handler.topics[0], 0)})
        self.offset = 0

    def tariff(self, tariff_id: str, **version: Any) -> None:
        document = {"tariff_id": tariff_id, "currency": "EUR", "zone": ZONE}
        document |= {"versions": [{"valid_from": "2026-01-01", **version}]}
        parse_tariff(document)
        self.conn.execute(
            "insert into tariff (tariff_id, document, document_sha256) values (%s, %s, %s)",
            (tariff_id, json.dumps(document), tariff_id),
        )

    def meter(self, number: int, point: int, start: str = "2026-01-01", end: str = "infinity") -> None:
        self.conn.execute(
            "insert into meter (meter_no, meter_id) values (%s, %s) on conflict do nothing", (number, f"m{number}")
        )
        self.conn.execute("insert into service_point values (%s, %s) on conflict do nothing", (point, f"p{point}"))
        self.conn.execute("insert into meter_assignment values (%s, %s, null, %s, %s)", (number, point, start, end))

    def contract(self, point: int, tariff_id: str, start_on: str = "2026-11-01", billing_day: int = 1) -> None:
        self.conn.execute(
            "with c as (insert into customer (customer_id, name) values (%(id)s, 'x') returning customer_no),"
            " a as (insert into account (account_id, customer_no, currency) select %(id)s, customer_no, 'EUR' from c"
            " returning account_no), k as (insert into contract (contract_id, account_no, service_point_no, start_on,"
            " billing_day) select %(id)s, account_no, %(point)s, %(start)s, %(day)s from a returning contract_no)"
            " insert into contract_tariff (contract_no, start_on, tariff_id, entered_by) select contract_no, %(start)s,"
            " %(tariff)s, 'test' from k",
            {"id": f"c{point}-{start_on}", "point": point, "start": start_on, "day": billing_day, "tariff": tariff_id},
        )

    def read(self, number: int, *readings: tuple[int, int]) -> None:
        """Settle one frame of readings: quarters since noon, and register."""
        rows = [
            {
                "meter_no": number, "seq": quarter + 10_000, "read_at": (NOON + quarter * 900) * US, "import_wh": wh,
                "raw_offset": self.offset, "raw_index": index,
            }
            for index, (quarter, wh) in enumerate(readings)
        ]  # fmt: skip
        self.handler._registry_checked = -1e9  # looks at the master data with every batch
        self.handler.commit(self.handler.topics[0], 0, [Record("meter.readings", 0, self.offset, frame_of(rows))])
        self.offset += 1

    def charge(self, point: int) -> ChargeSoFar | None:
        return fetch_charge(self.conn, load_registry(self.conn), point)

    def bill(self, point: int, version: dict[str, Any], **flags: Any) -> Decimal:
        """Return what the bill's own code makes of November as it is in the ledger."""
        tariff = parse_tariff(
            {"tariff_id": "t", "currency": "EUR", "zone": ZONE, "versions": [{"valid_from": "2026-01-01", **version}]}
        )
        start, end = (int(dt.datetime(2026, month, 1, tzinfo=tariff.zone).timestamp()) * US for month in (11, 12))
        load = fetch_load(self.conn, point, start, end).load
        return rate(tariff, load, [dt.date(2026, 11, 1), dt.date(2026, 12, 1)], Inputs(flags=flags))[0].total_unrounded

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(query).fetchall()  # type: ignore[arg-type]

    def assert_balanced(self) -> None:
        assert not [result.to_text() for result in check_all(self.conn) if not result.holds]


@pytest.fixture
def town(database: str) -> Iterator[Town]:
    made = Town(database)
    yield made
    made.handler.close()
    made.conn.close()


QUARTERS = [(0, 1000), (1, 1900), (2, 2100), (9, 4000), (10, 4600)]


def test_the_charge_of_time_of_use_tiers_and_demand_is_the_bill_and_is_published(town: Town) -> None:
    town.tariff("busy", **BUSY)
    town.meter(1, 1)
    town.contract(1, "busy")
    town.read(1, *QUARTERS[:3])
    town.read(1, *QUARTERS[3:])
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.energy_wh, charge.total_unrounded) == ("state", 3600, town.bill(1, BUSY))
    assert town.published.amounts("m1")[-1] == charge.total_unrounded
    town.assert_balanced()


def test_a_meter_without_a_contract_is_settled_and_charged_when_the_contract_is_entered(town: Town) -> None:
    town.tariff("busy", **BUSY)
    town.meter(1, 1)
    town.read(1, *QUARTERS[:4])
    assert town.charge(1) is None
    assert town.published.amounts("m1") == [None]
    assert town.sql("select count(*) from dead_letter") == [(0,)]
    town.contract(1, "busy")
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.total_unrounded) == ("ledger", town.bill(1, BUSY))
    town.read(1, QUARTERS[4])
    assert town.published.amounts("m1")[-1] == town.bill(1, BUSY)
    december = 21 * 96
    town.read(
        1, (december - 48, 9000), (december, 9500)
    )  # the cycle turns at midnight, and the state carries the next one
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.energy_wh) == ("state", 500)
    town.assert_balanced()


def test_a_late_reading_changes_the_charge_and_both_amounts_are_kept_with_the_reading(town: Town) -> None:
    town.tariff("busy", **BUSY)
    town.meter(1, 1)
    town.contract(1, "busy")
    town.read(1, (0, 1000), (4, 4000))
    before = town.bill(1, BUSY)
    town.read(1, (1, 3500))
    after = town.bill(1, BUSY)
    assert before != after
    rows = town.sql(
        "select reason, currency, old_amount, new_amount, raw_offset, end_at = to_timestamp(1794309300) from charge_change"
    )
    assert rows == [("late_reading", "EUR", before, after, 1, True)]
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.total_unrounded) == ("ledger", after)
    town.read(1, (3, 3800), (5, 4100))
    assert town.published.amounts("m1")[-1] == town.bill(1, BUSY)
    town.assert_balanced()


def test_a_late_reading_of_an_earlier_cycle_is_noted_as_such(town: Town) -> None:
    town.tariff("flat", **FLAT)
    town.meter(1, 1)
    town.contract(1, "flat", billing_day=10)
    town.read(1, (-100, 1000), (-60, 2000), (0, 3000))
    town.read(1, (-80, 1500))
    assert town.sql("select reason, old_amount = new_amount from charge_change") == [("closed_cycle", True)]
    charge = town.charge(1)
    assert charge is not None
    assert charge.cycle_start == dt.datetime(2026, 11, 9, 23, tzinfo=dt.UTC)
    assert charge.source == "state"


def test_a_day_that_is_published_late_reprices_it_without_refolding(town: Town) -> None:
    town.tariff("hot", **HOT)
    town.meter(1, 1)
    town.contract(1, "hot")
    town.read(1, (8, 1000), (12, 2000))
    town.conn.execute("insert into day_flag (flag, day, published_by) values ('heat_day', '2026-11-10', 'test')")
    wanted = town.bill(1, HOT, heat_day=frozenset({dt.date(2026, 11, 10)}))
    assert wanted > town.bill(1, HOT)
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.total_unrounded) == ("ledger", wanted)
    town.read(1, (13, 2100))
    assert town.published.amounts("m1")[-1] == town.bill(1, HOT, heat_day=frozenset({dt.date(2026, 11, 10)}))
    town.assert_balanced()


def test_a_change_of_prices_alone_reprices_the_state(town: Town) -> None:
    town.tariff("flat", **FLAT)
    town.meter(1, 1)
    town.contract(1, "flat")
    town.read(1, (0, 1000), (1, 2000))
    town.conn.execute(
        "update tariff set document = replace(document::text, '0.30', '0.40')::jsonb, document_sha256 = 'new'"
    )
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.total_unrounded) == ("state", Decimal("0.4"))


def test_a_tariff_of_two_contracts_in_one_cycle_is_charged_from_the_ledger(town: Town) -> None:
    town.tariff("flat", **FLAT)
    town.tariff("dear", rest="all", prices="1.00")
    town.meter(1, 1)
    town.contract(1, "flat")
    town.conn.execute(
        "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by) select contract_no, '2026-11-11', 'dear',"
        " 'test' from contract"
    )
    midnight = 48
    town.read(1, (midnight - 4, 1000), (midnight, 2000), (midnight + 4, 4000))
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.total_unrounded) == ("ledger", Decimal("0.3") + 2)
    assert [part[2] for part in charge.parts] == ["flat", "dear"]
    assert town.published.amounts("m1")[-1] == charge.total_unrounded
    town.assert_balanced()


def test_what_needs_published_prices_is_settled_and_charged_once_they_are_there(town: Town) -> None:
    town.tariff("spot", **INDEXED)
    town.meter(1, 1)
    town.contract(1, "spot")
    town.read(1, (0, 1000), (1, 2000))
    assert town.published.amounts("m1") == [None]
    start = dt.datetime.fromtimestamp(NOON, dt.UTC)
    town.conn.execute("insert into price_series (series, start_at, price) values ('spot', %s, 0.7)", (start,))
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.total_unrounded) == ("ledger", Decimal("0.7"))


def test_a_final_register_at_the_exchange_is_the_old_meters_and_an_opening_one_the_new_meters(town: Town) -> None:
    town.tariff("flat", **FLAT)
    at = dt.datetime.fromtimestamp(NOON + 900, dt.UTC).isoformat()
    town.meter(1, 1, end=at)
    town.meter(2, 1, start=at)
    town.contract(1, "flat")
    town.read(1, (0, 1000), (1, 1400))
    town.read(2, (1, 10), (2, 610))
    town.read(1, (2, 1500))  # after it was taken down
    assert town.sql("select meter_no, code from dead_letter join meter using (meter_id)") == [(1, "no_tariff")]
    assert town.sql("select meter_no, sum(energy_wh)::int from fact group by 1 order by 1") == [(1, 400), (2, 600)]
    charge = town.charge(1)
    assert charge is not None
    assert (charge.energy_wh, charge.total_unrounded) == (1000, Decimal("0.3"))
    town.assert_balanced()


def test_days_with_news_and_the_clock_are_noted_with_the_batch(town: Town) -> None:
    town.tariff("flat", **FLAT)
    town.meter(1, 1)
    town.read(1, (0, 1000), (1, 1100))
    town.read(1, (100, 2000))
    town.read(1, (2, 1150))
    days = town.sql("select day::text, partition, next_offset from ledger_day order by 1")
    assert days == [
        ("2026-11-10", 0, 3),
        ("2026-11-11", 0, 3),
    ]  # the late one lies in an interval that ends the next day
    assert town.sql("select partition, next_offset from ledger_clock") == [(0, 1)]  # at most one each 15 s


def test_the_terms_of_the_contract_count_in_the_live_charge(town: Town) -> None:
    town.tariff("terms", **FLAT, fixed_charge={"amount": "2", "per": "month", "times": "contract_kw"})
    town.meter(1, 1)
    town.contract(1, "terms")
    town.conn.execute("""update contract_tariff set terms = '{"contract_kw": "7"}'""")
    town.read(1, (0, 1000), (1, 2000))
    charge = town.charge(1)
    assert charge is not None
    assert (charge.source, charge.total_unrounded) == ("state", Decimal("14.3"))
