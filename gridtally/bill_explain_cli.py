"""`gridtally bill explain`: an amount followed back to the messages that caused it."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gridtally.bill_options import BillName, print_json
from gridtally.dead_letters import plain
from gridtally.options import EXIT_FAILED, AsJson, Config, DataDir, connect, fail, settings_of

if TYPE_CHECKING:
    from schemas.settings import Loaded
    from storage.bill_explain import LineExplained


def bill_explain(  # options
    bill: BillName,
    data_dir: DataDir = None,
    config: Config = None,
    *,
    line: Annotated[str | None, typer.Option(help="Id or number of a line. Default: all lines")] = None,
    limit: Annotated[int, typer.Option(min=1, max=20_000, help="Readings of a line.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Say where amounts are from: tariff version and price, intervals, readings with quality, raw messages.

    Example: gridtally bill explain 2026-000123 --line energy-peak
    """
    from storage.bill import BillError
    from storage.bill_explain import explain_bill

    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        try:
            explained = explain_bill(conn, bill, line)
        except BillError as error:
            fail(str(error), EXIT_FAILED)
    lines = [_with_messages(loaded, item, limit) for item in explained.lines]
    if as_json:
        print_json(
            {
                "bill": dataclasses.asdict(explained.bill),
                "position": explained.position,
                "known_at": explained.known_at,
                "lines": [
                    {**msgspec.to_builtins(dataclasses.asdict(item)), "line": msgspec.to_builtins(item.line)}
                    for item in lines
                ],
            }
        )
        return
    where = ", ".join(f"{partition}/{offset}" for partition, offset in sorted(explained.position.items()))
    print(
        f"bill {explained.bill.name}: facts below {where or 'nothing'}, master data of {explained.known_at.isoformat()}"
    )
    for item in lines:
        _print_line(item)


def _with_messages(loaded: "Loaded", item: "LineExplained", limit: int) -> "LineExplained":
    """Return a line with the raw messages of its first readings, where Kafka runs."""
    from schemas.addresses import AddressesError, resolve_addresses
    from storage.bill_explain import with_messages
    from storage.raw_record import RawMessages

    readings = item.readings[:limit]
    try:
        address = resolve_addresses(loaded.settings, ("kafka",)).kafka
    except AddressesError:
        return dataclasses.replace(item, readings=tuple(readings))
    messages = RawMessages(address, loaded.settings.kafka.topic_prefix)
    try:
        return dataclasses.replace(item, readings=tuple(with_messages(readings, messages, limit)))
    finally:
        messages.close()


def _print_line(item: "LineExplained") -> None:
    line = item.line
    print(
        f"\n{line.line_id}: {line.amount} ({line.amount_unrounded} unrounded) = {line.quantity} {line.unit} x {line.price}"
    )
    print(f"  {line.start_on} to {line.end_on}: {item.basis}" + (f"; {line.reason}" if line.reason else ""))
    if item.tariff is not None:
        used = item.tariff
        listed = (
            "" if used.listed_price is None else f", {used.season or 'all year'} {used.period}: {used.listed_price}"
        )
        print(
            f"  tariff {used.tariff_id}, version from {used.valid_from}{listed}"
            f" (document {used.tariff_document_no}, sha256 {used.document_sha256[:16]})"
        )
    if item.intervals:
        estimated = sum(interval.estimated_wh for interval in item.intervals)
        print(f"  {len(item.intervals)} intervals, {item.energy_wh} Wh, {estimated} Wh of them estimated in time")
    for reading in item.readings:
        print(
            f"  {reading.meter_id} {reading.start_at:%Y-%m-%d %H:%M:%S} - {reading.end_at:%Y-%m-%d %H:%M:%S}"
            f" {reading.energy_wh:>8} Wh, register {reading.import_wh} Wh, {reading.quality}"
            f"; meter.raw {reading.raw_partition}/{reading.raw_offset}/{reading.raw_index}"
        )
        if reading.raw_topic:
            print(f"      {plain(reading.raw_topic)}: {plain(reading.raw_payload)}")
