"""The alarm list, one alarm with its history, and how well the alarm system does (EEMUA 191)."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import class_row

LISTED_MAX = 1000
FLOOD_NEW, FLOOD_S = 10, 600
"""More new alarms in so long are a flood (EEMUA 191: 10 in 10 minutes)."""
STALE_S = 86_400
TOP = 10
DAY_TARGET, TEN_MINUTES_TARGET, FLOOD_TARGET = 150, 1, 10
"""Per operator: about 150 a day and 1 in 10 minutes are very likely acceptable (ISA-18.2); 10 in 10 minutes is the most."""
PRIORITY_TARGET_PERCENT = {1: 5, 2: 15, 3: 40, 4: 40}
"""EEMUA 191: about 5 % high, 15 % middle, 80 % low; the low ones are two priorities here."""
STATES = ("unacknowledged", "acknowledged", "returned", "shelved", "suppressed", "out_of_service", "cleared")
OPEN_STATES = STATES[:-1]


@dataclasses.dataclass(frozen=True)
class AlarmRow:
    """One alarm as the list shows it."""

    alarm_id: int
    subject: str
    kind: str
    priority: int
    state: str
    detail: str
    area: str
    raised_at: dt.datetime
    last_at: dt.datetime
    cleared_at: dt.datetime | None
    occurrences: int
    value: float | None
    limit_value: float | None
    assigned_to: str | None
    acknowledged_at: dt.datetime | None
    acknowledged_by: str | None
    shelved_until: dt.datetime | None
    is_one_shot: bool
    suppressed_by: str | None
    chattering_at: dt.datetime | None


@dataclasses.dataclass(frozen=True)
class Transition:
    """One change of an alarm."""

    at: dt.datetime
    from_state: str | None
    to_state: str
    who: str
    why: str


@dataclasses.dataclass(frozen=True)
class OutOfService:
    """A kind of alarm of a subject that is out of service."""

    subject: str
    kind: str
    until: dt.datetime
    who: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Share:
    """How much of all alarms one (subject, kind), kind or priority is."""

    name: str
    count: int
    percent: float


@dataclasses.dataclass(frozen=True)
class Performance:
    """Figures of a time, as EEMUA 191 asks for them; those of people's times are None when there was none."""

    since: dt.datetime
    until: dt.datetime
    raised: int
    per_day: float
    by_day: list[tuple[dt.datetime, int]]
    ten_minutes_mean: float
    ten_minutes_max: int
    floods: int
    """Spans of ten minutes with more than FLOOD_NEW."""
    top: list[Share]
    top_percent: float
    """Share of the ten most frequent."""
    stale: int
    chattering: int
    by_priority: list[Share]
    acknowledge_p50_s: float | None
    acknowledge_p90_s: float | None
    duration_p50_s: dict[str, float]
    """Median time that the condition held, by kind."""


_ROW = ", ".join(field.name for field in dataclasses.fields(AlarmRow))


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Which alarms; None is all of them."""

    states: Sequence[str] | None = None
    """Of STATES; None is all but the closed ones."""
    kinds: Sequence[str] | None = None
    priorities: Sequence[int] | None = None
    area: str | None = None
    """Node of the network: what lies in it, or below it."""
    subject: str | None = None
    """Whole, or its beginning."""
    assigned_to: str | None = None


def fetch_alarm_list(
    conn: psycopg.Connection[Any], chosen: Chosen | None = None, *, limit: int = 200, before: int | None = None
) -> list[AlarmRow]:
    """Return alarms that need someone first, then by priority, then the newest.

    Args:
        conn: Any.
        chosen: Which; by default all that are open.
        limit: At most LISTED_MAX.
        before: Only alarms with a lower number: for the next page of closed ones.
    """
    chosen = chosen or Chosen()
    return (
        conn.cursor(row_factory=class_row(AlarmRow))
        .execute(
            f"select {_ROW} from alarm where state = any(%(states)s)"
            " and (%(kinds)s::text[] is null or kind = any(%(kinds)s))"
            " and (%(priorities)s::int[] is null or priority = any(%(priorities)s))"
            " and (%(area)s::text is null or area = %(area)s or starts_with(area, %(area)s || '/'))"
            " and (%(subject)s::text is null or starts_with(subject, %(subject)s))"
            " and (%(assigned)s::text is null or assigned_to = %(assigned)s)"
            " and (%(before)s::bigint is null or alarm_id < %(before)s)"
            " order by array_position(%(order)s, state), priority, raised_at desc, alarm_id desc limit %(limit)s",
            {
                "states": list(OPEN_STATES if chosen.states is None else chosen.states),
                "kinds": None if chosen.kinds is None else list(chosen.kinds),
                "priorities": None if chosen.priorities is None else list(chosen.priorities),
                "area": chosen.area,
                "subject": chosen.subject,
                "assigned": chosen.assigned_to,
                "before": before,
                "order": list(STATES),
                "limit": min(limit, LISTED_MAX),
            },
        )
        .fetchall()
    )


def fetch_alarm(conn: psycopg.Connection[Any], alarm_id: int) -> tuple[AlarmRow, list[Transition]] | None:
    """Return one alarm with its changes, oldest first; at most LISTED_MAX of the newest."""
    row = (
        conn.cursor(row_factory=class_row(AlarmRow))
        .execute(f"select {_ROW} from alarm where alarm_id = %s", (alarm_id,))
        .fetchone()
    )
    if row is None:
        return None
    changes = (
        conn.cursor(row_factory=class_row(Transition))
        .execute(
            "select at, from_state, to_state, who, why from (select * from alarm_transition where alarm_id = %s"
            " order by alarm_transition_id desc limit %s) t order by alarm_transition_id",
            (alarm_id, LISTED_MAX),
        )
        .fetchall()
    )
    return row, changes


def fetch_counts(conn: psycopg.Connection[Any]) -> dict[tuple[int, str], int]:
    """Return how many open alarms there are by priority and state; every pair is there."""
    counts = {(priority, state): 0 for priority in range(1, 5) for state in OPEN_STATES}
    rows = conn.execute("select priority, state, count(*) from alarm where state <> 'cleared' group by 1, 2")
    return counts | {(priority, state): count for priority, state, count in rows}


def fetch_out_of_service(conn: psycopg.Connection[Any]) -> list[OutOfService]:
    """Return what is out of service, what ends first first."""
    return (
        conn.cursor(row_factory=class_row(OutOfService))
        .execute(
            "select subject, kind, until, who, reason from alarm_out_of_service order by until limit %s", (LISTED_MAX,)
        )
        .fetchall()
    )


def fetch_flood(conn: psycopg.Connection[Any], at: dt.datetime) -> list[tuple[str, str, int]]:
    """Return area, kind and number of the new alarms of the last ten minutes, most first; empty when it is no flood."""
    rows = conn.execute(
        "select area, kind, count(*) from alarm where raised_at > %s and raised_at <= %s"
        " and state not in ('suppressed', 'out_of_service') group by 1, 2 order by 3 desc, 1, 2",
        (at - dt.timedelta(seconds=FLOOD_S), at),
    ).fetchall()
    return rows if sum(row[2] for row in rows) > FLOOD_NEW else []


def fetch_performance(conn: psycopg.Connection[Any], since: dt.datetime, until: dt.datetime) -> Performance:
    """Return the figures of ``[since, until)``; alarms that were suppressed by design or out of service do not count.

    Raises:
        ValueError: The time is empty.
    """
    if until <= since:
        raise ValueError("the time is empty")
    span = {"since": since, "until": until}
    heard = (
        "select a.*, t.at as heard_at from alarm a join alarm_transition t using (alarm_id)"
        " where t.to_state = 'unacknowledged' and t.at >= %(since)s and t.at < %(until)s"
        " and t.from_state is distinct from 'unacknowledged'"
    )
    slots = conn.execute(
        f"select date_bin('10 minutes', heard_at, %(since)s), count(*) from ({heard}) h group by 1", span
    ).fetchall()
    days = conn.execute(
        f"select date_bin('1 day', heard_at, %(since)s), count(*) from ({heard}) h group by 1 order by 1", span
    ).fetchall()
    raised = sum(count for _, count in slots)
    top = conn.execute(
        f"select subject || ' ' || kind, count(*) from ({heard}) h group by 1 order by 2 desc, 1 limit {TOP}", span
    ).fetchall()
    priorities = conn.execute(
        f"select priority::text, count(*) from ({heard}) h group by 1 order by 1", span
    ).fetchall()
    row = conn.execute(
        "select (select count(*) from alarm where state in ('unacknowledged', 'acknowledged', 'returned')"
        "   and raised_at < %(until)s - %(stale)s * interval '1 second'),"
        " (select count(*) from alarm where chattering_at >= %(since)s and chattering_at < %(until)s)",
        {**span, "stale": STALE_S},
    ).fetchone()
    assert row is not None
    waits, held = _times(conn, span)
    p50, p90 = waits
    length_s = (until - since).total_seconds()
    return Performance(
        since, until, raised,
        per_day=raised * 86_400 / length_s,
        by_day=days,
        ten_minutes_mean=raised * FLOOD_S / length_s,
        ten_minutes_max=max((count for _, count in slots), default=0),
        floods=sum(count > FLOOD_NEW for _, count in slots),
        top=[_share(name, count, raised) for name, count in top],
        top_percent=_share("", sum(count for _, count in top), raised).percent,
        stale=row[0],
        chattering=row[1],
        by_priority=[_share(name, count, raised) for name, count in priorities],
        acknowledge_p50_s=p50,
        acknowledge_p90_s=p90,
        duration_p50_s=held,
    )  # fmt: skip


def _times(
    conn: psycopg.Connection[Any], span: dict[str, Any]
) -> tuple[tuple[float | None, float | None], dict[str, float]]:
    """Return p50 and p90 until people acknowledged, s, and by kind the median time that the condition held."""
    waits = conn.execute(
        "select percentile_cont(array[0.5, 0.9]) within group (order by extract(epoch from acknowledged_at - raised_at))"
        " from alarm where acknowledged_at >= %(since)s and acknowledged_at < %(until)s",
        span,
    ).fetchone()
    held = conn.execute(
        "select kind, percentile_cont(0.5) within group (order by extract(epoch from cleared_at - raised_at))"
        " from alarm where cleared_at >= %(since)s and cleared_at < %(until)s group by 1 order by 1",
        span,
    ).fetchall()
    p50, p90 = (waits[0] if waits and waits[0] else None) or (None, None)
    return (p50, p90), {kind: float(seconds) for kind, seconds in held}


def _share(name: str, count: int, whole: int) -> Share:
    return Share(name, count, round(100 * count / whole, 1) if whole else 0.0)
