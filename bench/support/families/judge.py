"""
Compiles one model by one route for both targets, runs it under each padding, judges every output.

A program says of each output whether it is 0 at masked positions. All other values are PyTorch's.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from bench.support.differential.build import Compiled, load_hdp, load_numpy
from bench.support.differential.judge import TooSlow, limited
from bench.support.families.entry import Array, Arrays, Entry, Keep
from heatc.api import Compilation
from heatc.capture import Captured, InputSpec, capture_path
from heatc.ir_errors import explain
from heatc.rules import make_rule
from heatc.targets import Hdp, Numpy, Options
from heatc.verify.settings import Settings

Kind: TypeAlias = Literal["right", "refused", "wrong"]

TARGETS = ("numpy", "hdp")
NUMPY_ERROR = 1e-4
"""Largest absolute difference from PyTorch"""
HDP_COSINE = 0.999
"""Least cosine of a token's vector with PyTorch's"""
HDP_LENGTH = 0.05
"""How far a token's vector may be longer or shorter than PyTorch's, in parts of it"""
HDP_ZERO = 2e-2
"""How far from 0 what PyTorch has as 0 may be"""
SECONDS = 120
"""A step that takes longer is refused"""
_REFUSALS = (1, 3, 4)
"""Exit codes: bad input, not verified, infeasible"""
_LONGEST = 1500
_DTYPES = {"int64": "i64", "float32": "f32", "bool": "i1"}


@dataclass(frozen=True)
class Verdict:
    """
    What came of one model, route, target and padding.

    `error` is the largest absolute difference from PyTorch, `cosine` the least one of a vector;
    both are of real positions. `message` is why a model was refused or what is wrong.
    """

    family: str
    head: str
    implementation: str
    route: str
    target: str
    mask: str
    kind: Kind
    message: str = ""
    error: float = 0.0
    cosine: float = 1.0


@dataclass(frozen=True)
class Found:
    """A comparison: what is wrong, nothing if `message` is empty, and how near the output is."""

    message: str = ""
    error: float = 0.0
    cosine: float = 1.0


def judge(
    entry: Entry, implementation: str, route: str, targets: Sequence[str] = TARGETS
) -> list[Verdict]:
    """A verdict a target and padding."""
    module = entry.module(implementation)
    blank = Verdict(entry.family, entry.head, implementation, route, "", "", "refused")
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="heatc-families-") as name:
        folder = Path(name)
        try:
            with limited(SECONDS):
                captured = capture(entry, module, implementation, route, folder)
        except Exception as error:
            every = [(target, mask) for target in targets for mask in entry.masks]
            return [_failed(blank, error, target, mask) for target, mask in every]
        for target in targets:
            found += _judged(entry, module, captured, target, folder, blank)
    return found


def _judged(
    entry: Entry, module: nn.Module, captured: Captured, target: str, folder: Path, blank: Verdict
) -> list[Verdict]:
    try:
        with limited(SECONDS):
            program = compiled(captured, target, folder)
    except Exception as error:
        return [_failed(blank, error, target, mask) for mask in entry.masks]
    verdicts: list[Verdict] = []
    for mask in entry.masks:
        inputs, keep = entry.given(mask)
        try:
            with limited(SECONDS):
                got = program.run(inputs)
        except Exception as error:
            verdicts.append(_failed(blank, error, target, mask, running=True))
            continue
        found = compared(entry, reference(module, inputs), got, keep, program, target)
        kind: Kind = "wrong" if found.message else "right"
        verdicts.append(
            dataclasses.replace(
                blank, target=target, mask=mask, kind=kind, **dataclasses.asdict(found)
            )
        )
    return verdicts


# ---- Programs ------------------------------------------------------------------------------------


def capture(
    entry: Entry, module: nn.Module, implementation: str, route: str, folder: Path
) -> Captured:
    """The model through a torch.export archive or a folder; raises what heatc or PyTorch raises."""
    if route == "archive":
        return capture_path(save_archive(entry, module, folder / "model.pt2"))
    save_folder(module, implementation, folder / "model")
    return capture_path(folder / "model", specs(entry.inputs))


def save_archive(entry: Entry, module: nn.Module, path: Path) -> Path:
    """A torch.export archive of the module on the entry's inputs."""
    tensors = {name: torch.from_numpy(a.copy()) for name, a in entry.inputs.items()}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module, (), kwargs=tensors, strict=False)
        torch.export.save(exported, path)
    return path


def save_folder(module: Any, implementation: str, folder: Path) -> Path:
    """A folder as `save_pretrained` writes it, with the attention that its config asks for."""
    module.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "attn_implementation": implementation}), encoding="utf-8")
    return folder


def specs(inputs: Arrays) -> dict[str, InputSpec]:
    """What `--inputs` says of arrays."""
    return {name: InputSpec(a.shape, _DTYPES[str(a.dtype)]) for name, a in inputs.items()}


def compiled(captured: Captured, target: str, folder: Path) -> Compiled:
    """A program of a captured model, checked as every user's is; HDP without pruning."""
    chosen = Numpy() if target == "numpy" else Hdp("hdp-edge")
    compilation = Compilation(Options(chosen, make_rule("none", {})), verify=Settings(), quiet=True)
    compilation.adopt(captured.module.clone(), captured.weights, "model")
    compilation.run()
    path = folder / ("program.py" if target == "numpy" else "program.hdp")
    compilation.write(path, target)
    return load_numpy(path) if target == "numpy" else load_hdp(path)


def reference(module: nn.Module, inputs: Arrays) -> Arrays:
    """What PyTorch gives, under the names that a program has for outputs."""
    with torch.no_grad():
        result: Any = module(**{name: torch.from_numpy(a.copy()) for name, a in inputs.items()})
    if isinstance(result, Mapping):
        named = {str(k): v for k, v in result.items() if isinstance(v, torch.Tensor)}
        return {name: tensor.numpy() for name, tensor in named.items()}
    leaves = [leaf.numpy() for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
    if isinstance(result, torch.Tensor):
        return {"output": leaves[0]}
    return {f"output_{index}": leaf for index, leaf in enumerate(leaves)}


# ---- Comparing -----------------------------------------------------------------------------------


def compared(
    entry: Entry, want: Arrays, got: Arrays, keep: Keep, program: Compiled, target: str
) -> Found:
    """The worst of all outputs; the first that is wrong has the message."""
    if sorted(want) != sorted(got):
        return Found(f"names of outputs: {sorted(got)}, PyTorch {sorted(want)}")
    error, cosine, messages = 0.0, 1.0, list[str]()
    for name, expected in want.items():
        zero = program.paddings[name] == "zero"
        found = _difference(entry, expected, got[name], keep, zero, target)
        error, cosine = max(error, found.error), min(cosine, found.cosine)
        messages += [f"{name}: {found.message}"] if found.message else []
    return Found(messages[0] if messages else "", error, cosine)


def _difference(
    entry: Entry, want: Array, got: Array, keep: Keep, zero: bool, target: str
) -> Found:
    if got.shape != want.shape:
        return Found(f"shape {got.shape}, PyTorch {want.shape}")
    if target == "numpy" and got.dtype != want.dtype:
        return Found(f"dtype {got.dtype}, PyTorch {want.dtype}")
    hidden = masked(entry, want.shape, keep) if zero else np.zeros(want.shape, np.bool_)
    if zero and not entry.zero and not keep.all():
        return Found("said to be 0 at padding, and no input is a padding mask")
    if got[hidden].any():
        return Found("not 0 at masked positions")
    if (np.isfinite(want) != np.isfinite(got))[~hidden].any():
        return Found("not finite where PyTorch is, or the reverse")
    a, b = (np.where(hidden, 0, np.nan_to_num(x)).astype(np.float64) for x in (want, got))
    error = float(np.abs(a - b).max(initial=0))
    if target == "numpy":
        return Found(f"differs by {error:.3g}" if error > NUMPY_ERROR else "", error)
    return _vectors(a, b, error)


def _vectors(want: Array, got: Array, error: float) -> Found:
    """Each vector along the last axis beside PyTorch's."""
    lengths, others = (np.linalg.norm(x, axis=-1) for x in (want, got))
    some = lengths > HDP_ZERO
    if (others[~some] > 2 * HDP_ZERO).any():
        return Found(f"{others[~some].max():.3g} where PyTorch has 0", error)
    products = (want * got).sum(axis=-1)[some]
    cosine = float((products / (lengths * np.maximum(others, 1e-30))[some]).min(initial=1))
    if cosine < HDP_COSINE:
        return Found(f"a vector's cosine is {cosine:.6f}", error, cosine)
    far = np.abs(others - lengths)[some]
    # A short vector, as the one logit of a sequence of one token, is as far off as one of 0.
    if (far > np.maximum(HDP_LENGTH * lengths[some], HDP_ZERO)).any():
        worst = float((far / lengths[some]).max())
        return Found(f"a vector's length is {worst:.3g} off", error, cosine)
    return Found("", error, cosine)


def masked(entry: Entry, shape: tuple[int, ...], keep: Keep) -> Keep:
    """Where an output is padding: at the positions of each axis of tokens, by sequence."""
    real = entry.positions(keep)
    hidden = np.zeros(shape, np.bool_)
    if real.all() or len(real) not in shape:
        return hidden
    batch = shape.index(len(real))
    for axis, extent in enumerate(shape):
        if extent != entry.axis:
            continue
        sizes = [1] * len(shape)
        sizes[batch], sizes[axis] = real.shape
        hidden |= ~(real if batch < axis else real.T).reshape(sizes)
    return hidden


# ---- Refusals ------------------------------------------------------------------------------------


def _failed(
    blank: Verdict, error: Exception, target: str, mask: str, *, running: bool = False
) -> Verdict:
    """A verdict of what was raised; a program that refuses what it was compiled for is wrong."""
    kind, message = fault(error)
    if running:
        kind, message = "wrong", f"refused when run: {message}"
    return dataclasses.replace(blank, target=target, mask=mask, kind=kind, message=message)


def fault(error: Exception) -> tuple[Kind, str]:
    """A clear message, or no end, is a refusal; a crash is wrong."""
    refusal = explain(error)
    if isinstance(error, TooSlow):
        return "refused", str(error)
    if refusal is None:
        return "wrong", f"{type(error).__name__}: {error}"[:_LONGEST]
    text = "\n".join((refusal.message, *refusal.notes))[:_LONGEST]
    return ("refused" if refusal.exit_code in _REFUSALS else "wrong"), text
