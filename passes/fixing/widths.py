"""
Which values have 32 bits: sums that only the host reads, and what is summed into them.

A value that feeds the PE array has 16 bits. A residual stream does not: it is a sum that a task of the
host leaves for other tasks of the host, and grows with every layer, so that 16 bits of what it can reach
would be coarse. It has 32 bits, and so has a product that only such tasks read. What a norm or a
bounded function leaves has 16: its bound is near its values. Where norms follow sums within a task, as
in BERT, no value has 32 bits. A bias of scores has 32 where 16 would be coarse: numbers that may hide nearly.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue, Use

from heatc.dialects import attn, nn
from heatc.dialects.host import TaskOp

WIDE = 32
NARROW = 16
FINE_BIAS = 8
"""Fraction bits that a bias needs: a score is then off by 2^-9 at most."""

FINEST_BIAS = 24
"""Fraction bits beyond which a bias gains nothing."""
_TIGHT = (nn.LayerNormOp, nn.RmsNormOp, nn.TanhOp, nn.SoftmaxOp)
_MOVES = (nn.ReshapeOp, attn.UnpackOp, attn.TokenOp, nn.SliceOp, nn.TransposeOp, nn.ConcatOp)


def _readers(value: SSAValue) -> Iterator[Operation]:
    """The ops that read a value, in its own shape or another."""
    for use in value.uses:
        if isinstance(use.operation, nn.ReshapeOp):
            yield from _readers(use.operation.result)
        else:
            yield use.operation


def _is_read_by_host(value: SSAValue) -> bool:
    readers = list(_readers(value))
    hosts = [op for op in readers if isinstance(op, TaskOp)]
    return bool(hosts) and all(isinstance(op, TaskOp | ReturnOp) for op in readers)


def is_wide_result(task: TaskOp, index: int) -> bool:
    """Whether a result of a task has 32 bits."""
    return _is_read_by_host(task.outputs[index]) and not _is_tight(task.yielded[index])


def is_bias(value: SSAValue) -> bool:
    """Whether a value is read by attentions alone, that add it to scores."""
    uses = list(value.uses)
    return bool(uses) and all(_adds(use) for use in uses)


def _adds(use: Use) -> bool:
    op = use.operation
    if isinstance(op, nn.ReshapeOp):
        return is_bias(op.result)
    if not isinstance(op, attn.PrunedOp):
        return False
    steps = [inner.operation for inner in op.body.block.args[use.index].uses]
    return bool(steps) and all(isinstance(step, attn.BiasScoresOp) for step in steps)


def _is_tight(value: SSAValue) -> bool:
    """Whether a value's bound is near its values: it comes from a norm, moved or not."""
    while isinstance(value.owner, _MOVES):
        value = value.owner.operands[0]
    return isinstance(value.owner, _TIGHT)


def is_wide_product(result: SSAValue) -> bool:
    """Whether the result of a product has 32 bits."""
    if not _is_read_by_host(result):
        return False
    tasks = {op for op in _readers(result) if isinstance(op, TaskOp)}
    return any(is_wide_result(op, i) for op in tasks for i in range(len(op.outputs)))
