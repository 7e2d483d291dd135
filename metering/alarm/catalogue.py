"""The kinds of alarms: who raises them, how bad and how urgent they are, and their timing.

Sources: `reference/market_rules_and_control_room.md` §5c (detectors T, N, F, Q) and §6 (ISA-18.2, EEMUA 191). Priority follows
from consequence × urgency, as EEMUA 191 advises, so that about one alarm in twenty is of the highest two.
"""

import dataclasses

PRIORITY = {(3, 3): 1, (3, 2): 1, (2, 3): 2, (3, 1): 2, (2, 2): 2, (1, 3): 3, (2, 1): 3, (1, 2): 3, (1, 1): 4}
"""By consequence and urgency, each 1 (least) to 3; priority 1 is the highest."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of alarm."""

    kind: str
    sources: tuple[str, ...]
    """Detectors and rules that raise it: T01, F02, V20, ..."""
    consequence: int
    """1 to 3: of doing nothing."""
    urgency: int
    """1 to 3: how soon someone must act."""
    on_delay_s: int = 0
    """The condition must hold so long before there is an alarm."""
    off_delay_s: int = 0
    """It must be gone so long before the alarm returns to normal."""
    clear_after_s: int | None = None
    """An event without an end: the alarm returns by itself so long after the last one."""
    re_alarm_s: int | None = None
    """An acknowledged alarm that still stands asks again after so long."""
    is_latched: bool = False
    """It returns to normal only by a person."""
    shelve_max_s: int = 8 * 3600

    @property
    def priority(self) -> int:
        """Return 1 (highest) to 4."""
        return PRIORITY[self.consequence, self.urgency]


_HOUR, _DAY = 3600, 86_400
_ALL = (
    # theft and revenue
    Kind("tamper", ("T01",), 2, 3, clear_after_s=_HOUR),
    Kind("magnetic_field", ("T02",), 2, 3, clear_after_s=_HOUR),
    Kind("reverse_energy", ("T03",), 2, 1, clear_after_s=_DAY),
    Kind("use_on_closed_account", ("T04", "V25"), 2, 1, clear_after_s=2 * _DAY),
    Kind("lost_voltage", ("T05",), 2, 2, on_delay_s=60, off_delay_s=60),
    Kind("lost_current", ("T06",), 2, 2, on_delay_s=60, off_delay_s=60),
    Kind("current_without_voltage", ("T07",), 2, 2, on_delay_s=60, off_delay_s=60),
    Kind("bypass_current", ("T08",), 2, 2, on_delay_s=1800, off_delay_s=300),
    Kind("theft_drop", ("T09",), 2, 1, re_alarm_s=14 * _DAY),
    Kind("theft_tamper_and_drop", ("T10",), 3, 1, re_alarm_s=14 * _DAY),
    Kind("theft_pattern", ("T11",), 2, 1, re_alarm_s=14 * _DAY),
    Kind("theft_suspicion", ("T13",), 2, 1, re_alarm_s=14 * _DAY),
    # feeder
    Kind("feeder_residual", ("N01", "N02"), 2, 1, re_alarm_s=14 * _DAY),
    Kind("feeder_negative_loss", ("N03",), 1, 1),
    # faults and data
    Kind("silent", ("F01",), 1, 2),
    Kind("gateway_silent", ("F02",), 2, 2),
    Kind("clock_drift", ("F03", "V07"), 1, 1),
    Kind("register_fault", ("F04", "V12"), 2, 2, clear_after_s=_DAY),
    Kind("register_stuck", ("F04", "V23"), 2, 1),
    Kind("meter_hardware", ("F05",), 1, 2, clear_after_s=_DAY),
    Kind("battery_low", ("F06",), 1, 1, is_latched=True),
    Kind("phase_rotation", ("F07",), 2, 1, is_latched=True),
    Kind("sum_check", ("F08", "V18"), 1, 1),
    Kind("late_data", ("F09",), 1, 1, off_delay_s=600),
    Kind("refusals", ("F10",), 1, 2, off_delay_s=600),
    # days of use
    Kind("physical_maximum", ("V15",), 2, 1, clear_after_s=_DAY),
    Kind("high_low_use", ("V20",), 1, 1),
    Kind("zero_use", ("V21",), 1, 1),
    Kind("scale_shift", ("V26",), 2, 1),
    Kind("estimate_share", ("V27",), 1, 1),
    Kind("check_meter_difference", ("V28",), 1, 1),
    # power quality
    Kind("voltage_out_of_range", ("Q01", "Q02"), 2, 2, on_delay_s=60, off_delay_s=120),
    Kind("voltage_unbalance", ("Q03",), 1, 1, on_delay_s=600, off_delay_s=600),
    Kind("harmonics", ("Q04",), 1, 1, clear_after_s=_DAY),
    Kind("frequency", ("Q05",), 3, 3, on_delay_s=10, off_delay_s=60),
    Kind("sag_swell", ("Q06",), 1, 1, clear_after_s=_HOUR),
    Kind("power_factor_low", ("Q07",), 1, 1, clear_after_s=_DAY),
    Kind("over_current", ("Q08",), 2, 2, clear_after_s=_HOUR),
    Kind("outage", ("Q09",), 2, 3, on_delay_s=180),
)
KINDS: dict[str, Kind] = {item.kind: item for item in _ALL}
"""By name."""
