"""Which gateways are silent, what events mean, and the state of all detectors as bytes."""

import numpy as np
import pyarrow as pa
import pytest

from metering.alarm.catalogue import KINDS
from metering.detect.events import CLEARING, RAISING, meaning_of
from metering.detect.gateways import NONE, Gateways, is_silent
from metering.detect.silence import Silence
from metering.detect.state import Detectors


@pytest.mark.parametrize(
    ("members", "silent", "is_on"), [(2, 2, False), (3, 3, True), (10, 8, True), (10, 7, False), (0, 0, False)]
)
def test_a_gateway_is_silent_when_four_in_five_of_at_least_three_meters_are(
    members: int, silent: int, is_on: bool
) -> None:
    assert is_silent(members, silent) is is_on


def test_a_meter_belongs_to_the_gateway_that_it_was_heard_through_last() -> None:
    gateways = Gateways(6)
    gateways.hear(np.array([1, 2, 3]), pa.array(["a", "b", "a"]))
    gateways.hear(np.array([3, 4]), pa.array(["b", None]))
    gateways.hear(np.array([1]), pa.array([None], pa.string()))
    assert gateways.of_meter.tolist() == [NONE, NONE, 1, 1, NONE, NONE]
    members, silent = gateways.counts(np.array([False, False, True, False, True, True]))
    assert (members.tolist(), silent.tolist()) == ([0, 2], [0, 1])
    again = Gateways.from_bytes(gateways.to_bytes(), 6)
    assert again.of_meter.tolist() == gateways.of_meter.tolist()
    again.hear(np.array([5]), pa.array(["b"]))
    assert again.members(1).tolist() == [2, 3, 5]


def test_every_event_is_of_a_kind_of_alarm_and_none_both_raises_and_ends_it() -> None:
    assert set(RAISING) | set(CLEARING) <= set(KINDS)
    words = [word for table in (RAISING, CLEARING) for codes in table.values() for word in codes]
    assert len(words) == len(set(words))
    assert all(word == word.lower() for word in words)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("Cover-Open", ("tamper", True)),
        ("0x8F75", ("magnetic_field", True)),
        ("0.26.38.49", ("outage", False)),
        ("clock_set", None),
        ("cover_opene", None),
        ("", None),
    ],
)
def test_an_event_code_is_found_however_it_is_written_and_an_unknown_one_means_nothing(
    code: str, meaning: tuple[str, bool] | None
) -> None:
    assert meaning_of(code) == meaning


def test_a_state_of_before_there_was_more_than_silence_is_taken_over() -> None:
    silence = Silence.empty(3)
    silence.tick(1_000_000)
    silence.hear(np.array([2]))
    state = Detectors.from_bytes(silence.to_bytes(), 3)
    assert state.silence.seen_at_us.tolist() == silence.seen_at_us.tolist()
    again = Detectors.from_bytes(state.to_bytes(), 5)
    assert again.size == len(again.electrical.mask) == len(again.gateways.of_meter) == 5
