"""The week of a tariff: which period each half hour of each kind of day is in. Pure."""

from metering.tariff import TariffVersion
from metering.tariff_check import LABELS

SLOT_MIN = 30


def week_grid(version: TariffVersion, season: str) -> dict[str, list[str]]:
    """Return the period of each half hour of each weekday and of a holiday."""
    return {
        name: [version.period_of(season, labels, minute) for minute in range(0, 1440, SLOT_MIN)]
        for name, labels in LABELS.items()
    }
