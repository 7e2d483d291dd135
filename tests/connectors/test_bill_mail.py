"""Bills on their way: a real SMTP server, files, failures of every kind; nothing lost, nothing knowingly sent twice."""

import asyncio
import datetime as dt
import email
import email.policy
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.controller import Controller
from typer.testing import CliRunner

from connectors.bill_key import signing_key
from connectors.bill_mail import make_message, plain_address
from connectors.bill_sender import BillSender, Round
from gridtally.cli import app
from metering.bundle import decode_bundle, verify_bundle
from schemas.settings import MailSettings
from storage.bill import BillError, fetch_bill
from storage.bill_bundle import recompute
from storage.delivery import ATTEMPTS_MAX, Delivery, DeliveryError, fetch_deliveries, queue_deliveries, retry_delivery
from tests.connectors import made_bill
from tests.storage.made_county import SEPTEMBER, make_county, read_months, run_and_issue

NOW = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


class Server:
    """Takes mail, or refuses it, or is slow."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.answers: dict[str, str] = {}
        self.delay_s = 0.0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.delay_s)
        self.messages.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return self.answers.get("data", "250 OK")


@pytest.fixture
def server() -> Iterator[tuple[Server, int]]:
    handler = Server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        read_months(make_county(conn, 3), 3, days=31)
        conn.execute("update customer set email = customer_id || '@example.org', language = 'zh' where customer_no < 3")
        conn.execute("update contract set delivery = case contract_no when 3 then 'file' else 'email' end")
        run_and_issue(conn, database, SEPTEMBER)
        yield conn


BILLS = ["2026-000001", "2026-000002", "2026-000003"]


@pytest.fixture
def send(conn: psycopg.Connection, server: tuple[Server, int], tmp_path: Path) -> Callable[..., Round]:
    def work(minutes: int = 0, **more: Any) -> Round:
        given = {
            "host": "127.0.0.1",
            "port": server[1],
            "starttls": False,
            "sender": "bills@utility.example",
            "timeout_s": 1,
        }
        mail = MailSettings.model_validate(given | more)
        sender = BillSender(conn, mail, tmp_path / "out", signing_key(tmp_path))
        return sender.work_off(lambda: NOW + dt.timedelta(minutes=minutes))

    return work


def states(conn: psycopg.Connection) -> list[str]:
    return [row["state"] for row in reversed(fetch_deliveries(conn))]


def test_bills_go_by_mail_and_as_files_with_all_that_proves_them(
    conn: psycopg.Connection, server: tuple[Server, int], send: Callable[..., Round], tmp_path: Path
) -> None:
    assert queue_deliveries(conn, who="ann", bill_nos=BILLS) == {"email": 2, "file": 1, "none": 0, "again": 0}
    assert fetch_bill(conn, BILLS[0])[0].state == "issued"
    assert send().sent == 3
    first, second = server[0].messages
    assert {first["To"], second["To"]} == {"c-1@example.org", "c-2@example.org"}
    assert "电费账单 2026-00000" in first["Subject"]
    assert "随信附上您的电费账单" in first.get_body().get_content()
    names = [part.get_filename() for part in first.iter_attachments()]
    assert [name.rpartition(".")[2] for name in names] == ["pdf", "html", "json"]
    pdf, page, bundle = (part.get_content() for part in first.iter_attachments())
    assert pdf.startswith(b"%PDF")
    assert "电费账单" in page
    verdict = verify_bundle(decode_bundle(bundle.encode() if isinstance(bundle, str) else bundle), None, recompute)
    assert verdict.is_proven
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{BILLS[2]}.{end}" for end in ("html", "json", "pdf")
    ]
    assert [fetch_bill(conn, name)[0].state for name in BILLS] == ["sent"] * 3
    assert queue_deliveries(conn, who="ann", bill_nos=BILLS)["again"] == 3
    assert send().sent == 0, "never twice"


def test_a_server_that_is_down_loses_nothing(
    conn: psycopg.Connection, server: tuple[Server, int], send: Callable[..., Round]
) -> None:
    queue_deliveries(conn, who="ann", bill_nos=BILLS[:2])
    found = send(port=1)
    assert "refused" in found.stopped[0]
    assert states(conn) == ["queued", "queued"]
    assert [row["attempts"] for row in reversed(fetch_deliveries(conn))] == [1, 0], "the others wait without an attempt"
    assert send().sent == 1, "the one that failed waits a minute"
    assert send(minutes=1).sent == 1
    assert states(conn) == ["sent", "sent"]


def test_a_delivery_that_always_fails_is_given_up_listed_and_can_be_retried(
    conn: psycopg.Connection, server: tuple[Server, int], send: Callable[..., Round]
) -> None:
    server[0].answers["c-1@example.org"] = "451 mailbox busy"
    queue_deliveries(conn, who="ann", bill_nos=BILLS[:2])
    minutes = 0
    for attempt in range(ATTEMPTS_MAX):
        send(minutes=minutes)
        minutes += 4**attempt
    (failed,) = fetch_deliveries(conn, "failed")
    assert (failed["attempts"], failed["last_error"]) == (ATTEMPTS_MAX, "c-1@example.org was refused: 451 mailbox busy")
    assert fetch_bill(conn, BILLS[0])[0].state == "issued"
    server[0].answers.clear()
    assert retry_delivery(conn, failed["delivery_no"], who="ann", now=NOW) == BILLS[0]
    assert send(minutes=minutes).sent == 1
    assert fetch_bill(conn, BILLS[0])[0].state == "sent"
    with pytest.raises(BillError, match="was sent already"):
        retry_delivery(conn, failed["delivery_no"], who="ann", now=NOW)


def test_a_refused_address_fails_at_once_and_holds_nobody_up(
    conn: psycopg.Connection, server: tuple[Server, int], send: Callable[..., Round]
) -> None:
    server[0].answers["c-1@example.org"] = "550 no such user"
    queue_deliveries(conn, who="ann", bill_nos=BILLS[:2])
    assert send().sent == 1
    assert states(conn) == ["failed", "sent"]


def test_a_slow_server_ends_the_round_and_the_message_keeps_its_id(
    conn: psycopg.Connection, server: tuple[Server, int], send: Callable[..., Round]
) -> None:
    server[0].delay_s = 1.5
    queue_deliveries(conn, who="ann", bill_nos=BILLS[:1])
    assert "does not answer" in send().stopped[0]
    server[0].delay_s = 0.0
    assert send(minutes=1).sent == 1
    assert len({message["Message-ID"] for message in server[0].messages}) == 1


def test_a_server_without_encryption_gets_nothing_when_it_is_asked_for(
    conn: psycopg.Connection, server: tuple[Server, int], send: Callable[..., Round]
) -> None:
    queue_deliveries(conn, who="ann", bill_nos=BILLS[:1])
    assert "STARTTLS" in send(starttls=True).stopped[0]
    assert not server[0].messages


def test_without_an_address_or_a_server_bills_are_listed_not_lost(
    conn: psycopg.Connection, send: Callable[..., Round]
) -> None:
    conn.execute("update customer set email = null where customer_no = 1")
    queue_deliveries(conn, who="ann", bill_nos=BILLS[:2])
    assert states(conn) == ["failed", "queued"]
    assert send(host=None).stopped == ["email: mail.host is not set"]
    assert "mail.sender" in send(sender="nobody").stopped[0]
    assert states(conn) == ["failed", "queued"]
    with pytest.raises(BillError, match="only issued bills are sent"):
        queue_deliveries(conn, who="ann", bill_nos=["2026-000001", "#9"])


def test_two_senders_at_once_send_each_bill_once(
    conn: psycopg.Connection, database: str, server: tuple[Server, int], tmp_path: Path
) -> None:
    queue_deliveries(conn, who="ann", bill_nos=BILLS[:2])
    key = signing_key(tmp_path)
    mail = MailSettings.model_validate(
        {"host": "127.0.0.1", "port": server[1], "starttls": False, "sender": "b@u.example"}
    )

    def work() -> None:
        with psycopg.connect(database, autocommit=True) as own:
            BillSender(own, mail, tmp_path, key).work_off(lambda: NOW)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(message["To"] for message in server[0].messages) == ["c-1@example.org", "c-2@example.org"]


def test_the_commands_write_send_list_and_retry(
    conn: psycopg.Connection, database: str, server: tuple[Server, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIDTALLY_DATABASE__DSN", database)
    monkeypatch.setenv("GRIDTALLY_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        found = CliRunner().invoke(app, ["bill", *arguments])
        return found.exit_code, found.output

    for kind, begin in (("pdf", b"%PDF"), ("html", b"<!doctype"), ("bundle", b"{")):
        assert run(kind, BILLS[0], "-o", f"x.{kind}")[0] == 0
        assert (tmp_path / f"x.{kind}").read_bytes().startswith(begin)
    assert run("public-key", "-o", "key.pem")[0] == 0
    assert run("verify", "x.bundle", "--public-key", "key.pem")[0] == 0
    assert run("pdf", "2026-9", "-o", "y.pdf")[0] == 1
    mail = ("--set", "mail.host=127.0.0.1", "--set", f"mail.port={server[1]}", "--set", "mail.sender=b@u.example")
    plain = (*mail, "--set", "mail.starttls=false")
    server[0].answers["c-1@example.org"] = "550 no such user"
    code, text = run("send", *BILLS, "--as", "ann", *plain)
    assert (code, "sent: 2, failed: 1" in text) == (75, True), text
    (failed,) = json.loads(run("deliveries", "--state", "failed", "--json")[1])
    assert failed["last_error"] == "c-1@example.org was refused: 550 no such user"
    assert run("deliveries", "--retry", str(failed["delivery_no"]))[0] == 2, "nobody is named"
    server[0].answers.clear()
    assert run("deliveries", "--retry", str(failed["delivery_no"]), "--as", "ann")[0] == 0
    assert run("send", "--as", "ann", *plain)[0] == 0
    assert (tmp_path / "bills" / f"{BILLS[2]}.pdf").exists()
    assert states(conn) == ["sent"] * 3


def test_what_customers_are_called_cannot_add_headers() -> None:
    document = made_bill.document("en", party=made_bill.party("en", name="Eve\r\nBcc: all@example.org\r\n\r\nHi"))
    document = document.__class__(
        **{name: getattr(document, name) for name in document.__struct_fields__} | {"issuer": "U\nBcc: x@y.z"}
    )
    delivery = Delivery(7, "2026-000123", "email", "eve@example.org", 0)
    message = make_message(document, delivery, {}, "bills@utility.example", NOW)
    parsed = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert parsed["Bcc"] is None
    assert parsed["Message-ID"] == "<bill-2026-000123.delivery-7@utility.example>"
    assert parsed["To"] == "eve@example.org"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@",
        "@b",
        "a b@c.d",
        "a@b\r\nBcc: c@d",
        "a@b,c@d",
        "<a@b>",
        "a@-b.c",
        "a..b@c.d",
        "名@c.d",
        "a@b c",
        "a@b\0",
    ],
    ids=ascii,
)
def test_what_is_no_address_fails_for_good(text: str) -> None:
    with pytest.raises(DeliveryError, match="no e-mail address") as caught:
        plain_address(text)
    assert caught.value.is_final
    assert plain_address("o'neil+bills@例子.example") == "o'neil+bills@xn--fsqu00a.example"
