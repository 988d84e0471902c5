"""
Archives of torch, mapped into memory.

Nothing is copied and nothing is unpickled; an array is a read-only view of the mapped file.
Every offset and size that a file claims is checked against the file before it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.json_text import parse_json
from heatc.readers.zip_archive import Member, ZipArchive

NUMPY_DTYPES = {
    "f32": np.dtype("<f4"),
    "i64": np.dtype("<i8"),
    "i32": np.dtype("<i4"),
    "i16": np.dtype("<i2"),
    "i8": np.dtype("i1"),
    "u8": np.dtype("u1"),
    "i1": np.dtype("?"),
}

_REMEDY = "the file is damaged or no model: fetch it or export it again"
_LARGEST_JSON = 256 << 20
_MOST_EXPANDED = 1 << 24
"""Elements of a weight that repeats those of its file."""


@dataclass(frozen=True)
class Strided:
    """What a file claims about an array: dtype, shape, and strides and offset in elements."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


def view(data: NDArray[np.uint8], spec: Strided, what: str) -> NDArray[Any]:
    """
    The array that `spec` describes, as a read-only view of `data`.

    Raises `HeatcError` if the element type is not supported or the array leaves `data`.
    """
    if spec.dtype not in NUMPY_DTYPES:
        raise unsupported_dtype(what, spec.dtype)
    dtype = NUMPY_DTYPES[spec.dtype]
    numbers = (*spec.shape, *spec.strides, spec.offset)
    if len(spec.shape) != len(spec.strides) or min(numbers) < 0 or len(spec.shape) > 32:
        raise HeatcError(f"shape and strides of weight {what!r} are malformed")
    last = spec.offset + sum((n - 1) * s for n, s in zip(spec.shape, spec.strides))
    if 0 not in spec.shape and (last + 1) * dtype.itemsize > len(data):
        raise HeatcError(
            f"weight {what!r} of shape {spec.shape} needs {(last + 1) * dtype.itemsize} bytes, "
            f"the file has {len(data)} for it",
            notes=["the file is truncated or damaged: fetch or export it again"],
        )
    if len(data) % dtype.itemsize:
        raise HeatcError(
            f"weight {what!r} has {len(data)} bytes, which are no whole elements of {spec.dtype}",
            notes=["the file is damaged: fetch or export it again"],
        )
    # One element may stand for many: a view of stride 0.
    count = math.prod(n for n in spec.shape if n)
    if count > max(len(data) // dtype.itemsize, _MOST_EXPANDED):
        raise HeatcError(f"weight {what!r} of shape {spec.shape} is too large for its file")
    if 0 in spec.shape:
        return np.zeros(spec.shape, dtype)
    strides = [stride * dtype.itemsize for stride in spec.strides]
    array: NDArray[Any] = np.ndarray(spec.shape, dtype, data, spec.offset * dtype.itemsize, strides)
    array.flags.writeable = False
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise HeatcError(f"weight {what!r}: a boolean is neither 0 nor 1")
    return array


def unsupported_dtype(name: str, dtype: str) -> HeatcError:
    """The error for a weight of an element type that capture does not take."""
    return HeatcError(
        f"weight {name!r} has element type {dtype}",
        notes=[f"supported are {', '.join(NUMPY_DTYPES)}: save the model after model.float()"],
    )


class MappedZip:
    """
    A file of torch: a zip archive whose members are stored, not compressed, so that they are mapped.

    `members` are the names below the one top-level folder, whatever that is called.
    Raises `HeatcError` for a damaged archive or one with unsafe or repeated names.
    """

    def __init__(self, path: Path):
        self._zip = ZipArchive(path, "a model archive", _REMEDY)
        self.path = path
        tops = {name.partition("/")[0] for name in self._zip.members if "/" in name}
        if len(tops) != 1:
            raise self.error(f"expected one top-level folder, the archive has {len(tops)}")
        self.members: dict[str, Member] = {}
        for member in self._zip.members.values():
            self._register(member)

    def _register(self, member: Member) -> None:
        name = member.name.partition("/")[2]
        if name in self.members:
            raise self.error(f"the archive holds {name[:80]!r} twice")
        if not member.stored:
            raise self.error(f"member {name[:80]!r} is compressed, only stored ones can be mapped")
        self.members[name] = member

    def error(self, message: str) -> HeatcError:
        """An error at this file."""
        return self._zip.error(message)

    def member(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a member, mapped; they have the checksum that the archive says."""
        if name not in self.members:
            raise self.error(f"the archive has no member {name[:80]!r}")
        return self._zip.view(self.members[name].name)

    def check(self) -> None:
        """Compare every member with its checksum, for whoever reads the file by other means."""
        for name in self.members:
            self.member(name)

    def json(self, name: str) -> dict[str, Any]:
        """A member that is a JSON object."""
        if name not in self.members:
            raise self.error(f"the archive has no member {name[:80]!r}")
        return parse_json(
            self._zip.read(self.members[name].name, _LARGEST_JSON), f"{self.path}:{name}"
        )
