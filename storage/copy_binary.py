"""PostgreSQL's binary COPY format, encoded from columns without touching single rows.

Rows with the same nulls have the same layout, so each such group is one structured numpy array; the few groups of a batch
are written one after the other. Measured 3 to 4 times faster than row-wise adaptation (reference/timescaledb.md §4).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
PG_EPOCH_US = 946_684_800_000_000
"""2000-01-01T00:00:00Z, where PostgreSQL's timestamps begin, in epoch µs."""

PG_EPOCH_DAY = 10_957
"""2000-01-01, where PostgreSQL's dates begin, in days since 1970."""

_LAYOUTS = {
    "int4": (">i4", 4),
    "int8": (">i8", 8),
    "float4": (">f4", 4),
    "timestamptz": (">i8", 8),
    "date": (">i4", 4),
    "quarters": ("V384", 384),
}


_SHIFTS = {"timestamptz": PG_EPOCH_US, "date": PG_EPOCH_DAY}


def encode_copy(
    columns: Mapping[str, NDArray[Any]],
    types: Sequence[tuple[str, str]],
    nulls: Mapping[str, NDArray[np.bool_]],
) -> bytes:
    """Return rows in the format of ``COPY … FROM STDIN (FORMAT binary)``.

    Args:
        columns: Columns by name, all of shape (n,). Instants are epoch µs, dates days since 1970, quarters a bytea of
            96 integers as ``V384``.
        types: Name and type of each column in the order of the COPY; types are the keys of `_LAYOUTS`.
        nulls: For columns that may be null, where they are.
    """
    masks = [(name, nulls[name]) for name, _ in types if name in nulls]
    count = len(columns[types[0][0]])
    pattern = np.zeros(count, np.int64)
    for bit, (_, mask) in enumerate(masks):
        pattern |= mask.astype(np.int64) << bit
    parts = [HEADER]
    for value in np.unique(pattern).tolist():
        absent = {name for bit, (name, _) in enumerate(masks) if value >> bit & 1}
        rows = slice(None) if not masks or (pattern == value).all() else pattern == value
        parts.append(_encode_group(columns, types, absent, rows))
    parts.append(TRAILER)
    return b"".join(parts)


def _encode_group(
    columns: Mapping[str, NDArray[Any]],
    types: Sequence[tuple[str, str]],
    absent: set[str],
    rows: Any,
) -> bytes:
    fields: list[tuple[str, str]] = [("count", ">i2")]
    for name, kind in types:
        fields.append((f"{name} length", ">i4"))
        if name not in absent:
            fields.append((name, _LAYOUTS[kind][0]))
    first = columns[types[0][0]][rows]
    data = np.empty(len(first), np.dtype(fields))
    data["count"] = len(types)
    for name, kind in types:
        data[f"{name} length"] = -1 if name in absent else _LAYOUTS[kind][1]
        if name not in absent:
            values = columns[name][rows]
            data[name] = values - _SHIFTS[kind] if kind in _SHIFTS else values
    return data.tobytes()
