"""A worker whose database is a file: `python -m tests.agents.file_worker FILE DATA_DIR KAFKA PREFIX`.

The file holds one line a batch: the offsets that it committed. Words in FILE.faults, one a line, are raised one after the
other by the next commits.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from agents import consumer
from agents.consumer import Record
from monitoring.log import set_up_logging
from schemas.settings import Settings
from schemas.topic import METER_READINGS
from storage.offset import GapError

FAULTS: dict[str, type[Exception]] = {"database": psycopg.OperationalError, "gap": GapError, "defect": KeyError}


class FileHandler:
    """Commits offsets to a file, and raises what it is told to."""

    consumer = "file"

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        self.topics = (prefix + METER_READINGS,)

    def next_offsets(self, assigned: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        done = offsets_in(self.path)
        return dict.fromkeys(assigned, done[-1] + 1 if done else 0)

    def commit(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        faults = self.path.with_suffix(".faults")
        words = faults.read_text("utf-8").split() if faults.exists() else []
        if words:
            faults.write_text("\n".join(words[1:]), "utf-8")
            raise FAULTS[words[0]](words[0])
        with self.path.open("a", encoding="utf-8") as file:
            file.write(" ".join(str(record.offset) for record in records) + "\n")

    def progress(self) -> dict[tuple[str, int], tuple[int, int]]:
        return {}

    def close(self) -> None:
        pass


def offsets_in(path: Path) -> list[int]:
    return [int(word) for word in path.read_text("utf-8").split()] if path.exists() else []


def main(path: str, data_dir: str, kafka: str, prefix: str) -> None:
    set_up_logging(stream=sys.stdout)
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "kafka": {"topic_prefix": prefix, "partitions": 1},
        "metrics": {"port_base": 29780},
    }
    handler = FileHandler(Path(path), prefix)
    consumer.run(Settings.model_validate(values), kafka, handler, batch_max=10, batch_wait_s=0.01, name="file")


if __name__ == "__main__":
    main(*sys.argv[1:])
