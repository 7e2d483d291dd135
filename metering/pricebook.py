"""Master data and tariffs of all meters, compiled to columns."""

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metering.calendar import Timeline
from metering.state import Int64Column
from metering.tariff import Tariff

FAR_FUTURE_US = 2**62


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """A meter at a service point under a tariff in ``[start_us, end_us)``."""

    service_point_no: int
    tariff_index: int
    start_us: int
    end_us: int


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
    """Of the one assignment, cut to what its tariff's timeline can price; so is `end_us`."""
    end_us: Int64Column
    irregular: NDArray[np.bool_]
    """Meters with several assignments or register epochs: settled one by one."""
    assignments: dict[int, list[Assignment]]
    """Of the irregular meters only."""
    epochs: dict[int, list[int]]
    """Starts of epochs 1, 2, … of the meters that have them, epoch µs."""

    @property
    def size(self) -> int:
        """Return the length of the columns."""
        return len(self.meter_id)

    def assignment_at(self, meter_no: int, at_us: int) -> Assignment | None:
        """Return where a meter measured at an instant, and under which tariff."""
        if not self.irregular[meter_no]:
            only = Assignment(
                int(self.service_point_no[meter_no]),
                int(self.tariff_index[meter_no]),
                int(self.start_us[meter_no]),
                int(self.end_us[meter_no]),
            )
            return only if only.start_us <= at_us < only.end_us else None
        for assignment in self.assignments.get(meter_no, ()):
            if assignment.start_us <= at_us < assignment.end_us:
                return assignment
        return None

    def epoch_at(self, meter_no: int, at_us: int) -> int:
        """Return the register epoch that an instant belongs to."""
        return sum(at_us >= start for start in self.epochs.get(meter_no, ()))


@dataclasses.dataclass
class PriceBook:
    """Compiled tariffs by index."""

    tariffs: list[Tariff]
    timelines: list[Timeline]

    @cached_property
    def bounds_us(self) -> list[tuple[int, int]]:
        """Return the first and the last instant that each tariff can price, epoch µs."""
        return [(int(line.start_s[0]) * 1_000_000, int(line.cycle_end_s[-1]) * 1_000_000) for line in self.timelines]
