"""
HDP attention in one piece, from its definition, on real numbers.

`--execute-each` compares `insert-hdp` with this: it shares no code with the ops that the pass
inserts, nor with the units of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import Operation

from heatc.dialects import attn
from heatc.interpreter.values import Packing, store
from heatc.rules import Rule

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Head(NamedTuple):
    """What a rule is told of one head."""

    rule: Rule
    rho_b: float
    tau_h: float

    @classmethod
    def of(cls, rule: Rule, head: int) -> Head:
        """The values of one head, which may be those of all."""
        return cls(rule, _of_head(rule.rho_b, head), _of_head(rule.tau_h, head))


def _of_head(values: tuple[float, ...], head: int) -> float:
    return values[head % len(values)]


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


def kept_of_row(values: Reals, rho_b: float) -> Mask:
    """Which values reach their threshold."""
    mean = float(values.sum()) / len(values)
    edge = float(values.max()) if rho_b >= 0 else -float(values.min())
    return values >= rho_b * edge + (1.0 - abs(rho_b)) * mean


def kept_blocks(theta: Reals, rho_b: float) -> Mask:
    """Which blocks of each row reach the row's threshold."""
    return np.array([kept_of_row(row, rho_b) for row in theta])


def top_blocks(theta: Reals, density: float) -> Mask:
    """The greatest blocks of each row, the first of equal ones."""
    kept = np.zeros(theta.shape, np.bool_)
    count = max(1, math.ceil(density * theta.shape[1]))
    for row, values in enumerate(theta):
        ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
        kept[row, ranked[:count]] = True
    return kept


def parts(rows: Reals, keys: int) -> list[Reals]:
    """The rows of the keys, and those behind them, which begin blocks of their own."""
    return [part for part in (rows[:keys], rows[keys:]) if len(part)]


def low_bits(x: Reals, keys: int, bits: int) -> tuple[Reals, int]:
    """Few bits of (M, dim), and by which power of two they are scaled: by that of the keys."""
    largest = float(np.abs(x[:keys]).max())
    exponent = math.floor(math.log2(largest)) + 1 if largest > 0 else 0
    limit = 2 ** (bits - 1) - 1
    return np.clip(np.rint(x * 2.0 ** (bits - 1 - exponent)), -limit, limit), exponent


def softmax(scores: Reals) -> Reals:
    """Of each row; a row without a finite score is 0."""
    weights = np.zeros_like(scores)
    for row, values in zip(weights, scores):
        if values.max() > -np.inf:
            row[:] = np.exp(values - values.max())
            row /= row.sum()
    return weights


def filtered(q: Reals, k: Reals, alpha: tuple[float, ...]) -> Mask:
    """Rule `energon`: two rounds of mean filtering."""
    kept = np.ones((len(q), len(k)), np.bool_)
    for bits, ratio in zip((2, 4), alpha):
        scores = low_bits(q, len(k), bits)[0] @ low_bits(k, len(k), bits)[0].T
        for row, values in zip(kept, scores):
            if row.any():
                row[row] = kept_of_row(values[row], ratio)
    return kept


def predicted(q: Reals, k: Reals, scale: float, threshold: float) -> Mask:
    """Rule `sanger`: what probabilities of 4-bit scores predict."""
    (low_q, exponent_q), (low_k, exponent_k) = (low_bits(x, len(k), 4) for x in (q, k))
    weights = softmax(low_q @ low_k.T * 2.0 ** (exponent_q + exponent_k - 6) * scale)
    kept = weights > threshold
    kept[np.arange(len(kept)), weights.argmax(axis=1)] = True
    return kept


def kept_scores(integer: Reals, rule: Rule, rho_b: float) -> Mask:
    """Which of some rows' integer scores (M, L) are in a block that is kept."""
    theta = block_theta(integer, rule.importance, rule.block)
    blocks = top_blocks(theta, rule.density) if rule.name == "topk" else kept_blocks(theta, rho_b)
    return np.kron(blocks, np.ones(rule.block, np.bool_))[: len(integer), : integer.shape[1]]


def attend(q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
    """One head of one sequence: the keys' own rows of q (M, dim) first; L keys; (M, dim) out."""
    rule, length = head.rule, len(k)
    if rule.name in ("none", "spatten"):
        return softmax(q @ k.T * scale) @ v
    if rule.name in ("energon", "sanger"):
        if rule.name == "energon":
            kept = filtered(q, k, rule.alpha)
        else:
            kept = predicted(q, k, scale, rule.threshold)
        return softmax(np.where(kept, q @ k.T * scale, -np.inf)) @ v
    unit = 2.0**-rule.finer
    integer_q, integer_k = np.trunc(q / unit) * unit, np.trunc(k / unit) * unit
    integer = integer_q @ integer_k.T
    own = integer[:length]
    theta = block_theta(own, rule.importance, rule.block)
    number = length**2 if rule.importance == "abs" else length**3
    if head.tau_h > 0 and theta.sum() / number < head.tau_h:
        return _of_pruned_head(own, v, scale, rule.gated, len(q))
    kept = np.concatenate([kept_scores(p, rule, head.rho_b) for p in parts(integer, length)])
    scores = q @ k.T - (q - integer_q) @ (k - integer_k).T
    scores = np.where(kept, scores, _replacement(integer, kept, rule.pruned_score))
    return softmax(scores * scale) @ v


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


@register_impls
class RuleAttention(InterpreterFunctions):
    """Runs each `attn.sdpa` under its rule, in program order; an object serves one run."""

    def __init__(self, rules: Mapping[Operation, Rule]):
        self.rules = rules
        self.ranked = [op for op, rule in rules.items() if rule.name == "spatten"]
        self.output = dict[tuple[int, int], float]()
        """Magnitudes that each sequence's heads put out so far."""
        self.pruned = dict[int, list[int]]()
        super().__init__()

    def _gone(self, op: attn.SdpaOp, sequence: int) -> set[int]:
        """The heads that `spatten` has pruned: the least so far, a growing number of them."""
        layer, heads = self.ranked.index(op), op.heads.value.data
        steps = max(len(self.ranked) - 1, 1)
        share = min(2 * self.rules[op].ratio * layer / steps, (heads - 1) / heads)
        # What was pruned before put out nothing since, but may have put out much before that.
        gone = self.pruned.setdefault(sequence, [])
        left = [h for h in range(heads) if h not in gone]
        left.sort(key=lambda h: (self.output.get((sequence, h), 0.0), -h))
        gone += left[: math.floor(heads * share) - len(gone)]
        return set(gone)

    @impl(attn.SdpaOp)
    def run_sdpa(
        self, interpreter: Interpreter, op: attn.SdpaOp, args: PythonValues
    ) -> PythonValues:
        q, k, v = (x.astype(np.float64) for x in args[:3])
        packing: Packing = args[3]
        heads, rule = op.heads.value.data, self.rules[op]
        out = np.zeros(v.shape, np.float64)
        dim, v_dim = q.shape[1] // heads, v.shape[1] // heads
        for sequence, (rows, keys) in enumerate(zip(packing.queries(), packing.sequences())):
            gone: set[int] = self._gone(op, sequence) if rule.name == "spatten" else set()
            for h in range(heads):
                of_q, of_v = slice(h * dim, (h + 1) * dim), slice(h * v_dim, (h + 1) * v_dim)
                if keys.stop > keys.start and h not in gone:
                    operands = q[rows, of_q], k[keys, of_q], v[keys, of_v]
                    out[rows, of_v] = attend(*operands, op.scale.value.data, Head.of(rule, h))
                    put_out = float(np.abs(out[keys, of_v]).sum())
                    self.output[sequence, h] = self.output.get((sequence, h), 0.0) + put_out
        return (store(out, op.result),)
