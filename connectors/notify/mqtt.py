"""A message by MQTT, QoS 1: done when the broker has acknowledged it. A connection a message, as alarms are few."""

import json
import ssl
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from connectors.mqtt import parse_url
from metering.notification import alarm_topic, check_topic
from schemas.settings import MqttSettings
from storage.delivery import DeliveryError
from storage.notification import Message

TIMEOUT_S = 10.0


def send(message: Message, settings: MqttSettings, url: str, timeout_s: float = TIMEOUT_S) -> None:
    """Publish a message to ``{address}/{area}/{kind}``; a summary to ``{address}/summary``.

    Raises:
        DeliveryError: It was not acknowledged in time.
        AddressError: The address is not fit.
    """
    prefix = check_topic(message.address)
    topic = f"{prefix}/summary" if message.alarm_id is None else alarm_topic(prefix, message.area, message.kind)
    host, port, is_secure = parse_url(url)
    client = Client(CallbackAPIVersion.VERSION2, f"notify-{message.idempotency_id}", clean_session=True)
    client.connect_timeout = timeout_s
    if settings.username:
        password = settings.password.get_secret_value() if settings.password else None
        client.username_pw_set(settings.username, password)
    if is_secure:
        client.tls_set_context(ssl.create_default_context())
    body = json.dumps(message.to_json(), ensure_ascii=False).encode()
    deadline = time.monotonic() + timeout_s
    try:
        client.connect(host, port, keepalive=int(timeout_s) + 1)
        while not client.is_connected() and time.monotonic() < deadline:
            client.loop(0.05)
        told = client.publish(topic, body, qos=1)
        while not told.is_published() and time.monotonic() < deadline:
            client.loop(0.05)
    except (OSError, ValueError, RuntimeError) as error:
        raise DeliveryError(f"MQTT broker {host}:{port}: {error}") from None
    else:
        if not told.is_published():
            raise DeliveryError(f"MQTT broker {host}:{port} did not acknowledge it within {timeout_s:.0f} s")
    finally:
        client.disconnect()
