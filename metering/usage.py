"""Loads cut into billing cycles and measured: energy by price bucket in order of time, and the columns behind it."""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from metering.calendar import NO_FLAGS, US, Segments, compile_segments, local_midnight_s, split_energy_columns
from metering.pricing.export import net_columns
from metering.pricing.fixed import DaySpan
from metering.pricing.indexed import Series
from metering.pricing.rounding import round_wh
from metering.state import Int64Column
from metering.tariff import Tariff

REGISTERS = ("import_wh", "export_wh", "controlled_wh", "import_varh", "export_varh")
CYCLES_MAX = 1200


@dataclasses.dataclass(frozen=True)
class Load:
    """Interval energies of one service point, sorted by time, none twice."""

    start_us: Int64Column
    """Shape (n,), epoch µs."""
    interval_s: int
    registers: Mapping[str, Int64Column]
    """Shape (n,) each, Wh or varh, by name of REGISTERS; ``import_wh`` is always there."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a bill needs beside tariff and load."""

    terms: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)
    """Of the contract, such as contract_kw; before those of the tariff."""
    flags: Mapping[str, frozenset[dt.date]] = dataclasses.field(default_factory=dict)
    indices: Mapping[str, Series] = dataclasses.field(default_factory=dict)
    system_peaks_s: tuple[int, ...] = ()
    """Instants of coincident demand, epoch seconds."""


@dataclasses.dataclass(frozen=True)
class Side:
    """Days of a cycle under one version and in one season."""

    version: int
    season: str
    days: DaySpan


@dataclasses.dataclass(frozen=True)
class Cycle:
    """A billing cycle in half-open local days."""

    days: DaySpan
    sides: tuple[Side, ...]
    """Consecutive; where a contract has the tariff for a part of the cycle only, of that part."""

    @property
    def served(self) -> DaySpan:
        """Return the days of the cycle that the tariff holds for."""
        return self.sides[0].days[0], self.sides[-1].days[1]

    @property
    def versions(self) -> list[tuple[int, dt.date]]:
        """Return the versions with their first day in the cycle."""
        found: dict[int, dt.date] = {}
        for side in self.sides:
            found.setdefault(side.version, side.days[0])
        return list(found.items())


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Intervals of a cycle, split where a price bucket ends; columns of one length."""

    start_us: Int64Column
    segment: Int64Column
    """Index of the part of `Usage` that the piece is in."""
    bucket: Int64Column
    energy: Mapping[str, Int64Column]
    """As read, by name of REGISTERS."""
    net_import_wh: Int64Column
    net_export_wh: Int64Column


@dataclasses.dataclass(frozen=True)
class Usage:
    """Energy of one cycle by part: consecutive times of one price bucket, or whole buckets."""

    bucket: Int64Column
    """Shape (s,), in order of time (or of buckets: then only what does not depend on the order can be priced)."""
    import_wh: Int64Column
    """Shape (s,), drawn, after netting."""
    export_wh: Int64Column
    in_order: bool = True
    """False: netted over the cycle, so sequential tiers are shared over the periods."""
    pieces: Pieces | None = None
    load: Load | None = None
    """Intervals that begin in the cycle, unsplit, for demand."""
    bucket_at_start: Int64Column | None = None
    """Of each interval of `load`."""

    def total(self, register: str) -> int:
        """Return the total of a register as read, Wh or varh; 0 where the load does not have it."""
        if self.pieces is None:
            return int(self.import_wh.sum()) if register == "import_wh" else 0
        column = self.pieces.energy.get(register)
        return 0 if column is None else int(column.sum())


def make_cycle(tariff: Tariff, start_on: dt.date, end_on: dt.date) -> Cycle:
    """Return a cycle with its sides."""
    sides: list[Side] = []
    for offset in range((end_on - start_on).days):
        day = start_on + dt.timedelta(days=offset)
        version = tariff.version_index_on(day)
        season = tariff.versions[version].season_of(day)
        after = day + dt.timedelta(days=1)
        if sides and (sides[-1].version, sides[-1].season) == (version, season):
            sides[-1] = Side(version, season, (sides[-1].days[0], after))
        else:
            sides.append(Side(version, season, (day, after)))
    return Cycle((start_on, end_on), tuple(sides))


def calendar_months(tariff: Tariff, load: Load) -> list[dt.date]:
    """Return the first days of the local months that a load touches, and of the month after."""
    first, last = (
        dt.datetime.fromtimestamp(int(at) // US, tariff.zone).date()
        for at in (load.start_us[0], load.start_us[-1] + load.interval_s * US - 1)
    )
    months = [first.replace(day=1)]
    while months[-1] <= last:
        months.append((months[-1] + dt.timedelta(days=32)).replace(day=1))
    return months


Compiled = dict[Any, tuple[Segments, tuple[Cycle, ...]]]
"""Segments and cycles of tariffs, kept for the next load; of one set of tariffs only."""


def _compile(
    tariff: Tariff, load: Load, edges: Sequence[dt.date], inputs: Inputs, compiled: Compiled | None
) -> tuple[Segments, tuple[Cycle, ...]]:
    index_edges = tuple(_index_edges(tariff, load, inputs))
    flags = inputs.flags or NO_FLAGS
    key = (tariff.tariff_id, tuple(edges), index_edges, tuple(sorted((name, days) for name, days in flags.items())))
    if compiled is not None and key in compiled:
        return compiled[key]
    edges_s = [local_midnight_s(tariff, day) for day in edges]
    segments = compile_segments(tariff, edges[0], edges[-1], edges_s=[*edges_s, *index_edges], flags=flags)
    found = segments, tuple(make_cycle(tariff, *days) for days in itertools.pairwise(edges))
    if compiled is not None:
        compiled[key] = found
    return found


def measure(
    tariff: Tariff, load: Load, edges: Sequence[dt.date], inputs: Inputs, compiled: Compiled | None = None
) -> list[tuple[Cycle, Usage]]:
    """Return the usage of each cycle.

    An interval belongs to the period that its parts lie in: one that straddles a boundary is split by time.

    Args:
        tariff: Checked tariff.
        load: Interval energies.
        edges: Local days at which cycles begin, ascending; the last one ends the last cycle.
        inputs: Flags are published days.
        compiled: What was compiled before, and is kept; None compiles anew.
    """
    edges_s = [local_midnight_s(tariff, day) for day in edges]
    segments, cycles = _compile(tariff, load, edges, inputs, compiled)
    end_us = load.start_us + load.interval_s * US
    inside = (load.start_us >= edges_s[0] * US) & (end_us <= edges_s[-1] * US)
    kept = Load(
        load.start_us[inside], load.interval_s, {name: column[inside] for name, column in load.registers.items()}
    )
    kept = _round_quantities(tariff, kept)
    pieces = _split(segments, kept)
    cut = np.searchsorted(segments.start_s, edges_s)
    row_cut = np.searchsorted(kept.start_us, np.array(edges_s) * US)
    at_start = segments.bucket[np.searchsorted(segments.start_s * US, kept.start_us, side="right") - 1]
    found = []
    for index, cycle in enumerate(cycles):
        parts = slice(int(cut[index]), int(cut[index + 1]))
        rows = slice(int(row_cut[index]), int(row_cut[index + 1]))
        own = Load(
            kept.start_us[rows], kept.interval_s, {name: column[rows] for name, column in kept.registers.items()}
        )
        found.append((cycle, _usage(tariff, cycle, segments, pieces, parts, own, at_start[rows])))
    return found


def _index_edges(tariff: Tariff, load: Load, inputs: Inputs) -> Iterable[int]:
    """Return where published prices begin when intervals are longer than these hold."""
    documents = [version.document for version in tariff.versions]
    indices = [part.index for document in documents for part in document.energy if part.index]
    indices += [document.export.index for document in documents if document.export and document.export.index]
    steps = {index.name for index in indices if index.interval_min * 60 < load.interval_s}
    return [int(at) for name in steps if name in inputs.indices for at in inputs.indices[name].start_s]


def _round_quantities(tariff: Tariff, load: Load) -> Load:
    rule = tariff.rounding.quantity
    if rule is None or rule.of != "interval":
        return load
    step_wh = int(rule.step * 1000)
    return Load(
        load.start_us,
        load.interval_s,
        {name: round_wh(column, step_wh, rule.mode) for name, column in load.registers.items()},
    )


def _split(segments: Segments, load: Load) -> tuple[Int64Column, Int64Column, Mapping[str, Int64Column]]:
    """Return start, segment and energies of the pieces of all intervals."""
    end_us = load.start_us + load.interval_s * US
    energy: dict[str, Int64Column] = {}
    row = segment = np.zeros(0, np.int64)
    for name, column in load.registers.items():
        row, segment, energy[name] = split_energy_columns(segments, load.start_us, end_us, column)
    start_us = np.maximum(load.start_us[row], segments.start_s[segment] * US)
    return start_us, segment, energy


def _usage(
    tariff: Tariff,
    cycle: Cycle,
    segments: Segments,
    pieces: tuple[Int64Column, Int64Column, Mapping[str, Int64Column]],
    parts: slice,
    load: Load,
    bucket_at_start: Int64Column,
) -> Usage:
    start_us, segment, energy = pieces
    here = slice(*np.searchsorted(segment, [parts.start, parts.stop]).tolist())
    part = segment[here] - parts.start
    columns = {name: column[here] for name, column in energy.items()}
    bucket = segments.bucket[parts]
    drawn = columns["import_wh"]
    fed = columns.get("export_wh", np.zeros_like(drawn))
    drawn, fed = _net(tariff, cycle, start_us[here], part, (drawn, fed))
    return Usage(
        bucket=bucket,
        import_wh=_by_part(part, drawn, len(bucket)),
        export_wh=_by_part(part, fed, len(bucket)),
        pieces=Pieces(start_us[here], part, bucket[part], columns, drawn, fed),
        load=load,
        bucket_at_start=bucket_at_start,
    )


def _by_part(part: Int64Column, energy_wh: Int64Column, parts: int) -> Int64Column:
    total_wh = np.zeros(parts, np.int64)
    np.add.at(total_wh, part, energy_wh)
    return total_wh


def _net(
    tariff: Tariff, cycle: Cycle, start_us: Int64Column, part: Int64Column, energy: tuple[Any, Any]
) -> tuple[Int64Column, Int64Column]:
    """Return what is drawn and fed in after netting within intervals or hours; wider netting is `rating`'s."""
    export = tariff.versions[cycle.sides[-1].version].document.export
    drawn, fed = energy
    if export is None or export.mode == "buy_all":
        return drawn, fed
    netting = export.netting or ("interval" if export.mode.startswith("net_billing") else "period")
    if netting == "hour":
        return net_columns(_hour_of(tariff, start_us) * (int(part.max(initial=0)) + 1) + part, drawn, fed)
    if netting == "interval":
        net = drawn - fed
        return np.maximum(net, 0), np.maximum(-net, 0)
    return drawn, fed


def _hour_of(tariff: Tariff, start_us: Int64Column) -> Int64Column:
    """Return which hour of the schedule's clock instants lie in; that clock may be half an hour off UTC's."""
    quarter, place = np.unique(start_us // (900 * US), return_inverse=True)
    zone = tariff.schedule_zone
    offset_s = [dt.datetime.fromtimestamp(at * 900, zone).utcoffset() for at in quarter.tolist()]
    into_s = np.array([int(item.total_seconds()) if item else 0 for item in offset_s], np.int64) % 3600
    return (start_us // US + into_s[place]) // 3600
