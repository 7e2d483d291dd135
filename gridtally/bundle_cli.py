"""`gridtally bill bundle`, `verify` and `public-key`: a bill that proves itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gridtally.bill_options import BillName, print_json
from gridtally.options import EXIT_FAILED, EXIT_USAGE, AsJson, Config, DataDir, connect, fail, settings_of

SHOWN_MAX = 200
Out = Annotated[Path | None, typer.Option("-o", "--output", help="File to write.")]


def bundle_of(conn: Any, bill_no: str, data_dir: Path) -> bytes:
    """Return the signed bundle of an issued bill."""
    from connectors.bill_key import signing_key
    from metering.bundle import encode_bundle, sign_bundle
    from storage.bill_bundle import fetch_bundle_parts

    return encode_bundle(sign_bundle(fetch_bundle_parts(conn, bill_no), signing_key(data_dir)))


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, or end the command."""
    fresh = path.with_name(f".{path.name}.part")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        fail(f"{path} cannot be written: {error}", EXIT_USAGE)


def bill_bundle(
    bill: BillName,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Write a bill with all that it was made of, signed. Example: gridtally bill bundle 2026-000123 -o 2026-000123.json"""
    from connectors.bill_key import KeyFileError
    from storage.bill import BillError

    loaded = settings_of(data_dir, config)
    with connect(loaded) as conn:
        try:
            content = bundle_of(conn, bill, loaded.settings.data_dir)
        except (BillError, KeyFileError) as error:
            fail(str(error), EXIT_FAILED)
    write_file(output, content)
    print(f"{output}: {len(content)} bytes")


def bill_verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle of a bill, a JSON file.")],
    public_key: Annotated[Path | None, typer.Option(help="The issuer's public key, a PEM file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a bill again from its bundle alone, and say what differs; no server, no database.

    Exit code 0 if nothing does, 1 if anything does. Example: gridtally bill verify 2026-000123.json --public-key utility.pem
    """
    from connectors.bill_key import KeyFileError, read_public_key
    from metering.bundle import BUNDLE_BYTES_MAX, BundleError, decode_bundle, verify_bundle
    from storage.bill_bundle import recompute

    try:
        trusted = read_public_key(public_key) if public_key else None
        with bundle.open("rb") as file:
            verdict = verify_bundle(decode_bundle(file.read(BUNDLE_BYTES_MAX + 1)), trusted, recompute)
    except OSError as error:
        fail(f"{bundle}: {error}", EXIT_USAGE)
    except KeyFileError as error:
        fail(str(error), EXIT_USAGE)
    except BundleError as error:
        fail(f"{bundle}: {error}", EXIT_FAILED)
    if as_json:
        import dataclasses

        print_json({"is_proven": verdict.is_proven, **dataclasses.asdict(verdict)})
    else:
        _print(verdict)
    raise typer.Exit(0 if verdict.is_proven else EXIT_FAILED)


def _print(verdict: Any) -> None:
    from gridtally.dead_letters import plain

    for item in verdict.differences[:SHOWN_MAX]:
        print(plain(f"{item.where}: {item.given}, but {item.recomputed}"))
    if len(verdict.differences) > SHOWN_MAX:
        print(f"and {len(verdict.differences) - SHOWN_MAX} more")
    for note in verdict.notes:
        print(plain(f"note: {note}"))
    number = plain(verdict.bill_no)
    if verdict.is_proven:
        print(f"bill {number}: made again from its readings, nothing differs; signed by key {plain(verdict.key_id)}")
    else:
        print(f"bill {number}: {len(verdict.differences)} differences")


def bill_public_key(output: Out = None, data_dir: DataDir = None, config: Config = None) -> None:
    """Print the public key that bundles are verified with. Example: gridtally bill public-key > utility.pem"""
    from connectors.bill_key import KeyFileError, public_pem, signing_key

    try:
        text = public_pem(signing_key(settings_of(data_dir, config).settings.data_dir).public_key())
    except KeyFileError as error:
        fail(str(error), EXIT_FAILED)
    if output is None:
        print(text, end="")
    else:
        write_file(output, text.encode())
