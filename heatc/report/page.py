"""
The page: its sections with the style, the scripts and plotly.js, all in one file.

plotly.js is deflated and in base64, since the file would be too large otherwise; `page.js` inflates it
(docs/design/report.md). The policy of the page forbids every request.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from importlib import resources

from heatc.errors import HeatcError
from heatc.kinds import PAGE
from heatc.report.chart import Block, Chart, blocks_html
from heatc.report.html import Html, tag
from heatc.report.material import Material
from heatc.report.sections import SECTIONS, Section

MOST_BYTES = 5_000_000
"""Of a page that people send each other."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

Drawn = Sequence[tuple[Section, Sequence[Block]]]


def page(material: Material, title: str) -> str:
    """
    The text of the page; the same files at the same places give the same text.

    Raises `HeatcError` where there is something to draw and plotly is not installed.
    """
    drawn = [(section, section.draw(material)) for section in SECTIONS]
    shown = [(section, blocks) for section, blocks in drawn if blocks]
    has_charts = any(isinstance(block, Chart) for _, blocks in shown for block in blocks)
    body = tag(
        "body",
        tag("a", "To the content", href="#content", class_="skip"),
        _header(title, shown),
        tag("main", *(_section(*one) for one in shown), _left_out(material), id="content"),
        _plotly() if has_charts else None,
        tag("script", Html(_own("page.js"))),
    )
    # The mark tells heatc that it may write over the file.
    return f"<!DOCTYPE html>\n<!-- {PAGE.mark} -->\n{_document(title, body)}\n"


def _document(title: str, body: Html) -> Html:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(_own("page.css"))),
    )
    return tag("html", head, body, lang="en")


def _header(title: str, shown: Drawn) -> Html:
    links = [tag("a", section.title, href=f"#{section.id}") for section, _ in shown]
    return tag("header", tag("h1", title), tag("nav", *links, aria_label="Sections"))


def _section(section: Section, blocks: Sequence[Block]) -> Html:
    heading = f"{section.id}-title"
    return tag(
        "section",
        tag("h2", section.title, id=heading),
        blocks_html(blocks),
        id=section.id,
        aria_labelledby=heading,
    )


def _left_out(material: Material) -> Html | None:
    if not material.remarks:
        return None
    items = [tag("li", remark) for remark in material.remarks]
    return tag("section", tag("h2", "Left out"), tag("ul", *items), id="left-out")


def _own(name: str) -> str:
    """A file of this package."""
    return resources.files("heatc.report").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> Html:
    """plotly.js: zlib's format in base64."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise HeatcError(
            "pictures need the package plotly, which is not installed",
            notes=["pip install 'heatc[report]'"],
        ) from error
    packed = base64.b64encode(zlib.compress(get_plotlyjs().encode(), 9)).decode()
    return tag("script", Html(packed), type="text/plain", id="plotly")
