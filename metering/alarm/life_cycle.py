"""The life-cycle of an alarm after ISA-18.2, as a function: where it stands, what happens, where it stands then.

Seven states: normal (here ``cleared``), unacknowledged, acknowledged, returned to normal and unacknowledged, shelved by a person,
suppressed by design, out of service. The condition goes on being followed in every one of them.
"""

import dataclasses
import enum
from collections.abc import Callable


class State(enum.StrEnum):
    """Where an alarm stands; the words are those of the database."""

    CLEARED = "cleared"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned"
    SHELVED = "shelved"
    SUPPRESSED = "suppressed"
    OUT_OF_SERVICE = "out_of_service"


class Event(enum.StrEnum):
    """What can happen to an alarm."""

    RAISE = "raise"
    RETURN = "return"
    ACKNOWLEDGE = "acknowledge"
    RE_ALARM = "re-alarm"
    RESET = "reset"
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    TAKE_OUT = "take out of service"
    PUT_BACK = "return to service"


HIDDEN = (State.SHELVED, State.SUPPRESSED, State.OUT_OF_SERVICE)
_IN = {Event.SHELVE: State.SHELVED, Event.SUPPRESS: State.SUPPRESSED, Event.TAKE_OUT: State.OUT_OF_SERVICE}
_OUT = {Event.UNSHELVE: State.SHELVED, Event.UNSUPPRESS: State.SUPPRESSED, Event.PUT_BACK: State.OUT_OF_SERVICE}


class LifeCycleError(ValueError):
    """What is asked for cannot happen where the alarm stands; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where one alarm stands."""

    state: State = State.CLEARED
    is_active: bool = False
    """Whether the condition holds."""
    is_acknowledged: bool = False
    is_one_shot: bool = False
    """Shelved until the condition ends."""


def after(standing: Standing, event: Event, *, is_latched: bool = False, is_one_shot: bool = False) -> Standing:
    """Return where an alarm stands after an event.

    Args:
        standing: Before it.
        event: What happens.
        is_latched: The kind stays in alarm until a person resets it.
        is_one_shot: Of SHELVE: until the condition ends.

    Raises:
        LifeCycleError: The event is no one's to have here.
    """
    if event in _IN:
        return _hidden(standing, event, is_one_shot=is_one_shot)
    if event in _OUT:
        return _back(standing, event, is_latched=is_latched)
    if event == Event.RETURN:
        return _returned(standing, is_latched=is_latched)
    return _PLAIN[event](standing)


def _raised(standing: Standing) -> Standing:
    if standing.state in (State.CLEARED, State.RETURNED):
        return Standing(State.UNACKNOWLEDGED, is_active=True)
    return dataclasses.replace(standing, is_active=True)


def _returned(standing: Standing, *, is_latched: bool) -> Standing:
    ended = dataclasses.replace(standing, is_active=False)
    match standing.state:
        case State.CLEARED | State.RETURNED | State.OUT_OF_SERVICE:
            return ended
        case State.SUPPRESSED:
            return Standing()
        case State.SHELVED:
            return Standing() if standing.is_one_shot and not is_latched else ended
    if is_latched:
        return ended
    return Standing() if standing.is_acknowledged else dataclasses.replace(ended, state=State.RETURNED)


def _acknowledged(standing: Standing) -> Standing:
    match standing.state:
        case State.UNACKNOWLEDGED:
            return dataclasses.replace(standing, state=State.ACKNOWLEDGED, is_acknowledged=True)
        case State.RETURNED:
            return Standing()
        case State.ACKNOWLEDGED:
            return standing
    raise LifeCycleError(f"an alarm that is {_said(standing.state)} cannot be acknowledged")


def _hidden(standing: Standing, event: Event, *, is_one_shot: bool) -> Standing:
    target = _IN[event]
    if standing.state == target and event != Event.SHELVE:
        return standing
    if event == Event.SHELVE and standing.state in (State.CLEARED, State.SUPPRESSED, State.OUT_OF_SERVICE):
        raise LifeCycleError(f"an alarm that is {_said(standing.state)} cannot be shelved")
    if event == Event.SUPPRESS and standing.state in (State.SHELVED, State.OUT_OF_SERVICE, State.CLEARED):
        return standing  # a person's decision, or nothing, stands above the system's
    if event == Event.SHELVE and is_one_shot and not standing.is_active:
        raise LifeCycleError("the condition has ended already: acknowledge the alarm, there is nothing to wait for")
    return dataclasses.replace(standing, state=target, is_one_shot=event == Event.SHELVE and is_one_shot)


def _back(standing: Standing, event: Event, *, is_latched: bool) -> Standing:
    """Return where an alarm stands that is hidden no longer: it is heard anew unless somebody had acknowledged it."""
    if standing.state != _OUT[event]:
        raise LifeCycleError(f"the alarm is not {_said(_OUT[event])}: it is {_said(standing.state)}")
    if not standing.is_active and not is_latched:
        return Standing()
    state = State.ACKNOWLEDGED if standing.is_acknowledged else State.UNACKNOWLEDGED
    return dataclasses.replace(standing, state=state, is_one_shot=False)


def _re_alarmed(standing: Standing) -> Standing:
    if standing.state != State.ACKNOWLEDGED:
        return standing
    return dataclasses.replace(standing, state=State.UNACKNOWLEDGED, is_acknowledged=False)


def _reset(standing: Standing) -> Standing:
    if standing.is_active:
        raise LifeCycleError("the condition still holds: it can be reset when it has ended")
    return Standing()


def _said(state: State) -> str:
    return state.replace("_", " ")


_PLAIN: dict[Event, Callable[[Standing], Standing]] = {
    Event.RAISE: _raised,
    Event.ACKNOWLEDGE: _acknowledged,
    Event.RE_ALARM: _re_alarmed,
    Event.RESET: _reset,
}
