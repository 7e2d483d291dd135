"""Who is told of an alarm: which rules match, when to try again, which addresses are fit; pure."""

import dataclasses
import datetime as dt
import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

EVENTS = {
    "raised": "unacknowledged",
    **{word: word for word in ("acknowledged", "returned", "cleared", "shelved", "suppressed", "out_of_service")},
}
"""What a rule can be about, with the state that an alarm comes to."""
ATTEMPTS_MAX = 12
AGE_MAX = dt.timedelta(hours=24)
"""From the first attempt; then it has failed, and is shown as that."""
WAIT_S, WAIT_MAX_S = 60, 3600
_MQTT_LEVEL = re.compile(r"[^A-Za-z0-9._-]")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,64}){0,7}")


class AddressError(ValueError):
    """An address is not fit; the message says why and never holds what may be secret in it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """Of which changes a receiver is told. Empty kinds, weekdays, area: all of them."""

    kinds: Collection[str] = ()
    priority_max: int = 4
    area: str = ""
    events: Collection[str] = ("raised",)
    weekdays: Collection[int] = ()
    """1 (Monday) to 7, of the local day on which the window begins."""
    from_time: dt.time = dt.time(0)
    until_time: dt.time = dt.time(0)
    """Exclusive; not later than `from_time`: of the next day. The same: all day."""
    zone: str = "UTC"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What happened to an alarm."""

    kind: str
    priority: int
    area: str
    state: str


def matches(rule: Rule, change: Change, at: dt.datetime) -> bool:
    """Return whether a rule has its receiver told of a change, at the instant of telling."""
    return (
        (not rule.kinds or change.kind in rule.kinds)
        and change.priority <= rule.priority_max
        and is_within(rule.area, change.area)
        and any(EVENTS.get(event) == change.state for event in rule.events)
        and is_in_window(rule, at)
    )


def is_within(area: str, of: str) -> bool:
    """Return whether a place is an area or lies in it, by whole names: ``feeder-1`` does not hold ``feeder-10``."""
    area = area.rstrip("/")
    return not area or of == area or of.startswith(area + "/")


def is_in_window(rule: Rule, at: dt.datetime) -> bool:
    """Return whether an instant is in a rule's hours, by the zone's clocks; a time that comes twice is in both times."""
    local = at.astimezone(ZoneInfo(rule.zone))
    clock, day = local.time(), local.isoweekday()
    before = (day + 5) % 7 + 1
    start, end = rule.from_time, rule.until_time
    if start < end:
        days = [day] if start <= clock < end else []
    elif start == end:
        days = [day if clock >= start else before]
    else:
        days = [day] if clock >= start else [before] if clock < end else []
    return any(not rule.weekdays or one in rule.weekdays for one in days)


def next_try(attempts: int, first_at: dt.datetime, now: dt.datetime) -> dt.datetime | None:
    """Return when to try again after so many failed attempts: after 1, 2, 4 ... minutes, at most an hour; None: no more."""
    due = now + dt.timedelta(seconds=min(WAIT_S * 2 ** min(max(attempts - 1, 0), 10), WAIT_MAX_S))
    return None if attempts >= ATTEMPTS_MAX or due - first_at > AGE_MAX else due


def check_url(address: str) -> str:
    """Return the address of a webhook.

    Raises:
        AddressError: It is no plain http or https address.
    """
    if not address.isascii() or not address.isprintable() or " " in address or len(address) > 2000:
        raise AddressError("a webhook's address has only printable ASCII signs, at most 2000")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise AddressError("that is no address of a webhook") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AddressError("a webhook's address begins with https:// or http:// and has a host")
    if "@" in parts.netloc:
        raise AddressError("a webhook's address holds no user or password: what it is sent is signed instead")
    if parts.fragment:
        raise AddressError("a webhook's address has no fragment")
    return address


def check_topic(address: str) -> str:
    """Return the beginning of the topics of an MQTT receiver.

    Raises:
        AddressError: It has signs that mean something else to a broker.
    """
    if not _TOPIC.fullmatch(address):
        raise AddressError("an MQTT receiver's address is the beginning of a topic, such as gridtally/v1/alarms")
    return address


def alarm_topic(prefix: str, area: str, kind: str) -> str:
    """Return the topic of an alarm; signs of an area that mean something to a broker become ``_``."""
    return "/".join([prefix, _MQTT_LEVEL.sub("_", area)[:200] or "-", kind])


def is_fit_ip(text: str) -> bool:
    """Return whether a webhook may go to an IP address: not to link-local ones, where clouds keep their secrets."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return not (ip.is_link_local or ip.is_multicast or ip.is_unspecified)
