"""Contracts made assignments: what holds when, which cycles are whole, what is compiled once."""

import datetime as dt
import json

from metering.pricebook import ALL_CYCLES, FAR_FUTURE_US, Assignment
from storage.price_book import Books

TODAY = dt.date(2026, 11, 25)


def books_of(*names: str, flags: dict[str, frozenset[dt.date]] | None = None) -> Books:
    documents = {
        name: json.dumps(
            {
                "tariff_id": name,
                "currency": "CNY",
                "zone": "Asia/Shanghai",
                "versions": [
                    {
                        "valid_from": "2024-01-01",
                        "flags": ["heat_day"],
                        "windows": [{"period": "hot", "from": "00:00", "to": "24:00", "day_types": ["heat_day"]}],
                        "rest": "rest",
                        "prices": {"hot": "2", "rest": "1"},
                    }
                ],
            }
        )
        for name in names
    }
    return Books(documents, flags or {}, TODAY)


def test_a_contract_holds_from_local_midnight_and_the_meters_own_tariff_before_and_after_it() -> None:
    books = books_of("own", "agreed")
    book = books.of("agreed", 15)
    start_us, end_us = (books.midnight_us(book, dt.date(2026, month, 20)) for month in (9, 11))
    parts = books.parts((0, FAR_FUTURE_US), ((start_us, end_us, book),), "own")
    found = [Assignment(7, *part) for part in parts]
    own = books.of("own")
    assert [(item.tariff_index, item.start_us, item.end_us) for item in found] == [
        (own, 0, start_us),
        (book, start_us, end_us),
        (own, end_us, FAR_FUTURE_US),
    ]
    line = books.prices.timelines[book]
    whole = [
        dt.datetime.fromtimestamp(int(at), dt.UTC).date().isoformat()
        for at in line.cycle_start_s[found[1].whole_from : found[1].whole_until]
    ]
    assert whole == ["2026-10-14"]  # 15 October in Shanghai; the cycles of 15 September and 15 November are cut
    assert found[2].whole_until == ALL_CYCLES


def test_times_without_contract_and_tariff_are_of_no_price_and_never_live() -> None:
    books = books_of("agreed")
    (part,) = books.parts((0, FAR_FUTURE_US), (), None)
    only = Assignment(7, *part)
    assert only.tariff_index == books.prices.none_index
    shapes = books.prices.shapes[only.tariff_index]
    assert [shapes.of(cycle) for cycle in range(3)] == [None] * 3
    assert books.of("gone") == books.prices.none_index  # a name that no tariff has any more


def test_a_published_day_changes_the_key_of_its_cycle_only_and_compiles_only_its_tariff() -> None:
    plain = books_of("agreed")
    hot = books_of("agreed", flags={"heat_day": frozenset({dt.date(2026, 11, 10)}), "other": frozenset({TODAY})})
    again = books_of("agreed", flags={"other": frozenset()})
    shapes = [books.prices.shapes[books.of("agreed")] for books in (plain, hot, again)]
    assert shapes[2] is shapes[0]
    november = int((shapes[0].timeline.cycle_start_s < dt.datetime(2026, 11, 15, tzinfo=dt.UTC).timestamp()).sum()) - 1
    keys = [
        [item.key for cycle in (november - 1, november) if (item := one.of(cycle)) is not None] for one in shapes[:2]
    ]
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]
