"""
Queries and keys that can be split: the PE array divides what leaves it into integer and fraction.

`insert-hdp` asks. What a linear computes leaves the array anyway. What the host computes (a rotary
embedding, a slice of columns), and what others read as a whole beside, is sent through it once, by a
linear whose weight is the identity. Text without weights stays as it is, and `tile-for-hdp` refuses it.
"""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import TensorType, f32
from xdsl.ir import Block, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.passes.analysis.normal_form import bias_of, product_of
from heatc.passes.rewriting import insert_before
from heatc.weights import WeightStore


class Divided:
    """What attentions split, each value once."""

    def __init__(self, store: WeightStore | None):
        self._store = store
        self._known: dict[SSAValue, SSAValue] = {}

    def of(self, value: SSAValue) -> SSAValue:
        """A value with the same numbers that the array puts out."""
        if value not in self._known:
            splits = self._store is None or (_is_put_out(value) and _is_attentions(value))
            self._known[value] = value if splits else self._sent_through(value, self._store)
        return self._known[value]

    def _sent_through(self, value: SSAValue, store: WeightStore | None) -> SSAValue:
        assert store is not None
        width = nn.shape_of(value)[-1]
        name = f"identity:{width}x{width}"
        if name not in store:
            store.add(name, np.eye(width, dtype=np.float32))
        behind = value.owner
        assert not isinstance(behind, Block)
        following = behind.next_op
        assert following is not None
        weight = WeightOp([name], TensorType(f32, (width, width)))
        linear = ContractOp("ti,oi->to", [value, weight.result], value.type)
        for op in (weight, linear):
            op.location = behind.location
            insert_before(following, op)
        return linear.result


def _is_put_out(value: SSAValue) -> bool:
    """Whether a linear computes a value, or nobody in sight does."""
    owner = value.owner
    if isinstance(owner, Block):
        return True
    if isinstance(owner, nn.ReshapeOp):
        return _is_put_out(owner.x)
    return product_of(owner) is not None or bias_of(owner) is not None


def _is_attentions(value: SSAValue) -> bool:
    """Whether attentions alone read a value, as queries or keys: what is split is not there as a whole."""
    if isinstance(value.owner, Block):
        return True
    return all(isinstance(u.operation, attn.SdpaOp) and u.index < 2 for u in value.uses)
