"""Terms of a contract that charges are worked out by."""

from collections.abc import Mapping
from decimal import Decimal

from metering.tariff import Tariff


class RatingError(ValueError):
    """A bill needs something that is not there; the text says what and where to give it."""


def term(tariff: Tariff, terms: Mapping[str, Decimal], name: str) -> Decimal:
    """Return a term of the contract, or the tariff's own.

    Raises:
        RatingError: Neither has it.
    """
    value = terms.get(name, tariff.document.terms.get(name))
    if value is None:
        raise RatingError(f"the tariff needs the contract's {name}: give it, or put it into the tariff's `terms`")
    return value
