"""The words of the page, each said once."""

from __future__ import annotations

from collections.abc import Sequence

from heatc.report.chart import Block
from heatc.report.html import definitions
from heatc.report.material import Material
from heatc.tuning.evaluate.figures import SOURCES

TERMS = (
    ("Energy × delay", "energy times time, in joule seconds (EDP); of several passes the sum"),
    ("Pass", "one run of the program, on a batch of inputs"),
    ("Dense", "the model as it is: no weight is factorised and no attention is pruned"),
    ("Block", "some queries and some keys of attention, whose scores are kept or pruned together"),
    ("Head gate", "decides for each input which heads of attention are computed"),
    ("Cosine", "of an output with that of the reference: 1 where they point the same way"),
    ("Leakage", "energy that the machine takes while it is on, whatever it does"),
    ("Front", "plans of which none is beaten by another one in both figures"),
    (
        "Proxy",
        "estimate of how far a plan's outputs are from the model's before training: nats of a "
        "classifier, else one minus the cosine",
    ),
    ("Rank", "extent that the factors of a weight share; the smaller, the fewer parameters"),
    ("MAC", "a multiplication with an addition"),
)
"""What the figures of the page are called, and what that is."""


def draw(material: Material) -> Sequence[Block]:
    """The terms, and the kinds of figures."""
    sources = SOURCES if material.evaluations else {}
    kinds = {**sources, **material.kinds}
    return [definitions([*((kind, text.replace("`", "")) for kind, text in kinds.items()), *TERMS])]
