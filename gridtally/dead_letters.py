"""`gridtally dead-letters`: see and replay what was refused."""

import json
import sys
from typing import Annotated

import typer

from gridtally.options import (
    EXIT_FAILED,
    EXIT_TEMPORARY,
    EXIT_USAGE,
    AsJson,
    Config,
    DataDir,
    connect,
    fail,
    running,
    settings_of,
)

ID_MAX = 2**63 - 1

letters_app = typer.Typer(help="See and replay what was refused.", no_args_is_help=True)


def plain(text: str) -> str:
    """Return a text with every control sign written out: what senders wrote must not steer the operator's terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def reason_of(code: str | None) -> str | None:
    """Return a reason for refusals, or end the command when there is none of that name."""
    from schemas.reject import RejectCode

    words = [one.word for one in RejectCode]
    if code is not None and code not in words:
        fail(f"--code {code}: expected one of {', '.join(words)}", EXIT_USAGE)
    return code


@letters_app.command("list")
def letters_list(
    data_dir: DataDir = None,
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    code: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first. Example: gridtally dead-letters list --code unknown_meter --json"""
    from storage.dead_letter import fetch_dead_letters

    code = reason_of(code)
    with connect(settings_of(data_dir, config)) as conn:
        rows = fetch_dead_letters(conn, limit=limit, code=code)
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        where = f"{row['raw_partition']}/{row['raw_offset']}/{row['raw_index']}"
        print(
            f"{row['dead_letter_id']:8} {row['received_at']:%Y-%m-%d %H:%M:%S} {row['stage']:9} {row['code']:22}"
            f" {plain(row['meter_id'] or '-'):20} {where:16} {row['state']:9} {plain(row['detail'][:80])}"
        )


@letters_app.command("show")
def letters_show(
    dead_letter_id: Annotated[int, typer.Argument(min=1, max=ID_MAX)], data_dir: DataDir = None, config: Config = None
) -> None:
    """Show one dead letter with its bytes and what to do about it. Example: gridtally dead-letters show 17

    On a terminal control signs are written out; into a file or a pipe the bytes go as they are.
    """
    from schemas.reject import OPERATOR_ACTIONS, RejectCode
    from storage.dead_letter import fetch_dead_letter

    with connect(settings_of(data_dir, config)) as conn:
        row = fetch_dead_letter(conn, dead_letter_id)
    if row is None:
        fail(f"no dead letter {dead_letter_id}", EXIT_FAILED)
    payload = bytes(row.pop("payload"))
    for name, value in row.items():
        print(f"{name:16} {plain(str(value))}")
    print(f"{'to do':16} {OPERATOR_ACTIONS[RejectCode[row['code'].upper()]]}")
    print(f"{'payload':16} {len(payload)} bytes")
    sys.stdout.flush()
    if sys.stdout.isatty():
        print(plain(payload.decode(errors="backslashreplace")))
    else:
        sys.stdout.buffer.write(payload + b"\n")


@letters_app.command("replay")
def letters_replay(
    dead_letter_id: Annotated[
        list[int] | None, typer.Argument(min=1, max=ID_MAX, help="Which; or --code for all of a reason.")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
    code: Annotated[str | None, typer.Option(help="All new ones of this reason.")] = None,
) -> None:
    """Send dead letters through the path again, after what was wrong has been put right.

    Example: gridtally import meters new.csv --as ann && gridtally dead-letters replay --code unknown_meter
    """
    from connectors.dead_letter_replay import DeadLetterReplayError, replay_dead_letters
    from storage.dead_letter import REPLAYED_MAX

    if not dead_letter_id and not code:
        fail("name dead letters, or give --code", EXIT_USAGE)
    code = reason_of(code)
    loaded = settings_of(data_dir, config)
    addresses = running(loaded, "kafka", "database")
    with connect(loaded) as conn:
        try:
            count = replay_dead_letters(conn, loaded.settings.kafka, addresses.kafka, dead_letter_id or [], code)
        except DeadLetterReplayError as error:
            fail(f"nothing was replayed: {error}", EXIT_TEMPORARY)
    print(f"replayed {count} dead letters" + ("; there may be more: run it again" if count == REPLAYED_MAX else ""))
