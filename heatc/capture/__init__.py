"""
Capture: from a PyTorch model to a module of `nn` ops, with its weights beside it.

The core and the reader of torch.export archives are free of torch; it is imported only for
models that have to be exported first (Hugging Face folders, state dicts, live modules).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp

from heatc.capture.inputs import InputSpec, check_specs, parse_inputs
from heatc.errors import HeatcError
from heatc.garbage import fewer_collections
from heatc.ir_errors import translated
from heatc.readers.source import as_path
from heatc.remarks import RemarkSink, print_remark
from heatc.weights import WeightStore

if TYPE_CHECKING:
    import torch

__all__ = [
    "Captured",
    "InputSpec",
    "capture_exported",
    "capture_module",
    "capture_path",
    "parse_inputs",
]


@dataclass
class Captured:
    """A module (`func.func @main` over `nn` ops) and the weights that its text names."""

    module: ModuleOp
    weights: WeightStore


@translated()
@fewer_collections()
def capture_path(
    path: str | PathLike[str],
    inputs: Mapping[str, InputSpec] | None = None,
    *,
    trust_pickle: bool = False,
    remarks: RemarkSink = print_remark,
) -> Captured:
    """
    Capture a model file or folder, recognised by its content.

    A torch.export archive, a Hugging Face folder (config.json with safetensors or `.bin` files), a
    folder of sentence-transformers, or a `.pt` state dict beside a config.json. `inputs` gives shapes
    and dtypes where the file leaves them open, and must agree where it does not. `trust_pickle`
    allows a pickled module, which may run code; `remarks` takes what there is to say of a folder.

    Raises `HeatcError` for anything that is no such model, damaged, or not supported.
    """
    from heatc.capture.paths import Request, capture_any

    check_specs(inputs)
    request = Request(inputs, trust_pickle, remarks)
    return Captured(*capture_any(as_path(path, "model"), request))


@translated()
@fewer_collections()
def capture_module(
    module: torch.nn.Module,
    example_inputs: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...],
) -> Captured:
    """
    Capture a live module; inputs by name are passed to `forward` by keyword.

    The example inputs fix all shapes. The weights are views of the module's own tensors.
    Raises `HeatcError` if torch cannot export the module, or for unsupported ops.
    """
    from heatc.capture.exported import capture_program, export, import_torch

    torch = import_torch("a live module")
    if not isinstance(module, torch.nn.Module):
        raise HeatcError(f"expected an nn.Module, got {type(module).__name__}")
    return Captured(*capture_program(export(module, example_inputs)))


@translated()
@fewer_collections()
def capture_exported(program: torch.export.ExportedProgram) -> Captured:
    """
    Capture an `ExportedProgram`; the weights are views of its own tensors.

    Raises `HeatcError` for dynamic shapes, side effects and unsupported ops.
    """
    from heatc.capture.exported import capture_program, import_torch

    torch = import_torch("an ExportedProgram")
    if not isinstance(program, torch.export.ExportedProgram):
        raise HeatcError(f"expected an ExportedProgram, got {type(program).__name__}")
    return Captured(*capture_program(program))
