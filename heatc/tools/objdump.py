"""
`hdp-objdump`: shows what is in a program, in the shape of GNU's objdump.

    prog.hdp:     format hdp 2

    Disassembly of section program.bin:

         0: 00...0160  hpack d0, d1, d2, batch=1, length=64  # embeddings

The number in front of an instruction is its pc. The text assembles back with `hdp-as`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from heatc.backends.hdp.container import (
    MAGIC,
    PROGRAM,
    SCHEMA,
    Program,
    open_program,
    read_program_file,
)
from heatc.backends.hdp.debug import Location, Locations
from heatc.errors import HeatcError, UsageError
from heatc.isa.words import Inst, encode, to_text
from heatc.readers.source import open_file
from heatc.tools.diagnostics import ToolParser, run_tool

PROG = "hdp-objdump"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `hdp-objdump`."""
    return run_tool(_run, argv, PROG)


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, "shows the sections and instructions of a program")
    parser.add_argument("file", metavar="FILE", help="a .hdp, or a program.bin of hdp-as")
    shows = (
        ("-h", "--section-headers", "the sections: size, checksum, place in the file"),
        ("-x", "--manifest", "the manifest: options, hardware, inputs, outputs, binary points"),
        ("-t", "--tensors", "the weights: address, dtype, shape"),
        ("-d", "--disassemble", "the instructions"),
        ("-S", "--source", "the instructions, with module paths and source lines between them"),
    )
    # As in objdump, -h shows sections; help is --help alone.
    group = parser.add_argument_group("what to show", conflict_handler="resolve")
    for short, long, text in shows:
        group.add_argument(short, long, action="store_true", help=text)
    parser.add_argument(
        "--show-raw-insn",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="print the word of each instruction",
    )
    parser.add_argument("--start-address", metavar="PC", type=int, default=0, help="first pc")
    parser.add_argument("--stop-address", metavar="PC", type=int, help="the pc to stop before")
    return parser


def _run(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    shows = (args.section_headers, args.manifest, args.tensors, args.disassemble, args.source)
    if not any(shows):
        raise UsageError("nothing to show", notes=["give -h, -x, -t, -d or -S"])
    path = Path(args.file)
    program = None if _is_bare(path) else open_program(path)
    if program is None and any(shows[:3]):
        raise UsageError("-h, -x and -t need a .hdp", place=args.file)
    # stdout may be redirected to an ASCII locale.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    for line in _lines(args, path, program):
        print(line)


def _is_bare(path: Path) -> bool:
    """Whether the file is a program.bin on its own."""
    try:
        with open_file(path, "a program", pipes=False) as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except (OSError, HeatcError):
        # Opening it as a .hdp says what is wrong.
        return False


def _lines(args: argparse.Namespace, path: Path, program: Program | None) -> Iterator[str]:
    yield f"{path}:     format hdp {SCHEMA}"
    if program is not None and args.section_headers:
        yield from _section_lines(program)
    if program is not None and args.manifest:
        yield ""
        yield "Manifest:"
        yield json.dumps(program.manifest.to_json(), indent=1, ensure_ascii=False)
    if program is not None and args.tensors:
        yield from _tensor_lines(program)
    if not (args.disassemble or args.source):
        return
    instructions = read_program_file(path) if program is None else program.instructions
    locations = Locations({} if program is None else program.debug)
    stop = len(instructions) if args.stop_address is None else args.stop_address
    pcs = range(max(args.start_address, 0), min(stop, len(instructions)))
    yield ""
    yield f"Disassembly of section {PROGRAM}:"
    yield ""
    if args.source:
        yield from _source_lines(instructions, pcs, locations, args.show_raw_insn)
        return
    for pc in pcs:
        comment = locations.at(pc).path
        line = _instruction_line(pc, instructions[pc], args.show_raw_insn)
        yield f"{line}  # {comment}" if comment else line


def _section_lines(program: Program) -> Iterator[str]:
    rows = [("Name", "Size", "CRC-32")]
    for name, section in program.manifest.sections.items():
        rows.append((name, str(section["bytes"]), str(section["crc32"])))
    yield ""
    yield "Sections (size in bytes):"
    width, size_width = (max(len(row[i]) for row in rows) for i in (0, 1))
    for name, size, crc in rows:
        yield f"  {name:{width}}  {size:>{size_width}}  {crc}"
    manifest = program.manifest
    yield ""
    yield (
        f"{len(program.instructions)} instructions, {program.weights.nbytes} bytes of weights, "
        f"{manifest.dram_bytes} bytes of DRAM, made for {manifest.hardware.name} "
        f"by {manifest.producer}"
    )


def _tensor_lines(program: Program) -> Iterator[str]:
    yield ""
    yield "Tensors (address in bytes):"
    for name, tensor in program.tensors.items():
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        point = program.manifest.points.get(name)
        at_point = "" if point is None else f"  point {point}"
        yield f"  {tensor.address:#012x}  {tensor.dtype:8} {shape:>14}  {name}{at_point}"


def _source_lines(
    instructions: Sequence[Inst], pcs: range, locations: Locations, raw: bool
) -> Iterator[str]:
    before = Location()
    for pc in pcs:
        location = locations.at(pc)
        if location != before:
            yield f"; {location}" if location.path or location.source else "; (no location)"
        before = location
        yield _instruction_line(pc, instructions[pc], raw)


def _instruction_line(pc: int, instruction: Inst, raw: bool) -> str:
    word = f"{int.from_bytes(encode(instruction), 'little'):032x}\t" if raw else ""
    return f"{pc:6}:\t{word}{to_text(instruction)}"


if __name__ == "__main__":
    sys.exit(main())
