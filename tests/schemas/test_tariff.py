"""The tariff document's schema: published, and of one mind with the reader."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from metering.tariff import TariffError, parse_tariff
from schemas.tariff import tariff_schema

ROOT = Path(__file__).parents[2]
SCHEMA = tariff_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
DOCUMENTS = [*sorted((ROOT / "tariffs").glob("*.yaml")), *sorted((ROOT / "tariffs" / "examples").glob("*.yaml"))]


def as_json(document: Any) -> Any:
    return json.loads(json.dumps(document, default=str))


def test_the_published_schema_is_that_of_the_code() -> None:
    published = json.loads((ROOT / "docs" / "schemas" / "tariff.json").read_text("utf-8"))
    assert published == SCHEMA, "run `make docs`"
    Draft202012Validator.check_schema(published)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_document_that_we_ship_is_valid_and_good_as_yaml_and_as_json(path: Path) -> None:
    document = yaml.safe_load(path.read_text("utf-8"))
    assert not list(VALIDATOR.iter_errors(as_json(document)))
    assert parse_tariff(document).document == parse_tariff(as_json(document)).document


def test_the_examples_are_those_that_the_documentation_promises() -> None:
    names = {path.stem for path in DOCUMENTS}
    assert len([name for name in names if name.startswith("tw-")]) == 20
    assert {"cn-guangzhou-residential", "cn-hubei-110kv-two-part", "uk-flat", "uk-economy-7", "uk-half-hourly"} <= names
    assert {"be-flanders-capacity", "us-tou-tier-demand", "au-origin-ergon"} <= names


GOOD = {
    "tariff_id": "t",
    "currency": "EUR",
    "zone": "Europe/Berlin",
    "versions": [{"valid_from": "2026-01-01", "rest": "day", "prices": {"day": "0.3"}}],
}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("versions", 0, "prices", "day"), 0.3),
        (("versions", 0, "prices", "day"), "1e3"),
        (("versions", 0, "prices", "day"), "NaN"),
        (("versions", 0, "valid_to"), 5),
        (("versions", 0, "windows"), [{"period": "n", "from": "25:00", "to": "06:00"}]),
        (("versions", 0, "windows"), {"period": "n"}),
        (("versions", 0, "export"), {"mode": "barter"}),
        (("versions", 0, "demand"), {"window_min": 1, "prices": "1"}),
        (("versions", 0, "demand"), {"window_min": True, "prices": "1"}),
        (("versions", 0, "taxes"), [{"id": "vat"}]),
        (("versions", 0, "tiers"), [{"up_to_kwh": None, "adder": 1}]),
        (("versions",), "x"),
        (("tariff_id",), "a b"),
        (("digits",), 7),
        (("colour",), "red"),
    ],
    ids=str,
)
def test_schema_and_reader_refuse_the_same(place: tuple[Any, ...], value: Any) -> None:
    document: Any = copy.deepcopy(GOOD)
    inner = document
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    assert list(VALIDATOR.iter_errors(document))
    with pytest.raises(TariffError):
        parse_tariff(document)


@pytest.mark.parametrize("document", [None, [], "x", 5, {}, {"versions": [None]}, {"versions": {"a": []}}], ids=str)
def test_what_is_no_tariff_at_all_is_refused_with_faults(document: Any) -> None:
    with pytest.raises(TariffError) as caught:
        parse_tariff(document)
    assert caught.value.faults
