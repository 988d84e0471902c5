"""
Format `tt`: a tensor train over the inputs, then the outputs.

It is cut from the nearest low-rank matrix in the exact norm, which nothing beats where its other
ranks are full.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from heatc.heat.formats.definition import Found, Spec, Weight, WeightFormat
from heatc.heat.formats.modes import Modes
from heatc.heat.norm import Matrix, Norm, spectrum
from heatc.heat.refine import refine
from heatc.heat.start import apply_modes, mode_roots, numpy_backend, tensorly, undo


class TensorTrain(WeightFormat):
    """Three-way cores, the first and the last with one bond."""

    name = "tt"
    summary = "a tensor train of three-way cores, inputs first, a rank for each bond"

    def terms(self, spec: Spec) -> Iterable[str]:
        """`aA,AbB,BmC,Cn`."""
        letters, ranks = spec.input_letters + spec.output_letters, spec.rank_letters
        last = len(letters) - 1
        for k, letter in enumerate(letters):
            yield (ranks[k - 1] if k else "") + letter + (ranks[k] if k < last else "")

    def default_modes(self, inputs: int, outputs: int, modes: int = 0) -> tuple[Modes, Modes]:
        """Balanced, the outputs mirrored."""
        ins, outs = super().default_modes(inputs, outputs, modes)
        return ins, outs[::-1]

    def rank_count(self, inputs: Modes, outputs: Modes) -> int:
        """One for each bond."""
        return len(inputs) + len(outputs) - 1

    def rank_limits(self, inputs: Modes, outputs: Modes) -> Modes:
        """The smaller side of each cut."""
        modes = (*inputs, *outputs)
        cuts = range(1, len(modes))
        return tuple(min(math.prod(modes[:k]), math.prod(modes[k:])) for k in cuts)

    def matrix_rank(self, spec: Spec) -> int:
        """The middle bond."""
        full = min(math.prod(spec.inputs), math.prod(spec.outputs))
        return min(full, spec.ranks[len(spec.inputs) - 1])

    def decompose(self, weight: Weight) -> Found:
        """Cut from the nearest matrix of its middle rank, and refined where its ranks confine it."""
        w, norm, spec, refinements, _ = weight
        arrays = tensor_train(w, norm, spec)
        if is_free(spec) or not refinements:
            return Found(arrays)
        return Found(refine(w, norm, spec, arrays, refinements, patient=False))


def tensor_train(w: Matrix, norm: Norm | None, spec: Spec) -> list[Matrix]:
    """
    The nearest matrix of the middle rank to W (O, I), and a tensor train of each of its halves.

    A half that its ranks do not confine stays as it is: where both are so, nothing is nearer.
    Raises `HeatcError` where tensorly is needed and not there.
    """
    count = len(spec.inputs)
    a, b, values = _halves(w, norm, spec.ranks[count - 1])
    # The inputs are cut in the norm of each mode, the outputs with the singular values in them:
    # errors then count as in the product.
    ins, outs = spec.ranks[: count - 1], spec.ranks[count:][::-1]
    if _confines(spec.inputs, ins):
        roots = mode_roots(norm, spec.inputs)
        first = _train(_folded(apply_modes(a, roots, spec.inputs).T, spec.inputs), ins)
        shapes = spec.factor_shapes[:count]
        first = undo([core.reshape(s) for core, s in zip(first, shapes)], roots, spec)
    else:
        first = _open_train(_folded(a.T, spec.inputs), ins)
    backwards = _folded(b, spec.outputs).transpose(*range(len(spec.outputs))[::-1], -1)
    if _confines(spec.outputs[::-1], outs):
        second = _train(backwards * values, outs)
        second[-1] = second[-1] / values
    else:
        second = _open_train(backwards, outs)
    cores = [*first, *(core.T for core in reversed(second))]
    return [core.reshape(shape) for core, shape in zip(cores, spec.factor_shapes)]


def _halves(w: Matrix, norm: Norm | None, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    """A (r, I), B (O, r) with orthonormal columns, and the norms of the rows of A L."""
    found = spectrum(w, norm)
    a, b = found.factors(rank)
    values = np.maximum(found.values[: len(a)], 1e-12 * (found.values[0] or 1.0))
    if found.of_inputs:
        a, b = a * values[:, None], b / values
    missing = rank - len(a)
    a, b = np.pad(a, ((0, missing), (0, 0))), np.pad(b, ((0, 0), (0, missing)))
    return a, b, np.pad(values, (0, missing), constant_values=values[-1])


def is_free(spec: Spec) -> bool:
    """Whether a tensor train can be any matrix of its middle rank."""
    count = len(spec.inputs)
    ins, outs = spec.ranks[: count - 1], spec.ranks[count:][::-1]
    return not (_confines(spec.inputs, ins) or _confines(spec.outputs[::-1], outs))


def _confines(modes: Modes, ranks: Modes) -> bool:
    """Whether bonds are narrower than the modes before them."""
    return any(rank < math.prod(modes[: k + 1]) for k, rank in enumerate(ranks))


def _folded(matrix: Matrix, modes: Modes) -> Matrix:
    """(n1 n2 ..., bond) with the modes apart."""
    return np.ascontiguousarray(matrix).reshape(*modes, matrix.shape[-1])


def _open_train(tensor: Matrix, ranks: Modes) -> list[Matrix]:
    """The cores of a tensor with an open bond, all of it in the last one."""
    *modes, last, bond = tensor.shape
    cores: list[Matrix] = []
    before = 1
    for n in modes:
        cores.append(np.eye(before * n).reshape(before, n, before * n))
        before *= n
    cores.append(np.ascontiguousarray(tensor).reshape(before, last, bond))
    return _widened(cores, ranks, bond)


def _train(tensor: Matrix, ranks: Modes) -> list[Matrix]:
    """The cores of a tensor whose last axis is an open bond, kept whole by the last core."""
    *modes, last, bond = tensor.shape
    flat = tensor.reshape(*modes, last * bond)
    with numpy_backend():
        cores = tensorly("decomposition").tensor_train(flat, rank=[1, *ranks, 1])
    arrays = [np.asarray(core) for core in cores]
    arrays[-1] = arrays[-1].reshape(-1, last, bond)
    return _widened(arrays, ranks, bond)


def _widened(cores: Sequence[Matrix], ranks: Modes, bond: int) -> list[Matrix]:
    """Cores with the ranks asked for, where fewer are enough."""
    return [_grown(core, *pair) for core, pair in zip(cores, zip((1, *ranks), (*ranks, bond)))]


def _grown(core: Matrix, before: int, after: int) -> Matrix:
    """A core with zeros up to the ranks asked for, where tensorly needed fewer."""
    left, right = before - core.shape[0], after - core.shape[2]
    return np.pad(core, ((0, left), (0, 0), (0, right)))


FORMAT = TensorTrain()
