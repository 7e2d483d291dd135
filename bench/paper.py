"""`python -m bench.paper`: bills drawn a second on one core, compiler warm, as PDF and as page."""

import time
from collections.abc import Callable
from typing import Any

from bench.rig import spread
from connectors.paper.page import bill_html
from connectors.paper.print import bill_pdf
from connectors.paper.sheet import Paper
from tests.connectors.made_bill import paper

RUNS, BILLS = 5, 100


def run_once(draw: Callable[[Paper], Any], language: str) -> float:
    """Return bills drawn a second of processor time."""
    one = paper(language)
    draw(one)
    start_s = time.process_time()
    for _ in range(BILLS):
        draw(one)
    return BILLS / (time.process_time() - start_s)


def main() -> None:
    """Measure and print min, median and max."""
    for name, draw in (("PDF", bill_pdf), ("page", bill_html)):
        for language in ("zh", "en"):
            found = spread([run_once(draw, language) for _ in range(RUNS)])
            print(f"{name} {language}: {found['min']:.0f} {found['median']:.0f} {found['max']:.0f} bills/s")


if __name__ == "__main__":
    main()
