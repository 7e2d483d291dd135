"""From the registry's network and a scan's alarms to leads: each threshold just inside and just outside."""

import datetime as dt
import zoneinfo

import numpy as np
import pytest

from metering.alarm.catalogue import KINDS
from metering.theft.field_words import FIELD_WORDS, field_words
from metering.theft.ledger import LIVE_KINDS, THEFT_KINDS, Fall, fall_of, kind_of, leads_of, network_of
from metering.theft.scan import Finding
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


@pytest.mark.parametrize(
    ("share", "event_day", "neighbours_share", "is_lead"),
    [
        (0.80, 7, 1.0, True),
        (0.82, 7, 1.0, False),  # a fall of 18 %
        (0.80, 8, 1.0, False),
        (0.50, -7, 0.85, True),
        (0.50, -7, 0.83, False),  # its neighbours fell by 17 %
        (1.50, 0, 1.0, False),
    ],
)
def test_tampering_beside_a_fall_is_a_lead_though_the_scan_called_it_an_honest_change(
    share: float, event_day: int, neighbours_share: float, is_lead: bool
) -> None:
    energy = np.full((3, 6, 7, 24), 100.0)
    energy[0, 4:] *= share
    energy[1:, 4:] *= neighbours_share
    weeks = Weeks(["a", "b", "c"], [DAY + dt.timedelta(weeks=week - 4) for week in range(6)], zoneinfo.ZoneInfo("UTC"),
                  energy, np.ones(3), 3600, 0)  # fmt: skip
    nothing = Finding(np.zeros((3, 6)), [[""] * 6] * 3, 3, [], ["a", "b", "c"])
    network = network_of({"a": "T1", "b": "T1", "c": "T1"})
    leads, _ = leads_of(weeks, nothing, network, {"a": [DAY + dt.timedelta(days=event_day)]})
    assert [(lead.subject, lead.kind) for lead in leads] == ([("a", "theft_tamper_and_drop")] if is_lead else [])
