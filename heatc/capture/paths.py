"""Recognises what a MODEL path holds, by its content, and captures it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr

from heatc.capture.archive import Archive, is_archive, read_archive
from heatc.capture.convert import convert, weights_used
from heatc.capture.functional import unknown_targets
from heatc.capture.graph import AtenGraph
from heatc.capture.inputs import InputSpec, check_inputs
from heatc.capture.mapped import MappedZip
from heatc.errors import HeatcError
from heatc.files import from_os_error
from heatc.readers.source import open_file
from heatc.remarks import RemarkSink
from heatc.weights import WeightStore

ACCEPTED = (
    "accepted are a torch.export archive (torch.export.save), a Hugging Face folder (config.json "
    "with *.safetensors or pytorch_model.bin), and a .pt state dict beside a config.json"
)

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"

Inputs = Mapping[str, InputSpec] | None

Kind: TypeAlias = Literal["archive", "folder", "pickle", "zip of a pickle"]
"""What a MODEL may be."""


@dataclass(frozen=True)
class Request:
    """What is asked for beside the path: inputs, whether pickles are trusted, who takes remarks."""

    inputs: Inputs
    trust_pickle: bool
    remarks: RemarkSink


def capture_any(path: Path, request: Request) -> tuple[ModuleOp, WeightStore]:
    """The module and the weights of a model file or folder; raises `HeatcError` with a place."""
    try:
        return _capture(path, request)
    except HeatcError as error:
        if not error.place:
            error.place = str(path)
        raise


def _capture(path: Path, request: Request) -> tuple[ModuleOp, WeightStore]:
    kind = recognised(path)
    if kind == "folder":
        return _capture_folder(path, request)
    if kind == "pickle":
        return _capture_pickle(path, request)
    file = MappedZip(path)
    if kind == "archive":
        return _capture_archive(file, request.inputs)
    from heatc.capture.pickle_file import records_of

    # torch looks at no checksum.
    file.check()
    return _capture_pickle(path, request, records_of(file))


def recognised(path: Path) -> Kind:
    """What a MODEL path holds, by its content; raises `HeatcError` for anything that is no model."""
    if not path.exists():
        raise HeatcError("no such file or folder", place=str(path), notes=[ACCEPTED])
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise HeatcError("not a regular file", place=str(path), notes=[ACCEPTED])
    magic = _first_bytes(path, 8)
    if not magic:
        raise HeatcError("the file is empty", place=str(path), notes=[ACCEPTED])
    if magic.startswith(_ZIP_MAGIC):
        return _recognised_zip(path)
    if magic.startswith(_PICKLE_MAGIC):
        return "pickle"
    if magic[7:8] == b"\0" and _is_safetensors(path):
        raise HeatcError(
            "a safetensors file holds weights but no model",
            place=str(path),
            notes=["give the folder that holds it and the model's config.json"],
        )
    raise HeatcError("the file is no model that heatc knows", place=str(path), notes=[ACCEPTED])


def _recognised_zip(path: Path) -> Kind:
    file = MappedZip(path)
    if is_archive(file):
        return "archive"
    if "serialized_exported_program.json" in file.members:
        raise HeatcError(
            "the torch.export archive is of an older format",
            place=str(path),
            notes=["export the model again with torch 2.9 or later"],
        )
    if "data.pkl" in file.members:
        return "zip of a pickle"
    raise HeatcError("the zip file holds no model", place=str(path), notes=[ACCEPTED])


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with open_file(path, "a model", pipes=False) as file:
            return file.read(count)
    except OSError as error:
        raise from_os_error(error, path) from None


def _is_safetensors(path: Path) -> bool:
    return _first_bytes(path, 9)[8:] == b"{"


def _capture_archive(file: MappedZip, inputs: Inputs) -> tuple[ModuleOp, WeightStore]:
    archive = read_archive(file)
    graph = archive.graph
    check_inputs(inputs, declared(graph), str(file.path))
    if unknown_targets(graph) and has_torch():
        module, weights = _capture_decomposed(archive)
    else:
        module = convert(graph)
        weights = archive.weights(weights_used(module))
    # What is not read may be damaged, too: then the archive is not the one that was written.
    file.check()
    _sign(module, file)
    return module, weights


def has_torch() -> bool:
    """Whether PyTorch is installed; it is not imported for this."""
    return importlib.util.find_spec("torch") is not None


def _capture_decomposed(archive: Archive) -> tuple[ModuleOp, WeightStore]:
    """The module of an archive with calls that no converter knows."""
    from heatc.capture.exported import array_of
    from heatc.capture.rebuild import decomposed_graph

    mapped = archive.weights({bound.weight for bound in archive.graph.weights})
    try:
        graph, tensors = decomposed_graph(archive.graph, mapped)
    except HeatcError:
        # What torch cannot decompose is reported by its own name.
        return convert(archive.graph), WeightStore({})
    module = convert(graph)
    arrays = {
        name: mapped[name] if name in mapped else array_of(name, tensors[name])
        for name in weights_used(module)
    }
    return module, WeightStore(arrays, archive.file.path)


def declared(graph: AtenGraph) -> dict[str, InputSpec]:
    """The inputs of a graph by name."""
    tensors = {named.name: graph.tensor(named.value) for named in graph.inputs}
    return {name: InputSpec(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _sign(module: ModuleOp, file: MappedZip) -> None:
    """
    Name the source: the file, and a digest of its graph and of its members' checksums.

    The checksums stand in the archive's directory, so that no weight has to be read for this.
    """
    digest = hashlib.sha256()
    for name, info in sorted(file.members.items()):
        if name.startswith(("models/", "data/weights/", "data/constants/")):
            digest.update(f"{name} {info.size} {info.crc}\n".encode())
    module.attributes["heatc.source"] = DictionaryAttr(
        {"model": StringAttr(file.path.name), "sha256": StringAttr(digest.hexdigest())}
    )


def _capture_folder(path: Path, request: Request) -> tuple[ModuleOp, WeightStore]:
    from heatc.capture.folder import capture_folder

    return capture_folder(path, request.inputs, request.remarks)


def _capture_pickle(
    path: Path, request: Request, records: Collection[int] | None = None
) -> tuple[ModuleOp, WeightStore]:
    from heatc.capture.folder import capture_pickle

    return capture_pickle(
        path, request.inputs, request.remarks, trusted=request.trust_pickle, records=records
    )
