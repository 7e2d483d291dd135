"""Prometheus and Grafana name only what the processes really show, and each alert fires on its fault."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import monitoring.metrics
from monitoring.metrics import PROCESSES
from schemas.settings import Settings
from tests.deploy.compose import ROOT, SERVICES

PROMETHEUS = ROOT / "monitoring" / "prometheus"
DASHBOARDS = ROOT / "monitoring" / "grafana" / "dashboards"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text("utf-8"))
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
SCRAPES = {
    job["job_name"]: job for job in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
}
FOREIGN = {"up", "ALERTS", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"}
"""Of Prometheus itself and of its exporter for the machine."""
WORDS = {"and", "or", "on", "by", "le", "vector"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def shown_names() -> dict[str, set[str]]:
    """Return the labels of every series that a process can show, by the name of the series."""
    declared = {
        metric._name: set(metric._labelnames)
        for metric in vars(monitoring.metrics).values()
        if hasattr(metric, "_labelnames")
    }
    names = {}
    for family in REGISTRY.collect():
        for suffix in SUFFIXES.get(family.type, ("",)):
            names[family.name + suffix] = declared.get(family.name, set()) | ({"le"} if suffix == "_bucket" else set())
    return names


def series_of(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the names of series in an expression, with the labels that its selectors ask for."""
    plain = re.sub(r"\[[^\]]*\]|\b(by|on|ignoring|without) *\([^)]*\)", "", expression)
    for name, _, selector in re.findall(
        r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\b(?! *\()( *\{([^}]*)\})?", re.sub(r'"[^"]*"', '""', plain)
    ):
        if name in WORDS or not re.search(rf"\b{name}\b", re.sub(r"\{[^}]*\}", "", plain)):
            continue
        yield name, set(re.findall(r"([a-z_]+) *(?:=|!)", selector))


def panels() -> list[dict[str, Any]]:
    return [panel for path in DASHBOARDS.glob("*.json") for panel in json.loads(path.read_text("utf-8"))["panels"]]


EXPRESSIONS = [(name, rule["expr"]) for name, rule in ALERTS.items()] + [
    (panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]
]


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_every_metric_and_label_that_is_asked_for_exists(place: str, expression: str) -> None:
    known = shown_names()
    found = list(series_of(expression))
    groups = {label for _, inner in re.findall(r"\b(by|on) *\(([^)]*)\)", expression) for label in inner.split(", ")}
    assert found, f"{place}: no metric found in {expression}"
    there = {label for name, _ in found for label in known.get(name, set())}
    assert groups <= there | {"job", "instance"}, f"{place}: no label {groups - there}"
    for name, labels in found:
        assert name in known or name in FOREIGN, f"{place}: nothing shows {name}"
        if name.startswith("gridtally_"):
            assert labels <= known[name] | {"job", "instance"}, f"{place}: {name} has no label {labels - known[name]}"


def test_alerts_of_queues_are_at_half_of_the_bounds_in_force() -> None:
    def threshold(alert: str) -> float:
        return float(ALERTS[alert]["expr"].rpartition(">=")[2])

    window = int(SERVICES["bridge"]["environment"]["GRIDTALLY_MQTT__WINDOW"])
    assert window == Settings().mqtt.window
    assert threshold("BridgeQueueHalfFull") == window / 2
    (watchers,) = {
        int(found)
        for path in (ROOT / "console").glob("*.py")
        for found in re.findall(r"^WATCHERS_MAX = (\d+)$", path.read_text("utf-8"), re.MULTILINE)
    }
    assert threshold("ConsoleHalfFull") == watchers / 2


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"].keys() == {"summary", "action"}, name
        assert len(rule["annotations"]["action"]) > 30, name


def test_every_process_is_scraped_where_compose_puts_it() -> None:
    base = Settings().metrics.port_base
    for place, name in enumerate(PROCESSES):
        (target,) = SCRAPES[name]["dns_sd_configs"]
        assert (target["names"], target["port"]) == ([name], base + place)
        assert SERVICES[name]["environment"]["GRIDTALLY_METRICS__HOST"] == "0.0.0.0"
        assert set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"]), f"{name} cannot be reached"
    assert SCRAPES.keys() - set(PROCESSES) - {"prometheus"} <= SERVICES.keys()


def test_panels_lie_side_by_side_and_read_the_provisioned_source() -> None:
    source = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    uid = source["datasources"][0]["uid"]
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {uid}
        assert panel["description"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian, Ubuntu: apt install prometheus)"
)


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_takes_the_configuration() -> None:
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs_promtool
def test_each_alert_fires_on_its_fault_and_none_on_a_healthy_system() -> None:
    path = ROOT / "tests" / "deploy" / "rules_test.yml"
    assert "SUCCESS" in promtool("test", "rules", str(path))
    assert set(re.findall(r'labels: .ALERTS\{alertname="(\w+)"', path.read_text("utf-8"))) == ALERTS.keys()


@needs_promtool
@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_prometheus_understands_every_expression_of_the_dashboard(panel: dict[str, Any], tmp_path: Any) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for number, target in enumerate(panel["targets"])
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panel", "rules": rules}]}), "utf-8")
    promtool("check", "rules", str(path))
