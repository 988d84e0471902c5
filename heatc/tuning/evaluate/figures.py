"""
The figures of eval.json, each declared once: its name, unit, meaning, and how its interval is found.

The table that is printed, the file and docs/reference/evaluation.md are made from these declarations. A name ends in
the unit where the figure has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

SCHEMA = 1
"""The version of eval.json."""

LEVEL = 95
"""Per cent of the samplings of such data whose interval holds the true value."""

Source = Literal["compared", "modelled", "measured"]

SOURCES: dict[Source, str] = {
    "compared": "computed from the outputs of all samples, and from labels where the data has them",
    "modelled": "comes from the model of time and energy (docs/design/machine.md); HDP programs only",
    "measured": "was measured on the computer that `provenance` names",
}
"""Where a figure comes from; a group of the same name holds it in the file."""

WILSON = "Wilson's score interval (JASA 1927)"
MATCHED = "adjusted Wald interval of matched shares (Agresti and Min, Statistics in Medicine 2005)"
BOOTSTRAP = "paired percentile bootstrap over samples"


class Estimate(NamedTuple):
    """A value with the ends of its 95 % interval, None for a value that has none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Figure:
    """
    One figure of a subject.

    `interval` says how its 95 % interval is found, empty where it has none. `needs_labels` and
    `needs_classes` say when it is null: without labels, or for a model that is no classifier.
    """

    name: str
    unit: str
    source: Source
    meaning: str
    interval: str = ""
    needs_labels: bool = False
    needs_classes: bool = False


def _labelled(name: str, unit: str, meaning: str, interval: str) -> Figure:
    return Figure(name, unit, "compared", meaning, interval, True, True)


COMPARED = (
    _labelled("accuracy_percent", "%", "samples whose predicted class is their label", WILSON),
    _labelled("accuracy_change_points", "points", "accuracy minus the reference's", MATCHED),
    _labelled(
        "mcc",
        "-1 to 1",
        "Matthews correlation coefficient, of two or more classes (Gorodkin 2004)",
        BOOTSTRAP,
    ),
    _labelled("mcc_change", "-2 to 2", "mcc minus the reference's", BOOTSTRAP),
    _labelled(
        "f1",
        "0 to 1",
        "F1 of class 1 of two; of more classes the mean of the F1 of those that occur",
        BOOTSTRAP,
    ),
    _labelled("f1_change", "-1 to 1", "f1 minus the reference's", BOOTSTRAP),
    Figure(
        "changed_predictions_percent",
        "%",
        "compared",
        "samples whose predicted class is not the reference's",
        WILSON,
        needs_classes=True,
    ),
    Figure(
        "cosine_mean",
        "-1 to 1",
        "compared",
        "cosine between a sample's compared output and the reference's, mean over samples",
        BOOTSTRAP,
    ),
    Figure("cosine_least", "-1 to 1", "compared", "the least such cosine of a sample"),
)

METRIC_FIGURES: Mapping[str, tuple[str, str]] = {
    "accuracy": ("accuracy_percent", "accuracy_change_points"),
    "mcc": ("mcc", "mcc_change"),
    "f1": ("f1", "f1_change"),
}
"""What `--metric` chooses from: the score, and its difference from the reference's."""

PERCENTILES = {"p50": 50, "p95": 95}
"""Of batches; the name that a figure has for each."""


class Each(NamedTuple):
    """What is known of every batch."""

    unit: str
    source: Source
    meaning: str
    is_per_sample: bool = True
    """Whether a sample's share of it means something."""


EACH = {
    "cycles": Each("cycles", "modelled", "cycles of the machine's clock"),
    "seconds": Each("s", "modelled", "time: cycles at the clock of the hardware file"),
    "joules": Each("J", "modelled", "energy, with leakage"),
    "energy_delay_product_joule_seconds": Each("J s", "modelled", "energy times time", False),
    "cpu_seconds": Each(
        "s",
        "measured",
        "wall-clock time of a call of the NumPy program or of PyTorch, warm, alone, on all cores",
    ),
    "simulator_seconds": Each(
        "s", "measured", "wall-clock time of the simulator, which is no time of the machine"
    ),
}
"""What batches cost, by the name that ends the names of its figures."""

SHARES = ("batch", "sample")


def cost_figure(share: str, percentile: str, quantity: str) -> str:
    """`batch_p50_cycles`, `sample_p95_joules`."""
    return f"{share}_{percentile}_{quantity}"


def _costs() -> Iterator[Figure]:
    for quantity, each in EACH.items():
        for share in SHARES if each.is_per_sample else SHARES[:1]:
            what = f"{each.meaning}; " + (
                "of a batch" if share == "batch" else "of a batch, divided by the program's batch"
            )
            for name, percentile in PERCENTILES.items():
                long = "median" if percentile == 50 else f"{percentile}th percentile"
                yield Figure(
                    cost_figure(share, name, quantity),
                    each.unit,
                    each.source,
                    f"{what}: {long} over batches",
                )


FIGURES = (
    *COMPARED,
    *_costs(),
    Figure("program_bytes", "bytes", "measured", "the program's file or files, with its weights"),
)
"""Every figure of a subject, in the order of the file."""


def of_source(source: Source) -> list[Figure]:
    """The figures of a group."""
    return [figure for figure in FIGURES if figure.source == source]
