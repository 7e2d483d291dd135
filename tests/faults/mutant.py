"""A settle worker with a known-bad agent: it uses Faust's `take` and lets an exception out (mutation M2).

`python -m tests.faults.mutant checked|unchecked`; settings come from the environment. Unchecked, the database's offset does
not guard it either.
"""

import sys
from typing import Any

import faust

import agents.settle
from agents import consumer
from agents.consumer import by_partition
from monitoring.log import set_up_logging
from schemas.addresses import resolve_addresses
from schemas.settings import load_settings

FAILS_AT = 3
FRAMES = 2


def add_bad_agent(app: faust.App, runner: Any, batch_max: int, batch_wait_s: float) -> None:
    """Take batches as Faust's own examples do; the third one fails once."""
    del batch_max, batch_wait_s
    raw = {"key_type": bytes, "key_serializer": "raw", "value_type": bytes, "value_serializer": "raw"}
    topic = app.topic(*runner.handler.topics, **raw)
    taken = 0

    async def consume(stream: Any) -> None:
        nonlocal taken
        async for batch in stream.take_events(FRAMES, within=0.2):
            taken += 1
            if taken == FAILS_AT:
                raise RuntimeError("simulated failure of the database")
            for tp, records in by_partition(batch).items():
                await runner.call(runner.handler.commit, tp.topic, tp.partition, records)

    app.agent(topic, name="bad-agent")(consume)


def main() -> None:
    """Run the worker."""
    set_up_logging()
    if sys.argv[1] == "unchecked":
        agents.settle.skip_replays = lambda _row, records: list(records)
    consumer.add_agent = add_bad_agent
    settings = load_settings().settings
    addresses = resolve_addresses(settings)
    agents.settle.run(settings, addresses.database, addresses.kafka, "settle-mutant")


if __name__ == "__main__":
    main()
