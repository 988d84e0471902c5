"""Format `ttm`: a tensor-train matrix, whose cores hold an input and an output each."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from heatc.heat.formats.definition import Found, Spec, Weight, WeightFormat
from heatc.heat.formats.modes import Modes
from heatc.heat.norm import Matrix, Norm
from heatc.heat.start import from_start, numpy_backend, tensorly


class TensorTrainMatrix(WeightFormat):
    """Four-way cores (r, o, i, r'), one for each pair of modes."""

    name = "ttm"
    summary = "a tensor train of four-way cores, one for an input and an output mode"
    in_halves = False
    modes = 2

    def terms(self, spec: Spec) -> Iterable[str]:
        """`maA,AnbB,Boc`."""
        last, ranks = len(spec.inputs) - 1, spec.rank_letters
        for k, (i, o) in enumerate(zip(spec.input_letters, spec.output_letters)):
            yield (ranks[k - 1] if k else "") + o + i + (ranks[k] if k < last else "")

    def wrong_modes(self, inputs: Modes, outputs: Modes) -> str:
        """Modes come in pairs."""
        return "" if len(inputs) == len(outputs) else "as many input modes as output modes"

    def rank_count(self, inputs: Modes, outputs: Modes) -> int:
        """One for each bond."""
        return len(inputs) - 1

    def rank_limits(self, inputs: Modes, outputs: Modes) -> Modes:
        """The smaller side of each cut."""
        sites = tuple(i * o for i, o in zip(inputs, outputs))
        cuts = range(1, len(sites))
        return tuple(min(math.prod(sites[:k]), math.prod(sites[k:])) for k in cuts)

    def decompose(self, weight: Weight) -> Found:
        """From tensorly's tensor-train matrix."""
        return from_start(weight, _start)


def _start(white: Matrix, norm: Norm | None, spec: Spec, seed: int) -> list[Matrix]:
    if not spec.ranks:
        return [white]
    tensor = white.reshape(*spec.outputs, *spec.inputs)
    with numpy_backend():
        cores = tensorly("decomposition").tensor_train_matrix(tensor, rank=[1, *spec.ranks, 1])
    arrays = [np.asarray(core) for core in cores]
    grown: list[Matrix] = []
    for core, pair in zip(arrays, zip((1, *spec.ranks), (*spec.ranks, 1))):
        left, right = pair[0] - core.shape[0], pair[1] - core.shape[3]
        grown.append(np.pad(core, ((0, left), (0, 0), (0, 0), (0, right))))
    return [core.reshape(shape) for core, shape in zip(grown, spec.factor_shapes)]


FORMAT = TensorTrainMatrix()
