"""The detector over a whole file: weeks of meters and, where it is known, their network, into scores and alarms."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.theft import alarms, residual
from metering.theft.alarms import Alarm, Evidence
from metering.theft.features import Floats
from metering.theft.judging import COVERED_MIN, NEUTRAL, Judged, judged
from metering.theft.learning import EARLY_WEEKS, FIRST_KIND, NAMES, PAST_WEEKS, Opinion
from metering.theft.made_home import made_homes
from metering.theft.residual import Balance
from metering.theft.weeks import Weeks, filled

Ints = NDArray[np.int64]

SEED = 20_261_125
MOST = 0.5
"""Share of meters that must be there in the week with which judging begins."""
MADE_UP_TO = 60
"""Made homes are added to learn from until there are so many."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the scan says of each meter-week, and the alarms."""

    score: Floats
    """Shape (meters, weeks)."""
    reason: list[list[str]]
    first_week: int
    """From which scores are given."""
    alarms: list[Alarm]
    subjects: list[str]
    """Names that `Alarm.subject` counts: the meters, then the parents without readings."""


def scanned(
    weeks: Weeks,
    parent_of: Mapping[str, str] | None = None,
    budget: float = alarms.BUDGET_PER_1000_METER_DAYS,
    *,
    several_parents: Mapping[str, list[str]] | None = None,
    seed: int = SEED,
) -> Finding:
    """Return what is found.

    Args:
        weeks: Of all meters and of the parents that have readings.
        parent_of: Parent of each meter; None where no network is known.
        budget: Theft alarms on honest meters, per 1,000 meter-days.
        several_parents: Meters of which more than one parent is said: neither they nor those parents are balanced.
        seed: Of the generator of chance; the same input and seed give the same output.
    """
    unsure, members_of = several_parents or {}, _members_of(parent_of or {})
    doubtful = {parent for own in unsure.values() for parent in own}
    parents = {*members_of, *doubtful}
    row_of = {name: row for row, name in enumerate(weeks.meter_ids)}
    customers = np.array([row for row, name in enumerate(weeks.meter_ids) if name not in parents], np.int64)
    subjects = [*weeks.meter_ids, *(name for name in sorted({*parents, *unsure}) if name not in row_of)]
    said = _judge(weeks, customers, seed)
    at = _Placed(weeks, customers, said)
    found: list[Alarm] = []
    number_of = {name: number for number, name in enumerate(subjects)}
    for parent in sorted(parents):
        names = members_of.get(parent, [])
        members = [row_of[name] for name in names if name in row_of]
        lacking = len(names) - len(members) + sum(parent in own for own in unsure.values())
        found += at.weigh(number_of[parent], row_of.get(parent), np.array(members, np.int64), lacking)
    last = len(weeks.monday) - 1
    for name, own in sorted(unsure.items()):
        detail = f"the network says {len(own)} parents: {', '.join(own[:5])}"
        found.append(Alarm(number_of[name], "network_two_parents", last, None, detail))
    found += at.alarms(budget)
    found.sort(key=lambda alarm: (alarm.raised_after, subjects[alarm.subject], alarm.kind))
    return Finding(at.score, at.reasons(), 0 if parent_of is not None else PAST_WEEKS, found, subjects)


def _members_of(parent_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the members of each parent, sorted."""
    out: dict[str, list[str]] = {}
    for name, parent in sorted(parent_of.items()):
        out.setdefault(parent, []).append(name)
    return out


def _judge(weeks: Weeks, customers: Ints, seed: int) -> Judged:
    """Return what the meters' own weeks say; nothing at all where the data are too short."""
    covered = weeks.covered[customers]
    usual = np.flatnonzero((covered >= COVERED_MIN).mean(0) >= MOST) if len(customers) else np.zeros(0, np.int64)
    first = int(usual[0]) if len(usual) else 0  # a file seldom begins on a Monday
    energy = filled(weeks)[customers, first:]
    lacking = max(0, MADE_UP_TO - len(customers))
    made = made_homes(lacking, EARLY_WEEKS, energy.shape[3], np.random.default_rng(seed))
    said = judged(energy, covered[:, first:], weeks.step_wh[customers], made, seed) if len(customers) else None
    before = _nothing_said(len(customers), len(weeks.monday) if said is None else first)
    return before if said is None else _joined(before, said)


def _nothing_said(meters: int, weeks: int) -> Judged:
    """Return what is said where there are too few weeks."""
    shape = (meters, weeks)
    kinds = np.zeros((*shape, FIRST_KIND + len(NAMES)))
    nothing = Opinion(np.full(shape, NEUTRAL), np.zeros(shape), kinds)
    early = Opinion(np.zeros((0, EARLY_WEEKS)), np.zeros((0, EARLY_WEEKS)), np.zeros((0, EARLY_WEEKS, kinds.shape[2])))
    return Judged(nothing, np.zeros(shape, np.bool_), early, np.zeros(shape), np.ones(shape, np.bool_))


def _joined(before: Judged, said: Judged) -> Judged:
    """Return the weeks that nothing is said of, then those that something is said of."""

    def both(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([one, other], axis=1)

    fields = [field.name for field in dataclasses.fields(Opinion)]
    opinion = Opinion(*(both(getattr(before.opinion, name), getattr(said.opinion, name)) for name in fields))
    rest = ("judged", "level", "trusted")
    judged_, level, trusted = (both(getattr(before, name), getattr(said, name)) for name in rest)
    return Judged(opinion, judged_, said.early, level, trusted)


class _Placed:
    """Opinions on the rows of all meters, with what the balances add."""

    def __init__(self, weeks: Weeks, customers: Ints, said: Judged) -> None:
        self.weeks, self.customers, self.said = weeks, customers, said
        self.place = np.full(len(weeks.meter_ids), -1)
        self.place[customers] = np.arange(len(customers))
        shape = (len(weeks.meter_ids), len(weeks.monday))
        self.score = np.full(shape, NEUTRAL)
        self.score[customers] = alarms.scores(said.opinion)
        self.evidence: Evidence = alarms.together(said.opinion)
        self.notes: dict[tuple[int, int], str] = {}

    def weigh(self, subject: int, parent: int | None, members: Ints, lacking: int) -> list[Alarm]:
        """Add what the balance of a parent says to its members' scores; return the parent's own alarms."""
        last = len(self.weeks.monday) - 1
        if not len(members):
            return [Alarm(subject, "network_without_members", last, None, "no member of this parent has readings")]
        if parent is None:
            return [Alarm(subject, "network_without_readings", last, None, f"no balance of its {len(members)} members")]
        if lacking:
            detail = f"{lacking} of {lacking + len(members)} members have no readings or several parents: no balance"
            return [Alarm(subject, "network_incomplete", last, None, detail)]
        energy = self.weeks.energy
        balance = residual.balanced(energy[parent], energy[members], self._expected(members))
        self.score[members] = residual.weighed(self.score[members], balance)
        inside = np.flatnonzero(self.place[members] >= 0)
        own = self.place[members[inside]]
        part = dataclasses.replace(balance, explained=balance.explained[inside])
        self.evidence.changed[own] = residual.weighed(self.evidence.changed[own], part)
        self.evidence.theft[own] = residual.told(self.evidence.theft[own], part)
        for week in np.flatnonzero(np.isfinite(balance.missing)):
            for member, share in zip(members, balance.explained[:, week], strict=True):
                self.notes[int(member), int(week)] = (
                    f"balance of its parent {100 * balance.missing[week]:+.1f} %, explained {100 * share:.0f} %"
                )
            self.notes[parent, int(week)] = f"observer; missing {100 * balance.missing[week]:+.1f} %"
        return self._parent_alarms(subject, balance)

    def _expected(self, members: Ints) -> Floats:
        """Return the mean of the latest trusted weeks before each week; NaN where there is none."""
        energy = self.weeks.energy[members]
        out = np.full_like(energy, np.nan)
        for row, member in enumerate(members):
            place = self.place[member]
            if place < 0:
                continue
            for week in range(1, energy.shape[1]):
                past = np.flatnonzero(self.said.trusted[place, :week])[-PAST_WEEKS:]
                if len(past):
                    out[row, week] = energy[row, past].mean(0)
        return out

    @staticmethod
    def _parent_alarms(subject: int, balance: Balance) -> list[Alarm]:
        detail = [
            ""
            if np.isnan(share)
            else f"{100 * share:+.1f} % of the energy, {wh / 1000:+.1f} kWh in the week, is not counted"
            for share, wh in zip(balance.missing, balance.missing_wh, strict=True)
        ]
        return alarms.spells(subject, "theft_feeder_residual", balance.short, balance.short, detail) + alarms.spells(
            subject, "network_negative_loss", balance.negative, balance.negative, detail
        )

    def alarms(self, budget: float) -> list[Alarm]:
        """Return the alarms of the meters."""
        found = alarms.meter_alarms(self.said, self.evidence, budget)
        return [dataclasses.replace(alarm, subject=int(self.customers[alarm.subject])) for alarm in found]

    def reasons(self) -> list[list[str]]:
        """Return in words what each score rests on."""
        weeks = range(len(self.weeks.monday))
        return [[self._reason(row, week) for week in weeks] for row in range(len(self.weeks.meter_ids))]

    def _reason(self, row: int, week: int) -> str:
        note = self.notes.get((row, week))
        if self.place[row] < 0:
            return note or "observer"
        own = alarms.reason(self.said, int(self.place[row]), week, self.evidence)
        return f"{own}; {note}" if note else own
