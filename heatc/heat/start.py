"""
What formats make their factors from: a whitened weight, and tensorly's numerics.

Factors are found of W (L1 x L2 x ...), where L1, L2, ... are the Cholesky factors of the moments of
each mode: a whitening that no format loses its form by.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from heatc.errors import HeatcError
from heatc.heat.formats.definition import Found, Spec, Weight
from heatc.heat.formats.modes import Modes
from heatc.heat.norm import RIDGE, Matrix, Norm
from heatc.heat.refine import refine

Start: TypeAlias = Callable[[Matrix, Norm | None, Spec, int], list[Matrix]]
"""
Factors near a whitened weight (O, I).

It takes the weight, the norm that is left after the whitening, the spec, and a seed.
"""


def from_start(weight: Weight, start: Start) -> Found:
    """Factors of the whitened weight, refined, then those of the weight itself."""
    w, norm, spec, refinements, seed = weight
    roots = mode_roots(norm, spec.inputs)
    white = apply_modes(w, roots, spec.inputs)
    rest = whitened(norm, roots, spec.inputs)
    arrays = start(white, rest, spec, seed)
    if refinements:
        arrays = refine(white, rest, spec, arrays, refinements)
    return Found(undo(arrays, roots, spec))


@contextmanager
def numpy_backend() -> Generator[None]:
    """tensorly on NumPy's arrays, without its warnings."""
    # tensorly's backend is global: whoever has set another one (tensorly-torch does) keeps it.
    numpy = tensorly("backend").backend_context("numpy", local_threadsafe=True)
    with warnings.catch_warnings(), numpy:
        # It warns of ranks that it need not reach; they are filled with zeros here.
        warnings.simplefilter("ignore", UserWarning)
        yield


def inputs_first(white: Matrix, spec: Spec) -> Matrix:
    """A weight (O, I) as a tensor of its modes, those of the inputs first."""
    return np.ascontiguousarray(white.T).reshape(*spec.inputs, *spec.outputs)


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


def tensorly(name: str) -> Any:
    """A module of tensorly; `HeatcError` where it is not installed."""
    try:
        return import_module(f"tensorly.{name}")
    except ImportError:
        raise HeatcError(
            "formats other than low-rank need tensorly", notes=["pip install 'heatc[heat]'"]
        ) from None
