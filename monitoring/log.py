"""Structured logs: one JSON object a line on stderr, with an event name."""

import datetime as dt
import json
import logging
import sys
from typing import Any, TextIO


class EventLogger:
    """Logs events by name, with facts as fields."""

    def __init__(self, name: str) -> None:
        """Log under a module's name."""
        self._logger = logging.getLogger(name)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        self._logger.log(level, event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """Log what is as it should be."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what passes by itself, or should."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what needs someone."""
        self._log(logging.ERROR, event, fields)


def get_logger(name: str) -> EventLogger:
    """Return the logger of a module."""
    return EventLogger(name)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line = {
            "at": moment,
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up_logging(level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all logs of this process to stderr, or another stream, as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("aiokafka", "faust", "mode", "asyncio", "kafka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
