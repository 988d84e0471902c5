"""
`heatc-tune`: chooses what a plan says, on your own data.

    heatc-tune calibrate MODEL --data calib.npz --goal "sparsity>=0.85" -o plan.json
    heatc MODEL --plan plan.json -o prog.hdp

    calibrate   the parameters of attention pruning (rule `ours`) per layer and head
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatc.errors import UsageError
from heatc.tools.diagnostics import ToolParser, remark, run_tool, suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heatc.api import Compilation
    from heatc.tuning.session import Request, Step

PROG = "heatc-tune"
COMMANDS = ("calibrate",)
PLANNED = ("search", "distill")

DEFAULT_TARGET = "hdp-edge"
_BATCH = 32
"""Samples at once where the batch is ours to choose."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `heatc-tune`."""
    return run_tool(_run, argv, PROG)


def _run(argv: Sequence[str]) -> int:
    parser = ToolParser(PROG, (__doc__ or "").strip())
    parser.add_argument("command", metavar="COMMAND", help="calibrate")
    if argv and not argv[0].startswith("-"):
        _check_command(argv[0])
        return _calibrate(argv[1:])
    parser.parse_args(argv)
    raise UsageError("no COMMAND given", notes=[f"see {PROG} --help"])


def _check_command(name: str) -> None:
    if name in COMMANDS:
        return
    if name in PLANNED:
        raise UsageError(
            f"{name!r} is not there yet", notes=[f"what is there: {', '.join(COMMANDS)}"]
        )
    notes = [*suggest(name, COMMANDS), f"commands: {', '.join(COMMANDS)}"]
    raise UsageError(f"unknown command {name!r}", notes=notes)


def _calibrate_parser() -> ToolParser:
    parser = ToolParser(f"{PROG} calibrate", "Choose attention pruning per layer and head.")
    add = parser.add_argument
    add("model", metavar="MODEL", help="torch.export archive, Hugging Face folder, ...")
    add("--data", metavar="FILE.npz", required=True, help="inputs by name, optional labels")
    add("--goal", metavar="GOAL", required=True, help='e.g. "accuracy-drop<=1", "sparsity>=0.85"')
    add("-o", dest="output", metavar="PLAN.json", required=True, help="the plan")
    add("--target", metavar="NAME", help="machine of a cycle goal: hdp-edge (default), hdp-server")
    add("--hw", metavar="FILE", help="hardware description (YAML) instead of a target's")
    add("--inputs", metavar="SPEC", help='e.g. "input_ids=1x128:i64,attention_mask=1x128:i64"')
    add("--weights", metavar="FILE", help="safetensors file of the weights of an .mlir MODEL")
    add("--trust-pickle", action="store_true", help="unpickle MODEL: runs code that it contains")
    add("--seed", type=int, default=0, help="of the samples that are held back, default 0")
    add("--work-dir", metavar="DIR", help="where an interrupted run goes on (user's cache)")
    add("--quiet", "-q", action="store_true", help="no progress, no table")
    return parser


def _calibrate(argv: Sequence[str]) -> int:
    arguments = _calibrate_parser().parse_args(argv)
    request = _request(arguments)
    from heatc.tuning.session import calibrate

    with _progress(arguments.quiet) as step:
        result = calibrate(request, step)
    for text in result.remarks:
        remark(text, place=PROG)
    if not arguments.quiet:
        print(result.table)
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    from heatc.files import check_writable
    from heatc.tools.npz import read_npz
    from heatc.tuning.goal import parse_goal

    goal = parse_goal(arguments.goal)
    if arguments.seed < 0:
        raise UsageError(f"{arguments.seed} is below 0", place="--seed")
    hardware = _hardware(arguments) or (DEFAULT_TARGET if goal.metric == "cycles" else None)
    if Path(arguments.output).suffix != ".json":
        raise UsageError(f"expected a name that ends in .json: {arguments.output!r}", place="-o")
    check_writable(arguments.output)
    arrays = read_npz(arguments.data)
    # The compiler proper: only once the options are known to be good.
    from heatc.tuning.session import Request

    return Request(
        model=arguments.model,
        compilation=_captured(arguments, arrays, _BATCH),
        arrays=arrays,
        data=arguments.data,
        goal=goal,
        output=Path(arguments.output),
        weights=arguments.weights,
        hw=hardware,
        timed=None if hardware is None else _captured(arguments, arrays, 1),
        seed=arguments.seed,
        folder=Path(arguments.work_dir) if arguments.work_dir else None,
    )


def _captured(
    arguments: argparse.Namespace, arrays: Mapping[str, NDArray[Any]], batch: int
) -> Compilation:
    """The model, captured; a folder is exported for the shapes of the data and this batch."""
    from heatc.api import Compilation
    from heatc.capture import InputSpec, parse_inputs
    from heatc.pipeline import Options

    compilation = Compilation(Options(level=0))
    path = Path(arguments.model)
    if path.suffix == ".mlir":
        _adopt_ir(arguments, compilation)
        return compilation
    inputs = parse_inputs(arguments.inputs) if arguments.inputs else None
    if inputs is None and path.is_dir():
        given = {n: a for n, a in arrays.items() if n != "labels" and a.ndim > 1}
        inputs = {
            n: InputSpec((batch, *a.shape[1:]), "f32" if a.dtype.kind == "f" else "i64")
            for n, a in given.items()
        }
    compilation.capture(path, inputs, trust_pickle=arguments.trust_pickle)
    return compilation


def _adopt_ir(arguments: argparse.Namespace, compilation: Compilation) -> None:
    """The module of an .mlir MODEL, with the weights of --weights."""
    from heatc.api import make_context
    from heatc.tools.parsing import input_name, parse_module, read_text
    from heatc.weights import WeightStore

    if arguments.inputs:
        raise UsageError("the shapes of an .mlir MODEL are in its text", place="--inputs")
    name = input_name(arguments.model)
    module = parse_module(make_context(), read_text(arguments.model), name)
    weights = WeightStore.open(arguments.weights) if arguments.weights else WeightStore({})
    compilation.adopt(module, weights, name)


def _hardware(arguments: argparse.Namespace) -> str | None:
    """The machine that was named, checked before any model is read."""
    from heatc.hardware import load_hardware, preset_names

    if arguments.hw is not None and arguments.target is not None:
        raise UsageError("--hw and --target both name the machine", notes=["give one of them"])
    if arguments.target is not None and arguments.target not in preset_names():
        raise UsageError(
            f"unknown target {arguments.target!r}",
            place="--target",
            notes=[
                *suggest(arguments.target, preset_names()),
                f"targets that prune attention: {', '.join(preset_names())}",
            ],
        )
    name = arguments.hw or arguments.target
    if name is not None:
        load_hardware(name)
    return name


@contextmanager
def _progress(quiet: bool) -> Generator[Step]:
    """Bars on a terminal's stderr, one for each kind of work."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=hidden) as progress:
        tasks: dict[str, object] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)  # pyright: ignore[reportArgumentType]

        yield step


if __name__ == "__main__":
    sys.exit(main())
