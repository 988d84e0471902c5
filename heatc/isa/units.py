"""
What the special units compute, bit for bit: importance, masks, head gates, merge, softmax.

The simulator and the interpreter of the `attn` dialect share these functions. Scores of one
sequence are arrays (..., L, L) of int64 codes, blocks are (..., NB, NB) with
`NB = ceil(L / block)`; leading axes are heads or cores. docs/design/numerics.md and
docs/design/rules.md state the same in words and formulas, for whoever wants to check it without
reading this code. Where an importance or a threshold is said to be of codes, real numbers do too:
the interpreter uses the same functions above the fixed level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Codes, Rounded, round_shift, saturate

Mask = NDArray[np.bool_]

EXCLUDED = -(1 << 31)
"""The score code that a softmax skips: a pruned score under `neginf`."""

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
"""What each name of a comparison means."""

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


def score_importance(scores: Codes, importance: str, visible: Mask | None = None) -> Codes:
    """
    What each integer score of whole rows (..., M, L) adds to theta.

    `abs`: its magnitude; `positive`: L times its part above the mean of its row. With `visible` the
    others add nothing, and row and L are those of the visible ones.
    """
    if visible is not None:
        scores = np.where(visible, scores, 0)
    if importance == "abs":
        return np.abs(scores)
    length: Any = scores.shape[-1]
    if visible is not None:
        length = visible.sum(axis=-1, keepdims=True)
    added = np.maximum(length * scores - scores.sum(axis=-1, keepdims=True), 0)
    return added if visible is None else np.where(visible, added, 0)


def block_importance(
    scores: Codes, block: tuple[int, int], importance: str = "abs", visible: Mask | None = None
) -> Codes:
    """theta: the importance of the integer scores of each block, summed."""
    return block_sums(score_importance(scores, importance, visible), block)


def shown(visible: Mask, keyless: str) -> Mask | None:
    """
    The scores (..., M, L) that have a part in the softmax; None where `refuse` refuses a row.

    In a row that sees no key none has one under `zero`, and all have one under `all` and `mean`.
    """
    if keyless == "zero":
        return visible
    none = ~visible.any(axis=-1, keepdims=True)
    if keyless == "refuse":
        return None if none.any() else visible
    return visible | none


def block_mask(theta: Codes, rho_b: float | NDArray[np.float64], among: Mask | None = None) -> Mask:
    """
    True where a block is kept, by the threshold of its row of blocks, in float64.

    `rho_b >= 0`: Theta = rho_b * max + (1 - rho_b) * mean; `rho_b < 0`: Theta =
    -rho_b * min + (1 + rho_b) * mean; mean = sum / count. Pruned iff theta < Theta. `rho_b` is one
    number, or an array that broadcasts against the rows (..., R). With `among` a row consists of
    the blocks where it is true, and the others are not kept.
    """
    values = theta.astype(np.float64)
    least, greatest = values, values
    total, count = theta.sum(axis=-1).astype(np.float64), np.float64(theta.shape[-1])
    if among is not None:
        least, greatest = np.where(among, values, np.inf), np.where(among, values, -np.inf)
        total = np.where(among, theta, 0).sum(axis=-1).astype(np.float64)
        count = np.maximum(among.sum(axis=-1), 1).astype(np.float64)
    rho = np.asarray(rho_b, np.float64)
    mean = total / count
    with np.errstate(invalid="ignore"):
        # Of a row without blocks nothing is kept, whatever its threshold.
        above: NDArray[np.float64] = rho * greatest.max(axis=-1) + (1.0 - rho) * mean
        below: NDArray[np.float64] = -rho * least.min(axis=-1) + (1.0 + rho) * mean
    threshold = np.where(rho >= 0, above, below)
    kept = values >= threshold[..., None]
    return kept if among is None else kept & among


def topk_mask(theta: Codes, density: float, among: Mask | None = None) -> Mask:
    """
    True for the max(1, ceil(density * n)) blocks of the greatest theta in each row of n blocks.

    Of equal ones those further left are kept. With `among` a row consists of the blocks where it is
    true.
    """
    seen = np.broadcast_to(np.True_ if among is None else among, theta.shape)
    count = np.maximum(1, np.ceil(density * seen.sum(axis=-1, keepdims=True)))
    order = np.lexsort((-theta, ~seen), axis=-1)
    place = np.argsort(order, axis=-1, kind="stable")
    return (place < count) & seen


def gate_number(length: Any, importance: str) -> Any:
    """The scores of a head of `length` keys; of `positive` importance, L times as many."""
    return length * length if importance == "abs" else length * length * length


def visible_number(seen: NDArray[np.int64], importance: str) -> NDArray[np.int64]:
    """The same of rows (..., M) that see so many keys, at least 1."""
    number = seen if importance == "abs" else seen * seen
    return np.maximum(number.sum(axis=-1), 1)


def head_gate(
    theta_sum: Codes,
    number: int | NDArray[np.int64],
    tau_h: float | NDArray[np.float64],
    point: int = 0,
) -> Mask:
    """
    True where a head is kept: the mean importance of its integer scores is at least `tau_h`.

    The mean is over a `gate_number` of scores; `theta_sum` is at `point`.
    """
    return np.ldexp(theta_sum.astype(np.float64), -point) / number >= tau_h


def bit_length(codes: Codes) -> NDArray[np.int64]:
    """The bits of the largest magnitude of each matrix (..., M, N)."""
    largest = np.abs(codes).max(axis=(-2, -1), initial=0).astype(np.float64)
    return np.frexp(largest)[1].astype(np.int64)


def low_codes(codes: Codes, length: NDArray[np.int64], bits: int) -> Codes:
    """
    Codes (..., M, N) in `bits` bits, of matrices whose magnitudes have `length` (...) bits.

    `clip(RHE(code * 2^(bits - 1 - length)))`: a greater magnitude becomes the greatest code.
    """
    scaled = np.rint(np.ldexp(codes.astype(np.float64), (bits - 1 - length)[..., None, None]))
    limit = (1 << (bits - 1)) - 1
    return np.clip(scaled, -limit, limit).astype(np.int64)


def low_bits(codes: Codes, bits: int) -> tuple[Codes, NDArray[np.int64]]:
    """The `low_codes` of matrices by their own `bit_length`, and that."""
    length = bit_length(codes)
    return low_codes(codes, length, bits), length


def probability_mask(probabilities: Codes, threshold: float) -> Mask:
    """True for probabilities (..., M, L) above the threshold and for the first greatest of a row."""
    kept = probabilities > threshold
    first = probabilities.argmax(axis=-1)[..., None]
    np.put_along_axis(kept, first, True, axis=-1)
    return kept


def probability_code(threshold: float) -> int:
    """The code that a probability must exceed: floor(threshold * 2^14)."""
    return int(np.floor(np.ldexp(threshold, PROBABILITY_POINT)))


def head_ranking(importance: NDArray[np.float64], keep: int, among: Mask) -> Mask:
    """True for the `keep` greatest of the heads (..., H) that `among` holds; first of equal ones."""
    order = np.argsort(np.where(among, -importance, np.inf), axis=-1, kind="stable")
    kept = np.zeros(importance.shape, np.bool_)
    np.put_along_axis(kept, order[..., :keep], True, axis=-1)
    return kept & among


def values_mean(values: Codes, point: int, to_point: int) -> Codes:
    """
    The mean of int16 codes (..., L, N) over L at `point`, as int16 codes (..., 1, N).

    The quotient is float64, rounded half to even: attention with equal scores.
    """
    mean = values.sum(axis=-2, keepdims=True).astype(np.float64) / values.shape[-2]
    rounded = np.rint(np.ldexp(mean, to_point - point))
    return saturate(np.clip(rounded, -(2.0**62), 2.0**62).astype(np.int64), 16).codes


def mean_query(integer: Codes, point: int, to_point: int) -> Codes:
    """
    Scores of the mean query of a head: the mean of the rows of integer scores (..., L, L).

    The quotient of a column's sum is float64, rounded half to even from `point` into int32 codes
    (..., 1, L) at `to_point`.
    """
    mean = integer.sum(axis=-2, keepdims=True).astype(np.float64) / integer.shape[-2]
    return saturate(np.rint(np.ldexp(mean, to_point - point)).astype(np.int64), 32).codes


def expand_mask(mask: Mask, block: tuple[int, int], shape: tuple[int, int]) -> Mask:
    """A block mask as a mask of scores (..., *shape)."""
    wide = np.repeat(np.repeat(mask, block[0], axis=-2), block[1], axis=-1)
    return wide[..., : shape[0], : shape[1]]


class Points(NamedTuple):
    """Binary points of the merge: of q, of k, of the merged scores, and of the integer parts."""

    q: int
    k: int
    score: int
    q_integer: int = 0
    k_integer: int = 0


def merge_scores(
    integer: Codes,
    q_fraction: Codes,
    k_fraction: Codes,
    kept: Mask,
    pruned: str,
    points: Points,
    visible: Mask | None = None,
) -> Rounded:
    """
    The adder: integer scores plus both fraction products on kept blocks, int32 codes.

    With `g = points.q_integer + points.k_integer`: `integer` has point g, `q_fraction` (F_Q I_K)
    point `points.q + points.k_integer`, `k_fraction` (I_Q F_K) `points.q_integer + points.k`;
    `kept` is a mask of scores. Pruned scores become 0 (`zero`), EXCLUDED (`neginf`), their integer
    score (`int`) or the mean integer score of their row's pruned scores (`mean`, float64, rounded
    half to even), of the `visible` ones where these are given.
    """
    point = points.q_integer + points.k_integer
    rest_q, rest_k = points.q - points.q_integer, points.k - points.k_integer
    fine = max(rest_q, rest_k, 0)
    exact = (integer << fine) + (q_fraction << (fine - rest_q)) + (k_fraction << (fine - rest_k))
    merged = round_shift(exact, fine + point - points.score)
    if pruned == "zero":
        merged = np.where(kept, merged, 0)
    elif pruned == "int":
        merged = np.where(kept, merged, round_shift(integer, point - points.score))
    elif pruned == "mean":
        rest = ~kept if visible is None else ~kept & visible
        merged = np.where(kept, merged, _pruned_mean(integer, rest, points.score - point))
    rounded = saturate(merged, 32)
    if pruned == "neginf":
        return Rounded(np.where(kept, rounded.codes, EXCLUDED), rounded.saturated)
    return rounded


def _pruned_mean(integer: Codes, rest: Mask, point: int) -> Codes:
    count = np.maximum(rest.sum(axis=-1), 1)
    total = np.where(rest, integer, 0).sum(axis=-1)
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
