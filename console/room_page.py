"""What the control-room page shows at first, all of it from memory; afterwards the stream moves its numbers."""

import datetime as dt
from typing import Any

from console.chart import load_chart, missing_spans
from console.live import LiveFeed
from console.load_curve import STEP, LoadCurve, averaged_bands
from console.words import Words

TOP_SHOWN = 10
CURVE_GRACE = dt.timedelta(minutes=3)
"""Beyond a quarter-hour, within which a new quarter-hour is to be on the curve."""


def room_page(feed: LiveFeed, words: Words, zone: dt.tzinfo) -> dict[str, Any]:
    """Return the values of the page's template."""
    letters, newest = feed.letters
    curve = feed.curve
    return {
        "chart": room_chart(curve, words, zone),
        "curve_end": curve.end,
        "curve_late_ms": int((STEP + CURVE_GRACE).total_seconds() * 1000),
        "points": list(reversed(curve.points)),
        "top": feed.snapshot.figures["top"][:TOP_SHOWN],
        "letters": letters,
        "newest_letters": newest,
        "stages": feed.snapshot.figures["stages"],
    }


def room_chart(curve: LoadCurve, words: Words, zone: dt.tzinfo) -> str | None:
    """Return the load of the last 24 hours, or None before it was read; the quarter-hour that is not over is left out."""
    start, end, points = curve.start, curve.end, curve.points
    if start is None or end is None:
        return None
    return load_chart(
        [(point.start, point.used_kw) for point in points],
        [(point.start, point.fed_kw) for point in points],
        start,
        end,
        step=STEP,
        zone=zone,
        sentence=_sentence(curve, words),
        words=(words.missing, words.total_load, words.fed_in),
        bands=[
            (low, high, words.say("averaged_share", share=f"{share * 100:.0f}"))
            for low, high, share in averaged_bands(points)
        ],
    )


def _sentence(curve: LoadCurve, words: Words) -> str:
    assert curve.start is not None
    assert curve.end is not None
    if not curve.points:
        return words.load_unknown
    gaps = missing_spans([(point.start, point.start + STEP) for point in curve.points], curve.start, curve.end, STEP)
    powers = [point.used_kw for point in curve.points]
    return words.say(
        "load_sentence",
        high=f"{max(powers):,.1f}",
        low=f"{min(powers):,.1f}",
        last=f"{powers[-1]:,.1f}",
        gaps=sum(round((high - low) / STEP) for low, high in gaps),
    )
