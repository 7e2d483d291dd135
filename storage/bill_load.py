"""The loads of many contracts' cycles at once: from sub-totals of days where these are the whole truth, else from the facts."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg

from metering.billing import interval_s_of, needs_varh, span_us
from metering.calendar import US
from metering.contract import Contract
from metering.pricing.fixed import DaySpan
from metering.tariff import Tariff
from schemas.bill import RegisterSpan
from storage.ledger_time import KNOWN_SQL, Position, offsets_by_partition
from storage.load import EPOCH, Placement, ServiceLoad, fetch_load, fetch_placements, instant
from storage.usage_day import Profiles, fetch_profiles

Work = tuple[Contract, DaySpan]
"""A contract and one of its billing cycles."""
DAY_US = 86_400 * US
_NEAR_DAYS = 3


@dataclasses.dataclass(frozen=True)
class Boundary:
    """The register of a meter at an instant; interpolated where the fact lies across it."""

    epoch: int
    import_wh: int
    export_wh: int
    at_us: int


def fetch_loads(
    conn: psycopg.Connection[Any],
    work: Sequence[Work],
    tariffs: Mapping[str, Tariff],
    *,
    known: Position | None,
    refresh_no: int | None,
) -> list[ServiceLoad]:
    """Return the load of each cycle, in the order of `work`.

    Args:
        conn: Connection.
        work: Contracts and cycles, each with a tariff; some hundred at once.
        tariffs: Of all of them.
        known: Position of the ledger that the loads are of; None is everything.
        refresh_no: The refresh that stands for that position: days that a later one changed are read from the facts, as are
            all when it is None.
    """
    spans = [span_us(contract, cycle, tariffs) for contract, cycle in work]
    points = sorted({contract.service_point_no for contract, _ in work})
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    placements: dict[int, list[Placement]] = {}
    for item in fetch_placements(conn, points, low, high):
        placements.setdefault(item.service_point_no, []).append(item)
    clipped = [
        _within(placements.get(contract.service_point_no, []), span)
        for (contract, _), span in zip(work, spans, strict=True)
    ]
    profiles = None if refresh_no is None else _profiles(conn, placements, low, high)
    simple = [
        len(items) == 1 and (items[0].start_us, items[0].end_us) == span
        for items, span in zip(clipped, spans, strict=True)
    ]
    meters = sorted({items[0].meter_no for items, is_simple in zip(clipped, simple, strict=True) if is_simple})
    at_us = sorted({at for span, is_simple in zip(spans, simple, strict=True) if is_simple for at in span})
    edges = fetch_boundaries(conn, meters, at_us, known) if profiles is not None else {}
    found = []
    for (contract, cycle), span, items, is_simple in zip(work, spans, clipped, simple, strict=True):
        used = [tariffs[item.tariff_id] for _, item in contract.parts(cycle)]
        load = None
        if profiles is not None and is_simple and interval_s_of(used) == 900 and not needs_varh(used):
            load = _simple_load(profiles, items[0], span, edges, refresh_no or 0)
        found.append(
            load or fetch_load(conn, contract.service_point_no, *span, known=known, interval_s=interval_s_of(used))
        )
    return found


def _within(items: Sequence[Placement], span: tuple[int, int]) -> list[Placement]:
    cut = [
        dataclasses.replace(item, start_us=max(item.start_us, span[0]), end_us=min(item.end_us, span[1]))
        for item in items
    ]
    return [item for item in cut if item.start_us < item.end_us]


def _profiles(
    conn: psycopg.Connection[Any], placements: Mapping[int, Sequence[Placement]], low: int, high: int
) -> Profiles:
    meters = sorted({item.meter_no for items in placements.values() for item in items})
    first = (EPOCH + dt.timedelta(microseconds=low)).date()
    end = (EPOCH + dt.timedelta(microseconds=high + DAY_US - 1)).date()
    return fetch_profiles(conn, meters, first, end)


def _simple_load(
    profiles: Profiles,
    item: Placement,
    span: tuple[int, int],
    edges: Mapping[tuple[int, int], Boundary],
    refresh_no: int,
) -> ServiceLoad | None:
    """Return the load of a point that one meter measured all the time, or None where the facts have to be asked."""
    row = int(np.searchsorted(profiles.meter_nos, item.meter_no))
    opening, closing = edges.get((item.meter_no, span[0])), edges.get((item.meter_no, span[1]))
    if profiles.refresh_no[row] > refresh_no or (opening and closing and opening.epoch != closing.epoch):
        return None
    load = profiles.load([item], *span)
    if load is None or opening is None or closing is None:
        return load
    registers = [("import", opening.import_wh, closing.import_wh, load.energy_wh)]
    if opening.export_wh >= 0 and closing.export_wh >= 0:
        registers.append(("export", opening.export_wh, closing.export_wh, load.export_wh))
    return dataclasses.replace(
        load,
        spans=tuple(
            RegisterSpan(
                meter_id=item.meter_id,
                register=name,
                start_at=instant(opening.at_us),
                end_at=instant(closing.at_us),
                start_wh=start_wh % item.modulus_wh,
                end_wh=end_wh % item.modulus_wh,
                energy_wh=energy_wh,
            )
            for name, start_wh, end_wh, energy_wh in registers
        ),
    )


def fetch_boundaries(
    conn: psycopg.Connection[Any], meter_nos: Sequence[int], at_us: Sequence[int], known: Position | None
) -> dict[tuple[int, int], Boundary]:
    """Return the registers of meters at instants, by meter and instant.

    They are of the first fact that ends there or later, else of the last one before; of a meter without a fact some days
    around there is none.
    """
    found: dict[tuple[int, int], Boundary] = {}
    for at in at_us:
        for side, way, low, high in ((">=", "", 0, _NEAR_DAYS), ("<", "desc", -_NEAR_DAYS, 0)):
            missing = [number for number in meter_nos if (number, at) not in found]
            rows = conn.execute(
                "select f.meter_no, f.epoch, (extract(epoch from f.start_at) * 1000000)::int8,"
                " (extract(epoch from f.end_at) * 1000000)::int8, f.energy_wh, f.import_wh, f.export_energy_wh,"
                " coalesce(f.export_wh, -1) from unnest(%(meters)s::int4[]) w(meter_no) cross join lateral"
                f" (select f.* from fact f where f.meter_no = w.meter_no and f.end_at {side} %(at)s"
                f" and f.end_at between %(low)s and %(high)s and {KNOWN_SQL}"
                f" order by f.end_at {way}, f.revision desc limit 1) f where f.revision %% 2 = 0",
                {
                    "meters": missing,
                    "at": instant(at),
                    "low": instant(at + low * DAY_US),
                    "high": instant(at + high * DAY_US),
                    "offsets": offsets_by_partition(known),
                },
            ).fetchall()
            for row in rows:
                found[row[0], at] = _boundary(at, row[1:])
    return found


def _boundary(at: int, fact: tuple[int, ...]) -> Boundary:
    epoch, start, end, energy_wh, import_wh, fed_wh, export_wh = fact
    if end <= at or start >= end:  # read at that instant, or before it, or a meter's first reading after it
        return Boundary(epoch, import_wh, export_wh, end)
    if start >= at:
        return Boundary(epoch, import_wh - energy_wh, export_wh - fed_wh if export_wh >= 0 else -1, start)
    after = energy_wh - energy_wh * (at - start) // (end - start)
    fed_after = fed_wh - fed_wh * (at - start) // (end - start)
    return Boundary(epoch, import_wh - after, export_wh - fed_after if export_wh >= 0 else -1, at)
