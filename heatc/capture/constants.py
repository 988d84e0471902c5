"""Numbers that are known while a graph is converted."""

from __future__ import annotations

from xdsl.dialects.builtin import i1
from xdsl.ir import SSAValue

from heatc.dialects import nn


def constant_of(value: SSAValue) -> float | None:
    """The number that a value is everywhere, if it is known."""
    owner = value.owner
    if isinstance(owner, nn.CastOp) and nn.element_of(owner.x) != i1:
        return constant_of(owner.x)
    if isinstance(owner, nn.ReshapeOp | nn.ExpandOp):
        return constant_of(owner.x)
    return owner.value.value.data if isinstance(owner, nn.FullOp) else None
