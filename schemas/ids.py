"""Identifiers: meter ids as the messages carry them, and the partition each key belongs to."""

import re

METER_ID_LENGTH_MAX = 64
METER_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")

_MASK = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C


def is_meter_id(text: str) -> bool:
    """Return whether the text may name a meter or a gateway (1 to 64 of ``A-Z a-z 0-9 . _ -``)."""
    return METER_ID_PATTERN.fullmatch(text) is not None


def murmur2(key: bytes) -> int:
    """Return Kafka's 32-bit murmur2 hash of a key.

    Example:
        >>> murmur2(b"21") - 2**32
        -973932308

    References:
        Apache Kafka, ``org.apache.kafka.common.utils.Utils.murmur2`` and its test vectors.
    """
    length = len(key)
    value = (_SEED ^ length) & _MASK
    whole = length & ~3
    for place in range(0, whole, 4):
        word = int.from_bytes(key[place : place + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ (word >> 24)) * _MULTIPLIER & _MASK
        value = (value * _MULTIPLIER & _MASK) ^ word
    if length & 3:
        value = (value ^ int.from_bytes(key[whole:], "little")) * _MULTIPLIER & _MASK
    value = (value ^ (value >> 13)) * _MULTIPLIER & _MASK
    return value ^ (value >> 15)


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a key, as Kafka's own clients compute it (``murmur2_random``).

    Args:
        key: Meter id or gateway id.
        partitions: Number of partitions of the topic, at least 1.
    """
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
