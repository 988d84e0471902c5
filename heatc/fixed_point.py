"""
Fixed-point arithmetic of the machine, vectorised and exact.

A code is an integer `c` of `width` bits; its value is `c * 2**-point`. Rounding is half to even
everywhere, overflow saturates and is counted. Codes are held in int64 here, in the narrow
dtype in memory (`storage_dtype`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Reals = NDArray[np.float64]

_CHUNK = 1 << 15
"""Elements that are rounded at a time."""

EXACT_FLOAT64 = 2.0**53
"""Below this magnitude every integer is a float64, so BLAS on float64 is exact."""


class Rounded(NamedTuple):
    """Codes and how many of them saturated."""

    codes: Codes
    saturated: int


def limits(width: int) -> tuple[int, int]:
    """The least and the greatest code of `width` bits."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


def storage_dtype(width: int) -> type[np.signedinteger]:
    """The memory dtype of codes: int8, int16, int32, and int64 for wider accumulators."""
    return np.int64 if width > 32 else {8: np.int8, 16: np.int16, 32: np.int32}[width]


def saturate(codes: Codes, width: int) -> Rounded:
    """Clip to `width` bits and count what was clipped."""
    low, high = limits(width)
    outside = int(np.count_nonzero((codes < low) | (codes > high)))
    return Rounded(np.clip(codes, low, high) if outside else codes, outside)


def round_shift(codes: Codes, shift: int | NDArray[np.int64]) -> Codes:
    """
    `codes * 2**-shift`, rounded half to even; a negative shift is an exact left shift.

    `shift` is one integer, or an array of positive shifts that broadcasts against `codes`.
    """
    if isinstance(shift, int):
        if shift <= 0:
            return codes << -shift
        if shift > 62:
            return np.zeros_like(codes)
    half = (np.int64(1) << np.int64(shift)) >> 1
    floor = codes >> shift
    rest = codes - (floor << shift)
    up = (rest > half) | ((rest == half) & (floor & 1 == 1))
    return floor + up


def requantize(codes: Codes, point: int, to_point: int, to_width: int) -> Rounded:
    """Move the binary point from `point` to `to_point` and saturate to `to_width` bits."""
    return saturate(round_shift(codes, point - to_point), to_width)


def encode(
    values: NDArray[Any], point: int, width: int, dtype: type[np.signedinteger] = np.int64
) -> Rounded:
    """
    Round real numbers half to even into codes of some dtype.

    Infinities saturate; a NaN raises `FloatingPointError`, because it has no code.
    """
    array = np.asarray(values)
    real = _rounding_dtype(array, point, width)
    codes: Codes = np.empty(array.size, dtype)
    flat, outside = array.reshape(-1), 0
    # Some at a time: they stay in the cache from step to step.
    for start in range(0, array.size, _CHUNK):
        with np.errstate(over="ignore"):  # what overflows saturates
            part = np.multiply(flat[start : start + _CHUNK], 2.0**point, dtype=real)
        np.rint(part, out=part)
        outside += _clip(part, *limits(width))
        codes[start : start + _CHUNK] = part
    return Rounded(codes.reshape(array.shape), outside)


def _rounding_dtype(array: NDArray[Any], point: int, width: int) -> type[np.float32 | np.float64]:
    """
    The dtype in which an array is rounded exactly.

    float32 suffices for float32 values and narrow codes: a power of two changes no digit, what
    becomes too small to be exact rounds to 0, and the limits of the codes are float32 values.
    """
    exact = array.dtype == np.float32 and width <= 16 and abs(point) <= 126
    return np.float32 if exact else np.float64


def _clip(values: NDArray[np.floating], low: int, high: int) -> int:
    """Clip in place; how many were outside."""
    if low <= values.min() and values.max() <= high:
        return 0
    if np.isnan(values).any():
        raise FloatingPointError("a NaN cannot be rounded into a fixed-point code")
    outside = int(np.count_nonzero((values < low) | (values > high)))
    np.clip(values, low, high, out=values)
    return outside


def decode(codes: NDArray[np.signedinteger], point: int) -> Reals:
    """The float64 values of codes; exact for codes below 2**53."""
    return np.ldexp(codes.astype(np.float64), -point)


def point_for(bound: float, width: int) -> int:
    """
    The finest binary point at which values of magnitude `bound` fit `width` bits.

    The greatest code must not be exceeded after rounding, hence the half code of margin.
    """
    _, high = limits(width)
    if bound <= 0:
        return width - 1
    point = int(np.floor(np.log2((high + 0.5) / bound)))
    while bound * 2.0**point >= high + 0.5:
        point -= 1
    return min(point, 40)


def split(codes: Codes, point: int, integer_point: int = 0) -> tuple[Codes, Codes]:
    """
    Integer and fraction part of codes: `I` at `integer_point`, `F = value - I` at `point`.

    Truncation is toward zero, so both parts carry the value's sign (docs/design/rules.md, Split).
    """
    shift = point - integer_point
    if shift <= 0:
        return codes << -shift, np.zeros_like(codes)
    integer = np.sign(codes) * (np.abs(codes) >> shift)
    return integer, codes - (integer << shift)


def _peak(codes: NDArray[np.generic]) -> int:
    """The largest magnitude; the least code of a narrow dtype has no absolute value in it."""
    return max(int(codes.max()), -int(codes.min()))


def matmul(a: NDArray[np.generic], b: NDArray[np.generic]) -> Codes:
    """
    Exact integer product of (..., m, k) and (..., k, n) at BLAS speed.

    Float64 holds every partial sum exactly while it stays below 2**53; the wider operand is
    split into two halves otherwise.
    """
    depth = a.shape[-1]
    if depth == 0 or a.size == 0 or b.size == 0:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return np.zeros((*lead, a.shape[-2], b.shape[-1]), np.int64)
    peak_a, peak_b = _peak(a), _peak(b)
    if peak_a * peak_b * depth < EXACT_FLOAT64:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    if peak_a < peak_b:
        return matmul(b.swapaxes(-1, -2), a.swapaxes(-1, -2)).swapaxes(-1, -2)
    if peak_a < 1 << 17:
        return a.astype(np.int64) @ b.astype(np.int64)
    high = a.astype(np.int64) >> 16
    low = a.astype(np.int64) - (high << 16)
    return (matmul(high, b) << 16) + matmul(low, b)
