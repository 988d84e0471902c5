"""
What every setting of every head does to what the next layer sees, and what it leaves of the work.

Measured in one dense run: each head alone is pruned under every candidate, and the change of its
output is weighed by the linear that reads it. Errors are sums over tokens of squared differences
at that linear's output, relative to the size of the dense output there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatc.tuning.attention import (
    Chunk,
    Mask,
    Reals,
    Split,
    chunks,
    dense,
    expand,
    gated_output,
    head_scores,
    importance,
    kept_blocks,
    split,
)
from heatc.tuning.forward import Attention, Paused

FINER = (1, 2, 3)
IMPORTANCES = ("abs", "positive")
PRUNED_SCORES = ("mean", "zero", "neginf")
"""Contributions that spare the fetch of V; the integer score (`int`) spares none of it."""

GATED = ("col", "mean", "zero")
RHO_B = (-0.5, -0.2, 0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


@dataclass(frozen=True)
class Measured:
    """
    One attention over N sequences and H heads.

    Attributes:
        error: (finer, importance, pruned, rho, N, H) float32, of pruned blocks.
        kept: (finer, importance, rho, N, H) int32, kept blocks.
        score: (finer, importance, N, H) float32, what tau_H is compared with.
        gated: (finer, gated, N, H) float32, error of a pruned head.
        size: (N,) float32, squared size of the dense output, the sum over heads.
    """

    error: NDArray[np.float32]
    kept: NDArray[np.int32]
    score: NDArray[np.float32]
    gated: NDArray[np.float32]
    size: NDArray[np.float32]

    @classmethod
    def empty(cls, samples: int, heads: int) -> Measured:
        """Zeros for the sequences of a batch."""
        f, i, p, r = len(FINER), len(IMPORTANCES), len(PRUNED_SCORES), len(RHO_B)
        return cls(
            np.zeros((f, i, p, r, samples, heads), np.float32),
            np.zeros((f, i, r, samples, heads), np.int32),
            np.zeros((f, i, samples, heads), np.float32),
            np.zeros((f, len(GATED), samples, heads), np.float32),
            np.zeros(samples, np.float32),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """By name, as they are stored."""
        return dict(vars(self))

    def part(self, chosen: Mask) -> Measured:
        """The chosen sequences (N,)."""
        return Measured(
            self.error[..., chosen, :],
            self.kept[..., chosen, :],
            self.score[..., chosen, :],
            self.gated[..., chosen, :],
            self.size[chosen],
        )

    @classmethod
    def joined(cls, parts: list[Measured]) -> Measured:
        """The measurements of several batches."""
        return cls(
            np.concatenate([p.error for p in parts], axis=4),
            np.concatenate([p.kept for p in parts], axis=3),
            np.concatenate([p.score for p in parts], axis=2),
            np.concatenate([p.gated for p in parts], axis=2),
            np.concatenate([p.size for p in parts]),
        )


def measure(paused: Paused, chosen: NDArray[np.bool_]) -> tuple[Measured, Reals]:
    """
    Measure the chosen sequences (B,) of a batch at an attention.

    Returns the measurements (zeros elsewhere) and the attention's dense output.
    """
    attention = paused.attention
    result = Measured.empty(len(chosen), attention.heads)
    out = np.zeros_like(paused.v)
    for chunk in chunks(paused):
        exact = dense(chunk, attention.scale)
        out[chunk.rows] = exact.transpose(0, 2, 1, 3).reshape(*chunk.rows.shape, -1)
        wanted = chosen[chunk.sequences]
        if wanted.any():
            _measure_chunk(chunk.part(wanted), exact[wanted], attention, result)
    return result, out


def _measure_chunk(chunk: Chunk, exact: Reals, attention: Attention, result: Measured) -> None:
    rows = chunk.sequences
    weigh = _Weight(attention, exact)
    result.size[rows] = weigh.size
    for f, finer in enumerate(FINER):
        parts = split(chunk, attention.scale, finer)
        candidates = _Candidates(chunk, parts, attention.scale)
        for g, gated in enumerate(GATED):
            output = gated_output(chunk.v, parts.integer, attention.scale, gated)
            result.gated[f, g, rows] = weigh(output)
        for i, kind in enumerate(IMPORTANCES):
            theta = importance(parts.integer, kind)
            result.score[f, i, rows] = head_scores(theta, chunk.length)
            for r, rho in enumerate(RHO_B):
                blocks = kept_blocks(theta, np.full(attention.heads, rho))
                result.kept[f, i, r, rows] = blocks.sum(axis=(-2, -1))
                outputs = candidates.outputs(expand(blocks, chunk.length))
                for p, output in enumerate(outputs):
                    result.error[f, i, p, r, rows] = weigh(output)


class _Weight:
    """Squared differences from the exact output of a chunk, as the next linear sees them."""

    def __init__(self, attention: Attention, exact: Reals):
        values, vectors = np.linalg.eigh(attention.metric)
        root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
        self.root = root.astype(np.float32)
        self.exact = exact
        whole = exact @ self.root
        self.size = np.square(whole).sum(axis=(1, 2, 3))

    def __call__(self, output: Reals) -> Reals:
        change = (output - self.exact) @ self.root
        return np.square(change).sum(axis=(-2, -1))


class _Candidates:
    """
    Outputs under all of `PRUNED_SCORES` from two products.

    With weights E of kept scores and one weight e for all pruned ones of a row,
    `P V = (E V + e (sum of V - K V)) / (sum of E + e * pruned)`, K the mask.
    """

    def __init__(self, chunk: Chunk, parts: Split, scale: float):
        self.v = chunk.v
        self.total = chunk.v.sum(axis=-2, keepdims=True)
        self.length = np.float32(chunk.length)
        self.integer = parts.integer * np.float32(scale)
        self.whole = self.integer.sum(axis=-1, keepdims=True)
        self.peak = parts.scores.max(axis=-1, keepdims=True)
        self.powers = np.exp(parts.scores - self.peak)

    def outputs(self, kept: Mask) -> list[Reals]:
        """(G, H, L, dim) for each pruned score, in order."""
        mask = kept.astype(np.float32)
        weights = self.powers * mask
        kept_sum = weights @ self.v
        rest = self.total - mask @ self.v
        kept_weight = weights.sum(axis=-1, keepdims=True)
        count = self.length - mask.sum(axis=-1, keepdims=True)
        inner = (self.integer * mask).sum(axis=-1, keepdims=True)
        mean = (self.whole - inner) / np.maximum(count, 1)
        found: list[Reals] = []
        for pruned in PRUNED_SCORES:
            if pruned == "neginf":
                found.append(kept_sum / np.where(kept_weight == 0, np.float32(1), kept_weight))
                continue
            score = mean if pruned == "mean" else np.float32(0)
            # Far above every kept score the pruned ones are all that is left.
            one = np.exp(np.minimum(score - self.peak, np.float32(60)))
            total = kept_weight + one * count
            found.append((kept_sum + one * rest) / np.where(total == 0, np.float32(1), total))
        return found
