"""Every exported form against the NumPy program of the same plan, on inputs that are made up."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from heatc.capture.exported import quiet_torch
from heatc.errors import HeatcError, VerificationError
from heatc.export.archive import by_name
from heatc.intervals import typical
from heatc.samples import LEFT_AND_HOLES
from heatc.verify.check import NotVerified, made_up
from heatc.verify.programs import NumpyFile
from heatc.verify.rows import Rows, output_rows, tokens_of
from heatc.verify.stages import Stages

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Form = Callable[[Arrays], dict[str, Array]]

LARGEST = 1e-4
"""The largest absolute difference of an output from the NumPy program's."""

SHARE = 1e-5
"""The same of outputs above 10: a share of the largest value, which float32 in another order reaches."""

_PADDINGS = (("no padding",), ("right padding",), (LEFT_AND_HOLES,))


@dataclass(frozen=True)
class Reference:
    """The NumPy program of the plan, and what says which positions of its outputs are real."""

    stages: Stages
    program: Path
    weights: Path


def check_agreement(
    reference: Reference, forms: Mapping[str, Form], place: str
) -> dict[str, float]:
    """
    The largest absolute difference of each form, by its name.

    Positions that are masked are left out: there the NumPy program gives 0. Raises
    `VerificationError` where a difference is above `LARGEST` and above `SHARE` of the output.
    """
    largest = dict.fromkeys(forms, 0.0)
    paddings = _PADDINGS if reference.stages.masks else (_PADDINGS[0],) * 2
    with ExitStack() as stack:
        program = stack.enter_context(NumpyFile(reference.program, reference.weights))
        for seed, kinds in enumerate(paddings):
            inputs = _inputs(reference.stages, kinds, seed)
            expected = program.run(inputs)
            packed = reference.stages.packed
            rows = output_rows(packed, tokens_of(packed, inputs, reference.stages.masks))
            for name, run in forms.items():
                found = _distance(name, expected, run(inputs), rows, place)
                largest[name] = max(largest[name], found)
    return largest


def check_other_extents(
    stages: Stages, own: Form, forms: Mapping[str, Form], axes: Mapping[str, list[int]], place: str
) -> None:
    """
    Hold every form against the model's own code, `own`, where extents are others than it was traced with.

    There is a sample more, and half of the tokens. Raises `VerificationError`.
    """
    inputs = dict(_inputs(stages, _PADDINGS[0], 0))
    for name, free in axes.items():
        if 0 in free:
            inputs[name] = np.concatenate([inputs[name], inputs[name][:1]])
        if 1 in free:
            inputs[name] = inputs[name][:, : max(1, inputs[name].shape[1] // 2)]
    expected = own(inputs)
    for name, run in forms.items():
        _distance(f"{name} at other extents", expected, run(inputs), {}, place)


def _inputs(stages: Stages, kinds: Sequence[str], seed: int) -> Arrays:
    """Inputs that the model takes; masks have their usual numbers, 1 and 0 where they may."""
    try:
        inputs = made_up(stages, kinds, seed, far=False)[0]
    except NotVerified as reason:
        raise HeatcError(
            f"the export cannot be checked: {reason}",
            notes=["--no-verify writes it without the check"],
        ) from reason
    for name, mask in stages.masks.items():
        usual = (typical(mask.real), typical(mask.masked))
        plain = np.where(mask.tells(inputs[name]), *usual)
        inputs[name] = plain.astype(inputs[name].dtype)
    return inputs


def _distance(
    form: str, expected: Arrays, found: Arrays, rows: Mapping[str, Rows], place: str
) -> float:
    """The largest difference of all outputs; `VerificationError` where it is above its bound."""
    worst = 0.0
    for name, array in expected.items():
        other = found.get(name)
        if other is None or other.shape != array.shape:
            what = "is missing" if other is None else f"has shape {other.shape}"
            raise VerificationError(f"{form}: output {name!r} {what}", place=place)
        kept = rows.get(name, Rows())
        a, b = (kept.of(x).astype(np.float64) for x in (array, other))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        difference = float(np.abs(np.where(same, 0.0, a - b)).max(initial=0.0))
        bound = max(LARGEST, SHARE * float(np.abs(a[np.isfinite(a)]).max(initial=0.0)))
        if not difference <= bound:
            raise VerificationError(
                f"{form}: output {name!r} differs from the plan's program by {difference:.3g}, "
                f"{bound:.3g} is allowed",
                place=place,
                notes=["nothing was written; this is a bug in heatc-export, please report it"],
            )
        worst = max(worst, difference)
    return worst


# --- Forms ------------------------------------------------------------------------------------


def modeling_form(
    folder: Path, inputs: Sequence[str], outputs: Sequence[str], options: Mapping[str, Any]
) -> Form:
    """What `from_folder` of the modeling.py in a folder gives."""
    file = folder / "modeling.py"
    spec = importlib.util.spec_from_file_location(f"heatc_exported_{abs(hash(folder))}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _without_bytecode():
        spec.loader.exec_module(module)
    with quiet_torch():
        model: nn.Module = module.from_folder(folder)
    return torch_form(by_name(model, inputs, outputs, options))


@contextmanager
def _without_bytecode() -> Generator[None]:
    """Modules that are imported leave no __pycache__ beside their file."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def archive_form(path: Path) -> Form:
    """What torch.export.load makes of an archive."""
    with quiet_torch():
        return torch_form(torch.export.load(path).module())


def torch_form(model: nn.Module) -> Form:
    """What runs a module that takes and gives tensors by name."""

    def run(inputs: Arrays) -> dict[str, Array]:
        with torch.no_grad():
            found = model(**{name: torch.tensor(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return run


def onnx_form(path: Path) -> tuple[str, Form]:
    """What runs an ONNX file, ONNX Runtime or the slow reference of the package onnx, and how."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise VerificationError(f"onnx.checker refuses the model: {line[:200]}") from error
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        session: Any = ReferenceEvaluator(str(path))
        names: list[str] = session.output_names
        return "onnx.reference", _session_form(session, names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return "ONNX Runtime", _session_form(session, [o.name for o in session.get_outputs()])


def _session_form(session: Any, outputs: Sequence[str]) -> Form:
    def run(inputs: Arrays) -> dict[str, Array]:
        return dict(zip(outputs, session.run(None, dict(inputs))))

    return run
