"""Alarms on their way: real receivers of HTTP, mail and MQTT; planned once, tried again, limited, escalated."""

import datetime as dt
import email
import email.policy
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.controller import Controller
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from connectors.notify.worker import send, turn
from metering.alarm.condition import Condition
from schemas.settings import Settings
from storage.alarm import apply_conditions
from storage.notification import LEASE_S, plan, take
from storage.receiver import retry
from tests.connectors.brokers import mosquitto, wait

NOW = dt.datetime(2026, 11, 24, 12, 10, tzinfo=dt.UTC)
SECRET = "s3cret"  # of a test
MINUTE = dt.timedelta(minutes=1)


class Web:
    """A receiver over HTTP that keeps what it got; answers from a list, then 200."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                web.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(web.answers.pop(0) if web.answers else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.got]

    @property
    def ids(self) -> set[str]:
        return {headers["idempotency-key"] for headers, _ in self.got}


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


def receiver(conn: psycopg.Connection, name: str, address: str, channel: str = "webhook", rate: int = 100) -> int:
    row = conn.execute(
        "insert into receiver (receiver_id, channel, address, secret, rate_max_per_hour) values (%s, %s, %s, %s, %s)"
        " returning receiver_no",
        (name, channel, address, SECRET, rate),
    ).fetchone()
    assert row
    return int(row[0])


def rule(conn: psycopg.Connection, to: int, **more: Any) -> None:
    values = {"receiver_no": to, **more}
    marks = ", ".join(["%s"] * len(values))
    conn.execute(f"insert into notification_rule ({', '.join(values)}) values ({marks})", [*values.values()])


def alarm(conn: psycopg.Connection, *subjects: str, active: bool = True, at: dt.datetime = NOW) -> None:
    with conn.transaction():
        apply_conditions(conn, [Condition(name, "tamper", is_active=active, at=at, detail="open") for name in subjects])


def go(
    conn: psycopg.Connection, at: dt.datetime = NOW, settings: Settings | None = None, url: str | None = None
) -> int:
    """Do turns until there is nothing to do."""
    count = 0
    while turn(conn, settings or Settings(), url, at):
        count += 1
        assert count < 100
    return count


def states(conn: psycopg.Connection) -> dict[str, int]:
    return dict(conn.execute("select state, count(*) from notification group by 1").fetchall())


# -- webhooks --------------------------------------------------------------------------------------------------------


def test_a_webhook_gets_the_alarm_once_with_a_signature_that_it_can_verify(conn: psycopg.Connection, web: Web) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1")
    go(conn)
    go(conn, NOW + 600 * MINUTE)
    ((headers, body),) = web.got
    signed = headers["x-gridtally-timestamp"].encode() + b"." + body
    wanted = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["x-gridtally-signature"] == f"sha256={wanted}"
    assert int(headers["x-gridtally-timestamp"]) == int(NOW.timestamp())
    told = json.loads(body)
    assert (told["type"], told["event"], told["subject"], told["kind"]) == ("alarm", "raised", "m-1", "tamper")
    assert told["id"] == headers["idempotency-key"]
    assert SECRET not in body.decode()
    assert states(conn) == {"sent": 1}


def test_a_receiver_that_fails_is_tried_again_after_a_minute_with_the_same_id(
    conn: psycopg.Connection, web: Web
) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1")
    web.answers = [500]
    go(conn)
    assert states(conn) == {"waiting": 1}
    go(conn, NOW + dt.timedelta(seconds=59))
    assert len(web.got) == 1
    go(conn, NOW + MINUTE)
    go(conn, NOW + 600 * MINUTE)
    assert len(web.got) == 2
    assert len(web.ids) == 1
    assert web.bodies[0] == web.bodies[1]
    assert states(conn) == {"sent": 1}


def test_a_receiver_that_never_answers_has_failed_after_twelve_attempts(conn: psycopg.Connection, web: Web) -> None:
    web.server.shutdown()
    web.server.server_close()
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1")
    for hour in range(20):
        go(conn, NOW + hour * 60 * MINUTE)
    row = conn.execute("select state, attempts, last_error from notification").fetchone()
    assert row
    assert row[:2] == ("failed", 12)
    assert "refused" in row[2]


@pytest.mark.parametrize("answer", [404, 410])
def test_an_answer_that_is_final_is_not_tried_again(conn: psycopg.Connection, web: Web, answer: int) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1")
    web.answers = [answer]
    go(conn)
    assert states(conn) == {"failed": 1}


def test_what_has_failed_goes_out_when_a_person_asks_for_it_with_the_same_id(
    conn: psycopg.Connection, web: Web
) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1")
    web.answers = [404]
    go(conn)
    retry(conn, "ann", 1, NOW)
    conn.execute("update notification set next_try_at = %s", (NOW,))
    go(conn)
    assert (len(web.got), len(web.ids), states(conn)) == (2, 1, {"sent": 1})


def test_a_redirect_is_not_followed(conn: psycopg.Connection, web: Web) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1")
    web.answers = [307]
    go(conn)
    assert len(web.got) == 1
    assert states(conn) == {"waiting": 1}


# -- once ------------------------------------------------------------------------------------------------------------


def test_what_was_planned_before_is_not_planned_again(conn: psycopg.Connection, web: Web) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1", "m-2")
    assert (plan(conn, NOW), plan(conn, NOW)) == (2, 0)
    conn.execute("update notification_cursor set transaction_id = '3', alarm_transition_id = 0")
    assert plan(conn, NOW) == 2, "as after a crash before the cursor was kept"
    go(conn)
    assert sorted(body["subject"] for body in web.bodies) == ["m-1", "m-2"]


def test_two_rules_of_one_receiver_send_once(conn: psycopg.Connection, web: Web) -> None:
    to = receiver(conn, "desk", web.url)
    rule(conn, to)
    rule(conn, to, kinds=["tamper"])
    alarm(conn, "m-1")
    go(conn)
    assert len(web.got) == 1


def test_a_crash_between_sending_and_noting_sends_again_with_the_same_id(conn: psycopg.Connection, web: Web) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "m-1")
    plan(conn, NOW)
    (message,) = take(conn, NOW)
    send(message, Settings(), None, NOW)
    go(conn, NOW + dt.timedelta(seconds=LEASE_S - 1))
    assert len(web.got) == 1, "another worker leaves it alone"
    go(conn, NOW + dt.timedelta(seconds=LEASE_S))
    assert (len(web.got), len(web.ids)) == (2, 1)


def test_a_transition_of_a_transaction_that_ends_late_is_not_passed_by(
    conn: psycopg.Connection, database: str, web: Web
) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    with psycopg.connect(database) as slow:
        apply_conditions(slow, [Condition("slow", "tamper", is_active=True, at=NOW)])
        alarm(conn, "fast")
        go(conn)
        assert web.got == [], "what comes after one under way waits for it"
        slow.commit()
    go(conn)
    assert [body["subject"] for body in web.bodies] == ["slow", "fast"]


def test_a_database_restored_elsewhere_goes_on(conn: psycopg.Connection, web: Web) -> None:
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "before")
    go(conn)
    for table in ("alarm_transition", "notification_rule", "notification_cursor"):
        conn.execute(f"update {table} set transaction_id = '9000000000'")
    alarm(conn, "after")
    go(conn)
    assert [body["subject"] for body in web.bodies] == ["before", "after"]


def test_a_rule_holds_for_what_comes_after_it(conn: psycopg.Connection, web: Web) -> None:
    alarm(conn, "old")
    rule(conn, receiver(conn, "desk", web.url))
    alarm(conn, "new")
    go(conn)
    assert [body["subject"] for body in web.bodies] == ["new"]


# -- limits and escalation -------------------------------------------------------------------------------------------


def test_over_the_limit_of_an_hour_there_is_one_summary_at_its_end(conn: psycopg.Connection, web: Web) -> None:
    rule(conn, receiver(conn, "desk", web.url, rate=2))
    alarm(conn, *(f"m-{number}" for number in range(7)))
    go(conn)
    for _ in range(7):
        go(conn, NOW + MINUTE)
    assert len(web.got) == 2
    assert states(conn) == {"sent": 2, "held": 5, "waiting": 1}
    end = NOW.replace(minute=0) + 60 * MINUTE
    go(conn, end - dt.timedelta(microseconds=1))
    assert len(web.got) == 2
    go(conn, end)
    go(conn, end + MINUTE)
    assert [body.get("more") for body in web.bodies] == [None, None, 5]
    alarm(conn, "later", at=end)
    go(conn, end)
    assert web.bodies[-1]["subject"] == "later", "the next hour has its own limit"


def test_as_many_as_the_limit_go_without_a_summary(conn: psycopg.Connection, web: Web) -> None:
    rule(conn, receiver(conn, "desk", web.url, rate=2))
    alarm(conn, "m-1", "m-2")
    go(conn)
    go(conn, NOW + 120 * MINUTE)
    assert [body["type"] for body in web.bodies] == ["alarm", "alarm"]


def _escalating(conn: psycopg.Connection, web: Web) -> None:
    first, chief = receiver(conn, "desk", web.url), receiver(conn, "chief", web.url)
    rule(conn, first, escalate_after_s=900, escalate_to=chief)
    alarm(conn, "m-1")
    go(conn)
    assert [body["is_escalation"] for body in web.bodies] == [False]


def test_an_alarm_that_nobody_acknowledges_is_escalated_when_its_time_is_up(conn: psycopg.Connection, web: Web) -> None:
    _escalating(conn, web)
    go(conn, NOW + dt.timedelta(seconds=899))
    assert len(web.got) == 1
    go(conn, NOW + dt.timedelta(seconds=900))
    go(conn, NOW + dt.timedelta(seconds=9000))
    assert [body["is_escalation"] for body in web.bodies] == [False, True]


def test_an_alarm_that_somebody_acknowledged_is_not_escalated(conn: psycopg.Connection, web: Web) -> None:
    _escalating(conn, web)
    conn.execute("update alarm set state = 'acknowledged', is_acknowledged = true")
    go(conn, NOW + dt.timedelta(seconds=900))
    assert len(web.got) == 1
    assert states(conn) == {"sent": 1, "cancelled": 1}


# -- mail and MQTT ---------------------------------------------------------------------------------------------------


class _Mail:
    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"


@pytest.mark.parametrize(("language", "word"), [("en", "raised"), ("zh", "发生")])
def test_a_mail_says_what_happened_where_in_the_receivers_language(
    conn: psycopg.Connection, language: str, word: str
) -> None:
    handler = _Mail()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        rule(conn, receiver(conn, "chief", "chief@example.org", "mail"))
        conn.execute("update receiver set language = %s", (language,))
        alarm(conn, "m-1\r\nBcc: x@example.org")
        mail = {"host": "127.0.0.1", "port": port, "starttls": False, "sender": "Alarms <alarms@example.org>"}
        go(conn, settings=Settings.model_validate({"mail": mail}))
    finally:
        controller.stop()
    (message,) = handler.messages
    assert message["To"] == "chief@example.org"
    assert message["Bcc"] is None
    assert word in message["Subject"]
    assert "m-1" in message.get_content()
    assert states(conn) == {"sent": 1}


def test_without_a_mail_server_a_mail_waits(conn: psycopg.Connection) -> None:
    rule(conn, receiver(conn, "chief", "chief@example.org", "mail"))
    alarm(conn, "m-1")
    go(conn)
    assert conn.execute("select state, last_error like '%set mail.host%' from notification").fetchone() == (
        "waiting",
        True,
    )


def test_a_broker_gets_an_alarm_under_its_area_and_kind(conn: psycopg.Connection, tmp_path: Path) -> None:
    got: list[tuple[str, Any]] = []
    with mosquitto(tmp_path, "allow_anonymous true") as url:
        listener = Client(CallbackAPIVersion.VERSION2, "listener")
        listener.on_message = lambda _client, _data, message: got.append((message.topic, json.loads(message.payload)))
        subscribed: list[int] = []
        listener.on_subscribe = lambda *_: subscribed.append(1)
        listener.connect("127.0.0.1", int(url.rpartition(":")[2]))
        listener.subscribe("gridtally/v1/alarms/#", 1)
        listener.loop_start()
        try:
            wait(lambda: subscribed or time.sleep(0.02), 10, "the subscription")
            rule(conn, receiver(conn, "scada", "gridtally/v1/alarms", "mqtt"))
            alarm(conn, "feeder-1/t-07")
            go(conn, url=url)
            wait(lambda: got or time.sleep(0.02), 10, "the message")
        finally:
            listener.loop_stop()
            listener.disconnect()
    ((topic, told),) = got
    assert topic == "gridtally/v1/alarms/feeder-1_t-07/tamper"
    assert told["subject"] == "feeder-1/t-07"
    assert states(conn) == {"sent": 1}
