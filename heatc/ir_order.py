"""
Whether every value is defined before it is used: what xDSL's verifier does not ask.

Passes walk a function from its first op to its last and take for granted that they have met the
operands of each op. Ops that no function holds are in order too: a chain of them has an end.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region, SSAValue

from heatc.errors import SourceError
from heatc.ir_errors import describe_location, print_op


def check_order(module: ModuleOp) -> None:
    """Raise `HeatcError` for the first operand that nothing has defined before."""
    _check(module.body, set())


def _check(region: Region, defined: set[SSAValue]) -> None:
    """Check the ops of a region; what it defines is known to nobody outside of it."""
    own: set[SSAValue] = set()
    if len(region.blocks) > 1:
        # In which order blocks run is told by their branches.
        own.update(value for block in region.blocks for value in _values(block))
        defined |= own
    for block in region.blocks:
        own.update(block.args)
        defined.update(block.args)
        for op in block.ops:
            _check_operands(op, defined)
            for inner in op.regions:
                _check(inner, defined)
            own.update(op.results)
            defined.update(op.results)
    defined -= own


def _values(block: Block) -> Iterator[SSAValue]:
    yield from block.args
    for op in block.ops:
        yield from op.results


def _check_operands(op: Operation, defined: set[SSAValue]) -> None:
    for index, operand in enumerate(op.operands):
        if operand not in defined:
            place, path = describe_location(op.location)
            raise SourceError(
                f"'{op.name}' op operand #{index} is not defined before this use",
                place=place,
                snippet=print_op(op),
                notes=[f"in {path}"] if path else [],
            )
