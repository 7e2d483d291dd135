"""Works deliveries off: what is due is rendered, sent by mail or written as files, and committed one by one."""

import dataclasses
import datetime as dt
import smtplib
from collections.abc import Callable
from contextlib import ExitStack
from email.utils import parseaddr
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typst import TypstError

from connectors.bill_file import write_bill_files
from connectors.bill_mail import mail_session, make_message, plain_address, send_message
from connectors.paper.page import bill_html
from connectors.paper.print import bill_pdf
from connectors.paper.sheet import Paper
from metering.bundle import encode_bundle, sign_bundle
from schemas.bill import BillDocument
from schemas.settings import MailSettings
from storage.bill_bundle import fetch_bundle_parts
from storage.bill_paper import fetch_on_paper
from storage.delivery import Delivery, DeliveryError, deliver_next

DELIVERIES_MAX = 1_000_000


@dataclasses.dataclass
class Round:
    """What came of working deliveries off."""

    sent: int = 0
    failed: list[tuple[Delivery, str]] = dataclasses.field(default_factory=list)
    stopped: list[str] = dataclasses.field(default_factory=list)
    """Channels that no more was tried by, and why; what is queued stays queued."""


class BillSender:
    """Sends what is due."""

    def __init__(
        self, conn: psycopg.Connection[Any], mail: MailSettings, outbox_dir: Path, key: Ed25519PrivateKey
    ) -> None:
        """Take a connection in autocommit, the mail server's settings, where files go, and the key of bundles."""
        self._conn = conn
        self._mail = mail
        self._outbox_dir = outbox_dir
        self._key = key
        self._now = dt.datetime.fromtimestamp(0, dt.UTC)

    def work_off(self, clock: Callable[[], dt.datetime], seen: Callable[[Delivery, str], None] | None = None) -> Round:
        """Send all that is due now; a channel whose server is down is left until the next time.

        Args:
            clock: Tells the time.
            seen: Is told of every delivery, and its error or nothing.
        """
        found = Round()
        for channel in ("file", "email"):
            if channel == "email" and self._mail.host is None:
                found.stopped.append("email: mail.host is not set")
                continue
            with ExitStack() as stack:
                send = self._send_file if channel == "file" else _Mailer(self, stack)
                for _ in range(DELIVERIES_MAX):
                    self._now = clock()
                    done = deliver_next(self._conn, [channel], self._now, send)
                    if done is None:
                        break
                    delivery, error = done
                    if seen:
                        seen(delivery, str(error or ""))
                    if error is None:
                        found.sent += 1
                        continue
                    found.failed.append((delivery, str(error)))
                    if error.is_server_down:
                        found.stopped.append(f"{channel}: {error}")
                        break
        return found

    def files_of(self, bill_no: str) -> tuple[BillDocument, dict[str, bytes]]:
        """Return a bill with its PDF, page and bundle.

        Raises:
            DeliveryError: What it was made of is not there.
        """
        try:
            found = fetch_on_paper(self._conn, bill_no)
            paper = Paper(found.document, found.tariffs, found.balance_before)
            files = {
                f"{bill_no}.pdf": bill_pdf(paper),
                f"{bill_no}.html": bill_html(paper).encode(),
                f"{bill_no}.json": encode_bundle(sign_bundle(fetch_bundle_parts(self._conn, bill_no), self._key)),
            }
        except (ValueError, TypstError) as error:  # one bill that cannot be made must not hold up the others
            raise DeliveryError(f"bill {bill_no} cannot be made: {error}", is_final=True) from None
        return found.document, files

    def _send_file(self, delivery: Delivery) -> None:
        _, files = self.files_of(delivery.bill_no)
        write_bill_files(self._outbox_dir, files)

    def message_of(self, delivery: Delivery) -> Any:
        """Return the message of a delivery."""
        document, files = self.files_of(delivery.bill_no)
        sender = self._mail.sender or ""
        try:
            plain_address(parseaddr(sender)[1])
        except DeliveryError:  # our fault, not the customer's: nothing is given up for it
            text = "mail.sender is not set, or is no address: such as Billing <bills@example.org>"
            raise DeliveryError(text, is_server_down=True) from None
        try:
            return make_message(document, delivery, files, sender, self._now)
        except ValueError as error:
            raise DeliveryError(f"bill {delivery.bill_no} cannot be put into a mail: {error}", is_final=True) from None

    @property
    def mail(self) -> MailSettings:
        """Return the settings of the server."""
        return self._mail


class _Mailer:
    """Sends by one session, opened when a message is ready, and anew after the server has closed it."""

    def __init__(self, sender: BillSender, stack: ExitStack) -> None:
        self._sender = sender
        self._stack = stack
        self._session: smtplib.SMTP | None = None

    def __call__(self, delivery: Delivery) -> None:
        message = self._sender.message_of(delivery)
        if self._session is None or self._session.sock is None:
            self._session = self._stack.enter_context(mail_session(self._sender.mail))
        send_message(self._session, message)
