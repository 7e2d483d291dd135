"""A bill as a document: what is kept with an issued bill, and all that its page, its PDF and its bundle are made of.

Decimals are text in JSON, days are local days of the tariff's zone and half-open, instants are UTC, energies are Wh.
"""

import datetime as dt
from decimal import Decimal

import msgspec


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a bill."""

    line_no: int
    line_id: str
    kind: str
    """Of `metering.bill.KINDS`, or ``correction`` (of a closed cycle), ``adjustment``, ``credit``."""
    label: str
    quantity: Decimal
    unit: str
    price: Decimal
    amount: Decimal
    amount_unrounded: Decimal
    start_on: dt.date
    end_on: dt.date
    tariff_document_no: int | None = None
    tariff_version: int | None = None
    bucket: int | None = None
    tier: int | None = None
    included: Decimal | None = None
    corrects_bill_no: str | None = None
    reason: str = ""


class RegisterSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One register of one meter in the period: its opening and closing reading."""

    meter_id: str
    register: str
    """``import`` or ``export``."""
    start_at: dt.datetime
    end_at: dt.datetime
    start_wh: int
    end_wh: int
    energy_wh: int


class DayUse(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of a local day."""

    day: dt.date
    energy_wh: int
    export_wh: int = 0
    estimated_wh: int = 0


class TariffPart(msgspec.Struct, frozen=True, kw_only=True):
    """The tariff of some days of the bill."""

    tariff_id: str
    name: str
    tariff_document_no: int
    document_sha256: str
    start_on: dt.date
    end_on: dt.date
    terms: dict[str, Decimal] = {}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier bill of the same contract beside this one."""

    what: str
    """``last_period`` or ``last_year``."""
    start_on: dt.date
    end_on: dt.date
    energy_wh: int
    total: Decimal


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """Who the bill is for."""

    customer_id: str
    name: str
    postal_address: str
    email: str | None
    language: str
    account_id: str
    contract_id: str
    service_point_id: str
    service_address: str


class BillDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A whole bill."""

    kind: str
    """``invoice``, ``credit_note`` or ``adjustment``."""
    bill_no: str | None
    """None until it is issued."""
    issuer: str
    party: Party
    start_on: dt.date
    end_on: dt.date
    zone: str
    currency: str
    digits: int
    lines: tuple[BillLine, ...]
    total: Decimal
    total_unrounded: Decimal
    issued_on: dt.date | None = None
    due_on: dt.date | None = None
    energy_wh: int = 0
    export_wh: int = 0
    estimated_wh: int = 0
    registers: tuple[RegisterSpan, ...] = ()
    days: tuple[DayUse, ...] = ()
    tariffs: tuple[TariffPart, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    corrects_bill_no: str | None = None
    reason: str = ""


def encode_bill(document: BillDocument) -> bytes:
    """Return a bill as JSON."""
    return msgspec.json.encode(document)


def decode_bill(text: bytes | str) -> BillDocument:
    """Return the bill of a JSON text.

    Raises:
        msgspec.ValidationError: It is none.
    """
    return msgspec.json.decode(text, type=BillDocument)
