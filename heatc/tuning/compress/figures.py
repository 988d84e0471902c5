"""
The figures of a plan in front.json, each declared once: its name, unit, and where it comes from.

The file names units and sources from this table, and the columns of the printed table are here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA = 1
"""The version of front.json."""

Source = Literal["compared", "modelled", "counted"]

SOURCES: Mapping[Source, str] = {
    "compared": "with the dense model, on the samples held back, run in float32 by PyTorch",
    "modelled": "by the model of the machine (docs/design/machine.md), one pass of the program, mean "
    "over samples of the lengths that the data has",
    "counted": "in the compiled program",
}


@dataclass(frozen=True)
class Figure:
    """
    One figure of a plan.

    `column` heads it in the printed table, empty for a figure that is in the file alone, and
    `shown` gives its text there.
    """

    name: str
    unit: str
    source: Source
    meaning: str
    column: str = ""
    shown: Callable[[float], str] = str


def _scaled(factor: float, digits: int) -> Callable[[float], str]:
    return lambda value: f"{factor * value:,.{digits}f}"


FIGURES = (
    Figure(
        "accuracy_drop",
        "points",
        "compared",
        "accuracy lost, paired; without labels percent of predictions that changed, for embeddings "
        "100 x (1 - cosine)",
        "lost, points",
        _scaled(1, 2),
    ),
    Figure("accuracy_drop_low", "points", "compared", "the lower end of its 95 % interval"),
    Figure("accuracy_drop_high", "points", "compared", "the upper end of its 95 % interval"),
    Figure("accuracy", "%", "compared", "samples whose predicted class is their label"),
    Figure("changed", "%", "compared", "predictions that are not the dense model's"),
    Figure(
        "divergence",
        "nats or 1",
        "compared",
        "of the classes from the dense model's, or one minus the cosine; mean",
    ),
    Figure(
        "edp_times_less",
        "x",
        "modelled",
        "energy x latency of the dense model through the plan's",
        "edp, x less",
        _scaled(1, 2),
    ),
    Figure("edp", "J s", "modelled", "energy x latency", "edp, nJ s", _scaled(1e9, 2)),
    Figure("joules", "J", "modelled", "energy", "energy, mJ", _scaled(1e3, 3)),
    Figure("seconds", "s", "modelled", "latency", "latency, ms", _scaled(1e3, 3)),
    Figure("cycles", "cycles", "modelled", "cycles of the machine's clock"),
    Figure("weight_bytes", "bytes", "counted", "weights", "weights, MB", _scaled(1e-6, 3)),
    Figure("macs", "1", "counted", "multiply-accumulates", "MACs, M", _scaled(1e-6, 2)),
)
"""Every figure of a plan, in the order of the file."""


def units() -> dict[str, Any]:
    """Unit, source and meaning of every figure, for the file."""
    return {f.name: {"unit": f.unit, "source": f.source, "meaning": f.meaning} for f in FIGURES}
