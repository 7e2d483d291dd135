"""(a) The core alone: validate and settle over columns, one core, no I/O. Target: 1,000,000 readings/s."""

import time

import numpy as np

from bench.made import Fleet, make_meters, make_prices, round_columns, with_lineage
from metering.settlement import plan_batch, settle_batch
from metering.state import MeterStates
from metering.validation import refusals

FLEET = 100_000
ROUNDS = 10
BATCH = 10_000


def run_once(seed: int) -> float:
    """Return readings per second of one pass over FLEET x ROUNDS readings in batches of BATCH."""
    prices = make_prices()
    meters = make_meters(FLEET, prices)
    states = MeterStates.empty(meters.size)
    rises = Fleet(FLEET, seed).rises_wh(ROUNDS)
    registers = np.cumsum(rises, axis=0) + 1_000
    numbers = np.arange(1, FLEET + 1)
    batches = [
        with_lineage(round_columns(numbers[low : low + BATCH], registers[number][low : low + BATCH], number), place, 0)
        for number in range(ROUNDS)
        for place, low in enumerate(range(0, FLEET, BATCH))
    ]
    total_wh = 0
    began = time.perf_counter()
    for batch in batches:
        codes = refusals(batch, meters.modulus_wh[batch["meter_no"]], 900, 400)
        batch["refusal"] = codes.astype(np.int64)
        plan = plan_batch(batch, states, meters)
        settled = settle_batch(plan, {}, states, meters, prices)
        states.put(settled.touched, settled.states)
        total_wh += int(settled.facts["energy_wh"].sum())
    seconds = time.perf_counter() - began
    assert total_wh == int((registers[-1] - registers[0]).sum())
    return FLEET * ROUNDS / seconds
