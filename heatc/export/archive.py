"""`model.pt2`: a torch.export archive of a factorised model, which holds no pickle."""

from __future__ import annotations

import inspect
import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heatc.capture.exported import export, quiet_torch
from heatc.errors import HeatcError
from heatc.kinds import EXPORTED_PROGRAM


def by_name(
    model: nn.Module, inputs: Sequence[str], outputs: Sequence[str], options: Mapping[str, Any]
) -> nn.Module:
    """
    The model as a module that takes tensors by these names and gives a dict of tensors.

    Classes of outputs of other packages are gone, so that torch alone loads what is exported.
    `options` are told to the model beside tensors.
    """

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
            found = self.model(**dict(zip(inputs, args)), **kwargs, **options)
            tensors = [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]
            return dict(zip(outputs, tensors))

    # torch.export calls inputs as the signature does.
    names = [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("self", *inputs)
    ]
    Model.forward.__signature__ = inspect.Signature(names)  # pyright: ignore[reportFunctionMemberAccess]
    return Model().eval()


def export_static(model: nn.Module, examples: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """The program of a model for the shapes of its examples; raises `HeatcError`."""
    return export(model, examples)


def export_dynamic(
    model: nn.Module, examples: Mapping[str, Tensor]
) -> torch.export.ExportedProgram | None:
    """
    The program of a model whose batch and whose tokens may be any number, where torch finds one.

    Samples are axis 0 of every input, tokens axis 1 of integers (samples, tokens). None where torch
    cannot trace such shapes.
    """
    two = {name: torch.cat([x[:1], x[:1]]) for name, x in examples.items()}
    free = torch.export.Dim.AUTO
    shapes = {n: {axis: free for axis in range(2 if _is_tokens(x) else 1)} for n, x in two.items()}
    try:
        with warnings.catch_warnings(), torch.no_grad(), quiet_torch():
            warnings.simplefilter("ignore")
            return torch.export.export(model, (), two, dynamic_shapes=shapes, strict=False)
    # Tracing runs the model's own code, which may raise anything on shapes that are no numbers.
    except Exception:
        return None


def _is_tokens(x: Tensor) -> bool:
    return x.dim() == 2 and not x.is_floating_point()


def free_axes(program: torch.export.ExportedProgram) -> dict[str, list[int]]:
    """The axes of each input that may have another extent, by the input's name."""
    user = set(program.graph_signature.user_inputs)
    found: dict[str, list[int]] = {}
    for node in program.graph.nodes:
        if node.name in user:
            shape = node.meta["val"].shape
            found[str(node.name)] = [i for i, extent in enumerate(shape) if type(extent) is not int]
    return found


def write_archive(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program; raises `HeatcError` where torch cannot, or where it would pickle a weight."""
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), quiet_torch():
            warnings.simplefilter("ignore")
            torch.export.save(program, stream)
    # What the serializer does not know is an exception of any kind.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise HeatcError(
            f"torch cannot save the program: {type(error).__name__}: {lines[0][:200]}"
        ) from error
    with zipfile.ZipFile(stream, "a") as archive:
        archive.comment = EXPORTED_PROGRAM.mark.encode()
    path.write_bytes(stream.getvalue())
