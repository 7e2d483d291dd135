"""What runs in a data directory: as the supervisor left it, with whether the supervisor still lives."""

import fcntl
import json
from pathlib import Path
from typing import Any

from schemas.settings import Settings


def read_status(settings: Settings) -> dict[str, Any]:
    """Return addresses and processes as ``gridtally status --json`` prints them."""
    run_dir = settings.run_dir
    addresses = _read_json(run_dir / "addresses.json")
    state = _read_json(run_dir / "supervisor.json")
    alive = _is_locked(run_dir / "supervisor.lock")
    processes = state.get("processes", [])
    if not alive:
        processes = [{**row, "pid": None, "state": "stopped"} for row in processes]
    metrics = {
        path.stem.removeprefix("metrics-"): _read_json(path).get("url")
        for path in sorted(run_dir.glob("metrics-*.json"))
    }
    given = {"mqtt": settings.mqtt.url, "kafka": settings.kafka.bootstrap_servers}
    names = ("mqtt", "kafka", "database", "console")
    return {
        **{name: given.get(name) or addresses.get(name) for name in names},
        "metrics": metrics,
        "processes": processes,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
