"""
Attention becomes the chain of HDP ops of the chosen rule.

Assumes the packed level. Replaces each `attn.sdpa`: rule `none` by
`scores -> softmax -> weighted_values`, rule `paper` by integer scores, block importance, block
mask (threshold ratio `rho_b`), head gate (threshold `tau_h`, none at 0 or below), merged scores
(`pruned_score` where a block is pruned), softmax and weighted values. Leaves the element types to
`assign-fixed-point`. Attention with an additive bias is refused: the machine has no unit for it.

Example: test/passes/insert_hdp.mlir, the worked example of the HDP paper (Q 8x4, K 4x8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn
from heatc.passes.effect import Effect
from heatc.passes.rewriting import describe_location, insert_before, replace_value

BLOCK = (2, 2)
"""Rows and columns of a block; what version 1 of the ISA decides on."""


def _unpruned(op: attn.SdpaOp) -> list[Operation]:
    packing = op.packing
    assert packing is not None
    heads = op.heads.value.data
    element = attn.tensor_of(op.q).get_element_type()
    full = TensorType(element, attn.scores_shape(attn.packing_of(packing), heads))
    scores = attn.ScoresOp(op.q, op.k, packing, heads, full)
    softmax = attn.SoftmaxOp(scores.result, packing, op.scale.value.data)
    values = attn.WeightedValuesOp(softmax.result, op.v, packing, None, heads)
    return [scores, softmax, values]


def _pruned(op: attn.SdpaOp, rho_b: float, tau_h: float, pruned: str) -> list[Operation]:
    packing = op.packing
    assert packing is not None
    heads = op.heads.value.data
    element = attn.tensor_of(op.q).get_element_type()
    shape = attn.scores_shape(attn.packing_of(packing), heads)
    blocks = (*shape[:2], *(-(-n // b) for n, b in zip(shape[2:], BLOCK)))
    q, k = attn.SplitOp(op.q), attn.SplitOp(op.k)
    integer = attn.IntegerScoresOp(q.integer, k.integer, packing, heads, TensorType(element, shape))
    theta = attn.BlockImportanceOp(integer.result, packing, BLOCK, TensorType(element, blocks))
    mask = attn.BlockMaskOp(theta.result, packing, rho_b, BLOCK)
    merged = attn.MergeScoresOp(
        integer.result,
        (q.integer, q.fraction),
        (k.integer, k.fraction),
        mask.result,
        packing,
        heads,
        BLOCK,
        pruned,
    )
    softmax = attn.SoftmaxOp(merged.result, packing, op.scale.value.data)
    ops: list[Operation] = [q, k, integer, theta, mask]
    gate = None
    if tau_h > 0:
        gate = attn.HeadGateOp(theta.result, packing, tau_h)
        ops.append(gate)
    values = attn.WeightedValuesOp(
        softmax.result, op.v, packing, None if gate is None else gate.result, heads
    )
    return [*ops, merged, softmax, values]


@dataclass(frozen=True)
class InsertHdpPass(ModulePass):
    """`attn.sdpa` becomes HDP attention; rule `none` is exact, `paper` changes values."""

    name = "insert-hdp"
    effect: ClassVar[Effect] = Effect.CHANGES_VALUES

    rule: Literal["none", "paper"] = "none"
    rho_b: float = 0.0
    tau_h: float = 0.0
    pruned_score: Literal["zero", "neginf", "int", "mean"] = "zero"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place; `PassFailedException` where an attention cannot be had."""
        if not -1.0 < self.rho_b < 1.0:
            raise PassFailedException(f"rho-b {self.rho_b} is outside (-1, 1)")
        for inner in list(op.walk()):
            if isinstance(inner, attn.SdpaOp):
                self._rewrite(inner)

    def _rewrite(self, op: attn.SdpaOp) -> None:
        if op.packing is None or op.bias is not None:
            raise PassFailedException(
                f"{describe_location(op)}: hdp attention needs a mask that is provably key "
                "padding (or none); use --target numpy for this model"
            )
        if self.rule == "none":
            ops = _unpruned(op)
        else:
            ops = _pruned(op, self.rho_b, self.tau_h, self.pruned_score)
        insert_before(op, *ops)
        replace_value(op.result, ops[-1].results[0])
        op.detach()
        op.erase()
