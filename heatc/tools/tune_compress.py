"""`heatc-tune compress`: search, train, prune and compile in one run, within a number of minutes."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.commands import COMPRESS
from heatc.errors import UsageError
from heatc.names import compressed_program
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import ToolParser, remark, suggest
from heatc.tools.hardware_option import add_hardware_argument
from heatc.tools.progress import READING, progress_bars
from heatc.tools.summary.output import add_output_arguments, show, wants_summary
from heatc.tools.tune_distill import SHAPES
from heatc.tools.tune_model import BATCH, add_model_options, captured, folder_option

if TYPE_CHECKING:
    from heatc.hardware import Hardware
    from heatc.tuning.compress.request import Request

PROG = "heatc-tune"

_TEXT = """\
Make a model smaller and faster in one run: search, train, prune where it pays, compile.

    heatc-tune compress MODEL --data train.npz -o small
    heatc-tune compress MODEL --data train.npz --dev dev.npz --goal "accuracy-drop<=1" --minutes 10 -o small
    heatc-tune compress MODEL --data train.npz --goal "edp>=3x" --target hdp-edge-vector -o small

FOLDER gets front.json, a plan with factors for every point (01.json ...), plan.json, the one that the
goals choose, and its program. Goals out of reach are exit code 4: the plans are written all the same,
and plan.json is the one that comes nearest. The same command goes on where it was interrupted."""

DEFAULT_TARGET = "hdp-edge"

DEFAULT_GOAL = "accuracy-drop<=1"

MOST_POINTS = 90


def make_parser() -> ToolParser:
    """The parser of the command."""
    parser = ToolParser("heatc-tune compress", _TEXT)
    add = parser.add_argument
    add("model", metavar="MODEL", help="torch.export archive, Hugging Face folder, ...")
    add("--data", metavar="FILE.npz", required=True, help="inputs by name, optional labels")
    add("--dev", metavar="FILE.npz", help="what judges; without it a quarter of --data")
    add("--extra", metavar="FILE.npz", action="append", default=[], help="text of other domains")
    add(
        "--goal",
        metavar="GOAL",
        action="append",
        help=f'"accuracy-drop<=1" (points), "edp>=2x", or both; default {DEFAULT_GOAL}',
    )
    add("--target", metavar="NAME", help=f"{DEFAULT_TARGET} (default), hdp-server, ..., or numpy")
    add_hardware_argument(add)
    add("--minutes", metavar="M", type=_minutes, help="for the run; the model's size says it else")
    add("-o", dest="output", metavar="FOLDER", required=True, help="plans, front.json, program")
    add("--layers", metavar="GLOB", default="*", help="module paths, | between several")
    add("--formats", metavar="A,B", help="low-rank, in 20 minutes or more all: --list-formats")
    add("--points", metavar="N", type=int, default=6, help="plans to write, default 6")
    add("--seed", type=int, default=0, help="of all that is random, default 0")
    add("--jobs", "-j", metavar="N", type=int, default=-1, help="processes; all cores")
    add("--work-dir", metavar="DIR", help="where an interrupted run goes on (user's cache)")
    add_config_argument(parser)
    add_output_arguments(parser)
    add_model_options(parser)
    return parser


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes")
    return value


def compress_command(argv: Sequence[str]) -> int:
    """The command, with what follows its name."""
    arguments = make_parser().parse_args(argv)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(SHAPES))

    def tell(text: str) -> None:
        if not arguments.quiet:
            remark(text, place=PROG)

    folder = Path(arguments.output)
    with progress_bars(arguments.quiet) as progress:
        progress(READING, 0, 0)
        request = _request(arguments)
        from heatc.tuning.compress.output import (
            out_of_reach,
            table,
            verdict,
            write_plans,
            write_program,
        )
        from heatc.tuning.compress.session import compress

        _tell_start(request, tell)
        result = compress(request, progress, tell)
        data = write_plans(request, result, folder)
        tell(f"{result.budget.told()}: compiling and checking the program")
        checked = write_program(result, folder, progress)
    tell(f"{folder / compressed_program(request.is_numpy)}: {checked}")
    if wants_summary(arguments):
        from heatc.tools.summary.compressed import Compressed, summarize

        text = f"{table(data)}\n\n{verdict(data, folder)}"
        made = Compressed(arguments, data, result.model.inputs, checked)
        show(summarize(made, text), arguments)
    if not result.is_met:
        raise out_of_reach(request, result, folder)
    return 0


def _tell_start(request: Request, tell: Callable[[str], None]) -> None:
    """What was chosen for the user."""
    from heatc.tuning.compress.session import weights_of

    weights = weights_of(request.compilation)
    tell(
        f"goal {request.goals}; a model of {weights:,} weights gets {request.budget.minutes:g} min; "
        f"costs are modelled for {request.hardware.name}"
    )
    if request.dev is None:
        tell(
            f"a quarter of {request.data[0]} is held back (seed {request.seed}) and judges plans; "
            "nothing is trained on it"
        )


def _request(arguments: argparse.Namespace) -> Request:
    began = time.monotonic()
    from heatc.readers.npz import LABELS, open_npz
    from heatc.tools.tune_search import formats_of
    from heatc.tuning.common.goal import parse_goals

    _check_numbers(arguments)
    formats = None if arguments.formats is None else formats_of(arguments.formats)
    goals = parse_goals(arguments.goal or [DEFAULT_GOAL], "compress")
    is_numpy, hardware = _target(arguments)
    COMPRESS.check({**vars(arguments), "is_numpy": is_numpy})
    work = folder_option(arguments.work_dir)
    data = open_npz(arguments.data)
    dev = None if arguments.dev is None else (arguments.dev, open_npz(arguments.dev))
    extra = {name: open_npz(name).without(LABELS) for name in arguments.extra}
    # The compiler proper: only once the options are known to be good.
    from heatc.tuning.compress.budget import Budget, default_minutes
    from heatc.tuning.compress.goals import Goals
    from heatc.tuning.compress.request import Request
    from heatc.tuning.compress.session import weights_of

    compilation = captured(arguments, data, BATCH)
    minutes = arguments.minutes or default_minutes(weights_of(compilation))
    return Request(
        model=arguments.model,
        weights=arguments.weights,
        compilation=compilation,
        timed=captured(arguments, data, 1),
        data=(arguments.data, data),
        dev=dev,
        extra=extra,
        hardware=hardware,
        is_numpy=is_numpy,
        goals=Goals(goals),
        budget=Budget(minutes, began=began),
        layers=arguments.layers,
        formats=formats,
        points=arguments.points,
        seed=arguments.seed,
        jobs=arguments.jobs,
        folder=work,
    )


def _check_numbers(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.points <= MOST_POINTS:
        raise UsageError(f"{arguments.points} is outside 1 to {MOST_POINTS}", place="--points")
    if arguments.seed < 0:
        raise UsageError(f"{arguments.seed} is below 0", place="--seed")
    if arguments.jobs == 0 or arguments.jobs < -1:
        raise UsageError("expected 1 or more, or -1 for all cores", place="--jobs")


def _target(arguments: argparse.Namespace) -> tuple[bool, Hardware]:
    """Whether the program is a NumPy program, and the machine that costs are modelled for."""
    from heatc.hardware import load_hardware, preset_names
    from heatc.targets import Numpy

    numpy = Numpy().name
    names = (*preset_names(), numpy)
    if arguments.target is not None and arguments.target not in names:
        notes = [*suggest(arguments.target, names), f"targets: {', '.join(names)}"]
        raise UsageError(f"unknown target {arguments.target!r}", place="--target", notes=notes)
    is_numpy = arguments.target == numpy
    if arguments.hw is not None and arguments.target is not None and not is_numpy:
        raise UsageError("--hw and --target both name the machine", notes=["give one of them"])
    machine = None if is_numpy else arguments.target
    return is_numpy, load_hardware(arguments.hw or machine or DEFAULT_TARGET)
