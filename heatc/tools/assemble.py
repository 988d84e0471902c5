"""
`hdp-as`: turns the text of a program into its words.

It reads what `hdp-objdump -d` prints, with or without the raw words, and what a person writes:
one instruction a line, comments behind `#`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from heatc.backends.hdp.container import program_bytes
from heatc.commands import HDP_AS
from heatc.errors import HeatcError
from heatc.files import atomic_write
from heatc.isa.words import Inst, from_text
from heatc.readers.source import STDIN, decode, read_bytes, read_stdin
from heatc.tools.diagnostics import ToolParser, run_tool

PROG = "hdp-as"

_LARGEST_TEXT = 64 << 20
_MOST_ERRORS = 20

_LABEL = re.compile(r"\s*\d+:\s*")
_RAW_WORD = re.compile(r"[0-9a-f]{32}\s+")
_HEADING = re.compile(r".*:\s+format hdp \d+|Disassembly of section program\.bin:|\.\.\.")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `hdp-as`."""
    return run_tool(_run, argv, PROG)


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, "turns the text of a program into a program.bin")
    parser.add_argument("input", metavar="FILE", help="the text, - for standard input")
    parser.add_argument(
        "-o",
        dest="output",
        metavar="FILE",
        required=True,
        help="the program.bin, - for standard output",
    )
    return parser


def _run(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    HDP_AS.check(vars(args))
    program = program_bytes(assemble(*_read(args.input)))
    if args.output == "-":
        sys.stdout.buffer.write(program)
        return
    with atomic_write(args.output) as stream:
        stream.write(program)


def _read(path: str) -> tuple[str, str]:
    """The text of the input and its name for messages."""
    name = "<stdin>" if path == STDIN else path
    what = "the text of a program"
    read = (
        read_stdin(what, _LARGEST_TEXT) if path == STDIN else read_bytes(path, what, _LARGEST_TEXT)
    )
    try:
        return decode(read, name), name
    except HeatcError as error:
        note = "hdp-objdump -d prints the text of a program"
        raise HeatcError(error.message, place=error.place, notes=[note]) from None


def assemble(text: str, name: str = "<text>") -> list[Inst]:
    """
    The instructions of a text. All wrong lines are reported together.

    Empty lines, comments (`#`, and `;` at the start of a line), the headings of `hdp-objdump`,
    the numbers and the raw words in front of instructions are skipped.
    """
    program: list[Inst] = []
    errors: list[tuple[int, HeatcError]] = []
    for number, line in enumerate(text.splitlines(), 1):
        code = _code(line)
        if not code:
            continue
        try:
            program.append(from_text(code))
        except HeatcError as error:
            errors.append((number, error))
    if errors:
        raise _together(errors, name)
    return program


def _code(line: str) -> str:
    """The instruction of a line, without what is printed around it."""
    code = line.partition("#")[0].strip()
    if not code or code.startswith(";") or _HEADING.fullmatch(code):
        return ""
    label = _LABEL.match(code)
    code = code[label.end() :] if label else code
    word = _RAW_WORD.match(code)
    return code[word.end() :] if word else code


def _together(errors: Sequence[tuple[int, HeatcError]], name: str) -> HeatcError:
    (line, first), *others = errors
    notes = list(first.notes)
    notes += [f"{name}:{number}: {error.message}" for number, error in others[: _MOST_ERRORS - 1]]
    if others:
        notes.append(f"{len(errors)} errors in all")
    return HeatcError(first.message, place=f"{name}:{line}", notes=notes)


if __name__ == "__main__":
    sys.exit(main())
