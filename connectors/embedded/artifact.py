"""Jars at pinned coordinates with their SHA-256, fetched one by one and cached.

jgo fetches single artifacts: its own dependency resolution picks a wrong kafka-clients (design §3.11).
"""

import contextlib
import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

CACHE_NAME = "gridtally"
FETCH_TRIES_MAX = 3


class ArtifactError(RuntimeError):
    """A jar cannot be fetched, or its bytes are not the pinned ones."""


def cache_dir() -> Path:
    """Return where fetched jars are kept, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / CACHE_NAME / "jars"


def fetch_jars(listing: Path, progress: Callable[[int, int, str], None] = lambda *_: None) -> list[Path]:
    """Return the jars of a listing, fetching those that the cache does not hold.

    Args:
        listing: Lines of ``group:artifact:version sha256``; ``#`` begins a comment.
        progress: Told number, count and name before each jar.

    Raises:
        ArtifactError: A jar is nowhere to be had, or is not the one that was pinned.
    """
    lines = [line.split() for line in listing.read_text("utf-8").splitlines() if line and line[0] != "#"]
    paths = []
    for number, (coordinates, sha256) in enumerate(lines, 1):
        _, artifact, version = coordinates.split(":")
        path = cache_dir() / sha256[:16] / f"{artifact}-{version}.jar"
        if not path.exists():
            progress(number, len(lines), path.name)
            _fetch(coordinates, sha256, path)
        paths.append(path)
    return paths


def _fetch(coordinates: str, sha256: str, path: Path) -> None:
    fault: Exception | None = None
    for _ in range(FETCH_TRIES_MAX):
        try:
            data = _resolve(coordinates).read_bytes()
        except Exception as error:  # noqa: BLE001  # jgo raises what it likes; each is a failed try
            fault = error
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ArtifactError(f"{coordinates} has SHA-256 {found}, pinned is {sha256}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(path)
        return
    raise ArtifactError(f"cannot fetch {coordinates}: {fault}")


def _resolve(coordinates: str) -> Path:
    from jgo.maven import MavenContext  # noqa: PLC0415  # slow to import, needed only when something is missing

    logging.getLogger("jgo").setLevel(logging.ERROR)
    group, artifact, version = coordinates.split(":")
    context = MavenContext(repo_cache=cache_dir().parent / "maven")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return Path(context.project(group, artifact).at_version(version).artifact().resolve())


def extract(jar: Path, members: dict[str, str], directory: Path) -> None:
    """Write files of a jar, by their path in it, to names in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(jar) as archive:
        for member, name in members.items():
            (directory / name).write_bytes(archive.read(member))


def _show(number: int, count: int, name: str) -> None:
    print(f"  {number:2} of {count}  {name}", flush=True)  # noqa: T201


if __name__ == "__main__":
    fetch_jars(Path(__file__).parent / "kafka_jars.txt", _show)
