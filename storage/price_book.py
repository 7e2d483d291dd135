"""Contracts, tariffs and published days made the price books and assignments that settlement works with."""

import datetime as dt
import functools
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import psycopg

from metering.calendar import US, Segments, compile_segments, compile_timeline, local_midnight_s
from metering.cycle_shape import Shapes
from metering.pricebook import ALL_CYCLES, FAR_FUTURE_US, PriceBook
from metering.tariff import Tariff, parse_tariff

TIMELINE_DAYS_BACK = 800
TIMELINE_DAYS_AHEAD = 400
MONTH_MORE = dt.timedelta(days=32)
NONE_ID = ""
"""Of what is measured without any contract or tariff."""
NONE_DOCUMENT = json.dumps(
    {
        "tariff_id": "none",
        "currency": "XXX",
        "zone": "UTC",
        "versions": [{"valid_from": "2000-01-01", "rest": "none", "prices": "0"}],
    }
)
DEFAULT_BILLING_DAY = 1

Flags = tuple[tuple[str, frozenset[dt.date]], ...]
Section = tuple[int, int, int]
"""From, until (epoch µs) and price book of a time at a service point."""
Part = tuple[int, int, int, int, int]
"""Price book, from, until (epoch µs), first whole cycle and the one after the last: an `Assignment` without its service point."""


@functools.lru_cache(64)
def _segments(document: str, flags: Flags, start_on: dt.date, end_on: dt.date) -> tuple[Tariff, Segments]:
    tariff = parse_tariff(json.loads(document))
    return tariff, compile_segments(tariff, start_on - MONTH_MORE, end_on + MONTH_MORE, flags=dict(flags))


@functools.lru_cache(512)
def _shapes(document: str, billing_day: int, flags: Flags, start_on: dt.date, end_on: dt.date) -> Shapes:
    """Return a compiled tariff; kept between versions of the master data, for most of these change no tariff."""
    tariff, segments = _segments(document, flags, start_on, end_on)
    timeline = compile_timeline(tariff, start_on, end_on, billing_day=billing_day, segments=segments)
    return Shapes(tariff, timeline, is_charged=document != NONE_DOCUMENT)


class Books:
    """The price books of one version of the master data, each compiled when it is first asked for."""

    def __init__(self, documents: Mapping[str, str], flags: Mapping[str, frozenset[dt.date]], today: dt.date) -> None:
        """Take tariffs as JSON by name, published days by flag, and the day around which timelines are made."""
        self._documents = {**documents, NONE_ID: NONE_DOCUMENT}
        self._flags = flags
        self.today = today
        self._days = tuple(
            (today + dt.timedelta(days=days)).replace(day=1) for days in (-TIMELINE_DAYS_BACK, TIMELINE_DAYS_AHEAD)
        )
        self.index: dict[tuple[str, int], int] = {}
        self.prices = PriceBook([], [])

    def of(self, tariff_id: str | None, billing_day: int = DEFAULT_BILLING_DAY) -> int:
        """Return the number of a price book; of no tariff or an unknown one that of none."""
        name = tariff_id if tariff_id in self._documents else NONE_ID
        assert name is not None
        key = name, billing_day if name else DEFAULT_BILLING_DAY
        if key not in self.index:
            document = self._documents[name]
            used = {flag for version in json.loads(document)["versions"] for flag in version.get("flags", ())}
            flags = tuple(sorted((flag, days) for flag, days in self._flags.items() if flag in used))
            shapes = _shapes(document, key[1], flags, *self._days)
            self.index[key] = len(self.prices.tariffs)
            self.prices.tariffs.append(shapes.tariff)
            self.prices.timelines.append(shapes.timeline)
            self.prices.shapes.append(shapes)
            if not name:
                self.prices.none_index = self.index[key]
        return self.index[key]

    @functools.lru_cache(4096)  # noqa: B019  # lives as long as one load of the master data
    def midnight_us(self, book: int, day: dt.date) -> int:
        """Return when a local day of a book's tariff begins, epoch µs."""
        return local_midnight_s(self.prices.tariffs[book], day) * US

    @functools.lru_cache(4096)  # noqa: B019
    def whole_cycles(self, book: int, start_us: int, end_us: int) -> tuple[int, int]:
        """Return the first cycle that a time covers wholly, and the one after the last."""
        line = self.prices.timelines[book]
        first = int(np.searchsorted(line.cycle_start_s * US, start_us, side="left"))
        after = int(np.searchsorted(line.cycle_end_s * US, end_us, side="right"))
        return first, ALL_CYCLES if after == len(line.cycle_end_s) else after

    @functools.lru_cache(4096)  # noqa: B019
    def parts(self, span: tuple[int, int], sections: tuple[Section, ...], tariff_id: str | None) -> tuple[Part, ...]:
        """Return what holds while a meter measures a service point: its contracts, and its own tariff or none between them.

        Kept, for of a million meters most have the times of many others.

        Args:
            span: From when until when the meter measures it, epoch µs.
            sections: Contracts of the service point.
            tariff_id: Of the meter's assignment, for times without a contract.
        """
        found = []
        reached = -FAR_FUTURE_US
        every: list[Section] = []
        for start_us, end_us, book in sections:
            every += [(reached, start_us, -1), (start_us, end_us, book)]
            reached = end_us
        for start_us, end_us, book in [*every, (reached, FAR_FUTURE_US, -1)]:
            low, high = max(start_us, span[0]), min(end_us, span[1])
            if low < high:
                index = self.of(tariff_id) if book == -1 else book
                found.append((index, low, high, *self.whole_cycles(index, start_us, end_us)))
        return tuple(found)


def fetch_books(conn: psycopg.Connection[Any]) -> Books:
    """Return the price books of the tariffs in force and the days published now."""
    row = conn.execute("select current_date").fetchone()
    assert row is not None
    documents = dict(conn.execute("select tariff_id, document::text from tariff").fetchall())
    rows = conn.execute("select flag, day from day_flag where withdrawn_at is null order by flag").fetchall()
    flags = {
        flag: frozenset(day for _, day in items) for flag, items in itertools.groupby(rows, key=lambda item: item[0])
    }
    return Books(documents, flags, row[0])


def fetch_sections(conn: psycopg.Connection[Any], books: Books) -> dict[int, list[Section]]:
    """Return the times of contracts by service point, in order, each with its price book."""
    rows = conn.execute(
        "select c.service_point_no, c.contract_no, c.billing_day, greatest(t.start_on, c.start_on), c.end_on, t.tariff_id"
        " from contract c join contract_tariff t using (contract_no) where t.replaced_at is null"
        " order by c.service_point_no, c.start_on, t.start_on"
    ).fetchall()
    found: dict[int, list[Section]] = {}
    for place, (point_no, contract_no, billing_day, start_on, end_on, tariff_id) in enumerate(rows):
        book = books.of(tariff_id, billing_day)
        following = rows[place + 1] if place + 1 < len(rows) and rows[place + 1][1] == contract_no else None
        until = end_on if following is None else min(following[3], end_on or following[3])
        end_us = FAR_FUTURE_US if until is None else books.midnight_us(book, until)
        start_us = books.midnight_us(book, start_on)
        if start_us < end_us:
            found.setdefault(point_no, []).append((start_us, end_us, book))
    return found
