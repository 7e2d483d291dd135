"""Health check of a container: whether the process in it lives and does its work, by the address that it left.

Exit code 0 or 1; the text is what `docker inspect` shows. Only the standard library: it starts every ten seconds.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path

TIMEOUT_S = 3.0


def find_fault(run_dir: Path) -> str:
    """Return what is wrong with the processes that serve metrics in this directory; empty when nothing is."""
    paths = sorted(run_dir.glob("metrics-*.json"))
    if not paths:
        return f"no process has left its address in {run_dir} yet"
    for path in paths:
        try:
            url = json.loads(path.read_text("utf-8"))["url"]
            with urllib.request.urlopen(f"{url}/ready", timeout=TIMEOUT_S):  # noqa: S310  # written by our own process
                pass
        except (OSError, ValueError, KeyError) as error:  # 503 is an OSError too
            return f"{path.stem}: {error}"
    return ""


def main() -> int:
    """Print what is wrong, and return the exit code."""
    fault = find_fault(Path(os.environ.get("GRIDTALLY_DATA_DIR", "gridtally-data")) / "run")
    print(fault or "ready")  # noqa: T201
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
