"""Metrics of each process, and the small loopback server that shows them with health and readiness.

No meter id is ever a label: labels are stages, outcomes, partitions.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from monitoring.log import get_logger
from schemas.settings import MetricsSettings

LOOPBACK = "127.0.0.1"
ANY_HOST = ("0.0.0.0", "::")  # noqa: S104  # compared; the default is loopback
PROCESSES = ("bridge", "validate", "settle", "detect", "console")
STUCK_AFTER_S = 60.0

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_ROWS = (1, 10, 100, 1000, 10_000, 100_000)

READINGS = Counter("gridtally_readings", "Readings and events by stage and outcome", ["stage", "outcome"])
MESSAGES = Counter("gridtally_messages", "MQTT messages or Kafka records by stage and outcome", ["stage", "outcome"])
BATCHES = Counter("gridtally_batches", "Batches committed", ["stage"])
BATCH_SECONDS = Histogram("gridtally_batch_seconds", "Time of one batch", ["stage"], buckets=_SECONDS)
BATCH_READINGS = Histogram("gridtally_batch_readings", "Readings of one batch", ["stage"], buckets=_ROWS)
RETRIES = Counter("gridtally_retries", "Batches tried again because a database or broker refused", ["stage"])
NEXT_OFFSET = Gauge("gridtally_next_offset", "Next offset by the database", ["stage", "topic", "partition"])
LAG_SECONDS = Gauge("gridtally_lag_seconds", "Age of the newest watermark done", ["stage", "partition"])
LAG_RECORDS = Gauge(
    "gridtally_lag_records", "Kafka's end offset less the database's next", ["stage", "topic", "partition"]
)
QUEUE_DEPTH = Gauge("gridtally_queue_depth", "What waits, against its bound", ["queue"])
CONNECTED = Gauge("gridtally_connected", "1 while connected", ["to"])
ALARMS_ACTIVE = Gauge("gridtally_alarms_active", "Alarms not cleared", ["kind"])
DEAD_LETTERS = Counter("gridtally_dead_letters", "Dead letters by code", ["stage", "code"])


class ColumnHistogram(Collector):
    """A histogram that takes whole columns at once: one `observe` a reading would cost more than settling it."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        """Register it.

        Args:
            name: Of the metric, with its base unit.
            documentation: For people.
            buckets: Upper bounds, ascending; one for the rest is added.
        """
        self._name, self._documentation = name, documentation
        self._bounds = np.array(buckets)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()
        REGISTRY.register(self)

    def observe(self, values: NDArray[Any]) -> None:
        """Add a column of values."""
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())

    def collect(self) -> Iterator[Metric]:
        """Return the one metric."""
        with self._lock:
            counts, total = np.cumsum(self._counts).tolist(), self._sum
        bounds = [*(floatToGoString(bound) for bound in self._bounds.tolist()), "+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], list(zip(bounds, counts, strict=True)), total)
        yield family


DELAY_SECONDS = ColumnHistogram(
    "gridtally_delay_seconds",
    "From the bridge's receipt of a reading to its commit",
    (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600),
)


class Health:
    """Whether this process lives (its loop turns) and is ready (it does its work)."""

    def __init__(self) -> None:
        """Begin alive and not ready."""
        self.ready = False
        self._turned = time.monotonic()

    def turned(self) -> None:
        """Say that the main loop made a turn."""
        self._turned = time.monotonic()

    @property
    def alive(self) -> bool:
        """Return whether the loop turned lately."""
        return time.monotonic() - self._turned < STUCK_AFTER_S


def _handler_class(health: Health) -> type[BaseHTTPRequestHandler]:
    def states() -> dict[str, Callable[[], tuple[bool, bytes, str]]]:
        def answer(good: bool) -> tuple[bool, bytes, str]:  # noqa: FBT001
            return good, json.dumps({"status": "ok" if good else "not ready"}).encode(), "application/json"

        return {
            "/metrics": lambda: (True, generate_latest(REGISTRY), CONTENT_TYPE_LATEST),
            "/health": lambda: answer(health.alive),
            "/ready": lambda: answer(health.ready and health.alive),
        }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = states().get(self.path.split("?")[0])
            if known is None:
                self.send_error(404)
                return
            good, body, kind = known()
            self.send_response(200 if good else 503)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing: scrapes are not events."""

    return Handler


def serve_metrics(name: str, run_dir: Path, settings: MetricsSettings) -> Health:
    """Serve ``/metrics``, ``/health`` and ``/ready`` in a thread, and leave the address in `run_dir`.

    The port is `port_base` + the process's place in PROCESSES, or a free one when that is taken. On all interfaces
    (``0.0.0.0``) the address that is left is the one on loopback.
    """
    health = Health()
    role = name.split("-", maxsplit=1)[0]
    port = settings.port_base + (PROCESSES.index(role) if role in PROCESSES else len(PROCESSES))
    handler = _handler_class(health)
    try:
        server = ThreadingHTTPServer((settings.host, port), handler)
    except OSError:
        server = ThreadingHTTPServer((settings.host, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    run_dir.mkdir(parents=True, exist_ok=True)
    host = LOOPBACK if settings.host in ANY_HOST else settings.host
    (run_dir / f"metrics-{name}.json").write_text(
        json.dumps({"url": f"http://{host}:{server.server_address[1]}"}), "utf-8"
    )
    get_logger("monitoring.metrics").info("metrics_served", name=name, port=server.server_address[1])
    return health
