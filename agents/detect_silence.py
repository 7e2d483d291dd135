"""Silent meters and silent gateways: what a partition's state says, brought to the alarms in the transaction of its offset."""

import dataclasses
import datetime as dt
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from metering.alarm.condition import Condition
from metering.detect.gateways import is_silent
from metering.detect.state import Detectors
from storage.alarm import AlarmChange, apply_conditions, fetch_active
from storage.alarm_action import suppress, unsuppress
from storage.registry import Registry

SILENT, GATEWAY_SILENT = "silent", "gateway_silent"
HIDDEN_BY_GATEWAY = (SILENT, "zero_use")
"""What a silent gateway explains of its meters."""
GATEWAY_LOCK = 0x6777_7369
"""Partitions that share a gateway count its meters one after the other."""


@dataclasses.dataclass(frozen=True)
class Silent:
    """Who is silent now."""

    silent: NDArray[np.bool_]
    """Shape (meters,)."""
    changed: NDArray[np.int64]
    """Meters of which that changed."""
    missing: NDArray[np.bool_]
    """Which meters are one interval from being silent, or are: a gateway is told by these, so that its own alarm comes before
    the first of its meters', which fall silent one after the other."""
    intervals: int
    """After how many a meter is silent, for the text."""
    at: dt.datetime
    """Now, by the watermark."""


def silence_changes(
    conn: psycopg.Connection[Any], partition: int, state: Detectors, registry: Registry, now: Silent
) -> list[AlarmChange]:
    """Raise and clear what silence says; a gateway's silence hides that of its meters.

    Args:
        conn: In the transaction of the partition's offset.
        partition: Whose meters these are.
        state: Of the partition.
        registry: Master data.
        now: Who is silent.
    """
    said = [_meter(registry, number, now) for number in now.changed.tolist()]
    heard = apply_conditions(
        conn, [item for item in said if not item.is_active]
    )  # those first: they end while they are hidden
    hidden = _gateways(conn, partition, state, registry, now)
    return heard + hidden + apply_conditions(conn, [item for item in said if item.is_active])


def _meter(registry: Registry, number: int, now: Silent) -> Condition:
    subject = registry.meters.meter_id[number]
    if not now.silent[number]:
        return Condition(subject, SILENT, is_active=False, at=now.at, detail="readings came again")
    limit_s = int(registry.meters.interval_s[number]) * now.intervals
    detail = f"no reading for more than {limit_s} s, {now.intervals} intervals"
    return Condition(subject, SILENT, is_active=True, at=now.at, detail=detail)


def _gateways(
    conn: psycopg.Connection[Any], partition: int, state: Detectors, registry: Registry, now: Silent
) -> list[AlarmChange]:
    """Count the partition's part of each gateway, and raise or clear the gateways of which the whole says so."""
    gateways, at = state.gateways, now.at
    members, missing = gateways.counts(now.missing)
    standing = sorted(subject for subject, _ in fetch_active(conn, GATEWAY_SILENT))
    told = members.tobytes(), missing.tobytes(), ",".join(standing).encode()
    if gateways.told == told:
        return []
    conn.execute("select pg_advisory_xact_lock(%s)", (GATEWAY_LOCK,))
    conn.execute(
        "insert into gateway_silence (gateway_id, partition, members, silent)"
        " select g, %s, m, s from unnest(%s::text[], %s::int[], %s::int[]) as t (g, m, s)"
        " on conflict (gateway_id, partition) do update set members = excluded.members, silent = excluded.silent",
        (partition, gateways.names, members.tolist(), missing.tolist()),
    )
    rows = conn.execute(
        "select gateway_id, sum(members)::int, sum(silent)::int, exists (select from alarm a where a.subject = gateway_id"
        " and a.kind = %s and a.cleared_at is null) from gateway_silence where gateway_id = any(%s) group by 1 order by 1",
        (GATEWAY_SILENT, gateways.names),
    ).fetchall()
    number_of = {name: number for number, name in enumerate(gateways.names)}
    changes: list[AlarmChange] = []
    for gateway_id, whole, gone, stands in rows:
        if is_silent(whole, gone):
            detail = f"{gone} of its {whole} meters are silent"
            if not stands:
                changes += apply_conditions(
                    conn, [Condition(gateway_id, GATEWAY_SILENT, is_active=True, at=at, detail=detail)]
                )
            ids = [registry.meters.meter_id[number] for number in gateways.members(number_of[gateway_id]).tolist()]
            changes += suppress(conn, ids, HIDDEN_BY_GATEWAY, by=gateway_id, at=at)
        elif stands:
            detail = f"{whole - gone} of its {whole} meters are heard again"
            changes += apply_conditions(
                conn, [Condition(gateway_id, GATEWAY_SILENT, is_active=False, at=at, detail=detail)]
            )
            changes += unsuppress(conn, by=gateway_id, at=at)
    if not changes:
        gateways.told = told  # what changed is looked at once more, by then with the gateways that stand
    return changes
