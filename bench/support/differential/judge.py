"""Compiles a random program for both targets, runs it on its cases, compares with PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, TypeAlias

import numpy as np
from torch import nn

from bench.support.differential.build import (
    Compiled,
    NotExported,
    captured,
    compiled,
    compiled_by_tools,
    conditioning,
    export,
    module_of,
    reference,
)
from bench.support.differential.compare import HDP, NUMPY, Bound, difference, masked_positions
from bench.support.differential.inputs import Case, cases
from bench.support.differential.program import Array, Arrays, Output, Program
from heatc.errors import HeatcError
from heatc.ir_errors import explain

Kind: TypeAlias = Literal["right", "refused", "wrong", "invalid"]

TARGETS = ("numpy", "hdp")
BOUNDS: Mapping[str, Bound] = {"numpy": NUMPY, "hdp": HDP}
SECONDS = 60
_REFUSALS = (1, 3, 4)
"""Exit codes: bad input, not verified, infeasible"""
WEAK_FILL = "-10000.0"
"""What a model writes where it hides a key by -1e4."""
_NOT_RECOGNISED = {
    "tokens first": (".transpose(0, 1)", "nn.MultiheadAttention", "nn.TransformerEncoder"),
    "one head of keys for several of queries": (".repeat_interleave(",),
    "products as einsum equations": ("->bhqk', ", "->bhlt', "),
}
"""
Texts of attentions that heatc does not recognise where there are several sequences: PyTorch's own
layers have tokens first inside. Keys of a memory of another length are the fourth kind.
"""
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


def judge(program: Program, targets: Sequence[str] = TARGETS) -> list[Verdict]:
    """A verdict a target; `NotExported` where PyTorch itself refuses the model."""
    return judge_module(module_of(program), program, list(cases(program)), targets)


def judge_module(
    module: nn.Module, program: Program, found: Sequence[Case], targets: Sequence[str] = TARGETS
) -> list[Verdict]:
    """A verdict a target for a module, whose outputs and inputs are described by a program."""
    try:
        wanted = [reference(module, case.inputs) for case in found]
    except Exception as error:
        raise NotExported(f"{type(error).__name__}: {error}") from error
    program = _measured(program, wanted[0])
    exported = export(module, program, found[0].inputs)
    if program.by_tools:

        def build(target: str, folder: Path) -> Compiled:
            return compiled_by_tools(exported, target, program, folder)
    else:
        try:
            model = captured(exported)
        except Exception as error:
            return [_failed(target, error) for target in targets]

        def build(target: str, folder: Path) -> Compiled:
            return compiled(model, target, program, folder)

    return [_judge(program, module, build, target, found, wanted) for target in targets]


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
    build: Callable[[str, Path], Compiled],
    target: str,
    found: Sequence[Case],
    wanted: Sequence[list[Array]],
) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="heatc-diff-") as name:
        try:
            with limited(SECONDS):
                built = build(target, Path(name))
        except Exception as error:
            return _failed(target, error)
        later: list[str] = []
        sizes = [max(map(_largest, arrays)) for arrays in zip(*wanted)]
        for case, want in zip(found, wanted):
            try:
                with limited(SECONDS):
                    got = built.run(case.inputs)
            except Exception as error:
                if not may_refuse(program, case, error, want):
                    return _failed(target, error, case)
                later.append(f"{case.name}: {normalised(str(error))}")
                continue
            wrong = compare(program, module, case, want, got, BOUNDS[target], built, sizes)
            if not wrong:
                continue
            hiding = _with_fills_that_hide(program)
            if hiding is not None:
                other = reference(hiding, case.inputs)
                if not compare(program, hiding, case, other, got, BOUNDS[target], built, sizes):
                    later.append(f"{case.name}: scores reach the mask's fill of -1e4, as remarked")
                    continue
            reason, detail = wrong
            return Verdict(target, "wrong", f"{reason} ({case.name})", detail)
    return Verdict(target, "right", later=tuple(later))


def _with_fills_that_hide(program: Program) -> nn.Module | None:
    """
    The model with -1e9 where it fills masks with -1e4; None where it does not.

    docs/design/padding.md assumes that -1e4 hides a key, which it does not where scores reach it.
    """
    if WEAK_FILL not in program.text:
        return None
    return module_of(dataclasses.replace(program, text=program.text.replace(WEAK_FILL, "-1e9")))


def compare(
    program: Program,
    module: nn.Module,
    case: Case,
    want: Sequence[Array],
    got: Arrays,
    bound: Bound,
    built: Compiled,
    sizes: Sequence[float],
) -> tuple[str, str] | None:
    """
    The kind of a difference and its detail; None where every output is right.

    `sizes` are the largest magnitudes of the outputs over all cases.
    """
    names = [output.name for output in program.outputs]
    if sorted(got) != sorted(names):
        return "names of outputs", f"{sorted(got)}, expected {sorted(names)}"
    for index, (output, expected) in enumerate(zip(program.outputs, want)):

        def noise(index: int = index) -> Array:
            masks = [padding.port for padding in program.padding]
            return conditioning(module, case.inputs, built.rounding, masks)[index]

        zero = built.paddings[output.name] == "zero"
        zeros = masked_positions(output, case, built.masks) if zero else None
        if zero and program.positions == "compute":
            return "0 at masked positions", f"{output.name}: asked was to compute them"
        if bound.same_dtype and got[output.name].dtype != expected.dtype:
            found = f"{got[output.name].dtype}, PyTorch {expected.dtype}"
            return f"dtype {found}", f"{output.name} is {found}"
        wrong = difference(expected, got[output.name], zeros, bound, noise, sizes[index])
        if wrong:
            return wrong.partition(":")[0], f"{output.name} ({output.axes}): {wrong}"
    return None


def _largest(array: Array) -> float:
    """The largest finite magnitude."""
    values = np.abs(array.astype(np.float64))
    return float(values.max(initial=0.0, where=np.isfinite(values)))


def may_refuse(program: Program, case: Case, error: Exception, want: Sequence[Array] = ()) -> bool:
    """
    Whether a program may refuse these inputs when it runs.

    It may where a sequence has no real token that an output beside its own rows depends on (pairs of
    tokens are no rows), or that an attention reads which is not recognised. It may where a mask holds
    values that key padding does not. It must name the row or the input. It may where PyTorch has no
    number, `want` being what it gives, since a query sees no key, or a pooling no token.
    """
    if not isinstance(error, HeatcError | ValueError):
        return False
    text = error.render() if isinstance(error, HeatcError) else str(error)
    if re.search("sees no key|holds a NaN", text) and any(
        np.isnan(array).any() for array in want if array.dtype.kind == "f"
    ):
        return True
    if case.empty and re.search(rf"\b(?:row|sequence) {case.empty[0]}\b", text):
        own_rows = all(output.axes.count("s") == 1 for output in program.outputs)
        return program.positions == "compute" or not own_rows or _reads_all(program)
    return case.name == "odd" and any(padding.port in text for padding in program.padding)


def _reads_all(program: Program) -> bool:
    """Whether an attention may be one that heatc does not recognise."""
    extents = program.extents
    words = (word for words in _NOT_RECOGNISED.values() for word in words)
    memories = (port.shape for port in program.ports if port.name == "memory_ids")
    return extents.batch > 1 and (
        any(word in program.text for word in words)
        or any(shape[1] != extents.length for shape in memories)
    )


# ---- Failures ------------------------------------------------------------------------------------


def _failed(target: str, error: Exception, case: Case | None = None) -> Verdict:
    refusal = explain(error)
    if case is None and refusal is not None and refusal.exit_code in _REFUSALS:
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
    line = re.sub(r" \(input: [^)]*\)$", "", line)
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
