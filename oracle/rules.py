"""
Every pruning rule on one attention, in plain PyTorch, bit for bit.

Written from `docs/design/rules.md` and `docs/design/numerics.md` alone and importing nothing of
heatc, like `oracle/bert.py`, whose arithmetic it uses. Sentences of one length are worked on
together; there is no padding. B sentences, H heads, L tokens, width e of a head; codes are int64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

from oracle.bert import (
    PROBABILITY_POINT,
    AttentionPoints,
    product,
    quantize,
    requantize,
    softmax,
)

Name = Literal["none", "paper", "ours", "topk", "energon", "sanger", "spatten"]
PerHead = float | tuple[float, ...]


@dataclass(frozen=True)
class Rule:
    """
    A rule and its options, by the names of `docs/design/rules.md`.

    `rho_b` and `tau_h` are one number or one a head. `approximate` is not in that page: False
    adds F_Q F_K to the kept scores, which shows what dropping it costs.
    """

    name: Name = "none"
    finer: int = 0
    importance: Literal["abs", "positive"] = "abs"
    pruned_score: Literal["zero", "neginf", "int", "mean"] = "neginf"
    gated: Literal["zero", "mean", "col"] = "zero"
    rho_b: PerHead = 0.0
    tau_h: PerHead = 0.0
    density: float = 1.0
    alpha: tuple[float, float] = (0.0, 0.0)
    threshold: float = 0.0
    ratio: float = 0.0
    block: tuple[int, int] = (2, 2)
    approximate: bool = True


def paper(
    rho_b: PerHead = 0.0,
    tau_h: PerHead = 0.0,
    pruned_score: Literal["zero", "neginf", "int", "mean"] = "zero",
) -> Rule:
    """Rule `paper` with its defaults."""
    return Rule("paper", rho_b=rho_b, tau_h=tau_h, pruned_score=pruned_score)


def ours(rho_b: PerHead = 0.0, tau_h: PerHead = 0.0) -> Rule:
    """Rule `ours` with its defaults."""
    return Rule("ours", 2, "positive", "mean", "col", rho_b, tau_h)


@dataclass(frozen=True)
class Masks:
    """
    Masks of the model's own, by token: what broadcasts to (B, H, L, L).

    `visible` is bool, `bias` int64 codes at `point`. `keyless` is what a row gives that sees no key. Where
    different numbers hide, `least` is bool: the scores that have a part in the softmax in the end.
    """

    visible: Tensor | None = None
    bias: Tensor | None = None
    point: int = 0
    keyless: Literal["zero", "all", "mean"] = "zero"
    least: Tensor | None = None

    def seen(self, whole: Tensor) -> Tensor:
        """V, bool like (B, H, L, L)."""
        everything = torch.ones_like(whole, dtype=torch.bool)
        return everything if self.visible is None else everything & self.visible

    def applied(
        self, scores: Tensor, point: int, included: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores (B, H, L, L) with the bias, and which have a part in the softmax."""
        if self.bias is not None:
            moved = requantize(self.bias.to(torch.float64), self.point, point, bits=64)
            scores = (scores + moved).clamp(-(2**31), 2**31 - 1)
        if self.visible is None:
            return scores, included
        seen = self.seen(scores)
        blind = ~seen.any(-1, keepdim=True)
        own = torch.ones_like(seen) if included is None else included.expand(seen.shape)
        if self.keyless == "zero":
            return scores, own & seen
        if self.keyless == "mean":
            left = own & (seen | blind)
            left = left if self.least is None else left & self.least
            return scores.masked_fill(blind, 0), left
        return scores, own & (seen | blind)


NO_MASKS = Masks()


@dataclass
class Attention:
    """What one attention computed for B sentences of L tokens."""

    output: Tensor
    """int64 codes (B, H, L, e)"""
    blocks: Tensor | None = None
    """Kept blocks, bool (B, H, NR, NC); None where no block is pruned"""
    heads: Tensor | None = None
    """Kept heads, bool (B, H); None without a gate"""
    theta: Tensor | None = None
    """Block importances, int64 (B, H, NR, NC), where the rule has them"""


@dataclass
class Ranking:
    """SpAtten's state from layer to layer: sums of importance (B, H) and heads at work (B, H)."""

    layers: int
    totals: Tensor | None = None
    kept: Tensor | None = None
    seen: int = field(default=0)


def attention(
    q: Tensor, k: Tensor, v: Tensor, points: AttentionPoints, rule: Rule,
    ranking: Ranking | None = None, masks: Masks = NO_MASKS, scale: float | None = None,
) -> Attention:  # fmt: skip
    """
    One attention of B sentences of one length.

    Args:
        q: int64 codes (B, H, L, e); `k` and `v` likewise.
        points: binary points of the operands and results.
        rule: what to prune.
        ranking: for `spatten`, the state that goes from layer to layer; changed in place.
        masks: of the model's own, which `energon` and `sanger` do not take.
        scale: of the scores, 1 / sqrt(e) if None.
    """
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    if rule.name in ("none", "spatten"):
        scores, included = masks.applied(dense_scores(q, k, points), points.scores, None)
        found = Attention(_values(scores, v, points, scale, included))
    elif rule.name in ("energon", "sanger"):
        kept = energon(q, k, rule) if rule.name == "energon" else sanger(q, k, points, rule, scale)
        scores = dense_scores(q, k, points)
        found = Attention(_values(scores, v, points, scale, kept), kept)
    else:
        found = _block_pruned(q, k, v, points, rule, scale, masks)
    if rule.name == "spatten":
        assert ranking is not None
        found.heads = cascade(found.output, points.output, rule.ratio, ranking)
        found.output = found.output * found.heads[..., None, None]
        ranking.totals = _added(ranking.totals, found.output, points.output)
    return found


# ---- integer scores, importance, thresholds -----------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """Integer and fraction codes of q and k and the scores of the integers (B, H, L, L)."""

    integer_q: Tensor
    integer_k: Tensor
    fraction_q: Tensor
    fraction_k: Tensor
    whole: Tensor
    """A = I_Q I_K^T"""
    bits_q: int
    """bq, the point of I_Q"""
    bits_k: int

    @property
    def point(self) -> int:
        """g, the point of A."""
        return self.bits_q + self.bits_k


def split(code: Tensor, point: int, finer: int) -> tuple[Tensor, Tensor, int]:
    """I (point b = min(finer, point)), F (point `point`, the value's sign) and b."""
    bits = min(finer, point)
    shift = point - bits
    integer = torch.div(code, 2**shift, rounding_mode="trunc")
    return integer, code - (integer << shift), bits


def parts(q: Tensor, k: Tensor, points: AttentionPoints, finer: int) -> Parts:
    """Both operands split, and the integer scores."""
    integer_q, fraction_q, bits_q = split(q, points.query, finer)
    integer_k, fraction_k, bits_k = split(k, points.key, finer)
    whole = product(integer_q, integer_k.transpose(-1, -2)).to(torch.int64)
    return Parts(integer_q, integer_k, fraction_q, fraction_k, whole, bits_q, bits_k)


def importance(whole: Tensor, kind: str, seen: Tensor | None = None) -> Tensor:
    """What every score adds to its block, int64 like A (B, H, L, L); `seen` is V."""
    seen = torch.ones_like(whole, dtype=torch.bool) if seen is None else seen
    if kind == "abs":
        return whole.abs() * seen
    number, total = seen.sum(-1, keepdim=True), (whole * seen).sum(-1, keepdim=True)
    return (whole * number - total).clamp(min=0) * seen


def block_sums(values: Tensor, block: tuple[int, int]) -> Tensor:
    """Sums over blocks from token 0: (..., L, L) to (..., NR, NC)."""
    rows, columns = block
    size = values.shape[-1]
    padded = functional.pad(values, (0, -size % columns, 0, -size % rows))
    shape = (padded.shape[-2] // rows, rows, padded.shape[-1] // columns, columns)
    return padded.reshape(*values.shape[:-2], *shape).sum((-3, -1))


def mean_filter(values: Tensor, ratio: Tensor, looked_at: Tensor | None = None) -> Tensor:
    """
    `values >= Theta` along the last axis, Theta from min or max and mean of what is looked at.

    Args:
        values: integers (..., N).
        ratio: rho_B, float64, broadcast to (..., 1).
        looked_at: bool like `values`; False neither counts nor survives.
    """
    seen = torch.ones_like(values, dtype=torch.bool) if looked_at is None else looked_at
    exact = values.to(torch.float64)
    number = seen.sum(-1, keepdim=True).clamp(min=1)
    mean = exact.masked_fill(~seen, 0).sum(-1, keepdim=True) / number
    high = exact.masked_fill(~seen, -math.inf).amax(-1, keepdim=True)
    low = exact.masked_fill(~seen, math.inf).amin(-1, keepdim=True)
    above = ratio * high + (1 - ratio) * mean
    below = -ratio * low + (1 + ratio) * mean
    return (exact >= torch.where(ratio >= 0, above, below)) & seen


def topk(theta: Tensor, density: float, looked_at: Tensor | None = None) -> Tensor:
    """The greatest blocks of each row of blocks, of equal ones those further left."""
    seen = torch.ones_like(theta, dtype=torch.bool) if looked_at is None else looked_at
    number = torch.ceil(density * seen.sum(-1, keepdim=True)).clamp(min=1)
    order = theta.masked_fill(~seen, -1).sort(dim=-1, descending=True, stable=True).indices
    place = torch.zeros_like(order).scatter(
        -1, order, torch.arange(order.shape[-1]).expand(order.shape)
    )
    return (place < number) & seen


def per_head(value: PerHead) -> Tensor:
    """One number or one a head, as float64 (H or 1, 1, 1)."""
    values = value if isinstance(value, tuple) else (value,)
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def head_gate(theta: Tensor, seen: Tensor, point: int, rule: Rule) -> Tensor:
    """Kept heads, bool (B, H): sum(theta) 2^-g / N >= tau_H, always where tau_H <= 0."""
    each = seen.sum(-1)
    number = (each if rule.importance == "abs" else each**2).sum(-1).clamp(min=1)
    mean = theta.sum((-1, -2)).to(torch.float64) * 2.0**-point / number
    tau = per_head(rule.tau_h)[:, 0, 0]
    return (mean >= tau) | (tau <= 0)


# ---- the rules with blocks ----------------------------------------------------------------------


def _block_pruned(
    q: Tensor, k: Tensor, v: Tensor, points: AttentionPoints, rule: Rule, scale: float, masks: Masks
) -> Attention:
    """Rules `paper`, `ours` and `topk`."""
    length = q.shape[-2]
    split_parts = parts(q, k, points, rule.finer)
    seen = masks.seen(split_parts.whole)
    theta = block_sums(importance(split_parts.whole, rule.importance, seen), rule.block)
    counted = block_sums(seen.to(torch.int64), rule.block) > 0
    if rule.name == "topk":
        blocks, heads = topk(theta, rule.density, counted), None
    else:
        blocks = mean_filter(theta, per_head(rule.rho_b), counted)
        heads = head_gate(theta, seen, split_parts.point, rule)
    kept = elements(blocks, rule.block, length)
    scores = torch.where(
        kept, kept_scores(split_parts, points, rule.approximate),
        pruned_scores(split_parts, kept | ~seen, rule, points.scores),
    )  # fmt: skip
    included = kept if rule.pruned_score == "neginf" else None
    scores, included = masks.applied(scores, points.scores, included)
    output = _values(scores, v, points, scale, included)
    if heads is not None and not bool(heads.all()):
        instead = gated_output(split_parts, v, points, rule.gated, scale)
        output = torch.where(heads[..., None, None], output, instead)
    return Attention(output, blocks, heads, theta)


def elements(blocks: Tensor, block: tuple[int, int], length: int) -> Tensor:
    """Block masks (..., NR, NC) as masks of scores (..., L, L)."""
    rows = blocks.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)
    return rows[..., :length, :length]


def kept_scores(found: Parts, points: AttentionPoints, approximate: bool = True) -> Tensor:
    """I I + F I + I F, and F F too where nothing is approximated: int64 codes (B, H, L, L)."""
    rest_q, rest_k = points.query - found.bits_q, points.key - found.bits_k
    first = product(found.fraction_q, found.integer_k.transpose(-1, -2)).to(torch.int64)
    second = product(found.integer_q, found.fraction_k.transpose(-1, -2)).to(torch.int64)
    shift = max(rest_q, rest_k) if approximate else rest_q + rest_k
    exact = (found.whole << shift) + (first << (shift - rest_q)) + (second << (shift - rest_k))
    if not approximate:
        exact += product(found.fraction_q, found.fraction_k.transpose(-1, -2)).to(torch.int64)
    return requantize(exact.to(torch.float64), shift + found.point, points.scores, bits=32)


def pruned_scores(found: Parts, kept: Tensor, rule: Rule, point: int) -> Tensor:
    """
    What pruned entries contribute, int64 codes at `point`, broadcast to (B, H, L, L).

    All but those of `kept` are pruned, and visible.
    """
    whole = found.whole
    if rule.pruned_score == "int":
        return requantize(whole.to(torch.float64), found.point, point, bits=32)
    if rule.pruned_score == "mean":
        total = whole.masked_fill(kept, 0).sum(-1, keepdim=True).to(torch.float64)
        number = (~kept).sum(-1, keepdim=True).clamp(min=1)
        return quantize(total / number, point - found.point, bits=32)
    return torch.zeros((), dtype=torch.int64)


def gated_output(
    found: Parts, v: Tensor, points: AttentionPoints, gated: str, scale: float
) -> Tensor:
    """What a pruned head puts out for each of its tokens, int64 codes, broadcast to v's shape."""
    if gated == "zero":
        return torch.zeros((), dtype=torch.int64)
    length = v.shape[-2]
    if gated == "mean":
        mean = v.sum(-2, keepdim=True).to(torch.float64) / length
        return quantize(mean, points.output - points.value)
    columns = found.whole.sum(-2, keepdim=True).to(torch.float64) / length
    scores = quantize(columns, points.scores - found.point, bits=32)
    return _values(scores, v, points, scale)


# ---- the rules with low-bit predictors ----------------------------------------------------------


def low_bits(code: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """`low_w(code)` and n, the bit length of the greatest |code|: (B, H, L, e) and (B, H, 1, 1)."""
    length = torch.frexp(code.abs().amax((-1, -2), keepdim=True).to(torch.float64)).exponent
    most = 2 ** (bits - 1) - 1
    scaled = torch.ldexp(code.to(torch.float64), bits - 1 - length)
    return torch.round(scaled).clamp(-most, most).to(torch.int64), length


def energon(q: Tensor, k: Tensor, rule: Rule) -> Tensor:
    """Energon's mean filtering in two rounds: kept scores, bool (B, H, L, L)."""
    kept: Tensor | None = None
    for bits, alpha in zip((2, 4), rule.alpha, strict=True):
        scores = product(low_bits(q, bits)[0], low_bits(k, bits)[0].transpose(-1, -2))
        kept = mean_filter(scores, per_head(alpha), kept)
    assert kept is not None
    return kept


def sanger(q: Tensor, k: Tensor, points: AttentionPoints, rule: Rule, scale: float) -> Tensor:
    """Sanger's predictor with 4 bits: kept scores, bool (B, H, L, L)."""
    low_q, length_q = low_bits(q, 4)
    low_k, length_k = low_bits(k, 4)
    own_point = points.query - (length_q - 3) + points.key - (length_k - 3)
    scaled = torch.ldexp(product(low_q, low_k.transpose(-1, -2)), points.scores - own_point)
    predicted = softmax(quantize(scaled, 0, bits=32), points.scores, scale)
    greatest = predicted == predicted.amax(-1, keepdim=True)
    first = greatest & (greatest.cumsum(-1) == 1)
    return (predicted > math.floor(rule.threshold * 2**PROBABILITY_POINT)) | first


# ---- SpAtten ------------------------------------------------------------------------------------


def cascade(output: Tensor, point: int, ratio: float, ranking: Ranking) -> Tensor:
    """
    The heads that SpAtten's rule keeps in the next layer of `ranking`: bool (B, H).

    Args:
        output: codes (B, H, L, e) of the layer, for their shape.
        point: their binary point.
        ratio: share of heads pruned, in the mean over layers.
        ranking: the state; `kept` and `seen` move on by one layer.
    """
    batch, heads = output.shape[:2]
    layer, last = ranking.seen, max(1, ranking.layers - 1)
    ranking.seen += 1
    if ranking.totals is None or ranking.kept is None:
        ranking.kept = torch.ones(batch, heads, dtype=torch.bool)
        return ranking.kept
    share = min(2 * ratio * layer / last, (heads - 1) / heads)
    number = heads - math.floor(heads * share)
    order = ranking.totals.masked_fill(~ranking.kept, -1.0)
    best = order.sort(dim=-1, descending=True, stable=True).indices[:, :number]
    chosen = torch.zeros_like(ranking.kept).scatter(-1, best, True)
    ranking.kept = chosen & ranking.kept
    return ranking.kept


def _added(totals: Tensor | None, output: Tensor, point: int) -> Tensor:
    """The sums of importance so far, this layer's included: float64 (B, H)."""
    here = output.abs().sum((-1, -2)).to(torch.float64) * 2.0**-point
    return here if totals is None else totals + here


# ---- scores and values --------------------------------------------------------------------------


def dense_scores(q: Tensor, k: Tensor, points: AttentionPoints) -> Tensor:
    """`S = sat32(RHE(sum q k * 2^-(pq + pk - ps)))`: int64 codes (B, H, L, L)."""
    exact = product(q, k.transpose(-1, -2))
    return requantize(exact, points.query + points.key, points.scores, bits=32)


def _values(
    scores: Tensor, v: Tensor, points: AttentionPoints, scale: float,
    included: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Softmax unit and P V: scores (B, H, M, L) and values (B, H, L, e) to codes (B, H, M, e)."""
    probabilities = softmax(scores, points.scores, scale, included)
    accumulator = product(probabilities, v)
    return requantize(accumulator, PROBABILITY_POINT + points.value, points.output)


def shares(found: Attention, length: int) -> tuple[int, int, int, int, int]:
    """
    What an attention of B sentences of L tokens kept, to be added up over attentions.

    Returns:
        blocks in all; blocks kept, head gates left aside; blocks kept in kept heads; heads in
        all; heads kept. Without a block mask a head counts as blocks of (2, 2) that are all kept.
    """
    batch, heads = found.output.shape[:2]
    side = math.ceil(length / 2)
    size = side * side if found.blocks is None else found.blocks[0, 0].numel()
    kept = torch.full((batch, heads), size)
    if found.blocks is not None:
        kept = found.blocks.sum((-1, -2))
    gate = torch.ones(batch, heads, dtype=torch.bool) if found.heads is None else found.heads
    number = batch * heads
    net = int((kept * gate).sum())
    return number * size, int(kept.sum()), net, number, int(gate.sum())
