"""
The norm in which the error of a weight counts, and the spectrum of a weight in it.

The error that counts is that of the layer's output: E ||(W - W') x||^2 = ||(W - W') L||_F^2 with
L L^T the second moment of the layer's input (or, with a corrected bias, its covariance), to which
1e-4 of its mean diagonal is added. Without a moment L is the identity: the plain norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
Float = TypeVar("Float", np.float32, np.float64)

# scipy has no types.
_linalg: Any = import_module("scipy.linalg")

RIDGE = 1e-4
"""What is added to a moment's diagonal, as a share of its mean."""


_USUAL_EXPONENT = 20


def unusual_exponent(magnitude: float) -> int:
    """The binary exponent of a magnitude that is far from 1; 0 for one that is not."""
    exponent = math.frexp(magnitude)[1]
    return exponent if abs(exponent) > _USUAL_EXPONENT else 0


@dataclass(frozen=True)
class Norm:
    """
    The norm ||. L||_F in which a weight's error counts, L L^T being the moment with its ridge.

    Layers of one input share it, and what is made of it but once.

    Attributes:
        matrix: (I, I), or (I,) where it is diagonal, float64, positive definite.
        ridge: what was added to the diagonal.
    """

    matrix: Matrix
    ridge: float

    @classmethod
    def of(cls, moment: NDArray[np.floating]) -> Norm:
        """The norm of a moment."""
        matrix = np.array(moment, np.float64)
        diagonal = matrix if matrix.ndim == 1 else matrix.reshape(-1)[:: len(matrix) + 1]
        ridge = RIDGE * (float(diagonal.sum()) / len(moment) or 1.0)
        diagonal += ridge
        return cls(matrix, ridge)

    def near_one(self) -> Norm:
        """The same but for a power of two, where squares of it would leave the range of float32."""
        mean = float(self.matrix.sum() if self.matrix.ndim == 1 else np.trace(self.matrix))
        exponent = unusual_exponent(mean / len(self.matrix))
        if exponent == 0:
            return self
        return Norm(np.ldexp(self.matrix, -exponent), math.ldexp(self.ridge, -exponent))

    def widened(self, inputs: int) -> Norm:
        """With the ridge alone for inputs beyond its own."""
        own = len(self.matrix)
        if inputs <= own:
            return self
        if self.matrix.ndim == 1:
            return Norm(
                np.pad(self.matrix, (0, inputs - own), constant_values=self.ridge), self.ridge
            )
        matrix = np.pad(self.matrix, (0, inputs - own))
        matrix.reshape(-1)[own * (inputs + 1) :: inputs + 1] = self.ridge
        return Norm(matrix, self.ridge)

    @cached_property
    def root(self) -> Matrix:
        """L, lower triangular, column after column in memory; of a diagonal moment its diagonal."""
        if self.matrix.ndim == 1:
            return np.sqrt(self.matrix)
        # A symmetric matrix in rows is one in columns: LAPACK need not turn it around.
        factor = _linalg.cholesky(self.matrix.T, lower=True, check_finite=False)
        return cast(Matrix, factor)

    @cached_property
    def single(self) -> NDArray[np.float32]:
        """The matrix in float32."""
        return self.matrix.astype(np.float32)

    def times(self, matrix: NDArray[Float]) -> NDArray[Float]:
        """The matrix (n, I) times the moment, in the matrix's own precision."""
        own: Any = self.single if matrix.dtype == np.float32 else self.matrix
        return matrix * own if own.ndim == 1 else matrix @ own

    def solve(self, matrix: Matrix) -> Matrix:
        """The matrix (n, I) times the inverse of the moment."""
        if self.matrix.ndim == 1:
            return matrix / self.matrix
        solved = _linalg.cho_solve((self.root, True), matrix.T, check_finite=False)
        return cast(Matrix, solved.T)


def relative_error(weight: Matrix, approximation: Matrix, norm: Norm | None) -> float:
    """||(W - W') L|| / ||W L||; 0 for a weight that is 0."""
    whole = _size(weight, norm)
    return _size(weight - approximation, norm) / whole if whole else 0.0


def _size(matrix: Matrix, norm: Norm | None) -> float:
    """||M L||, to the six digits of float32."""
    single = matrix.astype(np.float32)
    weighted = single if norm is None else norm.times(single)
    return math.sqrt(max(0.0, dot(weighted, single)))


def dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The sum of the products of two matrices, in float64."""
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


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

    @property
    def of_inputs(self) -> bool:
        """Whether B, not A L, has the singular values in it."""
        return self._left is None

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


def spectrum(weight: Matrix, norm: Norm | None) -> Spectrum:
    """The spectrum of W L, on the smaller side of W."""
    outputs, inputs = weight.shape
    if outputs <= inputs:
        weighted = _times_root(weight, norm)
        values, vectors = _eigen(weighted @ weighted.T)
        return Spectrum(values, weight, vectors, None, None)
    gram = weight.T @ weight
    if norm is None:
        values, vectors = _eigen(gram)
        return Spectrum(values, weight, None, vectors, None)
    root = norm.root
    inner = root[:, None] * gram * root if root.ndim == 1 else root.T @ gram @ root
    values, vectors = _eigen(inner)
    return Spectrum(values, weight, None, vectors, root)


def _times_root(weight: Matrix, norm: Norm | None) -> Matrix:
    """W L."""
    if norm is None:
        return weight
    if norm.root.ndim == 1:
        return weight * norm.root
    # L is triangular: half the arithmetic of a product.
    product = _linalg.blas.dtrmm(1.0, norm.root, weight.T, lower=True, trans_a=True)
    return cast(Matrix, product.T)


def _eigen(symmetric: Matrix) -> tuple[Matrix, Matrix]:
    """Square roots of the eigenvalues, descending, and the vectors."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.sqrt(np.maximum(values[::-1], 0.0)), cast(Matrix, vectors[:, ::-1])
