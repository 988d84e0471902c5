"""
Pictures that plotly draws, with their controls, and the tables that say the same.

A chart has a figure for each combination of its controls. The figures are data: `page.js` draws the
one that is chosen, in the colours of the page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heatc.report.html import Html, details, join, tag

Json = Any

SERIES = 6
"""Colours of `page.css`, which repeat."""


def series_colour(number: int) -> str:
    """The colour of a run, by its number; `page.js` looks it up in the style."""
    return f"var(--series-{number % SERIES})"


def plot_text(text: str) -> str:
    """A text for plotly, which takes tags in labels for markup."""
    return html.escape(text, quote=False)


def hover(*lines: str) -> str:
    """The text beside the pointer."""
    return "<br>".join(plot_text(line) for line in lines)


def error_bars(intervals: Iterable[Sequence[float]]) -> Json:
    """The intervals of some points: the lower end, the value and the upper end of each."""
    ends = list(intervals)
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for _, value, high in ends],
        "arrayminus": [value - low for low, value, _ in ends],
        "thickness": 1,
        "width": 4,
    }


def json_script(value: Json, id_: str) -> Html:
    """Data in the page; no text in it can end its element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return tag("script", Html(text.replace("<", "\\u003c")), type="application/json", id=id_)


@dataclass(frozen=True)
class Control:
    """A choice: what is chosen is told by the number of its label."""

    label: str
    options: Sequence[str]


def controls_html(controls: Sequence[Control], target: str) -> Html | None:
    """The controls of a chart, or of panels; hidden where there is nothing to choose."""
    if not controls:
        return None
    is_fixed = all(len(control.options) < 2 for control in controls)
    return tag("div", *(_control(c, target) for c in controls), class_="controls", hidden=is_fixed)


def _control(control: Control, target: str) -> Html:
    options = [tag("option", text, value=n) for n, text in enumerate(control.options)]
    select = tag("select", *options, data_target=target)
    # A choice of one still has its place in the key.
    return tag("label", tag("span", control.label), select, hidden=len(options) < 2)


def key(*choices: int) -> str:
    """The name of a figure or a panel, by the numbers of what is chosen."""
    return "-".join(map(str, choices))


@dataclass(frozen=True)
class Chart:
    """
    A picture.

    Attributes:
        id: of its element; no two of a page are alike.
        label: what it shows, for those who do not see it.
        figures: plotly's `data` and `layout` by `key`.
        layout: what the layouts share.
        height: in pixels, where a layout has none.
        table: the same as a table; None where the section shows that beside the picture.
    """

    id: str
    label: str
    figures: Mapping[str, Json]
    table: Html | None
    layout: Json = field(default_factory=dict[str, Any])
    controls: Sequence[Control] = ()
    height: int = 360

    def html(self) -> Html:
        """The chart with its controls, its data and its table."""
        data = {"layout": self.layout, "figures": self.figures, "height": self.height}
        plot = tag(
            "div",
            class_="plot",
            id=f"{self.id}-plot",
            role="img",
            aria_label=self.label,
            style=f"min-height:{self.height}px",
        )
        return tag(
            "figure",
            controls_html(self.controls, self.id),
            plot,
            tag("p", "There is nothing to show for this choice.", class_="empty", hidden=True),
            json_script(data, f"{self.id}-data"),
            None if self.table is None else details("The same as a table", self.table),
            class_="chart",
            id=self.id,
        )


@dataclass(frozen=True)
class Panels:
    """
    Parts of the page of which one is shown; `items` of a panel can be shown alone.

    Attributes:
        parts: HTML by `key` of the controls.
        items: labels of a panel's items, by the number that they have as `data-item`.
    """

    id: str
    controls: Sequence[Control]
    parts: Mapping[str, Html]
    items_label: str = ""
    items: Sequence[str] = ()

    def html(self) -> Html:
        """The controls, and every part; the first one is shown."""
        shown = key(*(0 for _ in self.controls))
        parts = [
            tag("div", part, data_key=name, hidden=name != shown)
            for name, part in self.parts.items()
        ]
        return tag(
            "div",
            tag("div", controls_html(self.controls, self.id), self._items(), class_="choices"),
            *parts,
            tag(
                "p",
                "There is nothing to show for this choice.",
                class_="empty",
                hidden=shown in self.parts,
            ),
            class_="panels",
            id=self.id,
        )

    def _items(self) -> Html | None:
        if len(self.items) < 2:
            return None
        options = [tag("option", "all", value="")]
        options += [tag("option", text, value=n) for n, text in enumerate(self.items)]
        select = tag("select", *options, data_items=self.id)
        return tag("div", tag("label", tag("span", self.items_label), select), class_="controls")


Block = Html | Chart | Panels
"""A part of a section."""


def blocks_html(blocks: Sequence[Block]) -> Html:
    """The parts of a section."""
    return join(block if isinstance(block, str) else block.html() for block in blocks)
