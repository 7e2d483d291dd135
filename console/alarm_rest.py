"""REST of alarms under /api/v1. What changes an alarm names its user in the header X-Gridtally-User, as with bills."""

import dataclasses
import datetime as dt
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path
from fastapi import Query as Ask
from pydantic import BaseModel, Field

from console.answer import Problem
from console.billing_rest import User
from console.web import Console
from metering.alarm.catalogue import KINDS
from metering.alarm.words import words_of
from monitoring.clock import now
from storage import alarm_action as do
from storage.alarm import AlarmChange
from storage.alarm_action import AlarmError
from storage.alarm_list import AlarmRow, Performance, Transition, fetch_alarm, fetch_performance

AlarmId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Days = Annotated[int, Ask(ge=1, le=400, description="up to now")]


class AlarmHistory(BaseModel):
    """One alarm with its changes, oldest first."""

    alarm: AlarmRow
    transitions: list[Transition]


class AlarmKind(BaseModel):
    """A kind of alarm: who raises it, its priority and timing, and its words in both languages."""

    kind: str
    sources: list[str]
    priority: int
    consequence: int
    urgency: int
    on_delay_s: int
    off_delay_s: int
    clear_after_s: int | None
    re_alarm_s: int | None
    is_latched: bool
    shelve_max_s: int
    zh: dict[str, str]
    en: dict[str, str]


class Acknowledged(BaseModel, extra="forbid"):
    """Which alarms, and what is said of them."""

    alarm_ids: list[int] = Field(min_length=1, max_length=do.AT_ONCE_MAX)
    note: str = Field("", max_length=500)


class Shelf(BaseModel, extra="forbid"):
    """For how long, and why; without a time until the condition ends."""

    reason: str = Field(min_length=1, max_length=500)
    minutes: int | None = Field(None, ge=1, le=60 * 24 * 90)


class Person(BaseModel, extra="forbid"):
    """Whom an alarm is given to; nobody takes it back."""

    to: str | None = Field(None, max_length=100)


class Said(BaseModel, extra="forbid"):
    """Words for the history."""

    text: str = Field(min_length=1, max_length=500)


class OutOfServiceAsked(BaseModel, extra="forbid"):
    """A kind of alarm of a subject, until when, and why."""

    subject: str = Field(min_length=1, max_length=200)
    kind: str = Field(min_length=1, max_length=64)
    until: dt.datetime
    reason: str = Field(min_length=1, max_length=500)


class InService(BaseModel, extra="forbid"):
    """A kind of alarm of a subject."""

    subject: str = Field(min_length=1, max_length=200)
    kind: str = Field(min_length=1, max_length=64)


class Changed(BaseModel):
    """Where an alarm stands after a change."""

    alarm_id: int
    state: str


def alarm_rest_router(console: Console) -> APIRouter:
    """Return the routes."""
    problems: dict[int | str, dict[str, Any]] = {
        404: {"model": Problem, "description": "There is no such alarm"},
        409: {"model": Problem, "description": "It cannot be done, and why"},
        422: {"model": Problem, "description": "A value cannot be used"},
        503: {"model": Problem, "description": "The database does not answer; nothing is lost, try again"},
    }
    router = APIRouter(prefix="/api/v1", responses=problems)
    _add_answers(router, console)
    _add_changes(router, console)
    _add_service(router, console)
    return router


def _add_answers(router: APIRouter, console: Console) -> None:
    @router.get("/alarms/performance", summary="How well the alarm system does (EEMUA 191)")
    def get_performance(days: Days = 7) -> Performance:
        at = now()
        with console.database() as conn:
            return fetch_performance(conn, at - dt.timedelta(days=days), at)

    @router.get("/alarms/{alarm_id}", summary="An alarm with its changes")
    def get_alarm(alarm_id: AlarmId) -> AlarmHistory:
        with console.database() as conn:
            found = fetch_alarm(conn, alarm_id)
        if found is None:
            raise HTTPException(404, f"there is no alarm {alarm_id}")
        return AlarmHistory(alarm=found[0], transitions=found[1])

    @router.get("/alarm-kinds", summary="The kinds of alarms, and what to do about them")
    def get_kinds() -> list[AlarmKind]:
        return [kind_of(name) for name in KINDS]


def kind_of(name: str) -> AlarmKind:
    """Return a kind as it is answered."""
    kind = KINDS[name]
    said = {language: dataclasses.asdict(words_of(name, language)) for language in ("zh", "en")}
    return AlarmKind(**{**dataclasses.asdict(kind), "sources": list(kind.sources)}, priority=kind.priority, **said)


def _act(console: Console, action: Callable[[Any], Sequence[AlarmChange]]) -> list[Changed]:
    with console.database(writes=True) as conn:
        try:
            return [Changed(alarm_id=one.alarm_id, state=one.state) for one in action(conn)]
        except AlarmError as error:
            raise HTTPException(404 if str(error).startswith("there is no") else 409, str(error)) from None


def _add_changes(router: APIRouter, console: Console) -> None:
    act = functools.partial(_act, console)

    @router.post("/alarms/acknowledge", summary="Acknowledge alarms: all of them, or none")
    def acknowledge(asked: Acknowledged, user: User) -> list[Changed]:
        return act(lambda conn: do.acknowledge(conn, asked.alarm_ids, who=user, at=now(), note=asked.note))

    @router.post("/alarms/{alarm_id}/shelve", summary="Put an alarm aside; it comes back by itself")
    def shelve(alarm_id: AlarmId, asked: Shelf, user: User) -> list[Changed]:
        at = now()
        until = None if asked.minutes is None else at + dt.timedelta(minutes=asked.minutes)
        return act(lambda conn: do.shelve(conn, alarm_id, who=user, at=at, reason=asked.reason, until=until))

    @router.post("/alarms/{alarm_id}/unshelve", summary="Take an alarm off its shelf")
    def unshelve(alarm_id: AlarmId, user: User) -> list[Changed]:
        return act(lambda conn: do.unshelve(conn, alarm_id, who=user, at=now()))

    @router.post("/alarms/{alarm_id}/reset", summary="Close an alarm whose condition has ended")
    def reset(alarm_id: AlarmId, asked: Said, user: User) -> list[Changed]:
        return act(lambda conn: do.reset_latched(conn, alarm_id, who=user, at=now(), note=asked.text))

    @router.post("/alarms/{alarm_id}/assign", summary="Give an alarm to a person, or to nobody")
    def assign(alarm_id: AlarmId, asked: Person, user: User) -> list[Changed]:
        return act(lambda conn: do.assign(conn, alarm_id, who=user, at=now(), to=asked.to))

    @router.post("/alarms/{alarm_id}/comment", summary="Add a comment to an alarm's history")
    def comment(alarm_id: AlarmId, asked: Said, user: User) -> list[Changed]:
        return act(lambda conn: do.comment(conn, alarm_id, who=user, at=now(), text=asked.text))


def _add_service(router: APIRouter, console: Console) -> None:
    act = functools.partial(_act, console)

    @router.post("/alarms/out-of-service", summary="Take a kind of alarm of a subject out of service for a time")
    def out_of_service(asked: OutOfServiceAsked, user: User) -> list[Changed]:
        if asked.until.tzinfo is None:
            raise HTTPException(422, f"until: {asked.until.isoformat()} needs its offset, such as +08:00")
        return act(
            lambda conn: do.take_out_of_service(
                conn, asked.subject, asked.kind, who=user, at=now(), reason=asked.reason, until=asked.until
            )
        )

    @router.post("/alarms/return-to-service", summary="Return a kind of alarm of a subject to service")
    def return_to_service(asked: InService, user: User) -> list[Changed]:
        return act(lambda conn: do.return_to_service(conn, asked.subject, asked.kind, who=user, at=now()))
