"""Format `tucker`: a core, and a matrix for each mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from heatc.heat.formats.definition import Found, Spec, Weight, WeightFormat
from heatc.heat.formats.modes import Modes
from heatc.heat.norm import Matrix, Norm
from heatc.heat.start import from_start, inputs_first, numpy_backend, tensorly


class Tucker(WeightFormat):
    """The inputs' (n, r), the core, the outputs' (n, r)."""

    name = "tucker"
    summary = "a core, and a factor (n, r) for each mode, a rank for each"

    def terms(self, spec: Spec) -> Iterable[str]:
        """`aA,bB,ABCD,mC,nD`."""
        count, ranks = len(spec.inputs), spec.rank_letters
        for letter, rank in zip(spec.input_letters, ranks):
            yield letter + rank
        yield ranks
        for letter, rank in zip(spec.output_letters, ranks[count:]):
            yield letter + rank

    def rank_count(self, inputs: Modes, outputs: Modes) -> int:
        """One for each mode."""
        return len(inputs) + len(outputs)

    def rank_limits(self, inputs: Modes, outputs: Modes) -> Modes:
        """Each mode, where the others are not smaller."""
        modes = (*inputs, *outputs)
        whole = math.prod(modes)
        return tuple(min(n, whole // n) for n in modes)

    def scaled_ranks(self, inputs: Modes, outputs: Modes, level: int) -> Modes:
        """The same share of every mode, in steps of the largest one."""
        largest = max(*inputs, *outputs)
        return tuple(max(1, min(n, round(n * level / largest))) for n in (*inputs, *outputs))

    def top_level(self, inputs: Modes, outputs: Modes) -> int:
        """The largest mode."""
        return max(*inputs, *outputs)

    def matrix_rank(self, spec: Spec) -> int:
        """That of the core's two sides."""
        count = len(spec.inputs)
        full = min(math.prod(spec.inputs), math.prod(spec.outputs))
        return min(full, math.prod(spec.ranks[:count]), math.prod(spec.ranks[count:]))

    def decompose(self, weight: Weight) -> Found:
        """From tensorly's higher-order orthogonal iteration, with the best core in the exact norm."""
        return from_start(weight, _start)


def _start(white: Matrix, norm: Norm | None, spec: Spec, seed: int) -> list[Matrix]:
    with numpy_backend():
        return _with_best_core(white, norm, spec, _orthogonal(white, spec))


def _orthogonal(white: Matrix, spec: Spec) -> list[Matrix]:
    """Higher-order orthogonal iteration."""
    core, factors = tensorly("decomposition").tucker(
        inputs_first(white, spec), rank=list(spec.ranks), n_iter_max=5, tol=1e-4
    )
    count = len(spec.inputs)
    arrays = [np.asarray(f, np.float64) for f in factors]
    return [*arrays[:count], np.asarray(core, np.float64), *arrays[count:]]


def _with_best_core(
    w: Matrix, norm: Norm | None, spec: Spec, arrays: Sequence[Matrix]
) -> list[Matrix]:
    """Tucker factors U and V with the core for which V C U^T is nearest to W."""
    count = len(spec.inputs)
    u, v = (_kronecker(part) for part in (arrays[:count], arrays[count + 1 :]))
    weighted = u if norm is None else norm.times(u.T).T
    inner = np.linalg.lstsq(v, w @ weighted, rcond=None)[0]
    core = np.linalg.lstsq(u.T @ weighted, inner.T, rcond=None)[0]
    shaped = np.asarray(core, np.float64).reshape(spec.factor_shapes[count])
    return [*arrays[:count], shaped, *arrays[count + 1 :]]


def _kronecker(factors: Sequence[Matrix]) -> Matrix:
    """The Kronecker product of matrices (n, r)."""
    result = factors[0]
    for factor in factors[1:]:
        result = np.asarray(np.kron(result, factor), np.float64)
    return result


FORMAT = Tucker()
