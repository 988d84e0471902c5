"""Tensors of the masks that attentions have of their own: a row of truth values or codes a position."""

from __future__ import annotations

import math

from xdsl.dialects.builtin import i1
from xdsl.ir import BlockArgument, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import hdp, nn
from heatc.dialects.einsum import WeightOp
from heatc.dialects.fixed import QType
from heatc.dialects.host import TaskOp
from heatc.passes.rewriting import at
from heatc.passes.tiling.packed_rows import input_behind
from heatc.passes.tiling.tensors import Tensors


class ScoreMaskTensors:
    """Describes masks in memory, (positions of queries of heads of sequences, positions of keys)."""

    def __init__(self, tensors: Tensors):
        self.tensors = tensors
        self._known: dict[SSAValue, SSAValue] = {}

    def tensor_of(self, mask: SSAValue) -> SSAValue:
        """The tensor of a mask; `PassFailedException` for one that no instruction computes."""
        if mask not in self._known:
            tensor = self._tensor(mask)
            shape = nn.shape_of(mask)
            self._known[mask] = self.tensors.view(tensor, math.prod(shape[:-1]), shape[-1], None)
        return self._known[mask]

    def _tensor(self, mask: SSAValue) -> SSAValue:
        source = input_behind(mask)
        if isinstance(source, BlockArgument) and nn.element_of(source) == i1:
            return self.tensors.tensor(source)
        if isinstance(source.owner, nn.NotOp):
            return self._inverted(source.owner)
        if isinstance(source.owner, nn.CompareOp):
            return self._tested(source.owner)
        stored = isinstance(mask.owner, WeightOp | TaskOp) or isinstance(nn.element_of(mask), QType)
        if stored or mask in self.tensors.known:
            return self.tensors.tensor(mask)
        if isinstance(source.owner, TaskOp):
            return self.tensors.tensor(source)
        place = (
            "" if isinstance(source.owner, BlockArgument) else at(next(iter(mask.uses)).operation)
        )
        raise PassFailedException(
            f"{place}a mask of this attention is computed from inputs, which the machine's host has "
            "no instructions for: give the mask itself as an input, or use --target numpy"
        )

    def _inverted(self, op: nn.NotOp) -> SSAValue:
        """1 where an input of truth values is 0."""
        inner = input_behind(op.x)
        if isinstance(inner.owner, nn.NotOp):
            return self._tensor(inner.owner.x)
        if not isinstance(inner, BlockArgument):
            return self.tensors.tensor(op.result)
        return self._test(self.tensors.tensor(inner), "eq", 0.0)

    def _test(self, tensor: SSAValue, compare: str, value: float) -> SSAValue:
        owner = tensor.owner
        assert isinstance(owner, hdp.TensorOp)
        emitter, extents = self.tensors.e, (owner.rows.value.data, owner.cols.value.data)
        symbol = emitter.symbol(f"{owner.symbol.data}.visible")
        tested = emitter.tensor(symbol, "activation", "i8", extents)
        emitter.do("htest", dst=tested, src=tensor, compare=compare, value=value)
        return tested

    def _tested(self, op: nn.CompareOp) -> SSAValue:
        """An input compared with a number: 1 where it does not hide."""
        source, limit = input_behind(op.lhs), op.rhs.owner
        if not isinstance(source, BlockArgument) or not isinstance(limit, nn.FullOp):
            return self.tensors.tensor(op.result)
        tensor = self.tensors.tensor(source)
        return self._test(tensor, op.predicate.data, limit.value.value.data)
