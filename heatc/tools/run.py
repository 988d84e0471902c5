"""
`hdp-run`: runs a program on inputs, and says what it computed and what it would cost.

Values are exact; cycles, time and bytes are modelled. stdout gets one table.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp.container import Program, open_program
from heatc.backends.hdp.simulation import (
    Simulation,
    check_hardware,
    mask_port,
    simulate,
    split_inputs,
)
from heatc.errors import HeatcError
from heatc.files import atomic_write, from_os_error
from heatc.hardware import Hardware, load_hardware, preset_names, render
from heatc.tools.comparison import Bounds, Difference, check_reference, compare, require
from heatc.tools.diagnostics import ToolParser, run_tool, warn
from heatc.tools.npz import read_npz, write_npz
from heatc.tools.run_stats import (
    Figure,
    figures,
    saturations_by_path,
    stats_json,
    stats_text,
)

PROG = "hdp-run"

Array = NDArray[np.generic]

_EPILOG = """\
exit codes: 0 ok, 1 bad program or input, 2 usage, 3 the reference differs by more than its
bounds, 4 the program does not fit on --hw, 70 internal error, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `hdp-run`."""
    return run_tool(_run, argv, PROG)


def _parser() -> ToolParser:
    parser = ToolParser(PROG, "runs a program on inputs: exact values, modelled cost", _EPILOG)
    parser.add_argument("program", metavar="PROG.hdp")
    parser.add_argument(
        "--inputs",
        metavar="IN.npz",
        required=True,
        help="the model's inputs by name; more samples than the program's batch run in passes",
    )
    parser.add_argument("-o", dest="output", metavar="OUT.npz", help="the outputs by name, float32")
    parser.add_argument("--reference", metavar="GOLDEN.npz", help="outputs to compare with")
    bounds = (
        ("--atol", "bound: |error| <= atol + rtol * |reference|"),
        ("--rtol", "see --atol"),
        ("--min-cosine", "least cosine of a token's vector (0.999 if no bound is given)"),
    )
    for name, text in bounds:
        parser.add_argument(name, metavar="X", type=_bound, help=text)
    parser.add_argument(
        "--stats", metavar="DIR", help="write stats.json, stats.txt and hardware.yaml there"
    )
    parser.add_argument(
        "--layers",
        metavar="LAYERS.npz",
        help="write the codes of named tensors, block masks and head gates",
    )
    parser.add_argument(
        "--hw",
        metavar="NAME|FILE.yaml",
        help=f"other hardware than compiled for: {', '.join(preset_names())} or a file",
    )
    parser.add_argument("--quiet", "-q", action="store_true", help="print no table")
    return parser


def _bound(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return value


def _run(argv: Sequence[str]) -> None:
    parser = _parser()
    args = parser.parse_args(argv)
    bounds = Bounds(args.atol, args.rtol, args.min_cosine)
    if args.reference is None and bounds != Bounds():
        parser.error("--atol, --rtol and --min-cosine need --reference")
    other = load_hardware(args.hw) if args.hw is not None else None
    program = open_program(args.program)
    if other is not None:
        check_hardware(program, other)
    inputs = _read_inputs(program, args.inputs)
    reference = _read_reference(program, inputs, args.reference)
    with ExitStack() as files:
        output, layers = (_open(files, path) for path in (args.output, args.layers))
        stats = _open_stats(files, args.stats)
        simulation = simulate(program, inputs, other, layers=layers is not None)
        hardware = other or program.manifest.hardware
        rows = figures(simulation, hardware)
        if output:
            write_npz(output, simulation.outputs)
        if layers:
            write_npz(layers, simulation.layers)
        if stats:
            stats["stats.json"].write(stats_json(rows, simulation, program, hardware).encode())
            stats["stats.txt"].write(stats_text(rows).encode())
            stats["hardware.yaml"].write(render(hardware).encode())
    differences = None
    if reference is not None:
        mask = _mask(program, inputs)
        differences = compare(simulation.outputs, reference, mask, bounds)
    _warn_about_saturation(simulation, program)
    if not args.quiet:
        print(_table(program, hardware, simulation, rows, differences))
    if differences is not None:
        require(differences, bounds)


def _read_inputs(program: Program, path: str) -> dict[str, Array]:
    """The inputs, checked here so that no output file is opened for wrong ones."""
    inputs = read_npz(path)
    try:
        split_inputs(program.manifest, inputs)
    except HeatcError as error:
        place = f"{path}: {error.place}"
        raise type(error)(error.message, place=place, notes=error.notes) from error
    return inputs


def _read_reference(
    program: Program, inputs: Mapping[str, Array], path: str | None
) -> dict[str, Array] | None:
    """The reference, checked before the run."""
    if path is None:
        return None
    reference = read_npz(path)
    samples = split_inputs(program.manifest, inputs)[1]
    ports = program.manifest.outputs
    many = any(port.shape[:1] != (samples,) for port in program.manifest.inputs)
    shapes = {p.name: (samples, *p.shape[1:]) if many else p.shape for p in ports}
    check_reference(reference, shapes, path)
    return reference


def _open(files: ExitStack, path: str | None) -> IO[bytes] | None:
    return None if path is None else files.enter_context(atomic_write(path))


def _open_stats(files: ExitStack, folder: str | None) -> dict[str, IO[bytes]]:
    if folder is None:
        return {}
    try:
        os.makedirs(folder, exist_ok=True)
    except (OSError, ValueError) as error:
        os_error = error if isinstance(error, OSError) else OSError(None, str(error))
        raise from_os_error(os_error, folder, "create") from error
    names = ("stats.json", "stats.txt", "hardware.yaml")
    return {name: files.enter_context(atomic_write(Path(folder) / name)) for name in names}


def _mask(program: Program, inputs: Mapping[str, Array]) -> Array | None:
    port = mask_port(program.manifest)
    return None if port is None else inputs[port.name]


def _warn_about_saturation(simulation: Simulation, program: Program) -> None:
    counts = saturations_by_path(simulation, program)
    if not counts:
        return
    worst = sorted(counts.items(), key=lambda item: -item[1])[:3]
    notes = [f"{count} in {path}" for path, count in worst]
    notes.append("compile with --calibrate on data like this to move the binary points")
    warn(f"{sum(counts.values())} values saturated", place=PROG, notes=notes)


# --- The table --------------------------------------------------------------------------------


def _table(
    program: Program,
    hardware: Hardware,
    simulation: Simulation,
    rows: Sequence[Figure],
    differences: Sequence[Difference] | None,
) -> str:
    values = {figure.name: figure.value for figure in rows}
    moved = (values["dram_read_bytes"] or 0) + (values["dram_written_bytes"] or 0)
    microseconds = 1e6 * (values["time_seconds"] or 0)
    lines = [
        ("program", f"{program.path.name}, {len(program.instructions)} instructions", ""),
        ("hardware", hardware.name, ""),
        ("cycles", f"{values['total_cycles']:,}", "modelled"),
        ("time", f"{microseconds:,.1f} us at {hardware.clock_hz / 1e6:g} MHz", "modelled"),
        ("DRAM", f"{moved:,} bytes", "modelled"),
        ("host share", _percent(values["host_utilisation_percent"]), "modelled"),
        ("PE utilisation", _percent(values["pe_utilisation_percent"]), "modelled"),
        ("kept blocks", _percent(values["kept_blocks_percent"]), "functional"),
        ("kept heads", _percent(values["kept_heads_percent"]), "functional"),
        ("saturated values", f"{values['saturated_values_count']:,}", "functional"),
    ]
    passes = len(simulation.results)
    if passes > 1:
        each = (values[f"pass_{name}_cycles"] or 0 for name in ("p50", "p95", "max"))
        text = " / ".join(f"{value:,.0f}" for value in each)
        lines.insert(3, (f"p50/p95/max of {passes} passes", text, "modelled"))
    for d in differences or ():
        text = f"max abs error {d.max_abs_error:.3g}, cosine {d.cosine:.6f}"
        verdict = "ok" if d.holds else "OUT OF BOUNDS"
        lines.append((d.name, f"{text}, least {d.min_cosine:.6f} ({verdict})", "functional"))
    widths = [max(len(line[i]) for line in lines) for i in (0, 1)]
    return "\n".join(
        f"{what:{widths[0]}}  {value:{widths[1]}}  {kind}".rstrip() for what, value, kind in lines
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
