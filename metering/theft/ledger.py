"""The detector over the ledger: from the network as the registry says it, and from the scan's alarms to kinds of the catalogue."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metering.theft.scan import Finding
from metering.theft.weeks import Weeks

Ints = NDArray[np.int64]
PAST_WEEKS, COVERED_MIN = 4, 0.9
FALL_PERCENT = 50
"""A lasting fall against the own past (T09); a smaller one is told as suspicion."""
SLIGHT_PERCENT = 20
"""A smaller change of the total is one of the pattern (T11), and no fall that an event can be joined to (T10)."""
NEIGHBOURS_PERCENT = 15
"""Neighbours that moved by more explain a fall (T09)."""
EVENT_DAYS = 7
"""Tampering so near to the fall belongs to it (T10)."""
FEEDER_KINDS = {"theft_feeder_residual": "feeder_residual", "network_negative_loss": "feeder_negative_loss"}
THEFT_KINDS = ("theft_drop", "theft_tamper_and_drop", "theft_pattern", "theft_suspicion")
LIVE_KINDS = (*THEFT_KINDS, *FEEDER_KINDS.values())


@dataclasses.dataclass(frozen=True)
class Network:
    """Which meter hangs on which parent, a parent being named by its observer where it has one."""

    parent_of: dict[str, str]
    node_of: dict[str, str]
    """Node that an observer measures."""
    notes: list[str]


def network_of(parents: Mapping[str, str | None]) -> Network:
    """Return the network of a registry.

    A meter observes a node when it is named as the node or as the last part of its path, and is then none of its members.

    Args:
        parents: Node that each meter hangs on, or None.
    """
    nodes = sorted({node for node in parents.values() if node})
    short: dict[str, list[str]] = {}
    for node in nodes:
        short.setdefault(node.rsplit("/", 1)[-1], []).append(node)
    observer_of: dict[str, str] = {}
    notes = []
    for meter in sorted(parents):
        if meter in nodes:
            observer_of[meter] = meter
        elif len(short.get(meter, ())) > 1:
            notes.append(f"meter {meter} could observe {' or '.join(short[meter])}: it is taken for neither")
        elif meter in short and short[meter][0] not in parents:
            observer_of[short[meter][0]] = meter
    parent_of = {
        meter: observer_of.get(node, node) for meter, node in parents.items() if node and observer_of.get(node) != meter
    }
    served = {parents[meter] for meter in parent_of}
    notes += [f"{node} has no members: it is not balanced" for node in nodes if node not in served]
    return Network(parent_of, {meter: node for node, meter in observer_of.items()}, notes)


@dataclasses.dataclass(frozen=True)
class Fall:
    """How a meter's energy changed, in its local days."""

    day: dt.date
    """First day of the change."""
    percent: int
    """Of the daily mean before; positive is a fall."""
    neighbours_percent: int | None
    """The same of the meters beside it, over the same days."""
    week_wh: tuple[int, int, int]
    """Energy of a week before: a quarter of the weeks had less, the median, a quarter had more."""
    missing_wh: tuple[int, int, int]
    """Low, likely, high."""


def fall_of(weeks: Weeks, row: int, beside: Sequence[int], raised_after: int) -> Fall:
    """Return from when on, and by how much, a meter shows less than before an alarm's weeks.

    Args:
        weeks: Of all meters.
        row: The meter.
        beside: Rows of the meters on the same parent.
        raised_after: Week at whose end its alarm was raised.
    """
    daily = _daily(weeks, row)
    low, high = max(1, (raised_after - 2) * 7), min(len(daily) - 1, (raised_after + 1) * 7)
    best, weight = max(1, (raised_after - 1) * 7), -np.inf
    for day in range(low, high):
        before, after = daily[:day], daily[day:]
        before, after = before[np.isfinite(before)], after[np.isfinite(after)]
        if len(before) >= 7 and len(after) >= 3:
            gain = (before.mean() - after.mean()) * np.sqrt(len(before) * len(after) / (len(before) + len(after)))
            if gain > weight:
                best, weight = day, gain
    percent = _fell_percent(daily, best)
    others = [p for p in (_fell_percent(_daily(weeks, one), best) for one in beside if one != row) if p is not None]
    past = [daily[day : day + 7] for day in range(best - 7, -1, -7)]
    sums = [float(week.sum()) for week in past if np.isfinite(week).all()] or [7 * _mean(daily[:best])]
    week_wh = tuple(round(float(value)) for value in np.quantile(sums, [0.25, 0.5, 0.75]))
    later = daily[best:]
    known = int(np.isfinite(later).sum())
    shown = round(float(np.nansum(later)))
    missing = tuple(max(0, value * known // 7 - shown) for value in week_wh)
    return Fall(
        weeks.monday[0] + dt.timedelta(days=best),
        percent or 0,
        round(float(np.median(others))) if others else None,
        (week_wh[0], week_wh[1], week_wh[2]),
        (missing[0], missing[1], missing[2]),
    )


def _daily(weeks: Weeks, row: int) -> NDArray[np.float64]:
    days = weeks.energy[row].reshape(-1, weeks.energy.shape[3])
    there = np.isfinite(days)
    total = np.where(there, days, 0).sum(1) / np.maximum(there.mean(1), COVERED_MIN)
    return np.where(there.mean(1) >= COVERED_MIN, total, np.nan)


def _mean(days: NDArray[np.float64]) -> float:
    known = days[np.isfinite(days)]
    return float(known.mean()) if len(known) else 0.0


def _fell_percent(daily: NDArray[np.float64], day: int) -> int | None:
    before = _mean(daily[max(0, day - 7 * PAST_WEEKS) : day])
    return round(100 * (1 - _mean(daily[day:]) / before)) if before > 0 else None


def kind_of(fall: Fall, event_days: Sequence[dt.date]) -> str:
    """Return the catalogue's kind of a suspected theft.

    Args:
        fall: Of the meter.
        event_days: Local days of events of the meter that mean tampering.
    """
    near = any(abs((day - fall.day).days) <= EVENT_DAYS for day in event_days)
    if near and fall.percent >= SLIGHT_PERCENT:
        return "theft_tamper_and_drop"
    if fall.percent < SLIGHT_PERCENT:
        return "theft_pattern"
    steady = fall.neighbours_percent is None or abs(fall.neighbours_percent) <= NEIGHBOURS_PERCENT
    return "theft_drop" if fall.percent >= FALL_PERCENT and steady else "theft_suspicion"


@dataclasses.dataclass(frozen=True)
class Lead:
    """What stands at the end of the weeks about one subject."""

    subject: str
    """Meter or node."""
    kind: str
    at: dt.datetime
    """When it was raised."""
    detail: str
    fall: Fall | None
    """Of a meter."""


def leads_of(
    weeks: Weeks, found: Finding, network: Network, event_days: Mapping[str, Sequence[dt.date]]
) -> tuple[list[Lead], list[str]]:
    """Return what stands at the end of the weeks, and what is to be said of the network in words.

    Args:
        weeks: That were scanned.
        found: By the scan.
        network: It was scanned with.
        event_days: Of each meter with tampering.
    """
    row_of = {name: row for row, name in enumerate(weeks.meter_ids)}
    beside: dict[str, list[int]] = {}
    for name, parent in network.parent_of.items():
        if name in row_of:
            beside.setdefault(parent, []).append(row_of[name])
    leads: list[Lead] = []
    notes: list[str] = []
    for alarm in found.alarms:
        if alarm.cleared_after is not None:
            continue
        name = found.subjects[alarm.subject]
        at = weeks.bounds(alarm.raised_after)[1].astimezone(dt.UTC)
        if alarm.kind == "theft_suspected":
            fall = fall_of(weeks, alarm.subject, beside.get(network.parent_of.get(name, ""), []), alarm.raised_after)
            kind = kind_of(fall, event_days.get(name, ()))
            detail = f"{alarm.detail}; {fall.percent:+d} % less from {fall.day} on"
            leads.append(Lead(name, kind, at, detail, fall))
        elif alarm.kind in FEEDER_KINDS:
            node = network.node_of.get(name, name)
            leads.append(Lead(node, FEEDER_KINDS[alarm.kind], at, alarm.detail, None))
        elif alarm.kind.startswith("network_"):
            notes.append(f"{network.node_of.get(name, name)}: {alarm.detail}")
    told = {lead.subject for lead in leads}
    leads += [
        lead
        for name in sorted(set(event_days) & set(row_of) - told)
        if (
            lead := _joined(
                weeks, name, row_of[name], beside.get(network.parent_of.get(name, ""), []), event_days[name]
            )
        )
    ]
    return leads, notes


def _joined(weeks: Weeks, name: str, row: int, beside: Sequence[int], event_days: Sequence[dt.date]) -> Lead | None:
    """Return the lead of a meter with an event of tampering beside a fall (T10), whatever the shape of the fall looks like.

    Its neighbours must not have fallen with it.
    """
    last = len(weeks.monday) - 1
    if np.isfinite(_daily(weeks, row)).sum() < 14:
        return None
    fall = fall_of(weeks, row, beside, last)
    steady = fall.neighbours_percent is None or abs(fall.neighbours_percent) <= NEIGHBOURS_PERCENT
    if kind_of(fall, event_days) != "theft_tamper_and_drop" or not steady:
        return None
    detail = f"an event of tampering beside the fall; {fall.percent:+d} % less from {fall.day} on"
    return Lead(name, "theft_tamper_and_drop", weeks.bounds(last)[1].astimezone(dt.UTC), detail, fall)
