"""Comparing the outputs of a run with a reference, over real tokens only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError, VerificationError
from heatc.readers.npz import Form

Array = NDArray[np.generic]
Reals = NDArray[np.float64]

DEFAULT_MIN_COSINE = 0.999


@dataclass(frozen=True)
class Bounds:
    """
    How far a result may be away.

    Each value obeys `|found - expected| <= atol + rtol * |expected|` if one of them is given; each
    row (a token's vector, a sample's) has at least the cosine `min_cosine`.
    """

    atol: float | None = None
    rtol: float | None = None
    min_cosine: float | None = None

    def resolved(self) -> Bounds:
        """With the default bound, a cosine of 0.999, where nothing is asked for."""
        if self.atol is None and self.rtol is None and self.min_cosine is None:
            return Bounds(min_cosine=DEFAULT_MIN_COSINE)
        return self


@dataclass(frozen=True)
class Difference:
    """
    How an output differs from its reference: over all rows that count.

    `excess` is the greatest amount by which a value exceeds its allowance (<= 0: none does).
    """

    name: str
    rows: int
    max_abs_error: float
    cosine: float
    min_cosine: float
    excess: float
    holds: bool


def check_reference(
    expected: Mapping[str, Form], shapes: Mapping[str, tuple[int, ...]], place: str
) -> None:
    """Refuses a reference that holds none of the outputs, or one of another shape."""
    names = [name for name in shapes if name in expected]
    if not names:
        notes = [f"the program's outputs: {', '.join(shapes)}"]
        raise HeatcError("the reference holds none of the outputs", place=place, notes=notes)
    for name in names:
        array = expected[name]
        if array.shape != shapes[name] or array.dtype.kind not in "fiub":
            message = f"expected numbers of shape {shapes[name]}, found {array.dtype} {array.shape}"
            raise HeatcError(message, place=f"{place}: {name}")


def compare(
    found: Mapping[str, Array],
    expected: Mapping[str, Array],
    mask: Array | None,
    bounds: Bounds,
) -> list[Difference]:
    """
    The difference of each output that the reference has.

    `mask` (samples, length) is not 0 at real tokens: outputs of these first two axes are compared
    there, others at samples that have a real token. The reference passed `check_reference`.
    """
    names = [name for name in found if name in expected]
    return [_difference(n, found[n], expected[n], mask, bounds.resolved()) for n in names]


def _difference(
    name: str, found: Array, expected: Array, mask: Array | None, bounds: Bounds
) -> Difference:
    a, b = (_rows(array, mask) for array in (found, expected))
    if not a.size:
        return Difference(name, 0, 0.0, 1.0, 1.0, 0.0, True)
    error = np.abs(a - b)
    excess = float((error - (bounds.atol or 0.0) - (bounds.rtol or 0.0) * np.abs(b)).max())
    cosines = _cosines(a, b)
    least = float(cosines.min())
    holds = True
    if bounds.atol is not None or bounds.rtol is not None:
        holds = excess <= 0
    if bounds.min_cosine is not None:
        holds = holds and least >= bounds.min_cosine
    whole = float(_cosines(a.reshape(1, -1), b.reshape(1, -1))[0])
    return Difference(name, len(a), float(error.max()), whole, least, excess, bool(holds))


def _rows(array: Array, mask: Array | None) -> Reals:
    """The rows that count, (rows, width), in float64."""
    values = np.atleast_1d(array.astype(np.float64))
    if mask is not None and values.shape[:2] == mask.shape:
        values = values[mask != 0]
    elif mask is not None and values.shape[0] == mask.shape[0]:
        values = values[(mask != 0).any(axis=1)]
    return values.reshape(len(values), -1) if values.size else np.zeros((0, 1))


def _cosines(a: Reals, b: Reals) -> Reals:
    """Cosines of rows; two rows of zeros are equal, a NaN stays one."""
    product = (a * b).sum(axis=1)
    norms = np.sqrt((a * a).sum(axis=1)) * np.sqrt((b * b).sum(axis=1))
    equal = (a == b).all(axis=1)
    return np.where(equal, 1.0, product / np.where(norms == 0, 1.0, norms))


def require(differences: list[Difference], bounds: Bounds) -> None:
    """Raises a `VerificationError` (exit code 3) if an output is out of bounds."""
    bounds = bounds.resolved()
    wrong = [d for d in differences if not d.holds]
    if not wrong:
        return
    worst = wrong[0]
    asked: list[str] = []
    if bounds.atol is not None or bounds.rtol is not None:
        asked.append(f"atol {bounds.atol or 0:g} and rtol {bounds.rtol or 0:g}")
    if bounds.min_cosine is not None:
        asked.append(f"cosine >= {bounds.min_cosine:g}")
    notes = [
        f"{d.name}: max abs error {d.max_abs_error:.3g}, least cosine {d.min_cosine:.6f}"
        for d in wrong
    ]
    notes.append(f"asked for: {', '.join(asked)}")
    raise VerificationError("the result differs from the reference", place=worst.name, notes=notes)
