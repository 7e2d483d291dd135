"""`gridtally up`: the supervisor in the foreground."""

import sys
import time
from pathlib import Path

from connectors.supervisor import Supervisor, SupervisorError
from monitoring.log import set_up_logging
from schemas.settings import Loaded

EXIT_CANNOT_START = 3


def say(text: str) -> None:
    """Tell the user what is going on."""
    print(text, flush=True)


def start(loaded: Loaded, settle_workers: int, config: Path | None) -> Supervisor | None:
    """Start everything; None when it cannot be, after saying why."""
    log_dir = loaded.settings.data_dir / "log"
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        set_up_logging(stream=(log_dir / "supervisor.log").open("a", encoding="utf-8"))
    except OSError as error:
        print(f"gridtally: the data directory cannot be used: {error}", file=sys.stderr)
        return None
    supervisor = Supervisor(loaded.settings, settle_workers, config)
    try:
        addresses = supervisor.start(say)
    except SupervisorError as error:
        print(f"gridtally: {error}", file=sys.stderr)
        supervisor.stop()
        return None
    say(f"console   {addresses.console}")
    say(f"mqtt      {addresses.mqtt}")
    say(f"kafka     {addresses.kafka}")
    return supervisor


def run_up(loaded: Loaded, settle_workers: int, config: Path | None) -> int:
    """Run until a signal; return the exit code."""
    supervisor = start(loaded, settle_workers, config)
    if supervisor is None:
        return EXIT_CANNOT_START
    say("Ctrl-C stops everything")
    supervisor.run()
    began = time.monotonic()
    say("stopping")
    supervisor.stop()
    say(f"stopped in {time.monotonic() - began:.1f} s")
    return 0
