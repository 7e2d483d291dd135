"""The theft detector over a real ledger: a thief made from an honest meter, its alarm, its case; again changes nothing."""

import datetime as dt
import zoneinfo
from typing import Any

import numpy as np
import psycopg
import pytest

from metering.theft.made_home import made_homes
from storage.case import fetch_case, fetch_cases
from storage.theft_run import TheftRun, run_detector
from storage.theft_weeks import TheftRunError
from storage.usage_day import refresh_usage_days
from tests.storage.made_county import TARIFF, put_tariff
from tests.storage.made_ledger import MadeLedger

HOMES, WEEKS, THIEF, ONSET = 12, 7, 5, 4
MONDAY = dt.datetime(2026, 9, 7, tzinfo=dt.UTC)
UTC = zoneinfo.ZoneInfo("UTC")
NODE = "feeder-1/T1"
TABLES = (
    "alarm",
    "alarm_transition",
    "alarm_condition",
    "theft_case",
    "theft_case_event",
    "theft_score",
    "theft_run",
    "audit",
)


def made(conn: psycopg.Connection[Any], kept: float = 0.2, observer: float = 1.02) -> None:
    """Make homes of hourly meters on one transformer, one of which shows less from a week on, and its observer."""
    honest = np.round(made_homes(HOMES, WEEKS, 24, np.random.default_rng(41)) / 10) * 10
    shown = honest.copy()
    shown[THIEF - 1, ONSET:] = np.round(shown[THIEF - 1, ONSET:] * kept)
    supplied = np.round(honest.sum(0) * observer)[None]
    put_tariff(conn, TARIFF)
    ledger = MadeLedger(conn, interval_s=3600)
    for number, wh in enumerate(np.concatenate([shown, supplied]).reshape(HOMES + 1, -1).astype(int), 1):
        ledger.add_meter(number, number, "2026-01-01")
        conn.execute("update meter set interval_s = 3600, parent_id = %s where meter_no = %s", (NODE, number))
        end = MONDAY + dt.timedelta(weeks=WEEKS)
        ledger.read_steadily(number, MONDAY, end, lambda hour, wh=wh: int(wh[hour]))
    conn.execute("update meter set meter_id = 'T1' where meter_no = %s", (HOMES + 1,))
    ledger.flush()
    conn.execute("insert into customer (customer_id, name) values ('c', 'C')")
    conn.execute("insert into account (account_id, customer_no, currency) values ('a', 1, 'CNY')")
    conn.execute(
        "insert into contract (contract_id, account_no, service_point_no, start_on) values ('k', 1, %s, '2026-01-01')",
        (THIEF,),
    )
    conn.execute(
        "insert into contract_tariff (contract_no, start_on, tariff_id, entered_by) values (1, '2026-01-01', 'county', 'x')"
    )


def run(conn: psycopg.Connection[Any], **more: Any) -> TheftRun:
    return run_detector(conn, UTC, weeks=WEEKS, who="ann", **more)


def rows_of(conn: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    return {table: conn.execute(f"select * from {table} order by 1, 2").fetchall() for table in TABLES}


def test_a_thief_has_an_alarm_and_a_case_with_money_and_a_second_run_changes_nothing(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        made(conn)
        found = run(conn)
        assert ("m-5", "theft_drop") in {(lead.subject, lead.kind) for lead in found.leads}
        (case,) = [one for one in fetch_cases(conn) if one.meter_no == THIEF]
        assert case.evidence["fall_on"] == case.fall_on.isoformat()
        assert case.evidence["run_no"] == found.run_no
        assert abs((case.fall_on - (MONDAY + dt.timedelta(weeks=ONSET)).date()).days) <= 3
        assert 0 <= case.missing_wh_low <= case.missing_wh <= case.missing_wh_high
        assert case.money is not None
        assert case.money > 0
        assert case.currency == "CNY"
        assert case.alarm_ids
        assert case.evidence["neighbours"] == HOMES - 1
        assert case.evidence["node"] == NODE
        residual, without = case.evidence["residual_week_wh"], case.evidence["residual_without_week_wh"]
        assert residual[-1] > without[-1]
        assert residual[0] == without[0]
        before = rows_of(conn)
        again = run(conn)
        assert not again.is_new
        assert again.run_no == found.run_no
        assert rows_of(conn) == before


def test_other_facts_make_a_new_run_but_what_stands_is_not_said_again(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        made(conn)
        first = run(conn)
        before = {table: rows for table, rows in rows_of(conn).items() if table.startswith(("alarm", "theft_case"))}
        conn.execute("insert into meter (meter_no, meter_id, parent_id) values (99, 'T9', 'feeder-1/T9')")
        again = run(conn)
        assert again.is_new
        assert again.run_no > first.run_no
        assert again.changes == []
        assert again.cases == []
        after = rows_of(conn)
        assert {table: after[table] for table in before} == before
        assert any(note.startswith("feeder-1/T9 has no members") for note in again.notes)


def test_an_event_of_tampering_within_seven_days_of_the_fall_joins_it(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        made(conn)
        conn.execute(
            "insert into meter_event values (5, 1, 1, %s, 'cover_open', '', 0, 0, 0, now())",
            (MONDAY + dt.timedelta(weeks=ONSET, days=-1),),
        )
        found = run(conn)
        assert "theft_tamper_and_drop" in {lead.kind for lead in found.leads if lead.subject == "m-5"}


def test_what_the_ledger_shows_no_more_ends_its_alarm(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        made(conn)
        run(conn)
        conn.execute("update usage_day u set import_wh = h.import_wh from usage_day h"
                     " where u.meter_no = 5 and h.meter_no = 5 and h.day = u.day - 28 and u.day >= '2026-10-05'")  # fmt: skip
        done = run(conn)
        assert done.is_new
        open_kinds = conn.execute("select kind from alarm where subject = 'm-5' and cleared_at is null").fetchall()
        assert open_kinds == []
        assert fetch_cases(conn), "a case is ended by a person only"


def test_a_negative_observer_is_a_negative_loss_of_its_node_and_no_theft_of_the_feeder(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        made(conn, kept=1.0, observer=0.8)
        kinds = {(lead.subject, lead.kind) for lead in run(conn).leads}
        assert (NODE, "feeder_negative_loss") in kinds
        assert (NODE, "feeder_residual") not in kinds


def test_an_observer_that_counts_more_than_its_members_is_a_residual_of_its_node(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        made(conn, kept=0.0)
        assert (NODE, "feeder_residual") in {(lead.subject, lead.kind) for lead in run(conn).leads}


def test_an_empty_ledger_and_one_without_a_whole_week_are_told_in_words(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        with pytest.raises(TheftRunError, match="no energy yet"):
            run(conn)
        ledger = MadeLedger(conn, interval_s=3600)
        ledger.add_meter(1, 1)
        ledger.read_steadily(1, MONDAY, MONDAY + dt.timedelta(days=5), 100)
        ledger.flush()
        refresh_usage_days(conn)
        with pytest.raises(TheftRunError, match="no whole week before 2026-09-07"):
            run(conn)


def test_a_parent_without_readings_is_told_in_words(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        made(conn)
        conn.execute("update meter set meter_id = 'm-13', parent_id = null where meter_no = 13")
        assert any(note.startswith(f"{NODE}: no balance of its 12 members") for note in run(conn).notes)


def test_a_case_that_is_not_there_is_none(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        assert fetch_case(conn, 1) is None
