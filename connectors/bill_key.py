"""The key that bundles are signed with: made on first use, readable for nobody else; and the public key as a file."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

DIRECTORY, NAME = "keys", "bill-signing.pem"
FILE_BYTES_MAX = 10_000


class KeyFileError(ValueError):
    """A key cannot be used; the text says which and why."""


def signing_key(data_dir: Path) -> Ed25519PrivateKey:
    """Return the key of a data directory; of several that make it at once all get the same.

    Raises:
        KeyFileError: The file is no Ed25519 key, or others can read it.
    """
    path = data_dir / DIRECTORY / NAME
    if not path.exists():
        _make(path)
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others: chmod 600 it, and think about who may have")
        key = load_pem_private_key(path.read_bytes()[:FILE_BYTES_MAX], None)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, KeyFileError):
            raise
        raise KeyFileError(f"{path} is no key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} is no Ed25519 key")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fresh = path.with_name(f".{NAME}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)  # never in the place of one that another process has just made
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def public_pem(key: Ed25519PublicKey) -> str:
    """Return a public key as text."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the public key of a file.

    Raises:
        KeyFileError: It is none.
    """
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(f"{path} is no public key: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} is no Ed25519 key")
    return key
