"""Verifies a module again and again, at the cost of what changed between two times."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

State = tuple[object, ...]


class Verifier:
    """
    Verifies a module after each pass, without asking an op that is as it was.

    An op is as it was where its block, operands, results, properties and attributes are. An op with regions
    and the last op of a block, whose verifiers look at the ops around them, are always asked.
    A few verifiers also look at other ops, for example at the op that defines an operand: only
    `everything` asks them although their own op is as it was. So the module is to be verified by
    `everything` once its last pass has run.
    """

    def __init__(self, module: ModuleOp):
        self.module = module
        self._states: dict[Operation, State] = {}

    def changed(self) -> None:
        """Verify what is not as it was; raises `VerifyException`."""
        states: dict[Operation, State] = {}
        for op in _inner_first(self.module):
            states[op] = state = _state(op)
            if op.regions or op.next_op is None or self._states.get(op) != state:
                op.verify(verify_nested_ops=False)
        # The states hold the values and attributes they name, so that no new object can pass for one.
        self._states = states

    def everything(self) -> None:
        """Verify every op; raises `VerifyException`."""
        self.module.verify()


def _inner_first(op: Operation) -> Iterator[Operation]:
    """The ops inside an op, then the op; raises where a parent is not the one that lists it."""
    for region in op.regions:
        for block in region.blocks:
            if block.first_op is None or block.parent is not region:
                region.verify()
            for inner in block.ops:
                if inner.parent is not block:
                    block.verify()
                if inner.regions:
                    yield from _inner_first(inner)
                else:
                    yield inner
    yield op


def _state(op: Operation) -> State:
    return (
        op.parent,
        *op.operands,
        *[operand.type for operand in op.operands],
        *[result.type for result in op.results],
        *op.successors,
        *op.properties.items(),
        *op.attributes.items(),
    )
