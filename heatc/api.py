"""
The compiler from Python: `heatc.compile(model, inputs)`, and what the `heatc` command runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec

from heatc.commands import COMPILE
from heatc.context import HeatcContext
from heatc.dialects.einsum import WeightOp
from heatc.errors import HeatcError, UsageError
from heatc.hardware import Hardware, load_hardware
from heatc.heat.calibrate import read_calibration
from heatc.heat.options import PassOptions, heat_options, plan_options
from heatc.ir_errors import translated
from heatc.ir_model import SUFFIX, read_ir, refuse_inputs
from heatc.passed import name_of, passed
from heatc.passes.pack_tokens import PADDINGS
from heatc.pipeline import (
    CountAttentions,
    DumpPhases,
    Instrument,
    PrintAfter,
    RecordPasses,
    Timing,
    build,
    run_passes,
    spelled,
)
from heatc.plan import Plan, hardware_sha256, model_sha256, read_plan, weights_sha256
from heatc.progress import ProgressCallback, no_progress
from heatc.readers.source import STDIN, as_path
from heatc.remarks import Remark, RemarkLog, RemarkSink, drop_remark, print_remark
from heatc.rules import PRUNING_RULE, RuleError, make_rule
from heatc.targets import RAISE, Hdp, Numpy, Options, find_target, pipeline
from heatc.targets.base import Result, Target
from heatc.targets.text import IR, write_ir
from heatc.universe import HEATC_UNIVERSE, known_dialects
from heatc.verify import Levels, Settings, Verification
from heatc.weights import WeightStore

if TYPE_CHECKING:
    import torch

    from heatc.capture import InputSpec
    from heatc.verify.programs import CheckedProgram


MACHINE = "heatc.machine"
"""Attribute of a module: the digest of the machine whose costs decided."""

_DECIDED = ("apply-plan", "heat-decompose")
_GO_ON = (
    "compile from 00-captured.mlir, with the options that the text was made with, or name the passes "
    "that are to follow by --pass-pipeline"
)


def make_context(
    weights: WeightStore | None = None, *, hardware: Hardware | None = None
) -> HeatcContext:
    """A context that knows every dialect of the project, of xDSL and of other packages."""
    context = HeatcContext(_registered_dialects=known_dialects())
    context.weights, context.hardware = weights, hardware
    return context


def _checked_build(specs: Sequence[ArgSpec]) -> tuple[ModulePass, ...]:
    """The passes of a pipeline; an option that a pass does not take is wrong usage."""
    try:
        return build(specs)
    except ValueError as error:
        raise UsageError(f"wrong pass option: {error}") from error


class Compilation:
    """
    One model on its way through a pipeline: `capture`, `run`, `write`.

    `seconds` has the time of every step; `remarks` is where decisions of the passes are written,
    see `heatc.remarks.RemarkLog`; `quiet`: nothing that they say is for anybody. `progress` is told
    which step is at work; `instruments` watch the passes.
    """

    def __init__(
        self,
        options: Options,
        *,
        dump_phases_to: str | PathLike[str] | None = None,
        print_ir_after: frozenset[str] = frozenset(),
        print_ir_after_all: bool = False,
        execute_each: bool = False,
        remarks: str | PathLike[str] | None = None,
        quiet: bool = False,
        verify: Settings | None = None,
        progress: ProgressCallback = no_progress,
        instruments: Sequence[Instrument] = (),
    ):
        self.options = options
        self.progress = progress
        self.plan = options.plan
        hw = options.target.hw
        self.hardware = None if hw is None else load_hardware(hw)
        calibrate = options.calibrate
        self._calibration = None if calibrate is None else read_calibration(calibrate)
        specs = pipeline(options)
        self.pipeline = spelled(specs)
        self.passes = _checked_build(specs)
        unknown = print_ir_after - set(HEATC_UNIVERSE.all_passes) - {p.name for p in self.passes}
        if unknown:
            raise UsageError(f"unknown pass {min(unknown)!r}", place="--print-ir-after")
        self.execute_each = execute_each
        self._remarks = None if remarks is None else RemarkLog(remarks)
        self._tell: RemarkSink = drop_remark if quiet else print_remark
        if self._remarks is not None:
            self._tell = self._remarks.take
        self._timing = Timing()
        self._counted = CountAttentions()
        self._instruments: list[Instrument] = [self._timing, self._counted, RecordPasses()]
        self._instruments += instruments
        self._phases = None if dump_phases_to is None else DumpPhases(Path(dump_phases_to))
        if self._phases is not None:
            self._instruments.append(self._phases)
        if print_ir_after or print_ir_after_all:
            self._instruments.append(PrintAfter(print_ir_after, print_ir_after_all))
        self._levels = Levels()
        self._verify = verify
        if verify is not None:
            self._instruments.append(self._levels)
        self.verification: Verification | None = None
        """What the check of the written program found."""
        self._steps: list[tuple[str, float]] = []
        self.source = ""
        self._module: ModuleOp | None = None
        self._weights: WeightStore | None = None
        self._read: set[str] = set()
        self._digest: str | None = None

    @property
    def module(self) -> ModuleOp:
        """The module as it stands."""
        if self._module is None:
            raise HeatcError("nothing was captured yet")
        return self._module

    @property
    def weights(self) -> WeightStore:
        """The weights that the module names."""
        if self._weights is None:
            raise HeatcError("nothing was captured yet")
        return self._weights

    @property
    def attentions(self) -> int:
        """How many attentions an HDP target was told to compute, once `run` is done."""
        return self._counted.count

    @property
    def seconds(self) -> list[tuple[str, float]]:
        """Wall seconds of capture, every pass, and writing."""
        head, tail = self._steps[:1], self._steps[1:]
        return [*head, *self._timing.seconds, *tail]

    @translated()
    def capture(
        self,
        model: str | PathLike[str],
        inputs: Mapping[str, InputSpec] | None = None,
        *,
        trust_pickle: bool = False,
    ) -> None:
        """Read a model file or folder."""
        from heatc.capture import capture_path

        path = as_path(model, "model")
        self.check_model(path)
        start = time.perf_counter()
        self.progress("capture", 0, 0)
        with self._remarks or nullcontext():
            self._pass_begins("capture")
            captured = capture_path(path, inputs, trust_pickle=trust_pickle, remarks=self._tell)
        self.adopt(captured.module, captured.weights, path.name)
        self._steps.append(("capture", time.perf_counter() - start))

    @translated()
    def read_ir(self, model: str | PathLike[str], weights: Sequence[str] = ()) -> None:
        """
        Go on with a text that heatc wrote, where its passes end; `-` is standard input.

        `weights` are safetensors files, beside those that lie beside the text.
        """
        path = fspath(model)
        if path != STDIN:
            self.check_model(path)
        module, store, name = read_ir(make_context(), path, weights)
        self.resume(module, name)
        self.adopt(module, store, name)

    @translated()
    def capture_module(
        self, module: torch.nn.Module, inputs: Mapping[str, torch.Tensor] | tuple[Any, ...]
    ) -> None:
        """Capture a live module on example inputs."""
        from heatc.capture import capture_module

        self._check_live()
        start = time.perf_counter()
        captured = capture_module(module, inputs)
        self.adopt(captured.module, captured.weights, type(module).__name__)
        self._steps.append(("capture", time.perf_counter() - start))

    @translated()
    def capture_exported(self, program: torch.export.ExportedProgram) -> None:
        """Capture an `ExportedProgram`."""
        from heatc.capture import capture_exported

        self._check_live()
        start = time.perf_counter()
        captured = capture_exported(program)
        self.adopt(captured.module, captured.weights, type(program).__name__)
        self._steps.append(("capture", time.perf_counter() - start))

    def _check_live(self) -> None:
        if self.plan is not None and self.plan.names_file:
            raise HeatcError(
                "model_sha256: a live module has no file to compare with",
                place=self.plan.path,
                notes=["compile the model's file, or set the key to null"],
            )

    def check_model(self, model: str | PathLike[str]) -> None:
        """Raise `HeatcError` where the plan names another model file or folder."""
        if self.plan is not None and self.plan.names_file:
            self.plan.check_model(model_sha256(model))

    def adopt(self, module: ModuleOp, weights: WeightStore, source: str) -> None:
        """
        Take a module at the captured level, its weights, and the name it came by.

        Raises `HeatcError` where the plan names other weights.
        """
        self._module, self._weights, self.source = module, weights, source
        self._digest = None
        self._read = {key for o in module.walk() if isinstance(o, WeightOp) for key in o.keys}
        if self.plan is not None and self.plan.names_weights:
            self.plan.check_weights(self.weights, self._read, self.weights_sha256())

    def resume(self, module: ModuleOp, place: str) -> None:
        """
        Leave out the passes that a module from a text has behind it, as far as it says so.

        Raises `HeatcError` where they are not those that this compilation begins with.
        """
        behind = passed(module)
        if not behind:
            return
        self._levels.resume(module, behind)
        if self.options.pipeline is not None:
            return
        ahead = [spelled([pass_.pipeline_pass_spec()]) for pass_ in self.passes]
        names = {name_of(text) for text in ahead}
        # What a plan or --heat decided is in the text, and need not be said again.
        told = [t for t in behind if name_of(t) in names or name_of(t) not in _DECIDED]
        is_shared = len(told) <= len(RAISE)
        machine = module.attributes.get(MACHINE)
        if ahead[: len(told)] == told and (is_shared or machine == self._machine()):
            self.passes = self.passes[len(told) :]
            return
        raise HeatcError(_another_way(told, ahead), place=place, notes=[_GO_ON])

    def _machine(self) -> StringAttr | None:
        """What says on a module for which machine it is compiled."""
        return None if self.hardware is None else StringAttr(hardware_sha256(self.hardware))

    def weights_sha256(self) -> str:
        """`heatc.plan.weights_sha256` of what the module read when it was captured."""
        if self._digest is None:
            self._digest = weights_sha256(self.weights, self._read)
        return self._digest

    @translated()
    def run(self) -> None:
        """Run the pipeline; raises `HeatcError` where a pass refuses the model."""
        instruments = list(self._instruments)
        if self._phases is not None:
            self._phases.weights = self.weights
        if (machine := self._machine()) is not None:
            self.module.attributes[MACHINE] = machine
        if self.execute_each:
            instruments.append(self._comparison())
        with self._remarks or nullcontext():
            self._tell_other_machine()
            run_passes(self.context(), self.module, self.passes, instruments, self._next_pass)

    def _tell_other_machine(self) -> None:
        """Remark that the plan's costs are of another machine."""
        if self.plan is None or self.hardware is None:
            return
        if text := self.plan.for_other_machine(self.hardware):
            self._pass_begins("apply-plan")
            self._tell(Remark("", self.plan.path, text, {}, (), True))

    def context(self) -> HeatcContext:
        """What the passes need beside the module."""
        context = make_context(self.weights, hardware=self.hardware)
        context.plan, context.calibration = self.plan, self._calibration
        context.remarks = self._tell
        return context

    def _pass_begins(self, name: str) -> None:
        if self._remarks is not None:
            self._remarks.running = name

    def _next_pass(self, name: str) -> None:
        number = len(self._timing.seconds) + 1
        self.progress(f"pass {number} of {len(self.passes)}, {name}", 0, 0)
        self._pass_begins(name)

    def _comparison(self) -> Instrument:
        from heatc.execute_each import ExecuteEach, packed_level
        from heatc.samples import KINDS
        from heatc.verify.check import NotVerified, made_up
        from heatc.verify.stages import Stages

        def run_machine(module: ModuleOp, inputs: Mapping[str, Any]) -> dict[str, Any]:
            from heatc.backends.hdp.emit import run_module

            assert self.hardware is not None
            return run_module(module, inputs, self.weights, self.hardware)

        def report(line: str) -> None:
            print(line, file=sys.stderr)

        packed = packed_level(self.module, self.passes, self.weights)
        levels = Levels(captured=self.module, packed=packed)
        try:
            inputs, _ = made_up(Stages(levels, self.module, self.weights), KINDS, 0, far=False)
        except NotVerified as reason:
            raise HeatcError(str(reason), place="--execute-each") from reason
        return ExecuteEach(inputs, self.weights, run_machine, report, packed)

    @translated()
    def write(self, output: str | PathLike[str] | None, form: str) -> None:
        """
        Write the result as `ir`, or in a form of the target, atomically.

        Text forms go to standard output where `output` is None or `-`.
        """
        start = time.perf_counter()
        self.progress("writing the program", 0, 0)
        path = None if output is None or str(output) == "-" else Path(output)
        result = Result(
            self.module,
            self.weights,
            self.options,
            self.source,
            self.hardware,
            {"pipeline": self.pipeline, **self._rules()},
        )
        check = partial(self._check, "-" if path is None else str(path), start)
        if form == IR.name:
            write_ir(result, path, check, runs=self._levels.fixed is None)
        else:
            self.options.target.write(result, form, path, check)
        checking = 0.0 if self.verification is None else self.verification.seconds
        self._steps.append((f"write {form}", time.perf_counter() - start - checking))
        if self.verification is not None:
            self._steps.append(("verify", checking))

    def _rules(self) -> dict[str, Any]:
        """How attention is pruned, as a program echoes it."""
        rule = self.options.rule
        if self.options.pipeline is not None:
            return {}  # the pipeline says it
        if self.plan is None:
            return {"hdp_rule": rule.name, **rule.options}
        rules = self.plan.rules.items()
        return {"plan": {k: {"hdp_rule": r.name, **r.options} for k, r in rules}}

    def _check(
        self, place: str, since: float, program: Callable[[], CheckedProgram] | None
    ) -> None:
        """
        Verify a program that nobody else can see yet, and say what was found.

        `since` is when it began to be written. `VerificationError` where it is wrong.
        """
        if self._verify is None:
            return
        from heatc.verify.check import verify
        from heatc.verify.stages import Stages

        if program is None:
            self.verification = Verification(reason="what was written cannot be run")
        elif self._levels.captured is None:
            self.verification = Verification(reason="what was read is below the model's levels")
        else:
            seconds = sum(s for _, s in self.seconds) + time.perf_counter() - since
            stages = Stages(self._levels, self.module, self.weights)
            settings = self._verify
            self.verification = verify(stages, program, settings, seconds, place, self.progress)
        with self._remarks or nullcontext():
            self._pass_begins("verify")
            self._tell(Remark("", place, str(self.verification), {}, (), True))


def _another_way(behind: Sequence[str], ahead: Sequence[str]) -> str:
    """Why a module that has been through passes cannot go on."""
    for number, name in enumerate(behind):
        if number >= len(ahead) or ahead[number] != name:
            wanted = f"has {ahead[number]}" if number < len(ahead) else "ends before it"
            return f"the module has been through {name}, where this compilation {wanted}"
    return "the module was compiled for another machine"


def factor_options(
    heat: str | None, calibrate: str | PathLike[str] | None, plan: Plan | None
) -> PassOptions | None:
    """What `heat-decompose` is told by `--heat` or by a plan, None where nothing asks for it."""
    planned = plan is not None and bool(plan.heat)
    if heat is not None and planned:
        raise UsageError("--heat and the plan both say how weights are factorised")
    if heat is not None:
        return heat_options(heat, calibrate)
    if plan is not None and planned:
        if plan.factors is not None and calibrate is not None:
            raise UsageError("the plan brings its factors: nothing is calibrated")
        return plan_options(calibrate)
    return None


@translated()
def compile(
    model: torch.nn.Module | torch.export.ExportedProgram | str | PathLike[str],
    inputs: Mapping[str, Any] | tuple[Any, ...] | None = None,
    *,
    target: str = "hdp-edge",
    output: str | PathLike[str],
    hdp_rule: str | None = None,
    plan: str | PathLike[str] | None = None,
    heat: str | None = None,
    padding: str = "skip",
    input_range: Mapping[str, float | tuple[float, float]] | None = None,
    calibrate: str | PathLike[str] | None = None,
    remarks: str | PathLike[str] | None = None,
    verify: bool = True,
    verify_seconds: float | None = None,
    min_cosine: float | None = None,
    dump_divergence: str | PathLike[str] | None = None,
    **rule_options: Any,
) -> Path:
    """
    Compile a model to a file and return its path.

    Args:
        model: a live module in eval mode, an `ExportedProgram`, or anything the command takes.
        inputs: example tensors by name, or in order, for a live module; `InputSpec`s by name for a
            file; none for an `ExportedProgram`.
        target: `numpy`, a preset such as `hdp-edge`, or the path of a hardware description.
        output: `x.py` for the NumPy target, `x.hdp` otherwise.
        hdp_rule: the pruning rule of every attention; without it all attention is computed.
        plan: a plan.json that says a rule for each attention, factors for each layer, or both.
        heat: how weights are factorised, as the command's `--heat`: `low-rank,ratio=0.5`.
        padding: `skip`, outputs of tokens are 0 at masked positions, or `compute`, as PyTorch does.
        input_range: how large inputs are, by name: the greatest magnitude, or (least, greatest).
        calibrate: an .npz file of inputs on which factors are to be near the weights.
        remarks: a file for what the passes decided and weighed, a JSON object a line.
        verify: run the program on made-up inputs before it is written, against the model.
        verify_seconds: how long that may take, as the command's option.
        min_cosine: least cosine of every output with the model's, also of a pruned program.
        dump_divergence: a folder for inputs and outputs of a program that is wrong.
        **rule_options: what the rule is told, as the command's options: `rho_b=0.25`.

    Raises:
        HeatcError: for bad input, with what, where and what to do, and nothing else; for an output that is an input,
            or that would replace a file which heatc did not write as one of its kind.
        VerificationError: the program is wrong; nothing is written.
    """
    paths = {"target": target, "output": output, "plan": plan, "calibrate": calibrate}
    for name, value in {**paths, "remarks": remarks, "dump_divergence": dump_divergence}.items():
        if value is not None or name in ("target", "output"):
            as_path(value, name)
    for name, value in {"hdp_rule": hdp_rule, "heat": heat, "padding": padding}.items():
        if value is not None and not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise HeatcError(f"expected a text for {name}, got {type(value).__name__}")
    if not isinstance(verify, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise HeatcError(f"expected true or false for verify, got {type(verify).__name__}")
    if plan is not None and (hdp_rule is not None or rule_options):
        raise UsageError("a plan says the rule of every attention: give it alone", place="plan")
    chosen = find_target(str(target)) or Hdp(str(target))
    if isinstance(chosen, Hdp):
        load_hardware(chosen.hw)
    try:
        usual = PRUNING_RULE if rule_options else "none"
        rule = make_rule(usual if hdp_rule is None else hdp_rule, rule_options)
    except RuleError as error:
        raise UsageError(str(error), place=error.option) from error
    found = None if plan is None else read_plan(plan)
    if not chosen.prunes and ((found is not None and found.rules) or rule.name != "none"):
        raise UsageError(f"target {chosen.name} computes dense attention", place="target")
    factors = factor_options(heat, calibrate, found)
    if padding not in PADDINGS:
        raise UsageError(f"unknown padding {padding!r}, expected skip or compute", place="padding")
    data = None if calibrate is None else str(calibrate)
    options = Options(
        chosen,
        rule,
        found,
        heat=factors,
        calibrate=data,
        padding=padding,
        input_range=_range_texts(chosen, input_range),
    )
    form = chosen.forms[0]
    if isinstance(chosen, Numpy) and Path(output).suffix != form.suffix:
        raise UsageError("the name of a NumPy program ends in .py", place="output")
    values = {"model": model, "output": output, "remarks": remarks, "target": target}
    values |= {"plan": plan, "calibrate": calibrate, "has_factors": factors is not None}
    values |= {"dump_divergence": dump_divergence}
    COMPILE.check({**values, "form": form})
    if calibrate is not None and factors is None:
        raise UsageError("nothing asks for calibration inputs", place="calibrate")
    settings = None
    if verify:
        dump = None if dump_divergence is None else Path(dump_divergence)
        settings = Settings(verify_seconds, min_cosine, dump)
    compilation = Compilation(options, remarks=remarks, verify=settings)
    _capture(compilation, model, inputs)
    compilation.run()
    compilation.write(output, form.name)
    return Path(output)


def _range_texts(
    target: Target, ranges: Mapping[str, float | tuple[float, float]] | None
) -> list[str]:
    """Declared ranges as the pass takes them."""
    from heatc.passes.fixing.inputs import read_ranges

    if not ranges:
        return []
    if target.hw is None:
        raise UsageError(
            f"target {target.name} computes in floating point: no range is needed",
            place="input_range",
        )
    texts = [
        f"{name}={':'.join(map(str, ends)) if isinstance(ends, tuple) else ends}"
        for name, ends in ranges.items()
    ]
    try:
        read_ranges(texts)
    except ValueError as error:
        raise UsageError(str(error), place="input_range") from error
    return texts


def _capture(compilation: Compilation, model: Any, inputs: Any) -> None:
    """Capture whatever `compile` was given."""
    if isinstance(model, str | PathLike):
        path = as_path(model, "model")
        if path.suffix != SUFFIX:
            compilation.capture(path, inputs)
            return
        refuse_inputs(inputs, "inputs")
        compilation.read_ir(path)
        return
    # Whoever has a live model has imported torch.
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.export.ExportedProgram):
        compilation.capture_exported(model)
        return
    if torch is None or not isinstance(model, torch.nn.Module):
        found = type(model).__name__
        raise HeatcError(f"expected a path or an nn.Module for model, got {found}")
    if inputs is None:
        raise HeatcError("a live module is captured on example inputs: give `inputs`")
    if not isinstance(inputs, Mapping | tuple):
        found = type(inputs).__name__
        raise HeatcError(f"expected a dict or a tuple of tensors for inputs, got {found}")
    compilation.capture_module(model, cast(Any, inputs))
