"""How figures are written: one place, so that a page, the stream and a chart never write the same number two ways."""

import datetime as dt

MISSING = "–"
MEGAWATTS_FROM_W = 10_000_000
SECONDS_FROM_MS = 10_000


def power_text(power_w: float | None) -> tuple[str, str]:
    """Return a power and its unit.

    Example:
        >>> power_text(195_240), power_text(12_300_000), power_text(None)
        (('195.2', 'kW'), ('12.3', 'MW'), ('–', 'kW'))
    """
    if power_w is None:
        return MISSING, "kW"
    if abs(power_w) >= MEGAWATTS_FROM_W:
        return f"{power_w / 1e6:,.1f}", "MW"
    return f"{power_w / 1e3:,.1f}", "kW"


def kilo_text(value: float | None, digits: int) -> str:
    """Return thousandths with so many decimals: W as kW, Wh as kWh."""
    return MISSING if value is None else f"{value / 1000:,.{digits}f}"


def count_text(count: int | None) -> str:
    """Return a count with its thousands set apart."""
    return MISSING if count is None else f"{count:,}"


def rate_text(rate: float | None) -> str:
    """Return a rate per second: one decimal below a hundred."""
    if rate is None:
        return MISSING
    return f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"


def share_text(part: int | None, whole: int) -> str:
    """Return a share in per cent, never rounded up to the whole.

    Example:
        >>> share_text(499, 500), share_text(99_999, 100_000), share_text(5, 5), share_text(0, 0)
        ('99.8', '99.9', '100', '–')
    """
    if part is None or not whole:
        return MISSING
    return "100" if part >= whole else f"{part * 1000 // whole / 10:.1f}"


def delay_text(p50_ms: int | None, largest_ms: int) -> tuple[str, str]:
    """Return a median and a largest delay, and their unit.

    Example:
        >>> delay_text(84, 312), delay_text(21_226, 72_011), delay_text(None, 0)
        (('84 / 312', 'ms'), ('21.2 / 72.0', 's'), ('–', 'ms'))
    """
    if p50_ms is None:
        return MISSING, "ms"
    if largest_ms >= SECONDS_FROM_MS:
        return f"{p50_ms / 1000:,.1f} / {largest_ms / 1000:,.1f}", "s"
    return f"{p50_ms:,} / {largest_ms:,}", "ms"


def money_text(amount: int, scale: int) -> str:
    """Return an amount of money as text with two decimals, halves rounded away from zero, from its units of 10^-scale.

    Example:
        >>> money_text(12_345_600, 5), money_text(5, 3), money_text(-5, 0), money_text(145_977, 2)
        ('123.46', '0.01', '-5.00', '1,459.77')
    """
    sign = "-" if amount < 0 else ""
    cents = (abs(amount) * 100 * 2 + 10**scale) // (2 * 10**scale)
    return f"{sign}{cents // 100:,}.{cents % 100:02d}"


def span_text(seconds: float) -> str:
    """Return a length of time as the pages write ages.

    Example:
        >>> span_text(12), span_text(61), span_text(3700), span_text(200_000)
        ('12 s', '1 min', '1 h', '2 d')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 172_800 else f"{whole // 86_400} d"


def moment_text(moment: dt.datetime, zone: dt.tzinfo, now: dt.datetime) -> str:
    """Return a local time, with its day unless that is today, and its year unless that is this one."""
    local, today = moment.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%m-%d %H:%M:%S}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M}"


def epoch_ms(moment: dt.datetime) -> int:
    """Return an instant as the browser's clock counts."""
    return int(moment.timestamp() * 1000)
