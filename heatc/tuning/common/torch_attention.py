"""
Attention under the rules `ours` and `paper` in PyTorch, for a student that is trained under pruning.

docs/design/rules.md says what is decided. Decisions are taken in float64 and have no gradient. What
is computed with them has one: rounding toward zero passes gradients on as if it rounded nothing, so
that a kept score has the gradient of q k^T, a pruned one that of the number that stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from heatc.rules import Rule

CHUNK = 1 << 20
"""Scores that are decided on at once: float64 ones of a whole batch of long text are too many."""


@dataclass(frozen=True)
class Decisions:
    """
    What a rule decided of B sequences.

    Attributes:
        blocks: (B, heads, NR, NC) bool, true where a block is kept; false outside a sequence.
        heads: (B, heads) bool, true where a head is kept.
        counts: (B,) blocks of one head of each sequence.
    """

    blocks: Tensor
    heads: Tensor
    counts: Tensor

    def kept(self) -> Tensor:
        """The number of kept blocks in kept heads, of all sequences together."""
        return (self.blocks.sum(dim=(-2, -1)) * self.heads).sum()

    def total(self) -> Tensor:
        """The number of blocks of all heads and sequences."""
        return self.counts.sum() * self.heads.shape[1]


class Parts(NamedTuple):
    """q and k (B, heads, L, dim), and their integer parts, through which gradients pass."""

    q: Tensor
    k: Tensor
    integer_q: Tensor
    integer_k: Tensor


def split(q: Tensor, k: Tensor, finer: int) -> Parts:
    """Integer parts toward zero at 2^-finer; F of a value is what is left of it."""
    return Parts(q, k, _truncated(q, finer), _truncated(k, finer))


def _truncated(x: Tensor, finer: int) -> Tensor:
    # x - x is 0 exactly, so the value is the truncated one and the gradient that of x.
    return torch.trunc(x.detach() * 2.0**finer) * 2.0**-finer + (x - x.detach())


def decide(parts: Parts, lengths: Tensor, rule: Rule) -> Decisions:
    """Which blocks and heads are kept; the sequences have `lengths` (B,) real tokens."""
    count, heads, longest, _ = parts.q.shape
    size = max(1, CHUNK // (heads * longest**2))
    found: list[Decisions] = []
    with torch.no_grad():
        for start in range(0, count, size):
            own = slice(start, start + size)
            q, k = parts.integer_q[own].double(), parts.integer_k[own].double()
            found.append(_decide(q @ k.transpose(-1, -2), lengths[own], rule))
    return Decisions(
        torch.cat([d.blocks for d in found]),
        torch.cat([d.heads for d in found]),
        torch.cat([d.counts for d in found]),
    )


def _decide(integer: Tensor, lengths: Tensor, rule: Rule) -> Decisions:
    """The same of integer scores (B, heads, L, L), float64."""
    length = lengths.clamp(min=1)[:, None, None, None]
    added = _importance(integer, length, _pairs(lengths, integer.shape[-1]), rule.importance)
    theta = _block_sums(added, rule.block)
    rows, columns = (-(-lengths // extent) for extent in rule.block)
    is_row, is_column = (_within(n, m) for n, m in zip((rows, columns), theta.shape[-2:]))
    real = (is_row[:, :, None] & is_column[:, None, :])[:, None]
    blocks = _reaching(theta, real, columns, rule) & real
    return Decisions(blocks, _gate(theta, length[:, :, 0, 0], rule), rows * columns)


def _within(lengths: Tensor, size: int) -> Tensor:
    """(B, size): true at the places below each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _pairs(lengths: Tensor, size: int) -> Tensor:
    """(B, 1, size, size): true where query and key are real."""
    real = _within(lengths, size)
    return (real[:, :, None] & real[:, None, :])[:, None]


def _importance(integer: Tensor, length: Tensor, pairs: Tensor, kind: str) -> Tensor:
    """What each integer score adds to its block; nothing outside a sequence."""
    if kind == "abs":
        added = integer.abs()
    else:
        # Scores of places that are not real are 0 and add nothing to a row's sum.
        added = (length * integer - integer.sum(dim=-1, keepdim=True)).clamp(min=0)
    return added.masked_fill(~pairs, 0.0)


def _block_sums(values: Tensor, block: tuple[int, ...]) -> Tensor:
    """(..., L, L) -> (..., NR, NC), partial blocks at the ends."""
    rows, columns = block
    size = values.shape[-1]
    wide = functional.pad(values, (0, -size % columns, 0, -size % rows))
    shape = (*wide.shape[:-2], wide.shape[-2] // rows, rows, wide.shape[-1] // columns, columns)
    return wide.reshape(shape).sum(dim=(-3, -1))


def _reaching(theta: Tensor, real: Tensor, columns: Tensor, rule: Rule) -> Tensor:
    """Which blocks reach the threshold of their row of blocks."""
    rho = _per_head(rule.rho_b, theta)[:, None]
    mean = theta.sum(dim=-1) / columns.clamp(min=1)[:, None, None]
    least = theta.masked_fill(~real, torch.inf).amin(dim=-1)
    edge = torch.where(rho >= 0, theta.amax(dim=-1), -least)
    return theta >= (rho * edge + (1.0 - rho.abs()) * mean)[..., None]


def _gate(theta: Tensor, length: Tensor, rule: Rule) -> Tensor:
    """Which heads are kept, by the mean importance of a score."""
    tau = _per_head(rule.tau_h, theta)
    number = length**2 if rule.importance == "abs" else length**3
    return (tau <= 0) | (theta.sum(dim=(-2, -1)) / number >= tau)


def _per_head(values: tuple[float, ...], like: Tensor) -> Tensor:
    """(heads,) or (1,) float64."""
    return torch.tensor(values, dtype=torch.float64, device=like.device)


def attend(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float, rule: Rule
) -> tuple[Tensor, Decisions]:
    """
    Attention of sequences side by side, and what the rule decided.

    `q`, `k`, `v` are (B, heads, L, dim), 0 behind the `lengths` (B,) real tokens; so is the result,
    but for rows that are not real.
    """
    parts = split(q, k, rule.finer)
    decisions = decide(parts, lengths, rule)
    seen = _within(lengths, q.shape[2])[:, None, None]
    kept = _expanded(decisions.blocks, rule.block, q.shape[2])
    scores = _kept_scores(parts)
    if rule.pruned_score == "neginf":
        seen = seen & kept
    else:
        scores = torch.where(kept, scores, _replacement(parts, kept, seen, rule.pruned_score))
    out = _softmax(scores * scale, seen) @ v
    if max(rule.tau_h) > 0:
        gone = _pruned_head(parts, v, lengths, scale, rule.gated)
        out = torch.where(decisions.heads[..., None, None], out, gone)
    return out, decisions


def _expanded(blocks: Tensor, block: tuple[int, ...], size: int) -> Tensor:
    """A mask of blocks as one of scores (B, heads, size, size)."""
    wide = blocks.repeat_interleave(block[0], dim=-2).repeat_interleave(block[1], dim=-1)
    return wide[..., :size, :size]


def _kept_scores(parts: Parts) -> Tensor:
    """I_Q I_K + F_Q I_K + I_Q F_K; the product that is left out is a constant to gradients."""
    with torch.no_grad():
        fraction_q, fraction_k = parts.q - parts.integer_q, parts.k - parts.integer_k
        left_out = fraction_q @ fraction_k.transpose(-1, -2)
    return parts.q @ parts.k.transpose(-1, -2) - left_out


def _replacement(parts: Parts, kept: Tensor, seen: Tensor, pruned: str) -> Tensor:
    """What stands for a pruned score."""
    if pruned == "int":
        return parts.integer_q @ parts.integer_k.transpose(-1, -2)
    if pruned == "zero":
        return parts.q.new_zeros(())
    # The mean of I_q I_k over a row's pruned keys is I_q times the mean of their I_k.
    mask = (seen & ~kept).to(parts.q.dtype)
    keys = mask @ parts.integer_k / mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return (parts.integer_q * keys).sum(dim=-1, keepdim=True)


def _softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Over the allowed keys; a row without any gives 0, and gradients stay finite."""
    some = allowed.any(dim=-1, keepdim=True)
    weights = scores.masked_fill(some & ~allowed, -torch.inf).softmax(dim=-1)
    return weights.masked_fill(~allowed, 0.0)


def _pruned_head(parts: Parts, v: Tensor, lengths: Tensor, scale: float, gated: str) -> Tensor:
    """What a pruned head gives for each of its tokens, (B, heads, 1, dim)."""
    if gated == "zero":
        return torch.zeros_like(v[:, :, :1])
    count = lengths.clamp(min=1)[:, None, None, None]
    if gated == "mean":
        return v.sum(dim=2, keepdim=True) / count
    query = parts.integer_q.sum(dim=2, keepdim=True) / count
    scores = query @ parts.integer_k.transpose(-1, -2)
    return _softmax(scores * scale, _within(lengths, v.shape[2])[:, None, None]) @ v
