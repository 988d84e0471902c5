"""
Plans of tiles, as attributes of the ops that instructions are emitted for.

`plan-tiles` attaches them, `tile-for-hdp` emits what they say. Sizes are for the largest run; shorter
ones run fewer iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from xdsl.ir import Data
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

Named = TypeVar("Named")


@dataclass(frozen=True)
class AttentionTiles:
    """
    Tiles of an attention, see `heatc.passes.tiling.attention_plan.AttentionPlan`.

    Attributes:
        length: tokens of a sequence that they are planned for.
        cores: cores of the machine.
        parts: cores that share a head.
        rows: queries of a head that a core works on at a time.
        keys: keys and values that pass by at a time.
        slots: row tiles that are worked on at the same time, 1 or 2.
        shared: all cores work on one head, whose keys lie in the shared buffer.
        summed: the sum of all values stands for those of pruned scores.
    """

    length: int
    cores: int
    parts: int
    rows: int
    keys: int
    slots: int
    shared: bool = False
    summed: bool = False


@dataclass(frozen=True)
class LinearTiles:
    """
    Tiles of a linear, see `heatc.passes.tiling.linear_plan.LinearPlan`.

    Attributes:
        rows: rows of a part of a row tile.
        columns: result columns of an item.
        slab: columns of the activations, and of the weights, that are loaded at a time.
        slots: tiles that weight slabs take turns in.
        cores: cores of the grid, those of the machine.
        parts: row parts of the grid of cores.
        panels: tensors that the result lies in, side by side.
        tokens: tokens of a tile of the group that the linear is in, 0 outside of one.
        held: all weights are loaded before the loop over tiles of tokens.
    """

    rows: int
    columns: int
    slab: int
    slots: int
    cores: int
    parts: int = 1
    panels: int = 1
    tokens: int = 0
    held: bool = False


@dataclass(frozen=True)
class LeftTiles:
    """
    Tiles of a product with the weight on the left, see `heatc.passes.tiling.left.LeftPlan`.

    Attributes:
        rows: rows of a chunk of the weight.
        slots: items that a core has tiles for.
        cores: cores of the machine, each of which has an item.
        tokens: tokens of a tile of the group that the product is in, 0 outside of one.
        held: the weight is loaded before the loop over tiles of tokens.
    """

    rows: int
    slots: int
    cores: int
    tokens: int = 0
    held: bool = False


class _Plan(Data[Named], Generic[Named]):
    """`<name = number, ..., word>`: a record of counts, and of words for what is true of it."""

    kind: type[Named]

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Named:
        """Parse the form of the class docstring."""
        values: dict[str, Any] = {}
        types = {f.name: f.type for f in fields(cls.kind)}  # pyright: ignore
        with parser.in_angle_brackets():
            while True:
                name = parser.parse_identifier()
                if name not in types or name in values:
                    parser.raise_error(f"{name!r} is no field of {cls.name}, or given twice")
                values[name] = True
                if types[name] == "int":
                    parser.parse_punctuation("=")
                    values[name] = parser.parse_integer(allow_boolean=False)
                if parser.parse_optional_punctuation(",") is None:
                    break
        missing = [f.name for f in fields(cls.kind) if f.name not in values and _is_required(f)]  # pyright: ignore
        if missing:
            parser.raise_error(f"{cls.name} needs {missing[0]}")
        return cls.kind(**values)

    def print_parameter(self, printer: Printer) -> None:
        """Print the form of the class docstring; what has its usual value is left out."""
        words: list[str] = []
        for field in fields(self.data):  # pyright: ignore
            value = getattr(self.data, field.name)
            if _is_required(field) or value != field.default:
                words.append(field.name if value is True else f"{field.name} = {value}")
        printer.print_string(f"<{', '.join(words)}>")

    def verify(self) -> None:
        """Raise `VerifyException` for a count that is not positive."""
        for field in fields(self.data):  # pyright: ignore
            value = getattr(self.data, field.name)
            least = 0 if field.name == "tokens" else 1
            if field.type == "int" and value < least:
                raise VerifyException(f"{field.name} {value} of {self.name} is below {least}")


def _is_required(field: Any) -> bool:
    return field.default is field.default_factory


@irdl_attr_definition
class AttentionPlanAttr(_Plan[AttentionTiles]):
    """`#hdp.attention_plan<length = 128, cores = 8, parts = 8, rows = 16, keys = 128, slots = 2, shared>`."""

    name = "hdp.attention_plan"
    kind = AttentionTiles


@irdl_attr_definition
class LinearPlanAttr(_Plan[LinearTiles]):
    """`#hdp.linear_plan<rows = 64, columns = 48, slab = 192, slots = 2, cores = 8>`."""

    name = "hdp.linear_plan"
    kind = LinearTiles


@irdl_attr_definition
class LeftPlanAttr(_Plan[LeftTiles]):
    """`#hdp.left_plan<rows = 32, slots = 2, cores = 8, tokens = 32, held>`."""

    name = "hdp.left_plan"
    kind = LeftTiles


PLANS = [AttentionPlanAttr, LinearPlanAttr, LeftPlanAttr]
"""What `plan-tiles` attaches."""
