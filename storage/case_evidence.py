"""What a case rests on, as it was known when the case was opened; whole Wh, by local weeks and hours."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metering.theft.ledger import Fall, Lead, Network
from metering.theft.weeks import Weeks

HOURS = 24
EVENTS_KEPT = 50


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Of one meter."""

    fall: Fall
    document: dict[str, Any]


def evidence_of(weeks: Weeks, lead: Lead, network: Network, event_days: Sequence[dt.date]) -> Evidence:
    """Return the evidence of a lead of a meter.

    Args:
        weeks: That were judged.
        lead: With a fall.
        network: Of the meters that were judged together.
        event_days: Of the meter's tampering.
    """
    assert lead.fall is not None
    row_of = {name: row for row, name in enumerate(weeks.meter_ids)}
    row = row_of[lead.subject]
    parent = network.parent_of.get(lead.subject)
    members = [row_of[name] for name, own in network.parent_of.items() if own == parent and name in row_of]
    beside = [one for one in members if one != row]
    fall_day = (lead.fall.day - weeks.monday[0]).days
    document: dict[str, Any] = {
        "kind": lead.kind,
        "detail": lead.detail,
        "fall_on": lead.fall.day.isoformat(),
        "fall_percent": lead.fall.percent,
        "neighbours_fall_percent": lead.fall.neighbours_percent,
        "usual_week_wh": list(lead.fall.week_wh),
        "weeks": [monday.isoformat() for monday in weeks.monday],
        "own_week_wh": _whole(_week_wh(weeks, [row])[0]),
        "own_hour_before_wh": _whole(_hours(weeks, row, 0, fall_day)),
        "own_hour_after_wh": _whole(_hours(weeks, row, fall_day, len(weeks.monday) * 7)),
        "neighbours": len(beside),
        "neighbours_week_wh": _whole(_mean(_week_wh(weeks, beside))) if beside else [],
        "events": [day.isoformat() for day in event_days[-EVENTS_KEPT:]],
    }
    if parent is not None:
        document["node"] = network.node_of.get(parent, parent)
    if parent in row_of:
        supplied, shown = _week_wh(weeks, [row_of[str(parent)]])[0], _week_wh(weeks, members).sum(0)
        usual = np.full(len(weeks.monday), float(lead.fall.week_wh[1]))
        without = np.maximum(usual - _week_wh(weeks, [row])[0], 0)
        without[[monday + dt.timedelta(days=6) < lead.fall.day for monday in weeks.monday]] = 0
        document["residual_week_wh"] = _whole(supplied - shown)
        document["residual_without_week_wh"] = _whole(supplied - shown - without)
    return Evidence(lead.fall, document)


def _week_wh(weeks: Weeks, rows: Sequence[int]) -> NDArray[np.float64]:
    """Return energy by meter and week; NaN where a week is not whole, so that no gap is taken for a fall."""
    energy = weeks.energy[list(rows)]
    whole = np.isfinite(energy).mean((2, 3)) >= 1
    return np.where(whole, np.nan_to_num(energy).sum((2, 3)), np.nan)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(values).sum(0)
    return np.where(known > 0, np.nan_to_num(values).sum(0) / np.maximum(known, 1), np.nan)


def _hours(weeks: Weeks, row: int, low: int, high: int) -> NDArray[np.float64]:
    """Return the mean energy of each local hour over some days."""
    slots = weeks.energy.shape[3]
    days = weeks.energy[row].reshape(-1, slots)[low:high].reshape(-1, HOURS, slots // HOURS).sum(2)
    return _mean(days) if len(days) else np.full(HOURS, np.nan)


def _whole(values: NDArray[np.float64]) -> list[int | None]:
    return [None if np.isnan(value) else round(float(value)) for value in values]
