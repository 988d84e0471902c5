"""`heatc-tune search`: format, shape and ranks of every layer, chosen for a machine and on data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.commands import SEARCH
from heatc.errors import UsageError
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import ToolParser, suggest
from heatc.tools.hardware_option import add_hardware_argument
from heatc.tools.progress import READING, progress_bars
from heatc.tools.summary.output import add_output_arguments, show, wants_summary
from heatc.tools.tune_model import BATCH, add_model_options, captured, folder_option

if TYPE_CHECKING:
    from heatc.hardware import Hardware
    from heatc.heat.formats import Format
    from heatc.tuning.search.hardware_space import HardwareSpace
    from heatc.tuning.search.session import Request

_TEXT = """\
Search format, shape and ranks of every layer: the front of accuracy and energy x latency.

    heatc-tune search MODEL --target hdp-edge --data train.npz --layers "*encoder.*" -o front
    heatc-tune search MODEL --hw-space machines.yaml --data train.npz --goal "edp>=5.7x" -o front
    heatc-tune distill MODEL --plan front/03.json --data train.npz -o small.json

Nothing is trained. FOLDER gets front.json, a plan for each point, and with --goal plan.json."""

DEFAULT_TARGET = "hdp-edge"

MOST_POINTS = 1000


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser("heatc-tune search", _TEXT)
    add = parser.add_argument
    add("model", metavar="MODEL", help="torch.export archive, Hugging Face folder, ...")
    add("--data", metavar="FILE.npz", required=True, help="inputs by name, optional labels")
    add("--dev", metavar="FILE.npz", help="what validates; without it a quarter of --data")
    add("-o", dest="output", metavar="FOLDER", required=True, help="front.json and the plans")
    add("--target", metavar="NAME", help=f"the machine: {DEFAULT_TARGET} (default), hdp-server")
    add_hardware_argument(add)
    add("--hw-space", metavar="FILE", help="keys with lists of values: machines to choose from")
    add("--layers", metavar="GLOB", default="*", help="module paths, | between several")
    add("--formats", metavar="A,B", help="see heatc --list-formats (all)")
    add("--points", metavar="N", type=int, default=8, help="plans to write, default 8")
    add("--programs", action="store_true", help="compile the points, time whole programs too")
    add("--goal", metavar="GOAL", help='"edp>=5.7x" or "proxy<=0.05": one plan, plan.json')
    add("--validate", metavar="N", type=int, default=16, help="plans to measure, default 16")
    add("--samples", metavar="N", type=int, default=128, help="that errors are weighed on (128)")
    add("--seed", type=int, default=0, help="of all that is random, default 0")
    add("--jobs", "-j", metavar="N", type=int, default=-1, help="processes; all cores")
    add("--dask", metavar="ADDRESS", help="scheduler of a Dask cluster to work on")
    add("--work-dir", metavar="DIR", help="where an interrupted run goes on (user's cache)")
    add_config_argument(parser)
    add_output_arguments(parser)
    add_model_options(parser)
    return parser


def search_command(argv: Sequence[str]) -> int:
    """The command, with what follows its name."""
    arguments = make_parser().parse_args(argv)
    with progress_bars(arguments.quiet) as progress:
        progress(READING, 0, 0)
        request = _request(arguments)
        from heatc.tuning.search.output import missed, table, write_front
        from heatc.tuning.search.session import search

        found = search(request, progress)
        data = write_front(request, found, Path(arguments.output), progress)
    if wants_summary(arguments):
        from heatc.tools.summary.searched import summarize

        show(summarize(arguments, data, table(data, found.seconds)), arguments)
    if error := missed(data, Path(arguments.output)):
        raise error
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    from heatc.readers.npz import open_npz
    from heatc.tuning.common.goal import parse_goal
    from heatc.tuning.search.hardware_space import MOST_MACHINES

    _check_numbers(arguments)
    formats = formats_of(arguments.formats)
    goal = None if arguments.goal is None else parse_goal(arguments.goal, "search")
    hardware = _hardware(arguments)
    machines = 0 if arguments.hw_space is None else MOST_MACHINES
    SEARCH.check({**vars(arguments), "machines": machines})
    work = folder_option(arguments.work_dir)
    data = open_npz(arguments.data)
    dev = None if arguments.dev is None else (arguments.dev, open_npz(arguments.dev))
    # The compiler proper: only once the options are known to be good.
    from heatc.tuning.common.workers import Workers
    from heatc.tuning.search.session import Request

    return Request(
        model=arguments.model,
        weights=arguments.weights,
        compilation=captured(arguments, data, BATCH),
        timed=captured(arguments, data, 1),
        data=(arguments.data, data),
        dev=dev,
        hardware=hardware,
        layers=arguments.layers,
        formats=formats,
        samples=arguments.samples,
        validate=arguments.validate,
        points=arguments.points,
        programs=arguments.programs,
        goal=goal,
        seed=arguments.seed,
        workers=Workers(arguments.jobs, arguments.dask),
        folder=work,
    )


def _check_numbers(arguments: argparse.Namespace) -> None:
    least = {"points": 1, "samples": 1, "seed": 0, "validate": 0}
    for name, bound in least.items():
        value = getattr(arguments, name)
        if value < bound:
            raise UsageError(f"{value} is below {bound}", place=f"--{name}")
    if arguments.points > MOST_POINTS:
        raise UsageError(f"{arguments.points} is above {MOST_POINTS}", place="--points")
    if arguments.validate in (1, 2):
        raise UsageError("a rank correlation takes 3 plans or more, or 0", place="--validate")
    if arguments.jobs == 0 or arguments.jobs < -1:
        raise UsageError("expected 1 or more, or -1 for all cores", place="--jobs")


def formats_of(text: str | None) -> tuple[Format, ...]:
    """The formats that `--formats` names, all where it names none; `UsageError` for unknown ones."""
    from heatc.heat.formats import FORMATS, REGISTRY

    if text is None:
        return FORMATS
    wanted = [word.strip() for word in text.split(",")]
    for word in wanted:
        if REGISTRY.find(word) is None:
            notes = [*suggest(word, REGISTRY.names), f"formats: {', '.join(REGISTRY.names)}"]
            raise UsageError(f"unknown format {word!r}", place="--formats", notes=notes)
    return tuple(f for f in REGISTRY.names if f in wanted)


def _hardware(arguments: argparse.Namespace) -> Hardware | HardwareSpace:
    """The machine or machines, checked before any model is read."""
    from heatc.hardware import load_hardware, preset_names
    from heatc.tuning.search.hardware_space import read_hardware_space

    given = [n for n in ("target", "hw", "hw_space") if getattr(arguments, n) is not None]
    if len(given) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{names} name the machine", notes=["give one of them"])
    if arguments.hw_space is not None:
        return read_hardware_space(arguments.hw_space)
    if arguments.target is not None and arguments.target not in preset_names():
        notes = [
            *suggest(arguments.target, preset_names()),
            f"targets: {', '.join(preset_names())}",
        ]
        raise UsageError(f"unknown target {arguments.target!r}", place="--target", notes=notes)
    return load_hardware(arguments.hw or arguments.target or DEFAULT_TARGET)
