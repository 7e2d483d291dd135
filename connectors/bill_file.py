"""A bill as files in a directory: each whole or not there, on the disk before the delivery counts as done."""

import os
from pathlib import Path

from storage.delivery import DeliveryError


def write_bill_files(directory: Path, files: dict[str, bytes]) -> list[Path]:
    """Write files, over those of an earlier attempt; return where they are.

    Raises:
        DeliveryError: A file cannot be written.
    """
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = directory / name
            fresh = path.with_name(f".{name}.part")
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            written.append(path)
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise DeliveryError(f"{directory}: {error}", is_server_down=True) from None
    return written
