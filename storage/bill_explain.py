"""Where an amount on a bill is from: line → tariff version and price → intervals → readings with quality → raw message."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg

from metering.calendar import US, compile_segments, local_midnight_s
from metering.tariff import Tariff, parse_tariff
from schemas.bill import BillDocument, BillLine
from schemas.quality import Quality
from storage.bill import BillError, BillRow, fetch_bill
from storage.bill_input import fetch_inputs
from storage.ledger_time import KNOWN_SQL, Position, offsets_by_partition
from storage.load import ServiceLoad, fetch_load, fetch_placements, instant
from storage.raw_record import RawMessages

READINGS_MAX = 20_000
PEAKS = 10


@dataclasses.dataclass(frozen=True)
class ReadingUsed:
    """A fact of the ledger that a line stands on, and the message that carried it."""

    meter_id: str
    start_at: dt.datetime
    end_at: dt.datetime
    revision: int
    """Above 0: entered again, since a late reading parted its interval."""
    quality: str
    energy_wh: int
    import_wh: int
    """Register at the end."""
    export_energy_wh: int
    export_wh: int | None
    raw_partition: int
    raw_offset: int
    raw_index: int
    raw_topic: str = ""
    """MQTT topic of the message; empty until it was looked up, or when Kafka no longer has it."""
    raw_payload: str = ""


@dataclasses.dataclass(frozen=True)
class IntervalUsed:
    """Energy of an interval that a line prices; of an interval that several periods share, the line's part."""

    start_at: dt.datetime
    energy_wh: int
    estimated_wh: int


@dataclasses.dataclass(frozen=True)
class TariffUsed:
    """The version of a tariff that a line is of."""

    tariff_id: str
    tariff_document_no: int
    document_sha256: str
    version: int
    valid_from: dt.date
    season: str | None
    period: str | None
    listed_price: Decimal | None
    """As the version lists it for season and period; what a tier adds is in the line's price."""


@dataclasses.dataclass(frozen=True)
class LineExplained:
    """One line, down to its readings."""

    line: BillLine
    basis: str
    tariff: TariffUsed | None
    intervals: tuple[IntervalUsed, ...]
    energy_wh: int
    """Of the intervals; of a bucket with tiers, over all its tiers."""
    readings: tuple[ReadingUsed, ...]


@dataclasses.dataclass(frozen=True)
class BillExplained:
    """A bill, line by line."""

    bill: BillRow
    position: Mapping[int, int]
    """Next offset of each partition: the bill is of the facts below."""
    known_at: dt.datetime
    lines: tuple[LineExplained, ...]


BASES = {
    "energy": "energy of the intervals in the line's period x price",
    "demand": "highest mean power of the period's windows x price; the highest intervals are listed",
    "fixed": "units of time x price",
    "reactive": "reactive against active energy of all intervals",
    "export": "energy fed in",
    "minimum": "what fills the lines before it up to the minimum",
    "surcharge": "worked out from energy, time or the lines before it",
    "discount": "worked out from the lines before it",
    "tax": "rate on the lines before it",
    "correction": "readings, tariff or contract known after the corrected bill; the readings are listed",
    "adjustment": "entered by hand, proposed by one user and approved by another",
    "credit": "the line of the cancelled bill, taken back",
}


def explain_bill(conn: psycopg.Connection[Any], name: str, line: str | None = None) -> BillExplained:
    """Return what a bill, or one line of it, stands on.

    Args:
        conn: Connection.
        name: Number of the bill, or ``#id``.
        line: Id or number of a line; None is all.

    Raises:
        BillError: There is no such bill or line.
    """
    row, document = fetch_bill(conn, name)
    kept = conn.execute(
        "select b.ledger_position, b.created_at, c.service_point_no from bill b join contract c using (contract_no)"
        " where bill_id = %s",
        (row.bill_id,),
    ).fetchone()
    assert kept is not None
    chosen = [item for item in document.lines if line in (None, item.line_id, str(item.line_no))]
    if not chosen:
        raise BillError(
            f"bill {row.name} has no line {line!r}: its lines are {', '.join(x.line_id for x in document.lines)}"
        )
    position = {int(partition): offset for partition, offset in kept[0].items()}
    reader = _Reader(conn, document, kept[2], position, kept[1])
    return BillExplained(row, position, kept[1], tuple(reader.explain(item) for item in chosen))


class _Reader:
    """Reads what lines of one bill stand on; tariffs and loads once."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        document: BillDocument,
        service_point_no: int,
        position: Position,
        known_at: dt.datetime,
    ) -> None:
        self._conn = conn
        self._document = document
        self._point = service_point_no
        self._position = position
        self._known_at = known_at
        self._tariffs: dict[int, tuple[Tariff, str]] = {}
        self._loads: dict[tuple[int, int], ServiceLoad] = {}

    def explain(self, line: BillLine) -> LineExplained:
        basis = BASES[line.kind]
        if line.kind == "correction":
            return LineExplained(line, basis, None, (), 0, self._news(line))
        if line.tariff_document_no is None:
            return LineExplained(line, basis, None, (), 0, ())
        tariff, digest = self._tariff(line.tariff_document_no)
        used = _tariff_used(tariff, digest, line)
        if line.kind not in ("energy", "demand", "reactive", "export"):
            return LineExplained(line, basis, used, (), 0, ())
        intervals, energy_wh = self._intervals(tariff, line)
        if not intervals:
            return LineExplained(line, basis, used, (), 0, ())
        low, high = intervals[0].start_at, intervals[-1].start_at + dt.timedelta(minutes=15)
        if line.kind == "demand":
            intervals = tuple(sorted(intervals, key=lambda item: (-item.energy_wh, item.start_at))[:PEAKS])
        starts = {item.start_at for item in intervals}
        readings = [
            reading
            for reading in self._readings(low, high, None)
            if any(at in starts for at in _quarters(reading.start_at, reading.end_at, low, high))
        ]
        return LineExplained(line, basis, used, intervals, energy_wh, tuple(readings))

    def _tariff(self, number: int) -> tuple[Tariff, str]:
        if number not in self._tariffs:
            row = self._conn.execute(
                "select document, document_sha256 from tariff_document where tariff_document_no = %s", (number,)
            ).fetchone()
            assert row is not None
            self._tariffs[number] = parse_tariff(row[0]), row[1]
        return self._tariffs[number]

    def _intervals(self, tariff: Tariff, line: BillLine) -> tuple[tuple[IntervalUsed, ...], int]:
        """Return the quarter-hours of a line's period; of a line of no period, of its days."""
        low, high = (local_midnight_s(tariff, day) * US for day in (line.start_on, line.end_on))
        if low >= high:
            return (), 0
        if (low, high) not in self._loads:
            self._loads[low, high] = fetch_load(self._conn, self._point, low, high, known=self._position)
        load = self._loads[low, high]
        column = "export_wh" if line.kind == "export" else "import_wh"
        energy = load.load.registers.get(column, np.zeros(len(load.load.start_us), np.int64))
        chosen = np.ones(len(energy), np.bool_)
        if line.bucket is not None:
            inputs = fetch_inputs(self._conn, [tariff], low, high, self._known_at)
            segments = compile_segments(tariff, line.start_on, line.end_on, flags=inputs.flags)
            place = np.searchsorted(segments.start_s * US, load.load.start_us, side="right") - 1
            chosen = segments.bucket[np.maximum(place, 0)] == line.bucket
        rows = np.flatnonzero(chosen)
        found = tuple(
            IntervalUsed(instant(int(at)), int(wh), int(estimated))
            for at, wh, estimated in zip(load.load.start_us[rows], energy[rows], load.estimated_wh[rows], strict=True)
        )
        return found, int(energy[rows].sum())

    def _readings(self, low: dt.datetime, high: dt.datetime, since: Position | None) -> list[ReadingUsed]:
        low_us, high_us = (int(at.timestamp()) * US for at in (low, high))
        placements = fetch_placements(self._conn, [self._point], low_us, high_us)
        found = []
        for item in placements:
            found += fetch_readings(
                self._conn,
                item.meter_no,
                (instant(max(item.start_us, low_us)), instant(min(item.end_us, high_us))),
                self._position,
                since,
            )
        return found

    def _news(self, line: BillLine) -> tuple[ReadingUsed, ...]:
        """Return the readings that were not known to the corrected bill."""
        row = self._conn.execute(
            "select ledger_position from bill where bill_no = %s", (line.corrects_bill_no,)
        ).fetchone()
        if row is None or not self._document.tariffs:
            return ()
        before = {int(partition): offset for partition, offset in row[0].items()}
        tariff, _ = self._tariff(self._document.tariffs[-1].tariff_document_no)
        low, high = (instant(local_midnight_s(tariff, day) * US) for day in (line.start_on, line.end_on))
        return tuple(self._readings(low, high, before))


def _quarters(start: dt.datetime, end: dt.datetime, low: dt.datetime, high: dt.datetime) -> list[dt.datetime]:
    at = max(start, low)
    at -= dt.timedelta(minutes=at.minute % 15, seconds=at.second, microseconds=at.microsecond)
    found = []
    while at < min(end, high):
        found.append(at)
        at += dt.timedelta(minutes=15)
    return found


def _tariff_used(tariff: Tariff, digest: str, line: BillLine) -> TariffUsed:
    index = line.tariff_version or 0
    season, period, price = None, None, None
    if line.bucket is not None:
        index, season, period = tariff.buckets[line.bucket]
        price = tariff.versions[index].prices_per_kwh.get((season, period))
    return TariffUsed(
        tariff_id=tariff.tariff_id,
        tariff_document_no=line.tariff_document_no or 0,
        document_sha256=digest,
        version=index,
        valid_from=tariff.versions[index].valid_from,
        season=season,
        period=period,
        listed_price=price,
    )


def fetch_readings(
    conn: psycopg.Connection[Any],
    meter_no: int,
    span: tuple[dt.datetime, dt.datetime],
    known: Position,
    since: Position | None = None,
) -> list[ReadingUsed]:
    """Return the live facts of a meter that lie in or reach into a span, with the messages that carried them.

    Args:
        conn: Connection.
        meter_no: Which.
        span: Instants.
        known: As known at this position.
        since: Only those that were not known at this one.
    """
    rows = conn.execute(
        "select m.meter_id, f.start_at, f.end_at, f.revision, f.quality, f.energy_wh, f.import_wh, f.export_energy_wh,"
        " f.export_wh, f.raw_partition, f.raw_offset, raw_index_of(f.raw_place) from (select distinct on (f.end_at) f.*"
        f" from fact f where f.meter_no = %(meter)s and f.end_at > %(low)s and {KNOWN_SQL}"
        " and f.end_at < %(high)s::timestamptz + interval '62 days' order by f.end_at, f.revision desc) f"
        " join meter m using (meter_no) where f.revision %% 2 = 0 and f.start_at < %(high)s and (%(since)s::int8[] is null"
        " or f.frame_offset >= coalesce((%(since)s::int8[])[f.frame_partition + 1], 0)) order by f.end_at limit %(limit)s",
        {
            "meter": meter_no,
            "low": span[0],
            "high": span[1],
            "offsets": offsets_by_partition(known),
            "since": offsets_by_partition(since),
            "limit": READINGS_MAX,
        },
    ).fetchall()
    found = []
    for meter_id, start_at, end_at, revision, flags, *rest in rows:
        found.append(ReadingUsed(meter_id, start_at, end_at, revision, " ".join(Quality(flags).words), *rest))
    return found


def with_messages(readings: Sequence[ReadingUsed], messages: RawMessages, limit: int) -> list[ReadingUsed]:
    """Return readings with the messages that carried them, as Kafka still has them; the first `limit` of them."""
    found = []
    for reading in readings[:limit]:
        topic, payload = messages.fetch(reading.raw_partition, reading.raw_offset, reading.raw_index)
        text = payload.decode("utf-8", "backslashreplace")
        found.append(dataclasses.replace(reading, raw_topic=topic, raw_payload=text))
    return found
