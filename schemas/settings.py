"""Settings: one typed model; defaults, then a TOML file, then environment, then flags. An unknown key is an error."""

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

ENV_PREFIX = "GRIDTALLY_"
FILE_NAME = "gridtally.toml"
DATA_DIR_DEFAULT = Path("gridtally-data")

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(ValueError):
    """A setting is unknown or has a bad value; the message names it and where it came from."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MqttSettings(_Section):
    """The MQTT broker and how the bridge reads it."""

    url: str | None = Field(None, pattern=r"^mqtts?://[^/:]+(:\d+)?$", description="none: start the embedded broker")
    username: str | None = Field(None, description="name to sign in with")
    password: SecretStr | None = Field(None, description="secret of that name")
    password_file: Path | None = Field(None, description="file that holds the password, instead of it")
    client_id: str = Field(
        "gridtally-bridge", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="one for each bridge, never changed"
    )
    topic_filters: list[Annotated[str, Field(min_length=1)]] = Field(
        [
            "gridtally/v1/meters/+/readings",
            "gridtally/v1/meters/+/events",
            "gridtally/v1/gateways/+/readings",
        ],
        min_length=1,
        description="what this bridge carries; several bridges share by topic prefix",
    )
    window: int = Field(20_000, ge=1, le=60_000, description="messages taken and not yet acknowledged")
    fast_path: bool = Field(default=True, description="read packets ourselves; needs the pinned paho")


class KafkaSettings(_Section):
    """The Kafka cluster and our topics on it."""

    bootstrap_servers: str | None = Field(None, description="none: start the embedded broker")
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,32}$", description="before each topic name")
    partitions: int = Field(4, ge=1, le=256, description="of each topic; a meter's must never change")
    replication_factor: int = Field(1, ge=1, le=5, description="3 on a cluster")
    retention_days: int = Field(30, ge=1, description="of messages as received and of readings")


class DatabaseSettings(_Section):
    """PostgreSQL, with or without TimescaleDB."""

    dsn: SecretStr | None = Field(None, description="none: start the embedded server")
    dsn_file: Path | None = Field(None, description="file that holds the dsn, instead of it")


class BridgeSettings(_Section):
    """How the bridge makes raw frames."""

    batch_messages_max: int = Field(2000, ge=1, le=10_000, description="most messages of a frame")
    batch_wait_s: float = Field(0.02, gt=0, le=1, description="longest that a message waits for others")
    heartbeat_s: float = Field(5.0, gt=0, le=60, description="how often each partition is told the time")
    receipts: bool = Field(default=True, description="of several bridges one publishes receipts")
    receipts_wait_s: float = Field(0.5, gt=0, le=10, description="receipts of so long are published together")


class ValidateSettings(_Section):
    """How the validate agent takes raw frames."""

    batch_frames_max: int = Field(32, ge=1, le=500, description="most frames of a batch")
    batch_wait_s: float = Field(0.005, gt=0, le=1, description="longest that a frame waits for others")
    future_max_s: int = Field(900, ge=0, description="how far a meter's clock may be ahead")
    past_max_days: int = Field(400, ge=1, le=700, description="how old a reading may be")


class SettleSettings(_Section):
    """How the settle agent takes frames and writes its state."""

    batch_frames_max: int = Field(64, ge=1, le=500, description="most frames of a batch")
    batch_wait_s: float = Field(0.01, gt=0, le=1, description="longest that a frame waits for others")
    checkpoint_batches: int = Field(
        500, ge=1, description="state is written every so many batches; 1: in every transaction"
    )
    checkpoint_s: float = Field(15.0, gt=0, description="state is written at least so often")


class DetectSettings(_Section):
    """Thresholds of the detectors."""

    silent_intervals: int = Field(3, ge=1, description="a meter is silent after so many of its intervals")
    tamper_clear_s: int = Field(3600, ge=1, description="a tamper alarm clears after so long without an event")
    checkpoint_s: float = Field(5.0, gt=0, description="the detectors' state is written at least so often")
    nominal_voltage_v: float = Field(230.0, gt=0, le=1e6, description="of a phase, as meters report it")
    voltage_low_percent: float = Field(10.0, gt=0, lt=100, description="below the nominal voltage; more is an alarm")
    voltage_high_percent: float = Field(7.0, gt=0, le=100, description="above the nominal voltage; more is an alarm")
    basic_current_a: float = Field(5.0, gt=0, description="basic current of the meters")
    stuck_wh: int = Field(50, ge=1, description="energy reported as power while the register stands, until an alarm")


class ConsoleSettings(_Section):
    """Where the console listens, and by which clock it shows times."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8780, description="a free one is taken where it is taken")
    zone: str = Field("Asia/Shanghai", description="time zone of the control room; a meter's page has its tariff's")

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is not the name of a time zone, such as Asia/Shanghai") from None
        return value


class MetricsSettings(_Section):
    """Where processes show their metrics and health: on loopback, unless the network between them is closed."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port_base: Port = Field(9780, description="of the bridge; validate, settle, detect, console follow")


class BillingSettings(_Section):
    """How bills are made, and which are looked at before they go out."""

    issuer: str = Field("County Utility", min_length=1, description="name at the head of a bill")
    due_days: int = Field(21, ge=0, le=365, description="after the day of issue")
    grace_h: int = Field(12, ge=0, le=720, description="after a cycle's end, for late readings, before it is billed")
    estimated_percent_max: int = Field(10, ge=0, le=100, description="of the energy; a bill with more is held")
    change_percent_max: int = Field(25, ge=1, description="of the daily mean against last month or last year")
    change_wh_min: int = Field(1000, ge=0, description="a day; smaller changes of the daily mean are never held")
    missing_percent_max: int = Field(2, ge=0, le=100, description="of the time without readings; more is held")
    register_wh_max: int = Field(1, ge=0, description="between registers and the intervals that they frame")
    correction_cycles_max: int = Field(24, ge=1, le=120, description="closed cycles looked back at for corrections")
    workers: int = Field(2, ge=1, le=64, description="processes of a bill run")
    outbox_dir: Path | None = Field(None, description="where bills go as files; none: `bills` in the data directory")


class MailSettings(_Section):
    """The mail server that bills are sent by."""

    host: str | None = Field(None, min_length=1, description="none: bills by e-mail wait")
    port: Port = Field(587, description="of submission")
    starttls: bool = Field(default=True, description="encrypt; a server whose certificate is not good is not used")
    username: str | None = Field(None, description="name to sign in with")
    password: SecretStr | None = Field(None, description="secret of that name")
    password_file: Path | None = Field(None, description="file that holds the password, instead of it")
    sender: str | None = Field(None, description="address that bills come from, such as Billing <bills@example.org>")
    timeout_s: float = Field(30.0, gt=0, le=300, description="longest that the server may take for an answer")


class Settings(_Section):
    """Everything that can be set."""

    data_dir: Path = Field(DATA_DIR_DEFAULT, description="data of embedded components, logs, addresses")
    mqtt: MqttSettings = MqttSettings()
    kafka: KafkaSettings = KafkaSettings()
    database: DatabaseSettings = DatabaseSettings()
    bridge: BridgeSettings = BridgeSettings()
    validate_: ValidateSettings = Field(ValidateSettings(), alias="validate")
    settle: SettleSettings = SettleSettings()
    detect: DetectSettings = DetectSettings()
    console: ConsoleSettings = ConsoleSettings()
    metrics: MetricsSettings = MetricsSettings()
    billing: BillingSettings = BillingSettings()
    mail: MailSettings = MailSettings()

    @property
    def run_dir(self) -> Path:
        """Return where running processes leave their addresses."""
        return self.data_dir / "run"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Settings with where each value that is not a default came from, by dotted name."""

    settings: Settings
    origins: dict[str, str]


def load_settings(
    *,
    data_dir: Path | None = None,
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Return the settings in force.

    Args:
        data_dir: From the flag ``--data-dir``.
        config: A TOML file; by default ``gridtally.toml`` in the data directory, if it is there.
        flags: Values of further flags, by dotted name.
        environment: Of the process; ``GRIDTALLY_MQTT__URL`` sets ``mqtt.url``.

    Raises:
        SettingsError: A key is unknown, a value is bad, or a file cannot be read.
    """
    environment = os.environ if environment is None else environment
    env = _environment_values(environment)
    directory = data_dir or Path(env.get("data_dir", DATA_DIR_DEFAULT))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in (
        *_file_layer(config, directory),
        *(((ENV_PREFIX + name.replace(".", "__").upper()), {name: env[name]}) for name in sorted(env)),
        ("flag --set", dict(flags or {})),
        ("flag --data-dir", {"data_dir": data_dir} if data_dir else {}),
    ):
        for name, value in layer.items():
            _put(values, name, value)
            origins[name] = origin
    _read_secrets(values, origins)
    try:
        return Loaded(Settings.model_validate(values), origins)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None


def _environment_values(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name[len(ENV_PREFIX) :].lower().replace("__", "."): value
        for name, value in environment.items()
        if name.startswith(ENV_PREFIX)
    }


def _file_layer(config: Path | None, directory: Path) -> list[tuple[str, dict[str, Any]]]:
    path = config or directory / FILE_NAME
    if config is None and not path.exists():
        return []
    try:
        with path.open("rb") as file:
            return [(str(path), _flatten(tomllib.load(file)))]
    except (OSError, ValueError) as error:  # no TOML, or not even UTF-8
        raise SettingsError(f"{path}: {error}") from None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{name}: {section} is a value, not a section")
    if last == "topic_filters" and isinstance(value, str):
        value = value.split(",")
    values.pop(last.removesuffix("_file") if last.endswith("_file") else f"{last}_file", None)  # said before
    values[last] = value


def _read_secrets(values: dict[str, Any], origins: dict[str, str]) -> None:
    """Read each secret that is given as a file; of a secret and its file, what was said later holds."""
    for section, name in (("mqtt", "password"), ("database", "dsn"), ("mail", "password")):
        part = values.get(section, {})
        if not isinstance(part, dict) or not part.get(f"{name}_file") or name in part:
            continue
        try:
            part[name] = Path(part[f"{name}_file"]).read_text("utf-8").strip()
        except (OSError, ValueError, TypeError) as error:
            origin = origins[f"{section}.{name}_file"]
            raise SettingsError(f"{section}.{name}_file (from {origin}): {error}") from None
        origins[f"{section}.{name}"] = f"file of {section}.{name}_file"


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        name = ".".join(map(str, item["loc"]))
        what = "unknown setting" if item["type"] == "extra_forbidden" else item["msg"]
        setting = ".".join(map(str, item["loc"][:2]))  # an item of a list came from where the list did
        origin = origins.get(setting) or origins.get(str(item["loc"][0]), "default")
        lines.append(f"{name} (from {origin}): {what}")
    return "\n".join(lines)


def describe(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Return name, value and origin of every setting; secrets are hidden."""
    rows = []
    for name, value in _flatten(loaded.settings.model_dump(by_alias=True)).items():
        shown = "********" if isinstance(value, SecretStr) else str(value)
        rows.append((name, "" if value is None else shown, loaded.origins.get(name, "default")))
    return rows
