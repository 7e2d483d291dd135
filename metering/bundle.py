"""A bill that proves itself: all that it was made of in one JSON document, signed, and recomputed from nothing but that. Pure.

The signature is Ed25519 over the canonical JSON of everything else in the bundle: keys sorted, no blanks, UTF-8.
"""

import base64
import binascii
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FORMAT = "gridtally-bill-bundle/1"
BUNDLE_BYTES_MAX = 64 * 1024 * 1024
PARTS = (
    "format",
    "bill",
    "contract",
    "cycle",
    "tariffs",
    "inputs",
    "history_before",
    "load",
    "ledger",
    "known",
    "signature",
)
DEPTH_MAX = 40


class BundleError(ValueError):
    """A text is no bundle that can be looked into; it says why."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Something that is not as it should be."""

    where: str
    given: str
    recomputed: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a verification."""

    bill_no: str
    key_id: str
    """Of the key in the bundle."""
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    """What was taken as given, and why."""

    @property
    def is_proven(self) -> bool:
        """Return whether everything was as recomputed."""
        return not self.differences


def canonical(value: Any) -> bytes:
    """Return the one way to write a JSON value.

    Raises:
        BundleError: A text in it is no Unicode.

    Example:
        >>> canonical({"b": [1, "x"], "a": None})
        b'{"a":null,"b":[1,"x"]}'
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the bundle cannot be written as JSON: {error}") from None


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id_of(key: Ed25519PublicKey) -> str:
    """Return how a key is called: the beginning of its SHA-256."""
    return hashlib.sha256(public_bytes(key)).hexdigest()[:16]


def sign_bundle(parts: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return a bundle of its parts (all of PARTS but format and signature) with its signature."""
    body = {"format": FORMAT, **parts}
    public = key.public_key()
    named = {
        "algorithm": "Ed25519",
        "key_id": key_id_of(public),
        "public_key": base64.b64encode(public_bytes(public)).decode(),
    }
    value = key.sign(_signed(body, named))
    return {**body, "signature": {**named, "value": base64.b64encode(value).decode()}}


def _signed(body: Mapping[str, Any], named: Mapping[str, Any]) -> bytes:
    return canonical({**body, "signature": dict(named)})


def encode_bundle(bundle: Mapping[str, Any]) -> bytes:
    """Return a bundle as text."""
    return canonical(bundle) + b"\n"


def decode_bundle(text: bytes) -> dict[str, Any]:
    """Return the bundle of a text; what it says is not checked yet.

    Raises:
        BundleError: It is too large, no JSON, has a name twice, or lacks a part.
    """
    if len(text) > BUNDLE_BYTES_MAX:
        raise BundleError(f"the file has {len(text)} bytes, more than a bundle can have ({BUNDLE_BYTES_MAX})")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except BundleError:
        raise
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the file is no JSON: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BundleError(f"the file is no bundle of a bill: expected format {FORMAT}")
    if missing := [name for name in PARTS if name not in value]:
        raise BundleError(f"the bundle lacks {', '.join(missing)}")
    if more := sorted(set(value) - set(PARTS)):
        raise BundleError(f"the bundle has what none has: {', '.join(more)[:200]}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BundleError("the bundle has a name twice in one object")
    return found


def _no_constant(text: str) -> Any:
    raise BundleError(f"the bundle has {text}, which is no number")


def check_signature(bundle: Mapping[str, Any], trusted: Ed25519PublicKey | None) -> list[Difference]:
    """Return what is wrong with the signature.

    Args:
        bundle: Of `decode_bundle`.
        trusted: The issuer's key; None takes the one in the bundle, which proves only that nothing was changed by somebody
            who left the signature alone.
    """
    given = bundle["signature"]
    if not isinstance(given, dict) or set(given) != {"algorithm", "key_id", "public_key", "value"}:
        return [Difference("signature", "incomplete", "algorithm, key_id, public_key, value")]
    if given["algorithm"] != "Ed25519":
        return [Difference("signature.algorithm", _short(given["algorithm"]), "Ed25519")]
    try:
        raw = base64.b64decode(given["public_key"], validate=True)
        value = base64.b64decode(given["value"], validate=True)
        own = Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError, TypeError) as error:
        return [Difference("signature", _short(error), "base64 of a key and a signature")]
    found = []
    if base64.b64encode(raw).decode() != given["public_key"] or base64.b64encode(value).decode() != given["value"]:
        found.append(Difference("signature", "written in another way", "plain base64"))
    if given["key_id"] != key_id_of(own):
        found.append(Difference("signature.key_id", _short(given["key_id"]), key_id_of(own)))
    if trusted is not None and public_bytes(trusted) != raw:
        found.append(
            Difference("signature.public_key", f"key {key_id_of(own)}", f"key {key_id_of(trusted)}, which is trusted")
        )
    body = {name: value for name, value in bundle.items() if name != "signature"}
    try:
        own.verify(value, _signed(body, {name: given[name] for name in ("algorithm", "key_id", "public_key")}))
    except InvalidSignature:
        found.append(Difference("signature", "not of this content", "signed by the key of the bundle"))
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def differing(where: str, given: Any, recomputed: Any) -> list[Difference]:
    """Return where two JSON values differ, leaf by leaf.

    Example:
        >>> [item.where for item in differing("bill", {"a": [1, 2]}, {"a": [1, 3], "b": 0})]
        ['bill.a[1]', 'bill.b']
    """
    if isinstance(given, Mapping) and isinstance(recomputed, Mapping):
        names = [*given, *(name for name in recomputed if name not in given)]
        parts = ((f"{where}.{name}", given.get(name), recomputed.get(name)) for name in names)
        return _all_of(differing(*part) for part in parts)
    if isinstance(given, list | tuple) and isinstance(recomputed, list | tuple) and len(given) == len(recomputed):
        pairs = enumerate(zip(given, recomputed, strict=True))
        return _all_of(differing(f"{where}[{place}]", *pair) for place, pair in pairs)
    if type(given) is type(recomputed) and given == recomputed:
        return []
    return [Difference(where, _short(given), _short(recomputed))]


def _all_of(parts: Iterable[list[Difference]]) -> list[Difference]:
    return [item for part in parts for item in part]


def verify_bundle(
    bundle: Mapping[str, Any],
    trusted: Ed25519PublicKey | None,
    recompute: Callable[[Mapping[str, Any]], tuple[list[Difference], list[str]]],
) -> Verdict:
    """Return whether a bundle holds: its signature, its ledger rows' hash, and its bill made again.

    Args:
        bundle: Of `decode_bundle`.
        trusted: The issuer's key, see `check_signature`.
        recompute: Returns what differs, and notes; see `metering.bundle_bill.recompute_bill`.

    Raises:
        BundleError: It cannot be looked into.
    """
    differences = check_signature(bundle, trusted)
    try:
        rows, stated = bundle["ledger"]["rows"], bundle["ledger"]["sha256"]
        bill_no = str(bundle["bill"]["bill_no"])
        key_id = str(bundle["signature"]["key_id"]) if isinstance(bundle["signature"], dict) else ""
    except (KeyError, TypeError) as error:
        raise BundleError(f"the bundle lacks {error}") from None
    if (found := digest(rows)) != stated:
        differences.append(Difference("ledger.sha256", _short(stated), found))
    more, notes = recompute(bundle)
    if trusted is None:
        notes = [
            *notes,
            "the signature was checked with the key that the bundle brings: give --public-key to know whose it is",
        ]
    return Verdict(bill_no, key_id, (*differences, *more), tuple(notes))
