"""
What the co-processor has no unit for moves into `host.task` regions.

Assumes the pruned level (packed tokens, HDP attention). The co-processor keeps contractions of an
activation with one weight that are products (`shape-products`), their biases, and attention
(`attn.pruned`). Reshapes of rows are free. Every other floating-point op becomes host work. An embedding or
a sum joins the task of its only reader. A residual sum and its layer norm are therefore rounded
once, and so are embeddings and their layer norm. Integer work on token ids stays where it is. Ops
that neither side has are refused, all of them in one message.

Example: test/passes/partition_host.mlir.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, i1, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.dialects.host import TaskOp
from heatc.passes.analysis.normal_form import bias_of, product_of
from heatc.passes.effect import Effect
from heatc.passes.rewriting import describe_location, insert_before

_JOINS_ITS_READER = (nn.EmbeddingOp, nn.AddOp)
_FROM_MEMORY = (attn.UnpackOp, attn.TokenOp)
"""What reads rows by an index, hence from memory."""
_HOST = (
    *_JOINS_ITS_READER,
    nn.LayerNormOp,
    nn.GeluOp,
    nn.TanhOp,
    nn.ReluOp,
    attn.UnpackOp,
    attn.TokenOp,
)


def _is_float(value: SSAValue) -> bool:
    type_ = value.type
    return isinstance(type_, TensorType) and type_.get_element_type() not in (i64, i1)


@dataclass
class _Group:
    root: Operation
    ops: list[Operation] = field(default_factory=list[Operation])


def _is_free(op: Operation) -> bool:
    """Whether an op gives the bytes of rows another shape."""
    if not isinstance(op, nn.ReshapeOp) or not _is_float(op.result):
        return False
    return nn.shape_of(op.x)[:1] == nn.shape_of(op.result)[:1]


def _is_host(op: Operation) -> bool:
    if isinstance(op, (WeightOp, attn.PrunedOp)) or not op.results:
        return False
    if product_of(op) is not None or bias_of(op) is not None or _is_free(op):
        return False
    return all(_is_float(r) for r in op.results)


def _groups(block: Block) -> list[_Group]:
    """The host ops of a block by task, in program order of their roots."""
    groups: dict[Operation, _Group] = {}
    found: list[_Group] = []
    for op in reversed(list(block.ops)):
        if not _is_host(op):
            continue
        reader = op.results[0].get_user_of_unique_use()
        joins = isinstance(op, _JOINS_ITS_READER) and not isinstance(reader, _FROM_MEMORY)
        if joins and reader is not None and reader in groups:
            group = groups[reader]
        else:
            group = _Group(op)
            found.append(group)
        groups[op] = group
        group.ops.append(op)
    for group in found:
        group.ops.reverse()
    return found[::-1]


def _outline(group: _Group) -> None:
    """Move a group's ops into one `host.task` at the place of its root."""
    root, block = group.root, Block()
    behind = root.next_op
    assert behind is not None
    for op in group.ops:
        op.detach()
        block.add_op(op)
    task = TaskOp.around(block, root.results)
    task.location = root.location
    insert_before(behind, task)


def _refuse_unsupported(function: FuncOp) -> None:
    bad = [
        f"{op.name} at {describe_location(op) or 'an unknown place'}"
        for op in function.body.block.ops
        if _is_host(op) and not isinstance(op, _HOST)
    ]
    if bad:
        listing = "\n".join(f"  {line}" for line in bad)
        raise PassFailedException(
            f"{len(bad)} op(s) that neither the co-processor nor its host has a unit for:\n"
            f"{listing}\nuse --target numpy for this model"
        )


@dataclass(frozen=True)
class PartitionHostPass(ModulePass):
    """Host work is outlined into tasks; exact."""

    name = "partition-host"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite every function in place; `PassFailedException` for ops without a unit."""
        for function in list(op.ops):
            if not isinstance(function, FuncOp) or not function.body.blocks:
                continue
            _refuse_unsupported(function)
            for group in _groups(function.body.block):
                _outline(group)
