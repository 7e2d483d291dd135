"""Master data and tariffs of all meters, compiled to columns."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metering.calendar import Timeline
from metering.cycle_shape import Shapes
from metering.state import Int64Column
from metering.tariff import Tariff

FAR_FUTURE_US = 2**62
ALL_CYCLES = 2**31 - 1
"""End of the cycles that an assignment covers wholly, where nothing ends it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """A meter at a service point under a tariff in ``[start_us, end_us)``."""

    service_point_no: int
    tariff_index: int
    """Of the price book: a tariff with a billing day."""
    start_us: int
    end_us: int
    whole_from: int = 0
    """First cycle of the tariff's timeline that the contract covers wholly; `whole_until` is after the last one."""
    whole_until: int = ALL_CYCLES

    def holds(self, start_us: int, end_us: int) -> bool:
        """Return whether an interval is measured here: a reading at the very end closes it, an opening there does not."""
        if start_us == end_us:
            return self.start_us <= end_us < self.end_us
        return self.start_us < end_us <= self.end_us


class Assignments:
    """All assignments of the meters that have several, as columns."""

    def __init__(self, rows: Sequence[tuple[int, Assignment]] = ()) -> None:
        """Take rows of meter number and assignment, sorted by meter and start."""
        values = [(number, *dataclasses.astuple(item)) for number, item in rows]
        self._columns = np.array(values, np.int64).reshape(-1, 7).T.copy()

    def of(self, meter_no: int) -> list[Assignment]:
        """Return the assignments of a meter, oldest first."""
        low, high = np.searchsorted(self._columns[0], [meter_no, meter_no + 1]).tolist()
        return [Assignment(*row) for row in self._columns[1:, low:high].T.tolist()]

    def meters_at(self, service_point_no: int) -> list[int]:
        """Return the meters that ever measured a service point."""
        return np.unique(self._columns[0][self._columns[1] == service_point_no]).tolist()


class Place(NamedTuple):
    """Where facts were measured, and under what; columns of their shape."""

    tariff_index: Int64Column
    whole_from: Int64Column
    whole_until: Int64Column


@dataclasses.dataclass
class Meters:
    """Master data as columns indexed by meter number (row 0 is unused)."""

    meter_id: list[str]
    modulus_wh: Int64Column
    rated_power_w: Int64Column
    interval_s: Int64Column
    tariff_index: Int64Column
    """Of the newest assignment; -1 where there is none."""
    service_point_no: Int64Column
    start_us: Int64Column
    """Of the newest assignment; so is `end_us`."""
    end_us: Int64Column
    irregular: NDArray[np.bool_]
    """Meters with register epochs: settled one by one."""
    epochs: dict[int, list[int]]
    """Starts of epochs 1, 2, … of the meters that have them, epoch µs."""
    whole: NDArray[np.int32] = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int32))
    """Shape (n, 2): `whole_from` and `whole_until` of the newest assignment."""
    assignments: Assignments = dataclasses.field(default_factory=Assignments)
    several: NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.zeros(0, np.bool_))
    """Meters with several assignments."""
    shares_point: NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.zeros(0, np.bool_))
    """Meters whose service point had other meters too."""

    def __post_init__(self) -> None:
        if not len(self.whole):
            self.whole = np.full((self.size, 2), (0, ALL_CYCLES), np.int32)
        if not len(self.several):
            self.several = np.zeros(self.size, np.bool_)
        if not len(self.shares_point):
            self.shares_point = np.zeros(self.size, np.bool_)

    @property
    def size(self) -> int:
        """Return the length of the columns."""
        return len(self.meter_id)

    def assignments_of(self, meter_no: int) -> list[Assignment]:
        """Return the assignments of a meter, oldest first."""
        if self.several[meter_no]:
            return self.assignments.of(meter_no)
        if self.start_us[meter_no] >= self.end_us[meter_no]:
            return []
        columns = (self.service_point_no, self.tariff_index, self.start_us, self.end_us)
        return [Assignment(*(int(column[meter_no]) for column in columns), *self.whole[meter_no].tolist())]

    def is_assigned(self, meter_no: int, at_us: int) -> bool:
        """Return whether a meter measured a service point at an instant, or until just then."""
        return any(item.start_us <= at_us <= item.end_us for item in self.assignments_of(meter_no))

    def assignment_of(self, meter_no: int, start_us: int, end_us: int) -> Assignment | None:
        """Return the assignment that an interval belongs to: that of its end, and of a reading at an exchange the old one."""
        items = self.assignments_of(meter_no)
        for item in items:
            if item.holds(start_us, end_us):
                return item
        return next((item for item in items if item.end_us == end_us), None)  # opened at the end

    def is_newest(self, meter_no: Int64Column, start_us: Int64Column, end_us: Int64Column) -> NDArray[np.bool_]:
        """Return which intervals lie in their meter's newest assignment wholly.

        Args:
            meter_no: Shape (n,).
            start_us: Shape (n,), epoch µs.
            end_us: Shape (n,), epoch µs; equal to the start of a register's first reading.
        """
        until = self.end_us[meter_no]
        return (start_us >= self.start_us[meter_no]) & (end_us <= until) & ((start_us < end_us) | (end_us < until))

    def place_of(self, meter_no: Int64Column, start_us: Int64Column, end_us: Int64Column) -> Place:
        """Return what the intervals were measured under; shapes as of `is_newest`."""
        found = Place(self.tariff_index[meter_no], *self.whole[meter_no].T.astype(np.int64))
        apart = self.several[meter_no] & ~self.is_newest(meter_no, start_us, end_us)
        for row in np.flatnonzero(apart).tolist():
            item = self.assignment_of(int(meter_no[row]), int(start_us[row]), int(end_us[row]))
            # What was assigned when it was settled may not be any more: then the newest assignment stands for it.
            item = item or self.assignments_of(int(meter_no[row]))[-1]
            for column, value in zip(found, (item.tariff_index, item.whole_from, item.whole_until), strict=True):
                column[row] = value
        return found

    def epoch_at(self, meter_no: int, at_us: int) -> int:
        """Return the register epoch that an instant belongs to."""
        return sum(at_us >= start for start in self.epochs.get(meter_no, ()))

    def meters_at(self, service_point_no: int) -> list[int]:
        """Return the meters that ever measured a service point, ascending."""
        now = np.flatnonzero((self.service_point_no == service_point_no) & (self.start_us < self.end_us))
        return sorted({*now.tolist(), *self.assignments.meters_at(service_point_no)} - {0})


@dataclasses.dataclass
class PriceBook:
    """Compiled tariffs by index: each with a billing day."""

    tariffs: list[Tariff]
    timelines: list[Timeline]
    none_index: int = -1
    """Entry of what is measured without any contract or tariff: usage is kept, and not charged."""
    shapes: list[Shapes] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.shapes:
            self.shapes = [Shapes(*pair) for pair in zip(self.tariffs, self.timelines, strict=True)]
