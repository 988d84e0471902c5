"""
Factors near a weight, with tensorly's numerics.

CP, Tucker and TT-matrix are found of W (L1 x L2 x ...), where L1, L2, ... are the Cholesky factors
of the moments of each mode: a whitening that no format loses its form by. The core of Tucker is
then the best there is in the exact norm. A tensor train is cut from the nearest low-rank matrix in
the exact norm, which nothing beats where its other ranks are full.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from heatc.errors import HeatcError
from heatc.heat.formats import Modes, Spec
from heatc.heat.norm import RIDGE, Matrix, Norm, spectrum

_CP_RIDGE = 1e-6
"""What is added to equations that are singular, as a share of the weight's norm."""


def start(white: Matrix, norm: Norm | None, spec: Spec, seed: int) -> list[Matrix]:
    """
    Factors near a whitened weight (O, I), of CP, Tucker or TT-matrix.

    Raises `HeatcError` without tensorly.
    """
    with _numpy_backend():
        if spec.format == "cp":
            return _start_cp(white, spec, seed)
        if spec.format == "ttm":
            return _start_ttm(white, spec)
        return _with_best_core(white, norm, spec, _start_tucker(white, spec))


@contextmanager
def _numpy_backend() -> Generator[None]:
    # tensorly's backend is global: whoever has set another one (tensorly-torch does) keeps it.
    numpy = _tensorly("backend").backend_context("numpy", local_threadsafe=True)
    with warnings.catch_warnings(), numpy:
        # It warns of ranks that it need not reach; they are filled with zeros here.
        warnings.simplefilter("ignore", UserWarning)
        yield


def _inputs_first(white: Matrix, spec: Spec) -> Matrix:
    return np.ascontiguousarray(white.T).reshape(*spec.inputs, *spec.outputs)


def _start_cp(white: Matrix, spec: Spec, seed: int) -> list[Matrix]:
    """
    Alternating least squares from a random start: the rank may exceed every mode.

    Where the weight needs fewer terms than the rank has, their equations are singular, and the
    smallest terms of least squares are taken by a ridge.
    """
    tensor = _inputs_first(white, spec)

    def found(ridge: float) -> tuple[Any, Any]:
        return _tensorly("decomposition").parafac(
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

    try:
        weights, factors = found(0.0)
    except np.linalg.LinAlgError:
        weights, factors = found(_CP_RIDGE * float(np.linalg.norm(tensor)))
    arrays = [np.asarray(f, np.float64) for f in factors]
    arrays[0] = arrays[0] * np.asarray(weights)
    return arrays


def _start_tucker(white: Matrix, spec: Spec) -> list[Matrix]:
    """Higher-order orthogonal iteration."""
    core, factors = _tensorly("decomposition").tucker(
        _inputs_first(white, spec), rank=list(spec.ranks), n_iter_max=5, tol=1e-4
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
    with _numpy_backend():
        cores = _tensorly("decomposition").tensor_train(flat, rank=[1, *ranks, 1])
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


def _start_ttm(white: Matrix, spec: Spec) -> list[Matrix]:
    """tensorly's tensor-train matrix."""
    if not spec.ranks:
        return [white]
    tensor = white.reshape(*spec.outputs, *spec.inputs)
    cores = _tensorly("decomposition").tensor_train_matrix(tensor, rank=[1, *spec.ranks, 1])
    arrays = [np.asarray(core) for core in cores]
    grown: list[Matrix] = []
    for core, pair in zip(arrays, zip((1, *spec.ranks), (*spec.ranks, 1))):
        left, right = pair[0] - core.shape[0], pair[1] - core.shape[3]
        grown.append(np.pad(core, ((0, left), (0, 0), (0, 0), (0, right))))
    return [core.reshape(shape) for core, shape in zip(grown, spec.factor_shapes)]


def mode_roots(norm: Norm | None, modes: Modes) -> list[Matrix]:
    """The Cholesky factor of each mode's own moment, scaled so that their product is S's size."""
    if norm is None:
        return [np.eye(n) for n in modes]
    s = norm.matrix
    whole = math.prod(modes)
    trace = float(s.sum() if s.ndim == 1 else np.trace(s)) / whole
    result: list[Matrix] = []
    for k, n in enumerate(modes):
        before, after = math.prod(modes[:k]), math.prod(modes[k + 1 :])
        if s.ndim == 1:
            part = np.diag(s.reshape(before, n, after).sum((0, 2)))
        else:
            part = np.einsum("anbamb->nm", s.reshape(before, n, after, before, n, after))
        part = part / (before * after)
        part.flat[:: n + 1] += RIDGE * trace
        result.append(np.asarray(np.linalg.cholesky(part / trace if k else part), np.float64))
    return result


def apply_modes(matrix: Matrix, roots: Sequence[Matrix], modes: Modes) -> Matrix:
    """The matrix (O, i1 i2 ...) times the Kronecker product of the roots."""
    result = matrix
    for k, root in enumerate(roots):
        shaped = result.reshape(-1, modes[k], math.prod(modes[k + 1 :]))
        result = np.einsum("anb,nm->amb", shaped, root, optimize=True)
    return result.reshape(matrix.shape)


def whitened(norm: Norm | None, roots: Sequence[Matrix], modes: Modes) -> Norm | None:
    """K^-1 S K^-T for the Kronecker product K of the roots."""
    if norm is None:
        return None
    full = np.diag(norm.matrix) if norm.matrix.ndim == 1 else norm.matrix
    inverses = [np.asarray(np.linalg.inv(root), np.float64).T for root in roots]
    half = apply_modes(full, inverses, modes)
    return Norm(apply_modes(np.ascontiguousarray(half.T), inverses, modes), norm.ridge)


def undo(arrays: Sequence[Matrix], roots: Sequence[Matrix], spec: Spec) -> list[Matrix]:
    """Factors of W from those of W K: each mode's root is solved away from the factor with it."""
    result = list(arrays)
    for letter, root in zip(spec.input_letters, roots):
        place = next(k for k, term in enumerate(spec.terms) if letter in term)
        axis = spec.terms[place].index(letter)
        moved = np.moveaxis(result[place], axis, -1)
        result[place] = np.moveaxis(moved @ np.linalg.inv(root), -1, axis)
    return result


def _tensorly(name: str) -> Any:
    try:
        return import_module(f"tensorly.{name}")
    except ImportError:
        raise HeatcError(
            "formats other than low-rank need tensorly", notes=["pip install 'heatc[heat]'"]
        ) from None
