"""Alarms in the database: one open alarm a subject and kind, delays, order of arrival, shelves over restarts, floods."""

import datetime as dt
import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from metering.alarm.catalogue import KINDS
from metering.alarm.condition import Condition
from storage.alarm import apply_conditions, tick
from storage.alarm_action import (
    AlarmError,
    acknowledge,
    assign,
    comment,
    reset_latched,
    return_to_service,
    shelve,
    suppress,
    take_out_of_service,
    unshelve,
    unsuppress,
)
from storage.alarm_list import Chosen, fetch_alarm, fetch_alarm_list, fetch_counts, fetch_flood, fetch_performance

T0 = dt.datetime(2026, 11, 25, 8, tzinfo=dt.UTC)


def at(seconds: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=seconds)


def said(kind: str, seconds: float, *, subject: str = "m-1", active: bool = True) -> Condition:
    return Condition(subject, kind, is_active=active, at=at(seconds), detail=f"{kind} at {seconds}")


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as made:
        yield made


def states(conn: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return conn.execute("select subject, kind, state from alarm order by alarm_id").fetchall()


def only_id(conn: psycopg.Connection[Any]) -> int:
    ((alarm_id,),) = conn.execute("select alarm_id from alarm where state <> 'cleared'").fetchall()
    return int(alarm_id)


def test_ten_thousand_identical_conditions_are_one_alarm_that_occurred_so_often(conn: psycopg.Connection[Any]) -> None:
    with conn.transaction():
        changes = apply_conditions(conn, (said("tamper", n) for n in range(10_000)))
    assert [change.state for change in changes] == ["unacknowledged"]
    assert conn.execute("select occurrences, last_at from alarm").fetchall() == [(10_000, at(9_999))]


def test_an_alarm_that_returned_and_comes_again_is_the_same_alarm(conn: psycopg.Connection[Any]) -> None:
    apply_conditions(conn, [said("silent", 0), said("silent", 10, active=False)])
    assert states(conn) == [("m-1", "silent", "returned")]
    apply_conditions(conn, [said("silent", 20)])
    assert states(conn) == [("m-1", "silent", "unacknowledged")]
    acknowledge(conn, [only_id(conn)], who="ann", at=at(30))
    apply_conditions(conn, [said("silent", 40, active=False), said("silent", 50)])
    assert states(conn) == [("m-1", "silent", "cleared"), ("m-1", "silent", "unacknowledged")]


@pytest.mark.parametrize(("seconds", "raised"), [(179, []), (180, [("m-1", "outage", "unacknowledged")])])
def test_a_condition_must_hold_for_its_delay_before_there_is_an_alarm(
    conn: psycopg.Connection[Any], seconds: float, raised: list[Any]
) -> None:
    assert KINDS["outage"].on_delay_s == 180
    apply_conditions(conn, [said("outage", 0)])
    tick(conn, at(seconds))
    assert states(conn) == raised
    apply_conditions(conn, [said("outage", 1_000, active=False)])
    tick(conn, at(2_000))
    assert [state for _, _, state in states(conn)] == ["returned"] * len(raised)


def test_a_condition_that_ends_within_its_delay_leaves_no_alarm(conn: psycopg.Connection[Any]) -> None:
    apply_conditions(conn, [said("outage", 0), said("outage", 179, active=False)])
    tick(conn, at(1_000))
    assert states(conn) == []


def test_an_alarm_returns_only_when_the_condition_has_been_gone_for_its_off_delay(
    conn: psycopg.Connection[Any],
) -> None:
    apply_conditions(conn, [said("lost_voltage", 0)])
    tick(conn, at(60))
    apply_conditions(conn, [said("lost_voltage", 100, active=False)])
    tick(conn, at(159))
    assert states(conn)[0][2] == "unacknowledged"
    apply_conditions(conn, [said("lost_voltage", 159.5)])
    tick(conn, at(300))
    assert states(conn)[0][2] == "unacknowledged", "it came again within the delay"
    apply_conditions(conn, [said("lost_voltage", 400, active=False)])
    tick(conn, at(460))
    assert states(conn)[0][2] == "returned"


@pytest.mark.parametrize("kind", ["silent", "tamper"])
def test_every_order_of_arrival_of_a_kind_without_delay_comes_to_the_same_alarm(database: str, kind: str) -> None:
    words = [said(kind, 0), said(kind, 200, active=False), said(kind, 400), said(kind, 700, active=False)]
    ends = set()
    with psycopg.connect(database, autocommit=True) as conn:
        for order in itertools.permutations(words):
            conn.execute("truncate alarm, alarm_condition, alarm_transition cascade")
            for word in order:
                apply_conditions(conn, [word])
            tick(conn, at(3_000))
            rows = conn.execute("select subject, state, raised_at, cleared_at from alarm").fetchall()
            ends.add(tuple((row[0], row[1], row[3]) for row in rows))
    assert ends == {(("m-1", "returned", at(700)),)}


def test_an_event_without_an_end_returns_after_its_time_and_not_before(conn: psycopg.Connection[Any]) -> None:
    apply_conditions(conn, [said("tamper", 0)])
    tick(conn, at(3_600))
    assert states(conn)[0][2] == "unacknowledged"
    tick(conn, at(3_600.001))
    assert states(conn)[0][2] == "returned"


def test_an_acknowledged_alarm_that_stands_asks_again_after_its_time(conn: psycopg.Connection[Any]) -> None:
    apply_conditions(conn, [said("theft_drop", 0)])
    acknowledge(conn, [only_id(conn)], who="ann", at=at(10))
    fortnight = 14 * 86_400
    tick(conn, at(9 + fortnight))
    assert states(conn)[0][2] == "acknowledged"
    tick(conn, at(10 + fortnight))
    assert states(conn)[0][2] == "unacknowledged"


def test_a_shelf_needs_a_reason_has_a_longest_time_and_ends_by_itself_in_another_process(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        apply_conditions(conn, [said("silent", 0)])
        alarm_id = only_id(conn)
        with pytest.raises(AlarmError, match="reason"):
            shelve(conn, alarm_id, who="ann", at=at(1), reason=" ", until=at(100))
        for until in (at(1), at(1 + 8 * 3600 + 1)):
            with pytest.raises(AlarmError, match="8 h at most"):
                shelve(conn, alarm_id, who="ann", at=at(1), reason="works", until=until)
        shelve(conn, alarm_id, who="ann", at=at(1), reason="works", until=at(1 + 8 * 3600))
        assert fetch_counts(conn)[3, "shelved"] == 1
    with psycopg.connect(database, autocommit=True) as conn:
        tick(conn, at(8 * 3600))
        assert states(conn)[0][2] == "shelved"
        tick(conn, at(1 + 8 * 3600))
        assert states(conn)[0][2] == "unacknowledged"


def test_a_one_shot_shelf_ends_when_the_condition_does_or_at_the_longest_time(conn: psycopg.Connection[Any]) -> None:
    apply_conditions(conn, [said("silent", 0), said("silent", 0, subject="m-2")])
    for row in fetch_alarm_list(conn):
        shelve(conn, row.alarm_id, who="ann", at=at(1), reason="works")
    apply_conditions(conn, [said("silent", 5, active=False)])
    tick(conn, at(1 + 8 * 3600))
    assert states(conn) == [("m-1", "silent", "cleared"), ("m-2", "silent", "unacknowledged")]


def test_a_parent_hides_its_children_those_that_come_later_too_and_gives_them_back(
    conn: psycopg.Connection[Any],
) -> None:
    apply_conditions(conn, [said("silent", 0)])
    with conn.transaction():
        suppress(conn, ["m-1", "m-2", "m-3"], ["silent"], by="gw-1", at=at(1))
        suppress(conn, ["m-1", "m-2", "m-3"], ["silent"], by="gw-1", at=at(1))
    apply_conditions(conn, [said("silent", 2, subject="m-2"), said("tamper", 2, subject="m-2")])
    assert states(conn) == [
        ("m-1", "silent", "suppressed"),
        ("m-2", "silent", "suppressed"),
        ("m-2", "tamper", "unacknowledged"),
    ]
    apply_conditions(conn, [said("silent", 3, active=False)])
    with conn.transaction():
        unsuppress(conn, by="gw-1", at=at(4))
    apply_conditions(conn, [said("silent", 5, subject="m-3")])
    assert [state for _, _, state in states(conn)] == ["cleared", "unacknowledged", "unacknowledged", "unacknowledged"]


def test_what_is_out_of_service_is_kept_and_hidden_until_it_is_back(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(AlarmError, match="no kind"):
        take_out_of_service(conn, "m-1", "silence", who="ann", at=at(0), reason="works", until=at(10))
    with pytest.raises(AlarmError, match="90 days"):
        take_out_of_service(conn, "m-1", "silent", who="ann", at=at(0), reason="works", until=at(90 * 86_400 + 1))
    take_out_of_service(conn, "m-1", "silent", who="ann", at=at(0), reason="works", until=at(100))
    apply_conditions(conn, [said("silent", 10)])
    assert states(conn) == [("m-1", "silent", "out_of_service")]
    tick(conn, at(99))
    assert states(conn) == [("m-1", "silent", "out_of_service")]
    tick(conn, at(100))
    assert states(conn) == [("m-1", "silent", "unacknowledged")]
    with pytest.raises(AlarmError, match="not out of service"):
        return_to_service(conn, "m-1", "silent", who="ann", at=at(101))


def test_acknowledging_many_is_all_or_nothing_and_every_action_has_its_audit_and_record(
    conn: psycopg.Connection[Any],
) -> None:
    apply_conditions(conn, [said("silent", 0), said("silent", 0, subject="m-2")])
    ids = [row.alarm_id for row in fetch_alarm_list(conn)]
    with pytest.raises(AlarmError, match="no open alarm"):
        acknowledge(conn, [*ids, 999_999], who="ann", at=at(1))
    assert {state for _, _, state in states(conn)} == {"unacknowledged"}
    assert [change.state for change in acknowledge(conn, ids, who="ann", at=at(1), note="seen")] == ["acknowledged"] * 2
    assert acknowledge(conn, ids, who="ben", at=at(2)) == [], "twice changes nothing"
    assign(conn, ids[0], who="ann", at=at(3), to="ben")
    comment(conn, ids[0], who="ben", at=at(4), text="the seal is broken")
    found = fetch_alarm(conn, ids[0])
    assert found is not None
    row, changes = found
    assert (row.acknowledged_by, row.assigned_to) == ("ann", "ben")
    said_by = [(one.who, one.why) for one in changes[1:]]
    assert said_by == [("ann", "seen"), ("ann", "assigned to ben"), ("ben", "the seal is broken")]
    actions = conn.execute("select action from audit order by audit_no").fetchall()
    assert [action for (action,) in actions].count("alarm.acknowledge") == 4
    assert conn.execute("select count(*) from outbox where consumer = 'alarm-desk'").fetchone() == (2,)


def test_a_latched_alarm_is_closed_by_a_person_only(conn: psycopg.Connection[Any]) -> None:
    apply_conditions(conn, [said("battery_low", 0), said("battery_low", 10, active=False)])
    alarm_id = only_id(conn)
    assert states(conn)[0][2] == "unacknowledged"
    acknowledge(conn, [alarm_id], who="ann", at=at(20))
    assert states(conn)[0][2] == "acknowledged"
    reset_latched(conn, alarm_id, who="ann", at=at(30), note="battery replaced")
    assert states(conn)[0][2] == "cleared"


def test_three_changes_within_a_minute_chatter_and_two_do_not(conn: psycopg.Connection[Any]) -> None:
    apply_conditions(conn, [said("silent", 0), said("silent", 20, active=False)])
    assert fetch_alarm_list(conn)[0].chattering_at is None
    apply_conditions(conn, [said("silent", 59)])
    assert fetch_alarm_list(conn)[0].chattering_at == at(59)


@pytest.mark.parametrize(("count", "is_flood"), [(10, False), (11, True)])
def test_more_than_ten_new_alarms_in_ten_minutes_are_a_flood_by_area_and_kind(
    conn: psycopg.Connection[Any], count: int, is_flood: bool
) -> None:
    apply_conditions(conn, [said("silent", n, subject=f"feeder-1/transformer-{n}") for n in range(count)])
    groups = fetch_flood(conn, at(300))
    assert sum(number for _, _, number in groups) == (count if is_flood else 0)
    assert fetch_flood(conn, at(600 + count)) == []


def test_performance_counts_what_was_heard_once_and_what_people_took(conn: psycopg.Connection[Any]) -> None:
    suppress(conn, ["m-9"], ["silent"], by="gw-1", at=at(0))
    apply_conditions(conn, [said("silent", n, subject=f"m-{n}") for n in range(12)])
    acknowledge(
        conn, [row.alarm_id for row in fetch_alarm_list(conn, Chosen(["unacknowledged"]))][:1], who="ann", at=at(111)
    )
    found = fetch_performance(conn, T0, at(86_400))
    assert (found.raised, found.per_day, found.ten_minutes_max, found.floods) == (11, 11.0, 11, 1)
    assert (found.by_priority[0].name, found.by_priority[0].percent) == ("3", 100.0)
    assert found.top_percent == 90.9
    assert found.acknowledge_p50_s == 111 - 11


def test_a_kind_that_no_page_explains_is_a_fault_of_the_detector(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(KeyError):
        apply_conditions(conn, [said("nonsense", 0)])


class Desk(RuleBasedStateMachine):
    """Detectors, people and time at once, on three subjects."""

    conn: psycopg.Connection[Any]
    subjects = st.sampled_from(["m-1", "m-2", "m-3"])
    kinds = st.sampled_from(["silent", "lost_voltage", "battery_low"])

    @initialize()
    def begin(self) -> None:
        self.conn.execute(
            "truncate alarm, alarm_condition, alarm_transition, alarm_suppression, alarm_out_of_service, outbox cascade"
        )
        self.now = 0.0

    @rule(subject=subjects, kind=kinds, active=st.booleans(), late_s=st.sampled_from([0, 0, 45, 400]))
    def detector(self, subject: str, kind: str, active: bool, late_s: int) -> None:
        self.now += 7
        apply_conditions(self.conn, [said(kind, self.now - late_s, subject=subject, active=active)])

    @rule(seconds=st.sampled_from([30, 90, 3_600, 9 * 3_600]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        tick(self.conn, at(self.now))

    @rule(subject=subjects, kind=kinds, what=st.sampled_from(["ack", "shelve", "one-shot", "unshelve", "reset"]))
    def person(self, subject: str, kind: str, what: str) -> None:
        self.now += 1
        rows = fetch_alarm_list(self.conn, Chosen(kinds=[kind], subject=subject))
        who: Any = {"who": "ann", "at": at(self.now)}
        for row in rows:
            try:
                match what:
                    case "ack":
                        acknowledge(self.conn, [row.alarm_id], **who)
                    case "shelve":
                        shelve(self.conn, row.alarm_id, reason="works", until=at(self.now + 600), **who)
                    case "one-shot":
                        shelve(self.conn, row.alarm_id, reason="works", **who)
                    case "unshelve":
                        unshelve(self.conn, row.alarm_id, **who)
                    case "reset":
                        reset_latched(self.conn, row.alarm_id, note="seen", **who)
            except AlarmError:
                pass

    @rule(subject=subjects)
    def parent_falls_silent(self, subject: str) -> None:
        suppress(self.conn, [subject], ["silent"], by="gw-1", at=at(self.now))

    @rule()
    def parent_comes_back(self) -> None:
        unsuppress(self.conn, by="gw-1", at=at(self.now))

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "now"):
            return
        doubled = "select subject, kind from alarm where state <> 'cleared' group by 1, 2 having count(*) > 1"
        assert self.conn.execute(doubled).fetchall() == []
        broken = (
            "select a.alarm_id, a.state, t.to_state from alarm a, lateral (select to_state from alarm_transition t"
            " where t.alarm_id = a.alarm_id order by alarm_transition_id desc limit 1) t where t.to_state <> a.state"
        )
        assert self.conn.execute(broken).fetchall() == [], "the last transition says where an alarm stands"
        nameless = "select count(*) from alarm_transition where who = '' or why = ''"
        assert self.conn.execute(nameless).fetchone() == (0,)
        shelved = "select count(*) from alarm where (state = 'shelved') <> (shelved_until is not null)"
        assert self.conn.execute(shelved).fetchone() == (0,)
        too_long = "select count(*) from alarm where shelved_until > %s"
        assert self.conn.execute(too_long, (at(self.now + 8 * 3_600),)).fetchone() == (0,)
        heard = (
            "select count(*) from alarm where state in ('unacknowledged', 'acknowledged') and cleared_at is not null"
            " and kind <> 'battery_low'"
        )
        assert self.conn.execute(heard).fetchone() == (0,), "what stands in the list has its condition"
        gone = "select count(*) from alarm where state in ('returned', 'cleared') and cleared_at is null"
        assert self.conn.execute(gone).fetchone() == (0,)


@pytest.mark.timeout(120)
def test_whatever_detectors_people_and_time_do_the_alarm_list_holds_its_rules(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        Desk.conn = conn
        run_state_machine_as_test(
            Desk,
            settings=settings(
                max_examples=25,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            ),
        )
