"""
What is tiled is all there is: every op belongs to a root, and every tensor that is read is written.

A root is an op that instructions are emitted for: a rounded product, an attention, a task of the
host, a packing. Ops that a root takes in are claimed by it. An op that is read and that no root
claims has no instruction, and whoever reads its result reads memory that nobody wrote.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, hdp, nn
from heatc.dialects.einsum import ContractOp
from heatc.dialects.fixed import RequantizeOp
from heatc.dialects.host import TaskOp
from heatc.passes.rewriting import describe_location
from heatc.passes.tiling.values import is_integer

_ROOTS = (RequantizeOp, attn.PrunedOp, TaskOp, attn.PackingOp, attn.PackOp)
PARTS = (nn.AddOp, nn.ReshapeOp, ContractOp)
"""Ops that have no instructions of their own: a product takes them in."""


def check_claimed(function: FuncOp) -> None:
    """Raise `PassFailedException` for an op that is read, and that no root takes in."""
    ops = list(function.body.block.ops)
    claimed = {op for root in ops if isinstance(root, _ROOTS) for op in _taken_in(root)}
    for op in ops:
        if not isinstance(op, PARTS) or op in claimed or is_integer(op):
            continue
        if isinstance(op, nn.ReshapeOp) and _is_stored(op.x):
            # The same bytes in another shape.
            continue
        if any(result.uses for result in op.results):
            raise PassFailedException(
                f"{describe_location(op) or 'an unknown place'}: {op.name} is part of no product, "
                "attention or task, so that the machine has no instruction for it"
            )


def _taken_in(root: Operation) -> Iterator[Operation]:
    """A root and the ops behind it that it is made of."""
    yield root
    if isinstance(root, RequantizeOp):
        yield from _behind(root.x)


def _behind(value: SSAValue) -> Iterator[Operation]:
    owner = value.owner
    if not isinstance(owner, PARTS):
        return
    yield owner
    # A product is of what is stored: what its contraction reads is somebody else's.
    for operand in owner.operands if not isinstance(owner, ContractOp) else ():
        yield from _behind(operand)


def _is_stored(value: SSAValue) -> bool:
    """Whether a value lies in memory: what a root leaves, or a block argument."""
    owner = value.owner
    if isinstance(owner, nn.ReshapeOp):
        return _is_stored(owner.x)
    return not isinstance(owner, PARTS)


def check_written(function: FuncOp) -> None:
    """Raise `PassFailedException` for a tensor that an instruction reads before any has written it."""
    written: set[Operation] = set()
    for op in function.walk():
        if not isinstance(op, hdp.InstructionOp):
            continue
        writes = op.instruction.tensors_written
        for field, value in zip(op.value_fields, op.operands):
            tensor = _tensor_behind(value)
            if tensor is None or tensor.role.data not in ("activation", "output"):
                continue
            if field.name in writes:
                written.add(tensor)
            elif tensor not in written and not _is_unused(op, field.name):
                raise PassFailedException(
                    f"{describe_location(op) or 'an unknown place'}: {op.mnemonic} reads "
                    f"{tensor.symbol.data!r}, which no instruction before it writes"
                )


def _tensor_behind(value: SSAValue) -> hdp.TensorOp | None:
    owner = value.owner
    while isinstance(owner, hdp.WindowOp | hdp.AliasOp):
        owner = owner.operands[0].owner
    return owner if isinstance(owner, hdp.TensorOp) else None


def _is_unused(op: hdp.InstructionOp, field: str) -> bool:
    """Whether a field only fills its place: `hpack` without a mask names one."""
    return op.mnemonic == "hpack" and field == "dmask"
