"""
Models in PyTorch itself, beside which programs are measured.

An archive's graph is made again of ATen ops (`heatc.capture.rebuild`): nothing of it is unpickled. A
folder's model is the one of transformers, with its own `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heatc.capture.archive import read_archive
from heatc.capture.exported import TORCH_DTYPES, import_torch
from heatc.capture.folder import LoadedModel
from heatc.capture.inputs import InputSpec
from heatc.capture.mapped import MappedZip
from heatc.capture.origin import load_live
from heatc.capture.paths import Request, recognised
from heatc.capture.placeholders import Absent, Placeholders
from heatc.capture.rebuild import rebuilt
from heatc.weights import Array

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class EagerModel:
    """
    A model in evaluation mode, float32, on the CPU.

    `specs` are its inputs by name. `run` takes arrays of their shapes and gives the outputs by the
    names that compiled programs use.
    """

    specs: Mapping[str, InputSpec]
    run: Callable[[Arrays], dict[str, Array]]


def eager_model(path: Path, request: Request) -> EagerModel:
    """
    The model of a MODEL file or folder; an archive has its own inputs.

    Raises `HeatcError` without PyTorch, and as `heatc.capture.capture_path` does.
    """
    import_torch("a model in PyTorch")
    kind = recognised(path)
    if kind == "archive":
        return _of_archive(MappedZip(path))
    return _of_live(load_live(path, kind, request))


def _of_live(loaded: LoadedModel) -> EagerModel:
    torch = import_torch("a model in PyTorch")
    for tensor in (*loaded.model.parameters(), *loaded.model.buffers()):
        _fill(tensor, loaded.placeholders)
    ours = {getattr(torch, name): dtype for dtype, name in TORCH_DTYPES.items()}
    specs = {n: InputSpec(tuple(x.shape), ours[x.dtype]) for n, x in loaded.inputs.items()}

    def run(arrays: Arrays) -> dict[str, Array]:
        with torch.inference_mode():
            found = loaded.model(**_tensors(arrays, specs), **loaded.options)
        return dict(_leaves(found))

    return EagerModel(specs, run)


def _leaves(found: Any, name: str = "") -> Iterator[tuple[str, Array]]:
    """The tensors of a result by the names that capture gives them, see `graph.output_names`."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield from _leaves(value, f"{name}_{key}" if name else str(key))
    elif isinstance(found, list | tuple):
        for number, value in enumerate(found):
            yield from _leaves(value, f"{name or 'output'}_{number}")
    elif found is not None:
        yield name or "output", found.numpy()


def _of_archive(file: MappedZip) -> EagerModel:
    archive = read_archive(file)
    file.check()
    graph = archive.graph
    weights = archive.weights({bound.weight for bound in graph.weights})
    module = rebuilt(graph, weights).module()
    tensors = {named.name: graph.tensor(named.value) for named in graph.inputs}
    specs = {name: InputSpec(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    names = [named.name for named in graph.outputs]

    def run(arrays: Arrays) -> dict[str, Array]:
        torch = import_torch("a model in PyTorch")
        with torch.inference_mode():
            found = module(*_tensors(arrays, specs).values())
        return {name: tensor.numpy() for name, tensor in zip(names, found, strict=True)}

    return EagerModel(specs, run)


def _tensors(arrays: Arrays, specs: Mapping[str, InputSpec]) -> dict[str, Any]:
    """The inputs in their types, in the order of the model."""
    torch = import_torch("a model in PyTorch")
    return {
        name: torch.from_numpy(np.ascontiguousarray(arrays[name])).to(
            getattr(torch, TORCH_DTYPES[spec.dtype])
        )
        for name, spec in specs.items()
    }


def _fill(tensor: Any, placeholders: Placeholders) -> None:
    """Make the elements of a weight that has none; NaN for one that the checkpoint lacks."""
    source = placeholders.source(tensor)
    if source is None:
        return
    torch = import_torch("a model in PyTorch")
    with torch.no_grad():
        if isinstance(source, Absent):
            tensor.fill_(float("nan"))
        else:
            tensor.copy_(torch.from_numpy(np.array(source.read())))
