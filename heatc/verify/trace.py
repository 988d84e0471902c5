"""
The values inside of two runs of one model, and the first layer in which they differ.

Ops are fused, reordered and replaced on the way, so values are matched by the module path that
they come from, and a value that is found anywhere in the reference is not wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from heatc.dialects.einsum import WeightOp
from heatc.interpreter.values import load
from heatc.passes.rewriting import describe_location, module_path
from heatc.verify.rows import Tokens

Array = NDArray[Any]

_SMALLEST = 2
"""Elements of a value that is looked at; scalars match too easily."""


class Value(NamedTuple):
    """A value, and where it comes from: module path, and the same with the source line."""

    path: str
    place: str
    array: Array


@dataclass
class Trace:
    """
    Values in the order in which they were computed; `codes` keeps fixed-point codes as they are.
    """

    codes: bool = False
    values: list[Value] = field(default_factory=list[Value])

    def observe(self, op: Operation, results: Sequence[Any]) -> None:
        """Take the results of an op; to be called by an interpreter."""
        path = module_path(op)
        if not path or isinstance(op, WeightOp):
            return
        for value, result in zip(op.results, results):
            if isinstance(result, np.ndarray):
                array = cast(Array, result)
                self.add(path, array if self.codes else load(array, value), describe_location(op))

    def add(self, path: str, array: Array, place: str = "") -> None:
        """Take one value."""
        if array.dtype.kind in "fi" and array.size >= _SMALLEST and array.ndim:
            self.values.append(Value(path, place or path, array))

    def last(self) -> Iterator[Value]:
        """The last value of every path, in order."""
        found = {value.path: index for index, value in enumerate(self.values)}
        for index in sorted(found.values()):
            yield self.values[index]


def first_difference(
    expected: Trace, found: Trace, tokens: Tokens | None, tolerance: float
) -> str | None:
    """
    The first layer of `found` whose last value is not `expected`'s; None where none is seen.

    Values (samples, length, ...) are compared at the real tokens, and with packed values.
    `tolerance` is a share of the largest magnitude.
    """
    pool: dict[tuple[int, ...], list[Array]] = {}
    known: dict[str, set[tuple[int, ...]]] = {}
    for value in expected.values:
        for array in _forms(value.array, tokens):
            pool.setdefault(array.shape, []).append(array)
            known.setdefault(value.path, set()).add(array.shape)
    for value in found.last():
        forms = _forms(value.array, tokens)[:1]
        if value.array.ndim == 2:
            forms.append(value.array.T)
        shapes = known.get(value.path, set())
        if not any(array.shape in shapes for array in forms):
            continue
        if not any(_near(e, a, tolerance) for a in forms for e in pool.get(a.shape, ())):
            return _place_of(expected, value)
    return None


def _place_of(expected: Trace, value: Value) -> str:
    """With the source line, where the reference knows it."""
    places = (v.place for v in expected.values if v.path == value.path and v.place != v.path)
    return value.place if value.place != value.path else next(places, value.path)


def _forms(array: Array, tokens: Tokens | None) -> list[Array]:
    """(samples, length, ...) as rows: of the real tokens, and of all that packed values have."""
    if tokens is None or array.shape[:2] != tokens.real.shape:
        return [array]
    flat = array.reshape(-1, *array.shape[2:])
    return [array[tokens.real], flat[tokens.rows]]


def _near(expected: Array, found: Array, tolerance: float) -> bool:
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    scale = float(np.abs(a[finite]).max(initial=0.0))
    with np.errstate(invalid="ignore"):
        near = (np.abs(a - b) <= tolerance * scale) | (a == b) | ((a != a) & (b != b))
    return bool(near.all())
