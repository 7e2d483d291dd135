"""Charges that columns do not give: computed after the commit, one meter at a time, within a budget of time."""

import time
from collections.abc import Iterable

import numpy as np
import psycopg

from agents.outgoing import Charges, Outgoing, Slow
from metering.state import MeterStates
from metering.terms import RatingError
from monitoring.log import get_logger
from storage.charge import fetch_charge
from storage.registry import Registry
from storage.state import fetch_state

WAITING_MAX = 200_000
"""Meters that wait; beyond them the oldest one is let go: its next reading brings it back, and a page asks by itself."""
BUDGET_S = 0.1

log = get_logger("agents.slow_charge")


class SlowCharges:
    """Meters whose charge waits to be computed, each once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: dict[int, Slow] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def add(self, meters: Iterable[Slow]) -> None:
        """Let meters wait; one that waits already keeps its place."""
        for slow in meters:
            self._waiting[slow.meter_no] = slow
            if len(self._waiting) > WAITING_MAX:
                self._waiting.pop(next(iter(self._waiting)))

    def compute(
        self,
        conn: psycopg.Connection,
        registry: Registry,
        charges: Charges,
        states: MeterStates,
        budget_s: float = BUDGET_S,
    ) -> list[Outgoing]:
        """Return the charges of the meters that waited longest, as many as the time allows but at least one.

        Args:
            conn: Connection, outside of a transaction.
            registry: Master data.
            charges: Makes the frames.
            states: In memory, of all meters of the worker.
            budget_s: Time to spend, s.
        """
        found: list[Outgoing] = []
        began = time.monotonic()
        while self._waiting:
            number = next(iter(self._waiting))
            slow = self._waiting.pop(number)
            frame = _charge(conn, registry, charges, states, slow)
            if frame is not None:
                found.append(frame)
            if time.monotonic() - began > budget_s:
                break
        return found


def _charge(
    conn: psycopg.Connection, registry: Registry, charges: Charges, states: MeterStates, slow: Slow
) -> Outgoing | None:
    def state_of(number: int) -> MeterStates:
        # A meter of another worker's partition is read from the database; so is one that never was heard here.
        own = states.take(np.array([number])) if number < len(states.epoch) else MeterStates.empty(1)
        return own if own.last_at[0] >= 0 else fetch_state(conn, registry, number)

    point_no = int(registry.meters.service_point_no[slow.meter_no])
    try:
        charge = fetch_charge(conn, registry, point_no, state_of=state_of)
    except RatingError as error:
        log.warning("charge_not_computed", meter_no=slow.meter_no, error=str(error)[:300])
        return None
    return None if charge is None else charges.slow_frame(slow, states.take(np.array([slow.meter_no])), charge)
