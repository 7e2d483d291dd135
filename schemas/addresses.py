"""Where the components of a running system are: from the settings, or from what the supervisor started."""

import dataclasses
import json
from collections.abc import Sequence

from schemas.settings import Settings

FILE_NAME = "addresses.json"
COMPONENTS = ("mqtt", "kafka", "database")


class AddressesError(RuntimeError):
    """A component's address is not known: nothing is set, and nothing is running in the data directory."""


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Addresses of one running system."""

    mqtt: str
    """``mqtt://host:port``."""
    kafka: str
    """``host:port,…``."""
    database: str
    """A PostgreSQL connection string; it may hold a password."""
    console: str
    """``http://host:port``."""


def resolve_addresses(settings: Settings, needed: Sequence[str] = COMPONENTS) -> Addresses:
    """Return the addresses in force: what is set wins, the rest is what `gridtally up` wrote.

    Args:
        settings: In force.
        needed: Components that the caller speaks to; the address of another may be empty.

    Raises:
        AddressesError: With what is missing.
    """
    path = settings.run_dir / FILE_NAME
    try:
        running = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise AddressesError(f"{path}: {error}; `gridtally up` writes it anew") from error
    dsn = settings.database.dsn
    found = {
        "mqtt": settings.mqtt.url or running.get("mqtt"),
        "kafka": settings.kafka.bootstrap_servers or running.get("kafka"),
        "database": dsn.get_secret_value() if dsn else running.get("database"),
        "console": running.get("console") or f"http://{settings.console.host}:{settings.console.port}",
    }
    missing = [name for name in needed if not found[name]]
    if missing:
        raise AddressesError(
            f"no address of {', '.join(missing)}: start `gridtally up --data-dir {settings.data_dir}`, or set it"
        )
    return Addresses(**{name: str(value or "") for name, value in found.items()})


def write_addresses(settings: Settings, addresses: Addresses) -> None:
    """Leave the addresses for the other processes; readable by the owner only, for it may hold a password."""
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    path = settings.run_dir / FILE_NAME
    partial = path.with_suffix(".new")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(dataclasses.asdict(addresses), indent=1), "utf-8")
    partial.replace(path)
