"""`gridtally bill pdf`, `html`, `send` and `deliveries`: the bill on paper and its way to the customer."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gridtally.bill_options import BillName, print_json, utc_now
from gridtally.bundle_cli import write_file
from gridtally.options import (
    EXIT_FAILED,
    EXIT_TEMPORARY,
    EXIT_USAGE,
    As,
    AsJson,
    Config,
    DataDir,
    Set,
    connect,
    fail,
    settings_of,
)

STATES = ("queued", "sent", "failed")
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]


def _paper(bill: str, data_dir: Path | None, config: Path | None) -> Any:
    from connectors.paper.sheet import Paper
    from storage.bill import BillError
    from storage.bill_paper import fetch_on_paper

    with connect(settings_of(data_dir, config)) as conn:
        try:
            found = fetch_on_paper(conn, bill)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    return Paper(found.document, found.tariffs, found.balance_before)


def bill_pdf(bill: BillName, output: Output, data_dir: DataDir = None, config: Config = None) -> None:
    """Write a bill as PDF. Example: gridtally bill pdf 2026-000123 -o 2026-000123.pdf"""
    from connectors.paper.print import bill_pdf as render

    write_file(output, render(_paper(bill, data_dir, config)))


def bill_html(bill: BillName, output: Output, data_dir: DataDir = None, config: Config = None) -> None:
    """Write a bill as a page for phone and printer. Example: gridtally bill html 2026-000123 -o 2026-000123.html"""
    from connectors.paper.page import bill_html as render

    write_file(output, render(_paper(bill, data_dir, config)).encode())


def bill_send(
    bill: Annotated[
        list[str] | None, typer.Argument(help="Numbers of bills. None: only what is queued and due.")
    ] = None,
    *,
    who: As,
    run: Annotated[int | None, typer.Option(help="All issued bills of a bill run.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Queue bills as their contracts say (e-mail, file, none), and send all that is due.

    Run it again, without bills, to try failed ones again when they are due. Exit code 75 if any failed.
    Example: gridtally bill send --run 3 --as ann
    """
    from connectors.bill_key import KeyFileError, signing_key
    from connectors.bill_sender import BillSender
    from gridtally.dead_letters import plain
    from storage.bill import BillError
    from storage.delivery import queue_deliveries

    loaded = settings_of(data_dir, config, set_)
    settings = loaded.settings
    with connect(loaded) as conn:
        try:
            key = signing_key(settings.data_dir)
            queued = queue_deliveries(conn, who=who, bill_nos=bill, bill_run_no=run) if bill or run is not None else {}
        except (BillError, KeyFileError) as error:
            fail(str(error), EXIT_FAILED)
        outbox_dir = settings.billing.outbox_dir or settings.data_dir / "bills"
        found = BillSender(conn, settings.mail, outbox_dir, key).work_off(utc_now)
    if as_json:
        failed = [
            {"delivery_no": item.delivery_no, "bill_no": item.bill_no, "error": text} for item, text in found.failed
        ]
        print_json({"queued": queued, "sent": found.sent, "failed": failed, "stopped": found.stopped})
    else:
        if queued:
            print("queued: " + ", ".join(f"{count} {name}" for name, count in queued.items()))
        print(f"sent: {found.sent}, failed: {len(found.failed)}")
        for item, text in found.failed:
            print(plain(f"  {item.bill_no} to {item.address}: {text}"))
        for text in found.stopped:
            print(plain(f"not sent on by {text}"))
    if found.failed:
        raise typer.Exit(EXIT_TEMPORARY)


def bill_deliveries(
    state: Annotated[str | None, typer.Option(help="queued, sent or failed.")] = None,
    retry: Annotated[int | None, typer.Option(help="Queue this delivery again; needs --as.")] = None,
    who: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who retries, for the audit trail.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first, or retry one. Example: gridtally bill deliveries --state failed"""
    from gridtally.dead_letters import plain
    from storage.bill import BillError
    from storage.delivery import fetch_deliveries, retry_delivery

    if state is not None and state not in STATES:
        fail(f"--state {state}: expected one of {', '.join(STATES)}", EXIT_USAGE)
    if retry is not None and not (who or "").strip():
        fail("--retry needs --as NAME", EXIT_USAGE)
    with connect(settings_of(data_dir, config)) as conn:
        if retry is not None:
            try:
                number = retry_delivery(conn, retry, who=str(who), now=utc_now())
            except BillError as error:
                fail(str(error), EXIT_FAILED)
            print(f"delivery {retry} of bill {number} is queued: `gridtally bill send --as NAME` sends it")
            return
        rows = fetch_deliveries(conn, state, limit)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        when = row["sent_at"] if row["state"] == "sent" else row["next_attempt_at"]
        print(
            plain(
                f"{row['delivery_no']:8} {row['bill_no']:12} {row['channel']:6} {row['state']:7} {row['attempts']:2}"
                f" {when:%Y-%m-%d %H:%M} {row['address']} {row['last_error']}"
            )
        )
