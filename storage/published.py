"""What is published from outside and prices depend on: flags of days, and price series. Entered and withdrawn."""

from collections.abc import Iterator
from typing import Any

import psycopg

from storage.master_cell import read_day, read_decimal, read_instant, read_name, read_yes
from storage.master_file import Column, Faults, Layout, Outcome, Rows, stage

A_NAME = "a name in small letters, digits and _"
FLAGS = Layout(
    "flags",
    (
        Column("flag", read_name, f"{A_NAME}, such as heat_day", is_required=True),
        Column("day", read_day, "a day like 2026-07-31", "date", is_required=True),
        Column("withdrawn", read_yes, "yes or no", "boolean", default=False),
    ),
    ("flag", "day"),
)
PRICE_SERIES = Layout(
    "price-series",
    (
        Column("series", read_name, f"{A_NAME}, such as spot", is_required=True),
        Column(
            "start_at", read_instant, "an instant with offset, such as 2026-07-31T08:00:00+08:00", "timestamptz",
            is_required=True,
        ),
        Column("price", read_decimal, "a decimal", "numeric", is_required=True),
    ),
    ("series", "start_at"),
)  # fmt: skip


def apply_flags(conn: psycopg.Connection[Any], rows: Rows, faults: Faults, who: str) -> Outcome:
    """Publish flags of days, and withdraw those that say so; what holds already is left alone."""
    del faults
    stage(conn, rows)
    conn.execute("lock table day_flag in share row exclusive mode")
    new = conn.execute(
        "insert into day_flag (flag, day, published_by) select flag, day, %s from staged_flags s"
        " where not withdrawn and not exists (select from day_flag f where f.flag = s.flag and f.day = s.day"
        " and f.withdrawn_at is null)",
        (who,),
    ).rowcount
    changed = conn.execute(
        "update day_flag f set withdrawn_at = now() from staged_flags s"
        " where s.withdrawn and f.flag = s.flag and f.day = s.day and f.withdrawn_at is null"
    ).rowcount
    return Outcome(len(rows.rows), new, changed)


def fetch_flag_rows(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the flags that hold as their layout has them."""
    yield from conn.execute("select flag, day, false from day_flag where withdrawn_at is null order by flag, day")


def apply_price_series(conn: psycopg.Connection[Any], rows: Rows, faults: Faults, who: str) -> Outcome:
    """Publish prices; one that is published already as it is adds nothing."""
    del faults, who
    stage(conn, rows)
    conn.execute("lock table price_series in share row exclusive mode")
    known = conn.execute(
        "select count(*) from staged_price_series s where exists"
        " (select from price_series p where p.series = s.series and p.start_at = s.start_at)"
    ).fetchone()
    assert known is not None
    written = conn.execute(
        "insert into price_series (series, start_at, price) select s.series, s.start_at, s.price from staged_price_series s"
        " left join lateral (select p.price from price_series p where p.series = s.series and p.start_at = s.start_at"
        " order by p.published_at desc limit 1) p on true where p.price is distinct from s.price"
    ).rowcount
    new = len(rows.rows) - known[0]
    return Outcome(len(rows.rows), new, written - new)


def fetch_price_rows(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the prices that hold as their layout has them."""
    yield from conn.execute(
        "select distinct on (series, start_at) series, start_at, price from price_series"
        " order by series, start_at, published_at desc"
    )
