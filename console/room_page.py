"""What the control-room page shows at first; afterwards the stream moves its numbers."""

import datetime as dt
import json
from typing import Any

import psycopg

from console.chart import load_chart
from storage.alarm import fetch_alarms
from storage.dead_letter import count_dead_letters, fetch_dead_letters
from storage.query import fetch_load_curve

ZONE = dt.timezone(dt.timedelta(hours=8), "CST")
STEP = dt.timedelta(minutes=15)
TOP_SHOWN = 10
ALARMS_SHOWN = 30
LETTERS_SHOWN = 6


def room_page(conn: psycopg.Connection, snapshot: tuple[int, str], words: dict[str, str], now: int) -> dict[str, Any]:
    """Return the values of the page's template."""
    end = dt.datetime.fromtimestamp(now / 1e6, dt.UTC)
    figures = json.loads(snapshot[1])
    return {
        "figures": figures,
        "chart": room_chart(conn, words, end),
        "top": figures.get("top", [])[:TOP_SHOWN],
        "alarms": fetch_alarms(conn, active=True, limit=ALARMS_SHOWN),
        "letters": count_dead_letters(conn),
        "newest_letters": fetch_dead_letters(conn, limit=LETTERS_SHOWN),
        "zone": ZONE,
        "counts": alarm_counts(figures),
    }


def room_chart(conn: psycopg.Connection, words: dict[str, str], end: dt.datetime) -> str:
    """Return the load of the last 24 hours; the quarter-hour that is not over yet is left out."""
    whole = end - dt.timedelta(seconds=end.timestamp() % STEP.total_seconds())
    start = whole - dt.timedelta(days=1)
    points = [
        (at, (used - fed) / 1000 / (STEP.total_seconds() / 3600))
        for at, used, fed, _ in fetch_load_curve(conn, start, whole)
    ]
    return load_chart(
        points,
        start,
        whole,
        step=STEP,
        unit="kW",
        zone=ZONE,
        sentence=words["load_curve_sentence"],
        missing=words["missing"],
    )


def alarm_counts(figures: dict[str, Any]) -> dict[int, tuple[int, int]]:
    """Return unacknowledged and active alarms by priority."""
    alarms = figures.get("alarms", [])
    return {
        priority: (
            sum(alarm["priority"] == priority and alarm["state"] == "unacknowledged" for alarm in alarms),
            sum(alarm["priority"] == priority for alarm in alarms),
        )
        for priority in (1, 2, 3, 4)
    }
