"""The life-cycle of an alarm as a function: each arrow of ISA-18.2, and those that are not there."""

import pytest

from metering.alarm.catalogue import KINDS
from metering.alarm.life_cycle import Event, LifeCycleError, Standing, State, after

RAISED = after(Standing(), Event.RAISE)
ACKED = after(RAISED, Event.ACKNOWLEDGE)


def run(*events: Event, **options: bool) -> Standing:
    standing = Standing()
    for event in events:
        standing = after(standing, event, **options)
    return standing


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((Event.RAISE,), State.UNACKNOWLEDGED),
        ((Event.RAISE, Event.ACKNOWLEDGE), State.ACKNOWLEDGED),
        ((Event.RAISE, Event.RETURN), State.RETURNED),
        ((Event.RAISE, Event.ACKNOWLEDGE, Event.RETURN), State.CLEARED),
        ((Event.RAISE, Event.RETURN, Event.ACKNOWLEDGE), State.CLEARED),
        ((Event.RAISE, Event.RETURN, Event.RAISE), State.UNACKNOWLEDGED),
        ((Event.RAISE, Event.SHELVE), State.SHELVED),
        ((Event.RAISE, Event.SHELVE, Event.UNSHELVE), State.UNACKNOWLEDGED),
        ((Event.RAISE, Event.ACKNOWLEDGE, Event.SHELVE, Event.UNSHELVE), State.ACKNOWLEDGED),
        ((Event.RAISE, Event.SHELVE, Event.RETURN), State.SHELVED),
        ((Event.RAISE, Event.SHELVE, Event.RETURN, Event.UNSHELVE), State.CLEARED),
        ((Event.RAISE, Event.SUPPRESS), State.SUPPRESSED),
        ((Event.RAISE, Event.SUPPRESS, Event.UNSUPPRESS), State.UNACKNOWLEDGED),
        ((Event.RAISE, Event.SUPPRESS, Event.RETURN), State.CLEARED),
        ((Event.RAISE, Event.TAKE_OUT, Event.RETURN, Event.RAISE), State.OUT_OF_SERVICE),
        ((Event.RAISE, Event.TAKE_OUT, Event.PUT_BACK), State.UNACKNOWLEDGED),
        ((Event.RAISE, Event.ACKNOWLEDGE, Event.RE_ALARM), State.UNACKNOWLEDGED),
        ((Event.RAISE, Event.SHELVE, Event.SUPPRESS), State.SHELVED),
    ],
)
def test_each_arrow_leads_where_isa_18_2_says(events: tuple[Event, ...], state: State) -> None:
    assert run(*events).state == state


def test_a_one_shot_shelf_ends_when_the_condition_does_and_a_timed_one_does_not() -> None:
    assert after(after(RAISED, Event.SHELVE, is_one_shot=True), Event.RETURN) == Standing()
    assert after(after(RAISED, Event.SHELVE), Event.RETURN).state == State.SHELVED


def test_a_latched_alarm_stays_until_it_is_reset_and_cannot_be_reset_while_its_condition_holds() -> None:
    ended = after(ACKED, Event.RETURN, is_latched=True)
    assert ended.state == State.ACKNOWLEDGED
    assert after(ended, Event.RESET) == Standing()
    with pytest.raises(LifeCycleError, match="still holds"):
        after(ACKED, Event.RESET)
    hidden = after(after(ACKED, Event.SHELVE), Event.RETURN, is_latched=True)
    assert after(hidden, Event.UNSHELVE, is_latched=True).state == State.ACKNOWLEDGED


@pytest.mark.parametrize(
    ("events", "event", "why"),
    [
        ((), Event.ACKNOWLEDGE, "cannot be acknowledged"),
        ((Event.RAISE, Event.SHELVE), Event.ACKNOWLEDGE, "shelved cannot be acknowledged"),
        ((), Event.SHELVE, "cannot be shelved"),
        ((Event.RAISE, Event.SUPPRESS), Event.SHELVE, "cannot be shelved"),
        ((Event.RAISE,), Event.UNSHELVE, "not shelved"),
        ((Event.RAISE, Event.SHELVE), Event.PUT_BACK, "not out of service"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(events: tuple[Event, ...], event: Event, why: str) -> None:
    with pytest.raises(LifeCycleError, match=why):
        after(run(*events), event)


def test_a_one_shot_shelf_is_refused_when_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(LifeCycleError, match="has ended already"):
        after(after(RAISED, Event.RETURN), Event.SHELVE, is_one_shot=True)


def test_every_kind_has_a_priority_from_consequence_and_urgency_and_few_are_of_the_highest() -> None:
    priorities = [kind.priority for kind in KINDS.values()]
    assert priorities.count(1) * 20 <= 2 * len(priorities)
    assert set(priorities) == {1, 2, 3, 4}
    assert all(kind.sources for kind in KINDS.values())
