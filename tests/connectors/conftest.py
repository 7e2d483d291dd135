"""Both brokers: the embedded one of the running system, and mosquitto where it is installed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors.brokers import MOSQUITTO, Edge, edge_on
from tests.fixtures.stack import Stack

NO_MOSQUITTO = pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed")


@pytest.fixture(params=["nats", pytest.param("mosquitto", marks=NO_MOSQUITTO)])
def edge(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[Edge]:
    with contextlib.ExitStack() as stays:
        yield edge_on(request.param, stack, tmp_path, stays)


@pytest.fixture
def nats_edge(stack: Stack, tmp_path: Path) -> Iterator[Edge]:
    with contextlib.ExitStack() as stays:
        yield edge_on("nats", stack, tmp_path, stays)
