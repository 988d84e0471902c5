"""`heatc-tune eval`: programs, models and plans on labelled data, side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatc.commands import EVAL
from heatc.errors import HeatcError, UsageError
from heatc.files import atomic_write
from heatc.kinds import EVALUATION
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import ToolParser, add_quiet_argument
from heatc.tools.hardware_option import add_hardware_argument
from heatc.tools.progress import READING, progress_bars
from heatc.tools.tune_data import add_text_options, check_text_options, tell, text_request
from heatc.tools.tune_model import BATCH, add_model_options, captured, model_inputs
from heatc.tuning.evaluate.figures import METRIC_FIGURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heatc.progress import ProgressCallback
    from heatc.targets import Hdp, Numpy
    from heatc.tuning.evaluate.program import Program
    from heatc.tuning.evaluate.subject import Subject

PROG = "heatc-tune eval"

_TEXT = """\
Accuracy, agreement and cost of programs, models and plans on your data, side by side.

    heatc-tune eval MODEL prog.py prog.hdp --data test.npz
    heatc-tune eval front/00.json front/03.json --model MODEL --calibrate train.npz --data test.npz
    heatc-tune eval MODEL final.json --hw hdp-edge --text test.csv --tokenizer MODEL -o eval.json

A SUBJECT is a program (.hdp, .py), a model, or a plan for the model of --model. A model and a plan run
as the NumPy program that heatc compiles, with --torch a model in PyTorch too; with --hw a plan runs as an HDP program of that machine, and
a model as both. All are compared with --model, else with the first model, else with the first SUBJECT.
Cycles, time and energy of HDP programs are modelled; seconds of the CPU are measured."""

_EPILOG = """\
A model that is no classifier is compared by cosine alone. To score embeddings, put a head behind
them: fit it on the outputs that hdp-run -o writes, or give a model with the head inside."""


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, _TEXT, _EPILOG)
    add = parser.add_argument
    add("subjects", metavar="SUBJECT.hdp", nargs="*", help="or .py, a model, a plan")
    add("--data", metavar="FILE.npz", help="inputs by name, optional labels")
    add("--model", metavar="MODEL", help="the model that plans are for; the reference")
    add(
        "--torch",
        action="store_true",
        help="models run in PyTorch too, which then is the reference",
    )
    add_hardware_argument(add)
    add("--calibrate", metavar="FILE.npz", help="data that factors are found on, see heatc")
    add(
        "--metric",
        choices=tuple(METRIC_FIGURES),
        default="accuracy",
        help="score of the table, accuracy",
    )
    add("--output", metavar="NAME", help="the output to compare; the first (batch, classes)")
    add("--batch", metavar="N", type=int, help=f"of folders; {BATCH}, and 1 for HDP programs")
    add("--limit", metavar="N", type=int, help="the first N samples alone")
    add("--seed", type=int, default=0, help="of the bootstrap of intervals, default 0")
    add("--jobs", "-j", metavar="N", type=int, default=-1, help="simulations at once; all cores")
    add(
        "-o",
        dest="result",
        metavar="FILE.json",
        help="write the figures (docs/reference/evaluation.md)",
    )
    add("--json", action="store_true", help="print the figures as JSON instead of the table")
    add_config_argument(parser)
    add_quiet_argument(parser)
    add_text_options(parser)
    add_model_options(parser)
    return parser


def eval_command(argv: Sequence[str]) -> int:
    """The command, with what follows its name."""
    # Intermixed: subjects may stand on both sides of an option.
    arguments = make_parser().parse_intermixed_args(argv)
    _check(arguments)
    EVAL.check(vars(arguments))
    from heatc.temporary import scratch_folder
    from heatc.tuning.common.workers import Workers
    from heatc.tuning.evaluate.data import check_data
    from heatc.tuning.evaluate.provenance import provenance
    from heatc.tuning.evaluate.session import Request, evaluate
    from heatc.tuning.evaluate.table import table

    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        progress = stack.enter_context(progress_bars(arguments.quiet))
        data = check_data(*_arrays(arguments, progress), arguments.limit)
        subjects = _Subjects(arguments, data.arrays, folder, progress).all()
        request = Request(
            subjects,
            data,
            arguments.metric,
            arguments.output,
            arguments.seed,
            Workers(arguments.jobs),
        )
        found = evaluate(request, progress)
    source = Path(arguments.data or arguments.text)
    command = [PROG, *argv]
    found |= {"provenance": provenance(command, source, arguments.jobs, arguments.seed)}
    text = EVALUATION.json_text(found)
    if arguments.result is not None:
        with atomic_write(arguments.result, "w") as stream:
            stream.write(text)
    if arguments.json:
        sys.stdout.write(text)
    elif not arguments.quiet:
        print(table(found))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Usage that is wrong whatever the files hold."""
    if not arguments.subjects and arguments.model is None:
        raise UsageError("nothing to evaluate", notes=["give programs, models or plans"])
    if (arguments.data is None) == (arguments.text is None):
        raise UsageError("give --data or --text, one of them", notes=[f"see {PROG} --help"])
    check_text_options(arguments)
    for name, least in {"batch": 1, "limit": 1, "seed": 0}.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UsageError(f"{value} is below {least}", place=f"--{name}")
    if arguments.jobs == 0 or arguments.jobs < -1:
        raise UsageError("expected 1 or more, or -1 for all cores", place="--jobs")
    if arguments.result is not None and Path(arguments.result).suffix != ".json":
        raise UsageError(f"expected a name that ends in .json: {arguments.result!r}", place="-o")
    given = [*arguments.subjects, *([arguments.model] if arguments.model else [])]
    for name in given:
        if given.count(name) > 1:
            raise UsageError(f"{name!r} is given twice", notes=["--model is evaluated by itself"])


def _arrays(
    arguments: argparse.Namespace, progress: ProgressCallback
) -> tuple[Mapping[str, NDArray[Any]], str]:
    """The data by name, and what messages call it."""
    from heatc.readers.npz import open_npz

    if arguments.data is not None:
        return open_npz(arguments.data), arguments.data
    from heatc.tuning.evaluate.tokens import tokenized

    found = tokenized(text_request(arguments), progress)
    tell(found, arguments.text)
    return found.arrays, arguments.text


@dataclass(frozen=True)
class _Subjects:
    """Makes the subjects of a command line; what is compiled lies in `folder`."""

    arguments: argparse.Namespace
    arrays: Mapping[str, NDArray[Any]]
    folder: Path
    progress: ProgressCallback

    def all(self) -> list[Subject]:
        """Every subject, the reference first; raises `HeatcError` for what cannot be one."""
        from heatc.tuning.evaluate.subject import MODEL, PLAN, kind_of

        kinds = {name: kind_of(Path(name)) for name in self.arguments.subjects}
        model = self.arguments.model
        plans = [name for name, kind in kinds.items() if kind == PLAN]
        models = [name for name, kind in kinds.items() if kind == MODEL]
        if model is not None and kind_of(Path(model)) != MODEL:
            raise UsageError(f"{model!r} is no model", place="--model")
        if plans and model is None and len(models) != 1:
            raise UsageError(
                f"{plans[0]!r} is a plan: for which model?", notes=["give --model MODEL"]
            )
        self._check_compiled(plans, [*models, *([model] if model else [])])
        first = model or (models[0] if models else self.arguments.subjects[0])
        kinds = {first: kinds.get(first, MODEL), **kinds}
        return [s for name, kind in kinds.items() for s in self.of(name, kind, first)]

    def _check_compiled(self, plans: Sequence[str], models: Sequence[str]) -> None:
        """Raise `UsageError` for options that nothing would read."""
        given = {n: getattr(self.arguments, n) for n in ("hw", "inputs", "weights", "batch")}
        given["torch"] = self.arguments.torch or None
        for name, value in given.items():
            if value is not None and not models:
                raise UsageError("programs are not compiled again", place=f"--{name}")
        if self.arguments.calibrate is not None and not plans:
            raise UsageError("only a plan needs data to find factors on", place="--calibrate")
        is_open = all(Path(m).is_dir() for m in models) and self.arguments.inputs is None
        if self.arguments.batch is not None and not is_open:
            raise UsageError(
                "a folder alone leaves its batch open, and only without --inputs", place="--batch"
            )

    def of(self, name: str, kind: str, model: str) -> list[Subject]:
        """The subjects of a path: a model may be two."""
        from heatc.targets import Hdp, Numpy
        from heatc.tuning.evaluate.subject import MODEL, PLAN, Subject, program_of

        if kind not in (MODEL, PLAN):
            return [Subject(name, kind, program_of(Path(name), kind))]
        machine = None if self.arguments.hw is None else Hdp(self.arguments.hw)
        if kind == PLAN:
            return [self.planned(name, model, machine or Numpy())]
        found: list[Subject] = []
        if self.arguments.torch:
            found.append(Subject(f"{name} in PyTorch", kind, self.in_torch(name)))
        found.append(Subject(name, kind, self.compiled(name, Numpy())))
        if machine is not None:
            found.append(Subject(f"{name} on {machine.name}", kind, self.compiled(name, machine)))
        return found

    def planned(self, name: str, model: str, target: Hdp | Numpy) -> Subject:
        """A plan, compiled for a target."""
        from heatc.plan import read_plan
        from heatc.tuning.evaluate.program import sha256_of
        from heatc.tuning.evaluate.subject import PLAN, Subject

        plan = read_plan(name)
        if plan.rules and not target.prunes:
            raise HeatcError(
                "the plan prunes attention, which a NumPy program does not",
                place=name,
                notes=["give the machine: --hw hdp-edge, or another of heatc --list-targets"],
            )
        shown = f"{name} on {target.name}" if target.hw is not None else name
        return Subject(shown, PLAN, self.compiled(model, target, name), sha256_of([Path(name)]))

    def in_torch(self, model: str) -> Program:
        """A model in PyTorch itself."""
        from heatc.capture.paths import Request
        from heatc.remarks import drop_remark
        from heatc.tuning.evaluate.torch_program import TorchProgram

        if Path(model).suffix == ".mlir":
            raise HeatcError("IR is no model of PyTorch", place=model, notes=["leave --torch out"])

        self.progress(READING, 0, 0)
        inputs = model_inputs(self._with(model), self.arrays, self.arguments.batch or BATCH)
        request = Request(inputs, self.arguments.trust_pickle, drop_remark)
        return TorchProgram(Path(model), request)

    def _with(self, model: str) -> argparse.Namespace:
        """The arguments as they are for a model."""
        return argparse.Namespace(**{**vars(self.arguments), "model": model})

    def compiled(self, model: str, target: Hdp | Numpy, plan: str | None = None) -> Program:
        """A model as a program of a target, as a plan says."""
        from heatc.plan import read_plan
        from heatc.tuning.evaluate.compiled import compile_into, options_of

        batch = self.arguments.batch or (BATCH if target.hw is None else 1)
        found = None if plan is None else read_plan(plan)
        options = options_of(target, found, self.arguments.calibrate)
        self.progress(READING, 0, 0)
        # What is decided for a dense model is no news; a plan for another machine is.
        quiet = plan is None or self.arguments.quiet
        compilation = captured(self._with(model), self.arrays, batch, options, quiet=quiet)
        compilation.progress = self.progress
        number = len(list(self.folder.iterdir()))
        return compile_into(self.folder, f"{Path(plan or model).stem}-{number}", compilation)
