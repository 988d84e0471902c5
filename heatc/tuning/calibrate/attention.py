"""
Attention under rule `ours`, on real numbers and on many sequences of one length at once.

docs/design/rules.md defines the rule on codes. Here q, k and v are float32 values that were not
rounded to the machine's codes: fast, and as close as the choice of parameters needs. What a plan
does on the machine is measured on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.interpreter.values import Packing
from heatc.rules import Rule
from heatc.tuning.calibrate.candidates import Block
from heatc.tuning.common.packed_model import Paused

Reals = NDArray[Any]
"""float32; NumPy's stubs widen most of what is done with it."""

Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

CHUNK = 1 << 18
"""Scores that are worked on at once: what stays in a core's cache."""


class Split(NamedTuple):
    """What decides and what is computed of a chunk's scores, (G, H, L, L) each."""

    integer: Reals
    scores: Reals
    """Scaled scores without F_Q F_K, as kept blocks get them."""


@dataclass(frozen=True)
class Chunk:
    """
    Sequences of one length: `rows` (G, M) into the packed tokens, q (G, H, M, dim), k and v (G, H, L, dim).

    The rows of q are those of the keys, or some of these, or rows that are no keys.
    """

    rows: NDArray[np.int64]
    sequences: NDArray[np.int64]
    q: Reals
    k: Reals
    v: Reals

    @property
    def length(self) -> int:
        """Keys of each sequence."""
        return self.k.shape[2]

    def part(self, chosen: Mask) -> Chunk:
        """The chosen sequences (G,)."""
        arrays = (self.rows, self.sequences, self.q, self.k, self.v)
        return Chunk(*(array[chosen] for array in arrays))

    def queries(self, chosen: NDArray[np.intp]) -> Chunk:
        """The same with some of the query rows, by place in the sequence."""
        return replace(self, q=self.q[:, :, chosen])


def chunks(paused: Paused, chosen: NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
    """The sequences of a batch by length, empty ones left out; `chosen` (B,) picks some."""
    heads = paused.attention.heads
    for rows, sequences in _groups(paused.packing, chosen):
        size = max(1, CHUNK // (heads * rows.shape[1] ** 2))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            q, k, v = (_heads(x[part], heads) for x in (paused.q, paused.k, paused.v))
            yield Chunk(part, sequences[start : start + size], q, k, v)


def extra_chunks(paused: Paused) -> Iterator[Chunk]:
    """The rows of a batch that are no keys: one sequence after the other, where padding is read."""
    packing, heads = paused.packing, paused.attention.heads
    for sequence in np.flatnonzero(packing.extras):
        first, keys = int(packing.starts[sequence]), int(packing.lengths[sequence])
        at_keys: Indices = first + np.arange(keys)[None]
        rows: Indices = first + keys + np.arange(int(packing.extras[sequence]))[None]
        operands = ((paused.q, rows), (paused.k, at_keys), (paused.v, at_keys))
        q, k, v = (_heads(x[at], heads) for x, at in operands)
        yield Chunk(rows, np.array([sequence]), q, k, v)


def _groups(
    packing: Packing, chosen: NDArray[np.bool_] | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    lengths = packing.lengths if chosen is None else np.where(chosen, packing.lengths, 0)
    for length in np.unique(lengths[lengths > 0]):
        sequences = np.flatnonzero(lengths == length)
        yield packing.starts[sequences][:, None] + np.arange(length), sequences


def _heads(x: Reals, heads: int) -> Reals:
    """(G, L, heads * dim) -> (G, heads, L, dim)."""
    g, length, width = x.shape
    return x.reshape(g, length, heads, width // heads).transpose(0, 2, 1, 3)


def integer_part(x: Reals, finer: int) -> Reals:
    """Toward zero, to multiples of 2^-finer."""
    unit = np.float32(2.0**finer)
    return np.trunc(x * unit) / unit


def split(chunk: Chunk, scale: float, finer: int) -> Split:
    """Integer scores at point 2 * finer and the scores of kept blocks."""
    integer_q, integer_k = integer_part(chunk.q, finer), integer_part(chunk.k, finer)
    rest = (chunk.q - integer_q) @ (chunk.k - integer_k).swapaxes(-1, -2)
    exact = chunk.q @ chunk.k.swapaxes(-1, -2)
    return Split(integer_q @ integer_k.swapaxes(-1, -2), (exact - rest) * np.float32(scale))


def dense(chunk: Chunk, scale: float) -> Reals:
    """Attention as the model computes it, (G, H, L, dim)."""
    return softmax((chunk.q @ chunk.k.swapaxes(-1, -2)) * np.float32(scale)) @ chunk.v


def importance(integer: Reals, kind: str, block: Block) -> Reals:
    """theta of every block: (G, H, L, L) -> (G, H, NR, NC), `positive` divided by L."""
    if kind == "abs":
        return block_sums(np.abs(integer), block)
    return block_sums(np.maximum(integer - integer.mean(axis=-1, keepdims=True), 0), block)


def block_sums(values: Reals, block: Block) -> Reals:
    """Sums over blocks, partial ones at the ends."""
    high, wide = block
    odd = [(0, -n % extent) for n, extent in zip(values.shape[-2:], block)]
    if odd != [(0, 0), (0, 0)]:
        values = np.pad(values, [(0, 0)] * (values.ndim - 2) + odd)
    # Slices that are added up: faster than a sum over short axes.
    rows: Reals = reduce(np.add, (values[..., i::high, :] for i in range(high)))
    return reduce(np.add, (rows[..., i::wide] for i in range(wide)))


def head_scores(theta: Reals, scores: int) -> NDArray[np.float64]:
    """(G, H): theta_Head as tau_H is compared with, the mean of a head's `scores` scores."""
    return theta.sum(axis=(-2, -1), dtype=np.float64) / scores


def kept_blocks(theta: Reals, rho_b: NDArray[np.float64]) -> Mask:
    """Which blocks (G, H, NR, NC) reach the threshold of their row; `rho_b` is (H,)."""
    mean = theta.mean(axis=-1, dtype=np.float64)
    rho = rho_b[:, None]
    highest: Reals = theta.max(axis=-1)
    lowest: Reals = theta.min(axis=-1)
    edge = np.where(rho >= 0, highest, -lowest)
    threshold = rho * edge + (1.0 - np.abs(rho)) * mean
    return theta >= threshold[..., None]


def expand(blocks: Mask, shape: tuple[int, ...], block: Block) -> Mask:
    """A mask of blocks as a mask of scores of this shape."""
    high, wide = block
    scores = np.repeat(np.repeat(blocks, high, axis=-2), wide, axis=-1)
    return scores[..., : shape[-2], : shape[-1]]


def pruned_attention(chunk: Chunk, parts: Split, kept: Mask, scale: float, pruned: str) -> Reals:
    """Softmax and values with pruned scores replaced: (G, H, L, dim); `kept` is (G, H, L, L)."""
    if pruned == "int":
        scores = np.where(kept, parts.scores, parts.integer * np.float32(scale))
    elif pruned == "neginf":
        scores = np.where(kept, parts.scores, np.float32(-np.inf))
    elif pruned == "zero":
        scores = np.where(kept, parts.scores, np.float32(0))
    else:
        scores = np.where(kept, parts.scores, _pruned_mean(parts.integer, kept) * np.float32(scale))
    peak: Reals = scores.max(axis=-1, keepdims=True)
    powers: Reals = np.exp(scores - np.where(np.isneginf(peak), np.float32(0), peak))
    total: Reals = powers.sum(axis=-1, keepdims=True)
    out: Reals = (powers @ chunk.v) / np.where(total == 0, np.float32(1), total)
    return out


def _pruned_mean(integer: Reals, kept: Mask) -> Reals:
    pruned = ~kept
    count = np.maximum(pruned.sum(axis=-1, keepdims=True, dtype=np.float32), np.float32(1))
    total: Reals = np.where(kept, np.float32(0), integer).sum(axis=-1, keepdims=True)
    return total / count


def gated_output(v: Reals, mean_query: Reals, scale: float, gated: str) -> Reals:
    """
    What a pruned head gives for each of its tokens, (G, H, 1, dim).

    0 (`zero`), the mean of the values (`mean`), or attention of the mean query (`col`), whose
    integer scores are `mean_query` (G, H, 1, L).
    """
    if gated == "zero":
        return np.zeros_like(v[..., :1, :])
    if gated == "mean":
        return v.mean(axis=-2, keepdims=True)
    return softmax(mean_query * np.float32(scale)) @ v


def softmax(scores: Reals) -> Reals:
    """Over the last axis."""
    powers: Reals = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class Decisions(NamedTuple):
    """What a rule decided, by sequence and head (B, H); kept blocks count in kept heads only."""

    kept_blocks: NDArray[np.int64]
    kept_heads: NDArray[np.int64]


def block_total(lengths: NDArray[np.int64], block: Block) -> NDArray[np.int64]:
    """Blocks of real tokens of one head, by sequence."""
    high, wide = block
    return -(-lengths // high) * -(-lengths // wide)


def attend(paused: Paused, rule: Rule | None, block: Block = (2, 2)) -> tuple[Reals, Decisions]:
    """
    One attention of a batch, dense where there is no rule: (tokens, heads * dim) and why.

    `block` is what is counted where there is no rule; a rule has its own.
    """
    out = np.zeros_like(paused.v)
    shape = (len(paused.packing.lengths), paused.attention.heads)
    decisions = Decisions(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    for chunk in chunks(paused):
        result, kept, gate = _attend_chunk(chunk, paused.attention.scale, rule, block)
        out[chunk.rows] = result.transpose(0, 2, 1, 3).reshape(*chunk.rows.shape, -1)
        decisions.kept_blocks[chunk.sequences] = kept * gate
        decisions.kept_heads[chunk.sequences] = gate
    for chunk in extra_chunks(paused):
        result = _attend_extra(chunk, out, decisions, paused, rule)
        out[chunk.rows] = result.transpose(0, 2, 1, 3).reshape(*chunk.rows.shape, -1)
    return out, decisions


def _attend_extra(
    chunk: Chunk, out: Reals, decisions: Decisions, paused: Paused, rule: Rule | None
) -> Reals:
    """Rows that are no keys: they begin blocks of their own, and have no part in what heads do."""
    scale, heads = paused.attention.scale, paused.attention.heads
    result, _, _ = _attend_chunk(chunk, scale, _without_gate(rule), (2, 2))
    # A pruned head gives all of a sequence's rows the same.
    first = _heads(out[paused.packing.starts[chunk.sequences]][:, None], heads)
    kept = decisions.kept_heads[chunk.sequences].astype(np.bool_)
    return np.where(kept[..., None, None], result, first)


def _without_gate(rule: Rule | None) -> Rule | None:
    return None if rule is None else replace(rule, tau_h=(0.0,))


def _attend_chunk(
    chunk: Chunk, scale: float, rule: Rule | None, block: Block
) -> tuple[Reals, NDArray[np.int64], Mask]:
    """The output, and by sequence and head the kept blocks and whether the head is kept."""
    shape = chunk.q.shape[:2]
    if rule is None or rule.name == "none":
        count = block_total(np.array(chunk.length), block)
        return dense(chunk, scale), np.full(shape, count), np.ones(shape, np.bool_)
    block = (rule.block[0], rule.block[1])
    rho_b, tau_h = (np.broadcast_to(x, shape[1]) for x in (rule.rho_b, rule.tau_h))
    parts = split(chunk, scale, rule.finer)
    theta = importance(parts.integer, rule.importance, block)
    blocks = kept_blocks(theta, rho_b)
    gate = (tau_h <= 0) | (head_scores(theta, chunk.length**2) >= tau_h)
    kept = expand(blocks, parts.scores.shape, block)
    out = pruned_attention(chunk, parts, kept, scale, rule.pruned_score)
    mean_query = parts.integer.mean(axis=-2, keepdims=True)
    pruned = gated_output(chunk.v, mean_query, scale, rule.gated)
    out = np.where(gate[..., None, None], out, pruned)
    return out, blocks.sum(axis=(-2, -1)), gate
