"""The components that we start: pinned to the byte, on loopback only, as an ordinary user, wherever the data lie."""

import hashlib
import json
import os
import pwd
import re
import stat
import zipfile
from pathlib import Path

import psycopg
import pytest

from connectors.embedded import artifact, nats, postgres
from connectors.embedded.artifact import ArtifactError, extract, fetch_jars
from connectors.embedded.kafka import JARS
from connectors.embedded.nats import MESSAGES_BYTES_MAX, STORE_BYTES_MAX, cap_messages
from connectors.embedded.postgres import PostgresStartError
from tests.fixtures.stack import Stack

# -- jars --------------------------------------------------------------------------------------------------------


def test_every_jar_is_named_with_version_and_sha_256() -> None:
    lines = [line for line in JARS.read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert len(lines) > 40
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+:[\w.-]+:[\w.-]+ [0-9a-f]{64}", line)]
    assert any("kafka_2.13:4.1.1" in line for line in lines)


def test_the_jars_that_run_have_the_pinned_bytes() -> None:
    lines = [line.split() for line in JARS.read_text("utf-8").splitlines() if line and line[0] != "#"]
    paths = fetch_jars(JARS)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == [line[1] for line in lines]


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A listing of one small jar, which the repository in `tmp_path / "there"` has, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = tmp_path / "there.jar"
    with zipfile.ZipFile(there, "w") as jar:
        jar.writestr("META-INF/resources/x.js", "let x")
    monkeypatch.setattr(artifact, "_resolve", lambda _: there)
    path = tmp_path / "jars.txt"
    path.write_text(f"# one\n\ng:a:1 {hashlib.sha256(there.read_bytes()).hexdigest()}\n", "utf-8")
    return path


def test_a_jar_is_fetched_once_and_then_taken_from_the_cache(listing: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    (path,) = fetch_jars(listing, lambda *words: told.append(words))
    assert path.is_relative_to(tmp_path / "cache" / "gridtally")
    assert fetch_jars(listing, lambda *words: told.append(words)) == [path]
    assert told == [(1, 1, "a-1.jar")]
    extract(path, {"META-INF/resources/x.js": "x.js"}, tmp_path / "out")
    assert (tmp_path / "out" / "x.js").read_text("utf-8") == "let x"


def test_a_jar_with_other_bytes_is_refused_and_not_kept(listing: Path, tmp_path: Path) -> None:
    (tmp_path / "there.jar").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"g:a:1 has SHA-256 \w+, pinned is \w+"):
        fetch_jars(listing)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_jar_that_cannot_be_had_is_named_after_three_tries(listing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def resolve(coordinates: str) -> Path:
        tries.append(coordinates)
        raise ConnectionError("no route")

    monkeypatch.setattr(artifact, "_resolve", resolve)
    with pytest.raises(ArtifactError, match="cannot fetch g:a:1: no route"):
        fetch_jars(listing)
    assert tries == ["g:a:1"] * 3


# -- PostgreSQL --------------------------------------------------------------------------------------------------


def test_a_user_enters_a_directory_only_through_all_its_parents(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    inner = Path("/tmp") / f"edges-{os.getpid()}" / "a" / "b"
    inner.mkdir(parents=True)
    try:
        for mode, can in ((0o755, True), (0o711, True), (0o700, False), (0o750, False)):
            inner.parent.chmod(mode)
            assert postgres._can_enter(inner, nobody) is can
        inner.parent.chmod(0o755)
        assert postgres._can_enter(inner / "not there yet", nobody)
    finally:
        inner.rmdir()
        inner.parent.rmdir()
        inner.parent.parent.rmdir()


def test_root_without_an_ordinary_user_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def getpwnam(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    with pytest.raises(PostgresStartError, match="must not run as root, and there is no user postgres or nobody"):
        postgres._unprivileged()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert postgres._unprivileged() is None


@pytest.mark.stack
def test_the_databases_password_is_for_its_owner_only_and_in_no_command_line(stack: Stack) -> None:
    password = str(psycopg.conninfo.conninfo_to_dict(stack.addresses["database"])["password"])
    assert len(password) >= 24
    for name in ("postgres/password", "run/addresses.json"):
        path = stack.data_dir / name
        assert password in path.read_text("utf-8")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for row in stack.status()["processes"]:
        assert password.encode() not in Path(f"/proc/{row['pid']}/cmdline").read_bytes()
    for log in (stack.data_dir / "log").iterdir():
        assert password not in log.read_text("utf-8", errors="replace"), log.name


# -- all of them -------------------------------------------------------------------------------------------------

LISTENING = "0A"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def listens_at(pid: int) -> set[str]:
    """Return the local addresses, in hexadecimal as the kernel shows them, on which a process listens."""
    links = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    found = set()
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text("utf-8").splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and f"socket:[{words[9]}]" in links:
                found.add(words[1].split(":")[0])
    return found


@pytest.mark.stack
def test_every_process_listens_on_loopback_only(stack: Stack) -> None:
    listening = {row["name"]: listens_at(row["pid"]) for row in stack.status()["processes"]}
    assert {name for name, places in listening.items() if not places} == set(), "sometimes: each listens somewhere"
    assert set().union(*listening.values()) <= LOOPBACK, listening


@pytest.mark.stack
def test_the_brokers_store_of_messages_is_capped_below_the_whole(stack: Stack) -> None:
    """At the limit of the whole store nobody can connect, not even the bridge that would drain it."""
    config = (stack.data_dir / "mqtt" / "nats.conf").read_text("utf-8")
    found = re.search(r'^listen: "127\.0\.0\.1:(\d+)"', config, re.MULTILINE)
    assert found
    info = stack.wait(
        lambda: (
            (one := nats._ask(int(found[1]), "$JS.API.STREAM.INFO.$MQTT_msgs", b""))["config"]["max_bytes"] > 0 and one
        ),
        20,
        "the cap",
    )
    assert (info["config"]["max_bytes"], info["config"]["discard"]) == (MESSAGES_BYTES_MAX, "new")
    assert MESSAGES_BYTES_MAX < STORE_BYTES_MAX
    assert cap_messages(int(found[1])), "again changes nothing"


def test_the_brokers_configuration_holds_any_path() -> None:
    text = nats._configuration(Path('/tmp/Zähler "x" 电表'), 1, 2)
    (line,) = [line for line in text.splitlines() if "store_dir" in line]
    assert json.loads(line.split(":", 1)[1]) == '/tmp/Zähler "x" 电表/store'
    assert "\\u" not in line, "nats-server knows no such escape"
