"""From the registry's network and a scan's alarms to leads: each threshold just inside and just outside."""

import datetime as dt
import zoneinfo

import numpy as np
import pytest

from metering.alarm.catalogue import KINDS
from metering.theft.field_words import FIELD_WORDS, field_words
from metering.theft.ledger import LIVE_KINDS, THEFT_KINDS, Fall, fall_of, kind_of, network_of
from metering.theft.weeks import Weeks

DAY = dt.date(2026, 10, 5)


def fall(percent: int, neighbours: int | None = 0) -> Fall:
    return Fall(DAY, percent, neighbours, (0, 0, 0), (0, 0, 0))


def test_every_kind_is_of_the_catalogue_and_has_words_for_the_field() -> None:
    assert set(LIVE_KINDS) <= set(KINDS)
    assert set(FIELD_WORDS) == set(THEFT_KINDS)
    assert all(field_words(kind, "zh") != field_words(kind, "en") for kind in THEFT_KINDS)


@pytest.mark.parametrize(
    ("percent", "neighbours", "kind"),
    [
        (50, 15, "theft_drop"),
        (49, 15, "theft_suspicion"),
        (50, 16, "theft_suspicion"),
        (50, -15, "theft_drop"),
        (50, -16, "theft_suspicion"),
        (50, None, "theft_drop"),
        (20, 0, "theft_suspicion"),
        (19, 0, "theft_pattern"),
        (-40, 0, "theft_pattern"),
    ],
)
def test_a_fall_by_half_beside_steady_neighbours_is_a_drop(percent: int, neighbours: int | None, kind: str) -> None:
    assert kind_of(fall(percent, neighbours), []) == kind


@pytest.mark.parametrize(
    ("days", "percent", "is_joined"), [(7, 20, 1), (-7, 20, 1), (8, 20, 0), (-8, 20, 0), (0, 19, 0)]
)
def test_tampering_within_seven_days_of_a_fall_joins_it(days: int, percent: int, is_joined: int) -> None:
    found = kind_of(fall(percent), [DAY + dt.timedelta(days=days)])
    assert (found == "theft_tamper_and_drop") == bool(is_joined)


def test_an_observer_is_named_as_its_node_or_the_last_part_of_it_and_is_no_member() -> None:
    network = network_of({"a": "f/T1", "T1": "f/T1", "b": "T2", "T2": None})
    assert network.parent_of == {"a": "T1", "b": "T2"}
    assert network.node_of == {"T1": "f/T1", "T2": "T2"}
    assert network.notes == []


def test_an_observer_of_two_nodes_is_of_neither_and_one_without_members_is_told() -> None:
    network = network_of({"a": "f/T1", "b": "g/T1", "T1": None, "T9": "f/T9"})
    assert "T1" not in network.node_of
    assert any("f/T1 or g/T1" in note for note in network.notes)
    assert any(note.startswith("f/T9 has no members") for note in network.notes)


def test_missing_energy_is_the_usual_week_less_what_was_shown() -> None:
    energy = np.full((2, 6, 7, 24), 100.0)
    energy[0, 4:] = 25.0
    weeks = Weeks(["a", "b"], [DAY + dt.timedelta(weeks=week - 4) for week in range(6)], zoneinfo.ZoneInfo("UTC"),
                  energy, np.ones(2), 3600, 0)  # fmt: skip
    found = fall_of(weeks, 0, [0, 1], 5)
    assert (found.day, found.percent, found.neighbours_percent) == (DAY, 75, 0)
    assert found.week_wh == (16_800, 16_800, 16_800)
    assert found.missing_wh == (25_200, 25_200, 25_200)
    energy[0, 5, 6] = np.nan
    assert fall_of(weeks, 0, [0, 1], 5).missing_wh[1] == 13 * 1800, "a gap is no theft"
