"""
What a layer may become: formats x shapes x ranks, or what it is.

Ranks are a ladder up to the size of the dense weight: of low-rank in equal steps, whose errors all
come from one spectrum, of the others in halves of the largest. A matrix of factors has a rank that
its format bounds (`matrix_rank`), and no matrix of that rank is nearer than low-rank's: low-rank
gets the ranks that the others have as well, to be compared with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heatc.heat.formats import (
    Format,
    Modes,
    Spec,
    default_modes,
    find_format,
    scaled,
    top_level,
)

LADDER = 24
"""Ranks of low-rank, in equal steps up to where its factors are as large as the weight."""

LEVELS = 5
"""Ranks of each shape of the other formats."""

MODES = (2, 3)
"""Modes of a side that tensorized shapes have."""


@dataclass(frozen=True, order=True)
class Extent:
    """What the cost of a layer depends on: inputs, outputs, and rows (tokens) at once."""

    inputs: int
    outputs: int
    rows: int

    @property
    def parameters(self) -> int:
        """Of the dense weight."""
        return self.inputs * self.outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer."""
        return self.parameters * self.rows


def candidates(inputs: int, outputs: int, formats: Sequence[Format]) -> tuple[Spec, ...]:
    """Every spec of a layer that has fewer parameters than its weight, in a fixed order."""
    others = [
        spec
        for format_ in formats
        if format_ != "low-rank"
        for ins, outs in shapes(format_, inputs, outputs)
        for spec in _ladder(format_, ins, outs)
    ]
    found = _low_ranks(inputs, outputs, others) if "low-rank" in formats else []
    return tuple(dict.fromkeys([*found, *others]))


def _low_ranks(inputs: int, outputs: int, others: Sequence[Spec]) -> list[Spec]:
    """The ladder of low-rank, and the ranks of the others' matrices."""
    ins, outs = (inputs,), (outputs,)
    top = _largest("low-rank", ins, outs, inputs * outputs)
    step = max(1, math.ceil(top / LADDER))
    ranks = {*range(step, top, step), top, *map(matrix_rank, others)} if top else ()
    return [Spec("low-rank", ins, outs, (rank,)) for rank in sorted(ranks) if rank <= top]


def shapes(format_: Format, inputs: int, outputs: int) -> tuple[tuple[Modes, Modes], ...]:
    """The tensorized shapes of a format, not low-rank, that split both extents."""
    found = (default_modes(format_, inputs, outputs, count) for count in MODES)
    return tuple((ins, outs) for ins, outs in found if min(*ins, *outs) > 1)


def _ladder(format_: Format, ins: Modes, outs: Modes) -> Iterator[Spec]:
    """Specs from small to large, all of fewer parameters than the weight."""
    whole = math.prod(ins) * math.prod(outs)
    top = _largest(format_, ins, outs, whole)
    levels = {math.ceil(top / 2**k) for k in range(LEVELS)} if top else ()
    for level in sorted(levels):
        yield scaled(format_, ins, outs, level)


def _largest(format_: Format, ins: Modes, outs: Modes, whole: int) -> int:
    """The largest level whose factors have fewer elements than the weight; 0 if there is none."""
    low, high = 0, top_level(format_, ins, outs)
    while low < high:
        level = (low + high + 1) // 2
        if scaled(format_, ins, outs, level).parameters < whole:
            low = level
        else:
            high = level - 1
    return low


def matrix_rank(spec: Spec) -> int:
    """The largest rank that the matrix of a spec's factors can have."""
    return find_format(spec.format).matrix_rank(spec)
