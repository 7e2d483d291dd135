"""Which events of meters raise which alarms, and which end them (detectors T01-T03, F04-F07, Q04, Q06-Q09).

Codes are compared in lower case with ``_`` for ``-`` and ``.``. Words follow DLMS/COSEM's standard and fraud detection event logs
(Blue Book) as head-ends spell them; hexadecimal codes are those of SMETS2 (as a manufacturer's manual lists them), dotted ones
IEC 61968-9 end device event types: both as quoted in `reference/market_rules_and_control_room.md` §5c, not checked against
the standards themselves.
"""

RAISING: dict[str, tuple[str, ...]] = {
    "tamper": (
        "tamper", "cover_open", "cover_opened", "meter_cover_open", "meter_cover_opened", "terminal_cover_open",
        "terminal_cover_opened", "neutral_disturbance", "0x8f74", "0x8f76", "0x8f78", "0x8f3f",
    ),
    "magnetic_field": ("magnetic_field", "magnetic_tamper", "strong_dc_field", "strong_dc_field_detected", "0x8f75"),
    "reverse_energy": ("reverse_current", "reverse_energy", "incorrect_polarity", "0x81bb", "0x81b8"),
    "register_fault": ("register_fault", "measurement_system_error", "register_rollback"),
    "meter_hardware": (
        "watchdog", "watchdog_error", "nv_memory_error", "non_volatile_memory_error", "ram_error", "program_memory_error",
        "hardware_reset", "0x81b3", "0x81ae", "0x81b2", "0_11_3_215",
    ),
    "battery_low": ("battery_low", "replace_battery", "battery_voltage_low"),
    "phase_rotation": ("phase_rotation", "phase_rotation_changed", "wrong_phase_sequence"),
    "harmonics": ("harmonics", "thd_high", "bad_voltage_quality"),
    "sag_swell": ("sag", "swell", "voltage_sag", "voltage_swell", "0x808d", "0x8091"),
    "power_factor_low": ("power_factor_low", "0x8014"),
    "over_current": ("over_current", "overcurrent", "0x8010"),
    "outage": ("power_down", "power_fail", "power_lost", "outage", "0_26_38_85"),
}  # fmt: skip
"""By kind of alarm."""
CLEARING: dict[str, tuple[str, ...]] = {
    "tamper": ("tamper_cleared", "tamper_end", "cover_closed", "meter_cover_closed", "terminal_cover_closed"),
    "magnetic_field": ("magnetic_field_end", "strong_dc_field_no_more", "strong_dc_field_removed"),
    "reverse_energy": ("reverse_current_end", "reverse_energy_end"),
    "battery_low": ("battery_replaced", "battery_ok"),
    "phase_rotation": ("phase_rotation_restored",),
    "outage": ("power_up", "power_restored", "outage_restored", "0x8f36", "0_26_38_49"),
}
_MEANING = {
    **{word: (kind, True) for kind, words in RAISING.items() for word in words},
    **{word: (kind, False) for kind, words in CLEARING.items() for word in words},
}


def meaning_of(code: str) -> tuple[str, bool] | None:
    """Return the kind of alarm that an event is about and whether it raises it, or None when it is about none.

    Example:
        >>> meaning_of("Cover-Open"), meaning_of("cover_closed"), meaning_of("clock_set")
        (('tamper', True), ('tamper', False), None)
        >>> meaning_of("0.26.38.85")
        ('outage', True)
    """
    return _MEANING.get(code.lower().replace("-", "_").replace(".", "_"))
