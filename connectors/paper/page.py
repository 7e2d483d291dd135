"""The bill as one HTML page: for a phone, for A4 paper, for a mail's attachment. No script, nothing fetched."""

import base64
import functools
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

from connectors.paper.sheet import Paper, make_sheet

HERE = Path(__file__).parent


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = Markup  # SVG made by connectors.paper.picture, which escapes what it is given
    return environment.get_template("bill.html")


@functools.cache
def _style() -> tuple[str, str]:
    """Return the style sheet and its hash for the policy that lets it alone through."""
    text = (HERE / "bill.css").read_text("utf-8")
    return text, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def content_policy() -> str:
    """Return the Content-Security-Policy that the page needs, which it also states itself."""
    return f"default-src 'none'; style-src 'sha256-{_style()[1]}'; base-uri 'none'; form-action 'none'"


def bill_html(paper: Paper) -> str:
    """Return a bill as a page of its own."""
    return _template().render(sheet=make_sheet(paper), style=Markup(_style()[0]), policy=content_policy())  # noqa: S704  # our file
