"""Register epochs: a register that was reset or replaced begins again, and its differences with it."""

import datetime as dt

import psycopg


class EpochError(ValueError):
    """The epoch cannot be opened; the message says why and what to do."""


def open_epoch(conn: psycopg.Connection, meter_id: str, start_at: dt.datetime, reason: str) -> int:
    """Open a register epoch of a meter from an instant on, and return its number.

    Readings from then on are differences among themselves: the first of them opens the register and has no energy. The same
    epoch again changes nothing.

    Args:
        conn: Connection in autocommit mode.
        meter_id: Of a meter in the master data.
        start_at: Aware; the first reading of the new register lies at or after it.
        reason: Kept with it, not empty.

    Raises:
        EpochError: No such meter, an epoch that begins later, or readings already settled at or after the instant.
    """
    if not reason.strip():
        raise EpochError("a reason is needed")
    with conn.transaction():
        row = conn.execute("select meter_no from meter where meter_id = %s for update", (meter_id,)).fetchone()
        if row is None:
            raise EpochError(f"no meter {meter_id!r}; `gridtally import meters` adds meters")
        number = row[0]
        newest = conn.execute(
            "select epoch, start_at from register_epoch where meter_no = %s order by epoch desc limit 1", (number,)
        ).fetchone()
        if newest is not None and newest[1] == start_at:
            return int(newest[0])
        if newest is not None and newest[1] > start_at:
            raise EpochError(f"epoch {newest[0]} of {meter_id} begins later, {newest[1].isoformat()}")
        settled = conn.execute(
            "select max(end_at) from fact where meter_no = %s and end_at >= %s", (number, start_at)
        ).fetchone()
        assert settled is not None
        if settled[0] is not None:
            raise EpochError(f"{meter_id} has settled readings until {settled[0].isoformat()}: begin after them")
        epoch = 1 if newest is None else newest[0] + 1
        conn.execute(
            "insert into register_epoch (meter_no, epoch, start_at, reason) values (%s, %s, %s, %s)",
            (number, epoch, start_at, reason),
        )
        return int(epoch)
