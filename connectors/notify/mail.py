"""A message as an e-mail of a few lines."""

import datetime as dt
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr

from connectors.bill_mail import mail_session, plain_address, send_message
from connectors.paper.sheet import clean
from schemas.settings import MailSettings
from storage.delivery import DeliveryError
from storage.notification import Message

TIMEOUT_MAX_S = 30.0
_WORDS = {
    "en": {
        "unacknowledged": "raised", "acknowledged": "acknowledged", "returned": "returned to normal", "cleared": "cleared",
        "shelved": "shelved", "suppressed": "suppressed", "out_of_service": "out of service",
        "escalation": "Nobody has acknowledged this alarm.", "more": "{n} more alarms",
        "held": "{n} more alarms in the hour from {at} were held back by the limit of this receiver.",
        "subject": "Subject", "area": "Area", "priority": "Priority", "time": "Time", "alarm": "Alarm",
    },
    "zh": {
        "unacknowledged": "发生", "acknowledged": "已确认", "returned": "已恢复", "cleared": "已解除",
        "shelved": "已搁置", "suppressed": "已抑制", "out_of_service": "停用",
        "escalation": "此告警尚未确认。", "more": "另有 {n} 条告警",
        "held": "自 {at} 起的一小时内另有 {n} 条告警因接收上限未逐条发送。",
        "subject": "对象", "area": "区域", "priority": "优先级", "time": "时间", "alarm": "告警",
    },
}  # fmt: skip


def make_message(message: Message, sender: str, at: dt.datetime) -> EmailMessage:
    """Return the e-mail of a message; its Message-ID is the same at every attempt.

    Raises:
        DeliveryError: An address is none.
    """
    words = _WORDS[message.language]
    name, own = parseaddr(sender)
    own = plain_address(own)
    mail = EmailMessage(policy=SMTP_POLICY)
    mail["From"] = Address(clean(name), addr_spec=own)
    mail["To"] = Address(addr_spec=plain_address(message.address))
    when = message.at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if message.alarm_id is None:
        title = words["more"].format(n=message.more)
        lines = [words["held"].format(n=message.more, at=when)]
    else:
        kind, subject = clean(message.kind).replace("_", " "), clean(message.subject)
        title = f"[{message.priority}] {kind}: {subject} {words[message.state]}"
        lines = [words["escalation"], ""] if message.step == 1 else []
        lines += [
            f"{words['alarm']}: #{message.alarm_id} {kind}, {words[message.state]}",
            f"{words['subject']}: {subject}",
            f"{words['area']}: {clean(message.area) or '-'}",
            f"{words['priority']}: {message.priority}",
            f"{words['time']}: {when}",
            "",
            clean(message.why),
        ]
    mail["Subject"] = title
    mail["Date"] = format_datetime(at)
    mail["Message-ID"] = f"<alarm.{message.idempotency_id}@{own.rpartition('@')[2]}>"
    mail["Content-Language"] = "zh-CN" if message.language == "zh" else "en"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join(lines) + "\n")
    return mail


def send(message: Message, settings: MailSettings, at: dt.datetime) -> None:
    """Send a message by the mail server of the settings.

    Raises:
        DeliveryError: It has not been accepted.
    """
    sender = settings.sender
    if settings.host is None or sender is None:
        raise DeliveryError("no mail server: set mail.host and mail.sender")
    settings = settings.model_copy(update={"timeout_s": min(settings.timeout_s, TIMEOUT_MAX_S)})
    mail = make_message(message, sender, at)
    with mail_session(settings) as session:
        send_message(session, mail)
