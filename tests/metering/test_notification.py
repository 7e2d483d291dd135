"""Who is told of an alarm: rules, windows over midnight and over changes of the clocks, back-off, addresses."""

import datetime as dt

import pytest

from metering.notification import (
    ATTEMPTS_MAX,
    AddressError,
    Change,
    Rule,
    alarm_topic,
    check_topic,
    check_url,
    is_fit_ip,
    is_in_window,
    matches,
    next_try,
)

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)  # a Tuesday
CHANGE = Change("outage", 2, "feeder-1/t-1", "unacknowledged")


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("rule", "does"),
    [
        (Rule(), True),
        (Rule(kinds=["outage"]), True),
        (Rule(kinds=["tamper"]), False),
        (Rule(priority_max=2), True),
        (Rule(priority_max=1), False),
        (Rule(area="feeder-1"), True),
        (Rule(area="feeder-1/"), True),
        (Rule(area="feeder-1/t-1"), True),
        (Rule(area="feeder-1/t-1/x"), False),
        (Rule(area="feeder"), False),
        (Rule(events=["returned"]), False),
        (Rule(events=["returned", "raised"]), True),
        (Rule(events=[]), False),
    ],
)
def test_a_rule_matches_by_kind_priority_area_and_event(rule: Rule, does: bool) -> None:
    assert matches(rule, CHANGE, NOW) is does


@pytest.mark.parametrize(
    ("begin", "end", "when", "inside"),
    [
        ("08:00", "16:00", "2026-11-24T08:00:00+00:00", True),
        ("08:00", "16:00", "2026-11-24T07:59:59.999999+00:00", False),
        ("08:00", "16:00", "2026-11-24T15:59:59.999999+00:00", True),
        ("08:00", "16:00", "2026-11-24T16:00:00+00:00", False),
        ("22:00", "06:00", "2026-11-24T21:59:59+00:00", False),
        ("22:00", "06:00", "2026-11-24T22:00:00+00:00", True),
        ("22:00", "06:00", "2026-11-25T00:00:00+00:00", True),
        ("22:00", "06:00", "2026-11-25T05:59:59+00:00", True),
        ("22:00", "06:00", "2026-11-25T06:00:00+00:00", False),
        ("00:00", "00:00", "2026-11-25T06:00:00+00:00", True),
    ],
)
def test_a_window_holds_its_first_instant_and_not_its_last_also_over_midnight(
    begin: str, end: str, when: str, inside: bool
) -> None:
    rule = Rule(from_time=dt.time.fromisoformat(begin), until_time=dt.time.fromisoformat(end))
    assert is_in_window(rule, at(when)) is inside


def test_the_weekday_of_a_window_is_that_of_its_begin() -> None:
    tuesday_night = Rule(weekdays=[2], from_time=dt.time(22), until_time=dt.time(6))
    assert not is_in_window(tuesday_night, at("2026-11-24T05:00:00+00:00")), "that is Monday's night"
    assert is_in_window(tuesday_night, at("2026-11-24T23:00:00+00:00"))
    assert is_in_window(tuesday_night, at("2026-11-25T05:00:00+00:00"))
    assert not is_in_window(tuesday_night, at("2026-11-25T23:00:00+00:00"))
    sunday_night = Rule(weekdays=[7], from_time=dt.time(22), until_time=dt.time(6))
    assert is_in_window(sunday_night, at("2026-11-30T05:00:00+00:00")), "Monday follows Sunday"


def test_a_window_goes_by_the_clocks_of_its_zone_when_they_change() -> None:
    night = Rule(from_time=dt.time(2, 30), until_time=dt.time(3), zone="Europe/Zurich")
    for hour, minute, inside in (
        (0, 29, False),
        (0, 30, True),
        (0, 59, True),
        (1, 0, False),
        (1, 30, True),
        (2, 0, False),
    ):
        assert is_in_window(night, dt.datetime(2026, 10, 25, hour, minute, tzinfo=dt.UTC)) is inside, (hour, minute)
    for hour in range(24):
        assert not is_in_window(night, dt.datetime(2026, 3, 29, hour, 45, tzinfo=dt.UTC)), "it does not come that day"
    day = Rule(from_time=dt.time(8), until_time=dt.time(16), zone="Europe/Zurich")
    assert is_in_window(day, at("2026-10-24T06:00:00+00:00"))
    assert not is_in_window(day, at("2026-10-26T06:00:00+00:00")), "an hour later by UTC"
    assert is_in_window(day, at("2026-10-26T07:00:00+00:00"))


def test_waits_double_from_a_minute_to_an_hour_and_end() -> None:
    waits = [next_try(attempts, NOW, NOW) for attempts in range(1, ATTEMPTS_MAX + 1)]
    assert [(wait - NOW).total_seconds() / 60 for wait in waits if wait] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert waits[-1] is None


def test_no_attempt_is_made_more_than_a_day_after_the_first() -> None:
    assert next_try(1, NOW, NOW + dt.timedelta(hours=24, minutes=-1)) == NOW + dt.timedelta(hours=24)
    assert next_try(1, NOW, NOW + dt.timedelta(hours=24, seconds=-59)) is None


@pytest.mark.parametrize("address", ["https://a.example/x?y=1", "http://10.0.0.1:8080/", "https://[2001:db8::1]/x"])
def test_plain_web_addresses_are_taken(address: str) -> None:
    assert check_url(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd", "ftp://a/", "https://", "https://user:pass@a/", "https://a/\r\nX: y", "https://a/ b",
        "https://a/#f", "https://a:99999/", "https://ä.example/", "//a/", "", "https://a/" + "x" * 2000,
    ],
)  # fmt: skip
def test_other_addresses_are_refused_without_showing_a_password(address: str) -> None:
    with pytest.raises(AddressError) as caught:
        check_url(address)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("address", ["", "a/#", "+/a", "$SYS/x", "a//b", "/a", "a/", "a b", "a\nb"])
def test_topics_with_signs_of_the_broker_are_refused(address: str) -> None:
    with pytest.raises(AddressError):
        check_topic(address)


def test_an_area_is_one_level_of_a_topic() -> None:
    assert alarm_topic("gridtally/v1/alarms", "feeder-1/t#1", "outage") == "gridtally/v1/alarms/feeder-1_t_1/outage"
    assert alarm_topic("a", "", "outage") == "a/-/outage"


def test_link_local_addresses_are_no_receivers() -> None:
    wrong = ("169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1", "::")
    assert not any(map(is_fit_ip, wrong))
    assert all(map(is_fit_ip, ("127.0.0.1", "10.0.0.1", "192.0.2.1", "2001:db8::1")))
