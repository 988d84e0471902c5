"""
Attention that the machine does not know becomes what the host computes: products with a softmax between.

`raise-attention` leaves attention of other queries than keys: learned queries that pool tokens, one token
that asks for all, keys that are added to those of the tokens. What hides a key is -infinity; a query that
sees no key gives 0, as in `nn.sdpa`.
"""

from __future__ import annotations

import math

from xdsl.dialects.builtin import TensorType, i1, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp
from heatc.passes.rewriting import insert_before, replace_value

_LEAD = "abcdefgh"


def expand_attention(function: FuncOp) -> None:
    """Rewrite every `nn.sdpa` of a function."""
    for op in list(function.body.block.ops):
        if isinstance(op, nn.SdpaOp):
            replace_value(op.result, _attended(op))
            op.detach()
            op.erase()


def _attended(op: nn.SdpaOp) -> SSAValue:
    """softmax(q k' scale + mask) v."""

    def emit(new: Operation) -> SSAValue:
        new.location = op.location
        insert_before(op, new)
        return new.results[0]

    element, queries, keys = nn.element_of(op.result), nn.shape_of(op.q), nn.shape_of(op.k)
    lead = _LEAD[: len(queries) - 2]
    type_ = TensorType(element, (*queries[:-1], keys[-2]))
    scores = emit(ContractOp(f"{lead}qi,{lead}ki->{lead}qk", [op.q, op.k], type_))
    scale = emit(nn.FullOp(op.scale.value.data, TensorType(element, ())))
    scores = emit(nn.MulOp(scores, scale, type_))
    low = emit(nn.FullOp(-math.inf, TensorType(element, ())))
    if op.mask is not None and nn.element_of(op.mask) == i1:
        scores = emit(nn.WhereOp(op.mask, scores, low, type_))
    elif op.mask is not None:
        scores = emit(nn.AddOp(scores, op.mask, type_))
    if op.is_causal.value.data:
        place = [emit(nn.IotaOp(0, 1, TensorType(i64, (n,)))) for n in (queries[-2], keys[-2])]
        column = emit(nn.ReshapeOp(place[0], (queries[-2], 1)))
        seen = TensorType(i1, (queries[-2], keys[-2]))
        seen = emit(nn.CompareOp(column, place[1], "ge", seen))
        scores = emit(nn.WhereOp(seen, scores, low, type_))
    weights = emit(nn.SoftmaxOp(scores, -1, type_, safe=op.mask is not None))
    equation = f"{lead}qk,{lead}ko->{lead}qo"
    return emit(ContractOp(equation, [weights, op.v], op.result.type))
