"""What a function says of its inputs and outputs."""

from __future__ import annotations

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FloatAttr, StringAttr, f64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

from heatc.dialects import attn
from heatc.interpreter import input_names
from heatc.intervals import Interval

RANGE = "heatc.range"
"""The attribute of an argument that says the least and the greatest value it may hold."""


HIDES = "heatc.hides"
"""The attribute of an argument of numbers that are added to scores: this one and less hide, whatever the range."""


def annotate(function: FuncOp, argument: BlockArgument, name: str, value: Attribute) -> None:
    """Put an attribute on an argument of a function."""
    known = function.arg_attrs
    count = len(function.function_type.inputs)
    attributes = [*known.data] if known is not None else [DictionaryAttr({})] * count
    data = {**attributes[argument.index].data, name: value}
    attributes[argument.index] = DictionaryAttr(data)
    function.arg_attrs = ArrayAttr(attributes)


def mark_hiding(function: FuncOp, argument: BlockArgument, limit: float) -> None:
    """Say that an argument is read as numbers that hide where they are at most `limit`."""
    annotate(function, argument, HIDES, FloatAttr(limit, f64))


def hiding_limit(function: FuncOp, argument: BlockArgument) -> float | None:
    """The limit that `mark_hiding` gave an argument."""
    if function.arg_attrs is None:
        return None
    value = function.arg_attrs.data[argument.index].data.get(HIDES)
    return value.value.data if isinstance(value, FloatAttr) else None


def input_ranges(function: FuncOp) -> dict[str, Interval]:
    """The inputs that a program relies on to be within a range, by name."""
    if function.arg_attrs is None:
        return {}
    found: dict[str, Interval] = {}
    for name, attributes in zip(input_names(function), function.arg_attrs.data):
        range_ = attributes.data.get(RANGE)
        if isinstance(range_, attn.ValuesAttr):
            found[name] = range_.intervals[0]
    return found


def output_paddings(function: FuncOp) -> list[str]:
    """What each output has at masked positions of a token axis: `zero`, or `computed` values."""
    attributes = function.res_attrs.data if function.res_attrs is not None else ()
    found = [a.data.get("heatc.padding") for a in attributes]
    words = [f.data if isinstance(f, StringAttr) else "computed" for f in found]
    return words or ["computed"] * len(function.function_type.outputs)


def masking_inputs(function: FuncOp) -> list[int]:
    """The inputs, by number, that say which positions are masked."""
    masks = [op.mask for op in function.walk() if isinstance(op, attn.PackingOp)]
    pending: list[SSAValue] = [mask for mask in masks if mask is not None]
    seen: set[SSAValue] = set()
    while pending:
        value = pending.pop()
        if value not in seen and isinstance(value.owner, Operation):
            pending += value.owner.operands
        seen.add(value)
    return sorted(value.index for value in seen if isinstance(value, BlockArgument))
