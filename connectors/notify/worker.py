"""The worker that plans messages about alarms and sends them: at most one a receiver at once, so that none waits for another."""

import datetime as dt
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from connectors.notify import mail, mqtt, webhook
from metering.notification import AddressError
from monitoring.clock import now
from monitoring.log import get_logger
from monitoring.metrics import RETRIES, serve_metrics
from schemas.settings import Settings
from storage.delivery import DeliveryError
from storage.notification import Message, mark_failed, mark_sent, plan, take

AT_ONCE = 8
WAIT_S = 1.0
DATABASE_WAIT_S = 2.0

log = get_logger("connectors.notify")


def send(message: Message, settings: Settings, mqtt_url: str | None, at: dt.datetime) -> None:
    """Send a message by its receiver's channel.

    Raises:
        DeliveryError: It has not arrived.
        AddressError: The address is not fit.
    """
    match message.channel:
        case "webhook":
            webhook.send(message, int(at.timestamp()))
        case "mail":
            mail.send(message, settings.mail, at)
        case _ if mqtt_url is None:
            raise DeliveryError("no MQTT broker: set mqtt.url, or start the system")
        case _:
            mqtt.send(message, settings.mqtt, mqtt_url)


def turn(conn: psycopg.Connection[Any], settings: Settings, mqtt_url: str | None, at: dt.datetime) -> int:
    """Plan, and send what is due, once; return how much there was to do."""
    planned = plan(conn, at)
    messages = take(conn, at, AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda message: _try(message, settings, mqtt_url, at), messages))
    for message, failure in zip(messages, results, strict=True):
        if failure is None:
            mark_sent(conn, message, now())
            continue
        RETRIES.labels("notify").inc()
        mark_failed(conn, message, str(failure), at, is_final=getattr(failure, "is_final", True))
        log.warning("notification_failed", notification=message.notification_no, attempts=message.attempts)
    return planned + len(messages)


def _try(message: Message, settings: Settings, mqtt_url: str | None, at: dt.datetime) -> Exception | None:
    try:
        send(message, settings, mqtt_url, at)
    except (DeliveryError, AddressError) as error:
        return error
    except Exception as error:  # noqa: BLE001  # one bad message must not stop the others
        return DeliveryError(f"{type(error).__name__}: {error}")
    return None


def run(settings: Settings, database: str, mqtt_url: str | None) -> None:
    """Plan and send until a signal; the database may come and go."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    health = serve_metrics("notify", settings.run_dir, settings.metrics)
    while not stop.is_set():
        try:
            with psycopg.connect(database, autocommit=True, connect_timeout=10) as conn:
                health.ready = True
                while not stop.is_set():
                    health.turned()
                    if not turn(conn, settings, mqtt_url, now()):
                        stop.wait(WAIT_S)
        except psycopg.Error as error:
            health.ready = False
            health.turned()
            log.warning("database_failed", error=str(error))
            stop.wait(DATABASE_WAIT_S)
