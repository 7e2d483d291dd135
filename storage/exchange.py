"""Meter exchanges and registers entered by hand: what is checked and kept before their readings take the ordinary path."""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from metering.register import is_rollover
from storage.audit import write_audit
from storage.master_cell import read_id, read_instant, read_kwh, read_text, text_of_decimal
from storage.master_file import Column, Faults, Layout, Outcome, Rows

AN_INSTANT = "an instant with offset, such as 2026-11-24T08:00:00+08:00"
A_REGISTER = "a register in kWh with at most three decimals"
EXCHANGES = Layout(
    "exchanges",
    (
        Column("service_point_id", read_text, "a service point", is_required=True),
        Column("at", read_instant, AN_INSTANT, "timestamptz", is_required=True),
        Column("old_meter_id", read_id, "a meter", is_required=True),
        Column("final_kwh", read_kwh, A_REGISTER, "bigint", is_required=True),
        Column("new_meter_id", read_id, "a meter", is_required=True),
        Column("initial_kwh", read_kwh, A_REGISTER, "bigint", is_required=True),
        Column("reason", read_text, "a reason", is_required=True),
    ),
    ("service_point_id", "at"),
)


class ExchangeError(ValueError):
    """An exchange or a reading cannot be entered; the text says what is there, and what to do."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One meter taken from a service point, another put in its place."""

    service_point_id: str
    at: dt.datetime
    old_meter_id: str
    final_import_wh: int
    new_meter_id: str
    initial_import_wh: int
    reason: str

    @property
    def readings(self) -> tuple["HandReading", "HandReading"]:
        """Return the last reading of the old meter and the first of the new one."""
        return (
            HandReading(self.old_meter_id, self.at, self.final_import_wh),
            HandReading(self.new_meter_id, self.at, self.initial_import_wh),
        )


@dataclasses.dataclass(frozen=True)
class HandReading:
    """Registers that somebody read."""

    meter_id: str
    at: dt.datetime
    import_wh: int
    export_wh: int | None = None


@dataclasses.dataclass(frozen=True)
class _Meter:
    number: int
    meter_id: str
    modulus_wh: int
    rated_power_w: int


@dataclasses.dataclass(frozen=True)
class _Settled:
    at: dt.datetime
    import_wh: int
    export_wh: int | None


def text_of_kwh(energy_wh: int) -> str:
    """Return a register for people.

    Example:
        >>> text_of_kwh(6193200)
        '6193.2'
    """
    return text_of_decimal(Decimal(energy_wh) / 1000)


def _meter(conn: psycopg.Connection[Any], meter_id: str) -> _Meter:
    row = conn.execute(
        "select meter_no, meter_id, register_modulus_wh, coalesce(rated_power_w, 0) from meter where meter_id = %s"
        " for no key update",
        (meter_id,),
    ).fetchone()
    if row is None:
        raise ExchangeError(f"no meter {meter_id!r}: `gridtally import meters FILE` brings meters")
    return _Meter(*row)


# -- a register against what is settled ---------------------------------------------------------------------------------


def check_reading(conn: psycopg.Connection[Any], reading: HandReading) -> bool:
    """Return whether a reading is settled already as it is; refuse one that the ledger contradicts.

    Raises:
        ExchangeError: No such meter, it measures nothing then, or a register lies outside its neighbours.
    """
    meter = _meter(conn, reading.meter_id)
    ahead = conn.execute("select %s > now()", (reading.at,)).fetchone()
    if ahead == (True,):
        raise ExchangeError(f"{reading.at.isoformat()} is in the future")
    for name, register in (("import", reading.import_wh), ("export", reading.export_wh)):
        if register is not None and register >= meter.modulus_wh:
            shown = text_of_kwh(meter.modulus_wh)
            raise ExchangeError(f"{name} {text_of_kwh(register)} kWh: {meter.meter_id} shows less than {shown} kWh")
    before, after = (_neighbour(conn, meter.number, reading.at, later=later) for later in (False, True))
    if before is not None and before.at == reading.at:
        if before.import_wh == reading.import_wh and reading.export_wh in (None, before.export_wh):
            return True
        raise ExchangeError(
            f"{text_of_kwh(reading.import_wh)} kWh: {meter.meter_id} has {text_of_kwh(before.import_wh)} kWh at that instant"
            " already; it was not saved"
        )
    _check_order(meter, reading, before, after)
    return False


def _neighbour(conn: psycopg.Connection[Any], meter_no: int, at: dt.datetime, *, later: bool) -> _Settled | None:
    """Return the settled reading at or before an instant, or the one after."""
    epoch = "(select coalesce(max(epoch), 0) from register_epoch where meter_no = %(no)s and start_at <= %(at)s)"
    side = "end_at > %(at)s" if later else "end_at <= %(at)s"
    order = "end_at, revision desc" if later else "end_at desc, revision desc"
    query = (
        f"select end_at, import_wh, export_wh from fact where meter_no = %(no)s and {side} and epoch = {epoch}"
        f" order by {order} limit 1"
    )
    row = conn.execute(query.encode(), {"no": meter_no, "at": at}).fetchone()
    return None if row is None else _Settled(*row)


def _check_order(meter: _Meter, reading: HandReading, before: _Settled | None, after: _Settled | None) -> None:
    _check_register(
        meter,
        reading,
        "",
        None if before is None else (before.at, before.import_wh),
        None if after is None else (after.at, after.import_wh),
    )
    if reading.export_wh is not None:
        _check_register(
            meter,
            reading,
            "export ",
            None if before is None or before.export_wh is None else (before.at, before.export_wh),
            None if after is None or after.export_wh is None else (after.at, after.export_wh),
        )


def _check_register(
    meter: _Meter,
    reading: HandReading,
    name: str,
    before: tuple[dt.datetime, int] | None,
    after: tuple[dt.datetime, int] | None,
) -> None:
    register = reading.export_wh if name else reading.import_wh
    assert register is not None
    wraps = False
    if before is not None and register < before[1]:
        duration_us = (reading.at - before[0]) // dt.timedelta(microseconds=1)
        wraps = not name and is_rollover((register - before[1]) % meter.modulus_wh, duration_us, meter.rated_power_w)
        if not wraps:
            raise ExchangeError(
                f"{name}reading {text_of_kwh(register)} kWh is lower than the last, {text_of_kwh(before[1])} kWh of"
                f" {before[0].isoformat()}; it was not saved. If the meter was exchanged, enter the exchange first"
            )
    if after is not None and not wraps and register > after[1] and (before is None or before[1] <= after[1]):
        raise ExchangeError(
            f"{name}reading {text_of_kwh(register)} kWh is higher than the next, {text_of_kwh(after[1])} kWh of"
            f" {after[0].isoformat()}; it was not saved"
        )


def enter_reading(conn: psycopg.Connection[Any], reading: HandReading, reason: str, who: str) -> bool:
    """Check a reading and write it into the audit trail; return whether it is settled already. The same again adds nothing.

    Raises:
        ExchangeError: With what is wrong; nothing was kept.
    """
    with conn.transaction():
        if check_reading(conn, reading):
            return True
        measures = conn.execute(
            "select from meter_assignment join meter using (meter_no)"
            " where meter_id = %s and start_at <= %s and end_at >= %s limit 1",
            (reading.meter_id, reading.at, reading.at),
        ).fetchone()
        if measures is None:
            raise ExchangeError(f"{reading.meter_id} measures no service point at {reading.at.isoformat()}")
        detail = {
            "at": reading.at.astimezone(dt.UTC).isoformat(),
            "import_wh": reading.import_wh,
            "export_wh": reading.export_wh,
            "reason": reason,
        }
        known = conn.execute(
            "select from audit where subject = %s and action = 'meter.reading' and detail @> %s limit 1",
            (reading.meter_id, Jsonb(detail)),
        ).fetchone()
        if known is None:
            write_audit(conn, who, "meter.reading", reading.meter_id, detail)
    return False


# -- exchanges ------------------------------------------------------------------------------------------------------------


def enter_exchange(conn: psycopg.Connection[Any], exchange: Exchange, who: str) -> bool:
    """Change the assignments of a service point, and keep the exchange; return whether it was there already.

    The old meter measures until `at`, the new one from then on. One transaction; what it writes is the same however often
    it is entered. The readings are the caller's to publish afterwards.

    Raises:
        ExchangeError: With what is wrong; nothing was changed.
    """
    with conn.transaction():
        if exchange.old_meter_id == exchange.new_meter_id:
            raise ExchangeError(f"{exchange.old_meter_id} cannot take its own place")
        point = conn.execute(
            "select service_point_no from service_point where service_point_id = %s for no key update",
            (exchange.service_point_id,),
        ).fetchone()
        if point is None:
            raise ExchangeError(
                f"no service point {exchange.service_point_id!r}: import service-points or meters first"
            )
        old, new = _meter(conn, exchange.old_meter_id), _meter(conn, exchange.new_meter_id)
        if _is_known(conn, exchange, point[0], old, new):
            return True
        for reading in exchange.readings:
            check_reading(conn, reading)
        _refuse_later_readings(conn, exchange, old)
        _end_old(conn, exchange, point[0], old, new)
        _begin_new(conn, exchange, point[0], old, new)
        conn.execute(
            "insert into meter_exchange (service_point_no, at, old_meter_no, final_import_wh, new_meter_no,"
            " initial_import_wh, reason, entered_by) values (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                point[0],
                exchange.at,
                old.number,
                exchange.final_import_wh,
                new.number,
                exchange.initial_import_wh,
                exchange.reason,
                who,
            ),
        )
        detail = dataclasses.asdict(exchange) | {"at": exchange.at.astimezone(dt.UTC).isoformat()}
        write_audit(conn, who, "meter.exchange", exchange.service_point_id, detail)
        return False


def _is_known(conn: psycopg.Connection[Any], exchange: Exchange, point_no: int, old: _Meter, new: _Meter) -> bool:
    row = conn.execute(
        "select old_meter_no, final_import_wh, new_meter_no, initial_import_wh from meter_exchange"
        " where service_point_no = %s and at = %s",
        (point_no, exchange.at),
    ).fetchone()
    if row is None:
        return False
    if row == (old.number, exchange.final_import_wh, new.number, exchange.initial_import_wh):
        return True
    raise ExchangeError(
        f"an exchange of {exchange.service_point_id} at {exchange.at.isoformat()} is there, with final"
        f" {text_of_kwh(row[1])} kWh and initial {text_of_kwh(row[3])} kWh: it is kept as it was entered"
    )


def _refuse_later_readings(conn: psycopg.Connection[Any], exchange: Exchange, old: _Meter) -> None:
    later = _neighbour(conn, old.number, exchange.at, later=True)
    if later is not None:
        raise ExchangeError(
            f"{old.meter_id} has settled readings after {exchange.at.isoformat()}, the next at {later.at.isoformat()}:"
            " was it taken away later?"
        )


def _end_old(conn: psycopg.Connection[Any], exchange: Exchange, point_no: int, old: _Meter, new: _Meter) -> None:
    row = conn.execute(
        "select start_at from meter_assignment where meter_no = %s and service_point_no = %s and start_at < %s"
        " order by start_at desc limit 1",
        (old.number, point_no, exchange.at),
    ).fetchone()
    if row is None:
        raise ExchangeError(
            f"{old.meter_id} does not measure {exchange.service_point_id} before {exchange.at.isoformat()}"
        )
    other = conn.execute(
        "select meter_id, start_at from meter_assignment join meter using (meter_no) where service_point_no = %s"
        " and meter_no <> all(%s) and start_at < %s and end_at > %s and start_at >= %s limit 1",
        (point_no, [old.number, new.number], exchange.at, exchange.at, row[0]),
    ).fetchone()
    if other is not None:
        raise ExchangeError(f"{other[0]} measures {exchange.service_point_id} since {other[1].isoformat()}")
    conn.execute(
        "update meter_assignment set end_at = %s where meter_no = %s and start_at = %s",
        (exchange.at, old.number, row[0]),
    )


def _begin_new(conn: psycopg.Connection[Any], exchange: Exchange, point_no: int, old: _Meter, new: _Meter) -> None:
    """Assign the new meter from the instant on; a place without a contract, such as the stock, is left for it."""
    elsewhere = conn.execute(
        "select p.service_point_id, c.contract_id from meter_assignment a join service_point p using (service_point_no)"
        " join contract c using (service_point_no) where a.meter_no = %s and a.service_point_no <> %s"
        " and a.end_at > %s and coalesce(c.end_on > (%s::timestamptz)::date, true) limit 1",
        (new.number, point_no, exchange.at, exchange.at),
    ).fetchone()
    if elsewhere is not None:
        raise ExchangeError(f"{new.meter_id} measures {elsewhere[0]} under contract {elsewhere[1]}: take it away first")
    conn.execute(
        "delete from meter_assignment where meter_no = %s and service_point_no <> %s and start_at >= %s",
        (new.number, point_no, exchange.at),
    )
    conn.execute(
        "update meter_assignment set end_at = %(at)s where meter_no = %(no)s and service_point_no <> %(point)s"
        " and end_at > %(at)s",
        {"no": new.number, "point": point_no, "at": exchange.at},
    )
    moved = conn.execute(
        "update meter_assignment set start_at = %(at)s where meter_no = %(no)s and service_point_no = %(point)s"
        " and end_at > %(at)s returning start_at",
        {"no": new.number, "point": point_no, "at": exchange.at},
    ).fetchone()
    if moved is None:
        conn.execute(
            "insert into meter_assignment (meter_no, service_point_no, tariff_id, start_at)"
            " select %s, service_point_no, tariff_id, %s from meter_assignment"
            " where meter_no = %s and service_point_no = %s order by start_at desc limit 1",
            (new.number, exchange.at, old.number, point_no),
        )


def apply_exchanges(conn: psycopg.Connection[Any], rows: Rows, faults: Faults, who: str) -> Outcome:
    """Enter the exchanges of a file, oldest first; those that are there change nothing."""
    outcome = Outcome(len(rows.rows))
    for line, *values in sorted(rows.rows, key=lambda row: row[2]):
        try:
            outcome.new += not enter_exchange(conn, Exchange(*values), who)
        except ExchangeError as error:
            faults.add(line, "service_point_id", str(error))
    return outcome


def fetch_exchange_rows(conn: psycopg.Connection[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield exchanges as their layout has them."""
    rows = conn.execute(
        "select p.service_point_id, x.at, o.meter_id, x.final_import_wh, n.meter_id, x.initial_import_wh, x.reason"
        " from meter_exchange x join service_point p using (service_point_no) join meter o on o.meter_no = x.old_meter_no"
        " join meter n on n.meter_no = x.new_meter_no order by x.at, x.meter_exchange_no"
    )
    for point, at, old, final_wh, new, initial_wh, reason in rows:
        yield point, at, old, text_of_kwh(final_wh), new, text_of_kwh(initial_wh), reason


def fetch_unsettled(conn: psycopg.Connection[Any], past_max_days: int) -> list[HandReading]:
    """Return the readings of exchanges that no fact has; those that are too old to be taken are left out."""
    rows = conn.execute(
        "select m.meter_id, r.at, r.import_wh from (select at, old_meter_no as meter_no, final_import_wh as import_wh"
        " from meter_exchange union all select at, new_meter_no, initial_import_wh from meter_exchange) r"
        " join meter m using (meter_no) where r.at > now() - %s * interval '1 day'"
        " and not exists (select from fact f where f.meter_no = r.meter_no and f.end_at = r.at) order by r.at",
        (past_max_days,),
    ).fetchall()
    return [HandReading(*row) for row in rows]
