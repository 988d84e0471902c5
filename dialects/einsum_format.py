"""
How the weight of a layer is to be factorised, as an attribute: the part of `einsum` for plans.

Which formats there are, and how many ranks each has, is `heatc.heat.formats`' to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.ir import Data
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

Pairs: TypeAlias = tuple[tuple[int, int], ...]

_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*)*\|[1-9]\d*(x[1-9]\d*)*")


@dataclass(frozen=True)
class Planned:
    """
    What a plan says of a layer.

    Attributes:
        format: the name of the format.
        shape: input and output modes, `8x8x12|12x8x8`.
        ranks: in the order of the format.
        path: in which order the layer's input and the factors meet, None where that is open.
    """

    format: str
    shape: str
    ranks: tuple[int, ...]
    path: Pairs | None = None


@irdl_attr_definition
class FormatAttr(Data[Planned]):
    """
    `#einsum.format<"low-rank", "768|768", [64], (0, 1), (3, 2)>`: how a layer is to be factorised.

    Format, input and output modes, ranks, and the path of `#einsum.path`, which may be absent.
    """

    name = "einsum.format"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Planned:
        with parser.in_angle_brackets():
            format_ = parser.parse_str_literal()
            parser.parse_punctuation(",")
            shape = parser.parse_str_literal()
            parser.parse_punctuation(",")
            ranks = parser.parse_comma_separated_list(
                parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False)
            )
            path: Pairs | None = None
            if parser.parse_optional_punctuation(",") is not None:
                path = parse_pairs(parser)
        return Planned(format_, shape, tuple(ranks), path)

    def print_parameter(self, printer: Printer) -> None:
        planned = self.data
        ranks = ", ".join(map(str, planned.ranks))
        path = "" if planned.path is None else f", {pairs_text(planned.path)}"
        printer.print_string(f'<"{planned.format}", "{planned.shape}", [{ranks}]{path}>')

    def verify(self) -> None:
        planned = self.data
        if _SHAPE.fullmatch(planned.shape) is None:
            raise VerifyException(f"expected modes as '8x12|12x8', got {planned.shape!r}")
        if not planned.ranks or min(planned.ranks) < 1:
            raise VerifyException(f"expected ranks from 1 on, got {list(planned.ranks)}")


def parse_pairs(parser: AttrParser) -> Pairs:
    """`(0, 2), (1, 3)`: pairs of operands."""
    none = parser.Delimiter.NONE
    return tuple(parser.parse_comma_separated_list(none, lambda: _parse_pair(parser)))


def pairs_text(pairs: Pairs) -> str:
    """Pairs as `parse_pairs` reads them."""
    return ", ".join(f"({a}, {b})" for a, b in pairs)


def _parse_pair(parser: AttrParser) -> tuple[int, int]:
    with parser.in_parens():
        first = parser.parse_integer(allow_boolean=False)
        parser.parse_punctuation(",")
        return first, parser.parse_integer(allow_boolean=False)
