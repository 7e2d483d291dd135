"""The services of docker-compose.yml as processes with its settings: everything but the containers themselves."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from connectors.meter_log import MeterSender
from schemas.frame import decode_readings
from schemas.topic import METER_RAW, METER_READINGS
from tests.deploy.compose import ROOT, SERVICES
from tests.deploy.shape import LOOPBACK, METRICS_HOST, PROCESSES, Shape, free_port, missing_part

MISSING = missing_part()
METERS = 50
QUARTERS_A_DAY = 96
HONEST_WH, FORGED_WH = 1_000, 900_000

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shape]:
    """Broker, Kafka and database, migrated, with two meters and the users of the broker."""
    shape = Shape(tmp_path_factory.mktemp("production shape"))
    try:
        shape.start_components()
        done = shape.run("migrate")
        assert done.returncode == 0, done.stderr
        assert "imported tariff county-residential" in done.stdout
        done = shape.run("admin", "import", "meters", "/dev/stdin", "--as", "tests", stdin="meter_id\nhonest\nvictim\n")
        assert done.returncode == 0, done.stderr
        yield shape
    finally:
        shape.stop_all()


@pytest.fixture
def shape(components: Shape, monkeypatch: pytest.MonkeyPatch) -> Shape:
    """The whole shape at work; a test may have stopped our processes."""
    if not set(PROCESSES) <= set(components.processes):
        components.start_processes()
    monkeypatch.setenv("SSL_CERT_FILE", str(components.secrets / "mqtt_ca.crt"))
    return components


def add_user(shape: Shape, name: str) -> str:
    """Return the new password of a user of the broker that runs."""
    password = shape.script("mqtt-user.sh", name).strip()
    shape.processes["mqtt"].send_signal(signal.SIGHUP)
    return password


def sign_in(shape: Shape, user: str, password: str, **options: Any) -> MeterSender:
    sender = shape.sender(user, password, **options)

    def is_open() -> bool:
        sender.poll(0.05)
        return sender.is_open

    shape.wait(is_open, f"{user} to be let in", 15)  # a changed password is read when the signal is handled
    return sender


def is_refused(shape: Shape, sender: MeterSender, lines: int) -> bool:
    """Return whether the broker refuses a sender, by its log after the first lines."""
    sender.poll(0.05)
    return any("not authorised" in line for line in shape.log("mqtt").splitlines()[lines:])


def reading(seq: int, import_wh: int, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "read_at": 1_795_000_000 + 900 * seq, "import_wh": import_wh, **more}


def publish(shape: Shape, sender: MeterSender, place: str, payload: Any) -> None:
    sender.publish_later(f"gridtally/v1/{place}", json.dumps(payload).encode())
    assert sender.wait_until_acknowledged(15)  # what is refused is acknowledged too: only the receipt tells


def wait_receipt(shape: Shape, sender: MeterSender, meter_id: str, seq: int) -> None:
    def is_heard() -> bool:
        sender.poll(0.05)
        return sender.receipted.get(meter_id, -1) >= seq

    shape.wait(is_heard, f"the receipt of {meter_id} {seq}", 30)


def readings_of(shape: Shape, meter_id: str) -> list[int]:
    query = f"select import_wh from fact join meter using (meter_no) where meter_id = '{meter_id}' order by end_at"
    return [row[0] for row in shape.sql(query)]


def test_a_simulated_town_is_receipted_over_tls_and_the_books_balance(shape: Shape) -> None:
    password = add_user(shape, "head-end")
    words = ("simulate", "--once", "--days", "1", "--meters", str(METERS))
    done = shape.run("admin", *words, GRIDTALLY_MQTT__PASSWORD=password)
    assert done.returncode == 0, done.stdout + done.stderr  # it ends when receipts cover everything
    (facts,) = shape.sql("select count(*) from fact join meter using (meter_no) where meter_id like 'm-%'")[0]
    assert facts >= METERS * QUARTERS_A_DAY
    assert facts % METERS == 0
    done = shape.run("admin", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_meter_publishes_as_itself_and_as_nobody_else(shape: Shape) -> None:
    honest = sign_in(shape, "meters/honest", add_user(shape, "meters/honest"))
    victim = sign_in(shape, "meters/victim", add_user(shape, "meters/victim"))
    head_end = sign_in(shape, "head-end", add_user(shape, "head-end"))
    refused_before = shape.sql("select count(*) from dead_letter")
    publish(shape, honest, "meters/honest/readings", reading(0, HONEST_WH))
    wait_receipt(shape, honest, "honest", 0)

    forged = reading(7, FORGED_WH)
    publish(shape, honest, "meters/victim/readings", forged)
    publish(shape, honest, "meters/victim/events", {"seq": 1, "at": forged["read_at"], "code": "cover_open"})
    publish(shape, honest, "meters/victim/receipts", {"boot_id": 0, "seq": 99, "read_at": ""})
    publish(shape, honest, "gateways/gw-9/readings", [{**forged, "meter_id": "victim"}])
    publish(shape, honest, "gateways/honest/readings", [{**forged, "meter_id": "victim"}])
    # what comes after the forgeries on the same ways shows that they would have come by now
    publish(shape, victim, "meters/victim/readings", reading(0, HONEST_WH))
    for seq, gateway in ((1, "gw-9"), (2, "honest")):
        publish(shape, head_end, f"gateways/{gateway}/readings", [reading(seq, HONEST_WH + seq, meter_id="honest")])
    wait_receipt(shape, victim, "victim", 0)
    wait_receipt(shape, honest, "honest", 2)
    assert readings_of(shape, "victim") == [HONEST_WH]
    assert victim.receipted == {"victim": 0}  # no forged receipt, and none of another meter
    assert shape.sql("select count(*) from dead_letter") == refused_before
    assert shape.sql("select count(*) from alarm where subject like '%victim%'") == [(0,)]
    for sender in (honest, victim, head_end):
        sender.shut()


@pytest.mark.parametrize("user", ["gridtally-bridge", "gridtally-health"])
def test_our_own_users_may_not_publish_readings(shape: Shape, user: str) -> None:
    role = user.removeprefix("gridtally-")
    password = (shape.secrets / f"mqtt_{role}_password").read_text("utf-8")
    head_end = sign_in(shape, "head-end", add_user(shape, "head-end"))
    ours = sign_in(shape, user, password, client_id=f"test-{role}", tls=False)
    seq = 100 if role == "bridge" else 200
    publish(shape, ours, "meters/honest/readings", reading(seq, FORGED_WH))
    publish(shape, head_end, "meters/honest/readings", reading(seq + 1, HONEST_WH + seq))
    shape.wait(lambda: HONEST_WH + seq in readings_of(shape, "honest"), "the reading after the forgery", 30)
    assert FORGED_WH not in readings_of(shape, "honest")
    ours.shut()
    head_end.shut()


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(("user", "password"), [("head-end", "guessed"), ("meters/unknown", ""), ("", "")])
def test_nobody_is_let_in_without_the_right_password(shape: Shape, user: str, password: str, tls: bool) -> None:
    sender = shape.sender(user, password, tls=tls)
    lines = len(shape.log("mqtt").splitlines())
    shape.wait(lambda: is_refused(shape, sender, lines), "the broker to refuse", 15)
    assert not sender.is_open


def test_a_meter_cannot_take_the_bridges_session_over(shape: Shape) -> None:
    settings = SERVICES["bridge"]["environment"]
    thief = sign_in(
        shape, "meters/honest", add_user(shape, "meters/honest"), client_id=settings["GRIDTALLY_MQTT__USERNAME"]
    )
    publish(shape, thief, "meters/honest/readings", reading(300, HONEST_WH + 300))
    shape.wait(lambda: HONEST_WH + 300 in readings_of(shape, "honest"), "the bridge to go on", 30)
    assert not re.search("Client gridtally-bridge (already connected|closed)", shape.log("mqtt"))
    thief.shut()


def test_a_user_made_without_mosquittos_own_tool_is_let_in(shape: Shape, tmp_path: Path) -> None:
    for tool in ("awk", "base64", "cat", "chmod", "dirname", "grep", "head", "mktemp", "rm", "touch", "tr"):
        path = shutil.which(tool)
        assert path
        (tmp_path / tool).symlink_to(path)
    (tmp_path / "python3").symlink_to(Path(sys.executable).resolve())
    password = shape.script("mqtt-user.sh", "meters/victim", PATH=str(tmp_path)).strip()
    shape.processes["mqtt"].send_signal(signal.SIGHUP)
    sign_in(shape, "meters/victim", password).shut()
    shape.script("mqtt-user.sh", "--remove", "meters/victim")
    shape.processes["mqtt"].send_signal(signal.SIGHUP)
    again = shape.sender("meters/victim", password)
    lines = len(shape.log("mqtt").splitlines())
    shape.wait(lambda: is_refused(shape, again, lines), "the removed user to be refused", 15)


def test_what_prometheus_scrapes_is_where_the_settings_put_it(shape: Shape) -> None:
    for place, name in enumerate(PROCESSES):
        record = json.loads((shape.directory / name / "run" / f"metrics-{name}.json").read_text("utf-8"))
        assert record["url"].startswith(f"http://{METRICS_HOST}:")
        text = urllib.request.urlopen(f"{record['url']}/metrics", timeout=5).read().decode()
        assert "gridtally_" in text
        fixed = f"http://{METRICS_HOST}:{9780 + place}"
        assert record["url"] == fixed or _is_taken(fixed), f"{name} is at {record['url']}, not at {fixed}"


def _is_taken(url: str) -> bool:
    """Return whether something else of this machine answers there: another system's process, not ours."""
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("service", "program", "port"),
    [("mqtt", "mosquitto_sub", "1883"), ("kafka", "bash", "9092"), ("database", "pg_isready", "5432")],
)
def test_health_checks_of_the_components_tell_up_from_down(
    components: Shape, service: str, program: str, port: str
) -> None:
    path = components.search_path()
    if shutil.which(program, path=path) is None:
        pytest.skip(f"{program} is not installed (Debian, Ubuntu: apt install mosquitto-clients)")
    here = components.port["postgres" if service == "database" else service]
    assert components.run_health_check(service, port, here) == 0
    assert components.run_health_check(service, port, free_port()) != 0


def test_a_new_kafka_is_filled_up_to_where_the_database_stands(components: Shape, tmp_path: Path) -> None:
    password = (components.secrets / "database_superuser_password").read_text("utf-8")
    server = f"{LOOPBACK}:{components.port['postgres']}"
    with psycopg.connect(f"postgresql://postgres:{password}@{server}/postgres", autocommit=True) as conn:
        conn.execute("create database refill owner gridtally")
    dsn = (components.secrets / "database_dsn").read_text("utf-8").rsplit("/", 1)[0] + "/refill"
    (tmp_path / "dsn").write_text(dsn, "utf-8")
    more = {"GRIDTALLY_DATABASE__DSN_FILE": str(tmp_path / "dsn"), "GRIDTALLY_KAFKA__TOPIC_PREFIX": "refill."}
    assert components.run("migrate", **more).returncode == 0
    with psycopg.connect(dsn) as conn:
        for consumer, topic, partition, next_offset in (
            ("validate", METER_RAW, 1, 4),
            ("settle", METER_READINGS, 0, 5),
            ("detect", METER_READINGS, 0, 3),
        ):
            conn.execute(
                "insert into stream_offset (consumer, topic, partition, next_offset) values (%s, %s, %s, %s)",
                (consumer, topic, partition, next_offset),
            )

    def refill() -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / "deploy" / "refill_kafka.py")],
            env=components.environment("admin", **more),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "filled 9 records" in refill()
    assert "filled 0 records" in refill()
    consumer = Consumer({"bootstrap.servers": f"{LOOPBACK}:{components.port['kafka']}", "group.id": "test-refill"})
    consumer.assign([TopicPartition(f"refill.{METER_READINGS}", 0, 0)])
    found = [message.value() for message in consumer.consume(5, 20)]
    consumer.close()
    assert found[:3] == [b""] * 3  # below every consumer: nobody will look at them
    assert [decode_readings(value).num_rows for value in found[3:]] == [0, 0]  # the one that is behind reads these


def test_each_process_ends_in_order_when_docker_stops_it(shape: Shape) -> None:
    codes = shape.stop(*PROCESSES)
    assert codes == {**dict.fromkeys(PROCESSES, 0), "console": -signal.SIGTERM}  # uvicorn passes the signal on


def test_a_database_that_is_up_to_date_is_migrated_without_a_change(shape: Shape) -> None:
    done = shape.run("migrate")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "up to date"
