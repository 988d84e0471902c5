"""
Ops with a region that sees their operands only: `host.task` and `attn.pruned`.

A region that sees nothing else can be moved, run and judged alone. It is written with each operand
beside its name inside: `(%a = %x : tensor<?x4xf32>) -> (tensor<?x4xf32>) { ... }`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.irdl import IRDLOperation, region_def, var_operand_def, var_result_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import SingleBlockImplicitTerminator
from xdsl.utils.exceptions import VerifyException


def _text(types: Sequence[Attribute]) -> str:
    return f"({', '.join(map(str, types))})"


class OutlinedOp(IRDLOperation):
    """An op whose region has a block argument for each operand, and yields its results."""

    inputs = var_operand_def()
    outputs = var_result_def()
    body = region_def("single_block")

    def __init__(
        self,
        inputs: Sequence[SSAValue | Operation],
        result_types: Sequence[Attribute],
        body: Region,
    ):
        super().__init__(operands=[list(inputs)], result_types=[list(result_types)], regions=[body])

    @classmethod
    def around(cls, block: Block, results: Sequence[SSAValue]) -> Self:
        """
        An op around a block that does not end yet; `results` are what others read of its ops.

        What the ops read from elsewhere becomes an operand, and who reads results from elsewhere reads
        those of the op, which the caller inserts.
        """
        op = cls(_bind(block), [value.type for value in results], Region(block))
        for value, result in zip(results, op.outputs):
            if result.name_hint is None:
                result.name_hint = value.name_hint
            value.replace_uses_with_if(result, lambda use: use.operation.parent is not block)
        trait = cls.get_trait(SingleBlockImplicitTerminator)
        assert trait is not None
        block.add_op(trait.op_type.create(operands=results))
        return op

    @property
    def yielded(self) -> Sequence[SSAValue]:
        """The values inside that become the results."""
        last = self.body.block.last_op
        assert isinstance(last, AbstractYieldOperation)
        return tuple(last.operands)

    def verify_(self) -> None:
        block = self.body.block
        arguments, inputs = [a.type for a in block.args], [i.type for i in self.inputs]
        if arguments != inputs:
            raise VerifyException(
                f"block arguments {_text(arguments)} do not match inputs {_text(inputs)}"
            )
        yielded, results = [v.type for v in self.yielded], [r.type for r in self.outputs]
        if yielded != results:
            raise VerifyException(
                f"yielded types {_text(yielded)} do not match results {_text(results)}"
            )
        for op in block.walk():
            for operand in op.operands:
                owner = operand.owner
                inside = owner is block or (isinstance(owner, Operation) and owner.parent is block)
                if not inside:
                    raise VerifyException(f"{op.name} reads a value from outside of {self.name}")

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        """Parse the form of the module docstring."""

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
        given: Mapping[str, Attribute] = {} if attributes is None else attributes.data
        for name, attribute in given.items():
            known = op.properties if name in cls.get_irdl_definition().properties else op.attributes
            known[name] = attribute
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the module docstring."""

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
            printer.print_list(tuple(zip(self.body.block.args, self.inputs)), binding)
        printer.print_string(" -> ")
        with printer.in_parens():
            printer.print_list(self.result_types, printer.print_attribute)
        printer.print_op_attributes(self.properties | self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        printer.exit_scope()


def _bind(block: Block) -> list[SSAValue]:
    """Give a block an argument for each value that its ops read from elsewhere; these values."""
    bound: dict[SSAValue, BlockArgument] = {}
    for op in block.ops:
        for index, operand in enumerate(op.operands):
            owner = operand.owner
            if owner is block or (isinstance(owner, Operation) and owner.parent is block):
                continue
            if operand not in bound:
                bound[operand] = block.insert_arg(operand.type, len(block.args))
                bound[operand].name_hint = operand.name_hint
            op.operands[index] = bound[operand]
    return list(bound)
