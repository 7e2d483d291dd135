"""What the detectors of the stream know of one partition, as one value that is kept with the offset it stands for."""

import dataclasses
import struct

import numpy as np
from numpy.typing import NDArray

from metering.detect.electrical import Electrical
from metering.detect.gateways import Gateways
from metering.detect.silence import Silence

MAGIC = b"gridtally-detect-2\n"
_LENGTHS = struct.Struct("<qqq")


@dataclasses.dataclass
class Detectors:
    """State of one partition."""

    silence: Silence
    electrical: Electrical
    gateways: Gateways

    @classmethod
    def empty(cls, size: int) -> "Detectors":
        """Return a state that has heard nobody."""
        return cls(Silence.empty(size), Electrical.empty(size), Gateways(size))

    @property
    def size(self) -> int:
        """Return how many meters there is room for."""
        return len(self.silence.seen_at_us)

    def grow(self, size: int) -> None:
        """Make room for more meters."""
        self.silence.grow(size)
        self.electrical.grow(size)
        self.gateways.grow(size)

    def silent(self, interval_s: NDArray[np.int64], intervals: int) -> NDArray[np.bool_]:
        """Return which meters are silent, shape (meters,)."""
        return self.silence.silent(interval_s, intervals)

    def to_bytes(self) -> bytes:
        """Return the state as bytes."""
        parts = [self.silence.to_bytes(), self.electrical.to_bytes(), self.gateways.to_bytes()]
        return MAGIC + _LENGTHS.pack(*map(len, parts)) + b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Detectors":
        """Return the state that `to_bytes` gave, also one of before there was more than silence."""
        if not data.startswith(MAGIC):
            state = cls.empty(size)
            state.silence = Silence.from_bytes(data, size)
        else:
            at = len(MAGIC) + _LENGTHS.size
            parts = []
            for length in _LENGTHS.unpack_from(data, len(MAGIC)):
                parts.append(data[at : at + length])
                at += length
            state = cls(
                Silence.from_bytes(parts[0], size),
                Electrical.from_bytes(parts[1], size),
                Gateways.from_bytes(parts[2], size),
            )
        state.grow(max(state.size, len(state.electrical.mask), len(state.gateways.of_meter)))
        return state
