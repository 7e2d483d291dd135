"""gridtally tariff: check, show, rate and import tariffs; nothing here needs a running system."""

import datetime as dt
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from metering.bill import Bill
    from metering.tariff import Tariff
    from metering.usage import Inputs, Load

EXIT_FAILED, EXIT_USAGE = 1, 2

tariff_app = typer.Typer(help="Check, show, rate and import tariff documents.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pairs = list[str] | None


@contextmanager
def telling(file: Path) -> Iterator[None]:
    """End the command with the faults of a file, one a line."""
    from metering.load_file import LoadError
    from metering.tariff import TariffError
    from metering.terms import RatingError

    try:
        yield
    except (TariffError, LoadError) as error:
        for fault in error.faults:
            print(f"{file}: {fault}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None
    except RatingError as error:
        print(f"gridtally: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None
    except (OSError, UnicodeDecodeError) as error:
        print(f"gridtally: {file}: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE) from None


def load_tariff(file: Path) -> "Tariff":
    """Return the tariff of a YAML or JSON file."""
    from metering.tariff import parse_tariff

    return parse_tariff(parse_document(file))


def parse_document(file: Path) -> Any:
    """Return what a YAML or JSON file says; JSON by its name, since it is read faster so.

    Raises:
        TariffError: It is neither.
    """
    import yaml

    from metering.tariff import TariffError

    text = file.read_text("utf-8")
    try:
        if file.suffix == ".json":
            return json.loads(text)
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise TariffError([f"not a document: {' '.join(str(error).split())}"]) from None


@tariff_app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="Tariff documents, YAML or JSON.", metavar="FILE…")],
) -> None:
    """Check tariff documents; every fault is listed with its place. Warnings do not fail.

    Example: gridtally tariff check tariffs/examples/uk-flat.yaml
    """
    from metering.tariff import TariffError

    bad = 0
    for file in files:
        try:
            tariff = load_tariff(file)
        except TariffError as error:
            bad += 1
            for fault in error.faults:
                print(f"{file}: {fault}")
        except (OSError, UnicodeDecodeError) as error:
            bad += 1
            print(f"{file}: {error}")
        else:
            for warning in tariff.warnings:
                print(f"{file}: warning: {warning}")
            print(f"{file}: {tariff.tariff_id} is good, {len(tariff.versions)} version(s)")
    if bad:
        raise typer.Exit(EXIT_FAILED)


@tariff_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="Tariff document.")],
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the picture of the week's periods as SVG.")] = None,
) -> None:
    """Show a tariff as a sheet: prices, charges, and a picture of the week's periods.

    Example: gridtally tariff show tariffs/examples/uk-economy-7.yaml --svg week.svg
    """
    from gridtally.tariff_sheet import sheet, week_svg

    with telling(file):
        tariff = load_tariff(file)
        print(sheet(tariff))
        if svg is not None:
            svg.write_text(week_svg(tariff), "utf-8")
            print(f"wrote {svg}")


@tariff_app.command("rate")
def rate_command(  # noqa: PLR0917  # an option each
    file: Annotated[Path, typer.Argument(help="Tariff document.", metavar="TARIFF")],
    load: Annotated[Path, typer.Option("--load", help="CSV: start, import_wh and further registers.")],
    cycle: Annotated[
        str,
        typer.Option("--cycle", help="calendar, or local dates at which cycles begin, comma between; the last ends."),
    ] = "calendar",
    as_json: AsJson = False,
    term: Annotated[Pairs, typer.Option("--term", help="A contract's term, such as contract_kw=20.")] = None,
    flag: Annotated[
        Pairs, typer.Option("--flag", help="Published days, such as heat_day=2026-07-01,2026-07-02.")
    ] = None,
    index: Annotated[Pairs, typer.Option("--index", help="A price series, NAME=FILE.csv (start,price).")] = None,
    system_peak: Annotated[Pairs, typer.Option("--system-peak", help="Instant of coincident demand, RFC 3339.")] = None,
    used: Annotated[
        str | None, typer.Option("--used-kwh", help="Energy of the year before the load, for annual tiers.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--service-since", help="First day of service, for annual tiers.")
    ] = None,
) -> None:
    """Make the bills of a load under a tariff, without any server.

    Example: gridtally tariff rate tariffs/examples/uk-flat.yaml --load load.csv --json
    """
    from metering.bill import History
    from metering.load_file import read_load
    from metering.rating import rate

    with telling(file):
        tariff = load_tariff(file)
    with telling(load), load.open(encoding="utf-8-sig", newline="") as lines:
        columns = read_load(lines)
    edges = _edges(tariff, columns, cycle)
    year = edges[0].year if used else 0
    history = History(
        year=year,
        year_wh=int(_decimal(used or "0", "--used-kwh") * 1000),
        service_since=_date(since, "--service-since") if since else None,
    )
    inputs = _inputs(term, flag, index, system_peak)
    with telling(file):
        bills = rate(tariff, columns, edges, inputs, history)
        _note_days_outside(tariff, edges)
    if as_json:
        print(json.dumps(bills_as_json(tariff, bills), ensure_ascii=False))
    else:
        _print_bills(tariff, bills)


@tariff_app.command("import-urdb")
def import_urdb(
    file: Annotated[Path, typer.Argument(help="A rate as OpenEI gives it (JSON).")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Tariff document to write; YAML, or JSON by its name.")
    ],
    zone: Annotated[str | None, typer.Option("--zone", help="Time zone, such as America/Los_Angeles.")] = None,
    tiers: Annotated[str, typer.Option("--tiers", help="sequential or proportional.")] = "sequential",
) -> None:
    """Make a tariff document of a URDB rate; what it cannot say is named in it and here.

    Example: gridtally tariff import-urdb rate.json --zone America/Los_Angeles -o rate.yaml
    """
    import yaml

    from connectors.urdb import UrdbError, document_from_urdb, parse_urdb
    from metering.tariff import parse_tariff
    from metering.tariff_check import zone_of
    from schemas.document import Faults

    if tiers not in ("sequential", "proportional"):
        raise _usage_error("--tiers: sequential or proportional")
    faults = Faults()
    if zone is not None:
        zone_of(zone, "--zone", faults)
    if faults:
        raise _usage_error(faults[0])
    with telling(file):
        try:
            document = document_from_urdb(parse_urdb(file.read_text("utf-8")), zone, tiers)
        except UrdbError as error:
            for fault in error.faults:
                print(f"{file}: {fault}", file=sys.stderr)
            raise typer.Exit(EXIT_FAILED) from None
        tariff = parse_tariff(document)
    with telling(output):
        if output.suffix == ".json":
            output.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        else:
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
            output.write_text(f"# Imported from URDB; an example, dated: prices age.\n{text}", "utf-8")
    for note in tariff.document.not_represented:
        print(f"{file}: not represented: {note}")
    print(f"wrote {output}: {tariff.tariff_id}")


def _usage_error(text: str) -> typer.Exit:
    print(f"gridtally: {text}", file=sys.stderr)
    return typer.Exit(EXIT_USAGE)


def _date(text: str, option: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text.strip())
    except ValueError:
        raise _usage_error(f"{option}: {text!r} is not a date like 2026-01-31") from None


def _decimal(text: str, option: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise _usage_error(f"{option}: {text!r} is not a number")
    return value


def _edges(tariff: "Tariff", load: "Load", cycle: str) -> list[dt.date]:
    from metering.usage import CYCLES_MAX, calendar_months

    edges = (
        calendar_months(tariff, load) if cycle == "calendar" else [_date(text, "--cycle") for text in cycle.split(",")]
    )
    if len(edges) < 2 or edges != sorted(set(edges)) or len(edges) > CYCLES_MAX:
        raise _usage_error(f"--cycle: calendar, or 2 to {CYCLES_MAX} ascending dates")
    return edges


def _inputs(terms: Pairs, flags: Pairs, indices: Pairs, peaks: Pairs) -> "Inputs":
    from metering.load_file import read_series
    from metering.usage import Inputs

    series = {}
    for name, text in _split_pairs(indices, "--index"):
        with telling(Path(text)), Path(text).open(encoding="utf-8-sig", newline="") as lines:
            series[name] = read_series(lines)
    instants = []
    for text in peaks or []:
        try:
            at = dt.datetime.fromisoformat(text)
        except ValueError:
            raise _usage_error(f"--system-peak: {text!r} is not a time") from None
        if at.tzinfo is None:
            raise _usage_error(f"--system-peak: {text!r} has no offset")
        instants.append(int(at.timestamp()))
    return Inputs(
        terms={name: _decimal(text, f"--term {name}") for name, text in _split_pairs(terms, "--term")},
        flags={
            name: frozenset(_date(day, f"--flag {name}") for day in text.split(","))
            for name, text in _split_pairs(flags, "--flag")
        },
        indices=series,
        system_peaks_s=tuple(instants),
    )


def _split_pairs(pairs: Pairs, option: str) -> list[tuple[str, str]]:
    found = []
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise _usage_error(f"{option} {pair}: expected NAME=VALUE")
        found.append((name, value))
    return found


def _note_days_outside(tariff: "Tariff", edges: list[dt.date]) -> None:
    first, last = tariff.versions[0], tariff.versions[-1].document
    if edges[0] < first.valid_from:
        print(f"gridtally: days before {first.valid_from} are priced by the first version", file=sys.stderr)
    if last.valid_to and edges[-1] > last.valid_to:
        print(f"gridtally: days from {last.valid_to} on are priced by a version that ended", file=sys.stderr)


def plain(number: Decimal) -> str:
    """Return a decimal without exponent and without trailing zeros.

    Example:
        >>> plain(Decimal("1E+2")), plain(Decimal("0.500")), plain(Decimal("0E-12"))
        ('100', '0.5', '0')
    """
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("", "-0") else text


def bills_as_json(tariff: "Tariff", bills: list["Bill"]) -> dict[str, Any]:
    """Return bills as the command prints them; numbers as text."""
    from metering.bill import line_amount
    from metering.pricing.rounding import decimal_from_fraction

    cycles = []
    for bill in bills:
        lines = []
        for line in bill.lines:
            row = {
                "id": line.id,
                "kind": line.kind,
                "quantity": plain(decimal_from_fraction(line.quantity)),
                "unit": line.unit,
                "price": plain(line.price),
                "amount": f"{line_amount(tariff, line):f}",
                "amount_unrounded": plain(line.amount_unrounded),
            }
            if line.included is not None:
                row["included"] = f"{line.included:f}"
            lines.append(row)
        cycles.append(
            {
                "start": bill.start_on.isoformat(),
                "end": bill.end_on.isoformat(),
                "lines": lines,
                "total": f"{bill.total:f}",
                "total_unrounded": plain(bill.total_unrounded),
            }
        )
    total = sum((bill.total for bill in bills), Decimal(0))
    return {"currency": tariff.currency, "cycles": cycles, "total": f"{total:f}"}


def _print_bills(tariff: "Tariff", bills: list["Bill"]) -> None:
    shown = bills_as_json(tariff, bills)
    for cycle in shown["cycles"]:
        print(f"{cycle['start']} to {cycle['end']}")
        for line in cycle["lines"]:
            contained = f" (contains {line['included']})" if "included" in line else ""
            quantity = f"{line['quantity']} {line['unit']}"
            print(f"  {line['id']:<32} {quantity:>24} x {line['price']:>12} = {line['amount']:>12}{contained}")
        print(f"  {'total':<32} {cycle['total']:>54} {shown['currency']}")
    print(f"total of {len(bills)} cycle(s): {shown['total']} {shown['currency']}")
