"""
HDP attention in one piece, from its definition, on real numbers.

`--execute-each` compares `insert-hdp` with this: it shares no code with the ops that the pass
inserts, nor with the units of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from heatc.dialects import attn
from heatc.interpreter.values import Packing, store

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class PaperRule:
    """Rule `paper`: block ratio, head threshold, and what a pruned score becomes."""

    rho_b: float
    tau_h: float
    pruned_score: str


def block_theta(scores: Reals) -> Reals:
    """Sum of magnitudes of each 2 x 2 block of (L, L) scores, partial at odd ends."""
    edges: list[int] = list(range(0, scores.shape[0], 2))
    return np.add.reduceat(np.add.reduceat(np.abs(scores), edges, 0), edges, 1)


def kept_blocks(theta: Reals, rho_b: float) -> NDArray[np.bool_]:
    """Which blocks of each row reach the row's threshold."""
    kept = np.zeros(theta.shape, np.bool_)
    for row, values in enumerate(theta):
        mean = float(values.sum()) / len(values)
        edge = float(values.max()) if rho_b >= 0 else -float(values.min())
        kept[row] = values >= rho_b * edge + (1.0 - abs(rho_b)) * mean
    return kept


def attend(q: Reals, k: Reals, v: Reals, scale: float, rule: PaperRule) -> Reals:
    """One head of one sequence: (L, dim) each, (L, dim) out."""
    length = len(q)
    integer_q, integer_k = np.trunc(q), np.trunc(k)
    integer = integer_q @ integer_k.T
    theta = block_theta(integer)
    if rule.tau_h > 0 and theta.sum() / length**2 < rule.tau_h:
        return np.zeros_like(v)
    blocks = kept_blocks(theta, rule.rho_b)
    kept = np.kron(blocks, np.ones((2, 2), np.bool_))[:length, :length]
    scores = q @ k.T - (q - integer_q) @ (k - integer_k).T
    scores = np.where(kept, scores, _replacement(integer, kept, rule.pruned_score))
    weights = np.zeros_like(scores)
    for row, values in zip(weights, scores):
        if values.max() > -np.inf:
            row[:] = np.exp(scale * (values - values.max()))
            row /= row.sum()
    return weights @ v


def _replacement(integer: Reals, kept: NDArray[np.bool_], pruned: str) -> Reals:
    if pruned == "int":
        return integer
    if pruned == "mean":
        total = np.where(kept, 0.0, integer).sum(axis=1)
        return (total / np.maximum((~kept).sum(axis=1), 1))[:, None]
    return np.full_like(integer, 0.0 if pruned == "zero" else -np.inf)


@register_impls
class PaperAttention(InterpreterFunctions):
    """Runs `attn.sdpa` under rule `paper`."""

    def __init__(self, rule: PaperRule):
        self.rule = rule
        super().__init__()

    @impl(attn.SdpaOp)
    def run_sdpa(
        self, interpreter: Interpreter, op: attn.SdpaOp, args: PythonValues
    ) -> PythonValues:
        q, k, v = args[:3]
        packing: Packing = args[3]
        heads = op.heads.value.data
        out = np.zeros(v.shape, np.float64)
        dim, v_dim = q.shape[1] // heads, v.shape[1] // heads
        for rows in packing.sequences():
            for h in range(heads):
                of_q, of_v = slice(h * dim, (h + 1) * dim), slice(h * v_dim, (h + 1) * v_dim)
                if rows.stop > rows.start:
                    out[rows, of_v] = attend(
                        q[rows, of_q].astype(np.float64),
                        k[rows, of_q].astype(np.float64),
                        v[rows, of_v].astype(np.float64),
                        op.scale.value.data,
                        self.rule,
                    )
        return (store(out, op.result),)
