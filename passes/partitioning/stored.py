"""
What the co-processor reads as it was given becomes codes first, by a task of the host.

Float inputs and weights have no codes. A product, or an attention, that reads one reads a copy of it that
the host rounds.
"""

from __future__ import annotations

from xdsl.dialects.builtin import AnyFloat, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.passes.analysis.normal_form import product_of
from heatc.passes.rewriting import insert_before


def round_what_is_given(function: FuncOp) -> None:
    """Put a copy between what a function is given and products and attentions that read it."""
    copies: dict[SSAValue, SSAValue] = {}
    for op in list(function.body.block.ops):
        for index, value in enumerate(_read_as_codes(op)):
            if not _is_given(value) or _is_bias(op, index):
                continue
            if value not in copies:
                copy = nn.CastOp(value, value.type)
                insert_before(op, copy)
                copies[value] = copy.result
            op.operands[index] = copies[value]


def _read_as_codes(op: Operation) -> list[SSAValue]:
    if product_of(op) is not None:
        return [op.operands[0]]
    return list(op.operands) if isinstance(op, attn.PrunedOp) else []


def _is_bias(op: Operation, index: int) -> bool:
    """Whether a weight is what an attention adds to scores: it has codes of its own."""
    if not isinstance(op, attn.PrunedOp) or not isinstance(op.operands[index].owner, WeightOp):
        return False
    uses = op.body.block.args[index].uses
    return all(isinstance(use.operation, attn.BiasScoresOp) for use in uses)


def _is_given(value: SSAValue) -> bool:
    if not isinstance(value.type, TensorType) or not isinstance(nn.element_of(value), AnyFloat):
        return False
    while isinstance(value.owner, nn.ReshapeOp):
        value = value.owner.x
    return isinstance(value, BlockArgument) or isinstance(value.owner, WeightOp)
