"""What measured values say of a meter while it reports: lost voltage, voltage out of range, unbalance, a register that stands.

Detectors T05, T06, T07, Q01 to Q03, F03 and F04 over columns, with a small exact state per meter: the mask of what holds, and the
energy that a meter has reported as power since its register last moved. Readings without values cost one test a frame.
"""

import dataclasses
import enum
import struct

import numpy as np
from numpy.typing import NDArray

from metering.fact import Columns
from metering.state import Int64Column

Floats = NDArray[np.float64]

LOST_SHARE, NO_VOLTAGE_SHARE = 0.78, 0.10
"""Of the nominal voltage: below the first a phase is lost (T05; a meter maker's page, not checked), below the other it is dead."""
LOST_CURRENT_SHARE = 0.05
"""T05: current of the basic current from which a lost voltage is a loss of energy."""
DEAD_VOLTAGE_CURRENT_A = 2.0
"""T07: more current than this on a dead phase (Echelon manual)."""
MISSING_CURRENT_SHARE = 0.005
"""T06: less current than this on one phase while every other carries the basic current: a home with one idle phase is none."""
UNBALANCE_SHARE = 0.02
"""Q03: largest deviation from the mean of three phases."""
CLOCK_AHEAD_US = 180_000_000
"""F03: a reading three minutes ahead of its reception (UBP); a late one may be only late."""
STUCK_SAMPLES = 6
STEP_MAX_US = 3_600_000_000
"""Power is taken to have lasted this long at most since the reading before."""
US_PER_HOUR = 3_600_000_000
MILLI = 1000


class Holds(enum.IntFlag):
    """Conditions of a meter, a bit set."""

    LOST_VOLTAGE = 1
    CURRENT_WITHOUT_VOLTAGE = 2
    LOST_CURRENT = 4
    VOLTAGE_OUT_OF_RANGE = 8
    UNBALANCE = 16
    CLOCK_AHEAD = 32
    STUCK = 64


KIND_OF = {
    Holds.LOST_VOLTAGE: "lost_voltage",
    Holds.CURRENT_WITHOUT_VOLTAGE: "current_without_voltage",
    Holds.LOST_CURRENT: "lost_current",
    Holds.VOLTAGE_OUT_OF_RANGE: "voltage_out_of_range",
    Holds.UNBALANCE: "voltage_unbalance",
    Holds.CLOCK_AHEAD: "clock_drift",
    Holds.STUCK: "register_stuck",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What values are held against."""

    nominal_voltage_v: float = 230.0
    low_percent: float = 10.0
    high_percent: float = 7.0
    """GB/T 12325-2008 for single phase: +7 % and -10 %, as seen in code; EN 50160 has ±10 %."""
    basic_current_a: float = 5.0
    stuck_wh: int = 50
    """Energy reported as power without the register moving; 2,000 Wh where it shows whole kWh."""


_BYTES_A_METER = struct.calcsize("<iiqqqh")


@dataclasses.dataclass
class Electrical:
    """What holds of the meters of a partition; every column has shape (meters,)."""

    mask: NDArray[np.int32]
    read_at: Int64Column
    """Of the newest reading that had values, epoch µs; 0: none."""
    import_wh: Int64Column
    unmoved_mwh: Int64Column
    """Energy by the reported power since the register last moved, mWh."""
    samples: NDArray[np.int16]

    @classmethod
    def empty(cls, size: int) -> "Electrical":
        """Return a state in which nothing holds."""
        zeros = np.zeros(size, np.int64)
        return cls(np.zeros(size, np.int32), zeros, zeros.copy(), zeros.copy(), np.zeros(size, np.int16))

    def grow(self, size: int) -> None:
        """Make room for more meters."""
        more = size - len(self.mask)
        if more > 0:
            for field in dataclasses.fields(self):
                column = getattr(self, field.name)
                setattr(self, field.name, np.concatenate([column, np.zeros(more, column.dtype)]))

    def to_bytes(self) -> bytes:
        """Return the state as bytes: only meters of which there is any."""
        rows = np.flatnonzero(self.read_at)
        columns = [getattr(self, field.name)[rows] for field in dataclasses.fields(self)]
        parts = [rows.astype("<i4"), *(column.astype(column.dtype.newbyteorder("<")) for column in columns)]
        return struct.pack("<q", len(rows)) + b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Electrical":
        """Return the state that `to_bytes` gave, for at least `size` meters."""
        (count,) = struct.unpack_from("<q", data)
        if len(data) != 8 + count * _BYTES_A_METER:
            raise ValueError(f"{len(data)} bytes are no state of {count} meters")
        rows = np.frombuffer(data, "<i4", count, 8)
        state = cls.empty(max(size, int(rows.max(initial=-1)) + 1))
        at = 8 + 4 * count
        for field in dataclasses.fields(state):
            column = getattr(state, field.name)
            column[rows] = np.frombuffer(data, column.dtype.newbyteorder("<"), count, at)
            at += count * column.dtype.itemsize
        return state


def take(state: Electrical, readings: Columns, limits: Limits) -> list[tuple[int, int, Holds, bool]]:
    """Take readings in order of arrival into the state; return what began or ended to hold.

    A meter's readings are taken one after the other, whatever frames they came in; one that is not newer than the last is left
    out.

    Args:
        state: Changed in place; it has room for every meter.
        readings: `meter_no`, `read_at`, `received_at` (epoch µs), `import_wh` and the electrical columns, missing ones NaN.
        limits: What values are held against.

    Returns:
        Row of the readings, meter number, condition, and whether it holds.
    """
    has_values = ~(np.isnan(readings["voltage_v1"]) & np.isnan(readings["power_w"]))
    ahead = readings["read_at"] > readings["received_at"] + CLOCK_AHEAD_US
    rows = np.flatnonzero(has_values | ahead | (state.mask[readings["meter_no"]] & Holds.CLOCK_AHEAD > 0))
    changes: list[tuple[int, int, Holds, bool]] = []
    while len(rows):
        meter_no = readings["meter_no"][rows]
        first = np.zeros(len(rows), np.bool_)
        first[np.unique(meter_no, return_index=True)[1]] = True
        changes += _take_round(state, readings, rows[first], limits)
        rows = rows[~first]
    return changes


def _take_round(
    state: Electrical, readings: Columns, rows: Int64Column, limits: Limits
) -> list[tuple[int, int, Holds, bool]]:
    """Take at most one reading a meter."""
    rows = rows[readings["read_at"][rows] > state.read_at[readings["meter_no"][rows]]]
    meter_no = readings["meter_no"][rows]
    now = holding(readings, rows, limits)
    stuck = _advance(state, readings, rows, limits)
    now |= np.where(stuck, int(Holds.STUCK), 0).astype(np.int32)
    changed = now ^ state.mask[meter_no]
    state.mask[meter_no] = now
    state.read_at[meter_no] = readings["read_at"][rows]
    state.import_wh[meter_no] = readings["import_wh"][rows]
    found = []
    for place in np.flatnonzero(changed).tolist():
        found += [
            (int(rows[place]), int(meter_no[place]), flag, bool(now[place] & flag))
            for flag in Holds(int(changed[place]))
        ]
    return found


def _advance(state: Electrical, readings: Columns, rows: Int64Column, limits: Limits) -> NDArray[np.bool_]:
    """Add up reported energy of registers that did not move; return where that is too much."""
    meter_no = readings["meter_no"][rows]
    power_w = np.nan_to_num(readings["power_w"][rows].astype(np.float64))
    known = state.read_at[meter_no] > 0
    step_us = np.where(known, np.minimum(readings["read_at"][rows] - state.read_at[meter_no], STEP_MAX_US), 0)
    still = known & (readings["import_wh"][rows] == state.import_wh[meter_no]) & (power_w > 0)
    grown = np.rint(np.minimum(power_w, 1e9) * (step_us / US_PER_HOUR) * MILLI).astype(np.int64)
    state.unmoved_mwh[meter_no] = np.where(still, state.unmoved_mwh[meter_no] + grown, 0)
    state.samples[meter_no] = np.where(still, np.minimum(state.samples[meter_no] + 1, 30_000), 0)
    whole_kwh = (readings["import_wh"][rows] % 1000 == 0) & (readings["import_wh"][rows] > 0)
    limit_mwh = np.where(whole_kwh, max(limits.stuck_wh, 2000), limits.stuck_wh) * MILLI
    reached = (state.unmoved_mwh[meter_no] >= limit_mwh) & (state.samples[meter_no] >= STUCK_SAMPLES)
    return np.asarray(reached)


def holding(readings: Columns, rows: Int64Column, limits: Limits) -> NDArray[np.int32]:
    """Return what holds of single readings, a mask of `Holds` each."""
    volts = np.stack([readings[f"voltage_v{phase}"][rows] for phase in (1, 2, 3)]).astype(np.float64)
    amperes = np.stack([readings[f"current_a{phase}"][rows] for phase in (1, 2, 3)]).astype(np.float64)
    nominal = limits.nominal_voltage_v
    with np.errstate(invalid="ignore"):
        dead = volts < NO_VOLTAGE_SHARE * nominal
        lost = (volts < LOST_SHARE * nominal) & (amperes >= LOST_CURRENT_SHARE * limits.basic_current_a)
        live_dead = dead & (amperes > DEAD_VOLTAGE_CURRENT_A)
        low, high = 1 - limits.low_percent / 100, 1 + limits.high_percent / 100
        out = (volts < low * nominal) | (volts > high * nominal)
        present = volts > 0.6 * nominal
        idle = present & (amperes < MISSING_CURRENT_SHARE * limits.basic_current_a)
        others = (present & (amperes >= limits.basic_current_a)).sum(axis=0) == 2
        mean = volts.mean(axis=0)  # NaN unless there are three phases
        unbalanced = (np.abs(volts - mean).max(axis=0) > UNBALANCE_SHARE * mean) & (volts >= LOST_SHARE * nominal).all(
            axis=0
        )
    ahead = readings["read_at"][rows] > readings["received_at"][rows] + CLOCK_AHEAD_US
    flags = {
        Holds.LOST_VOLTAGE: (lost & ~live_dead).any(axis=0),
        Holds.CURRENT_WITHOUT_VOLTAGE: live_dead.any(axis=0),
        Holds.LOST_CURRENT: idle.any(axis=0) & others,
        Holds.VOLTAGE_OUT_OF_RANGE: (out & ~lost & ~live_dead).any(axis=0),
        Holds.UNBALANCE: unbalanced,
        Holds.CLOCK_AHEAD: ahead,
    }
    mask = np.zeros(len(rows), np.int32)
    for flag, where in flags.items():
        mask |= np.where(where, int(flag), 0).astype(np.int32)
    return mask


def said_of(readings: Columns, row: int, flag: Holds, limits: Limits) -> tuple[str, float | None, float | None]:
    """Return what people read of a condition, with the value and the limit that it is held against."""
    nominal = limits.nominal_voltage_v
    volts = [float(readings[f"voltage_v{phase}"][row]) for phase in (1, 2, 3)]
    known = [value for value in volts if not np.isnan(value)]
    amperes = [float(readings[f"current_a{phase}"][row]) for phase in (1, 2, 3)]
    shown = " / ".join(f"{value:.1f} V" for value in known)
    if flag == Holds.CLOCK_AHEAD:
        ahead_s = (int(readings["read_at"][row]) - int(readings["received_at"][row])) / 1e6
        return f"its clock is {ahead_s:.0f} s ahead", ahead_s, CLOCK_AHEAD_US / 1e6
    if flag == Holds.STUCK:
        power_w = float(readings["power_w"][row])
        return f"reports {power_w:.0f} W, but the register stands at {int(readings['import_wh'][row])} Wh", power_w, 0.0
    if flag == Holds.VOLTAGE_OUT_OF_RANGE and known:
        worst = max(known, key=lambda value: abs(value - nominal))
        limit = nominal * (1 + limits.high_percent / 100 if worst > nominal else 1 - limits.low_percent / 100)
        return f"{shown}, limit {limit:.1f} V", worst, round(limit, 1)
    if flag in (Holds.LOST_VOLTAGE, Holds.CURRENT_WITHOUT_VOLTAGE) and known:
        limit = nominal * (LOST_SHARE if flag == Holds.LOST_VOLTAGE else NO_VOLTAGE_SHARE)
        flow = " / ".join(f"{value:.2f} A" for value in amperes if not np.isnan(value))
        return f"{shown} with {flow}", min(known), round(limit, 1)
    flow = " / ".join(f"{value:.2f} A" for value in amperes if not np.isnan(value))
    return f"{shown}; {flow}".strip("; "), None, None
