"""A message as a signed HTTP POST; no redirect is followed and no proxy is asked."""

import contextlib
import hashlib
import hmac
import http.client
import json
import socket
import ssl
from urllib.parse import urlsplit

from metering.notification import check_url, is_fit_ip
from storage.delivery import DeliveryError
from storage.notification import Message

TIMEOUT_S = 10.0
GOOD = range(200, 300)
FINAL = {400, 401, 403, 404, 405, 410, 413, 422}
"""Answers that another attempt would not change."""


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a body: HMAC-SHA256 over the timestamp, a full stop, and the body."""
    return "sha256=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def send(message: Message, timestamp: int, timeout_s: float = TIMEOUT_S) -> None:
    """Send a message; done when the receiver has answered 2xx.

    Raises:
        DeliveryError: It has not.
        AddressError: The address is not fit.
    """
    url = urlsplit(check_url(message.address))
    host, is_secure = str(url.hostname), url.scheme == "https"
    port = url.port or (443 if is_secure else 80)
    body = json.dumps(message.to_json(), ensure_ascii=False).encode()
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "gridtally",
        "Idempotency-Key": message.idempotency_id,
        "X-Gridtally-Timestamp": str(timestamp),
        "X-Gridtally-Signature": sign(message.secret or "", timestamp, body),
    }
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    if is_secure:
        connection.default_port = 443
    try:
        connection.sock = _open(host, port, timeout_s, is_secure=is_secure)
        connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise DeliveryError(f"{host}:{port}: {error or type(error).__name__}") from None
    finally:
        with contextlib.suppress(OSError):
            connection.close()
    if status not in GOOD:
        raise DeliveryError(f"{host}:{port} answered {status}", is_final=status in FINAL)


def _open(host: str, port: int, timeout_s: float, *, is_secure: bool) -> socket.socket:
    """Connect to the address that was looked at, so that a name cannot lead elsewhere between looking and connecting."""
    address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    if not is_fit_ip(address):
        raise DeliveryError(f"{host} is {address}, where no receiver can be", is_final=True)
    plain = socket.create_connection((address, port), timeout=timeout_s)
    if not is_secure:
        return plain
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
