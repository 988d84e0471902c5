"""
When an output is right: what it must be at masked positions, and how near it must be elsewhere.

A program says of each output whether it is 0 at the masked positions of a token axis. All other
values are PyTorch's, those at masked positions of outputs that are computed too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench.support.differential.inputs import Case
from bench.support.differential.program import Array, Output

Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Bound:
    """
    How far from PyTorch a value may be.

    `relative` to the largest magnitude of the output but to no less than `least`; `cosine` is of
    the whole output where it is not 0. Where rounding moves the model itself further, an output
    may move as far, up to `most` of its magnitude on all inputs. `same_dtype`: outputs have PyTorch's
    dtypes.
    """

    relative: float
    least: float
    cosine: float
    most: float
    same_dtype: bool = False


NUMPY = Bound(1e-4, 1.0, 0.0, 1e-2, same_dtype=True)
HDP = Bound(2e-2, 2.0**-7, 0.999, 2e-1)


def difference(
    want: Array,
    got: Array,
    zeros: Mask | None,
    bound: Bound,
    noise: Callable[[], Array],
    largest: float = 0.0,
) -> str:
    """
    What is wrong with an output; empty where it is right.

    `zeros` is where it has to be 0 for padding's sake. `noise` says how far rounding moves each
    element; it is asked only where one is further from PyTorch than the bound. `largest` is the
    output's largest magnitude on other inputs: what is near 0 on one is not rounded finer for that.
    """
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    if zeros is not None:
        if (got[zeros] != 0).any():
            return _message("not 0 at masked positions", want, got, zeros & (got != 0))
        want = np.where(zeros, 0, want).astype(want.dtype)
    wrong = _far(want, got, bound)
    if not wrong.any():
        return ""
    error = np.abs(_finite(got) - _finite(want))
    unexplained = wrong & (error > noise())
    if unexplained.any():
        return _message("values differ", want, got, unexplained)
    magnitude = max(float(np.abs(_finite(want)).max()), bound.least, largest)
    coarse = wrong & (error > bound.most * magnitude)
    return _message("rounding is too coarse", want, got, coarse) if coarse.any() else ""


def masked_positions(output: Output, case: Case, masks: Sequence[str]) -> Mask:
    """Where an output that has tokens is 0, since one of some inputs masks the position."""
    masked = np.zeros(output.shape, np.bool_)
    padded = case.padded(masks)
    if output.axes[:1] == "m":
        return masked | padded.reshape(-1, *[1] * (len(output.shape) - 1))
    if "b" not in output.axes:
        return masked
    batch = output.axes.index("b")
    for axis, letter in enumerate(output.axes):
        if letter not in "s?":
            continue
        shape = [1] * len(output.shape)
        shape[batch], shape[axis] = padded.shape
        masked |= (padded if batch < axis else padded.T).reshape(shape)
    return masked


def _far(want: Array, got: Array, bound: Bound) -> Mask:
    """Where two arrays differ by more than the bound; NaN is like NaN alone."""
    if want.dtype.kind in "biu" and got.dtype.kind in "biu":
        return want != got
    finite = np.isfinite(want) & np.isfinite(got)
    same = np.where(finite, True, (want == got) | (np.isnan(want) & np.isnan(got)))
    a, b = (np.where(finite, x, 0).astype(np.float64) for x in (want, got))
    magnitude = max(float(np.abs(a).max(initial=0)), bound.least)
    far = np.abs(a - b) > bound.relative * magnitude
    if bound.cosine and _cosine(a, b) < bound.cosine and np.abs(a).max(initial=0) > bound.least:
        far |= np.abs(a - b) > bound.relative * magnitude / 4
    return far | ~same


def _finite(values: Array) -> Array:
    """Infinite and missing values as such large ones that no noise explains them."""
    return np.nan_to_num(values.astype(np.float64), nan=1e300, posinf=1e301, neginf=-1e301)


def _cosine(a: Array, b: Array) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.vdot(a, b)) / norms if norms else 1.0


def _message(what: str, want: Array, got: Array, wrong: Mask) -> str:
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return (
        f"{what}: {int(wrong.sum())} of {wrong.size}, first at {list(at)}: "
        f"{got[at]:.6g}, PyTorch {want[at]:.6g}"
    )
