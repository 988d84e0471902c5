"""
The shape rules of the instruction table, evaluated.

A rule is a text for each operand, `(m, k)` or `(n, k) if b_transposed else (k, n)`. What is read
gives its names their sizes, what is written takes them. A name that has its size already must have
it again. A host register that changes its shape has a text for each.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import CodeType, MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from heatc.isa.table import ISA, SHAPE_NAMES, FieldKind, Instruction

Shape: TypeAlias = tuple[int, int]
"""Rows and columns."""


class WrongShapeError(Exception):
    """An operand whose shape is not that of the rule."""

    def __init__(self, field: str, got: Shape, expected: Shape):
        super().__init__(f"shape of {field} is {got}, expected {expected}")
        self.field = field
        self.got = got
        self.expected = expected


class _Side(NamedTuple):
    """Rows or columns: an expression, and the name of a size if that is all it is."""

    code: CodeType
    name: str = ""

    def of(self, sizes: dict[str, Any]) -> int:
        return sizes[self.name] if self.name else eval(self.code, sizes)


class _Case(NamedTuple):
    """A shape, and the condition under which it is that one."""

    condition: CodeType
    rows: _Side
    columns: _Side

    def of(self, sizes: dict[str, Any]) -> Shape:
        return self.rows.of(sizes), self.columns.of(sizes)


class ShapeRule:
    """The shape rule of a row; `operands` are the fields whose values it needs."""

    def __init__(self, row: Instruction):
        self.row = row

    @cached_property
    def _cases(self) -> dict[str, tuple[_Case, ...]]:
        """The cases by operand; a program has few instructions, so that few rules are compiled."""
        return {name: tuple(_cases(text)) for name, text in self.row.shapes.items()}

    @cached_property
    def _results(self) -> dict[str, tuple[_Case, ...]]:
        """The cases of what is written, where it was read in another shape."""
        return {name: tuple(_cases(text)) for name, text in self.row.becomes.items()}

    @cached_property
    def names(self) -> frozenset[str]:
        """All names of the rule."""
        rules = (*self._cases.values(), *self._results.values())
        codes = (c for cases in rules for case in cases for c in _codes(case))
        return frozenset(name for code in codes for name in code.co_names)

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """The fields whose values, or registers' values, the rule is over."""
        state = (FieldKind.TILE, FieldKind.DESC, FieldKind.HOST)
        fields = [field.name for field in self.row.fields if field.kind not in state]
        return tuple(name for name in fields if name in self.names)

    @cached_property
    def _places(self) -> tuple[tuple[int, bool], ...]:
        """Where these fields are among the operands, and whether they name a register."""
        fields = (self.row.field(name) for name in self.operands)
        return tuple((self.row.field_index(f.name), f.kind is FieldKind.REG) for f in fields)

    def values(self, operands: Sequence[float], registers: Sequence[int]) -> tuple[float, ...]:
        """The values of `operands` of an instruction."""
        return tuple(
            registers[int(operands[place])] if register else operands[place]
            for place, register in self._places
        )

    def sizes(self, known: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """
        All sizes of an instruction that reads operands of these `shapes`, which `shape` takes.

        `known` are its operands and the state of the machine, by name.

        Raises:
            WrongShapeError: an operand has another shape than the rule says.
        """
        sizes: dict[str, Any] = {"__builtins__": {}, **known}
        for field in self._cases:
            got = shapes.get(field)
            if got is None:
                continue
            case = _holding(self._cases[field], sizes)
            for side, size in zip((case.rows, case.columns), got):
                if side.name:
                    sizes.setdefault(side.name, size)
            expected = case.of(sizes)
            if got != expected:
                raise WrongShapeError(field, got, expected)
        return sizes

    def shape(self, field: str, sizes: dict[str, Any]) -> Shape:
        """The shape of an operand, before it is written."""
        return _holding(self._cases[field], sizes).of(sizes)

    def result(self, field: str, sizes: dict[str, Any]) -> Shape:
        """The shape of an operand when the instruction is done."""
        return _holding(self._results.get(field) or self._cases[field], sizes).of(sizes)


def _holding(cases: tuple[_Case, ...], sizes: dict[str, Any]) -> _Case:
    """The case whose condition holds."""
    if len(cases) == 1:
        return cases[0]
    return next(case for case in cases if eval(case.condition, sizes))


def _codes(case: _Case) -> tuple[CodeType, ...]:
    return case.condition, case.rows.code, case.columns.code


def _cases(text: str) -> list[_Case]:
    """`A if c else B` is two cases, the second one without a condition."""
    node, found = ast.parse(text, mode="eval").body, list[_Case]()
    while isinstance(node, ast.IfExp):
        found.append(_Case(_compiled(node.test), *_sides(node.body)))
        node = node.orelse
    return [*found, _Case(_compiled(ast.Constant(True)), *_sides(node))]


def _sides(node: ast.expr) -> list[_Side]:
    assert isinstance(node, ast.Tuple)
    return [_Side(_compiled(side), _size_name(side)) for side in node.elts]


def _size_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) and node.id not in SHAPE_NAMES else ""


def _compiled(node: ast.expr) -> CodeType:
    return compile(ast.fix_missing_locations(ast.Expression(node)), "<shape>", "eval")


RULES: Mapping[str, ShapeRule] = MappingProxyType(
    {name: ShapeRule(row) for name, row in ISA.items()}
)
"""The shape rules by mnemonic."""
