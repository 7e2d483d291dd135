"""The examples of docs/tariffs.md are tried: each fragment gives the bill that the page says."""

import re
from datetime import date as day
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import yaml

from metering.calendar import US
from metering.pricing.indexed import Series
from metering.rating import rate
from metering.tariff import parse_tariff
from metering.usage import Inputs, Load
from tests.golden.made_load import ROOT, starts_of

PAGE = (ROOT / "docs" / "tariffs.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
FRAGMENTS = {block: re.match(r"# July: (\S+)\n", block) for block in BLOCKS[1:]}


def test_the_whole_document_of_the_page_is_good() -> None:
    tariff = parse_tariff(yaml.safe_load(BLOCKS[0]))
    assert tariff.tariff_id == "example"
    assert not tariff.warnings


@pytest.mark.parametrize("block", FRAGMENTS, ids=lambda block: yaml.safe_load(block).popitem()[0])
def test_a_fragment_gives_the_bill_that_the_page_says(block: str) -> None:
    said = FRAGMENTS[block]
    assert said, f"the block has no first line `# July: AMOUNT`:\n{block}"
    version: dict[str, Any] = {"valid_from": "2026-01-01", "rest": "day", "prices": "0.10", **yaml.safe_load(block)}
    terms = {"contract_kw": 6, "capacity_kva": 10}
    tariff = parse_tariff(
        {"tariff_id": "t", "currency": "EUR", "zone": "Europe/Berlin", "terms": terms, "versions": [version]}
    )
    edges = [day(2026, 7, 1), day(2026, 8, 1)]
    starts = starts_of(tariff, *edges)
    even = np.arange(len(starts)) % 2 == 0
    registers = {"import_wh": even * 2000, "import_varh": even * 1500, "export_wh": ~even * 500}
    load = Load(starts * US, 900, {name: column.astype(np.int64) for name, column in registers.items()})
    spot = Series(starts, [Decimal("0.05")] * len(starts))
    [bill] = rate(tariff, load, edges, Inputs(indices={"spot": spot}))
    assert bill.total == Decimal(said[1]), [(line.id, str(line.amount_unrounded)) for line in bill.lines]
