"""Format `low-rank`: W = B A, the nearest such matrix in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from heatc.heat.formats.definition import Found, Spec, Weight, WeightFormat
from heatc.heat.formats.modes import Modes
from heatc.heat.norm import spectrum


class LowRank(WeightFormat):
    """
    A (r, I) and B (O, r).

    The leading left singular vectors U of W L give W' = U U^T W, found on the smaller side of W by a
    symmetric eigenproblem.
    """

    name = "low-rank"
    summary = "two factors: A (r, I), B (O, r)"
    is_matrix = True

    def terms(self, spec: Spec) -> Iterable[str]:
        """`Aa,mA`."""
        return "Aa", "mA"

    def wrong_modes(self, inputs: Modes, outputs: Modes) -> str:
        """It splits nothing."""
        return "" if (len(inputs), len(outputs)) == (1, 1) else "one mode a side"

    def default_modes(self, inputs: int, outputs: int, modes: int = 0) -> tuple[Modes, Modes]:
        """All inputs and all outputs, whatever is asked for."""
        return (inputs,), (outputs,)

    def rank_count(self, inputs: Modes, outputs: Modes) -> int:
        """One."""
        return 1

    def rank_limits(self, inputs: Modes, outputs: Modes) -> Modes:
        """The smaller side."""
        return (min(math.prod(inputs), math.prod(outputs)),)

    def matrix_rank(self, spec: Spec) -> int:
        """Its own."""
        return min(math.prod(spec.inputs), math.prod(spec.outputs), spec.ranks[0])

    def decompose(self, weight: Weight) -> Found:
        """The nearest matrix of the rank, and its error."""
        found = spectrum(weight.matrix, weight.norm)
        rank = min(weight.spec.ranks[0], min(weight.matrix.shape))
        a, b = found.factors(rank)
        # Equal norms of both factors' ranks, so that neither needs a wider range in fixed point.
        norms = np.maximum(np.linalg.norm(a, axis=1), 1e-300)
        balance = np.sqrt(np.linalg.norm(b, axis=0) / norms)
        balance = np.where(balance > 0, balance, 1.0)
        return Found((a * balance[:, None], b / balance), float(found.errors()[rank]))


FORMAT = LowRank()
