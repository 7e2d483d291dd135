"""`gridtally alarm`: the alarm list, what people do with alarms, and how well the alarm system does."""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gridtally.dead_letters import plain
from gridtally.options import (
    EXIT_FAILED,
    EXIT_USAGE,
    As,
    AsJson,
    Config,
    DataDir,
    connect,
    fail,
    instant_of,
    settings_of,
)
from monitoring.clock import now

alarm_app = typer.Typer(help="Work the alarm list.", no_args_is_help=True)
AlarmId = Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="Of `gridtally alarm list`.")]
AlarmIds = Annotated[list[int], typer.Argument(min=1, max=2**63 - 1, help="One or more.")]
Subject = Annotated[str, typer.Argument(help="A meter, gateway or node.")]
KindName = Annotated[str, typer.Argument(help="A kind, of `gridtally alarm kinds`.")]
HOURS_MAX = 24 * 90


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str)


def _do(data_dir: Path | None, config: Path | None, action: Callable[[Any], Any], done: str) -> None:
    """Do something with alarms, and say what changed."""
    from storage.alarm_action import AlarmError

    with connect(settings_of(data_dir, config)) as conn:
        try:
            changes = action(conn)
        except AlarmError as error:
            fail(str(error), EXIT_FAILED)
    for change in changes:
        print(f"{change.alarm_id}: {plain(change.subject)} {change.kind} is {change.state.replace('_', ' ')}")
    if not changes:
        print(done)


@alarm_app.command("list")
def alarm_list(
    data_dir: DataDir = None,
    config: Config = None,
    state: Annotated[list[str] | None, typer.Option(help="Only this state; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
    area: Annotated[str | None, typer.Option(help="Only this node of the network, and below it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    as_json: AsJson = False,
) -> None:
    """List open alarms, those that need someone first. Example: gridtally alarm list --state unacknowledged"""
    from storage.alarm_list import STATES, Chosen, fetch_alarm_list

    unknown = set(state or ()) - set(STATES)
    if unknown:
        fail(f"--state {min(unknown)}: expected one of {', '.join(STATES)}", EXIT_USAGE)
    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_alarm_list(conn, Chosen(state or None, kind or None, area=area), limit=limit)
    if as_json:
        print(_json([dataclasses.asdict(row) for row in rows]))
        return
    for row in rows:
        print(
            f"{row.alarm_id:7} P{row.priority} {row.state.replace('_', ' '):15} {row.kind:24} {plain(row.subject):24}"
            f" {row.raised_at:%Y-%m-%d %H:%M} x{row.occurrences:<5} {plain(row.detail[:70])}"
        )


@alarm_app.command("show")
def alarm_show(alarm_id: AlarmId, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show an alarm and everything that was done with it. Example: gridtally alarm show 17"""
    from storage.alarm_list import fetch_alarm

    with connect(settings_of(data_dir, config)) as conn:
        found = fetch_alarm(conn, alarm_id)
    if found is None:
        fail(f"there is no alarm {alarm_id}", EXIT_FAILED)
    row, changes = found
    if as_json:
        print(_json({**dataclasses.asdict(row), "transitions": [dataclasses.asdict(one) for one in changes]}))
        return
    for name, value in dataclasses.asdict(row).items():
        print(f"{name:16} {'' if value is None else plain(str(value))}")
    for one in changes:
        print(f"  {one.at:%Y-%m-%d %H:%M:%S} {one.to_state.replace('_', ' '):15} {plain(one.who):16} {plain(one.why)}")


@alarm_app.command("ack")
def alarm_ack(
    alarm_ids: AlarmIds,
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    note: Annotated[str, typer.Option(help="What you found or do about it.")] = "",
) -> None:
    """Acknowledge alarms. Example: gridtally alarm ack 17 18 --note "crew is on the way" --as ann"""
    from storage.alarm_action import acknowledge

    _do(data_dir, config, lambda conn: acknowledge(conn, alarm_ids, who=who, at=now(), note=note), "nothing to do")


@alarm_app.command("shelve")
def alarm_shelve(
    alarm_id: AlarmId,
    who: As,
    reason: Annotated[str, typer.Option(help="Why nobody needs to see it.")],
    data_dir: DataDir = None,
    config: Config = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, max=HOURS_MAX, help="For so long; without it, until its condition ends.")
    ] = None,
) -> None:
    """Put an alarm aside; it comes back by itself. Example: gridtally alarm shelve 17 --hours 4 --reason "works" --as ann"""
    from storage.alarm_action import shelve

    at = now()
    until = None if hours is None else at + dt.timedelta(hours=hours)
    _do(
        data_dir,
        config,
        lambda conn: shelve(conn, alarm_id, who=who, at=at, reason=reason, until=until),
        "nothing to do",
    )


@alarm_app.command("unshelve")
def alarm_unshelve(alarm_id: AlarmId, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Take an alarm off its shelf. Example: gridtally alarm unshelve 17 --as ann"""
    from storage.alarm_action import unshelve

    _do(data_dir, config, lambda conn: unshelve(conn, alarm_id, who=who, at=now()), "nothing to do")


@alarm_app.command("reset")
def alarm_reset(
    alarm_id: AlarmId,
    who: As,
    note: Annotated[str, typer.Option(help="What was found.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Close an alarm whose condition has ended. Example: gridtally alarm reset 17 --note "battery replaced" --as ann"""
    from storage.alarm_action import reset_latched

    _do(data_dir, config, lambda conn: reset_latched(conn, alarm_id, who=who, at=now(), note=note), "nothing to do")


@alarm_app.command("assign")
def alarm_assign(
    alarm_id: AlarmId,
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
    to: Annotated[str | None, typer.Option(help="A person; nobody without it.")] = None,
) -> None:
    """Assign an alarm to a person. Example: gridtally alarm assign 17 --to ben --as ann"""
    from storage.alarm_action import assign

    done = f"assigned to {to or 'nobody'}"
    _do(data_dir, config, lambda conn: assign(conn, alarm_id, who=who, at=now(), to=to), done)


@alarm_app.command("comment")
def alarm_comment(
    alarm_id: AlarmId,
    text: Annotated[str, typer.Argument(help="What is to be kept.")],
    who: As,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Add a comment to an alarm's history. Example: gridtally alarm comment 17 "seal was broken" --as ann"""
    from storage.alarm_action import comment

    _do(data_dir, config, lambda conn: comment(conn, alarm_id, who=who, at=now(), text=text), "noted")


@alarm_app.command("out-of-service")
def alarm_out_of_service(
    subject: Subject,
    kind: KindName,
    who: As,
    until: Annotated[str, typer.Option(help="An instant with offset.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Take a kind of alarm of one subject out of service for a time.

    Example: gridtally alarm out-of-service m-00017 silent --until 2026-12-01T08:00+08:00 --reason "house rebuilt" --as ann
    """
    from storage.alarm_action import take_out_of_service

    end = instant_of(until, "--until")

    def act(conn: Any) -> Any:
        return take_out_of_service(conn, subject, kind, who=who, at=now(), reason=reason, until=end)

    _do(data_dir, config, act, f"{kind} of {plain(subject)} is out of service until {end}")


@alarm_app.command("return-to-service")
def alarm_return(subject: Subject, kind: KindName, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Return a kind of alarm to service. Example: gridtally alarm return-to-service m-00017 silent --as ann"""
    from storage.alarm_action import return_to_service

    done = f"{kind} of {plain(subject)} is in service"
    _do(data_dir, config, lambda conn: return_to_service(conn, subject, kind, who=who, at=now()), done)


@alarm_app.command("kinds")
def alarm_kinds(as_json: AsJson = False) -> None:
    """List the kinds of alarms with who raises them, their priority and timing. Example: gridtally alarm kinds"""
    from metering.alarm.catalogue import KINDS

    if as_json:
        print(_json([{**dataclasses.asdict(kind), "priority": kind.priority} for kind in KINDS.values()]))
        return
    for kind in KINDS.values():
        times = {
            "after": kind.on_delay_s, "returns after": kind.off_delay_s, "ends after": kind.clear_after_s,
            "asks again after": kind.re_alarm_s,
        }  # fmt: skip
        timing = ", ".join(f"{name} {seconds} s" for name, seconds in times.items() if seconds)
        print(
            f"P{kind.priority} {kind.kind:24} {', '.join(kind.sources):10} {timing}{' latched' if kind.is_latched else ''}"
        )


@alarm_app.command("performance")
def alarm_performance(
    data_dir: DataDir = None,
    config: Config = None,
    days: Annotated[int, typer.Option(min=1, max=400, help="Up to now.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Show how well the alarm system does, against EEMUA 191. Example: gridtally alarm performance --days 30"""
    from storage.alarm_list import DAY_TARGET, FLOOD_TARGET, TEN_MINUTES_TARGET, fetch_performance

    at = now()
    with connect(settings_of(data_dir, config)) as conn:
        found = fetch_performance(conn, at - dt.timedelta(days=days), at)
    if as_json:
        print(_json(dataclasses.asdict(found)))
        return
    print(f"alarms per day           {found.per_day:10.1f}   at most {DAY_TARGET}")
    print(f"in 10 minutes, mean      {found.ten_minutes_mean:10.2f}   at most {TEN_MINUTES_TARGET}")
    print(f"in 10 minutes, most      {found.ten_minutes_max:10}   at most {FLOOD_TARGET}; {found.floods} floods")
    print(f"stale, over 24 h         {found.stale:10}   0")
    print(f"chattering               {found.chattering:10}   0")
    waits = found.acknowledge_p50_s, found.acknowledge_p90_s
    print(
        "acknowledged after       "
        + ("none was" if waits[0] is None else f"p50 {waits[0]:.0f} s, p90 {waits[1]:.0f} s")
    )
    print(f"the ten most frequent are {found.top_percent} % of {found.raised}:")
    for share in found.top:
        print(f"  {share.count:6} {share.percent:5.1f} %  {plain(share.name)}")
