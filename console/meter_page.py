"""A meter's page: its curve, its running charge, and how that came about down to the raw message."""

import csv
import datetime as dt
import io
from typing import Any

import numpy as np
import psycopg

from console.chart import Bar, Span, meter_chart, missing_spans
from console.explain import day_bars, explain_line, plain_decimal
from console.figure import kilo_text, span_text
from console.words import Words
from metering.calendar import Timeline
from metering.tariff import Tariff
from schemas.quality import Quality
from storage.charge import ChargeLine, ChargeSoFar, fetch_running_charge
from storage.query import (
    ROWS_MAX,
    fetch_alarm_subjects,
    fetch_bins,
    fetch_events,
    fetch_last_reading,
    fetch_newest_of_period,
    fetch_period_days,
    fetch_readings,
)
from storage.registry import Registry

DAYS_MAX = 31
NEWEST_SHOWN = 12
PLACES = {"sharp": 0, "peak": 1, "flat": 2, "valley": 3, "deep_valley": 3}
BINS_S = ((2, 900), (7, 3600))
"""Up to so many days bars are so many seconds wide; beyond, they are local days."""
STRIP_DAYS_MAX = 2
LATE_INTERVALS = 1.5
CSV_ROWS_MAX = 10 * ROWS_MAX


def meter_page(
    conn: psycopg.Connection, registry: Registry, info: dict[str, Any], asked: dict[str, Any], now: dt.datetime
) -> dict[str, Any]:
    """Return the values of the page's template.

    Args:
        conn: Connection.
        registry: Master data.
        info: Of the meter, as `storage.query.fetch_meter` gives them.
        asked: What the visitor asked for: `days`, `explain` (place of a charge line or None), `words`, and the `zone` of
            a meter without tariff.
        now: The time.
    """
    words: Words = asked["words"]
    days = asked["days"]
    found = tariff_of(registry, info)
    zone = found[0].zone if found else asked["zone"]
    last = fetch_last_reading(conn, info["meter_no"])
    charge = fetch_running_charge(conn, info["meter_id"], registry) if last else None
    number = asked["explain"] if asked["explain"] is not None else largest_line(charge)
    explained = explain_line(conn, registry, info["meter_no"], charge, number, words) if charge else None
    if last:
        now = max(now, last["end_at"])  # a meter's clock may be ahead
    long_ago = now - dt.timedelta(days=DAYS_MAX)
    newest = fetch_newest_of_period(conn, info["meter_no"], long_ago, now, None, NEWEST_SHOWN)
    bins = _bins(conn, info, days, now)
    return {
        "info": info,
        "tariff": found[0] if found else None,
        "days": days,
        "last": last,
        "last_marks": words.quality(last["quality"]) if last else "",
        "power_w": mean_power_w(last) if last else None,
        "charge": charge,
        "lines": _lines(charge, words) if charge else [],
        "explained": explained,
        "newest": [row | {"marks": words.quality(row["quality"])} for row in newest],
        "events": fetch_events(conn, info["meter_no"]),
        "alarms": fetch_alarm_subjects(conn, info["meter_id"]),
        "chart": _chart(conn, bins, (found, zone), info, (days, now), words),
        "zone": zone,
        "coverage": coverage(bins, now - dt.timedelta(days=days), now, info["interval_s"]),
        "plain": plain_decimal,
    }


def tariff_of(registry: Registry, info: dict[str, Any]) -> tuple[Tariff, Timeline] | None:
    """Return the tariff that a meter's service point has now, or None."""
    number = info["meter_no"]
    index = int(registry.meters.tariff_index[number]) if number < registry.meters.size else -1
    if index < 0 or index == registry.prices.none_index:
        return None
    return registry.prices.tariffs[index], registry.prices.timelines[index]


def largest_line(charge: ChargeSoFar | None) -> int:
    """Return the place of the line with the largest amount: what a visitor asks about first."""
    amounts = [line.amount_unrounded for line in charge.lines] if charge else []
    return amounts.index(max(amounts)) if amounts else 0


def mean_power_w(row: dict[str, Any]) -> float | None:
    """Return the mean net power of an interval, W, or None of one without length."""
    seconds = (row["end_at"] - row["start_at"]).total_seconds()
    return (row["energy_wh"] - row["export_energy_wh"]) * 3600 / seconds if seconds else None


def coverage(bins: list[dict[str, Any]], start: dt.datetime, end: dt.datetime, interval_s: int) -> dict[str, Any]:
    """Return how much of a time is covered by plain intervals, and what the rest is.

    Args:
        bins: Of `storage.query.fetch_bins`, sorted.
        start: Of the time.
        end: Now. A reading that is not late yet is not missing.
        interval_s: The meter's own.
    """
    if bins and end - bins[-1]["end_at"] <= dt.timedelta(seconds=LATE_INTERVALS * interval_s):
        end = bins[-1]["end_at"]
    whole_s = (end - start).total_seconds()
    covered_s = sum(min(row["covered_s"], (row["end_at"] - start).total_seconds()) for row in bins)
    odd = [row for row in bins if row["quality"] & (Quality.LONG | Quality.HIGH)]
    plain_s = covered_s - sum(min(row["covered_s"], (row["end_at"] - start).total_seconds()) for row in odd)
    return {
        "share": f"{max(0.0, 100 * plain_s / whole_s):.1f}",
        "intervals": sum(row["intervals"] for row in bins),
        "long": sum(1 for row in bins if row["quality"] & Quality.LONG),
        "high": sum(1 for row in bins if row["quality"] & Quality.HIGH),
        "missing": span_text(whole_s - covered_s) if whole_s - covered_s >= 1 else "",
    }


def _lines(charge: ChargeSoFar, words: Words) -> list[dict[str, Any]]:
    return [
        {
            "label": words.label(line.label),
            "quantity": _quantity(line),
            "price": str(line.price),
            "amount": f"{line.amount:,}",
            "unrounded": plain_decimal(line.amount_unrounded),
        }
        for line in charge.lines
    ]


def _quantity(line: ChargeLine) -> str:
    """Return what a line is the price of: energy in kWh, or another quantity with its unit."""
    if line.kind in ("energy", "tier"):
        return f"{line.quantity_kwh:,.3f}"
    return "" if line.kind in ("fixed", "tax") else f"{line.quantity:,.3f} {line.unit}"


# -- the curve -----------------------------------------------------------------------------------------------------


def _bins(conn: psycopg.Connection, info: dict[str, Any], days: int, now: dt.datetime) -> list[dict[str, Any]]:
    bin_s = next((bin_s for days_max, bin_s in BINS_S if days <= days_max), BINS_S[-1][1])
    return fetch_bins(conn, info["meter_no"], now - dt.timedelta(days=days), now, bin_s)


def _chart(
    conn: psycopg.Connection,
    bins: list[dict[str, Any]],
    place: tuple[tuple[Tariff, Timeline] | None, dt.tzinfo],
    info: dict[str, Any],
    span: tuple[int, dt.datetime],
    words: Words,
) -> str:
    found, zone = place
    days, now = span
    start, unit, strip = now - dt.timedelta(days=days), "kW", []
    if days <= BINS_S[-1][0]:
        bars = [bar for row in bins for bar in power_bars(row, zone, words)]
        if found and days <= STRIP_DAYS_MAX:
            strip = time_of_use(*found, (start, now), words)
    else:
        unit, start = "kWh", local_midnight(now, zone, 1 - days)
        rows = fetch_period_days(conn, info["meter_no"], start, now, getattr(zone, "key", "UTC"), None)
        bars = [bar for row in rows for bar in day_bars(row, zone, words)]
    end = max(now, bars[-1].end) if bars and unit == "kWh" else now
    least_gap = dt.timedelta(seconds=LATE_INTERVALS * info["interval_s"])
    gaps = missing_spans([(bar.start, bar.end) for bar in bars], start, end, least_gap)
    return meter_chart(
        bars,
        strip,
        start,
        end,
        zone=zone,
        unit=unit,
        sentence=words.say(
            "meter_sentence",
            meter=info["meter_id"],
            days=days,
            bars=len(bars),
            high=f"{max((bar.value for bar in bars), default=0.0):,.2f}",
            unit=unit,
            missing=span_text(sum((high - low).total_seconds() for low, high in gaps)),
        ),
        missing=words.missing,
        least_gap=least_gap,
    )


def local_midnight(now: dt.datetime, zone: dt.tzinfo, days: int) -> dt.datetime:
    """Return the start of the local day so many days from today, in UTC."""
    day = now.astimezone(zone).date() + dt.timedelta(days=days)
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def power_bars(row: dict[str, Any], zone: dt.tzinfo, words: Words) -> list[Bar]:
    """Return the bar of what was used and, below zero, of what was fed in, as mean kW."""
    hours = row["covered_s"] / 3600
    start, end = row["start_at"], row["end_at"]
    when = f"{start.astimezone(zone):%m-%d %H:%M}–{end.astimezone(zone):%H:%M}"
    lacking_s = (end - start).total_seconds() - row["covered_s"]
    title = f"{when} {kilo_text(row['energy_wh'], 3)} kWh, {words.quality(row['quality'])}"
    if lacking_s >= 1:
        title += f", {words.partly} {span_text(lacking_s)}"
    quality = "suspect" if row["quality"] & Quality.HIGH else "averaged" if row["quality"] & Quality.LONG else "actual"
    bars = [Bar(start, end, row["energy_wh"] / 1000 / hours, quality, title)]
    if row["export_energy_wh"]:
        fed = f"{when} {words.exported} {kilo_text(row['export_energy_wh'], 3)} kWh"
        bars.append(Bar(start, end, -row["export_energy_wh"] / 1000 / hours, "exported", fed))
    return bars


def time_of_use(tariff: Tariff, line: Timeline, span: tuple[dt.datetime, dt.datetime], words: Words) -> list[Span]:
    """Return the periods of a tariff between two instants, for the strip under the curve."""
    low, high = (int(moment.timestamp()) for moment in span)
    first = max(int(np.searchsorted(line.start_s, low, side="right")) - 1, 0)
    last = int(np.searchsorted(line.start_s, high))
    spans: list[Span] = []
    for index in range(first, last):
        start = max(int(line.start_s[index]), low)
        end = min(int(line.start_s[index + 1]) if index + 1 < len(line.start_s) else high, high)
        period = tariff.buckets[int(line.bucket[index])][2]
        low_at, high_at = (dt.datetime.fromtimestamp(moment, dt.UTC) for moment in (start, end))
        label = words.get(period, period)
        if spans and spans[-1].label == label:
            spans[-1] = Span(spans[-1].start, high_at, spans[-1].place, label)
        else:
            spans.append(Span(low_at, high_at, PLACES.get(period, 2), label))
    return spans


def usage_csv(conn: psycopg.Connection, info: dict[str, Any], days: int, now: dt.datetime) -> str:
    """Return the intervals of some days as CSV in UTC, at most CSV_ROWS_MAX; a last line says when there are more."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["start", "end", "energy_wh", "export_energy_wh", "import_wh", "quality", "seq", "raw"])
    start, count = now - dt.timedelta(days=days), 0
    while rows := fetch_readings(conn, info["meter_no"], start, now):
        for row in rows:
            writer.writerow(
                [
                    row["start_at"].isoformat(),
                    row["end_at"].isoformat(),
                    row["energy_wh"],
                    row["export_energy_wh"],
                    row["import_wh"],
                    " ".join(Quality(row["quality"]).words),
                    row["seq"],
                    f"{row['raw_partition']}/{row['raw_offset']}/{row['raw_index']}",
                ]
            )
        start, count = rows[-1]["end_at"], count + len(rows)
        if len(rows) < ROWS_MAX:
            break
        if count >= CSV_ROWS_MAX:
            out.write(f"# cut after {count} rows; the rest: /api/v1/meters/{info['meter_id']}/readings\r\n")
            break
    return out.getvalue()
