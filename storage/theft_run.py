"""The theft detector over the ledger: scores, alarms and cases, in one transaction; the same facts again change nothing."""

import dataclasses
import datetime as dt
import hashlib
import json
import zoneinfo
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psycopg

from metering.alarm.condition import Condition
from metering.theft.ledger import LIVE_KINDS, THEFT_KINDS, Lead, Network, leads_of, network_of
from metering.theft.scan import scanned
from metering.theft.weeks import Weeks, WeeksError
from storage.alarm import AlarmChange, apply_conditions
from storage.alarm_action import announce
from storage.audit import write_audit
from storage.case import open_cases
from storage.case_evidence import Evidence, evidence_of
from storage.theft_weeks import Registered, TheftRunError, fetch_event_days, fetch_registered, fetch_weeks, span_of
from storage.usage_day import refresh_usage_days

LOCK_KEY = 0x7468_6566
GROUP = 1000
"""Meters that are judged together, whole transformers: about 1 GB and a minute or two."""
TICK = dt.timedelta(microseconds=1)
NOTES_MAX = 1000

Score = tuple[int, dt.date, float, str]


@dataclasses.dataclass
class TheftRun:
    """What a run found."""

    run_no: int
    zone: str
    first_week: dt.date
    end_on: dt.date
    meters: int
    leads: list[Lead]
    changes: list[AlarmChange] = dataclasses.field(default_factory=list)
    cases: list[int] = dataclasses.field(default_factory=list)
    """Opened by this run."""
    notes: list[str] = dataclasses.field(default_factory=list)
    is_new: bool = True
    """False when the same had been found before: nothing was written."""


@dataclasses.dataclass
class _Found:
    scores: list[Score]
    leads: list[Lead]
    evidence: dict[str, Evidence]
    notes: list[str]
    subjects: set[str]
    """That were looked at: whose alarms end when nothing is found."""


def run_detector(
    conn: psycopg.Connection[Any],
    zone: zoneinfo.ZoneInfo,
    *,
    weeks: int,
    who: str,
    progress: Callable[[str], None] = lambda _text: None,
) -> TheftRun:
    """Look for theft in the last whole weeks of the ledger.

    Args:
        conn: In autocommit; what is found is written in one transaction.
        zone: Of the local weeks.
        weeks: How many, up to the last whole one.
        who: For the audit trail.
        progress: Told in words what is being done.

    Raises:
        TheftRunError: Nothing can be looked at; nothing was written.
    """
    progress("bringing the sub-totals of days up to date")
    refresh_usage_days(conn)
    first, end, *bounds = span_of(conn, weeks, zone)
    meters = fetch_registered(conn)
    network = network_of({one.meter_id: one.parent_id for one in meters})
    events = fetch_event_days(conn, (bounds[0], bounds[1]), zone)
    found = _Found([], [], {}, list(network.notes), set())
    done = 0
    for group in _groups(meters, network):
        progress(f"{done} of {len(meters)} meters judged")
        try:
            laid = fetch_weeks(conn, group, (bounds[0], bounds[1]), zone)
        except WeeksError as error:
            raise TheftRunError(str(error)) from None
        done += len(group)
        if laid is not None:
            _judge(laid, group, network, events, found)
    progress(f"{done} of {len(meters)} meters judged")
    found.notes = sorted(found.notes)[:NOTES_MAX]
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        return _write(conn, found, TheftRun(0, zone.key, first, end, len(meters), found.leads), who)


def _groups(meters: Sequence[Registered], network: Network) -> Iterator[list[Registered]]:
    """Yield meters in groups, those of a parent together with its observer."""
    families: dict[str, list[Registered]] = {}
    for one in meters:
        root = one.meter_id if one.meter_id in network.node_of else network.parent_of.get(one.meter_id, "")
        families.setdefault(root, []).append(one)
    group: list[Registered] = []
    for root in sorted(families):
        family = families[root]
        for low in range(0, len(family), GROUP) if not root else (0,):
            part = family[low : low + GROUP] if not root else family
            if group and len(group) + len(part) > GROUP:
                yield sorted(group, key=lambda one: one.meter_id)
                group = []
            group += part
    if group:
        yield sorted(group, key=lambda one: one.meter_id)


def _judge(
    laid: Weeks,
    group: Sequence[Registered],
    network: Network,
    events: Mapping[str, Sequence[dt.date]],
    found: _Found,
) -> None:
    number_of = {one.meter_id: one.meter_no for one in group}
    here = set(number_of)
    parent_of = {
        name: parent
        for name, parent in ((one.meter_id, network.parent_of.get(one.meter_id)) for one in group)
        if parent is not None and (parent in here or parent not in network.node_of)
    }  # an observer's own observer may be judged in another group: that upper balance is left out
    inside = dataclasses.replace(network, parent_of=parent_of)
    finding = scanned(laid, parent_of or None)
    leads, notes = leads_of(laid, finding, inside, events)
    found.leads += leads
    found.notes += notes
    found.subjects |= {network.node_of.get(name, name) for name in finding.subjects} | set(laid.meter_ids)
    found.scores += [
        (number_of[name], laid.monday[week], round(float(finding.score[row, week]), 4), finding.reason[row][week])
        for row, name in enumerate(laid.meter_ids)
        for week in range(finding.first_week, len(laid.monday))
    ]
    for lead in leads:
        if lead.fall is not None:
            found.evidence[lead.subject] = evidence_of(laid, lead, inside, events.get(lead.subject, ()))


def _write(conn: psycopg.Connection[Any], found: _Found, run: TheftRun, who: str) -> TheftRun:
    run.notes = found.notes
    text = json.dumps([found.scores, [dataclasses.astuple(lead) for lead in found.leads], found.notes], default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = conn.execute(
        "select run_no, digest, zone, first_week, end_on from theft_run order by run_no desc limit 1"
    ).fetchone()
    if before is not None and before[1:] == (digest, run.zone, run.first_week, run.end_on):
        return dataclasses.replace(run, run_no=int(before[0]), is_new=False)
    row = conn.execute(
        "insert into theft_run (who, zone, first_week, end_on, meters, alarms, digest, notes)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s) returning run_no",
        (
            who,
            run.zone,
            run.first_week,
            run.end_on,
            run.meters,
            len(run.leads),
            digest,
            json.dumps(run.notes, ensure_ascii=False),
        ),
    ).fetchone()
    assert row is not None
    run.run_no = int(row[0])
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into theft_score as t (meter_no, week_start, score, reason, run_no) values (%s, %s, %s, %s, %s)"
            " on conflict (meter_no, week_start) do update set score = excluded.score, reason = excluded.reason,"
            " run_no = excluded.run_no where (t.score, t.reason) is distinct from (excluded.score, excluded.reason)",
            [(*score, run.run_no) for score in found.scores],
        )
    end_at = dt.datetime.combine(run.end_on, dt.time(), zoneinfo.ZoneInfo(run.zone)).astimezone(dt.UTC)
    run.changes = announce(conn, apply_conditions(conn, _conditions(conn, found, end_at)))
    run.cases = open_cases(conn, [lead for lead in run.leads if lead.kind in THEFT_KINDS], found.evidence, run.run_no)
    detail = {"weeks_from": run.first_week, "until": run.end_on, "leads": len(run.leads), "cases": run.cases}
    write_audit(conn, who, "theft.run", f"theft-run {run.run_no}", detail)
    return run


def _conditions(conn: psycopg.Connection[Any], found: _Found, end_at: dt.datetime) -> list[Condition]:
    """Return what differs from what was said last: what stands already is not said again."""
    said = {
        (subject, kind): (is_active, at)
        for subject, kind, is_active, at in conn.execute(
            "select subject, kind, is_active, at from alarm_condition where kind = any(%s)", (list(LIVE_KINDS),)
        )
    }
    wanted = {(lead.subject, lead.kind): lead for lead in found.leads}
    news = []
    for key, lead in sorted(wanted.items()):
        is_active, at = said.get(key, (False, None))
        if not is_active:
            moment = lead.at if at is None else max(lead.at, at + TICK)
            news.append(Condition(*key, is_active=True, at=moment, detail=lead.detail))
    for key, (is_active, at) in sorted(said.items()):
        if is_active and key not in wanted and key[0] in found.subjects:
            detail = "the weeks that are known now do not show it any more"
            news.append(Condition(*key, is_active=False, at=max(end_at, at + TICK), detail=detail))
    return news
