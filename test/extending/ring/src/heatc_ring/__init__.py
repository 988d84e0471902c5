"""The format `ring`: a tensor ring, a tensor train whose two ends are joined."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from heatc.heat.formats import Found, Modes, Spec, Weight, WeightFormat
from heatc.heat.norm import Matrix, Norm
from heatc.heat.start import from_start


class Ring(WeightFormat):
    """Three-way cores over the inputs, then the outputs; the last bond is the first one's."""

    name = "ring"
    summary = "a tensor ring of three-way cores, inputs first, a rank for each bond"
    modes = 2

    def terms(self, spec: Spec) -> Iterable[str]:
        """`DaA,AbB,BmC,CnD`."""
        ranks = spec.rank_letters
        for k, letter in enumerate(spec.input_letters + spec.output_letters):
            yield ranks[k - 1] + letter + ranks[k]

    def rank_count(self, inputs: Modes, outputs: Modes) -> int:
        """One for each core."""
        return len(inputs) + len(outputs)

    def rank_limits(self, inputs: Modes, outputs: Modes) -> Modes:
        """A bond needs no more than all other modes."""
        modes = (*inputs, *outputs)
        return tuple(math.prod(modes) // n for n in modes)

    def decompose(self, weight: Weight) -> Found:
        """From a start that the optimiser of all formats refines."""
        return from_start(weight, _start)


def _start(white: Matrix, norm: Norm | None, spec: Spec, seed: int) -> list[Matrix]:
    """Random cores, so that their product is as large as the weight."""
    random = np.random.default_rng(seed)
    size = float(np.linalg.norm(white)) / math.sqrt(white.size * math.prod(spec.ranks))
    share = size ** (1 / len(spec.factor_shapes))
    return [share * random.normal(size=shape) for shape in spec.factor_shapes]


FORMAT = Ring()
