"""`heatc-tune distill`: trains the factors of a plan to do what the model does."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.commands import DISTILL
from heatc.errors import UsageError
from heatc.rules import Rule, RuleError, make_rule, spelling
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import ToolParser, remark
from heatc.tools.progress import READING, progress_bars
from heatc.tools.rule_options import add_rule_options, given_options
from heatc.tools.summary.output import add_output_arguments, show, wants_summary
from heatc.tools.tune_model import (
    BATCH,
    add_model_options,
    captured,
    check_plan_name,
    folder_option,
)
from heatc.tuning.distill.recipe import RULES, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from heatc.api import Compilation
    from heatc.tuning.distill.session import Request

SHAPES = 4096
"""
Shapes of products that oneDNN keeps the code of, three a product and number of tokens. It reads this
before its first product; past its own 1,024 it would compile at nearly every one.
"""

_TEXT = """\
Train the factors of a plan to do what the model does, on text that needs no labels.

    heatc-tune distill MODEL --plan plan.json --data train.npz --extra other.npz -o small.json
    heatc-tune distill MODEL --heat low-rank,ratio=0.2 --data train.npz -o small.json
    heatc-tune distill MODEL --plan both.json --data train.npz -o small.json
    heatc-tune distill MODEL --plan plan.json --hdp-rule ours --rho-b 0.3 --data ... -o small.json

Stage one brings what each layer norm leaves near the model's own, stage two the outputs. Beside
small.json come its factors (small.factors.safetensors) and a report; `heatc MODEL --plan small.json`
compiles them. Where the plan says pruning rules of attentions, or --hdp-rule says one for all, the
student is trained under them and small.json has them too; --hdp-rule=none trains without."""


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser("heatc-tune distill", _TEXT)
    add = parser.add_argument
    add("model", metavar="MODEL", help="torch.export archive, Hugging Face folder, ...")
    add("--plan", metavar="PLAN.json", help="which layers are factorised, and how")
    add("--heat", metavar="FORMAT,..", help="the same in words, e.g. low-rank,ratio=0.2")
    add("--data", metavar="FILE.npz", required=True, help="inputs by name: the task's own text")
    add("--extra", metavar="FILE.npz", action="append", default=[], help="text of other domains")
    add("--dev", metavar="FILE.npz", help="what judges; without it a quarter of --data")
    add("-o", dest="output", metavar="PLAN.json", required=True, help="the plan, trained")
    add("--epochs", metavar="A+B", default="2+2", help="of both stages, default 2+2")
    add("--rates", metavar="A,B", default="2e-3,1e-4", help="learning rates, default 2e-3,1e-4")
    add("--patience", type=int, default=2, help="epochs without gain that end a stage, default 2")
    add("--device", metavar="NAME", help="of PyTorch; a GPU where there is one")
    add("--seed", type=int, default=0, help="of the order of the samples, default 0")
    add("--work-dir", metavar="DIR", help="where an interrupted run goes on (user's cache)")
    add("--keep-teacher", metavar="DIR", help="run the model once and keep there what it gave")
    add_config_argument(parser)
    add_output_arguments(parser)
    add_model_options(parser)
    title = "attention pruning while training"
    add_rule_options(parser, title, "of all attentions; without it what the plan says", RULES)
    return parser


def distill_command(argv: Sequence[str]) -> int:
    """The command, with what follows its name."""
    arguments = make_parser().parse_args(argv)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(SHAPES))
    with progress_bars(arguments.quiet) as progress:
        progress(READING, 0, 0)
        request = _request(arguments)
        from heatc.tuning.distill.session import distill

        result = distill(request, progress)
    if result.resumed:
        remark("went on with the checkpoint of an earlier run", place="heatc-tune")
    for name, before, after in result.worse:
        remark(
            f"{name} is worse than before training: the loss was {before:.4g} and is {after:.4g}; train "
            "with smaller --rates, more --epochs, or more text of that kind",
            place="heatc-tune",
        )
    for stage, asked, taken in result.slowed:
        remark(
            f"the stage of {stage} began again with rate {taken:.2g}: one epoch with {asked:g} left it much "
            "worse than it began",
            place="heatc-tune",
        )
    if wants_summary(arguments):
        from heatc.tools.summary.distilled import summarize

        show(summarize(arguments, result.report), arguments)
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    from heatc.readers.npz import LABELS, open_npz

    if (arguments.plan is None) == (arguments.heat is None):
        raise UsageError("give --plan or --heat, one of both")
    if arguments.patience < 1 or arguments.seed < 0:
        raise UsageError("--patience is 1 or more, --seed 0 or more")
    recipe = Recipe(
        epochs=_epochs(arguments.epochs),
        rates=_rates(arguments.rates),
        patience=arguments.patience,
        seed=arguments.seed,
    )
    rule = _rule(arguments)
    check_plan_name(arguments)
    DISTILL.check(vars(arguments))
    work = folder_option(arguments.work_dir)
    kept = folder_option(arguments.keep_teacher)
    data = open_npz(arguments.data)
    extra = {name: open_npz(name).without(LABELS) for name in arguments.extra}
    dev = None if arguments.dev is None else (arguments.dev, open_npz(arguments.dev))
    # The compiler proper: only once the options are known to be good.
    from heatc.tuning.distill.session import Request

    teacher, student = _compilations(arguments, data)
    return Request(
        teacher=teacher,
        student=student,
        data=(arguments.data, data),
        extra=extra,
        dev=dev,
        output=Path(arguments.output),
        recipe=recipe,
        rule=rule,
        device=_device(arguments.device),
        folder=work,
        kept=kept,
    )


def _compilations(
    arguments: argparse.Namespace, data: Mapping[str, Any]
) -> tuple[Compilation, Compilation]:
    """The model as it is, and with its factors."""
    from heatc.api import Compilation, factor_options
    from heatc.plan import read_plan
    from heatc.targets import Numpy, Options

    plan = None if arguments.plan is None else read_plan(arguments.plan)
    if plan is not None and not plan.heat:
        raise UsageError("the plan factorises no layer", place=plan.path)
    if plan is not None and plan.rules and arguments.hdp_rule not in (None, "none"):
        raise UsageError(
            "--hdp-rule and the plan both say how attention is pruned",
            notes=["give one of them; --hdp-rule=none trains without pruning"],
        )
    brings = plan is not None and plan.factors is not None
    own = None if brings else arguments.data
    heat = factor_options(arguments.heat, own, plan)
    teacher = captured(arguments, data, BATCH)
    options = Options(Numpy(), plan=plan, level=0, heat=heat, calibrate=own)
    student = Compilation(options)
    student.check_model(arguments.model)
    student.adopt(teacher.module.clone(), teacher.weights.copy(), teacher.source)
    return teacher, student


def _rule(arguments: argparse.Namespace) -> Rule | None:
    """The rule of the command line, None where it is the plan that may say one."""
    given = given_options(arguments)
    if arguments.hdp_rule is None:
        if given:
            raise UsageError(
                f"--{spelling(next(iter(given)))} is told to a rule: give --hdp-rule too",
                notes=[f"rules for training: {', '.join(RULES)}"],
            )
        return None
    try:
        return make_rule(arguments.hdp_rule, given)
    except RuleError as error:
        raise UsageError(str(error), place=f"--{spelling(error.option)}") from error


def _epochs(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d{1,4}\+\d{1,4}", text):
        raise UsageError(f"expected two numbers, e.g. 2+2, got {text!r}", place="--epochs")
    first, second = text.split("+")
    return int(first), int(second)


def _rates(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        first = second = 0.0
    if not (0 < first < 1 and 0 < second < 1):
        raise UsageError(f"expected two rates, e.g. 2e-3,1e-4, got {text!r}", place="--rates")
    return first, second


def _device(name: str | None) -> str:
    from heatc.tuning.common.torch_model import best_device, check_device

    return best_device() if name is None else check_device(name)
