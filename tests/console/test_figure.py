"""Figures: money is rounded once and right, a share is never flattered, missing is never 0."""

import datetime as dt
from decimal import ROUND_HALF_UP, Decimal
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from console.figure import MISSING, count_text, kilo_text, moment_text, money_text, power_text, rate_text, share_text


@given(st.integers(-(2**62), 2**62), st.integers(0, 11))
def test_money_is_what_decimal_rounds_half_up(amount: int, scale: int) -> None:
    exact = Decimal(amount).scaleb(-scale).quantize(Decimal("0.01"), ROUND_HALF_UP)
    shown = money_text(amount, scale).replace(",", "")
    assert Decimal(shown) == exact


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_a_share_is_a_hundred_only_when_it_is_the_whole(part: int, whole: int) -> None:
    shown = share_text(min(part, whole), whole)
    assert (shown == "100") == (part >= whole)
    assert float(shown) <= 100 * min(part, whole) / whole + 1e-9


def test_missing_is_never_zero() -> None:
    assert {power_text(None)[0], count_text(None), kilo_text(None, 2), rate_text(None), share_text(None, 5)} == {
        MISSING
    }
    assert {power_text(0)[0], count_text(0), kilo_text(0, 1), rate_text(0), share_text(0, 5)} == {"0.0", "0"}


def test_a_moment_tells_its_day_unless_it_is_today_on_the_clock_of_the_zone() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    now = dt.datetime(2026, 11, 23, 16, 30, tzinfo=dt.UTC)  # 00:30 on the 24th
    assert moment_text(now - dt.timedelta(minutes=10), zone, now) == "00:20:00"
    assert moment_text(now - dt.timedelta(hours=1), zone, now) == "11-23 23:30:00"
    assert moment_text(now - dt.timedelta(days=400), zone, now) == "2025-10-20 00:30"
