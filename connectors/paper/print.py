"""The bill as PDF by Typst: A4, fonts embedded, tagged, and the same bytes for the same bill."""

import datetime as dt
import functools
import json
import threading
from pathlib import Path
from typing import Any

import pylopdf_fonts_zh_cn
import typst

from connectors.paper.sheet import Paper, make_sheet

HERE = Path(__file__).parent
STANDARD = "ua-1"
"""PDF/UA: tagged, with title, language and a text for every picture."""


@functools.cache
def _compiler() -> tuple[typst.Compiler, bytes, threading.Lock]:
    """Return a compiler with the fonts in memory, its source, and a lock: it keeps state between calls."""
    fonts = typst.Fonts(include_system_fonts=False, font_paths=[str(Path(next(iter(pylopdf_fonts_zh_cn.__path__))))])
    return (
        typst.Compiler(font_paths=fonts, ignore_system_fonts=True),
        (HERE / "bill.typ").read_bytes(),
        threading.Lock(),
    )


def bill_pdf(paper: Paper) -> bytes:
    """Return a bill as PDF."""
    result = _compile(paper, format="pdf", pdf_standards=STANDARD, timestamp=_made_at(paper))
    assert isinstance(result, bytes)
    return result


def bill_png(paper: Paper, ppi: int = 90) -> list[bytes]:
    """Return the pages of a bill as pictures."""
    result = _compile(paper, format="png", ppi=ppi)
    return result if isinstance(result, list) else [result]


def _compile(paper: Paper, **how: Any) -> Any:
    compiler, source, lock = _compiler()
    with lock:
        return compiler.compile(input=source, sys_inputs={"sheet": json.dumps(make_sheet(paper))}, **how)


def _made_at(paper: Paper) -> int:
    """Return the time that the PDF says it was made at: the day of issue, so that the bytes are the same again."""
    day = paper.document.issued_on or paper.document.end_on
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp())
