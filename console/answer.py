"""What the REST interface answers with. Energies are whole Wh; kWh, prices and money are decimals as text."""

import datetime as dt
from decimal import Decimal
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, Field

from schemas.quality import Quality
from storage.charge import ChargeSoFar

QUALITY = "`actual`, or what is to be known: opening, straddling, rollover, late, long, high"


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str
    incident: str | None = Field(None, description="to be told to the technician")


class Reading(BaseModel):
    """A settled reading: a register at an instant, and the energy since the reading before it."""

    read_at: dt.datetime = Field(description="when it was measured; the end of its interval")
    start_at: dt.datetime = Field(description="start of its interval; equal to `end_at` for a register's first reading")
    end_at: dt.datetime
    energy_wh: int = Field(description="import in the interval")
    export_energy_wh: int
    import_wh: int = Field(description="the register, cumulative")
    export_wh: int | None
    power_w: float | None = Field(description="as the meter measured it at that instant")
    voltage_v1: float | None
    current_a1: float | None
    quality: list[str] = Field(description=QUALITY)
    seq: int = Field(description="the meter's own number of the reading")
    boot_id: int
    revision: int = Field(description="0, or even and higher when a late reading changed the interval")
    raw_partition: int = Field(
        description="with `raw_offset` and `raw_index`: the message in meter.raw that it came from"
    )
    raw_offset: int
    raw_index: int


class Usage(BaseModel):
    """Energy of one interval, half-open [start, end)."""

    start: dt.datetime
    end: dt.datetime
    energy_wh: int
    export_energy_wh: int
    quality: list[str] = Field(description=QUALITY)


class ChargeLine(BaseModel):
    """One row of a running charge; the unrounded amounts sum to the total."""

    label: str = Field(examples=["peak"])
    kind: str = Field(description="energy, tier, fixed, demand, tax and the other kinds of a bill's lines")
    quantity_kwh: str
    price: str = Field(description="per kWh; of a fixed charge per cycle or day")
    amount: str
    amount_unrounded: str


class RunningCharge(BaseModel):
    """The charge of a service point's billing cycle so far; not billed."""

    service_point_id: str
    tariff_id: str
    currency: str
    cycle_start: dt.datetime
    cycle_end: dt.datetime
    as_of: dt.datetime = Field(description="the newest reading that is in it")
    energy_wh: int
    amount: str = Field(description="rounded once, as a bill is")
    amount_unrounded: str
    lines: list[ChargeLine]


class Meter(BaseModel):
    """A meter: master data, last reading, running charge."""

    meter_id: str
    service_point_id: str | None
    parent_id: str | None
    tariff_id: str | None
    rated_power_w: int | None
    interval_s: int
    last_reading: Reading | None = Field(description="null: none came yet")
    running_charge: RunningCharge | None


class Alarm(BaseModel):
    """One alarm per (subject, kind)."""

    alarm_id: int
    subject: str
    kind: str = Field(examples=["silent", "tamper"])
    priority: int = Field(description="1 critical to 4 low")
    state: str = Field(description="unacknowledged, acknowledged, returned (and nobody acknowledged it) or cleared")
    detail: str
    raised_at: dt.datetime
    cleared_at: dt.datetime | None
    last_at: dt.datetime = Field(description="when it last occurred")
    occurrences: int


class DeadLetter(BaseModel):
    """A message or element that was refused; its bytes are kept (`gridtally dead-letters show`)."""

    dead_letter_id: int
    stage: str
    code: str
    detail: str
    mqtt_topic: str
    meter_id: str | None
    boot_id: int | None
    seq: int | None
    raw_partition: int
    raw_offset: int
    raw_index: int
    received_at: dt.datetime
    state: str = Field(description="new, replayed or discarded")
    changed_at: dt.datetime | None
    payload_bytes: int


class Process(BaseModel):
    """A process of this data directory's supervisor."""

    name: str
    pid: int | None
    state: str = Field(description="starting, running, stopped or failed")


class Progress(BaseModel):
    """How far a stage has come in one partition, by the database."""

    consumer: str
    topic: str
    partition: int
    next_offset: int
    checkpoint_offset: int
    readings: int
    accepted: int
    duplicate: int
    late: int
    refused: int
    refused_before: int
    updated_at: dt.datetime
    watermark: dt.datetime | None = Field(description="no later record of the partition was received before it")


class Status(BaseModel):
    """What runs, where, and how far it is."""

    mqtt: str | None
    kafka: str | None
    database: str | None = Field(description="without user and password")
    console: str | None
    metrics: dict[str, str | None]
    processes: list[Process] = Field(description="empty where no supervisor runs in the console's data directory")
    progress: list[Progress] | None = Field(description="null: the database does not answer")


def reading_of(row: dict[str, Any]) -> Reading:
    """Return a reading from a row of `storage.query`."""
    return Reading(**{**row, "read_at": row["end_at"], "quality": Quality(row["quality"]).words})


def usage_of(row: dict[str, Any]) -> Usage:
    """Return an interval from a row of `storage.query`."""
    return Usage(
        start=row["start_at"],
        end=row["end_at"],
        energy_wh=row["energy_wh"],
        export_energy_wh=row["export_energy_wh"],
        quality=Quality(row["quality"]).words,
    )


def charge_of(charge: ChargeSoFar) -> RunningCharge:
    """Return a running charge."""
    return RunningCharge(
        service_point_id=charge.service_point_id,
        tariff_id=charge.tariff_id,
        currency=charge.currency,
        cycle_start=charge.cycle_start,
        cycle_end=charge.cycle_end,
        as_of=charge.read_at,
        energy_wh=charge.energy_wh,
        amount=_decimal(charge.total),
        amount_unrounded=_decimal(charge.total_unrounded),
        lines=[
            ChargeLine(
                label=line.label,
                kind=line.kind,
                quantity_kwh=_decimal(line.quantity_kwh),
                price=_decimal(line.price),
                amount=_decimal(line.amount),
                amount_unrounded=_decimal(line.amount_unrounded),
            )
            for line in charge.lines
        ],
    )


def _decimal(value: Decimal) -> str:
    """Return a decimal without an exponent: `str` writes tiny ones as 0E-8."""
    return f"{value:f}"


def safe_database(dsn: str | None) -> str | None:
    """Return where a database is, without who may enter it.

    Example:
        >>> safe_database("postgresql://gridtally:secret@127.0.0.1:5433/gridtally")
        'postgresql://127.0.0.1:5433/gridtally'
        >>> safe_database("host=db password=secret dbname=g")
        'postgresql://db:5432/g'
    """
    if not dsn:
        return None
    try:
        parts = conninfo_to_dict(dsn)
    except Exception:  # noqa: BLE001  # whatever is wrong with it, its text must not get out
        return None
    return f"postgresql://{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
