"""
The `host` dialect: work that the co-processor has no unit for.

A `host.task` is one piece of host work between two co-processor tasks. Operands come in as they
lie in memory (codes, int64 ids, float32 tables), results go out the same way; inside, everything
is float64 once `assign-fixed-point` ran, and is rounded once where it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Block, Dialect, Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsTerminator, Pure, SingleBlockImplicitTerminator
from xdsl.utils.exceptions import VerifyException


def _text(types: Sequence[Attribute]) -> str:
    return f"({', '.join(map(str, types))})"


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """`host.yield %y : tensor<?x4xf64>`: the results of the task."""

    name = "host.yield"
    traits = traits_def(IsTerminator(), Pure())


@irdl_op_definition
class TaskOp(IRDLOperation):
    """
    `%y = host.task (%a = %x : tensor<?x4xf32>) -> (tensor<?x4xf32>) { ... host.yield ... }`.

    The region sees its operands only (as `%a`), not the values around it.
    """

    name = "host.task"
    inputs = var_operand_def()
    outputs = var_result_def()
    body = region_def("single_block")
    traits = traits_def(Pure(), SingleBlockImplicitTerminator(YieldOp))

    def __init__(
        self,
        inputs: Sequence[SSAValue | Operation],
        result_types: Sequence[Attribute],
        body: Region,
    ):
        super().__init__(operands=[list(inputs)], result_types=[list(result_types)], regions=[body])

    def verify_(self) -> None:
        block = self.body.block
        arguments, inputs = [a.type for a in block.args], [i.type for i in self.inputs]
        if arguments != inputs:
            raise VerifyException(
                f"block arguments {_text(arguments)} do not match inputs {_text(inputs)}"
            )
        last = block.last_op
        assert isinstance(last, YieldOp)
        yielded, results = [v.type for v in last.arguments], [r.type for r in self.outputs]
        if yielded != results:
            raise VerifyException(
                f"yielded types {_text(yielded)} do not match results {_text(results)}"
            )
        for op in block.walk():
            for operand in op.operands:
                owner = operand.owner
                inside = owner is block or (isinstance(owner, Operation) and owner.parent is block)
                if not inside:
                    raise VerifyException(f"{op.name} reads a value from outside the task")

    @classmethod
    def parse(cls, parser: Parser) -> TaskOp:
        """Parse the form of the class docstring."""

        def binding() -> tuple[Parser.Argument, SSAValue]:
            name = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            operand = parser.parse_unresolved_operand()
            parser.parse_punctuation(":")
            type_ = parser.parse_type()
            return name.resolve(type_), parser.resolve_operand(operand, type_)

        bindings = parser.parse_comma_separated_list(parser.Delimiter.PAREN, binding)
        parser.parse_punctuation("->")
        types = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_type)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        body = parser.parse_region([argument for argument, _ in bindings])
        op = cls([value for _, value in bindings], types, body)
        if attributes is not None:
            op.attributes.update(attributes.data)
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        block: Block = self.body.block

        def binding(pair: tuple[SSAValue, SSAValue]) -> None:
            argument, value = pair
            printer.print_ssa_value(argument)
            printer.print_string(" = ")
            printer.print_ssa_value(value)
            printer.print_string(" : ")
            printer.print_attribute(value.type)

        printer.print_string(" ")
        printer.enter_scope()
        with printer.in_parens():
            printer.print_list(tuple(zip(block.args, self.inputs)), binding)
        printer.print_string(" -> ")
        with printer.in_parens():
            printer.print_list(self.result_types, printer.print_attribute)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        printer.exit_scope()


HOST = Dialect("host", [TaskOp, YieldOp])
