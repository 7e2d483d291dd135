"""A meter's page: its curve, its running charge, and how that came about down to the raw message."""

import csv
import datetime as dt
import io
from typing import Any

import numpy as np
import psycopg

from console.chart import Bar, Span, meter_chart
from console.room_page import ZONE
from metering.calendar import Timeline
from metering.tariff import Tariff
from schemas.quality import Quality
from storage.query import fetch_alarm_subjects, fetch_events, fetch_last_reading, fetch_readings
from storage.registry import Registry
from storage.state import RunningChargeView, fetch_running_charge

NEWEST_SHOWN = 12
SUSPECT = Quality.HIGH
PLACES = {"sharp": 0, "peak": 1, "flat": 2, "valley": 3, "deep_valley": 3}
BARS_MAX = 700


def meter_page(
    conn: psycopg.Connection, registry: Registry, info: dict[str, Any], days: int, told: tuple[dict[str, str], int]
) -> dict[str, Any]:
    """Return the values of the page's template; `told` is the words and the time, epoch µs."""
    words, now = told
    end = dt.datetime.fromtimestamp(now / 1e6, dt.UTC)
    start = end - dt.timedelta(days=days)
    readings = fetch_readings(conn, info["meter_no"], start, end)
    last = fetch_last_reading(conn, info["meter_no"])
    charge = fetch_running_charge(conn, info["meter_id"], registry) if last else None
    zone = _zone_of(registry, info)
    newest = [row | {"words": _words(row["quality"], words)} for row in reversed(readings[-NEWEST_SHOWN:])]
    return {
        "info": info,
        "days": days,
        "last": last,
        "last_words": _words(last["quality"], words) if last else "",
        "power_w": _power_w(last) if last else None,
        "charge": charge,
        "lines": _lines(charge, words) if charge else [],
        "newest": newest,
        "events": fetch_events(conn, info["meter_no"]),
        "alarms": fetch_alarm_subjects(conn, info["meter_id"]),
        "chart": _chart(readings, registry, info, (start, end), words),
        "zone": zone,
        "missing_count": sum(1 for row in readings if row["quality"] & Quality.LONG),
        "reading_count": len(readings),
    }


def _zone_of(registry: Registry, info: dict[str, Any]) -> dt.tzinfo:
    tariff = _tariff_of(registry, info)
    return tariff[0].zone if tariff else ZONE


def _tariff_of(registry: Registry, info: dict[str, Any]) -> tuple[Tariff, Timeline] | None:
    for tariff, line in zip(registry.prices.tariffs, registry.prices.timelines, strict=True):
        if tariff.tariff_id == info["tariff_id"]:
            return tariff, line
    return None


def _words(quality: int, words: dict[str, str]) -> str:
    return ", ".join(words.get(word, word) for word in Quality(quality).words)


def _power_w(row: dict[str, Any]) -> float | None:
    seconds = (row["end_at"] - row["start_at"]).total_seconds()
    return (row["energy_wh"] - row["export_energy_wh"]) * 3600 / seconds if seconds else None


def _lines(charge: RunningChargeView, words: dict[str, str]) -> list[dict[str, Any]]:
    """Return the lines of a charge with their words and how each came about."""

    def label_of(label: str) -> str:
        return " ".join(words.get(word, word) for word in label.split(" "))

    return [
        {
            "label": label_of(line.label),
            "kind": line.kind,
            "quantity": f"{line.quantity_kwh:,.3f}" if line.kind != "fixed" else "",
            "price": f"{line.price}",
            "amount": f"{line.amount:,}",
            "unrounded": f"{line.amount_unrounded.normalize():f}",
        }
        for line in charge.lines
    ]


def _chart(
    readings: list[dict[str, Any]],
    registry: Registry,
    info: dict[str, Any],
    span: tuple[dt.datetime, dt.datetime],
    words: dict[str, str],
) -> str:
    zone = _zone_of(registry, info)
    bars = [bar for row in _thinned(readings) if (bar := _bar(row, zone, words)) is not None]
    found = _tariff_of(registry, info)
    days = (span[1] - span[0]).days
    return meter_chart(
        bars,
        _strip(*found, span, words) if found and days <= 2 else [],
        *span,
        zone=zone,
        sentence=f"{words['curve']} {info['meter_id']}",
        missing=words["missing"],
        hours=6 if days <= 2 else 24 if days <= 10 else 120,
    )


def _thinned(readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return neighbours added up so that at most BARS_MAX bars are drawn; energy and worst quality are kept."""
    step = -(-len(readings) // BARS_MAX) or 1
    if step == 1:
        return readings
    groups = [readings[place : place + step] for place in range(0, len(readings), step)]
    return [
        {
            "start_at": group[0]["start_at"],
            "end_at": group[-1]["end_at"],
            "energy_wh": sum(row["energy_wh"] for row in group),
            "export_energy_wh": sum(row["export_energy_wh"] for row in group),
            "quality": max(row["quality"] for row in group),
        }
        for group in groups
    ]


def _bar(row: dict[str, Any], zone: dt.tzinfo, words: dict[str, str]) -> Bar | None:
    watts = _power_w(row)
    if watts is None:
        return None
    title = (
        f"{row['start_at'].astimezone(zone):%m-%d %H:%M}-{row['end_at'].astimezone(zone):%H:%M}"
        f" {row['energy_wh']} Wh, {_words(row['quality'], words)}"
    )
    quality = "suspect" if row["quality"] & SUSPECT else "estimated" if row["quality"] & Quality.LONG else "actual"
    return Bar(row["start_at"], row["end_at"], watts, quality, title)


def _strip(tariff: Tariff, line: Timeline, span: tuple[dt.datetime, dt.datetime], words: dict[str, str]) -> list[Span]:
    low, high = (int(moment.timestamp()) for moment in span)
    first = max(int(np.searchsorted(line.start_s, low, side="right")) - 1, 0)
    last = int(np.searchsorted(line.start_s, high))
    spans = []
    for index in range(first, last):
        start = max(int(line.start_s[index]), low)
        end = min(int(line.start_s[index + 1]) if index + 1 < len(line.start_s) else high, high)
        period = tariff.buckets[int(line.bucket[index])][2]
        spans.append(
            Span(
                dt.datetime.fromtimestamp(start, dt.UTC),
                dt.datetime.fromtimestamp(end, dt.UTC),
                PLACES.get(period, 2),
                words.get(period, period),
            )
        )
    return spans


def usage_csv(conn: psycopg.Connection, info: dict[str, Any], days: int, now: int) -> str:
    """Return the intervals of some days as CSV, UTC."""
    end = dt.datetime.fromtimestamp(now / 1e6, dt.UTC)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["start", "end", "energy_wh", "export_energy_wh", "import_wh", "quality", "seq", "raw"])
    for row in fetch_readings(conn, info["meter_no"], end - dt.timedelta(days=days), end):
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
    return out.getvalue()
