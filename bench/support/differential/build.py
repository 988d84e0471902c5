"""Builds random programs: the module with its weights, what PyTorch gives, heatc's programs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import ExportedProgram
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from bench.support.differential.program import Array, Arrays, Program
from heatc.api import Compilation
from heatc.backends.hdp import simulate
from heatc.backends.hdp.container import open_program
from heatc.capture import Captured, capture_exported
from heatc.errors import HeatcError, VerificationError
from heatc.rules import make_rule
from heatc.targets import Hdp, Numpy, Options
from heatc.tools import main as heatc_tool
from heatc.tools import run as run_tool
from heatc.verify.settings import Settings

# Without this nn.TransformerEncoderLayer runs a fused kernel that is not what it exports: rows that
# see no key are NaN there, and 0 in the exported program.
torch.backends.mha.set_fastpath_enabled(False)

Run: TypeAlias = Callable[[Arrays], Arrays]


class Rounding(NamedTuple):
    """The error of a step of a program: relative to its largest value, and absolute."""

    relative: float
    step: float = 0.0


class Compiled(NamedTuple):
    """
    A program as a function of inputs by name, and how it rounds.

    `paddings` is what it says of each output: "zero" or "computed" at masked positions, `masks` the
    inputs that it says mask them. `command` is the command line of a NumPy program.
    """

    run: Run
    rounding: Rounding
    paddings: Mapping[str, str]
    masks: Sequence[str] = ()
    command: Callable[[Sequence[str]], None] = lambda words: None


class NotExported(Exception):
    """The generator made a model that PyTorch cannot run or export."""


# ---- The model -----------------------------------------------------------------------------------


def module_of(program: Program) -> nn.Module:
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
    return _run(module, {name: torch.from_numpy(a.copy()) for name, a in inputs.items()})


def _run(module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[Array]:
    with torch.no_grad():
        result = module(**inputs)
    return [leaf.numpy() for leaf in tree_flatten(result)[0]]


def export(module: nn.Module, program: Program, inputs: Arrays) -> ExportedProgram:
    """The exported program; `NotExported` where PyTorch cannot."""
    tensors = {name: torch.from_numpy(a.copy()) for name, a in inputs.items()}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, (), kwargs=tensors, strict=False)
            if not program.decompose:
                return exported
            if program.decompose == "none":
                return exported.run_decompositions({})
            return exported.run_decompositions()
    except Exception as error:
        raise NotExported(f"{type(error).__name__}: {error}") from error


class Noise(TorchDispatchMode):
    """
    Adds a random error to what is computed from weights and from inputs that are numbers.

    The error is relative to the largest value of a result, and a step. Masks stay exact, since -1e9
    times an error is no mask any more.
    """

    def __init__(self, rounding: Rounding, seed: int, numbers: Iterable[torch.Tensor]):
        super().__init__()
        self.rounding = rounding
        self.generator = torch.Generator().manual_seed(seed)
        self.inexact = {id(tensor): tensor for tensor in numbers}

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


def conditioning(
    module: nn.Module, inputs: Arrays, rounding: Rounding, masks: Collection[str] = ()
) -> list[Array]:
    """
    How far rounding every step moves each output: twice the most of three tries.

    What is computed from the inputs `masks` alone is not rounded.
    """
    exact = reference(module, inputs)
    moved = [np.zeros(a.shape) for a in exact]
    for seed in range(3):
        tensors = {name: torch.from_numpy(a.copy()) for name, a in inputs.items()}
        numbers = [t for n, t in tensors.items() if t.is_floating_point() and n not in masks]
        with Noise(rounding, seed, [*module.parameters(), *numbers]):
            noisy = _run(module, tensors)
        for i, (a, b) in enumerate(zip(exact, noisy)):
            step = np.abs(np.nan_to_num(b.astype(float)) - np.nan_to_num(a.astype(float)))
            moved[i] = np.maximum(moved[i], step.max(initial=0))
    return [2 * m for m in moved]


# ---- heatc's programs ----------------------------------------------------------------------------


def captured(exported: ExportedProgram) -> Captured:
    """The module of an exported program; `HeatcError` where capture refuses it."""
    return capture_exported(exported)


def compiled(model: Captured, target: str, program: Program, folder: Path) -> Compiled:
    """Compile for a target with the check that users get, and load the program."""
    chosen = Numpy() if target == "numpy" else Hdp(program.hardware)
    options = Options(chosen, make_rule("none", {}), padding=program.positions)
    compilation = Compilation(options, verify=Settings())
    compilation.adopt(model.module.clone(), model.weights, "model")
    compilation.run()
    path = folder / ("program.py" if target == "numpy" else "program.hdp")
    compilation.write(path, target)
    return load_numpy(path) if target == "numpy" else load_hdp(path)


def compiled_by_tools(
    exported: ExportedProgram, target: str, program: Program, folder: Path
) -> Compiled:
    """The same by the commands that people use: an archive, `heatc`, `x.py in.npz`, `hdp-run`."""
    model, inputs, outputs = (folder / n for n in ("model.pt2", "in.npz", "out.npz"))
    torch.export.save(exported, model)
    path = folder / ("program.py" if target == "numpy" else "program.hdp")
    options = ["--hdp-rule=none", f"--target={program.hardware}"] if target == "hdp" else []
    options.append(f"--padding={program.positions}")
    _tool(heatc_tool.main, [str(model), "-o", str(path), *options])
    built = load_numpy(path) if target == "numpy" else load_hdp(path)
    words = [str(path), "--inputs", str(inputs), "-o", str(outputs), "--quiet"]

    def run(arrays: Arrays) -> Arrays:
        np.savez(inputs, **arrays)  # pyright: ignore[reportArgumentType]
        if target == "numpy":
            built.command([str(inputs), str(outputs)])
        else:
            _tool(run_tool.main, words)
        with np.load(outputs) as archive:
            return {name: archive[name] for name in archive.files}

    return built._replace(run=run)


def _tool(main: Callable[[Sequence[str]], int], words: Sequence[str]) -> None:
    """Run a tool in this process; `HeatcError` for an exit code of 1, 3 or 4, its refusals."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = main(words)
    if code == 0:
        return
    text = errors.getvalue()
    lines = [line.partition("error: ")[2] for line in text.splitlines() if "error: " in line]
    message, notes = lines[0] if lines else text, text.splitlines()
    if code == VerificationError.exit_code:
        raise VerificationError(message, notes=notes)
    if code in (1, 4):
        raise HeatcError(message, notes=notes)
    raise RuntimeError(f"exit code {code}: {text}")


def load_hdp(path: Path) -> Compiled:
    """An HDP program out of its file."""
    loaded = open_program(path)
    # The coarsest binary point of all values: no step of the program rounds more.
    step = 2.0 ** -min(loaded.manifest.points.values(), default=16)
    return Compiled(
        lambda inputs: dict(simulate(loaded, inputs).outputs),
        Rounding(2.0**-11, step),
        {port.name: port.padding for port in loaded.manifest.outputs},
        [port.name for port in loaded.manifest.inputs if port.role == "mask"],
    )


def load_numpy(path: Path) -> Compiled:
    """A NumPy program out of its file."""
    spec = importlib.util.spec_from_file_location("heatc_program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def command(words: Sequence[str]) -> None:
        try:
            module._command_line(words)
        except SystemExit as end:
            raise ValueError(str(end.code)) from None

    return Compiled(
        lambda inputs: {k: np.array(v) for k, v in module.main(**inputs).items()},
        Rounding(2.0**-20),
        {name: padding for name, (_, _, padding) in module.OUTPUTS.items()},
        module.MASKS,
        command,
    )
