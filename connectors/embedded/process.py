"""What the supervisor needs to know to run a process."""

import ctypes
import dataclasses
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
LOOPBACK = "127.0.0.1"


@dataclasses.dataclass
class ProcessSpec:
    """A process to keep running."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    """Whether it does its work; asked until it says yes once."""
    cwd: Path = Path("/")
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    uid_gid: tuple[int, int] | None = None
    prepare: Callable[[], None] = lambda: None
    """Called before each start; raises OSError when the process cannot be started now."""


def spawn(spec: ProcessSpec, log_path: Path) -> "subprocess.Popen[bytes]":
    """Start a process that is told to stop when its parent dies, however that happens. Call it from the main thread."""

    def die_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(spec.stop_signal))

    user, group = spec.uid_gid or (None, None)
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603  # our own commands
            list(spec.command),
            cwd=spec.cwd,
            env={**os.environ, **spec.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  # the supervisor has one thread
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )


def is_port_free(port: int) -> bool:
    """Return whether a loopback port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_port(usual: int, taken: set[int]) -> int:
    """Return the usual port, or a free one when it is taken; `taken` remembers what was given out."""
    port = usual
    while port in taken or not is_port_free(port):
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = probe.getsockname()[1]
    taken.add(port)
    return port


def is_listening(port: int) -> bool:
    """Return whether something answers on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0
