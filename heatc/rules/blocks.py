"""
Blocks of scores that integer parts decide on: what `paper`, `ours` and `topk` have in common.

A chain is `split -> integer scores -> importance -> mask, gate -> merged scores -> values`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from heatc.rules.definition import Attention, Head, Mask, PruningRule, Reals, Rule
from heatc.rules.reference import kept_of_row, masked, softmax

if TYPE_CHECKING:
    from xdsl.ir import SSAValue


class BlockRule(PruningRule):
    """A rule that keeps blocks of scores; `mask` and `kept_blocks` say which."""

    @abstractmethod
    def mask(self, attention: Attention, importance: SSAValue, rule: Rule) -> SSAValue:
        """The step that decides on blocks."""

    @abstractmethod
    def kept_blocks(self, importance: Reals, head: Head) -> Mask:
        """The same on the importance of (rows of blocks, columns of blocks)."""

    def insert(self, attention: Attention, rule: Rule) -> None:
        """Integer scores decide; fraction parts are added where they keep a block."""
        parts = attention.split(rule.finer)
        integer = attention.integer_scores(parts)
        importance = attention.block_importance(integer, rule.block, rule.importance)
        mask = self.mask(attention, importance, rule)
        gate = None
        if max(rule.tau_h) > 0:
            gate = attention.head_gate(importance, rule.tau_h, rule.block, rule.importance)
        merged = attention.merged(integer, parts, mask, rule.block, rule.pruned_score)
        if gate is not None and rule.gated == "col":
            merged = attention.mean_query(merged, integer, gate)
            gate = None
        attention.finish(merged, gate, rule.gated)

    def attend(self, q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
        """In one piece, from docs/design/rules.md."""
        rule, length = head.rule, len(k)
        unit = 2.0**-rule.finer
        integer_q, integer_k = np.trunc(q / unit) * unit, np.trunc(k / unit) * unit
        integer = integer_q @ integer_k.T
        own, seen = integer[:length], head.shown(*integer.shape)
        theta = block_theta(own, rule.importance, rule.block, seen[:length])
        counts = seen[:length].sum(axis=1)
        number = max(1, (counts if rule.importance == "abs" else counts**2).sum())
        if head.tau_h > 0 and theta.sum() / number < head.tau_h:
            return _of_pruned_head(own, v, scale, rule.gated, len(q))
        parts = [(integer[rows], seen[rows]) for rows in _parts(len(q), length)]
        kept = np.concatenate([self._kept_scores(*part, head) for part in parts])
        scores = q @ k.T - (q - integer_q) @ (k - integer_k).T
        rest = ~kept & seen
        scores = np.where(kept, scores, _replacement(integer, rest, rule.pruned_score))
        return softmax(masked(scores * scale, head)) @ v

    def _kept_scores(self, integer: Reals, seen: Mask, head: Head) -> Mask:
        """Which of some rows' integer scores (M, L) are in a block that is kept."""
        rule = head.rule
        theta = block_theta(integer, rule.importance, rule.block, seen)
        some = block_theta(seen.astype(np.float64), "abs", rule.block) > 0
        blocks = np.zeros(theta.shape, np.bool_)
        for row, values, among in zip(blocks, theta, some):
            if among.any():
                row[among] = self.kept_blocks(values[among][None], head)[0]
        return np.kron(blocks, np.ones(rule.block, np.bool_))[: len(integer), : integer.shape[1]]


def score_importance(scores: Reals, importance: str, seen: Mask | None = None) -> Reals:
    """What each of (M, L) scores adds to its block; those that are not seen add nothing."""
    seen = np.ones(scores.shape, np.bool_) if seen is None else seen
    if importance == "abs":
        return np.abs(scores) * seen
    count, total = seen.sum(axis=1)[:, None], (scores * seen).sum(axis=1)[:, None]
    return np.maximum(count * scores - total, 0.0) * seen


def block_theta(
    scores: Reals,
    importance: str = "abs",
    block: tuple[int, ...] = (2, 2),
    seen: Mask | None = None,
) -> Reals:
    """The importance of each block of (M, L) scores, partial at odd ends."""
    rows, columns = (list(range(0, n, extent)) for n, extent in zip(scores.shape, block))
    added = score_importance(scores, importance, seen)
    return np.add.reduceat(np.add.reduceat(added, rows, 0), columns, 1)


def over_threshold(importance: Reals, rho_b: float) -> Mask:
    """Which blocks of each row reach the row's threshold."""
    return np.array([kept_of_row(row, rho_b) for row in importance])


def _parts(rows: int, keys: int) -> list[slice]:
    """The rows of the keys, and those behind them, which begin blocks of their own."""
    return [slice(0, keys), slice(keys, rows)][: 1 + (rows > keys)]


def _of_pruned_head(integer: Reals, v: Reals, scale: float, gated: str, rows: int) -> Reals:
    """What a pruned head puts out for each of its rows."""
    if gated == "zero":
        return np.zeros((rows, v.shape[1]))
    if gated == "mean":
        return np.tile(v.mean(axis=0), (rows, 1))
    return np.tile(softmax(scale * integer.mean(axis=0)[None]) @ v, (rows, 1))


def _replacement(integer: Reals, rest: Mask, pruned: str) -> Reals:
    if pruned == "int":
        return integer
    if pruned == "mean":
        total = np.where(rest, integer, 0.0).sum(axis=1)
        return (total / np.maximum(rest.sum(axis=1), 1))[:, None]
    return np.full_like(integer, 0.0 if pruned == "zero" else -np.inf)
