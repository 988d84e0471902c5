"""
The sections of the page, in order.

A section is one module with `draw`, and a line in `SECTIONS`. It is shown only where `draw` finds
something to show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heatc.report.chart import Block
from heatc.report.material import Material
from heatc.report.sections import (
    accuracy,
    comparison,
    front,
    headline,
    masks,
    modules,
    provenance,
    ranks,
    roofline,
    sweep,
    terms,
    timeline,
)


@dataclass(frozen=True)
class Section:
    """
    A section.

    Attributes:
        id: of its element, which links lead to.
        draw: its parts, none where there is nothing to show.
    """

    id: str
    title: str
    draw: Callable[[Material], Sequence[Block]]


SECTIONS = (
    Section("headline", "Headline", headline.draw),
    Section("accuracy", "Accuracy", accuracy.draw),
    Section("front", "Pareto front", front.draw),
    Section("modules", "Cost of each layer", modules.draw),
    Section("roofline", "Roofline", roofline.draw),
    Section("timeline", "Timeline", timeline.draw),
    Section("sweep", "Other machines", sweep.draw),
    Section("masks", "Blocks and heads", masks.draw),
    Section("ranks", "Plans", ranks.draw),
    Section("comparison", "Every figure side by side", comparison.draw),
    Section("provenance", "Provenance", provenance.draw),
    Section("terms", "Terms", terms.draw),
)
