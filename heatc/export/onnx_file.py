"""`model.onnx`: a factorised model for ONNX Runtime, and its weights beside it where they are many."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from heatc.capture.exported import quiet_torch
from heatc.errors import HeatcError
from heatc.kinds import ONNX, ONNX_WEIGHTS
from heatc.names import ONNX_WEIGHTS_FILE

if TYPE_CHECKING:
    import onnx

LARGEST = 2 << 30
"""Bytes that a protocol buffer may have."""

_LEAST = 1024
"""Bytes of a weight that is put there: smaller ones may say shapes, which onnx.checker looks at."""

_ALIGNMENT = 4096
"""Weights begin at pages, so that they can be mapped."""


def write_onnx(
    program: torch.export.ExportedProgram, outputs: Sequence[str], path: Path, *, external: bool
) -> None:
    """
    Write a program as ONNX, its weights in a file beside it where asked for, or where they need it.

    Raises `HeatcError` where torch has no ONNX for an op.
    """
    proto = _converted(program, outputs)
    _set_producer(proto)
    _name_axes(proto)
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if external or size >= LARGEST - (64 << 20):
        _move_weights(proto, path.with_name(ONNX_WEIGHTS_FILE))
    path.write_bytes(proto.SerializeToString())


def _converted(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> onnx.ModelProto:
    try:
        with warnings.catch_warnings(), quiet_torch():
            warnings.simplefilter("ignore")
            found = torch.onnx.export(
                program, dynamo=True, output_names=list(outputs), verbose=False, optimize=True
            )
    # The exporter wraps whatever went wrong into an exception with a long text.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise HeatcError(
            f"torch.onnx cannot convert the model: {type(error).__name__}: {lines[-1][:200]}",
            notes=["--formats=torch writes the PyTorch forms alone"],
        ) from error
    assert found is not None
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    return found.model_proto


def _set_producer(proto: Any) -> None:
    """What says that heatc wrote it: the field follows the version at the head of the file."""
    proto.producer_name = ONNX.mark
    proto.ClearField("producer_version")
    # Where the model was built on the machine that built it is nobody's business.
    for node in proto.graph.node:
        del node.metadata_props[:]


def _name_axes(proto: Any) -> None:
    """Free extents are called `batch` on axis 0 of an input, `tokens` on axis 1."""
    names: dict[str, str] = {}
    for value in proto.graph.input:
        for dim, name in zip(value.type.tensor_type.shape.dim, ("batch", "tokens")):
            if dim.dim_param:
                names.setdefault(dim.dim_param, name)
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)
    del proto.graph.value_info[:]


def _move_weights(proto: Any, path: Path) -> None:
    """Put the elements of all weights into a file, behind its mark."""
    from onnx.external_data_helper import set_external_data

    with path.open("wb") as stream:
        stream.write(ONNX_WEIGHTS.line().encode())
        for tensor in proto.graph.initializer:
            if len(tensor.raw_data) < _LEAST:
                continue
            stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
            start, data = stream.tell(), tensor.raw_data
            stream.write(data)
            set_external_data(tensor, path.name, start, len(data))
            tensor.ClearField("raw_data")
