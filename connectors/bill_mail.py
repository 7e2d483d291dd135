"""A bill as an e-mail: text in the customer's language, PDF, page and bundle attached; sent by SMTP."""

import contextlib
import datetime as dt
import re
import smtplib
import ssl
from collections.abc import Iterator
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr

from connectors.paper.sheet import clean
from connectors.paper.words import Speech
from schemas.bill import BillDocument
from schemas.settings import MailSettings
from storage.delivery import Delivery, DeliveryError

_ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
PERMANENT = 500
Files = dict[str, bytes]
"""By name, of which the end gives the type: pdf, html, json."""
TYPES = {"pdf": ("application", "pdf"), "html": ("text", "html"), "json": ("application", "json")}


def plain_address(text: str) -> str:
    """Return an address fit for the envelope; a domain in other letters in its ASCII form.

    Raises:
        DeliveryError: It is none, for good.
    """
    local, _, domain = text.rpartition("@")
    with contextlib.suppress(UnicodeError):
        domain = domain.encode("idna").decode("ascii")
    address = f"{local}@{domain}"
    if not _ADDRESS.fullmatch(address) or ".." in local or local.startswith(".") or local.endswith("."):
        raise DeliveryError(f"{clean(text)!r} is no e-mail address", is_final=True)
    return address


def make_message(
    document: BillDocument, delivery: Delivery, files: Files, sender: str, at: dt.datetime
) -> EmailMessage:
    """Return the message of a delivery; its Message-ID is the same at every attempt.

    Raises:
        DeliveryError: The address is none.
    """
    speech = Speech(document.party.language)
    name, own = parseaddr(sender)
    own = plain_address(own)
    title, number = speech.word(document.kind), delivery.bill_no
    period = speech.period(document.start_on, document.end_on)
    issuer = clean(document.issuer)
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"] = Address(clean(name) or issuer, addr_spec=own)
    message["To"] = Address(addr_spec=plain_address(delivery.address))
    message["Subject"] = speech.word("mail_subject", issuer=issuer, title=title, no=number, period=period)
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<bill-{number}.delivery-{delivery.delivery_no}@{own.rpartition('@')[2]}>"
    message["Content-Language"] = speech.lang
    message["Auto-Submitted"] = "auto-generated"
    total = speech.money(document.total, document.currency, document.digits)
    lines = [
        speech.word("mail_hello", name=clean(document.party.name)),
        "",
        speech.word("mail_body", title=title, no=number, period=period),
        speech.word("mail_total", total=total),
    ]
    if document.due_on and document.total > 0:
        lines.append(speech.word("due_by", day=speech.day(document.due_on)))
    lines += ["", speech.word("mail_attached"), "", issuer]
    message.set_content("\n".join(lines) + "\n")
    for file_name, content in files.items():
        main, sub = TYPES[file_name.rpartition(".")[2]]
        params = {"charset": "utf-8"} if main == "text" else None
        message.add_attachment(content, maintype=main, subtype=sub, filename=file_name, params=params)
    return message


@contextlib.contextmanager
def mail_session(settings: MailSettings) -> Iterator[smtplib.SMTP]:
    """Open a session with the server of the settings.

    Raises:
        DeliveryError: It is not reached, or does not let us in.
    """
    assert settings.host is not None
    try:
        session = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
    except (OSError, smtplib.SMTPException) as error:
        raise DeliveryError(f"mail server {settings.host}:{settings.port}: {error}", is_server_down=True) from None
    try:
        try:
            if settings.starttls:
                session.starttls(context=ssl.create_default_context())
            if settings.username and settings.password:
                session.login(settings.username, settings.password.get_secret_value())
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryError(f"mail server {settings.host}:{settings.port}: {error}", is_server_down=True) from None
        yield session
    finally:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            session.quit()


def send_message(session: smtplib.SMTP, message: EmailMessage) -> None:
    """Send a message; done when the server has accepted it.

    Raises:
        DeliveryError: It has not.
    """
    sender, to = message["From"].addresses[0].addr_spec, message["To"].addresses[0].addr_spec
    try:
        session.sendmail(sender, [to], message.as_bytes())
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        raise DeliveryError(f"{to} was refused: {code} {_text(text)}", is_final=code >= PERMANENT) from None
    except smtplib.SMTPSenderRefused as error:
        raise DeliveryError(
            f"sender {sender} was refused: {error.smtp_code} {_text(error.smtp_error)}", is_server_down=True
        ) from None
    except smtplib.SMTPResponseException as error:
        raise DeliveryError(
            f"the server refused it: {error.smtp_code} {_text(error.smtp_error)}", is_final=error.smtp_code >= PERMANENT
        ) from None
    except (OSError, smtplib.SMTPException) as error:
        raise DeliveryError(
            f"the server does not answer: {error or type(error).__name__}", is_server_down=True
        ) from None


def _text(value: bytes | str) -> str:
    return clean(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
