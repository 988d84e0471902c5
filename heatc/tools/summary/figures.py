"""The figures of a program that stand beside those of the dense model: counts, and modelled cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heatc.passes.analysis.counts import Counts, count
from heatc.tools.summary.keys import COUNTED, MODELLED, Key, Section
from heatc.tools.summary.texts import ratio_text, value_text

if TYPE_CHECKING:
    from heatc.api import Compilation
    from heatc.passes.tiling.timing import Timed


@dataclass(frozen=True)
class Figures:
    """
    What a program holds and costs; None is what is not known.

    `weight_bytes` are those of the program's own weights, `timed` is one run at full length with
    nothing pruned.
    """

    counts: Counts | None = None
    weight_bytes: int | None = None
    timed: Timed | None = None


def figures_of(compilation: Compilation, counts: Counts | None) -> Figures:
    """The figures of a compilation that ran; of a target without machine the counts alone."""
    if compilation.hardware is None:
        # A text that was compiled before says no more when its products were lowered.
        counts = counts or count(compilation.module)
        return Figures(counts, counts.bytes)
    from heatc.errors import HeatcError
    from heatc.machine.assumed import AssumedMasks
    from heatc.passes.allocate_buffers import weight_tensors
    from heatc.passes.tiling.timing import time_module

    module = compilation.module
    held = sum(op.nbytes for op in weight_tensors(module))
    if not held:
        return Figures(counts)  # passes of the user's own that end above the machine
    try:
        timed = time_module(module, compilation.hardware, masks=AssumedMasks(1.0))
    except HeatcError:
        timed = None  # the time depends on inputs
    return Figures(counts, held, timed)


def _of_counts(value: Callable[[Counts], int]) -> Callable[[Figures], int | None]:
    return lambda figures: None if figures.counts is None else value(figures.counts)


def _of_timed(value: Callable[[Timed], float]) -> Callable[[Figures], float | None]:
    return lambda figures: None if figures.timed is None else value(figures.timed)


KEYS: tuple[Key[Figures], ...] = (
    Key(
        "parameters_count",
        "count",
        COUNTED,
        "elements of all weights that are read; positions and other integers are none",
        _of_counts(lambda c: c.parameters),
        "parameters",
    ),
    Key(
        "weights_bytes",
        "bytes",
        COUNTED,
        "what the weights of the program take in its own types",
        lambda figures: figures.weight_bytes,
        "weights",
    ),
    Key(
        "multiply_accumulates_count",
        "count",
        COUNTED,
        "of products with weights and of attention, all tokens real and nothing pruned",
        _of_counts(lambda c: c.macs),
        "MACs",
    ),
    Key(
        "total_cycles",
        "cycles",
        MODELLED,
        "of one run, all tokens real and nothing pruned",
        _of_timed(lambda t: t.cycles),
        "cycles",
    ),
    Key(
        "time_seconds",
        "s",
        MODELLED,
        "total_cycles at the clock of the hardware file",
        _of_timed(lambda t: t.seconds),
        "time",
    ),
    Key(
        "dram_bytes",
        "bytes",
        MODELLED,
        "bytes read from DRAM and written to it in that run",
        _of_timed(lambda t: t.dram_bytes),
        "DRAM traffic",
    ),
    Key(
        "energy_joules",
        "J",
        MODELLED,
        "of that run, leakage, host and DRAM included",
        _of_timed(lambda t: t.joules),
        "energy",
    ),
    Key(
        "energy_delay_product_joule_seconds",
        "J s",
        MODELLED,
        "EDP: energy_joules times time_seconds",
        _of_timed(lambda t: t.joules * t.seconds),
        "EDP (energy x time)",
    ),
)

COMPILED: Section[Figures] = Section("compiled", "the program that was written", KEYS)
DENSE: Section[Figures] = Section(
    "dense",
    "the same model for the same target without factors and pruning; a figure is null where the "
    "dense model was not compiled for it, see --compare-dense",
    KEYS,
)


def figure_rows(compiled: Figures, dense: Figures | None) -> list[tuple[str, ...]]:
    """The rows of the table: one column, or the dense model, the program, and how they compare."""
    values = [(key, key.value(compiled), dense and key.value(dense)) for key in KEYS]
    known = [(key, own, other) for key, own, other in values if own is not None]
    if dense is None:
        return [(key.label, value_text(own, key.unit), key.kind) for key, own, _ in known]
    head = ("", "dense", "compiled", "", "")
    rows = [
        (
            key.label,
            value_text(other, key.unit),
            value_text(own, key.unit),
            ratio_text(other, own),
            key.kind,
        )
        for key, own, other in known
    ]
    return [head, *rows]
