"""A meter that is silent for three intervals (detector; pure).

Silence is counted on an observed clock: the time during which the bridge was listening, told by its heartbeats. While
nobody listened no meter is silent; when the bridge comes back the count goes on where it stood.
"""

import dataclasses
import struct

import numpy as np
from numpy.typing import NDArray

STEP_MAX_US = 30_000_000
"""A longer time between two heartbeats was not observed."""
NEVER_SEEN = -1
_HEAD = struct.Struct("<qqq")


@dataclasses.dataclass
class Silence:
    """When each meter of a partition was last heard, on the observed clock."""

    observed_us: int
    watermark_us: int
    seen_at_us: NDArray[np.int64]
    """Shape (meters,), observed µs; NEVER_SEEN for those not heard yet."""

    @classmethod
    def empty(cls, size: int) -> "Silence":
        """Return a state that has heard nobody."""
        return cls(0, 0, np.full(size, NEVER_SEEN, np.int64))

    def grow(self, size: int) -> None:
        """Make room for more meters."""
        more = size - len(self.seen_at_us)
        if more > 0:
            self.seen_at_us = np.concatenate([self.seen_at_us, np.full(more, NEVER_SEEN, np.int64)])

    def hear(self, meter_no: NDArray[np.int64]) -> None:
        """Note that readings of these meters came, whatever they say."""
        self.seen_at_us[meter_no] = self.observed_us

    def tick(self, watermark_us: int) -> None:
        """Move the observed clock by a heartbeat of the bridge, epoch µs."""
        if self.watermark_us:
            step = watermark_us - self.watermark_us
            self.observed_us += min(max(step, 0), STEP_MAX_US)
        self.watermark_us = max(self.watermark_us, watermark_us)

    def silent(self, interval_s: NDArray[np.int64], intervals: int) -> NDArray[np.bool_]:
        """Return which meters were not heard for longer than so many of their intervals, shape (meters,)."""
        limit_us = interval_s[: len(self.seen_at_us)] * (intervals * 1_000_000)
        return (self.seen_at_us != NEVER_SEEN) & (self.observed_us - self.seen_at_us > limit_us)

    def to_bytes(self) -> bytes:
        """Return the state as bytes: only meters that were heard."""
        heard = np.flatnonzero(self.seen_at_us != NEVER_SEEN)
        head = _HEAD.pack(self.observed_us, self.watermark_us, len(heard))
        return head + heard.astype("<i4").tobytes() + self.seen_at_us[heard].astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Silence":
        """Return the state that `to_bytes` gave, for at least `size` meters."""
        observed_us, watermark_us, count = _HEAD.unpack_from(data)
        heard = np.frombuffer(data, "<i4", count, _HEAD.size).astype(np.int64)
        seen = np.frombuffer(data, "<i8", count, _HEAD.size + 4 * count)
        state = cls.empty(max(size, int(heard.max(initial=-1)) + 1))
        state.seen_at_us[heard] = seen
        state.observed_us, state.watermark_us = observed_us, watermark_us
        return state
