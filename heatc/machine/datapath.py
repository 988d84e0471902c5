"""
What the core engines compute, as array functions without machine state.

Operands are (P, m, n) arrays with P = 1 or the number of cores at work. Products are float64 BLAS
calls that are exact: operands have at most 16 bits, so 2**23 terms stay below 2**53.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Codes, Reals, limits
from heatc.isa import units
from heatc.isa.table import BITS, BLOCK
from heatc.isa.units import Mask
from heatc.machine.memory import NUMPY_DTYPES, Array
from heatc.machine.state import Trap

_EXACT = 2.0**53


def product(a: Reals, b: Reals, transposed: bool) -> Reals:
    """a b or a b^T of (P, m, k) and (P, k, n) or (P, n, k); one GEMM where an operand is shared."""
    if a.shape[0] == 1 and b.shape[0] > 1:
        return _shared_left(a[0], b, transposed)
    if transposed:
        b = b.swapaxes(1, 2)
    if b.shape[0] == 1:
        cores, m, k = a.shape
        return (a.reshape(cores * m, k) @ b[0]).reshape(cores, m, b.shape[2])
    return np.matmul(a, b)


def _shared_left(a: Reals, b: Reals, transposed: bool) -> Reals:
    cores = b.shape[0]
    if transposed:
        flat = a @ b.reshape(cores * b.shape[1], b.shape[2]).T
    else:
        flat = a @ b.transpose(1, 0, 2).reshape(b.shape[1], cores * b.shape[2])
    return flat.reshape(a.shape[0], cores, -1).transpose(1, 0, 2)


def split_codes(codes: Array, point: int, dtypes: tuple[str, str]) -> tuple[Array, Array]:
    """Integer and fraction parts of int16 codes in ISA dtypes that hold them."""
    integer, fraction = split(cast("NDArray[np.int16]", codes), point)
    whole, rest = (NUMPY_DTYPES[dtype] for dtype in dtypes)
    return integer.astype(whole, order="K"), fraction.astype(rest, order="K")


def plus(a: Reals, b: Reals) -> Reals:
    """a + b, both accumulators; a's place may take the sum."""
    if len(a) < len(b):
        # What is the same on all cores, and what is not.
        return a + b
    a += b
    return a


def requantised(values: Reals, shift: int, dtype: str, *, owned: bool = False) -> tuple[Array, int]:
    """
    Codes of an ISA dtype after a rounded shift, and how many saturated.

    `owned`: nobody else needs the values, their place may be used.
    """
    codes, saturated = requantise(values, shift, BITS[dtype], values if owned else None)
    return codes.astype(NUMPY_DTYPES[dtype], order="K"), saturated


def requantise(
    values: Reals, shift: int, width: int, out: Reals | None = None
) -> tuple[Reals, int]:
    """
    `values * 2**-shift` rounded half to even in `width` bits, and how many saturated.

    `out` takes the codes, if given: `values` themselves where nobody needs them any more.
    """
    codes = np.multiply(values, 2.0**-shift, out=out)
    np.rint(codes, out=codes)
    return saturate(codes, width)


def saturate(codes: Reals, width: int) -> tuple[Reals, int]:
    """Clip integers in place to `width` bits and count what was clipped."""
    low, high = limits(width)
    if codes.size == 0 or (codes.min() >= low and codes.max() <= high):
        return codes, 0
    outside = int(np.count_nonzero((codes < low) | (codes > high)))
    return np.clip(codes, low, high, out=codes), outside


def split(codes: NDArray[np.int16], point: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Integer and fraction part of int16 codes, truncated toward zero; point >= 0."""
    wide = codes.astype(np.int32)
    point = min(point, 16)
    integer = (wide + ((wide < 0) * ((1 << point) - 1))) >> point
    return integer.astype(np.int16), (wide - (integer << point)).astype(np.int16)


def importances(values: Reals, positive: tuple[Reals, int] | None, block: tuple[int, int]) -> Reals:
    """
    Sums over blocks of magnitudes, or of what lies above the row's mean.

    `positive` has the sums of the rows (P, m, 1) and the length that they are over.
    """
    if positive is None:
        return block_sums(np.abs(values), block)
    sums, length = positive
    return block_sums(np.maximum(values * length - sums, 0.0), block)


def integer_scores(values: Reals) -> tuple[Array, int]:
    """Scores in int32, and how many saturated."""
    result, saturated = saturate(values, 32)
    return result.astype(np.int32, order="C"), saturated


def magnitudes(values: Reals, real: Mask | None) -> Reals:
    """The sum of magnitudes, (P, 1, 1), of the rows (P, m, 1) that are `real`, None for all."""
    parts = np.abs(values) if real is None else np.abs(values) * real
    return parts.sum(axis=(1, 2), keepdims=True)


def tallied(sums: Reals, before: Array | None, shift: int) -> Reals:
    """before + sums * 2**shift, (P, 1, 1)."""
    total = sums * 2.0**shift
    return total if before is None else total + before.astype(np.float64)


def peak(values: Reals, before: Reals | None = None) -> Reals:
    """The greatest magnitude of each core, (P, 1, 1), not below one `before`."""
    found = np.abs(values).max(axis=(1, 2), keepdims=True, initial=0.0)
    return found if before is None else np.maximum(found, before)


def bit_lengths(peaks: Reals) -> Codes:
    """The bits of each core's greatest magnitude (P, 1, 1), an integer."""
    return np.frexp(peaks)[1].astype(np.int64)


def low_codes(values: Reals, peaks: Reals, bits: int, dtype: str) -> Array:
    """Low-bit codes of an ISA dtype that holds them; beyond the peak they are clipped."""
    limit = float((1 << (bits - 1)) - 1)
    scaled = np.rint(np.ldexp(values, bits - 1 - bit_lengths(peaks)))
    return np.clip(scaled, -limit, limit).astype(NUMPY_DTYPES[dtype])


def block_sums(values: Reals, block: tuple[int, int]) -> Reals:
    """Sums over blocks, partial at odd ends: (P, m, n) -> (P, block rows, block columns)."""
    if block != BLOCK:
        return cast(Reals, units.block_sums(cast(Codes, values), block))
    rows, columns = values.shape[1:]
    if rows % 2 or columns % 2:
        values = np.pad(values, ((0, 0), (0, rows % 2), (0, columns % 2)))
    values = values[:, 0::2] + values[:, 1::2]
    return values[:, :, 0::2] + values[:, :, 1::2]


def group_peaks(values: Codes, rows: int, high: int, macs: int = 1) -> Codes:
    """
    (P, block rows) -> (P,): the greatest value of each fold of `rows` query rows, summed.

    Of each the steps that it takes at `macs` a step. A block row of `high` query rows that has more
    than the array takes several folds.
    """
    group = max(1, rows // high)
    cores, count = values.shape
    groups = -(-count // group)
    if groups * group != count:
        padded = np.zeros((cores, groups * group), np.int64)
        padded[:, :count] = values
        values = padded
    peaks = values.reshape(cores, groups, group).max(axis=2, initial=0)
    return max(1, -(-high // rows)) * (-(-peaks // macs)).sum(axis=1)


def kept_keys(blocks: Mask, columns: int, wide: int) -> Codes:
    """(P, block rows): kept columns of each block row; the last block, `wide` ones, may be partial."""
    keys = blocks.sum(axis=2, dtype=np.int64) * wide
    if columns % wide:
        keys -= blocks[:, :, -1] * (wide - columns % wide)
    return keys


def block_folds(blocks: Mask, wide: int, columns: int) -> Codes:
    """(P, block rows): folds of an array of `columns` that kept blocks, `wide` keys each, fill."""
    kept = blocks.sum(axis=2, dtype=np.int64)
    return kept * -(-wide // columns) if wide > columns else -(-kept // (columns // wide))


class MergePoints(units.Points):
    """Binary points of the adder's operands and its result."""

    @property
    def fine(self) -> int:
        """The finest point of the operands."""
        return max(self.q, self.k, 0)


def merge(
    parts: tuple[Reals, Reals, Reals],
    kept: Mask,
    points: MergePoints,
    pruned: str,
    mean: Reals | None,
) -> tuple[NDArray[np.int32], int]:
    """
    The adder on (P, m, n) parts (integer scores and both fraction products), int32 codes.

    Bit for bit `units.merge_scores`, in float64 where that is exact. `mean` (P, m, 1) is what
    pruned scores become under `mean`.
    """
    integer, by_q, by_k = parts
    bound = _merge_bound(parts, points)
    if bound >= _EXACT:
        return _merge_wide(parts, kept, points, pruned, mean, bound)
    score = integer * 2.0**points.score
    rest = np.rint(score) if pruned == "int" and points.score < 0 else score
    merged = score + by_q * 2.0 ** (points.score - points.q)
    merged += by_k * 2.0 ** (points.score - points.k)
    np.rint(merged, out=merged)
    if pruned in ("zero", "neginf"):
        merged *= kept
    else:
        other = rest if pruned == "int" else cast(Reals, mean)
        merged = np.where(kept, merged, other)
    codes, saturated = saturate(merged, 32)
    result = codes.astype(np.int32)
    if pruned == "neginf":
        result[~kept] = units.EXCLUDED
    return result, saturated


def _merge_bound(parts: tuple[Reals, Reals, Reals], points: MergePoints) -> float:
    shifts = (points.fine, points.fine - points.q, points.fine - points.k)
    return sum(_peak(part) * 2.0**shift for part, shift in zip(parts, shifts))


def _peak(values: Reals) -> float:
    return max(float(values.max()), -float(values.min())) if values.size else 0.0


def _merge_wide(
    parts: tuple[Reals, Reals, Reals],
    kept: Mask,
    points: MergePoints,
    pruned: str,
    mean: Reals | None,
    bound: float,
) -> tuple[NDArray[np.int32], int]:
    if max(bound, _peak(parts[0]) * 2.0**points.score) >= 2.0**62:
        raise Trap("the sum of the parts exceeds the adder's 63 bits")
    integer, by_q, by_k = (part.astype(np.int64) for part in parts)
    rule = "zero" if pruned == "mean" else pruned
    codes, saturated = units.merge_scores(integer, by_q, by_k, kept, rule, points)
    if pruned == "mean":
        filled, more = saturate(np.where(kept, 0.0, cast(Reals, mean)), 32)
        codes, saturated = np.where(kept, codes, filled.astype(np.int64)), saturated + more
    return codes.astype(np.int32), saturated


def pruned_mean(integer: Reals, kept: Mask, point: int, visible: Mask | None = None) -> Reals:
    """
    (P, m, 1): the mean of each row's pruned integer scores, rounded half to even at `point`.

    Of the visible ones alone, where these are given.
    """
    rest = ~kept if visible is None else ~kept & visible
    count = np.maximum(np.count_nonzero(rest, axis=-1), 1)
    total = np.where(rest, integer, 0).sum(axis=-1)
    return np.rint(np.ldexp(total / count, point))[..., None]


def masked_scores(
    codes: NDArray[np.int32],
    bias: tuple[Reals | None, int],
    visible: Mask | None,
    keyless: str,
    real: Mask | None,
) -> tuple[NDArray[np.int32], int]:
    """
    Scores (P, m, n) plus a bias, without what is hidden, and how many saturated.

    `bias` are its codes and by how many bits they are finer than scores; `real` says which rows (P, m, 1) a
    core has, None for all. A `Trap` for a row that sees no key under `refuse`.
    """
    out, saturated = codes, 0
    if bias[0] is not None:
        total = codes + np.rint(bias[0] * 2.0 ** -bias[1])
        total = np.where(codes == units.EXCLUDED, units.EXCLUDED, total)
        clipped, saturated = saturate(total, 32)
        out = clipped.astype(np.int32)
    if visible is None:
        return out, saturated
    shown = units.shown(visible if real is None else visible | ~real, keyless)
    if shown is None:
        raise Trap(
            "a row sees no key: the model has no number there",
            "give every row a key that its mask does not hide",
        )
    if keyless == "mean":
        level = np.where(out == units.EXCLUDED, out, np.int32(0))
        out = np.where(visible.any(axis=-1, keepdims=True), out, level)
    return np.where(shown, out, np.int32(units.EXCLUDED)), saturated


def rest_mean(integer: Reals, kept: Mask, point: int, total: Reals) -> Reals:
    """As `pruned_mean`, from the sums of the rows (P, m, 1) and the kept scores alone."""
    count = np.maximum(np.count_nonzero(~kept, axis=-1), 1)
    rest = total[..., 0] - np.where(kept, integer, 0).sum(axis=-1)
    return np.rint(np.ldexp(rest / count, point))[..., None]


def pruned_probability(p: Reals, kept: Mask) -> Reals:
    """(P, m, 1): each row's value (P, m, n) at its first column that is not kept, 0 if all are."""
    first = np.argmin(kept, axis=-1)[..., None]
    found = np.take_along_axis(p, first, axis=-1)
    return np.where(np.take_along_axis(kept, first, axis=-1), 0.0, found)


_FURTHEST = (18 << units.EXP_BITS) - 1
"""A distance whose power is 0, as that of any greater one."""


@cache
def _mantissas() -> NDArray[np.int32]:
    """The exp unit's power of every fraction."""
    return units.exp2_unit(np.arange(1 << units.EXP_BITS)).astype(np.int32)


def softmax(codes: NDArray[np.int32], point: int, scale: units.SoftmaxScale) -> NDArray[np.int16]:
    """
    The softmax unit on (P, m, n) scores, of which there may be none.

    Bit for bit `units.softmax_unit`: distances have at most 49 bits and powers times reciprocals
    at most 33, so that float64 holds them; the exp unit's polynomial is a table.
    """
    if not codes.size:
        return np.zeros(codes.shape, np.int16)
    drop = point + scale.shift - units.EXP_BITS
    distance = codes.astype(np.float64)
    np.subtract(distance.max(axis=-1, keepdims=True), distance, out=distance)
    distance *= scale.multiplier * 2.0**-drop
    whole = np.minimum(distance, _FURTHEST, out=distance).astype(np.int32)
    powers = _mantissas().take(whole & ((1 << units.EXP_BITS) - 1))
    powers >>= whole >> units.EXP_BITS
    if codes.min() == units.EXCLUDED:
        powers[codes == units.EXCLUDED] = 0
    total = powers.sum(axis=-1, keepdims=True, dtype=np.int64)
    reciprocal, exponent = units.reciprocal_unit(np.maximum(total, 1))
    lift = exponent + (16 - units.PROBABILITY_POINT)
    result = np.multiply(powers, np.ldexp(reciprocal.astype(np.float64), -lift), out=distance)
    return np.rint(result, out=result).astype(np.int16)
