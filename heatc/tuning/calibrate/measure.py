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

from heatc.tuning.calibrate.attention import (
    Chunk,
    Mask,
    Reals,
    Split,
    chunks,
    dense,
    expand,
    extra_chunks,
    gated_output,
    head_scores,
    importance,
    integer_part,
    kept_blocks,
    split,
)
from heatc.tuning.calibrate.candidates import (
    CALIBRATED_SCORES,
    FINER,
    GATED,
    IMPORTANCES,
    RHO_B,
    Block,
)
from heatc.tuning.common.packed_model import Attention, Paused

MOST_ROWS = 64
"""Query rows that are measured of a sequence; of longer ones block rows evenly spread."""


@dataclass(frozen=True)
class Measured:
    """
    One attention over N sequences and H heads.

    Attributes:
        error: (finer, importance, pruned, rho, N, H) float32, of pruned blocks.
        kept: (finer, importance, rho, N, H) float32, kept blocks.
        score: (finer, importance, N, H) float32, what tau_H is compared with.
        gated: (finer, gated, N, H) float32, error of a pruned head.
        size: (N,) float32, squared size of the dense output, the sum over heads.
    """

    error: NDArray[np.float32]
    kept: NDArray[np.float32]
    score: NDArray[np.float32]
    gated: NDArray[np.float32]
    size: NDArray[np.float32]

    @classmethod
    def empty(cls, samples: int, heads: int) -> Measured:
        """Zeros for the sequences of a batch."""
        f, i, p, r = len(FINER), len(IMPORTANCES), len(CALIBRATED_SCORES), len(RHO_B)
        return cls(
            np.zeros((f, i, p, r, samples, heads), np.float32),
            np.zeros((f, i, r, samples, heads), np.float32),
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


def measure(
    paused: Paused, chosen: NDArray[np.bool_], block: Block = (2, 2)
) -> tuple[Measured, Reals]:
    """
    Measure the chosen sequences (B,) of a batch at an attention, in blocks of this size.

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
            _measure_chunk(chunk.part(wanted), exact[wanted], attention, block, result)
    for chunk in extra_chunks(paused):
        exact = dense(chunk, attention.scale)
        out[chunk.rows] = exact.transpose(0, 2, 1, 3).reshape(*chunk.rows.shape, -1)
    return result, out


def measured_rows(length: int, high: int) -> NDArray[np.intp]:
    """
    The query rows of a sequence that are measured: all if they are few, else whole block rows.

    `high` is how many query rows a block has.
    """
    count = -(-length // high)
    most = max(1, MOST_ROWS // high)
    places = np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)
    rows = (high * places[:, None] + np.arange(high)).reshape(-1)
    return rows[rows < length]


def _measure_chunk(
    chunk: Chunk, exact: Reals, attention: Attention, block: Block, result: Measured
) -> None:
    sequences, rows = chunk.sequences, measured_rows(chunk.length, block[0])
    sampled, scale = chunk.queries(rows), attention.scale
    whole = chunk.length / len(rows)
    weigh = _Weight(attention, exact[:, :, rows], whole)
    result.size[sequences] = weigh.size
    for f, finer in enumerate(FINER):
        parts = split(sampled, scale, finer)
        alternatives = _CandidateOutputs(sampled, parts, scale)
        mean_query = _mean_query(chunk, finer)
        for g, gated in enumerate(GATED):
            output = gated_output(chunk.v, mean_query, scale, gated)
            result.gated[f, g, sequences] = weigh(output)
        for i, kind in enumerate(IMPORTANCES):
            theta = importance(parts.integer, kind, block)
            result.score[f, i, sequences] = head_scores(theta, len(rows) * chunk.length)
            rows_of_blocks = -(-chunk.length // block[0]) / theta.shape[-2]
            for r, rho in enumerate(RHO_B):
                blocks = kept_blocks(theta, np.full(attention.heads, rho))
                result.kept[f, i, r, sequences] = blocks.sum(axis=(-2, -1)) * rows_of_blocks
                outputs = alternatives.outputs(expand(blocks, parts.scores.shape, block))
                for p, output in enumerate(outputs):
                    result.error[f, i, p, r, sequences] = weigh(output)


def _mean_query(chunk: Chunk, finer: int) -> Reals:
    """Integer scores of the mean query of every head, (G, H, 1, L)."""
    query = integer_part(chunk.q, finer).mean(axis=-2, keepdims=True)
    scores: Reals = query @ integer_part(chunk.k, finer).swapaxes(-1, -2)
    return scores


class _Weight:
    """
    Squared differences from the exact output of a chunk, as the next linear sees them.

    `whole` is how many times the rows looked at make up the sequence.
    """

    def __init__(self, attention: Attention, exact: Reals, whole: float):
        values, vectors = np.linalg.eigh(attention.metric)
        root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
        self.root = root.astype(np.float32)
        self.exact = exact
        self.whole = whole
        self.size = whole * np.square(exact @ self.root).sum(axis=(1, 2, 3))

    def __call__(self, output: Reals) -> Reals:
        change = (output - self.exact) @ self.root
        return self.whole * np.square(change).sum(axis=(-2, -1))


class _CandidateOutputs:
    """
    Outputs under all of `CALIBRATED_SCORES` from two products.

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
        for pruned in CALIBRATED_SCORES:
            if pruned == "neginf":
                found.append(kept_sum / np.where(kept_weight == 0, np.float32(1), kept_weight))
                continue
            score = mean if pruned == "mean" else np.float32(0)
            # Far above every kept score the pruned ones are all that is left.
            one = np.exp(np.minimum(score - self.peak, np.float32(60)))
            total = kept_weight + one * count
            found.append((kept_sum + one * rest) / np.where(total == 0, np.float32(1), total))
        return found
