"""Cumulative registers: how far they advanced, and whether a fall is a rollover."""

from metering.state import Int64Column

US_PER_HOUR = 3_600_000_000
POWER_DEFAULT_W = 100_000
"""Taken for a service without a rated power when a rollover is judged."""
ROLLOVER_MARGIN = 2
"""A rollover may advance by this many times what the rated power allows: short overloads are real."""


def advance_wh(previous_wh: Int64Column, current_wh: Int64Column, modulus_wh: Int64Column) -> Int64Column:
    """Return how far each register advanced, in Wh, taking a fall for a rollover.

    Args:
        previous_wh: Last accepted register, shape (n,), Wh, ``0 <= x < modulus_wh``.
        current_wh: This register, shape (n,), Wh, same bounds.
        modulus_wh: First value each register cannot show, shape (n,), Wh.

    Returns:
        Shape (n,), Wh, in ``[0, modulus_wh)``. Whether a rollover is credible is `is_rollover`'s question.
    """
    return (current_wh - previous_wh) % modulus_wh


def is_rollover(advance: int, duration_us: int, rated_power_w: int) -> bool:
    """Return whether a register that fell may have passed its modulus instead.

    Args:
        advance: Wrapped difference, Wh.
        duration_us: Time between the readings, µs.
        rated_power_w: Of the service, W; 0 when it is not known.
    """
    power_w = rated_power_w or POWER_DEFAULT_W
    return advance * US_PER_HOUR <= ROLLOVER_MARGIN * power_w * duration_us
