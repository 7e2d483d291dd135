"""Quality flags of a fact, a bit set."""

import enum


class Quality(enum.IntFlag):
    """What is to be known about an interval before trusting its shape; 0 is a plain actual value."""

    ACTUAL = 0
    OPENING = 1
    """First reading of a register epoch: it has no interval, and no energy."""
    STRADDLING = 2
    """The interval crosses a price, billing-cycle or tariff-version boundary; its energy was split evenly over time."""
    ROLLOVER = 4
    """The register passed its modulus inside the interval."""
    LATE = 8
    """The reading arrived after a later one was settled."""
    LONG = 16
    """The interval is more than 1.5 times the meter's own: readings are missing, energy is not."""
    HIGH = 32
    """The mean power exceeds the rated power of the service."""

    @property
    def words(self) -> list[str]:
        """Return the flags as words, `actual` when there are none."""
        return [str(flag.name).lower() for flag in self] or ["actual"]
