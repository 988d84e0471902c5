"""
Factors of a weight, refined by L-BFGS in the norm that counts.

CP, Tucker and TT are products B A of an input half and an output half with few indices between
them, so that their gradients never form a matrix as large as W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heatc.heat.formats.definition import Spec, find_format
from heatc.heat.norm import Matrix, Norm, dot

# scipy has no types.
_optimize: Any = import_module("scipy.optimize")

GAIN = 0.01
"""A step that lowers the squared error by less than this share of it is the last one."""

Single: TypeAlias = NDArray[np.float32]


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

    def matrix(self, arrays: Sequence[Single]) -> Single:
        """The matrix of all factors of the weight that belong to it."""
        return self.forward([arrays[k] for k in self.places]).reshape(self.shape)

    def pull(self, gradient: Single, arrays: Sequence[Single], into: list[Single]) -> None:
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

    def __call__(self, arrays: Sequence[Single]) -> Single:
        return np.einsum(self.equation, *arrays, optimize=self.path)


def refine(
    w: Matrix,
    norm: Norm | None,
    spec: Spec,
    arrays: Sequence[Matrix],
    steps: int,
    *,
    patient: bool = True,
) -> list[Matrix]:
    """
    L-BFGS on all factors of W (O, I), from factors that are near.

    Errors and gradients are found in float32. Without `patient` it ends with the first step that
    gains little, which suits a start that is near the best.
    """
    ends = np.cumsum([a.size for a in arrays])[:-1]

    def split(vector: NDArray[Any]) -> list[NDArray[Any]]:
        parts = np.split(vector, ends)
        return [part.reshape(shape) for part, shape in zip(parts, spec.factor_shapes)]

    made = _objective if find_format(spec.format).in_halves else _whole_objective
    objective = made(w, norm, spec)

    errors: list[float] = []  # of the start and after each step

    def evaluate(vector: Matrix) -> tuple[float, Matrix]:
        error, gradients = objective(split(vector.astype(np.float32)))
        if not errors:
            errors.append(error)
        return error, np.concatenate([g.reshape(-1) for g in gradients], dtype=np.float64)

    def watch(intermediate_result: Any) -> None:
        errors.append(float(intermediate_result.fun))
        if not patient and errors[-1] > (1 - GAIN) * errors[-2]:
            raise StopIteration

    start = np.concatenate([a.reshape(-1) for a in arrays])
    options = {"maxiter": steps, "maxcor": 6}
    found: Any = _optimize.minimize(
        evaluate, start, jac=True, method="L-BFGS-B", callback=watch, options=options
    )
    return split(np.asarray(found.x))


_Objective: TypeAlias = Callable[[Sequence[Single]], tuple[float, list[Single]]]


def _objective(w: Matrix, norm: Norm | None, spec: Spec) -> _Objective:
    """||(W - B A) L||^2 / ||W L||^2 and its gradients, never with a matrix of W's size."""
    count = len(spec.inputs)
    bond = _bond(spec)
    first = _Product(spec, range(count), bond, spec.input_letters)
    second = _Product(spec, range(count, len(spec.terms)), spec.output_letters, bond)
    single = w.astype(np.float32)
    target = single if norm is None else norm.times(single)
    whole = max(dot(target, single), 1e-300)

    def evaluate(arrays: Sequence[Single]) -> tuple[float, list[Single]]:
        a, b = first.matrix(arrays), second.matrix(arrays)
        weighted = a if norm is None else norm.times(a)
        inner, gram, cross = weighted @ a.T, b.T @ b, target @ a.T
        value = whole - 2 * dot(b, cross) + dot(gram, inner)
        gradients: list[Single] = [a] * len(arrays)
        of_a: Single = np.subtract(gram @ weighted, b.T @ target)
        of_b: Single = np.subtract(b @ inner, cross)
        first.pull(np.multiply(of_a, 2 / whole, dtype=np.float32), arrays, gradients)
        second.pull(np.multiply(of_b, 2 / whole, dtype=np.float32), arrays, gradients)
        return value / whole, gradients

    return evaluate


def _bond(spec: Spec) -> str:
    """The indices between the input half and the output half."""
    count = len(spec.inputs)
    halves = spec.terms[:count], spec.terms[count:]
    ranks = dict.fromkeys("".join(halves[0]))
    return "".join(c for c in ranks if c in "".join(halves[1]))


def _whole_objective(w: Matrix, norm: Norm | None, spec: Spec) -> _Objective:
    """The same for factors that do not fall into two halves."""
    product = _Product(spec, range(len(spec.terms)), spec.output_letters, spec.input_letters)
    target = w.astype(np.float32)
    whole = max(dot(target if norm is None else norm.times(target), target), 1e-300)

    def evaluate(arrays: Sequence[Single]) -> tuple[float, list[Single]]:
        difference = product.matrix(arrays) - target
        weighted = difference if norm is None else norm.times(difference)
        gradients: list[Single] = [target] * len(arrays)
        error = dot(weighted, difference) / whole
        product.pull(weighted * np.float32(2 / whole), arrays, gradients)
        return error, gradients

    return evaluate
