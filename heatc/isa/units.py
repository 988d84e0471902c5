"""
What the special units compute, bit for bit: block importance, masks, head gate, merge, softmax.

The simulator and the interpreter of the `attn` dialect share these functions. Scores of one
sequence are arrays (..., L, L) of int64 codes, blocks are (..., NB, NB) with
`NB = ceil(L / block)`; leading axes are heads or cores. docs/design/numerics.md states the same
in words and formulas, for whoever wants to check it without reading this code.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Codes, Rounded, round_shift, saturate

Mask = NDArray[np.bool_]

EXCLUDED = -(1 << 31)
"""The score code that a softmax skips: a pruned score under `neginf`."""

# exp unit: 2**-f on [0, 1) as C0 - f * (C1 - f * C2), constants with 16 fraction bits.
EXP_BITS = 16
EXP_C0, EXP_C1, EXP_C2 = 65536, 43901, 11133

# reciprocal unit: 1 / x on [1, 2), linear on 32 segments between the exact end points.
RECIPROCAL_SEGMENT_BITS = 5
_SEGMENTS = 1 << RECIPROCAL_SEGMENT_BITS
RECIPROCAL_TABLE: NDArray[np.int64] = np.array(
    [round((1 << 16) * _SEGMENTS / (_SEGMENTS + j)) for j in range(_SEGMENTS + 1)], np.int64
)

PROBABILITY_POINT = 14
"""Probabilities are int16 codes with 14 fraction bits, so that 1.0 has a code."""


def block_count(length: int, block: int) -> int:
    """Blocks along an axis of `length` tokens; the last one may be partial."""
    return -(-length // block)


def block_sums(values: Codes, block: tuple[int, int]) -> Codes:
    """Sums over blocks: (..., M, N) -> (..., ceil(M / rows), ceil(N / columns))."""
    rows, columns = block
    m, n = values.shape[-2:]
    pad = [(0, 0)] * (values.ndim - 2) + [(0, -m % rows), (0, -n % columns)]
    padded = np.pad(values, pad)
    shape = (
        *values.shape[:-2],
        padded.shape[-2] // rows,
        rows,
        padded.shape[-1] // columns,
        columns,
    )
    return padded.reshape(shape).sum(axis=(-3, -1))


def block_importance(scores: Codes, block: tuple[int, int]) -> Codes:
    """theta: the sum of absolute integer scores over each block."""
    return block_sums(np.abs(scores), block)


def block_mask(theta: Codes, rho_b: float) -> Mask:
    """
    True where a block is kept, by the threshold of its row of blocks, in float64.

    `rho_b >= 0`: Theta = rho_b * max + (1 - rho_b) * mean; `rho_b < 0`: Theta =
    -rho_b * min + (1 + rho_b) * mean; mean = sum / count. Pruned iff theta < Theta.
    """
    mean = theta.sum(axis=-1).astype(np.float64) / theta.shape[-1]
    if rho_b >= 0:
        threshold = rho_b * theta.max(axis=-1).astype(np.float64) + (1.0 - rho_b) * mean
    else:
        threshold = -rho_b * theta.min(axis=-1).astype(np.float64) + (1.0 + rho_b) * mean
    return theta.astype(np.float64) >= threshold[..., None]


def head_gate(theta_sum: Codes, length: int, tau_h: float) -> Mask:
    """True where a head is kept: its mean absolute integer score is at least `tau_h`."""
    return theta_sum.astype(np.float64) / (length * length) >= tau_h


def expand_mask(mask: Mask, block: tuple[int, int], shape: tuple[int, int]) -> Mask:
    """A block mask as a mask of scores (..., *shape)."""
    wide = np.repeat(np.repeat(mask, block[0], axis=-2), block[1], axis=-1)
    return wide[..., : shape[0], : shape[1]]


class Points(NamedTuple):
    """Binary points of the merge: of q, of k, and of the merged scores."""

    q: int
    k: int
    score: int


def merge_scores(
    integer: Codes,
    q_fraction: Codes,
    k_fraction: Codes,
    kept: Mask,
    pruned: str,
    points: Points,
) -> Rounded:
    """
    The adder: integer scores plus both fraction products on kept blocks, int32 codes.

    `integer` has point 0, `q_fraction` (F_Q I_K) point `points.q`, `k_fraction` (I_Q F_K) point
    `points.k`; `kept` is a mask of scores. Pruned scores become 0 (`zero`), EXCLUDED (`neginf`),
    their integer score (`int`) or the mean integer score of their row's pruned scores (`mean`,
    float64, rounded half to even).
    """
    fine = max(points.q, points.k, 0)
    exact = (
        (integer << fine) + (q_fraction << (fine - points.q)) + (k_fraction << (fine - points.k))
    )
    merged = round_shift(exact, fine - points.score)
    if pruned == "zero":
        merged = np.where(kept, merged, 0)
    elif pruned == "int":
        merged = np.where(kept, merged, round_shift(integer, -points.score))
    elif pruned == "mean":
        merged = np.where(kept, merged, _pruned_mean(integer, kept, points.score))
    rounded = saturate(merged, 32)
    if pruned == "neginf":
        return Rounded(np.where(kept, rounded.codes, EXCLUDED), rounded.saturated)
    return rounded


def _pruned_mean(integer: Codes, kept: Mask, point: int) -> Codes:
    count = np.maximum((~kept).sum(axis=-1), 1)
    total = np.where(kept, 0, integer).sum(axis=-1)
    mean = total.astype(np.float64) / count
    return np.rint(np.ldexp(mean, point)).astype(np.int64)[..., None]


class SoftmaxScale(NamedTuple):
    """`scale * log2(e)` as `multiplier * 2**-shift`, the multiplier in [2**15, 2**16)."""

    multiplier: int
    shift: int

    @classmethod
    def of(cls, scale: float) -> SoftmaxScale:
        """The 16-bit constant of a positive score scale."""
        mantissa, exponent = np.frexp(scale * np.log2(np.e))
        multiplier = round(float(mantissa) * 65536)
        if multiplier == 65536:
            multiplier, exponent = 32768, exponent + 1
        return cls(multiplier, 16 - int(exponent))


def exp2_unit(distance: Codes) -> Codes:
    """
    2**-d with 16 fraction bits, of distances d >= 0 with 16 fraction bits.

    Second-order polynomial on the fraction (relative error below 0.3 %), shift by the integer part.
    """
    whole = distance >> EXP_BITS
    fraction = distance & ((1 << EXP_BITS) - 1)
    inner = EXP_C1 - ((EXP_C2 * fraction) >> EXP_BITS)
    mantissa = EXP_C0 - ((inner * fraction) >> EXP_BITS)
    return mantissa >> np.minimum(whole, 62)


def reciprocal_unit(total: Codes) -> tuple[Codes, Codes]:
    """`(r, n)` with 1 / total = r * 2**-(16 + n), r linear in the mantissa on 32 segments."""
    exponent = np.frexp(total.astype(np.float64))[1].astype(np.int64) - 1
    # The mantissa with 31 fraction bits, so that any total up to 2**31 is exact.
    mantissa = (total << (31 - exponent)) - (np.int64(1) << 31)
    low_bits = 31 - RECIPROCAL_SEGMENT_BITS
    segment = mantissa >> low_bits
    low = mantissa & ((1 << low_bits) - 1)
    start = RECIPROCAL_TABLE[segment]
    drop = start - RECIPROCAL_TABLE[segment + 1]
    return start - ((drop * low) >> low_bits), exponent


def softmax_unit(scores: Codes, point: int, scale: SoftmaxScale) -> Codes:
    """
    Row-wise softmax of int32 score codes (..., M, L) at `point`; int16 codes at point 14.

    EXCLUDED scores get probability 0; a row of nothing but EXCLUDED scores gives zeros.
    """
    excluded = scores == EXCLUDED
    peak = scores.max(axis=-1, keepdims=True)
    product = (peak - scores) * scale.multiplier
    drop = point + scale.shift - EXP_BITS
    distance = product >> drop if drop >= 0 else product << -drop
    powers = np.where(excluded, 0, exp2_unit(distance))
    total = powers.sum(axis=-1, keepdims=True)
    r, n = reciprocal_unit(np.maximum(total, 1))
    # powers * r * 2**-(16 + n) is the probability.
    return round_shift(powers * r, n + (16 - PROBABILITY_POINT))
