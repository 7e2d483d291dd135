"""State of meters as columns: a fold over facts (design §3.4), indexed by meter number."""

import dataclasses
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SLOTS = 16
"""Price buckets of one billing cycle; calendar.compile_timeline refuses more."""
NEVER = -1
"""Marks an instant, register or boot that has not been seen."""

Int64Column = NDArray[np.int64]

Range = tuple[int, int]
"""Sequence numbers from the first to the last, both included."""


@dataclasses.dataclass(slots=True)
class MeterStates:
    """What settling the next reading of each meter needs; every column has shape (n,), quantities (n, SLOTS)."""

    epoch: Int64Column
    first_at: Int64Column
    last_at: Int64Column
    """End of the newest live interval, epoch µs."""
    import_wh: Int64Column
    export_wh: Int64Column
    cycle_start: Int64Column
    """Start of the billing cycle that the quantities belong to, epoch µs."""
    quantities_wh: Int64Column
    cycle_export_wh: Int64Column
    boot_id: Int64Column
    seq_first: NDArray[np.uint64]
    """First sequence number from which on everything is durable up to `seq`; both are valid when `boot_id` is."""
    seq: NDArray[np.uint64]
    """Highest sequence number up to which there is no hole."""
    seq_read_at: Int64Column
    seq_pending: NDArray[np.object_]
    """Ranges apart from that one, a tuple of `Range`; None for nearly all."""

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return states of meters that have never been read."""

        def never() -> Int64Column:
            return np.full(size, NEVER, np.int64)

        return cls(
            epoch=np.zeros(size, np.int64),
            first_at=never(),
            last_at=never(),
            import_wh=never(),
            export_wh=never(),
            cycle_start=never(),
            quantities_wh=np.zeros((size, SLOTS), np.int64),
            cycle_export_wh=np.zeros(size, np.int64),
            boot_id=never(),
            seq_first=np.zeros(size, np.uint64),
            seq=np.zeros(size, np.uint64),
            seq_read_at=never(),
            seq_pending=np.full(size, None, object),
        )

    def take(self, rows: NDArray[Any]) -> "MeterStates":
        """Return a copy of some rows, to be changed freely."""
        return MeterStates(*(column[rows] for column in self._columns()))

    def put(self, rows: NDArray[Any], other: "MeterStates") -> None:
        """Replace some rows."""
        for mine, theirs in zip(self._columns(), other._columns(), strict=True):  # noqa: SLF001
            mine[rows] = theirs

    def grow(self, size: int) -> "MeterStates":
        """Return states with room for `size` meters, the present ones kept."""
        present = len(self.epoch)
        if size <= present:
            return self
        larger = MeterStates.empty(size)
        larger.put(np.arange(present), self)
        return larger

    def _columns(self) -> list[NDArray[Any]]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]
