"""
Blocks of scores that integer parts decide on: what `paper`, `ours` and `topk` have in common.

A chain is `split -> integer scores -> importance -> mask, gate -> merged scores -> values`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from heatc.rules.definition import Attention, Head, Mask, PruningRule, Reals, Rule
from heatc.rules.reference import kept_of_row, softmax

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
        own = integer[:length]
        theta = block_theta(own, rule.importance, rule.block)
        number = length**2 if rule.importance == "abs" else length**3
        if head.tau_h > 0 and theta.sum() / number < head.tau_h:
            return _of_pruned_head(own, v, scale, rule.gated, len(q))
        kept = np.concatenate([self._kept_scores(p, head) for p in _parts(integer, length)])
        scores = q @ k.T - (q - integer_q) @ (k - integer_k).T
        scores = np.where(kept, scores, _replacement(integer, kept, rule.pruned_score))
        return softmax(scores * scale) @ v

    def _kept_scores(self, integer: Reals, head: Head) -> Mask:
        """Which of some rows' integer scores (M, L) are in a block that is kept."""
        rule = head.rule
        blocks = self.kept_blocks(block_theta(integer, rule.importance, rule.block), head)
        return np.kron(blocks, np.ones(rule.block, np.bool_))[: len(integer), : integer.shape[1]]


def score_importance(scores: Reals, importance: str) -> Reals:
    """What each of (M, L) scores adds to its block."""
    if importance == "abs":
        return np.abs(scores)
    length = scores.shape[1]
    return np.maximum(length * scores - scores.sum(axis=1)[:, None], 0.0)


def block_theta(scores: Reals, importance: str = "abs", block: tuple[int, ...] = (2, 2)) -> Reals:
    """The importance of each block of (M, L) scores, partial at odd ends."""
    rows, columns = (list(range(0, n, extent)) for n, extent in zip(scores.shape, block))
    added = score_importance(scores, importance)
    return np.add.reduceat(np.add.reduceat(added, rows, 0), columns, 1)


def over_threshold(importance: Reals, rho_b: float) -> Mask:
    """Which blocks of each row reach the row's threshold."""
    return np.array([kept_of_row(row, rho_b) for row in importance])


def _parts(rows: Reals, keys: int) -> list[Reals]:
    """The rows of the keys, and those behind them, which begin blocks of their own."""
    return [part for part in (rows[:keys], rows[keys:]) if len(part)]


def _of_pruned_head(integer: Reals, v: Reals, scale: float, gated: str, rows: int) -> Reals:
    """What a pruned head puts out for each of its rows."""
    if gated == "zero":
        return np.zeros((rows, v.shape[1]))
    if gated == "mean":
        return np.tile(v.mean(axis=0), (rows, 1))
    return np.tile(softmax(scale * integer.mean(axis=0)[None]) @ v, (rows, 1))


def _replacement(integer: Reals, kept: Mask, pruned: str) -> Reals:
    if pruned == "int":
        return integer
    if pruned == "mean":
        total = np.where(kept, 0.0, integer).sum(axis=1)
        return (total / np.maximum((~kept).sum(axis=1), 1))[:, None]
    return np.full_like(integer, 0.0 if pruned == "zero" else -np.inf)
