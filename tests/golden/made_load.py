"""Loads with given energy by period, for bills worked by hand."""

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from metering.calendar import US, compile_segments, local_midnight_s, segment_of
from metering.tariff import Tariff, parse_tariff
from metering.usage import Load

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tariffs" / "examples"
SHARED = ROOT.parent / "shared" / "data" / "tariffs"


def example(name: str) -> Tariff:
    return parse_tariff(document_of(name))


def document_of(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text("utf-8"))


def starts_of(tariff: Tariff, start_on: dt.date, end_on: dt.date, interval_s: int = 900) -> np.ndarray:
    return np.arange(local_midnight_s(tariff, start_on), local_midnight_s(tariff, end_on), interval_s)


def spread(total_wh: int, count: int) -> np.ndarray:
    """Return a whole number in so many parts that differ by 1 at most."""
    return np.diff(np.arange(count + 1) * total_wh // count)


def load_by_period(
    tariff: Tariff, start_on: dt.date, end_on: dt.date, kwh: Mapping[str, int], peak_kw: Decimal | None = None
) -> Load:
    """Return quarter-hours with so much energy in each period, evenly; one quarter of the first period at `peak_kw`."""
    starts = starts_of(tariff, start_on, end_on)
    segments = compile_segments(tariff, start_on, end_on)
    buckets = segments.bucket[segment_of(segments, starts * US)]
    periods = np.array([tariff.buckets[bucket][2] for bucket in buckets.tolist()])
    import_wh = np.zeros(len(starts), np.int64)
    assert set(kwh) <= set(periods.tolist())
    for place, (period, amount) in enumerate(kwh.items()):
        rows = np.flatnonzero(periods == period)
        total_wh = amount * 1000
        if place == 0 and peak_kw is not None:
            import_wh[rows[0]] = int(peak_kw * 250)
            total_wh, rows = total_wh - int(peak_kw * 250), rows[1:]
        import_wh[rows] = spread(total_wh, len(rows))
    if peak_kw is not None:
        assert import_wh.max() == int(peak_kw * 250)
    return Load(starts * US, 900, {"import_wh": import_wh})
