"""Format `cp`: a sum of outer products."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from heatc.heat.formats.definition import Found, Spec, Weight, WeightFormat
from heatc.heat.formats.modes import Modes
from heatc.heat.norm import Matrix, Norm
from heatc.heat.start import from_start, inputs_first, numpy_backend, tensorly

_RIDGE = 1e-6
"""What is added to equations that are singular, as a share of the weight's norm."""


class Cp(WeightFormat):
    """A factor (n, r) for each mode, inputs first."""

    name = "cp"
    summary = "a factor (n, r) for each mode, one rank for all"

    def terms(self, spec: Spec) -> Iterable[str]:
        """`aA,bA,mA,nA`."""
        for letter in spec.input_letters + spec.output_letters:
            yield letter + "A"

    def rank_count(self, inputs: Modes, outputs: Modes) -> int:
        """One for all factors."""
        return 1

    def rank_limits(self, inputs: Modes, outputs: Modes) -> Modes:
        """All modes but the largest."""
        modes = (*inputs, *outputs)
        return (math.prod(modes) // max(modes),)

    def matrix_rank(self, spec: Spec) -> int:
        """Its own."""
        return min(math.prod(spec.inputs), math.prod(spec.outputs), spec.ranks[0])

    def decompose(self, weight: Weight) -> Found:
        """From tensorly's alternating least squares."""
        return from_start(weight, _start)


def _start(white: Matrix, norm: Norm | None, spec: Spec, seed: int) -> list[Matrix]:
    """
    Alternating least squares from a random start: the rank may exceed every mode.

    Where the weight needs fewer terms than the rank has, their equations are singular, and the
    smallest terms of least squares are taken by a ridge.
    """
    tensor = inputs_first(white, spec)

    def found(ridge: float) -> tuple[Any, Any]:
        return tensorly("decomposition").parafac(
            tensor,
            rank=spec.ranks[0],
            n_iter_max=20,
            init="random",
            normalize_factors=False,
            tol=1e-4,
            random_state=seed,
            linesearch=False,
            l2_reg=ridge,
        )

    with numpy_backend():
        try:
            weights, factors = found(0.0)
        except np.linalg.LinAlgError:
            weights, factors = found(_RIDGE * float(np.linalg.norm(tensor)))
    arrays = [np.asarray(f, np.float64) for f in factors]
    arrays[0] = arrays[0] * np.asarray(weights)
    return arrays


FORMAT = Cp()
