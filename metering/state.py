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

KEY_BITS = 5
"""Low bits of a cycle key: how many of the first slots are energy; the rest are peaks of demand."""

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
    cycle_key: Int64Column
    """Price structure that the quantities are of (`metering.cycle_shape`); 0: they are none's, and slot 0 has the energy."""
    quantities_wh: Int64Column
    """Energy by price bucket (and tier, where these are filled in order of time); from the top down, peaks of demand."""
    window_start: Int64Column
    """Start of the demand window under way, epoch µs."""
    window_wh: Int64Column
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
            cycle_key=np.zeros(size, np.int64),
            quantities_wh=np.zeros((size, SLOTS), np.int64),
            window_start=never(),
            window_wh=np.zeros(size, np.int64),
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

    def cycle_energy_wh(self) -> Int64Column:
        """Return the energy of each meter's cycle so far, Wh."""
        slots = np.where(self.cycle_key == 0, SLOTS, self.cycle_key & ((1 << KEY_BITS) - 1))
        if (slots == SLOTS).all():
            return self.quantities_wh.sum(axis=1)
        return np.where(np.arange(SLOTS) < slots[:, np.newaxis], self.quantities_wh, 0).sum(axis=1)

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
