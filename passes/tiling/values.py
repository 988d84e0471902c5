"""Small questions to the values of the fixed level."""

from __future__ import annotations

from typing import Any, TypeVar

from xdsl.dialects.builtin import Float32Type, IntegerType
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import nn
from heatc.dialects.fixed import QType

T = TypeVar("T", bound=Operation)


def only_user(value: SSAValue, kind: type[T]) -> T | None:
    """The op that uses a value, if it is the only one and of a kind."""
    users = {use.operation for use in value.uses}
    user = users.pop() if len(users) == 1 else None
    return user if isinstance(user, kind) else None


def is_integer(op: Operation) -> bool:
    """Whether an op computes integers (or truth values), at compile time if at all."""
    if not isinstance(op, nn.NnOp):
        return False
    return all(isinstance(nn.element_of(r), IntegerType) for r in op.results)


def fixed_type(value: SSAValue) -> QType:
    element = nn.element_of(value)
    if not isinstance(element, QType):
        raise PassFailedException(f"{value.type} has no binary point: run assign-fixed-point first")
    return element


def isa_dtype(element: Attribute) -> str:
    if isinstance(element, QType):
        return f"i{element.width.data}"
    if isinstance(element, Float32Type):
        return "f32"
    unsigned = nn.is_unsigned(element)
    if isinstance(element, IntegerType):
        if unsigned:
            # Memory has integers with a sign.
            return {8: "i16", 16: "i32"}.get(element.bitwidth, "i64")
        return {1: "i8", 8: "i8", 16: "i16", 32: "i32"}.get(element.bitwidth, "i64")
    raise PassFailedException(f"a tensor of {element} cannot lie in the machine's memory")


def owner_of(value: SSAValue, *kinds: type[Operation]) -> Any:
    """The op that computes a value, which must be of one of some kinds."""
    owner = value.owner
    if not isinstance(owner, kinds):
        what = owner.name if isinstance(owner, Operation) else "an argument"
        names = ", ".join(k.name for k in kinds)
        raise PassFailedException(f"expected {names} as operand of an hdp op, got {what}")
    return owner
