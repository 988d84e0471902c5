"""
A MODEL as PyTorch has it, beside what was captured of it: what `heatc-export` goes back to.

The same files are recognised as in `heatc.capture.paths`, and nothing more of them is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from heatc.capture.archive import read_archive
from heatc.capture.convert import convert, weights_used
from heatc.capture.exported import array_of, capture_graph, import_torch, known_graph
from heatc.capture.folder import LoadedModel, load_folder, load_pickle
from heatc.capture.functional import unknown_targets
from heatc.capture.graph import AtenGraph
from heatc.capture.inputs import check_inputs
from heatc.capture.mapped import MappedZip
from heatc.capture.paths import Kind, Request, declared, recognised
from heatc.capture.pickle_file import records_of
from heatc.capture.rebuild import decomposed_graph, from_array
from heatc.weights import WeightStore


@dataclass(frozen=True)
class Origin:
    """
    A model, and what was captured of it.

    Attributes:
        graph: its calls of ATen ops, those that the module was made of.
        tensors: what its weights are bound to, by name; those of `loaded` may have no elements yet.
        module: the module that was captured.
        weights: what the module reads.
        loaded: the live model, None of a torch.export archive.
    """

    graph: AtenGraph
    tensors: Mapping[str, Any]
    module: ModuleOp
    weights: WeightStore
    loaded: LoadedModel | None = None


def open_origin(path: Path, request: Request) -> Origin:
    """
    Read a model file or folder; its weights are mapped.

    Raises `HeatcError` as `heatc.capture.capture_path` does, and without torch.
    """
    import_torch("exporting a model")
    kind = recognised(path)
    if kind == "archive":
        return _of_archive(MappedZip(path), request)
    return _of_loaded(load_live(path, kind, request))


def load_live(path: Path, kind: Kind, request: Request) -> LoadedModel:
    """The live model of a folder or of a file of torch.save; raises `HeatcError` as `open_origin` does."""
    if kind == "folder":
        return load_folder(path, request.inputs, request.remarks)
    records = None
    if kind == "zip of a pickle":
        file = MappedZip(path)
        file.check()
        records = records_of(file)
    return load_pickle(
        path, request.inputs, request.remarks, trusted=request.trust_pickle, records=records
    )


def _of_loaded(loaded: LoadedModel) -> Origin:
    graph, tensors = known_graph(loaded.export())
    module, weights = capture_graph(graph, tensors, loaded.placeholders)
    return Origin(graph, tensors, module, weights, loaded)


def _of_archive(file: MappedZip, request: Request) -> Origin:
    archive = read_archive(file)
    graph = archive.graph
    check_inputs(request.inputs, declared(graph), str(file.path))
    mapped = archive.weights({bound.weight for bound in graph.weights})
    file.check()
    if unknown_targets(graph):
        graph, made = decomposed_graph(graph, mapped)
        tensors: Mapping[str, Any] = made
    else:
        tensors = {name: from_array(mapped[name]) for name in mapped}
    module = convert(graph)
    arrays = {
        name: mapped[name] if name in mapped else array_of(name, tensors[name])
        for name in weights_used(module)
    }
    return Origin(graph, tensors, module, WeightStore(arrays, file.path))
