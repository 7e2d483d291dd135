"""Cells of master data files: how each kind of value is read from text, and written."""

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

TERMS_MAX = 20
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,12})?")
_EMAIL = re.compile(r"[^@\s,;<>]{1,64}@[^@\s,;<>]+\.[^@\s.,;<>]+")

Cell = Callable[[str], Any]
"""Reads a cell that is not empty; ValueError where it cannot be."""


def read_id(text: str) -> str:
    """Return a name that people give things."""
    if not _ID.fullmatch(text):
        raise ValueError
    return text


def read_name(text: str) -> str:
    """Return a name in small letters, such as heat_day."""
    if not _NAME.fullmatch(text):
        raise ValueError
    return text


def read_email(text: str) -> str:
    """Return an e-mail address."""
    if not _EMAIL.fullmatch(text):
        raise ValueError
    return text


def read_decimal(text: str) -> Decimal:
    """Return a decimal."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError
    return Decimal(text)


def read_kwh(text: str) -> int:
    """Return a register in Wh of a text in kWh with at most three decimals.

    Example:
        >>> read_kwh("6193.2")
        6193200
    """
    wh = read_decimal(text) * 1000
    if wh != int(wh) or not 0 <= wh <= 2**53:
        raise ValueError
    return int(wh)


def read_day(text: str) -> dt.date:
    """Return a day such as 2026-11-24, and no other way to write it."""
    if len(text) != 10:
        raise ValueError
    return dt.date.fromisoformat(text)


def read_instant(text: str) -> dt.datetime:
    """Return an instant with its offset."""
    at = dt.datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError
    return at


def read_yes(text: str) -> bool:
    """Return whether it says yes."""
    return {"yes": True, "no": False}[text] if text in ("yes", "no") else _raise()


def _raise() -> bool:
    raise ValueError


def read_terms(text: str) -> str:
    """Return terms as JSON of ``contract_kw=20;capacity_kva=10``.

    Example:
        >>> read_terms("contract_kw=20.50")
        '{"contract_kw": "20.5"}'
    """
    terms: dict[str, str] = {}
    for part in text.split(";"):
        name, _, value = part.strip().partition("=")
        if read_name(name.strip()) in terms or len(terms) == TERMS_MAX:
            raise ValueError
        terms[name.strip()] = text_of_decimal(read_decimal(value.strip()))
    return json.dumps(terms, sort_keys=True)


def text_of_decimal(value: Decimal) -> str:
    """Return a decimal without zeros at its end.

    Example:
        >>> text_of_decimal(Decimal("20.50")), text_of_decimal(Decimal("100"))
        ('20.5', '100')
    """
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def text_of_terms(terms: Mapping[str, str]) -> str:
    """Return terms as a cell has them."""
    return ";".join(f"{name}={value}" for name, value in sorted(terms.items()))


def one_of(*words: str) -> Cell:
    """Return a reader of one of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def whole(low: int, high: int) -> Cell:
    """Return a reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return read


def read_text(text: str) -> str:
    """Return a text as it is."""
    return text


def read_word(text: str) -> str:
    """Return a word in small letters."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", text):
        raise ValueError
    return text


def read_currency(text: str) -> str:
    """Return the three letters of a currency."""
    if not re.fullmatch(r"[A-Z]{3}", text):
        raise ValueError
    return text
