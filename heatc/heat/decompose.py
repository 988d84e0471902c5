"""
Factors of a trained weight, close to it where its inputs are.

The error that counts is that of the layer's output (heatc/heat/norm.py). Each format finds its own
factors (heatc/heat/formats/). Most start from tensorly's decomposition of a whitened weight
(heatc/heat/start.py), and L-BFGS then refines all factors (heatc/heat/refine.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.heat.formats import REGISTRY, Spec, Weight, find_format, rebuild
from heatc.heat.norm import Matrix, Norm, relative_error, unusual_exponent

AIM = 0.5
"""How far a layer makes up for what the layers before it lost: between not at all and fully."""

REFINEMENTS = 60
"""The most steps of L-BFGS that refine one weight."""

_MOST = 1.0 + 1e-4
"""The largest relative error, that of factors that are 0, to the digits of float32."""


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
    moment: NDArray[np.floating] | Norm | None = None,
    *,
    refinements: int = REFINEMENTS,
    seed: int = 0,
) -> Factors:
    """
    Decompose a weight (O, I).

    Args:
        weight: (O, I), any float dtype; fewer inputs than the modes have are filled with zeros.
        spec: format, modes and ranks.
        moment: (I, I), or (I,) where it is diagonal, or the norm made of it; None for the plain
            norm.
        refinements: the most steps of L-BFGS; 0 keeps tensorly's factors.
        seed: of the random start of CP.

    A weight that is 0 has factors that are 0.

    Raises:
        HeatcError: modes that do not fit the weight, no tensorly, a weight that is not finite, or
            factors that are no nearer to it than 0.
    """
    w = _padded(np.asarray(weight, np.float64), spec)
    if not np.isfinite(w).all():
        raise HeatcError("a weight with infinities or NaN cannot be decomposed")
    if not w.any():
        return Factors(spec, tuple(np.zeros(shape) for shape in spec.factor_shapes), 0.0)
    norm = Norm.of(moment) if isinstance(moment, np.ndarray) else moment
    norm = None if norm is None else norm.widened(len(w[0])).near_one()
    exponent = unusual_exponent(float(np.abs(w).max()))
    found = _found(np.ldexp(w, -exponent), norm, spec, refinements, seed)
    if not all(np.isfinite(array).all() for array in found.arrays) or not found.error <= _MOST:
        raise HeatcError(
            f"{spec.format} {spec.shape} of ranks {list(spec.ranks)} comes no nearer to the weight "
            "than 0 does",
            notes=["take another format or other ranks for this layer, or leave it dense"],
        )
    return Factors(spec, _scaled(found.arrays, exponent), found.error)


def _found(w: Matrix, norm: Norm | None, spec: Spec, refinements: int, seed: int) -> Factors:
    with REGISTRY.blamed(spec.format):
        arrays, error = find_format(spec.format).decompose(Weight(w, norm, spec, refinements, seed))
    if error is None:
        error = relative_error(w, rebuild(spec, arrays), norm)
    return Factors(spec, tuple(arrays), error)


def _scaled(arrays: tuple[Matrix, ...], exponent: int) -> tuple[Matrix, ...]:
    """Factors of 2 ** exponent times what some stand for, each with its share of it."""
    share, rest = divmod(exponent, len(arrays))
    return tuple(np.ldexp(a, share + (k < rest)) for k, a in enumerate(arrays))


def aimed(weight: Matrix, norm: Norm, missing: Matrix, share: float = AIM) -> Matrix:
    """
    The weight whose product with the input x' of now is nearest to W x, x being the input before.

    It is W E[x x'^T] (E[x' x'^T])^-1, with the same ridge on both moments: without a change of the
    input it is W. Only `share` of the way from W is gone, since calibration tokens are few.

    Args:
        weight: W (O, I).
        norm: of E[x' x'^T].
        missing: (O, I), W (E[x x'^T] - E[x' x'^T]).
        share: between 0 and 1.
    """
    return weight + share * norm.solve(missing)


def _padded(weight: Matrix, spec: Spec) -> Matrix:
    """The weight with zero columns up to the product of the input modes."""
    outputs, inputs = weight.shape
    ins, outs = math.prod(spec.inputs), math.prod(spec.outputs)
    if outs != outputs or ins < inputs:
        raise HeatcError(f"shape {spec.shape} does not fit a weight of {inputs} to {outputs}")
    return np.pad(weight, ((0, 0), (0, ins - inputs))) if ins > inputs else weight
