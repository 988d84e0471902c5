"""How far outputs are from what they should be, and how far they may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.verify.rows import Rows

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """
    How far a result may be from its reference.

    `share` is relative: of the largest magnitude of an output where `of_norm` is false, which the
    largest difference is held against, else of its Euclidean norm, which that of the difference is
    held against. A share of 0 means bit for bit, padding included.
    """

    share: float
    of_norm: bool = False

    @property
    def size(self) -> str:
        """What the share is of, in words."""
        return "its size" if self.of_norm else "its largest value"


IDENTICAL = Bound(0.0)
CLOSE = Bound(1e-4)
"""float32 in another order: docs/design/verification.md says what right programs reach."""

ROUNDED = Bound(0.1, of_norm=True)
"""Codes of 16 bits in place of real numbers, without pruning."""


class Difference(NamedTuple):
    """
    How one output differs.

    `largest` is the largest absolute difference, `share` what a `Bound` is held against, of
    `IDENTICAL` the number of values that differ; `cosine` is that of all values with the
    reference's. `values` were compared.
    """

    output: str
    largest: float
    share: float
    cosine: float
    values: int
    padding: int
    """Values at masked positions that are not 0 as they have to be."""

    def holds(self, bound: Bound) -> bool:
        """Whether nothing is wrong; a NaN is."""
        return self.share <= bound.share and not self.padding


def differences(
    expected: Arrays, found: Arrays, rows: Mapping[str, Rows], bound: Bound
) -> list[Difference]:
    """One for each output of the reference; a missing or misshapen output differs infinitely."""
    return [_difference(n, expected[n], found.get(n), rows.get(n, Rows()), bound) for n in expected]


def _difference(
    name: str, expected: Array, found: Array | None, rows: Rows, bound: Bound
) -> Difference:
    if found is None or found.shape != expected.shape:
        return Difference(name, np.inf, np.inf, 0.0, 0, 0)
    if not bound.share:
        differs = int(np.count_nonzero(~_same(expected, found)))
        largest = float(np.abs(_reals(expected) - _reals(found)).max(initial=0.0))
        return Difference(name, largest, float(differs), 1.0, expected.size, 0)
    padding = int(np.count_nonzero(rows.rest(found)))
    a, b = _reals(rows.of(expected)), _reals(rows.of(found))
    # What the model itself gives no number for has to be the same, and is left out of the rest.
    finite = np.isfinite(a)
    if not _same(a[~finite], b[~finite]).all():
        return Difference(name, np.inf, np.inf, 0.0, len(a), padding)
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    error = np.abs(a - b)
    largest = float(error.max(initial=0.0))
    size = float(np.linalg.norm(a) if bound.of_norm else np.abs(a).max(initial=0.0))
    measured = float(np.linalg.norm(error)) if bound.of_norm else largest
    share = measured / size if size else (0.0 if measured == 0.0 else np.inf)
    return Difference(name, largest, share, cosine(a, b), len(a), padding)


def _same(a: Array, b: Array) -> NDArray[np.bool_]:
    return (a == b) | ((a != a) & (b != b))


def _reals(array: Array) -> Reals:
    return np.asarray(array).astype(np.float64)


def cosine(a: Reals, b: Reals) -> float:
    """Of all values together; 1 where both are nothing but zeros or the same."""
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if not size:
        return float(np.array_equal(a, b))
    return float((a * b).sum()) / size
