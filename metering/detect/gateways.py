"""Through which gateway each meter was heard last, and whether a gateway is silent (detector F02)."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NONE = -1
MEMBERS_MIN = 3
"""A gateway of fewer meters cannot be told from its meters."""
SILENT_PERCENT_MIN = 80


def is_silent(members: int, silent: int) -> bool:
    """Return whether so many silent ones of so many meters are the gateway's silence."""
    return members >= MEMBERS_MIN and silent * 100 >= members * SILENT_PERCENT_MIN


class Gateways:
    """The gateway of each meter of a partition."""

    def __init__(self, size: int) -> None:
        """Begin with none."""
        self.names: list[str] = []
        self._number_of: dict[str, int] = {}
        self.of_meter: NDArray[np.int32] = np.full(size, NONE, np.int32)
        self.told: tuple[bytes, ...] = ()
        """The counts that were committed last, and what stood then; not kept."""

    def grow(self, size: int) -> None:
        """Make room for more meters."""
        more = size - len(self.of_meter)
        if more > 0:
            self.of_meter = np.concatenate([self.of_meter, np.full(more, NONE, np.int32)])

    def hear(self, meter_no: NDArray[np.int64], gateway_id: pa.Array) -> None:
        """Note through which gateways meters were heard; one that comes by itself belongs to none."""
        if gateway_id.null_count == len(gateway_id):
            self.of_meter[meter_no] = NONE
            return
        coded = pc.dictionary_encode(gateway_id)
        numbers = np.array([self._number(name) for name in coded.dictionary.to_pylist()], np.int32)
        indices = pc.fill_null(coded.indices, -1).to_numpy()
        self.of_meter[meter_no] = np.where(indices < 0, NONE, numbers[indices])

    def _number(self, name: str) -> int:
        number = self._number_of.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number

    def counts(self, silent: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return members and silent members of each gateway, shape (gateways,)."""
        rows = np.flatnonzero(self.of_meter[: len(silent)] != NONE)
        of, size = self.of_meter[rows], len(self.names)
        return np.bincount(of, minlength=size), np.bincount(of[silent[rows]], minlength=size)

    def members(self, number: int) -> NDArray[np.int64]:
        """Return the meters of a gateway."""
        return np.flatnonzero(self.of_meter == number)

    def to_bytes(self) -> bytes:
        """Return the state as bytes."""
        rows = np.flatnonzero(self.of_meter != NONE)
        head = json.dumps({"names": self.names, "meters": len(rows)}).encode()
        return (
            len(head).to_bytes(4, "little")
            + head
            + rows.astype("<i4").tobytes()
            + self.of_meter[rows].astype("<i4").tobytes()
        )

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Gateways":
        """Return the state that `to_bytes` gave, for at least `size` meters."""
        start = 4 + int.from_bytes(data[:4], "little")
        head = json.loads(data[4:start])
        count, names = int(head["meters"]), list(head["names"])
        rows = np.frombuffer(data, "<i4", count, start)
        state = cls(max(size, int(rows.max(initial=-1)) + 1))
        state._take_names(names)
        state.of_meter[rows] = np.frombuffer(data, "<i4", count, start + 4 * count)
        return state

    def _take_names(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._number_of = {name: number for number, name in enumerate(names)}
