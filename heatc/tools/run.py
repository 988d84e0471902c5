"""
`hdp-run`: runs a program on inputs, and says what it computed and what it would cost.

    hdp-run p.hdp --inputs in.npz -o out.npz --stats stats/    values and cost
    hdp-run p.hdp --inputs in.npz --save-masks masks.npz       keep the masks of this run
    hdp-run p.hdp --model=timing --masks masks.npz --hw x.yaml  the cost alone, on those masks
    hdp-run p.hdp --inputs in.npz --trace x.pftrace            a timeline for ui.perfetto.dev

Values are exact; cycles, time and bytes are modelled. stdout gets one table.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from heatc import kinds
from heatc.backends.hdp.container import Program, open_program
from heatc.backends.hdp.recorders import as_one
from heatc.backends.hdp.simulation import (
    Simulation,
    check_forms,
    check_hardware,
    mask_port,
    simulate,
    simulate_timing,
    split_inputs,
    split_stored,
)
from heatc.backends.hdp.timeline import Timeline
from heatc.backends.hdp.trace import SINKS, TraceRecorder
from heatc.commands import HDP_RUN
from heatc.errors import HeatcError
from heatc.files import Batch, together
from heatc.hardware import Hardware, load_hardware
from heatc.machine.budget import MAX_SECONDS
from heatc.names import STATS, TIMELINE
from heatc.progress import ProgressCallback
from heatc.readers.npz import open_npz, write_npz
from heatc.tools.comparison import Bounds, check_reference, compare, require
from heatc.tools.config import add_config_argument
from heatc.tools.data_dictionary import explain
from heatc.tools.diagnostics import ToolParser, run_tool, warn
from heatc.tools.hardware_option import add_hardware_argument
from heatc.tools.layer_stats import layers_of
from heatc.tools.progress import progress_bars
from heatc.tools.quantities import FUNCTIONAL
from heatc.tools.run_stats import (
    MODES,
    figures_of,
    run_of,
    saturations_by_path,
)
from heatc.tools.stats_folder import StatsContent, StatsFolder
from heatc.tools.summary.output import add_output_arguments, show, wants_summary
from heatc.tools.summary.simulated import Simulated, summarize
from heatc.tools.sweep_options import add_sweep_options, check_sweep

PROG = "hdp-run"

MOST_KEPT = 1000
"""Inputs whose masks may be kept for people to look at."""

Array = NDArray[np.generic]
Line = tuple[str, str, str]

_EPILOG = """\
exit codes: 0 ok, 1 bad program or input, 2 usage, 3 the reference differs by more than its
bounds, 4 the program does not fit on --hw, 70 internal error, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `hdp-run`."""
    return run_tool(_run, argv, PROG)


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, "runs a program on inputs: exact values, modelled cost", _EPILOG)
    parser.add_argument("program", metavar="PROG.hdp")
    parser.add_argument(
        "--inputs",
        metavar="IN.npz",
        help="the model's inputs by name; more samples than the program's batch run in passes",
    )
    parser.add_argument("-o", dest="output", metavar="OUT.npz", help="the outputs by name")
    parser.add_argument("--reference", metavar="GOLDEN.npz", help="outputs to compare with")
    bounds = (
        ("--atol", "bound: |error| <= atol + rtol * |reference|"),
        ("--rtol", "see --atol"),
        ("--min-cosine", "least cosine of a token's vector (0.999 if no bound is given)"),
    )
    for name, text in bounds:
        parser.add_argument(name, metavar="X", type=_bound, help=text)
    parser.add_argument(
        "--stats",
        metavar="DIR",
        help=f"write {', '.join(STATS)} and {TIMELINE} there (docs/stats.md)",
    )
    parser.add_argument(
        "--keep-masks",
        metavar="N",
        type=_count,
        default=0,
        help="keep block masks and head gates of the first N inputs in masks.npz of --stats",
    )
    parser.add_argument(
        "--layers",
        metavar="LAYERS.npz",
        help="write the codes of named tensors, block masks and head gates",
    )
    add_hardware_argument(parser.add_argument)
    parser.add_argument(
        "--model",
        choices=MODES,
        default="both",
        help="values alone, their cost alone on --masks, or both (default)",
    )
    parser.add_argument(
        "--masks", metavar="MASKS.npz", help="for --model=timing: what --save-masks wrote"
    )
    parser.add_argument(
        "--save-masks",
        metavar="MASKS.npz",
        help="write block masks, head gates and lengths, for --model=timing",
    )
    parser.add_argument(
        "--trace",
        metavar="X.pftrace|X.json",
        help="write a timeline of the engines: Perfetto's format or Chrome's",
    )
    parser.add_argument(
        "--explain", metavar="NAME", action=_Explain, help="say what a figure of --stats is"
    )
    parser.add_argument(
        "--max-seconds",
        metavar="S",
        type=_seconds,
        default=MAX_SECONDS,
        help=f"stop a pass that takes longer, default {MAX_SECONDS:g}",
    )
    add_config_argument(parser)
    add_output_arguments(parser)
    add_sweep_options(parser)
    return parser


class _Explain(argparse.Action):
    """Answers at once, like --version."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        print(explain(str(values)))
        parser.exit()


def _bound(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_KEPT:
        message = f"expected a whole number from 1 to {MOST_KEPT}, found {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _seconds(text: str) -> float:
    value = _bound(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, found {text!r}")
    return value


def _run(argv: Sequence[str]) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    bounds = Bounds(args.atol, args.rtol, args.min_cosine)
    if args.reference is None and bounds != Bounds():
        parser.error("--atol, --rtol and --min-cosine need --reference")
    _check_modes(parser, args)
    sweeps = check_sweep(args)
    HDP_RUN.check(vars(args))
    if sweeps:
        from heatc.tools.sweep import run_sweep

        with progress_bars(args.quiet) as progress:
            text = run_sweep(args, sweeps, partial(_masks_of, args, progress), progress)
        if not args.quiet:
            print(text)
        return
    with progress_bars(args.quiet) as progress:
        ran = _execute(args, bounds, progress)
    _warn_about_saturation(ran.simulation, ran.program)
    _warn_about_nothing_left(ran.simulation, ran.program)
    if wants_summary(args):
        show(summarize(ran), args)
    if ran.differences is not None:
        require([*ran.differences], bounds)


def _execute(args: argparse.Namespace, bounds: Bounds, progress: ProgressCallback) -> Simulated:
    other = load_hardware(args.hw) if args.hw is not None else None
    program = open_program(args.program)
    if other is not None:
        check_hardware(program, other)
    timing = args.model == "timing"
    inputs = {} if timing else _read_inputs(program, args.inputs)
    stored: Mapping[str, Array] = _read_masks(program, args.masks) if timing else {}
    reference = _read_reference(program, inputs, args.reference)
    hardware = other or program.manifest.hardware
    with together() as files:
        stats = StatsFolder.open(files, vars(args))
        paths = (args.output, args.layers, args.save_masks)
        output, layers, masks = (_open(files, path) for path in paths)
        trace = _open_trace(files, args.trace, program, hardware)
        timeline = _timeline(program, hardware) if stats and args.model != FUNCTIONAL else None
        watched: dict[str, Any] = {
            "trace": as_one([recorder for recorder in (trace, timeline) if recorder is not None]),
            "max_seconds": args.max_seconds,
            "progress": progress,
        }
        if timing:
            run = partial(simulate_timing, program, stored, other)
        else:
            with_masks = masks is not None or args.keep_masks > 0
            wanted = {"layers": layers is not None, "masks": with_masks}
            run = partial(simulate, program, inputs, other, **wanted)
        simulation = run(**watched)
        progress("counting what was done", 0, 0)
        if trace:
            trace.close()
        measured = run_of(simulation, hardware)
        rows = figures_of(measured, modelled=args.model != FUNCTIONAL)
        arrays = (simulation.outputs, simulation.layers, simulation.masks)
        npz_kinds = (kinds.OUTPUTS, kinds.LAYERS, kinds.MASKS)
        for stream, content, kind in zip((output, layers, masks), arrays, npz_kinds):
            if stream:
                write_npz(stream, content, kind)
        differences = None
        if reference is not None:
            mask = _mask(program, inputs)
            differences = compare(simulation.outputs, reference, mask, bounds)
        if stats:
            path = None if timing else Path(args.inputs)
            made = (rows, simulation, program, measured, args.model, timeline, path, differences)
            stats.write(StatsContent(*made))
    return Simulated(args, program, hardware, simulation, rows, differences)


def _masks_of(
    args: argparse.Namespace, progress: ProgressCallback, program: Program
) -> Mapping[str, Array]:
    """The masks of the run that is asked for."""
    if args.model == "timing":
        return _read_masks(program, args.masks)
    inputs = _read_inputs(program, args.inputs)
    watched: dict[str, Any] = {"max_seconds": args.max_seconds, "progress": progress}
    return simulate(program, inputs, masks=True, **watched).masks


def _check_modes(parser: ToolParser, args: argparse.Namespace) -> None:
    """Refuses options that contradict --model."""
    if args.trace is not None and Path(args.trace).suffix not in SINKS:
        parser.error(f"--trace: expected a name that ends in {' or '.join(SINKS)}")
    if args.model != "timing":
        if args.masks is not None:
            parser.error("--masks needs --model=timing")
        if args.inputs is None:
            parser.error("--inputs is missing")
        if args.keep_masks and args.stats is None:
            parser.error("--keep-masks needs --stats, the folder that masks.npz is written to")
        if args.model == FUNCTIONAL and args.trace is not None:
            parser.error("--trace shows what is modelled, --model=functional does not model it")
        return
    if args.masks is None:
        parser.error("--model=timing needs --masks, which --save-masks writes")
    valued = ("inputs", "output", "reference", "layers", "save_masks", "keep_masks")
    for name in valued:
        if getattr(args, name):
            option = "-o" if name == "output" else f"--{name.replace('_', '-')}"
            parser.error(f"{option} needs values, --model=timing computes none")


def _read_masks(program: Program, path: str) -> Mapping[str, Array]:
    """The masks, checked here so that no output file is opened for wrong ones."""
    stored = open_npz(path)
    with _in_file(path):
        split_stored(program, stored)
    return stored


def _read_inputs(program: Program, path: str) -> dict[str, Array]:
    """The inputs, checked here so that no output file is opened for wrong ones."""
    file, names = open_npz(path), [port.name for port in program.manifest.inputs]
    with _in_file(path):
        # Before any data: the file may hold gigabytes of something else.
        check_forms(program.manifest, file.headers)
        inputs = {name: file[name] for name in names}
        split_inputs(program.manifest, inputs)
    return inputs


@contextmanager
def _in_file(path: str) -> Generator[None]:
    """Errors about arrays say which file they are in."""
    try:
        yield
    except HeatcError as error:
        place = error.place if error.place.startswith(path) else f"{path}: {error.place}"
        raise type(error)(error.message, place=place, notes=error.notes) from error


def _read_reference(
    program: Program, inputs: Mapping[str, Array], path: str | None
) -> dict[str, Array] | None:
    """The reference, checked before the run."""
    if path is None:
        return None
    file = open_npz(path)
    samples = split_inputs(program.manifest, inputs)[1]
    ports = program.manifest.outputs
    many = any(port.shape[:1] != (samples,) for port in program.manifest.inputs)
    shapes = {p.name: (samples, *p.shape[1:]) if many else p.shape for p in ports}
    check_reference(file.headers, shapes, path)
    return {name: file[name] for name in shapes if name in file}


def _open(files: Batch, path: str | None) -> IO[bytes] | None:
    return None if path is None else files.open(path)


def _timeline(program: Program, hardware: Hardware) -> Timeline:
    return Timeline(program.debug, len(program.instructions), hardware.cores)


def _open_trace(
    files: Batch, path: str | None, program: Program, hardware: Hardware
) -> TraceRecorder | None:
    if path is None:
        return None
    stream = files.open(path)
    sink = SINKS[Path(path).suffix](stream)
    return TraceRecorder(
        sink, program.instructions, program.debug, hardware.cores, hardware.clock_hz
    )


def _mask(program: Program, inputs: Mapping[str, Array]) -> Array | None:
    port = mask_port(program.manifest)
    return None if port is None else inputs[port.name]


def _warn_about_nothing_left(simulation: Simulation, program: Program) -> None:
    """Say which attentions gave nothing at all: each of their heads was pruned in every pass."""
    notes = [
        f"all {heads} heads of {layer.path}"
        for layer in layers_of(simulation, program)
        if (heads := layer.sum(lambda r: r.pc_heads))
        and heads == layer.sum(lambda r: r.pc_heads_pruned)
    ]
    if notes:
        notes.append("a smaller tau_h keeps heads: heatc --tau-h, or another plan")
        warn("nothing is left of an attention", place=PROG, notes=notes)


def _warn_about_saturation(simulation: Simulation, program: Program) -> None:
    counts = saturations_by_path(simulation, program)
    if not counts:
        return
    worst = sorted(counts.items(), key=lambda item: -item[1])[:3]
    notes = [f"{count} in {path}" for path, count in worst]
    notes.append("compile with --calibrate on data like this to move the binary points")
    warn(f"{sum(counts.values())} values saturated", place=PROG, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
