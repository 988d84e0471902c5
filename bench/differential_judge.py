"""Compiles a random program for both targets, runs it on its cases, compares with PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import re
import signal
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from bench.differential_compare import HDP, NUMPY, Bound, difference, masked_positions
from bench.differential_inputs import Case, cases
from bench.differential_program import Array, Arrays, Output, Program
from heatc.api import Compilation
from heatc.backends.hdp import simulate
from heatc.backends.hdp.container import open_program
from heatc.capture import Captured, capture_exported
from heatc.errors import HeatcError
from heatc.pipeline import Options
from heatc.rules import make_rule
from heatc.tools.ir_errors import explain

Kind: TypeAlias = Literal["right", "refused", "wrong", "invalid"]
Run: TypeAlias = Callable[[Arrays], Arrays]

TARGETS = ("numpy", "hdp")
BOUNDS: Mapping[str, Bound] = {"numpy": NUMPY, "hdp": HDP}
SECONDS = 60
_NAMES = re.compile(r"\b(?:aten|nn|attn|einsum|arith|higher_order)\.[\w.]+")


@dataclass(frozen=True)
class Verdict:
    """
    What came of one program on one target; `invalid` where PyTorch itself refuses the model.

    `reason` is what refusals and faults are counted by, `detail` what is known beside it, `later`
    the cases that were refused when the program ran, as they may be.
    """

    target: str
    kind: Kind
    reason: str = ""
    detail: str = ""
    later: tuple[str, ...] = ()


class Rounding(NamedTuple):
    """The error of a step of a program: relative to its largest value, and absolute."""

    relative: float
    step: float = 0.0


class Compiled(NamedTuple):
    """
    A program as a function of inputs by name, and how it rounds.

    `paddings` is what it says of each output: "zero" or "computed" at masked positions.
    """

    run: Run
    rounding: Rounding
    paddings: Mapping[str, str]


class NotExported(Exception):
    """The generator made a model that PyTorch cannot run or export."""


# ---- The model -----------------------------------------------------------------------------------


def build(program: Program) -> nn.Module:
    """The module of a program, with weights that depend on its seed alone."""
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math}
    exec(compile(program.text, f"program_{program.seed}.py", "exec"), names)
    module = names["Model"]().eval().requires_grad_(False)
    fill(module, program.seed)
    return module


def fill(module: nn.Module, seed: int) -> None:
    """Weights of usual magnitudes: nothing is 0 or 1 that a trained model would not have so."""
    random = np.random.RandomState(seed % 2**32)
    norms = {id(m.weight) for m in module.modules() if isinstance(m, nn.LayerNorm)}
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for parameter in module.parameters():
        values = random.standard_normal(tuple(parameter.shape))
        if id(parameter) in norms:
            values = 1 + 0.2 * values
        elif parameter.ndim < 2:
            values = 0.3 * values
        elif id(parameter) not in tables:
            values = 1.2 * values / math.sqrt(parameter.shape[-1])
        parameter.data.copy_(torch.from_numpy(np.asarray(values, np.float32)))


def reference(module: nn.Module, inputs: Arrays) -> list[Array]:
    """What PyTorch gives: the leaves of the output in order."""
    with torch.no_grad():
        result = module(**{name: torch.from_numpy(a.copy()) for name, a in inputs.items()})
    return [leaf.numpy() for leaf in tree_flatten(result)[0]]


def export(module: nn.Module, program: Program, inputs: Arrays) -> Captured:
    """The captured program; `HeatcError` where capture refuses it."""
    tensors = {name: torch.from_numpy(a.copy()) for name, a in inputs.items()}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, (), kwargs=tensors, strict=False)
            if program.decompose:
                tables = ({},) if program.decompose == "none" else ()
                exported = exported.run_decompositions(*tables)
    except Exception as error:
        raise NotExported(f"{type(error).__name__}: {error}") from error
    return capture_exported(exported)


class Noise(TorchDispatchMode):
    """
    Adds a random error to what is computed from weights: relative to its largest value, and a step.

    Masks stay exact, since -1e9 times an error is no mask any more.
    """

    def __init__(self, rounding: Rounding, seed: int, weights: Iterable[torch.Tensor]):
        super().__init__()
        self.rounding = rounding
        self.generator = torch.Generator().manual_seed(seed)
        self.inexact = {id(tensor): tensor for tensor in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(id(x) in self.inexact for x in tree_flatten((args, kwargs))[0]):
            return result
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.inexact[id(tensor)] = tensor
                if not func.is_view:
                    self._disturb(tensor)
        return result

    def _disturb(self, tensor: torch.Tensor) -> None:
        finite = tensor[tensor.isfinite()]
        largest = float(finite.abs().max()) if finite.numel() else 0.0
        # Masked scores of -1e9 are no magnitude that others are rounded to.
        size = min(largest, 16.0) * self.rounding.relative + self.rounding.step
        tensor += (torch.rand(tensor.shape, generator=self.generator) * 2 - 1) * size


def conditioning(module: nn.Module, inputs: Arrays, rounding: Rounding) -> list[Array]:
    """How far rounding every step moves each output: twice the most of three tries."""
    exact = reference(module, inputs)
    moved = [np.zeros(a.shape) for a in exact]
    for seed in range(3):
        with Noise(rounding, seed, module.parameters()):
            noisy = reference(module, inputs)
        for i, (a, b) in enumerate(zip(exact, noisy)):
            step = np.abs(np.nan_to_num(b.astype(float)) - np.nan_to_num(a.astype(float)))
            moved[i] = np.maximum(moved[i], step.max(initial=0))
    return [2 * m for m in moved]


# ---- Both targets --------------------------------------------------------------------------------


def compiled(captured: Captured, target: str, program: Program, folder: Path) -> Compiled:
    """Compile for a target and load the program."""
    hardware = None if target == "numpy" else program.hardware
    options = Options(hardware, make_rule("none", {}), padding=program.positions)
    compilation = Compilation(options)
    compilation.adopt(captured.module.clone(), captured.weights, "model")
    compilation.run()
    if target == "numpy":
        path = folder / "program.py"
        compilation.write(path, "numpy")
        return _numpy(path)
    path = folder / "program.hdp"
    compilation.write(path, "hdp")
    loaded = open_program(path)
    # The coarsest binary point of all values: no step of the program rounds more.
    step = 2.0 ** -min(loaded.manifest.points.values(), default=16)
    return Compiled(
        lambda inputs: dict(simulate(loaded, inputs).outputs),
        Rounding(2.0**-11, step),
        {port.name: port.padding for port in loaded.manifest.outputs},
    )


def _numpy(path: Path) -> Compiled:
    spec = importlib.util.spec_from_file_location("heatc_program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Compiled(
        lambda inputs: {k: np.array(v) for k, v in module.main(**inputs).items()},
        Rounding(2.0**-20),
        {name: padding for name, (_, _, padding) in module.OUTPUTS.items()},
    )


def judge(program: Program, targets: Sequence[str] = TARGETS) -> list[Verdict]:
    """A verdict a target; `NotExported` where PyTorch itself refuses the model."""
    return judge_module(build(program), program, list(cases(program)), targets)


def judge_module(
    module: nn.Module, program: Program, found: Sequence[Case], targets: Sequence[str] = TARGETS
) -> list[Verdict]:
    """A verdict a target for a module, whose outputs and inputs are described by a program."""
    try:
        wanted = [reference(module, case.inputs) for case in found]
    except Exception as error:
        raise NotExported(f"{type(error).__name__}: {error}") from error
    program = _measured(program, wanted[0])
    try:
        captured = export(module, program, found[0].inputs)
    except NotExported:
        raise
    except Exception as error:
        return [_failed(target, error) for target in targets]
    return [_judge(program, module, captured, target, found, wanted) for target in targets]


def _measured(program: Program, wanted: Sequence[Array]) -> Program:
    """The program with outputs of the shapes that PyTorch gives, where it does not know them."""
    outputs = [
        output if output.axes else Output(output.name, "." * array.ndim, array.shape)
        for output, array in zip(program.outputs, wanted)
    ]
    return dataclasses.replace(program, outputs=tuple(outputs))


def _judge(
    program: Program,
    module: nn.Module,
    captured: Captured,
    target: str,
    found: Sequence[Case],
    wanted: Sequence[list[Array]],
) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="heatc-diff-") as name:
        try:
            with limited(SECONDS):
                built = compiled(captured, target, program, Path(name))
        except Exception as error:
            return _failed(target, error)
        later: list[str] = []
        for case, want in zip(found, wanted):
            try:
                with limited(SECONDS):
                    got = built.run(case.inputs)
            except Exception as error:
                if not may_refuse(program, case, error):
                    return _failed(target, error, case)
                later.append(f"{case.name}: {normalised(str(error))}")
                continue
            wrong = compare(program, module, case, want, got, BOUNDS[target], built)
            if wrong:
                reason, detail = wrong
                return Verdict(target, "wrong", f"{reason} ({case.name})", detail)
    return Verdict(target, "right", later=tuple(later))


def compare(
    program: Program,
    module: nn.Module,
    case: Case,
    want: Sequence[Array],
    got: Arrays,
    bound: Bound,
    built: Compiled,
) -> tuple[str, str] | None:
    """The kind of a difference and its detail; None where every output is right."""
    names = [output.name for output in program.outputs]
    if sorted(got) != sorted(names):
        return "names of outputs", f"{sorted(got)}, expected {sorted(names)}"
    for index, (output, expected) in enumerate(zip(program.outputs, want)):

        def noise(index: int = index) -> Array:
            return conditioning(module, case.inputs, built.rounding)[index]

        zero = built.paddings[output.name] == "zero"
        zeros = masked_positions(output, case) if zero else None
        if zero and program.positions == "compute":
            return "0 at masked positions", f"{output.name}: asked was to compute them"
        if bound.same_dtype and got[output.name].dtype != expected.dtype:
            found = f"{got[output.name].dtype}, PyTorch {expected.dtype}"
            return f"dtype {found}", f"{output.name} is {found}"
        wrong = difference(expected, got[output.name], zeros, bound, noise)
        if wrong:
            return wrong.partition(":")[0], f"{output.name} ({output.axes}): {wrong}"
    return None


def may_refuse(program: Program, case: Case, error: Exception) -> bool:
    """
    Whether a program may refuse these inputs when it runs.

    It may where a sequence has no real token that an output beside its own rows depends on, and
    where a mask holds values that key padding does not; it must name the row or the input.
    """
    if not isinstance(error, HeatcError | ValueError):
        return False
    text = error.render() if isinstance(error, HeatcError) else str(error)
    if case.empty and re.search(rf"\b(?:row|sequence) {case.empty[0]}\b", text):
        own_rows = all("s" in output.axes for output in program.outputs)
        return program.positions == "compute" or not own_rows
    return case.name == "odd" and any(padding.port in text for padding in program.padding)


# ---- Failures ------------------------------------------------------------------------------------


def _failed(target: str, error: Exception, case: Case | None = None) -> Verdict:
    refusal = explain(error)
    if case is None and refusal is not None and refusal.exit_code in (1, 4):
        return Verdict(target, "refused", refusal_reason(refusal), refusal.render())
    where = f"run ({case.name})" if case is not None else "compile"
    if case is not None and refusal is not None:
        reason = f"refused at run time: {normalised(refusal.message)}"
        return Verdict(target, "wrong", reason, f"{where}: {refusal.render()}")
    detail = f"{where}: {type(error).__name__}: {str(error)[:2000]}"
    return Verdict(target, "wrong", f"{_place(error)}: {normalised(str(error))}", detail)


def _place(error: Exception) -> str:
    """The class of a crash and the innermost function of heatc, or of a program."""
    trace = error.__traceback__
    place = "?"
    while trace is not None:
        code = trace.tb_frame.f_code
        if "heatc" in code.co_filename or "program.py" in code.co_filename:
            place = f"{Path(code.co_filename).name}:{code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__} in {place}"


def refusal_reason(error: HeatcError) -> str:
    """The message's first line without numbers and names, and the ops that it speaks of."""
    names = sorted(set(_NAMES.findall("\n".join((error.message, *error.notes)))))
    return normalised(error.message) + (f" [{', '.join(names[:4])}]" if names else "")


def normalised(text: str) -> str:
    """The first line of a message without what differs from program to program."""
    line = next(iter(text.strip().splitlines()), "")
    line = re.sub(r"'[^']*'|\"[^\"]*\"", "'..'", line)
    line = re.sub(r"tensor<[^>]*>+", "tensor", line)
    return re.sub(r"-?\d+(?:\.\d+)?", "N", line)[:160]


class TooSlow(Exception):
    """A step took longer than it may."""


@contextlib.contextmanager
def limited(seconds: int) -> Generator[None]:
    """Raises `TooSlow` in what takes longer."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
