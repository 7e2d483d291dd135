"""How one line of a running charge came about: line, tariff, intervals, readings, raw message (console guide §4, Bill)."""

import datetime as dt
from typing import Any

import psycopg

from console.chart import Bar, meter_chart
from console.figure import kilo_text
from console.words import Words
from metering.tariff import Tariff, TariffVersion
from storage.charge import ChargeLine, ChargeSoFar
from storage.query import fetch_newest_of_period, fetch_period_days
from storage.registry import Registry

READINGS_SHOWN = 4
AVERAGED_PART = 4
"""A day is marked as averaged when more than one part in so many of its energy is of long intervals."""
NO_GAPS = dt.timedelta(days=10_000)


def explain_line(
    conn: psycopg.Connection, registry: Registry, meter_no: int, charge: ChargeSoFar, number: int, words: Words
) -> dict[str, Any] | None:
    """Return the steps from a charge line down to its newest raw message, or None when there is no such line.

    Args:
        conn: Connection.
        registry: Master data that the charge was read with.
        meter_no: Number of the meter whose page this is.
        charge: Running charge; its intervals are read as of the same instant.
        number: Place of the line in the charge.
        words: Of the visitor's language.
    """
    if not 0 <= number < len(charge.lines):
        return None
    tariff = next(item for item in registry.prices.tariffs if item.tariff_id == charge.tariff_id)
    line = charge.lines[number]
    bucket = line.bucket
    start, end = charge.cycle_start, charge.read_at
    days = fetch_period_days(conn, meter_no, start, end, tariff.zone.key, bucket)
    rows = fetch_newest_of_period(conn, meter_no, start, end, bucket, READINGS_SHOWN)
    modulus_wh = int(registry.meters.modulus_wh[meter_no])
    whole_wh = sum(row["energy_wh"] for row in days)
    quantity_wh = int(line.quantity_kwh * 1000)
    is_alone = bucket is not None and sum(item.bucket == bucket for item in charge.lines) == 1
    return {
        "number": number,
        "line": line,
        "label": words.label(line.label),
        "unrounded": plain_decimal(line.amount_unrounded),
        "tariff": tariff,
        "version": _version_of(tariff, charge, bucket),
        "rule": _rule(tariff, charge, number, bucket, words),
        "intervals": sum(row["intervals"] for row in days),
        "long": sum(row["long"] for row in days),
        "high": sum(row["high"] for row in days),
        "late": sum(row["late"] for row in days),
        "whole_kwh": kilo_text(whole_wh, 3),
        "split_kwh": kilo_text(quantity_wh - whole_wh, 3) if is_alone and quantity_wh != whole_wh else "",
        "chart": _day_chart(days, charge, tariff, words) if days else "",
        "readings": [
            row
            | {"before_wh": (row["import_wh"] - row["energy_wh"]) % modulus_wh, "marks": words.quality(row["quality"])}
            for row in rows
        ],
    }


def plain_decimal(amount: Any) -> str:
    """Return a decimal without an exponent and without trailing zeros."""
    return f"{amount.normalize():f}"


def _version_of(tariff: Tariff, charge: ChargeSoFar, bucket: int | None) -> TariffVersion:
    if bucket is not None:
        return tariff.versions[tariff.buckets[bucket][0]]
    return tariff.versions[tariff.version_index_on(charge.cycle_start.astimezone(tariff.zone).date())]


def _rule(tariff: Tariff, charge: ChargeSoFar, number: int, bucket: int | None, words: Words) -> list[str]:
    """Return in words when the price of a line holds."""
    line, version = charge.lines[number], _version_of(tariff, charge, bucket)
    if bucket is not None:
        _, season, period = tariff.buckets[bucket]
        return _windows(version, season, period, words)
    if line.kind == "tier" and line.label.startswith("tier "):
        so_far = words.say("cycle_so_far", energy=kilo_text(charge.energy_wh, 3))
        return [_tier_range(version, tariff, charge, line, words), so_far]
    if line.kind != "fixed":
        return []
    return [words.per_day if version.fixed_per == "day" else words.per_cycle]


def _windows(version: TariffVersion, season: str, period: str, words: Words) -> list[str]:
    texts = []
    for window in version.windows:
        if window.period == period and season in window.seasons:
            hours = f"{_clock(window.start_minute)}–{_clock(window.end_minute)}"
            everyday = len(window.day_types) == 3
            texts.append(
                hours if everyday else f"{hours} ({', '.join(words.get(day, day) for day in sorted(window.day_types))})"
            )
    if period == version.rest_period:
        texts.append(words.rest_of_day)
    return [", ".join(texts)]


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _tier_range(version: TariffVersion, tariff: Tariff, charge: ChargeSoFar, line: ChargeLine, words: Words) -> str:
    first_day = charge.cycle_start.astimezone(tariff.zone).date()
    tiers = version.tiers[version.season_of(first_day)]
    place = int(line.label.removeprefix("tier ")) - 1
    low_wh = tiers[place - 1].up_to_wh if place else 0
    high_wh = tiers[place].up_to_wh
    if high_wh is None:
        return words.say("tier_above", low=kilo_text(low_wh, 0))
    return words.say("tier_range", low=kilo_text(low_wh, 0), high=kilo_text(high_wh, 0))


def _day_chart(days: list[dict[str, Any]], charge: ChargeSoFar, tariff: Tariff, words: Words) -> str:
    bars = [day_bars({**row, "export_energy_wh": 0}, tariff.zone, words)[0] for row in days]
    end = max(bars[-1].end, charge.cycle_start + dt.timedelta(days=1))
    return meter_chart(
        bars,
        [],
        charge.cycle_start,
        end,
        zone=tariff.zone,
        unit="kWh",
        sentence=words.say("by_day_sentence", days=len(days), high=f"{max(bar.value for bar in bars):,.2f}"),
        missing=words.missing,
        least_gap=NO_GAPS,
    )


def day_bars(row: dict[str, Any], zone: dt.tzinfo, words: Words) -> list[Bar]:
    """Return the bars of a local day, used and fed in, from midnight to midnight: 23, 24 or 25 hours."""
    start = dt.datetime.combine(row["day"], dt.time(), zone).astimezone(dt.UTC)
    end = dt.datetime.combine(row["day"] + dt.timedelta(days=1), dt.time(), zone).astimezone(dt.UTC)
    title = f"{row['day']:%m-%d} {kilo_text(row['energy_wh'], 3)} kWh"
    is_averaged = row["long_wh"] * AVERAGED_PART > row["energy_wh"]
    quality = "suspect" if row["high"] else "averaged" if is_averaged else "actual"
    bars = [Bar(start, end, row["energy_wh"] / 1000, quality, title)]
    if row["export_energy_wh"]:
        fed = f"{row['day']:%m-%d} {words.exported} {kilo_text(row['export_energy_wh'], 3)} kWh"
        bars.append(Bar(start, end, -row["export_energy_wh"] / 1000, "exported", fed))
    return bars
