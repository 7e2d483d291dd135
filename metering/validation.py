"""Checks of single readings as columns; each gives a mask of what it refuses (V-rules to come behind the same seam)."""

import numpy as np
from numpy.typing import NDArray

from metering.fact import Columns
from metering.state import Int64Column
from schemas.frame import ELECTRICAL
from schemas.reject import RejectCode

DAY_US = 86_400_000_000
MEASURE_MAX = 1e12
"""No voltage, current, power or frequency of a service comes near it; beyond it a number is rubbish."""


def refuse_impossible_time(
    read_at: Int64Column, received_at: Int64Column, future_max_s: int, past_max_days: int
) -> NDArray[np.bool_]:
    """Return readings dated too far after they were received, or too long before.

    Args:
        read_at: Shape (n,), epoch µs.
        received_at: Shape (n,), epoch µs.
        future_max_s: How far a meter's clock may be ahead.
        past_max_days: How old a reading may be.
    """
    ahead = read_at > received_at + future_max_s * 1_000_000
    return ahead | (read_at < received_at - past_max_days * DAY_US)


def refuse_out_of_range(readings: Columns, modulus_wh: Int64Column) -> NDArray[np.bool_]:
    """Return readings whose registers the meter cannot show, or whose measures are no numbers of this world."""
    refused = (readings["import_wh"] >= modulus_wh) | (readings["export_wh"] >= modulus_wh)
    for name in ELECTRICAL:
        refused |= np.abs(readings[name]) > MEASURE_MAX
    return refused


def refusals(readings: Columns, modulus_wh: Int64Column, future_max_s: int, past_max_days: int) -> NDArray[np.int16]:
    """Return the code of the first check that refuses each reading, or 0."""
    code = np.zeros(len(readings["read_at"]), np.int16)
    code[refuse_out_of_range(readings, modulus_wh)] = RejectCode.OUT_OF_RANGE
    late = refuse_impossible_time(readings["read_at"], readings["received_at"], future_max_s, past_max_days)
    code[late] = RejectCode.IMPOSSIBLE_TIME
    return code
