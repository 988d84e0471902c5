"""
Factors of a trained weight, close to it where its inputs are.

The error that counts is that of the layer's output: E ||(W - W') x||^2 = ||(W - W') L||_F^2 with
L L^T the second moment of the layer's input (or, with a corrected bias, its covariance), to which
1e-4 of its mean diagonal is added. Without a moment L is the identity: the plain decomposition.

low-rank has a closed form: the leading left singular vectors U of W L give W' = U U^T W, found
on the smaller side of W by a symmetric eigenproblem. The other formats start from tensorly's
decomposition of W (L1 x L2 x ...), where L1, L2, ... are the Cholesky factors of the moments of
each mode, a whitening that no format loses its form by; L-BFGS then refines all factors in the
exact norm. CP, Tucker and TT are products B A of an input half and an output half with few
indices between them, so that their gradients never form a matrix as large as W.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.heat.formats import Modes, Spec, rebuild

Matrix: TypeAlias = NDArray[np.float64]

# scipy has no types.
_linalg: Any = import_module("scipy.linalg")
_optimize: Any = import_module("scipy.optimize")

RIDGE = 1e-4
"""What is added to a moment's diagonal, as a share of its mean."""

AIM = 0.5
"""How far a layer makes up for what the layers before it lost: between not at all and fully."""

REFINEMENTS = 60
"""The most steps of L-BFGS that refine one weight."""


@dataclass(frozen=True)
class Factors:
    """The factors of a weight, and their relative error in the norm that was minimised."""

    spec: Spec
    arrays: tuple[Matrix, ...]
    error: float

    def matrix(self) -> Matrix:
        """The weight they stand for, (O, I)."""
        return rebuild(self.spec, self.arrays)

    def apply(self, x: Matrix) -> Matrix:
        """The weight times one vector (I,)."""
        spec = self.spec
        equation = f"{','.join((spec.input_letters, *spec.terms))}->{spec.output_letters}"
        shaped = x.reshape(spec.inputs)
        y: Matrix = np.einsum(equation, shaped, *self.arrays, optimize="greedy")
        return y.reshape(-1)


def decompose(
    weight: NDArray[np.floating],
    spec: Spec,
    moment: NDArray[np.floating] | None = None,
    *,
    refinements: int = REFINEMENTS,
    seed: int = 0,
) -> Factors:
    """
    Decompose a weight (O, I).

    Args:
        weight: (O, I), any float dtype; fewer inputs than the modes have are filled with zeros.
        spec: format, modes and ranks.
        moment: (I, I), or (I,) where it is diagonal; None for the plain norm.
        refinements: the most steps of L-BFGS; 0 keeps tensorly's factors.
        seed: of the random start of CP.

    Raises:
        HeatcError: modes that do not fit the weight, no tensorly, or a weight that is not finite.
    """
    w = _padded(np.asarray(weight, np.float64), spec)
    if not np.isfinite(w).all():
        raise HeatcError("a weight with infinities or NaN cannot be decomposed")
    s = ridged(moment, len(w[0]))
    if spec.format == "low-rank":
        arrays, error = _low_rank(w, s, spec.ranks[0])
        return Factors(spec, arrays, error)
    return _tensor(w, s, spec, refinements, seed)


def aimed(
    weight: Matrix, moment: Matrix | None, cross: Matrix | None, share: float = AIM
) -> Matrix:
    """
    The weight whose product with the input x' of now is nearest to W x, x being the input before.

    It is W E[x x'^T] (E[x' x'^T])^-1, with the same ridge on both moments: without a change of the
    input it is W. Only `share` of the way from W is gone, since calibration tokens are few.
    """
    if moment is None or cross is None:
        return weight
    regular, aim = ridged(moment), cross.copy()
    assert regular is not None
    aim.flat[:: len(aim) + 1] += regular[0, 0] - moment[0, 0]
    factor = _linalg.cho_factor(regular, check_finite=False)
    there = _linalg.cho_solve(factor, (weight @ aim).T, check_finite=False).T
    return weight + share * (there - weight)


def _cholesky(symmetric: Matrix) -> Matrix:
    return np.asarray(np.linalg.cholesky(symmetric), np.float64)


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def relative_error(weight: Matrix, approximation: Matrix, moment: Matrix | None) -> float:
    """||(W - W') L|| / ||W L||; 0 for a weight that is 0."""
    difference = weight - approximation
    whole = _norm(weight, moment)
    return _norm(difference, moment) / whole if whole else 0.0


def _norm(matrix: Matrix, moment: Matrix | None) -> float:
    if moment is None:
        return float(np.linalg.norm(matrix))
    weighted = matrix * moment if moment.ndim == 1 else matrix @ moment
    return math.sqrt(max(0.0, float(np.einsum("oi,oi->", weighted, matrix))))


def _padded(weight: Matrix, spec: Spec) -> Matrix:
    """The weight with zero columns up to the product of the input modes."""
    outputs, inputs = weight.shape
    ins, outs = math.prod(spec.inputs), math.prod(spec.outputs)
    if outs != outputs or ins < inputs:
        raise HeatcError(f"shape {spec.shape} does not fit a weight of {inputs} to {outputs}")
    return np.pad(weight, ((0, 0), (0, ins - inputs))) if ins > inputs else weight


def ridged(moment: NDArray[np.floating] | None, inputs: int = 0) -> Matrix | None:
    """The moment in float64 with its ridge; inputs beyond its own get the ridge alone."""
    if moment is None:
        return None
    own = len(moment)
    extra = max(0, inputs - own)
    padded = np.pad(np.asarray(moment, np.float64), (0, extra))
    if padded.ndim == 1:
        return padded + RIDGE * (float(moment.mean()) or 1.0)
    padded.flat[:: own + extra + 1] += RIDGE * (float(np.trace(moment)) / own or 1.0)
    return padded


# ---- low rank ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrum:
    """
    The singular values of W L, descending, and what factors of any rank are made of.

    Keeping the first r leaves a squared error of the sum of the others' squares.
    """

    values: Matrix
    _weight: Matrix
    _left: Matrix | None
    _right: Matrix | None
    _root: Matrix | None

    def factors(self, rank: int) -> tuple[Matrix, Matrix]:
        """A (r, I) and B (O, r)."""
        if self._left is not None:
            b = self._left[:, :rank]
            return b.T @ self._weight, b
        assert self._right is not None
        v = self._right[:, :rank]
        if self._root is None:
            return v.T, self._weight @ v
        if self._root.ndim == 1:
            return v.T / self._root, self._weight @ (v * self._root[:, None])
        a = _linalg.solve_triangular(self._root, v, lower=True, trans="T").T
        return a, self._weight @ (self._root @ v)

    def errors(self) -> Matrix:
        """The relative error at every rank from 0 on."""
        squares = self.values**2
        left = np.concatenate([np.cumsum(squares[::-1])[::-1], [0.0]])
        return np.sqrt(left / left[0]) if left[0] else np.zeros_like(left)


def spectrum(weight: Matrix, moment: Matrix | None) -> Spectrum:
    """The spectrum of W L, on the smaller side of W; the moment must be positive definite."""
    outputs, inputs = weight.shape
    if outputs <= inputs:
        values, vectors = _eigen(_sandwich(weight, moment))
        return Spectrum(values, weight, vectors, None, None)
    if moment is None:
        values, vectors = _eigen(weight.T @ weight)
        return Spectrum(values, weight, None, vectors, None)
    gram = weight.T @ weight
    if moment.ndim == 1:
        root = np.sqrt(moment)
        values, vectors = _eigen(root[:, None] * gram * root)
    else:
        root = _cholesky(moment)
        values, vectors = _eigen(root.T @ gram @ root)
    return Spectrum(values, weight, None, vectors, root)


def _sandwich(weight: Matrix, moment: Matrix | None) -> Matrix:
    """W S W^T."""
    if moment is None:
        return weight @ weight.T
    weighted = weight * moment if moment.ndim == 1 else weight @ moment
    return weighted @ weight.T


def _eigen(symmetric: Matrix) -> tuple[Matrix, Matrix]:
    """Square roots of the eigenvalues, descending, and the vectors."""
    values, vectors = _linalg.eigh(symmetric, driver="evd", overwrite_a=True, check_finite=False)
    return np.sqrt(np.maximum(values[::-1], 0.0)), cast(Matrix, vectors[:, ::-1])


def _low_rank(w: Matrix, s: Matrix | None, rank: int) -> tuple[tuple[Matrix, ...], float]:
    found = spectrum(w, s)
    rank = min(rank, min(w.shape))
    a, b = found.factors(rank)
    # Equal norms of both factors' ranks, so that neither needs a wider range in fixed point.
    balance = np.sqrt(np.linalg.norm(b, axis=0) / np.maximum(np.linalg.norm(a, axis=1), 1e-300))
    balance = np.where(balance > 0, balance, 1.0)
    return (a * balance[:, None], b / balance), float(found.errors()[rank])


# ---- the other formats ------------------------------------------------------------------------


def _tensor(w: Matrix, s: Matrix | None, spec: Spec, refinements: int, seed: int) -> Factors:
    """Start from tensorly's factors of the whitened weight, refine, undo the whitening."""
    roots = _mode_roots(s, spec.inputs)
    white = _apply_modes(w, roots, spec.inputs)
    moment = None if s is None else _whitened(s, roots, spec.inputs)
    arrays = _start(white, spec, seed)
    if refinements:
        arrays = _refine(white, moment, spec, arrays, refinements)
    plain = _undo(arrays, roots, spec)
    error = relative_error(w, rebuild(spec, plain), s)
    return Factors(spec, tuple(plain), error)


def _mode_roots(s: Matrix | None, modes: Modes) -> list[Matrix]:
    """The Cholesky factor of each mode's own moment, scaled so that their product is S's size."""
    if s is None:
        return [np.eye(n) for n in modes]
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
        result.append(_cholesky(part / trace if k else part))
    return result


def _apply_modes(matrix: Matrix, roots: Sequence[Matrix], modes: Modes) -> Matrix:
    """The matrix (O, i1 i2 ...) times the Kronecker product of the roots."""
    result = matrix
    for k, root in enumerate(roots):
        shaped = result.reshape(-1, modes[k], math.prod(modes[k + 1 :]))
        result = np.einsum("anb,nm->amb", shaped, root, optimize=True)
    return result.reshape(matrix.shape)


def _whitened(s: Matrix, roots: Sequence[Matrix], modes: Modes) -> Matrix:
    """K^-1 S K^-T for the Kronecker product K of the roots."""
    full = np.diag(s) if s.ndim == 1 else s
    inverses = [_inverse(root).T for root in roots]
    half = _apply_modes(full, inverses, modes)
    return _apply_modes(np.ascontiguousarray(half.T), inverses, modes)


def _undo(arrays: Sequence[Matrix], roots: Sequence[Matrix], spec: Spec) -> list[Matrix]:
    """Factors of W from those of W K: each mode's root is solved away from the factor with it."""
    result = list(arrays)
    for letter, root in zip(spec.input_letters, roots):
        place = next(k for k, term in enumerate(spec.terms) if letter in term)
        axis = spec.terms[place].index(letter)
        moved = np.moveaxis(result[place], axis, -1)
        result[place] = np.moveaxis(moved @ _inverse(root), -1, axis)
    return result


def _tensorly(name: str) -> Any:
    try:
        return import_module(f"tensorly.{name}")
    except ImportError:
        raise HeatcError(
            "formats other than low-rank need tensorly", notes=["pip install 'heatc[heat]'"]
        ) from None


def _start(white: Matrix, spec: Spec, seed: int) -> list[Matrix]:
    starts = {"cp": _start_cp, "tucker": _start_tucker, "tt": _start_tt, "ttm": _start_ttm}
    # Its backend is global: whoever has set another one (tensorly-torch does) keeps it.
    numpy = _tensorly("backend").backend_context("numpy", local_threadsafe=True)
    with warnings.catch_warnings(), numpy:
        # It warns of ranks that it need not reach; they are filled with zeros here.
        warnings.simplefilter("ignore", UserWarning)
        return starts[spec.format](white, spec, seed)


def _inputs_first(white: Matrix, spec: Spec) -> Matrix:
    return np.ascontiguousarray(white.T).reshape(*spec.inputs, *spec.outputs)


def _start_cp(white: Matrix, spec: Spec, seed: int) -> list[Matrix]:
    """Alternating least squares from a random start: the rank may exceed every mode."""
    weights, factors = _tensorly("decomposition").parafac(
        _inputs_first(white, spec),
        rank=spec.ranks[0],
        n_iter_max=20,
        init="random",
        normalize_factors=False,
        tol=1e-4,
        random_state=seed,
        linesearch=False,
    )
    arrays = [np.asarray(f, np.float64) for f in factors]
    arrays[0] = arrays[0] * np.asarray(weights)
    return arrays


def _start_tucker(white: Matrix, spec: Spec, seed: int) -> list[Matrix]:
    """Higher-order orthogonal iteration."""
    core, factors = _tensorly("decomposition").tucker(
        _inputs_first(white, spec), rank=list(spec.ranks), n_iter_max=5, tol=1e-4
    )
    count = len(spec.inputs)
    arrays = [np.asarray(f, np.float64) for f in factors]
    return [*arrays[:count], np.asarray(core, np.float64), *arrays[count:]]


def _start_tt(white: Matrix, spec: Spec, seed: int) -> list[Matrix]:
    """The best matrix of the middle rank, then a tensor train of each of its halves."""
    count = len(spec.inputs)
    middle = spec.ranks[count - 1]
    a, b = (np.asarray(x) for x in spectrum(white, None).factors(middle))
    missing = middle - len(a)
    a, b = np.pad(a, ((0, missing), (0, 0))), np.pad(b, ((0, 0), (0, missing)))
    # Each half is cut with the singular values in it: its errors then count as in the product.
    a_norm, b_norm = (np.maximum(np.linalg.norm(x, axis=n), 1e-30) for x, n in ((a, 1), (b, 0)))
    ins = (a.T * b_norm).reshape(*spec.inputs, middle)
    outs = (b * a_norm).reshape(*spec.outputs, middle)
    first = _train(ins, spec.ranks[: count - 1])
    second = _train(np.moveaxis(outs, -1, 0).T, spec.ranks[count:][::-1])
    first[-1] = first[-1] / b_norm
    second[-1] = second[-1] / a_norm
    cores = [*first, *(core.T for core in reversed(second))]
    return [core.reshape(shape) for core, shape in zip(cores, spec.factor_shapes)]


def _train(tensor: Matrix, ranks: Modes) -> list[Matrix]:
    """The cores of a tensor whose last axis is an open bond, kept whole by the last core."""
    if tensor.ndim == 2:
        return [tensor]
    bond = tensor.shape[-1]
    *cores, last = _tensorly("decomposition").tensor_train(tensor, rank=[1, *ranks, bond, 1])
    arrays: list[Matrix] = [np.asarray(core) for core in cores]
    result = [*arrays[:-1], np.einsum("aib,bm->aim", arrays[-1], np.asarray(last)[:, :, 0])]
    return [_grown(core, *pair) for core, pair in zip(result, _bonds(ranks, bond))]


def _bonds(ranks: Modes, bond: int) -> list[tuple[int, int]]:
    """The bonds on both sides of each core."""
    return list(zip((1, *ranks), (*ranks, bond)))


def _grown(core: Matrix, before: int, after: int) -> Matrix:
    """A core with zeros up to the ranks asked for, where tensorly needed fewer."""
    left, right = before - core.shape[0], after - core.shape[2]
    return np.pad(core, ((0, left), (0, 0), (0, right)))


def _start_ttm(white: Matrix, spec: Spec, seed: int) -> list[Matrix]:
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


# ---- refinement -------------------------------------------------------------------------------


class _Product:
    """
    A matrix made of some factors by one equation, and what a gradient of it is for each factor.

    `result` starts with the indices of the matrix's rows.
    """

    def __init__(self, spec: Spec, places: Sequence[int], rows: str, columns: str):
        self.places = tuple(places)
        self.terms = [spec.terms[k] for k in places]
        self.extents = spec.extents
        self.result = rows + columns
        self.shape = self._size(rows), self._size(columns)
        self.forward = _Einsum([*self.terms], self.result, self.extents)
        self.backward = [
            _Einsum([self.result, *self._others(k)], term, self.extents)
            for k, term in enumerate(self.terms)
        ]

    def _size(self, letters: str) -> int:
        return math.prod(self.extents[c] for c in letters)

    def _others(self, place: int) -> list[str]:
        return [term for k, term in enumerate(self.terms) if k != place]

    def matrix(self, arrays: Sequence[Matrix]) -> Matrix:
        """The matrix of all factors of the weight that belong to it."""
        return self.forward([arrays[k] for k in self.places]).reshape(self.shape)

    def pull(self, gradient: Matrix, arrays: Sequence[Matrix], into: list[Matrix]) -> None:
        """Write the gradient of each factor into its place."""
        own = [arrays[k] for k in self.places]
        tensor = gradient.reshape([self.extents[c] for c in self.result])
        for k, place in enumerate(self.places):
            into[place] = self.backward[k]([tensor, *own[:k], *own[k + 1 :]])


class _Einsum:
    """An equation with its path."""

    def __init__(self, terms: Sequence[str], result: str, extents: dict[str, int]):
        self.equation = f"{','.join(terms)}->{result}"
        zeros = [np.broadcast_to(0.0, [extents[c] for c in term]) for term in terms]
        wish = "optimal" if len(terms) <= 5 else "greedy"
        self.path: Any = np.einsum_path(self.equation, *zeros, optimize=wish)[0]

    def __call__(self, arrays: Sequence[Matrix]) -> Matrix:
        return np.einsum(self.equation, *arrays, optimize=self.path)


def _refine(
    w: Matrix, s: Matrix | None, spec: Spec, arrays: Sequence[Matrix], steps: int
) -> list[Matrix]:
    """L-BFGS on all factors in the norm of `s`, from factors that are near; never worse."""
    ends = np.cumsum([a.size for a in arrays])[:-1]

    def split(vector: Matrix) -> list[Matrix]:
        parts = np.split(vector, ends)
        return [part.reshape(shape) for part, shape in zip(parts, spec.factor_shapes)]

    objective = _ttm_objective(w, s, spec) if spec.format == "ttm" else _objective(w, s, spec)

    def evaluate(vector: Matrix) -> tuple[float, Matrix]:
        value, gradients = objective(split(vector))
        return value, np.concatenate([g.reshape(-1) for g in gradients])

    start = np.concatenate([a.reshape(-1) for a in arrays])
    found: Any = _optimize.minimize(
        evaluate, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 12}
    )
    return split(np.asarray(found.x))


_Objective: TypeAlias = Callable[[Sequence[Matrix]], tuple[float, list[Matrix]]]


def _objective(w: Matrix, s: Matrix | None, spec: Spec) -> _Objective:
    """||(W - B A) L||^2 / ||W L||^2 and its gradients, never with a matrix of W's size."""
    count = len(spec.inputs)
    bond = _bond(spec)
    first = _Product(spec, range(count), bond, spec.input_letters)
    second = _Product(spec, range(count, len(spec.terms)), spec.output_letters, bond)
    target = w if s is None else w @ s
    whole = max(float(np.vdot(target, w)), 1e-300)

    def evaluate(arrays: Sequence[Matrix]) -> tuple[float, list[Matrix]]:
        a, b = first.matrix(arrays), second.matrix(arrays)
        weighted = a if s is None else a @ s
        inner, gram, cross = weighted @ a.T, b.T @ b, target @ a.T
        value = whole - 2 * float(np.vdot(b, cross)) + float(np.vdot(gram, inner))
        gradients: list[Matrix] = [a] * len(arrays)
        first.pull(2 / whole * (gram @ weighted - b.T @ target), arrays, gradients)
        second.pull(2 / whole * (b @ inner - cross), arrays, gradients)
        return value / whole, gradients

    return evaluate


def _bond(spec: Spec) -> str:
    """The indices between the input half and the output half."""
    count = len(spec.inputs)
    halves = spec.terms[:count], spec.terms[count:]
    ranks = dict.fromkeys("".join(halves[0]))
    return "".join(c for c in ranks if c in "".join(halves[1]))


def _ttm_objective(w: Matrix, s: Matrix | None, spec: Spec) -> _Objective:
    """The same for cores that hold an input and an output each."""
    product = _Product(spec, range(len(spec.terms)), spec.output_letters, spec.input_letters)
    whole = max(float(np.vdot(w if s is None else w @ s, w)), 1e-300)

    def evaluate(arrays: Sequence[Matrix]) -> tuple[float, list[Matrix]]:
        difference = product.matrix(arrays) - w
        weighted = difference if s is None else difference @ s
        gradients: list[Matrix] = [w] * len(arrays)
        product.pull(2 / whole * weighted, arrays, gradients)
        return float(np.vdot(weighted, difference)) / whole, gradients

    return evaluate
