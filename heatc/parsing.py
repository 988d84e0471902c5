"""
Reading IR in text form: any file ends in a module or in one message with a place.

xDSL's parser gives ops no location, lets some malformed input through to Python's own errors,
and takes time exponential in the length of an unterminated string. All three are put right
here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import replace

from xdsl.context import Context
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, ModuleOp, StringAttr, UnknownLoc
from xdsl.ir import Operation
from xdsl.parser import Parser, ParserState
from xdsl.utils.exceptions import ParseError, PyRDLError
from xdsl.utils.lexer import Input
from xdsl.utils.mlir_lexer import MLIRLexer, MLIRToken

from heatc.errors import HeatcError
from heatc.ir_errors import explain
from heatc.ir_order import check_order
from heatc.readers.source import STDIN, decode, read_bytes, read_stdin

LARGEST_TEXT = 32 << 20
"""Fifty times the lowered program of BERT-Base."""

WIDEST = 99_999
"""Bits of an integer type."""

_INTEGER = re.compile(r"(?:si|ui|i)(\d+)")

_OTHER_FORMATS = {
    b"PK\x03\x04": "this looks like a zip archive (a torch.export archive or an HDP program)",
    b"ML\xefR": "this looks like MLIR bytecode; xDSL reads the text form only",
}


def read_text(path: str | None) -> bytes:
    """
    The bytes of a file, or of stdin for None and `-`, checked to be UTF-8 text.

    Raises `HeatcError` for what can't be read, is empty, too large, or is no text.
    """
    if path is None or path == STDIN:
        data = read_stdin("IR text", LARGEST_TEXT)
    else:
        data = read_bytes(path, "IR text", LARGEST_TEXT)
    _check_text(data, input_name(path))
    return data


def input_name(path: str | None) -> str:
    """How messages call the input."""
    return "<stdin>" if path is None or path == STDIN else path


def parse_module(
    ctx: Context,
    data: bytes,
    name: str,
    *,
    line_offset: int = 0,
    implicit_module: bool = True,
    ordered: bool = True,
) -> ModuleOp:
    """
    The module in `data`, with the location of every op.

    `line_offset` is the number of lines before `data` in the file `name`. Raises `HeatcError`,
    caused by xDSL's own exception, for anything that is not a module, and unless `ordered` is false
    for a value that is used before it is defined; it is not verified beyond that.
    """
    parser: LocatingParser | None = None
    try:
        parser = LocatingParser(ctx, data, name, line_offset)
        module = parser.parse_module(implicit_module)
        if ordered:
            check_order(module)
        return module
    except (PyRDLError, ImportError):
        # A broken dialect is no fault of the input.
        raise
    except RecursionError as error:
        raise HeatcError("nested too deeply", place=name) from error
    except Exception as error:
        if isinstance(error, ParseError):
            error.span = replace(error.span, line_offset=line_offset)
        place = (parser.failed_at if parser is not None else "") or name
        explained = explain(error, place=place)
        if explained is None:
            explained = HeatcError(f"cannot parse: {type(error).__name__}: {error}", place=place)
        raise explained from error


class LocatingParser(Parser):
    """A parser that gives every op without a location the place it was parsed from."""

    def __init__(self, ctx: Context, data: bytes, name: str, line_offset: int = 0):
        text = data.decode()
        # The lexer reads a token when it is made: give ours the text, and xDSL's nothing.
        super().__init__(ctx, "", name)
        self._line_offset = line_offset
        self._parser_state = ParserState(LinearLexer(Input(text, name)))
        self._name = StringAttr(name)
        # xDSL counts the newlines before a position anew each time; a table keeps this linear.
        self._line_starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
        self.failed_at = ""

    def parse_operation(self) -> Operation:
        start = self.pos
        try:
            op = super().parse_operation()
        except Exception:
            # The innermost op comes first.
            line, column = self._place(start)
            self.failed_at = self.failed_at or f"{self._name.data}:{line}:{column}"
            raise
        if isinstance(op.location, UnknownLoc):
            line, column = self._place(start)
            op.location = FileLineColLoc(self._name, IntAttr(line), IntAttr(column))
        return op

    def _place(self, position: int) -> tuple[int, int]:
        row = bisect_right(self._line_starts, position)
        column = position - self._line_starts[row - 1] + 1
        return row + self._line_offset, column


class LinearLexer(MLIRLexer):
    """
    xDSL's lexer without the backtracking in strings that never end, and with a bound on integers.

    xDSL computes with 2**width of every integer type that it reads.
    """

    _unescaped_characters_regex = re.compile(r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+"')

    def _lex_bare_identifier(self, start_pos: int) -> MLIRToken:
        token = super()._lex_bare_identifier(start_pos)
        width = _INTEGER.fullmatch(token.text)
        if width is not None and len(width[1]) > len(str(WIDEST)):
            raise ParseError(token.span, f"an integer type has {WIDEST} bits at most")
        return token


def _check_text(data: bytes, name: str) -> None:
    if not data:
        raise HeatcError("the input is empty", place=name)
    for magic, note in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise HeatcError("expected IR in text form", place=name, notes=[note])
    if b"\0" in data:
        raise HeatcError("expected IR in text form, this is binary", place=name)
    decode(data, name)
