"""
How large the model's inputs are.

Floats that a user gives have no bound, and fixed point needs one. A range is declared for an input, or
taken: magnitudes of at most 16, with a remark. Integers have the range of their type; where nothing
else bounds what is computed of them they are taken to be 0 or 1. A range that the program relies on is
an attribute of the function's argument, `heatc.range`: who runs the program refuses a value outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import AnyFloat
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.interpreter import input_names
from heatc.intervals import Interval, number_text
from heatc.passes.analysis.ports import RANGE, annotate
from heatc.passes.analysis.ranges import Range, of_type
from heatc.passes.rewriting import remark

USUAL = 16.0
"""The greatest magnitude of a float input that nobody declares."""


def read_ranges(texts: Sequence[str]) -> dict[str, Interval]:
    """
    Ranges by input of `name=high` (magnitudes) or `name=low:high`.

    Raises `ValueError` for anything else.
    """
    found: dict[str, Interval] = {}
    for text in texts:
        name, equals, ends = text.partition("=")
        low, colon, high = ends.partition(":")
        try:
            numbers = [float(n) for n in ((low, high) if colon else (low,))]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers = [-numbers[0], numbers[0]]
        good = len(numbers) == 2 and all(map(math.isfinite, numbers)) and numbers[0] < numbers[1]
        if not (name and equals and good):
            raise ValueError(
                f"{text!r} is no range of an input: expected name=most, or name=least:most"
            )
        if name in found:
            raise ValueError(f"input {name!r} has two ranges")
        found[name] = numbers[0], numbers[1]
    return found


@dataclass
class Inputs:
    """The ranges of one function's inputs; `relied` are those that a type depends on."""

    ctx: Context
    function: FuncOp
    declared: Mapping[str, Interval]
    relied: dict[BlockArgument, Interval] = field(default_factory=dict[BlockArgument, Interval])

    def __post_init__(self) -> None:
        names = input_names(self.function)
        unknown = [name for name in self.declared if name not in names]
        if unknown:
            raise PassFailedException(
                f"a range is declared for {unknown[0]!r}, which is no input; the inputs are "
                f"{', '.join(names)}"
            )

    def name(self, value: BlockArgument) -> str:
        """The model's name of an input."""
        return input_names(self.function)[value.index]

    def range(self, value: BlockArgument) -> Range:
        """The range of an input: what is declared, a mask's, the usual one of floats, or that of its type."""
        if self.name(value) in self.declared:
            return Range.of(*self.rely(value))
        real = _mask_range(value)
        is_bounded = real is not None and all(map(math.isfinite, real.whole))
        if isinstance(nn.element_of(value), AnyFloat) and not is_bounded:
            return Range.of(*self.rely(value))
        return of_type(nn.element_of(value)) if real is None else real

    def rely(self, value: BlockArgument) -> Interval:
        """The range that a type depends on from here on."""
        if value not in self.relied:
            name = self.name(value)
            is_float = isinstance(nn.element_of(value), AnyFloat)
            usual = (-USUAL, USUAL) if is_float else (0.0, 1.0)
            self.relied[value] = self.declared.get(name, usual)
            if name not in self.declared:
                ends = f"{number_text(usual[0])} to {number_text(usual[1])}"
                reader = next((u.operation for u in value.uses), self.function)
                remark(
                    self.ctx,
                    reader,
                    f"input {name!r} is taken to be within {ends}, and other values are refused when "
                    f"the program runs; --input-range {name}=LOW:HIGH says it otherwise",
                )
        return self.relied[value]

    def write(self) -> None:
        """Put the ranges on the function's arguments."""
        for value, ends in self.relied.items():
            annotate(self.function, value, RANGE, attn.ValuesAttr([ends]))


def _mask_range(value: BlockArgument) -> Range | None:
    """What a mask may hold where it is a packing's: other values are refused when it is read."""
    for use in value.uses:
        op: Operation = use.operation
        while isinstance(op, nn.ReshapeOp) and op.result.has_one_use():
            reader = op.result.get_user_of_unique_use()
            assert reader is not None
            op = reader
        if isinstance(op, attn.PackingOp) and op.real is not None and op.masked is not None:
            ends = [end for pair in (*op.real.intervals, *op.masked.intervals) for end in pair]
            return Range.of(min(ends), max(ends))
    return None
