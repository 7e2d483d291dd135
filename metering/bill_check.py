"""What makes a bill be looked at before it goes out: each check with the value it found and the bound. Pure."""

import dataclasses
import datetime as dt
from decimal import Decimal

from metering.pricing.fixed import DaySpan, days_of
from schemas.bill import BillDocument

REASONS = (
    "estimated_share",
    "missing_readings",
    "zero_use",
    "change_last_period",
    "change_last_year",
    "negative_total",
    "missing_contract_days",
    "register_mismatch",
    "currency",
)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What is let pass; see the settings of billing."""

    estimated_percent: int = 10
    missing_percent: int = 2
    change_percent: int = 25
    change_wh: int = 1000
    register_wh: int = 1


@dataclasses.dataclass(frozen=True)
class Hold:
    """Why a bill is held."""

    reason: str
    """Of REASONS."""
    value: str
    bound: str


def check_bill(
    document: BillDocument,
    bounds: Bounds,
    *,
    expected_s: int,
    covered_s: int,
    cycle: DaySpan,
    account_currency: str,
) -> list[Hold]:
    """Return why a bill should be looked at, nothing when it may go out.

    Args:
        document: The bill, with what it is compared to.
        bounds: What is let pass.
        expected_s: Seconds that it is for.
        covered_s: Seconds of it that readings cover.
        cycle: Whole billing cycle.
        account_currency: Of the account that is to pay it.
    """
    found = []
    if document.currency != account_currency:
        found.append(Hold("currency", document.currency, f"the account is in {account_currency}"))
    if document.estimated_wh * 100 > bounds.estimated_percent * max(document.energy_wh, 0):
        found.append(
            Hold(
                "estimated_share",
                f"{percent(document.estimated_wh, document.energy_wh)} %",
                f"{bounds.estimated_percent} %",
            )
        )
    missing_s = expected_s - covered_s
    if missing_s * 100 > bounds.missing_percent * expected_s:
        found.append(Hold("missing_readings", f"{percent(missing_s, expected_s)} %", f"{bounds.missing_percent} %"))
    elif document.energy_wh == 0 and document.export_wh == 0:
        found.append(Hold("zero_use", "0 kWh", "more than 0 kWh"))
    found += _changes(document, bounds)
    if document.total < 0:
        found.append(Hold("negative_total", f"{document.total} {document.currency}", "0"))
    lacking = days_of(cycle) - days_of((document.start_on, document.end_on))
    if lacking > 0 and not _begins_or_ends(document, cycle):
        found.append(Hold("missing_contract_days", f"{lacking} days", "0 days"))
    off_wh = max(
        (
            abs(span.end_wh - span.start_wh - span.energy_wh)
            for span in document.registers
            if span.end_wh >= span.start_wh
        ),
        default=0,
    )
    if off_wh > bounds.register_wh:
        found.append(Hold("register_mismatch", f"{off_wh} Wh", f"{bounds.register_wh} Wh"))
    return found


def _begins_or_ends(document: BillDocument, cycle: DaySpan) -> bool:
    """Return whether a bill of part of a cycle follows a move: one of its ends is the cycle's."""
    return document.start_on == cycle[0] or document.end_on == cycle[1]


def _changes(document: BillDocument, bounds: Bounds) -> list[Hold]:
    found = []
    days = days_of((document.start_on, document.end_on))
    for before in document.comparisons:
        days_before = days_of((before.start_on, before.end_on))
        if days <= 0 or days_before <= 0 or before.energy_wh <= 0:
            continue
        # Daily means compared without dividing: a / days against b / days_before.
        change = document.energy_wh * days_before - before.energy_wh * days
        size = before.energy_wh * days
        if abs(change) * 100 > bounds.change_percent * size and abs(change) > bounds.change_wh * days * days_before:
            sign = "+" if change > 0 else "-"
            found.append(
                Hold(
                    f"change_{before.what}",
                    f"{sign}{percent(abs(change), size)} % of {before.energy_wh // days_before} Wh a day",
                    f"±{bounds.change_percent} %",
                )
            )
    return found


def percent(part: int, whole: int) -> Decimal:
    """Return a share in percent, one decimal; 100 of nothing."""
    if whole == 0:
        return Decimal(100)
    return (Decimal(part) * 100 / Decimal(whole)).quantize(Decimal("0.1"))


def last_year_of(start_on: dt.date) -> dt.date:
    """Return the same day a year before; the last of February for its 29th."""
    return start_on.replace(
        year=start_on.year - 1, day=28 if (start_on.month, start_on.day) == (2, 29) else start_on.day
    )
