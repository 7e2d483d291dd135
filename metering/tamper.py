"""Which events of meters mean tampering, and which end it (detector; pure).

Codes are compared in lower case with ``_`` for ``-`` and ``.``. The words follow the event names of DLMS/COSEM's fraud
detection log (Blue Book, standard event log: terminal cover, meter cover, strong DC field) as head-ends spell them.
"""

RAISING = frozenset(
    {
        "tamper",
        "cover_open",
        "cover_opened",
        "meter_cover_open",
        "meter_cover_opened",
        "terminal_cover_open",
        "terminal_cover_opened",
        "magnetic_field",
        "magnetic_tamper",
        "strong_dc_field",
        "strong_dc_field_detected",
        "reverse_current",
        "neutral_disturbance",
    }
)
CLEARING = frozenset(
    {
        "tamper_cleared",
        "tamper_end",
        "cover_closed",
        "meter_cover_closed",
        "terminal_cover_closed",
        "magnetic_field_end",
        "strong_dc_field_no_more",
        "strong_dc_field_removed",
    }
)


def tamper_change(code: str) -> bool | None:
    """Return True when an event raises a tamper alarm, False when it ends one, None when it is about something else.

    Example:
        >>> tamper_change("Cover-Open"), tamper_change("cover_closed"), tamper_change("clock_set")
        (True, False, None)
    """
    word = code.lower().replace("-", "_").replace(".", "_")
    if word in RAISING:
        return True
    return False if word in CLEARING else None
