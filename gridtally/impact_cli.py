"""`gridtally tariff impact`: a tariff tried on everybody's past before it is decided."""

import datetime as dt
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridtally.contract_cli import Terms, terms_of
from gridtally.options import EXIT_FAILED, EXIT_USAGE, AsJson, Config, DataDir, connect, fail, running, settings_of
from gridtally.tariff_cli import parse_document

if TYPE_CHECKING:
    from metering.impact import Impact
    from metering.tariff import Tariff

MONTHS_MAX = 36
BAR_WIDTH = 40
PROGRESS_S = 1.0


def months_of(text: str) -> list[dt.date]:
    """Return the first days of the months of --over and of the month after, or end the command."""
    from metering.impact import months_between

    first, last = dt.date.max, dt.date.min
    if found := re.fullmatch(r"(\d{4})-(\d\d)(?:\.\.(\d{4})-(\d\d))?", text.strip()):
        year, month, end_year, end_month = (int(part or 0) for part in found.groups())
        try:
            first = dt.date(year, month, 1)
            last = dt.date(end_year, end_month, 1) if end_year else first
        except ValueError:
            last = dt.date.min
    if first > last or (last - first).days >= 31 * MONTHS_MAX:
        fail(f"--over {text}: expected months such as 2026-01..2026-12, at most {MONTHS_MAX}", EXIT_USAGE)
    return months_between(first, last)


def tariff_of(conn: Any, name: str) -> "Tariff":
    """Return the tariff of a document or of an id, or end the command."""
    from metering.tariff import TariffError, parse_tariff
    from storage.contract import ContractError, fetch_tariff

    path = Path(name)
    try:
        if path.is_file():
            return parse_tariff(parse_document(path))
        return fetch_tariff(conn, name)[0]
    except TariffError as error:
        fail(f"{name} has faults:\n" + "\n".join(f"  {fault}" for fault in error.faults), EXIT_FAILED)
    except ContractError as error:
        fail(f"{name} is neither a file nor a tariff: {error}", EXIT_FAILED)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{name}: {error}", EXIT_USAGE)


@contextmanager
def telling() -> Iterator[None]:
    """End the command with why an impact cannot be had."""
    from metering.pricing.indexed import MissingPriceError
    from metering.terms import RatingError
    from storage.contract import ContractError
    from storage.impact import ImpactError

    try:
        yield
    except (ImpactError, RatingError, MissingPriceError, ContractError) as error:
        fail(str(error), EXIT_FAILED)


def impact_command(
    new: Annotated[list[str], typer.Argument(help="Proposed tariffs: documents, or ids.", metavar="NEW…")],
    *,
    over: Annotated[str, typer.Option("--over", help="Months of the past, such as 2026-01..2026-12.")],
    against: Annotated[
        str | None, typer.Option("--against", help="Compare with this tariff; by default with what each contract had.")
    ] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Only accounts of this class.")] = None,
    term: Terms = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with charts.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes.")] = 2,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Rate every account's past under proposed tariffs: revenue, winners and losers, and who is hit hardest.

    Example: gridtally tariff impact new.yaml --over 2026-01..2026-12 --class residential --html impact.html
    """
    from metering.impact import summarize
    from storage.impact import plan_impact, rate_impact
    from storage.usage_day import refresh_usage_days

    edges, terms = months_of(over), terms_of(term)
    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn, telling():
        proposed = [tariff_of(conn, name) for name in new]
        base = None if against is None else tariff_of(conn, against)
        job = plan_impact(conn, proposed, edges, against=base, class_name=class_name, terms=terms)
        refresh_usage_days(conn, progress=_progress("days brought up to date"))
        found = rate_impact(
            running(loaded, "database").database, job, workers=workers, progress=_progress("contracts rated")
        )
    impacts = summarize(found.rows, [tariff.tariff_id for tariff in proposed])
    shown = report_of(impacts, found, job, base, proposed)
    if html is not None:
        from gridtally.impact_report import report_html

        html.write_text(report_html(shown), "utf-8")
        print(f"wrote {html}", file=sys.stderr)
    if as_json:
        print(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    for one in shown["tariffs"]:
        print_impact(shown, one)
    _print_missing(shown["missing"])


def _progress(what: str) -> Any:
    """Return what prints progress on stderr, at most once a PROGRESS_S and at the end."""
    began = time.monotonic()
    last = [began]

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        if total and (done == total or now - last[0] >= PROGRESS_S):
            last[0] = now
            left = f", {(now - began) / done * (total - done):.0f} s to go" if 0 < done < total else ""
            print(f"{done:,} of {total:,} {what}{left}", file=sys.stderr, flush=True)

    return show


def _table(revenue: Any) -> dict[str, list[str]]:
    return {name: [f"{amount:f}" for amount in months] for name, months in revenue.items()}


def report_of(
    impacts: list["Impact"], found: Any, job: Any, base: "Tariff | None", proposed: list["Tariff"]
) -> dict[str, Any]:
    """Return an impact as JSON: money as text, percents as numbers."""
    from metering.impact import COVERED_MIN

    tariffs = []
    for number, (one, tariff) in enumerate(zip(impacts, proposed, strict=True)):
        tariffs.append(
            {
                "tariff": one.tariff_id,
                "name": tariff.name,
                "accounts": one.accounts,
                "winners": one.winners,
                "losers": one.losers,
                "unchanged": one.unchanged,
                "revenue": {"current": _table(one.current), "proposed": _table(one.proposed)},
                "total": {
                    side: f"{sum((sum(months, Decimal(0)) for months in table.values()), Decimal(0)):f}"
                    for side, table in (("current", one.current), ("proposed", one.proposed))
                },
                "energy_wh_by_period": {"current": dict(one.current_wh), "proposed": dict(one.proposed_wh)},
                "revenue_by_kind": {
                    side: {kind: f"{amount.quantize(Decimal('0.01')):f}" for kind, amount in sorted(kinds.items())}
                    for side, kinds in (("current", one.current_kinds), ("proposed", one.proposed_kinds))
                },
                "distribution": [
                    {"low_percent": item.low_percent, "high_percent": item.high_percent, "accounts": item.accounts}
                    for item in one.bins
                ],
                "quantiles_percent": {str(share): round(value, 2) for share, value in one.quantiles.items()},
                "hardest": [
                    {
                        "account": row.account_id,
                        "contract": row.contract_id,
                        "class": row.class_name,
                        "energy_wh": row.energy_wh,
                        "current": f"{sum(row.current.totals, Decimal(0)):f}",
                        "proposed": f"{sum(row.proposed[number].totals, Decimal(0)):f}",
                        "change": f"{row.change(number):f}",
                        "change_percent": None if (p := row.change_percent(number)) is None else round(p, 2),
                    }
                    for row in one.hardest
                ],
            }
        )
    partly = [row.contract_id for row in found.rows if row.covered < COVERED_MIN]
    return {
        "months": [edge.strftime("%Y-%m") for edge in job.edges[:-1]],
        "against": base.tariff_id if base else "the tariff that each contract had",
        "currency": proposed[0].currency,
        "tariffs": tariffs,
        "missing": {
            "without_tariff": list(job.without_tariff),
            "without_readings": list(found.without_readings),
            "partly_read": partly,
            "covered_min_percent": float(100 * COVERED_MIN),
        },
    }


def print_impact(shown: dict[str, Any], one: dict[str, Any]) -> None:
    """Print one proposed tariff's impact for a terminal."""
    currency, months = shown["currency"], shown["months"]
    current, proposed = (Decimal(one["total"][side]) for side in ("current", "proposed"))
    print(f"{one['tariff']} against {shown['against']}, {months[0]} to {months[-1]}, {one['accounts']:,} contracts")
    print(f"  revenue {current:,.2f} -> {proposed:,.2f} {currency} ({percent(current, proposed)})")
    print(f"  pays less {one['winners']:,}, pays more {one['losers']:,}, the same {one['unchanged']:,}")
    if one["quantiles_percent"]:
        cells = ", ".join(
            f"{share} % of contracts up to {value:+.1f} %" for share, value in one["quantiles_percent"].items()
        )
        print(f"  change of the bill: {cells}")
    top = max((item["accounts"] for item in one["distribution"]), default=0)
    filled = [index for index, item in enumerate(one["distribution"]) if item["accounts"]] or [0]
    for item in one["distribution"][filled[0] : filled[-1] + 1]:
        bar = "#" * round(item["accounts"] / top * BAR_WIDTH) if top else ""
        print(f"  {bin_label(item):>15} {item['accounts']:8,} {bar or ('.' if item['accounts'] else '')}")
    print(f"  {'revenue by month':24} {'now':>16} {'proposed':>16}")
    for name, values in one["revenue"]["current"].items():
        for month, before, after in zip(months, values, one["revenue"]["proposed"][name], strict=True):
            b, a = Decimal(before), Decimal(after)
            print(f"  {name:16} {month:7} {b:16,.2f} {a:16,.2f} {percent(b, a):>9}")
    for side, word in (("current", "now"), ("proposed", "proposed")):
        energy = one["energy_wh_by_period"][side]
        total = sum(energy.values()) or 1
        cells = ", ".join(f"{name} {wh / 1e6:,.1f} MWh ({100 * wh / total:.0f} %)" for name, wh in energy.items())
        print(f"  energy by period, {word}: {cells}")
    print("  hit hardest:" if one["hardest"] else "  nobody pays more")
    for row in one["hardest"]:
        share = "" if row["change_percent"] is None else f" ({row['change_percent']:+.1f} %)"
        print(
            f"    {row['account']:20} {row['contract']:20} {Decimal(row['current']):12,.2f} ->"
            f" {Decimal(row['proposed']):12,.2f} {currency}, {Decimal(row['change']):+,.2f}{share}"
        )


def _print_missing(missing: dict[str, Any]) -> None:
    for key, text in (
        ("without_tariff", "contracts have no tariff and are left out"),
        ("without_readings", "contracts have no reading in these months and are left out"),
        ("partly_read", f"contracts are read for less than {missing['covered_min_percent']:.0f} % of their time"),
    ):
        names = missing[key]
        if names:
            more = ", …" if len(names) > 5 else ""
            print(f"  {len(names):,} {text}: {', '.join(names[:5])}{more}")


def percent(before: Decimal, after: Decimal) -> str:
    """Return a change in percent."""
    return f"{100 * (after - before) / before:+.1f} %" if before else "-"


def bin_label(item: dict[str, Any]) -> str:
    """Return the bounds of a bin of the distribution."""
    low, high = item["low_percent"], item["high_percent"]
    if low is None:
        return f"under {high:+d} %"
    if high is None:
        return f"{low:+d} % and over"
    return f"{low:+d} .. {high:+d} %"
