"""docker-compose.yml as the tests read it."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def swap(text: str, places: dict[str, str]) -> str:
    """Return a text of the deployment with places of a container put where this machine has them."""
    for there, here in places.items():
        assert there in text, f"{there} is not in:\n{text}"
        text = text.replace(there, here)
    return text
