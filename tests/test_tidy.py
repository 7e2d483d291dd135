"""House rules that no linter knows: what is asked of the text of the repository itself."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import monitoring.metrics
import schemas.topic
from gridtally.reference import reference
from schemas.reject import OPERATOR_ACTIONS, RejectCode
from schemas.settings import Settings, describe, load_settings

ROOT = Path(__file__).parent.parent
PACKAGES = ("agents", "connectors", "console", "gridtally", "metering", "monitoring", "schemas", "storage")
LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LONGER: dict[str, str] = {
    "connectors/simulator.py": "a utility and its meters' misbehaviour are one subject, and no part of it is used elsewhere",
    "console/words.py": "a table of words in two languages",
    "connectors/urdb.py": "one foreign format, field by field: what each becomes, or that it cannot be represented",
    "schemas/tariff.py": "the types of one document",
    "tests/console/test_browser.py": "one browser, and what people see in it page by page",
    "tests/metering/test_rating.py": "the rating engine, one kind of charge after the other",
}
"""Files over the limit, with the reason."""
GENERATED = re.compile(r"requirements/.*\.txt|monitoring/grafana/.*\.json|docs/schemas/.*|docs/reference\.md")
HOSTS = (
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "maven" + ".org",
    "npm" + "js",
    "debian" + ".org",
    "crates" + ".io",
    "proxy.golang" + ".org",
)
"""Where packages come from is the machine's business; put together, so that this file does not hold them."""


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts(*endings: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of the tracked files that are text."""
    for name in tracked():
        if not endings or name.endswith(endings):
            try:
                yield name, (ROOT / name).read_text("utf-8")
            except UnicodeDecodeError:
                continue


def sources() -> Iterator[tuple[str, str]]:
    yield from ((name, text) for name, text in texts(".py") if name.split("/")[0] in PACKAGES)


# -- time and chance ---------------------------------------------------------------------------------------------


def test_nothing_asks_for_a_date_without_zone_or_past_the_clock() -> None:
    """`monitoring.clock` reads the clock; `time.time()` may name a process or pace a simulation, never date a reading."""
    asking = re.compile(r"datetime\.(now|utcnow|today)\(|date\.today\(|\btime\.time(_ns)?\(")
    found = {
        f"{name}:{number}"
        for name, text in sources()
        for number, line in enumerate(text.splitlines(), 1)
        if asking.search(line)
        and name not in ("monitoring/clock.py", "connectors/simulator.py")
        and not re.search(r"self\.worker = |client_id|super\(\)\.__init__", line)
    }
    assert not found


def test_floats_touch_no_money_and_no_register() -> None:
    """Names say what a figure is: none of these is annotated as a float."""
    wrong = re.compile(r"\b\w*(_wh|_varh|amount\w*|price\w*|charge\w*)\s*:\s*float\b")
    assert not {f"{name}: {match[0]}" for name, text in sources() for match in wrong.finditer(text)}


# -- size and shape ----------------------------------------------------------------------------------------------


def test_no_module_is_longer_than_the_limit_but_for_a_reason() -> None:
    lengths = {
        name: text.count("\n") for name, text in texts(".py", ".sh", ".sql", ".js", ".css", ".yml", ".yaml", ".toml")
    }
    long = {name for name, length in lengths.items() if length > LINES_MAX and not GENERATED.fullmatch(name)}
    assert long <= set(LONGER), {name: lengths[name] for name in long - set(LONGER)}
    assert set(LONGER) <= set(lengths), "the reason of a file that is gone"


def test_no_module_is_a_drawer_for_anything() -> None:
    drawers = {"utils", "util", "helpers", "common", "manager", "misc"}
    assert not {name for name in tracked() if drawers & set(Path(name).with_suffix("").parts)}


def own_lines(node: ast.AST) -> int:
    """Return the lines of a function without those of the functions inside it."""
    inner = [one for child in ast.iter_child_nodes(node) for one in ast.walk(child) if isinstance(one, FUNCTIONS)]
    outermost = [one for one in inner if not any(one is not other and one in ast.walk(other) for other in inner)]
    return lines_of(node) - sum(map(lines_of, outermost))


def lines_of(node: Any) -> int:
    return int(node.end_lineno) - int(node.lineno) + 1


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_no_function_is_longer_than_a_page() -> None:
    long = {
        f"{name}:{node.lineno} {node.name} {own_lines(node)}"
        for name, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, FUNCTIONS) and own_lines(node) > FUNCTION_LINES_MAX
    }
    assert not long


def test_tests_have_no_package_files_and_claims_for_names() -> None:
    assert not {name for name in tracked() if name.startswith("tests/") and name.endswith("__init__.py")}
    short = {
        f"{name}: {match[1]}"
        for name, text in texts(".py")
        if name.startswith("tests/")
        for match in re.finditer(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE)
        if match[1].count("_") < 3
    }
    assert not short, "a test's name is a claim: subject, verb, and what of it"


# -- what is not ours to hold ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_no_registrys_address_is_in_the_repository(host: str) -> None:
    assert not {name for name, text in texts() if host in text}


def test_requirements_are_pinned_with_hashes_and_name_no_index() -> None:
    files = [name for name, _ in texts(".txt") if name.startswith("requirements/")]
    assert {"requirements/run.txt", "requirements/dev.txt"} <= set(files)
    for name in files:
        text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        wrong = [
            line[:60] for line in lines if not re.match(r"[A-Za-z0-9_.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
        ]
        assert not wrong, name


def test_every_pin_of_pyproject_is_the_one_of_the_requirements() -> None:
    pins = re.findall(r'"([a-z0-9-]+)(?:\[\w+\])?==([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    dev = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    assert len(pins) > 15
    assert not [
        f"{name}=={version}"
        for name, version in pins
        if not re.search(rf"^{name}(\[\w+\])?=={version} ", dev, re.MULTILINE)
    ]


def test_no_secret_and_no_large_file_is_tracked() -> None:
    private = re.compile("BEGIN [A-Z ]*PRIVATE " + "KEY")
    assert not {name for name, text in texts() if private.search(text)}
    assert not {name for name in tracked() if (ROOT / name).stat().st_size > 1_000_000}


# -- words for users ---------------------------------------------------------------------------------------------


def test_every_reason_for_a_refusal_says_what_to_do() -> None:
    assert set(OPERATOR_ACTIONS) == set(RejectCode)
    assert not {code.word for code, text in OPERATOR_ACTIONS.items() if not re.fullmatch(r"[A-Z].{15,}\.", text)}


def metric_names() -> set[str]:
    """Return the names of our metrics as Prometheus shows them."""
    text = Path(monitoring.metrics.__file__).read_text("utf-8")
    kinds = re.findall(r'(Counter|Gauge|Histogram)\(\s*"(gridtally_\w+)"', text)
    return {name + "_total" * (kind == "Counter") for kind, name in kinds}


def mqtt_topics() -> set[str]:
    root = schemas.topic.MQTT_ROOT
    return {f"{root}/meters/{{meter_id}}/{kind}" for kind in ("readings", "events", "receipts")} | {
        f"{root}/gateways/{{gateway_id}}/{kind}" for kind in ("readings", "receipts")
    }


def test_docs_name_every_setting_metric_topic_and_reason() -> None:
    """READS docs/*.md, which other people write: what is missing there is listed all at once."""
    docs = "\n".join(text for name, text in texts(".md") if name.startswith("docs/"))
    wanted = {
        "setting": {name for name, *_ in describe(load_settings(environment={}))},
        "metric": metric_names(),
        "Kafka topic": set(schemas.topic.KAFKA_TOPICS),
        "MQTT topic": mqtt_topics(),
        "reason": {code.word for code in RejectCode},
    }
    assert len(wanted["metric"]) > 10
    missing = {kind: sorted(name for name in names if f"`{name}`" not in docs) for kind, names in wanted.items()}
    assert not {kind: names for kind, names in missing.items() if names}


def test_the_reference_is_the_one_of_the_code() -> None:
    assert (ROOT / "docs" / "reference.md").read_text("utf-8") == reference(), "run `make docs`"


def test_every_setting_says_what_it_is_for() -> None:
    def silent(model: type, prefix: str = "") -> Iterator[str]:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            kind = field.annotation
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                yield from silent(kind, f"{prefix}{name}.")
            elif not field.description:
                yield prefix + name

    assert list(silent(Settings)) == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = {
        f"{name}: {target}"
        for name, text in texts(".md")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target and not (ROOT / name).parent.joinpath(target).exists()
    }
    assert not broken
