"""`heatc-tune calibrate`: the parameters of attention pruning (rule `ours`) per layer and head."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.commands import CALIBRATE
from heatc.errors import InfeasibleError, UsageError
from heatc.rules import MOST_BLOCK
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import ToolParser, remark, suggest
from heatc.tools.hardware_option import add_hardware_argument
from heatc.tools.progress import READING, progress_bars
from heatc.tools.summary.output import add_output_arguments, show, wants_summary
from heatc.tools.tune_model import (
    BATCH,
    add_model_options,
    captured,
    check_plan_name,
    folder_option,
)
from heatc.tuning.calibrate.candidates import CALIBRATED_SCORES, Candidates

if TYPE_CHECKING:
    from heatc.targets import Options
    from heatc.tuning.calibrate.session import Request

PROG = "heatc-tune"

DEFAULT_TARGET = "hdp-edge"


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(f"{PROG} calibrate", "Choose attention pruning per layer and head.")
    add = parser.add_argument
    add("model", metavar="MODEL", help="torch.export archive, Hugging Face folder, ...")
    add("--data", metavar="FILE.npz", required=True, help="inputs by name, optional labels")
    add(
        "--goal",
        metavar="GOAL",
        required=True,
        help='"accuracy-drop<=1", "sparsity>=0.85", "edp>=1.1x"',
    )
    add("-o", dest="output", metavar="PLAN.json", required=True, help="the plan")
    add("--plan", metavar="PLAN.json", help="layers to factorise; the plan written has both")
    add("--target", metavar="NAME", help="machine of a cost goal: hdp-edge (default), hdp-server")
    add_hardware_argument(add)
    add("--block", metavar="X,X", help="query rows and key columns of a block, default 2,2")
    add("--pruned-score", metavar="NAME,..", help=f"of {', '.join(CALIBRATED_SCORES)}; default all")
    add("--no-head-gate", action="store_true", help="prune blocks alone, no whole heads")
    add_model_options(parser)
    add("--seed", type=int, default=0, help="of the samples that are held back, default 0")
    add("--work-dir", metavar="DIR", help="where an interrupted run goes on (user's cache)")
    add_config_argument(parser)
    add_output_arguments(parser)
    return parser


def calibrate_command(argv: Sequence[str]) -> int:
    """The command, with what follows its name."""
    arguments = make_parser().parse_args(argv)
    with progress_bars(arguments.quiet) as progress:
        progress(READING, 0, 0)
        request = _request(arguments)
        from heatc.tuning.calibrate.session import calibrate

        result = calibrate(request, progress)
    for text in result.remarks:
        remark(text, place=PROG)
    if wants_summary(arguments):
        from heatc.tools.summary.calibrated import summarize

        show(summarize(arguments, result.report, result.table), arguments)
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    from heatc.readers.npz import open_npz
    from heatc.tuning.common.goal import parse_goal

    goal, candidates = parse_goal(arguments.goal, "calibrate"), _candidates(arguments)
    if arguments.seed < 0:
        raise UsageError(f"{arguments.seed} is below 0", place="--seed")
    hardware = _hardware(arguments) or (DEFAULT_TARGET if goal.is_cost else None)
    if hardware is not None:
        _check_block(candidates, hardware)
    check_plan_name(arguments)
    CALIBRATE.check(vars(arguments))
    work = folder_option(arguments.work_dir)
    options = _options(arguments)
    arrays = open_npz(arguments.data)
    # The compiler proper: only once the options are known to be good.
    from heatc.tuning.calibrate.session import Request

    return Request(
        model=arguments.model,
        compilation=captured(arguments, arrays, BATCH, options),
        arrays=arrays,
        data=arguments.data,
        goal=goal,
        output=Path(arguments.output),
        weights=arguments.weights,
        hw=hardware,
        timed=None if hardware is None else captured(arguments, arrays, 1),
        candidates=candidates,
        seed=arguments.seed,
        folder=work,
    )


def _candidates(arguments: argparse.Namespace) -> Candidates:
    """What the plan may say, from the options that narrow it."""
    candidates = Candidates(gates=not arguments.no_head_gate)
    if arguments.block is not None:
        high, wide = _block(arguments.block)
        candidates = replace(candidates, block=(high, wide))
    if arguments.pruned_score is None:
        return candidates
    names = tuple(dict.fromkeys(arguments.pruned_score.split(",")))
    for name in names:
        if name not in CALIBRATED_SCORES:
            notes = [
                *suggest(name, CALIBRATED_SCORES),
                f"calibrated are: {', '.join(CALIBRATED_SCORES)}",
            ]
            raise UsageError(f"unknown pruned score {name!r}", place="--pruned-score", notes=notes)
    return replace(candidates, pruned_scores=names)


def _block(text: str) -> tuple[int, int]:
    error = UsageError(
        f"expected two extents from 1 to {MOST_BLOCK}, e.g. 8,8, got {text[:40]!r}", place="--block"
    )
    try:
        high, wide = (int(part) for part in text.split(","))
    except ValueError:
        raise error from None
    if not (1 <= high <= MOST_BLOCK and 1 <= wide <= MOST_BLOCK):
        raise error
    return high, wide


def _check_block(candidates: Candidates, hardware: str) -> None:
    from heatc.hardware import load_hardware

    known = load_hardware(hardware).blocks
    if candidates.block not in known:
        rows, columns = candidates.block
        raise InfeasibleError(
            f"the sparsity engine of {hardware} has no blocks of {rows}x{columns}",
            place="--block",
            notes=[f"it has {', '.join(f'{r}x{c}' for r, c in known)}"],
        )


def _options(arguments: argparse.Namespace) -> Options:
    """Those of the model to prune: as it is, or with the factors of the plan."""
    from heatc.api import factor_options
    from heatc.plan import read_plan
    from heatc.targets import Numpy, Options

    if arguments.plan is None:
        return Options(Numpy(), level=0)
    plan = read_plan(arguments.plan)
    if not plan.heat:
        raise UsageError("the plan factorises no layer", place=plan.path)
    data = None if plan.factors is not None else arguments.data
    heat = factor_options(None, data, plan)
    return Options(Numpy(), plan=plan, level=0, heat=heat, calibrate=data)


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
