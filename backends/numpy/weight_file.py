"""
The weights of an emitted program: which are stored under which name, and the file itself.

The file is safetensors, written tensor by tensor in slices, so that no second copy of the
weights is held. Concatenated weights are stored concatenated; a linear layer's weight stays
(out, in), which is the layout in which the program's products run fastest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray
from xdsl.dialects.builtin import (
    Float32Type,
    Float64Type,
    IntegerType,
    TensorType,
    i1,
)
from xdsl.ir import Attribute

from heatc.dialects.einsum import WeightOp
from heatc.dialects.nn import is_unsigned
from heatc.errors import HeatcError
from heatc.weights import WeightStore, joined_name

_CODES = {
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_SLICE = 1 << 22  # elements converted and written at a time


def tensor_type(type_: Attribute) -> TensorType[Attribute] | None:
    """A tensor type as such, None for any other type."""
    return cast("TensorType[Attribute]", type_) if isinstance(type_, TensorType) else None


def dtype_of(type_: Attribute) -> str | None:
    """The NumPy dtype of a tensor type by name, None where the backend has none."""
    tensor = tensor_type(type_)
    element = None if tensor is None else tensor.get_element_type()
    if isinstance(element, Float32Type):
        return "float32"
    if isinstance(element, Float64Type):
        return "float64"
    prefix = "u" if element is not None and is_unsigned(element) else ""
    if not isinstance(element, IntegerType):
        return None
    if element == i1:
        return "bool"
    name = f"{prefix}int{element.bitwidth}"
    return name if name in _CODES else None


@dataclass(frozen=True)
class Stored:
    """A tensor of the weights file: named weights, concatenated along axis 0."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


class WeightTable:
    """The tensors that a program reads, by the name they are stored under."""

    def __init__(self, weights: WeightStore):
        self.weights = weights
        self.stored: dict[str, Stored] = {}
        self._names: dict[Stored, str] = {}

    def name(self, op: WeightOp) -> str:
        """The name of an op's tensor in the file; the op's permutation is not applied there."""
        stored = self._entry(op)
        if stored not in self._names:
            name = wanted = joined_name(stored.keys)
            number = 1
            while name in self.stored:
                number += 1
                name = f"{wanted}#{number}"
            self.stored[name] = stored
            self._names[stored] = name
        return self._names[stored]

    def _entry(self, op: WeightOp) -> Stored:
        type_ = op.result.type
        assert isinstance(type_, TensorType)
        dtype = dtype_of(type_)
        if dtype is None:
            raise HeatcError(f"the NumPy backend has no weights of type {type_}")
        shapes = [self.weights.shape(key) for key in op.keys]
        shape = shapes[0]
        if len(shapes) > 1:
            shape = (sum(s[0] for s in shapes), *shape[1:])
        order = op.permutation.get_values() if op.permutation is not None else range(len(shape))
        if tuple(shape[int(axis)] for axis in order) != type_.get_shape():
            raise HeatcError(
                f"weight {', '.join(op.keys)} has shape {shape}, the program expects {type_}"
            )
        return Stored(op.keys, shape, dtype)

    def write(self, stream: IO[bytes], metadata: dict[str, str]) -> None:
        """Write the file; the same weights give the same bytes."""
        # Large items first: every tensor is then aligned as its dtype asks for.
        names = sorted(self.stored, key=lambda n: (-np.dtype(self.stored[n].dtype).itemsize, n))
        header: dict[str, Any] = {"__metadata__": metadata}
        offset = 0
        for name in names:
            entry = self.stored[name]
            size = int(np.prod(entry.shape, dtype=np.int64)) * np.dtype(entry.dtype).itemsize
            header[name] = {
                "dtype": _CODES[entry.dtype],
                "shape": list(entry.shape),
                "data_offsets": [offset, offset + size],
            }
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % 64)
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for name in names:
            for key in self.stored[name].keys:
                for part in _slices(self.weights[key], self.stored[name].dtype):
                    stream.write(part.data)


def _slices(array: NDArray[Any], dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """The bytes of an array in row-major order and little-endian, a slice at a time."""
    target = np.dtype(dtype).newbyteorder("<")
    if array.ndim == 0 or array.size <= _SLICE:
        yield np.ascontiguousarray(array, target).reshape(-1).view(np.uint8)
        return
    rows = max(1, _SLICE * len(array) // array.size)
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows], target).reshape(-1).view(np.uint8)
