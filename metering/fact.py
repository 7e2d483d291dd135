"""Facts as columns: one row a reading, reading and ledger entry in one (design §3.4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.frame import ELECTRICAL

Columns = dict[str, NDArray[Any]]
"""Columns of one length by name. In integer columns that may be null, -1 is null; in float columns NaN is."""

INT_NULLABLE = ("export_wh", "import_varh", "export_varh")
LINEAGE = ("raw_partition", "raw_offset", "raw_index")
CARRIED = ("import_varh", "export_varh", *ELECTRICAL, *LINEAGE)
"""Columns that a fact takes from its reading as they are."""
FACT_COLUMNS = (
    "meter_no",
    "epoch",
    "start_at",
    "end_at",
    "revision",
    "quality",
    "energy_wh",
    "import_wh",
    "export_energy_wh",
    "export_wh",
    "import_varh",
    "export_varh",
    *ELECTRICAL,
    "tariff_version",
    "period",
    "boot_id",
    "seq",
    "raw_partition",
    "raw_index",
    "raw_offset",
    "frame_offset",
    "frame_partition",
)
MIXED_PERIOD = -1
"""Period of a fact whose interval lies in several price buckets."""


def columns_from_rows(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return fact columns of single rows, as the slow path makes them."""
    return {
        name: np.array([row[name] for row in rows], np.float32 if name in ELECTRICAL else np.int64)
        for name in FACT_COLUMNS
    }


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Return one set of columns from several of the same names."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
