"""`gridtally notify`: who is told of alarms, and what became of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gridtally.dead_letters import ID_MAX, plain
from gridtally.options import EXIT_FAILED, EXIT_USAGE, As, AsJson, Config, DataDir, connect, fail, running, settings_of

notify_app = typer.Typer(help="Tell people and machines of alarms.", no_args_is_help=True)
receiver_app = typer.Typer(help="Who is told.", no_args_is_help=True)
rule_app = typer.Typer(help="Of what they are told.", no_args_is_help=True)
notify_app.add_typer(receiver_app, name="receiver")
notify_app.add_typer(rule_app, name="rule")
Id = Annotated[int, typer.Argument(min=1, max=ID_MAX)]


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        print("  ".join(f"{name}={plain(str(value))}" for name, value in row.items()))


@receiver_app.command("add")
def receiver_add(  # noqa: PLR0917  # options of a command
    receiver: str,
    channel: Annotated[str, typer.Option(help="webhook, mail or mqtt.")],
    address: Annotated[str, typer.Option(help="URL, e-mail address, or beginning of a topic.")],
    who: As,
    secret_file: Annotated[
        Path | None, typer.Option(help="File with the secret that webhooks are signed with.")
    ] = None,
    language: str = "en",
    rate_max: Annotated[int, typer.Option(min=1, max=10_000, help="Messages an hour.")] = 30,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Add a receiver. Example: gridtally notify receiver add desk --channel mail --address a@example.org --as ann"""
    from connectors.bill_mail import plain_address
    from metering.notification import AddressError, check_topic, check_url
    from storage.delivery import DeliveryError
    from storage.receiver import ReceiverError, add_receiver

    checks = {"webhook": check_url, "mail": plain_address, "mqtt": check_topic}
    if channel not in checks or language not in ("en", "zh"):
        fail("expected --channel webhook, mail or mqtt, and --language en or zh", EXIT_USAGE)
    try:
        address = checks[channel](address)
        secret = secret_file.read_text("utf-8").strip() if secret_file else None
    except (AddressError, DeliveryError, OSError, ValueError) as error:
        fail(str(error), EXIT_USAGE)
    if channel == "webhook" and (secret is None or len(secret) < 16):
        fail("a webhook needs --secret-file with at least 16 signs", EXIT_USAGE)
    with connect(settings_of(data_dir, config)) as conn:
        try:
            values = {
                "channel": channel,
                "address": address,
                "secret": secret,
                "language": language,
                "rate_max": rate_max,
            }
            add_receiver(conn, who, receiver, values)
        except ReceiverError as error:
            fail(str(error), EXIT_FAILED)


@receiver_app.command("list")
def receiver_list(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """List receivers. Example: gridtally notify receiver list --json"""
    _list("receivers", data_dir, config, as_json)


def _list(what: str, data_dir: Path | None, config: Path | None, as_json: bool, state: str | None = None) -> None:
    from storage.receiver import fetch

    with connect(settings_of(data_dir, config)) as conn:
        _show(fetch(conn, what, state), as_json)


@receiver_app.command("remove")
def receiver_remove(receiver: str, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Tell a receiver nothing more. Example: gridtally notify receiver remove desk --as ann"""
    from storage.receiver import remove_receiver

    _do(remove_receiver, data_dir, config, who, receiver)


def _do(action: Any, data_dir: Path | None, config: Path | None, *words: Any) -> None:
    from storage.receiver import ReceiverError

    with connect(settings_of(data_dir, config)) as conn:
        try:
            with conn.transaction():
                action(conn, *words)
        except ReceiverError as error:
            fail(str(error), EXIT_FAILED)


@rule_app.command("add")
def rule_add(  # noqa: PLR0917  # options of a command
    receiver: str,
    who: As,
    kind: Annotated[list[str] | None, typer.Option(help="May be repeated; none: all.")] = None,
    priority_max: Annotated[int, typer.Option(min=1, max=4)] = 4,
    area: str = "",
    escalate_after_s: Annotated[int | None, typer.Option(min=1, max=604_800)] = None,
    escalate_to: str | None = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Tell a receiver of alarms raised. Example: gridtally notify rule add desk --priority-max 2 --as ann"""
    from metering.alarm.catalogue import KINDS
    from metering.notification import Rule
    from storage.receiver import add_rule

    if unknown := set(kind or ()) - set(KINDS):
        fail(f"--kind {', '.join(sorted(unknown))}: expected one of {', '.join(KINDS)}", EXIT_USAGE)
    if (escalate_after_s is None) != (escalate_to is None):
        fail("--escalate-after-s and --escalate-to go together", EXIT_USAGE)
    escalation = (escalate_after_s, escalate_to) if escalate_to else None
    _do(add_rule, data_dir, config, who, receiver, Rule(kind or (), priority_max, area), escalation)


@rule_app.command("list")
def rule_list(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """List rules. Example: gridtally notify rule list"""
    _list("rules", data_dir, config, as_json)


@rule_app.command("remove")
def rule_remove(rule: Id, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """End a rule. Example: gridtally notify rule remove 3 --as ann"""
    from storage.receiver import remove_rule

    _do(remove_rule, data_dir, config, who, rule)


@notify_app.command("list")
def notify_list(
    state: str | None = None, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False
) -> None:
    """List messages, newest first. Example: gridtally notify list --state failed"""
    _list("messages", data_dir, config, as_json, state)


@notify_app.command("retry")
def notify_retry(number: Id, who: As, data_dir: DataDir = None, config: Config = None) -> None:
    """Try a message that has failed again. Example: gridtally notify retry 17 --as ann"""
    from connectors.notify.worker import now
    from storage.receiver import retry

    _do(retry, data_dir, config, who, number, now())


@notify_app.command("run")
def notify_run(data_dir: DataDir = None, config: Config = None) -> None:
    """Plan and send messages until Ctrl-C. Example: gridtally notify run --data-dir /var/lib/gridtally"""
    from connectors.notify.worker import run
    from monitoring.log import set_up_logging

    loaded = settings_of(data_dir, config)
    addresses = running(loaded, "mqtt", "database")
    set_up_logging()
    run(loaded.settings, addresses.database, addresses.mqtt)
