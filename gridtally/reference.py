"""Writes docs/reference.md from the code: `python -m gridtally.reference docs/reference.md` (`make docs`)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from pydantic import BaseModel, SecretStr

import monitoring.metrics
from schemas.reject import OPERATOR_ACTIONS
from schemas.settings import ENV_PREFIX, Settings
from schemas.topic import KAFKA_TOPICS, TOPIC_MEANINGS

ORDER = ("Settings", "Kafka topics", "Reasons of dead letters", "Metrics")


def settings_rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Return name, default and meaning of each setting."""
    for name, field in model.model_fields.items():
        dotted = prefix + (field.alias or name)
        if isinstance(field.default, BaseModel):
            yield from settings_rows(type(field.default), f"{dotted}.")
            continue
        yield f"`{dotted}`", _shown(field.default), field.description or ""


def _shown(default: Any) -> str:
    if default is None or isinstance(default, SecretStr):
        return ""
    if isinstance(default, list):
        return ", ".join(f"`{item}`" for item in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if str(default) else ""


def metric_rows() -> Iterator[tuple[str, ...]]:
    """Return name, kind and meaning of each metric of ours."""
    assert monitoring.metrics  # importing it registers them
    for family in sorted(REGISTRY.collect(), key=lambda item: item.name):
        if family.name.startswith("gridtally_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield f"`{name}`", family.type, family.documentation


def table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def reference() -> str:
    """Return the whole page."""
    parts = {
        "Settings": f"In `gridtally.toml` (a section a dot), then environment (`{ENV_PREFIX}MQTT__URL` is `mqtt.url`), then"
        " flags (`--set NAME=VALUE`). `gridtally config` prints what is in force and where it came from.\n\n"
        + table(("setting", "default", "meaning"), settings_rows(Settings)),
        "Kafka topics": table(
            ("topic", "what is on it"), ((f"`{topic}`", TOPIC_MEANINGS[topic]) for topic in KAFKA_TOPICS)
        ),
        "Reasons of dead letters": table(
            ("code", "what to do"), ((f"`{code.word}`", text) for code, text in OPERATOR_ACTIONS.items())
        ),
        "Metrics": "`/metrics` of each process, beside `/health` (its loop turns) and `/ready` (it does its work);"
        " `gridtally status --json` has the addresses.\n\n" + table(("metric", "kind", "meaning"), metric_rows()),
    }
    body = "\n\n".join(f"## {name}\n\n{parts[name]}" for name in ORDER)
    return f"# Reference\n\nWritten by `make docs` from the code.\n\n{body}\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), "utf-8")
