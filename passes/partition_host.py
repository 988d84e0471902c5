"""
What the co-processor has no unit for moves into `host.task` regions.

Assumes the pruned level (packed tokens, HDP attention). The co-processor keeps contractions of an
activation with one weight that are products (`shape-products`), their biases, and attention
(`attn.pruned`). Views of memory are free. Everything else that an input decides becomes host work,
integers too. Ops that read each other without passing memory make one task
(`passes/analysis/host_work.py`): what stays within a task is not rounded. Rows by an index that
inputs decide become embeddings. Ops that neither side has an instruction for are refused, all of
them in one message.

Example: test/passes/partition_host.mlir.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects.einsum import ContractOp, only_reader
from heatc.dialects.host import TaskOp
from heatc.passes.analysis.host_work import HostWork, numbers_of
from heatc.passes.effect import Effect
from heatc.passes.partitioning.attention import expand_attention
from heatc.passes.partitioning.broadcasts import expand_operands
from heatc.passes.partitioning.fills import repeat_fills
from heatc.passes.partitioning.indices import index_rows
from heatc.passes.partitioning.masks import unpack_factors
from heatc.passes.partitioning.numbers import move_numbers
from heatc.passes.partitioning.refusals import refusals
from heatc.passes.partitioning.stored import round_what_is_given
from heatc.passes.rewriting import erase_dead, insert_before


def _outline(ops: Sequence[Operation], returned: Sequence[SSAValue]) -> None:
    """Move a task's ops into one `host.task` at the place of the last."""
    last, block = ops[-1], Block()
    behind = last.next_op
    assert behind is not None
    for number in numbers_of(ops):
        own = number.clone()
        own.location = number.location
        own.result.name_hint = number.result.name_hint
        number.result.replace_uses_with_if(own.result, lambda use: use.operation in ops)
        block.add_op(own)
    for op in ops:
        op.detach()
        block.add_op(op)
    task = TaskOp.around(block, returned)
    task.location = last.location
    insert_before(behind, task)


def _read_elsewhere(ops: Sequence[Operation]) -> list[SSAValue]:
    """The results of a task's ops that others read."""
    inside = set(ops)
    results = (result for op in ops for result in op.results)
    return [r for r in results if any(use.operation not in inside for use in r.uses)]


def _split_views(work: HostWork) -> None:
    """A view that is read both in its task and from memory becomes two."""
    for op in work.torn:
        own = op.clone()
        own.location = op.location
        own.results[0].name_hint = op.results[0].name_hint
        insert_before(op, own)
        op.results[0].replace_uses_with_if(
            own.results[0], lambda use, op=op: work.joins(use.operation, op)
        )


def _leave_groups(work: HostWork) -> None:
    """A product of the host holds nothing tile by tile, nor does one that the host reads."""
    for op in work.function.body.block.ops:
        if isinstance(op, ContractOp) and op.fuse is not None:
            reader = only_reader(op.result)
            if op in work.ops or reader is None or reader in work.ops:
                op.fuse = None


def _sort(block: Block) -> None:
    """Put ops behind what they read, as near to where they were as that allows."""
    ops = list(block.ops)
    place = {op: i for i, op in enumerate(ops)}
    readers: dict[Operation, set[Operation]] = {op: set() for op in ops}
    missing = dict.fromkeys(ops, 0)
    for op in ops:
        makers = {v.owner for v in op.operands if v.owner in place}
        for maker in makers:
            assert isinstance(maker, Operation)
            readers[maker].add(op)
        missing[op] = len(makers)
    if all(place[maker] < place[op] for maker in ops for op in readers[maker]):
        return
    ready = [place[op] for op in ops if not missing[op]]
    heapq.heapify(ready)
    while ready:
        op = ops[heapq.heappop(ready)]
        op.detach()
        block.add_op(op)
        for reader in readers[op]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, place[reader])


def _partition(function: FuncOp) -> None:
    expand_attention(function)
    move_numbers(function)
    unpack_factors(function)
    round_what_is_given(function)
    work = HostWork(function)
    changed = index_rows(work)
    if expand_operands(work.ops) or changed:
        work = HostWork(function)
    if repeat_fills(work):
        work = HostWork(function)
    while work.torn:
        _split_views(work)
        work = HostWork(function)
    message = refusals(work)
    if message:
        raise PassFailedException(message)
    _leave_groups(work)
    for ops in work.tasks:
        returned = _read_elsewhere(ops)
        if returned:
            _outline(ops, returned)
    _sort(function.body.block)


@dataclass(frozen=True)
class PartitionHostPass(ModulePass):
    """Host work is outlined into tasks; exact."""

    name = "partition-host"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite every function in place; `PassFailedException` for ops without a unit."""
        erase_dead(op)
        for function in list(op.ops):
            if isinstance(function, FuncOp) and function.body.blocks:
                _partition(function)
        erase_dead(op)
