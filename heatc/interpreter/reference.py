"""
HDP attention in one piece, from the definition of its rule, on real numbers.

`--execute-each` compares `insert-hdp` with this: it shares no code with the ops that rules insert,
nor with the units of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import Operation

from heatc.dialects import attn
from heatc.interpreter.values import Array, Packing, store
from heatc.rules import Rule, find_rule
from heatc.rules.definition import Cascade, Head, Reals

__all__ = ["Head", "RuleAttention", "attend"]


def attend(q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
    """One head of one sequence: the keys' own rows of q (M, dim) first; L keys; (M, dim) out."""
    return find_rule(head.rule.name).attend(q, k, v, scale, head)


def with_masks(head: Head, op: attn.SdpaOp, masks: Sequence[Array], packing: Packing) -> Head:
    """
    A head with masks (M, L) as `attn.sdpa` spells them.

    What lowers a score by 10000 or more hides it. A row that sees no key looks at all of them if
    float32 has room for a score beside the number that hides it, and at none in particular if not.
    Where different numbers hide, it looks at those scores that the greatest number hides.
    """
    if not masks:
        return head
    if _differ(op, masks):
        return _with_levels(head, op, masks)
    visible, bias = np.ones(masks[0].shape, np.bool_), np.zeros(masks[0].shape)
    lowest = 0.0
    for mask, fill in zip(masks, op.fills):
        hides = ~mask if mask.dtype == np.bool_ else mask <= -10000.0
        if mask.dtype != np.bool_:
            bias += np.where(hides, 0.0, mask)
        low = np.where(hides, fill if mask.dtype == np.bool_ else mask, 0.0)
        lowest = min(lowest, float(low.min()))
        visible &= ~hides
    added = all(mask.dtype != np.bool_ for mask in masks)
    keyless = "all" if added and lowest > -1e8 else "mean"
    if lowest == -np.inf:
        keyless = "refuse" if op.keyless == "nan" else "zero"
    return head._replace(bias=np.where(visible, bias, 0.0), visible=visible, keyless=keyless)


def _differ(op: attn.SdpaOp, masks: Sequence[Array]) -> bool:
    """Whether different finite numbers hide scores of one row that sees no key."""
    total = _totals(op, masks)
    blind = (total <= -5000.0).all(axis=1)
    most, least = total[blind].max(axis=1), total[blind].min(axis=1)
    return bool((np.isfinite(most) & (most != least)).any())


def _totals(op: attn.SdpaOp, masks: Sequence[Array]) -> Array:
    """What masks (M, L) make of scores of 0."""
    total = np.zeros(masks[0].shape)
    for mask, fill in zip(masks, op.fills):
        total = np.where(mask, total, fill) if mask.dtype == np.bool_ else total + mask
    return np.where(total < np.finfo(np.float32).min, -np.inf, total)


def _with_levels(head: Head, op: attn.SdpaOp, masks: Sequence[Array]) -> Head:
    total = _totals(op, masks)
    most = total.max(axis=1, keepdims=True)
    level = total.copy()
    np.subtract(total, most, out=level, where=(most <= -5000.0) & np.isfinite(most))
    least = level > -5000.0
    fills = [fill for mask, fill in zip(masks, op.fills) if mask.dtype == np.bool_]
    limit = -5000.0 if any(fill > -1e8 for fill in fills) else -1e8
    visible = least & (most > limit)
    return head._replace(
        bias=np.where(visible, level, 0.0),
        visible=visible,
        keyless="mean",
        least=least,
        level=np.where(least & ~visible, level, 0.0),
        least_keyless="refuse" if op.keyless == "nan" else "zero",
    )


@register_impls
class RuleAttention(InterpreterFunctions):
    """Runs each `attn.sdpa` under its rule, in program order; an object serves one run."""

    def __init__(self, rules: Mapping[Operation, Rule]):
        self.rules = rules
        self.output = dict[tuple[int, int], float]()
        """Magnitudes that each sequence's heads put out so far."""
        self.pruned = dict[tuple[str, int], list[int]]()
        """The heads of each sequence that a rule has pruned."""
        super().__init__()

    def _gone(self, op: attn.SdpaOp, sequence: int) -> list[int]:
        """The heads that the rule leaves out before anything is computed."""
        rule = self.rules[op]
        layers = [other for other, its in self.rules.items() if its.name == rule.name]
        put_out = [self.output.get((sequence, h), 0.0) for h in range(op.heads.value.data)]
        key = (rule.name, sequence)
        cascade = Cascade(layers.index(op), len(layers), put_out, self.pruned.get(key, []))
        self.pruned[key] = list(find_rule(rule.name).left_out(rule, cascade))
        return self.pruned[key]

    @impl(attn.SdpaOp)
    def run_sdpa(
        self, interpreter: Interpreter, op: attn.SdpaOp, args: PythonValues
    ) -> PythonValues:
        q, k, v = (x.astype(np.float64) for x in args[:3])
        packing: Packing = args[3]
        heads, rule = op.heads.value.data, self.rules[op]
        full = (*packing.mask.shape[:1], heads, *packing.mask.shape[1:] * 2)
        masks: list[Array] = [np.broadcast_to(mask, full) for mask in args[4:]]
        out = np.zeros(v.shape, np.float64)
        dim, v_dim = q.shape[1] // heads, v.shape[1] // heads
        for sequence, (rows, keys) in enumerate(zip(packing.queries(), packing.sequences())):
            gone = self._gone(op, sequence)
            for h in range(heads):
                of_q, of_v = slice(h * dim, (h + 1) * dim), slice(h * v_dim, (h + 1) * v_dim)
                if keys.stop > keys.start and h not in gone:
                    operands = q[rows, of_q], k[keys, of_q], v[keys, of_v]
                    at = packing.positions(sequence)
                    keys_at = at[: keys.stop - keys.start]
                    own = [m[sequence, h][at][:, keys_at] for m in masks]
                    head = with_masks(Head.of(rule, h), op, own, packing)
                    out[rows, of_v] = attend(*operands, op.scale.value.data, head)
                    put_out = float(np.abs(out[keys, of_v]).sum())
                    self.output[sequence, h] = self.output.get((sequence, h), 0.0) + put_out
        return (store(out, op.result),)
