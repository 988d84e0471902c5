"""
Weight files mapped into memory: zip archives with stored members, and safetensors.

Nothing is copied and nothing is unpickled; an array is a read-only view of the mapped file.
Every offset and size that a file claims is checked against the file before it is used.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.capture.fields import expect, get, parse_json
from heatc.errors import HeatcError

NUMPY_DTYPES = {
    "f32": np.dtype("<f4"),
    "i64": np.dtype("<i8"),
    "i32": np.dtype("<i4"),
    "i16": np.dtype("<i2"),
    "i8": np.dtype("i1"),
    "u8": np.dtype("u1"),
    "i1": np.dtype("?"),
}

SAFETENSORS_DTYPES = {
    "F32": "f32",
    "F64": "f64",
    "F16": "f16",
    "BF16": "bf16",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U8": "u8",
    "BOOL": "i1",
}

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    struct.error,
    zlib.error,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
    EOFError,
    RuntimeError,
)

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MAX_SAFETENSORS_HEADER = 100_000_000


def map_bytes(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped read-only; raises `HeatcError` if it is missing or empty."""
    try:
        if not path.stat().st_size:
            raise HeatcError("the file is empty", place=str(path))
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HeatcError(f"cannot read the file: {reason}", place=str(path)) from None


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
        raise HeatcError(
            f"weight {what!r} has element type {spec.dtype}",
            notes=[f"supported are {', '.join(NUMPY_DTYPES)}: save the model after model.float()"],
        )
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
    if 0 in spec.shape:
        return np.zeros(spec.shape, dtype)
    strides = [stride * dtype.itemsize for stride in spec.strides]
    array: NDArray[Any] = np.ndarray(spec.shape, dtype, data, spec.offset * dtype.itemsize, strides)
    array.flags.writeable = False
    return array


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous array, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class MappedZip:
    """
    A zip archive whose members are stored, not compressed, so that they can be mapped.

    `members` are the names below the one top-level folder, whatever that is called.
    Raises `HeatcError` for a damaged archive or one with unsafe or repeated names.
    """

    def __init__(self, path: Path):
        self.path = path
        self.data = map_bytes(path)
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except _ZIP_ERRORS as error:
            raise self.error(f"damaged zip archive: {str(error)[:120]}") from None
        # A truncated archive can end in the directory of an archive that it holds.
        if min((info.header_offset for info in infos), default=0):
            raise self.error("damaged zip archive: it is truncated or has foreign data in front")
        self.members: dict[str, zipfile.ZipInfo] = {}
        tops = {info.filename.partition("/")[0] for info in infos if "/" in info.filename}
        if len(tops) != 1:
            raise self.error(f"expected one top-level folder, the archive has {len(tops)}")
        for info in infos:
            self._register(info)

    def _register(self, info: zipfile.ZipInfo) -> None:
        parts = info.filename.split("/")
        if ".." in parts or "\\" in info.filename or parts[0] in ("", "."):
            raise self.error(f"unsafe name {info.filename[:80]!r} in the archive")
        name = "/".join(parts[1:])
        if name in self.members:
            raise self.error(f"the archive holds {name[:80]!r} twice")
        self.members[name] = info

    def error(self, message: str) -> HeatcError:
        """An error at this file."""
        return HeatcError(
            message,
            place=str(self.path),
            notes=["the file is damaged or no model: fetch it or export it again"],
        )

    def member(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a member, mapped."""
        info = self.members.get(name)
        if info is None:
            raise self.error(f"the archive has no member {name[:80]!r}")
        if info.flag_bits & 1:
            raise self.error(f"member {name[:80]!r} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise self.error(f"member {name[:80]!r} is compressed, only stored ones can be mapped")
        start = self._data_offset(info)
        if start + info.file_size > len(self.data):
            raise self.error(f"member {name[:80]!r} ends after the file: it is truncated")
        return self.data[start : start + info.file_size]

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        begin, size = info.header_offset, 30
        if begin < 0 or begin + size > len(self.data):
            raise self.error(f"member {info.filename[:80]!r} begins after the file's end")
        magic, name, extra = _LOCAL_HEADER.unpack(self.data[begin : begin + size].tobytes())
        if magic != b"PK\x03\x04":
            raise self.error(f"member {info.filename[:80]!r} has no header")
        return begin + size + name + extra

    def json(self, name: str) -> dict[str, Any]:
        """A member that is a JSON object, checked against its checksum."""
        text = self.member(name).tobytes()
        if zlib.crc32(text) != self.members[name].CRC and self.members[name].CRC:
            raise self.error(f"the checksum of member {name[:80]!r} is wrong")
        return parse_json(text, f"{self.path}:{name}")


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """
    The tensors of a safetensors file, mapped, by name.

    Raises `HeatcError` for a damaged file or an unsupported element type.
    """
    data = map_bytes(path)
    size = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or size > min(len(data) - 8, _MAX_SAFETENSORS_HEADER):
        raise HeatcError(
            "damaged safetensors file: its header is longer than the file", place=str(path)
        )
    header = parse_json(data[8 : 8 + size].tobytes(), str(path))
    header.pop("__metadata__", None)
    body = data[8 + size :]
    try:
        return {name: _safetensor(body, name, entry) for name, entry in header.items()}
    except HeatcError as error:
        raise HeatcError(error.message, place=str(path), notes=error.notes) from None


def _safetensor(body: NDArray[np.uint8], name: str, entry: object) -> NDArray[Any]:
    dtype = get(entry, "dtype", str)
    shape = tuple(expect(n, int, f"the shape of {name!r}") for n in get(entry, "shape", list))
    offsets = [
        expect(n, int, f"data_offsets of {name!r}") for n in get(entry, "data_offsets", list)
    ]
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1] <= len(body):
        raise HeatcError(f"weight {name!r} lies outside of the file: it is truncated or damaged")
    spec = Strided(SAFETENSORS_DTYPES.get(dtype, dtype), shape, row_major(shape))
    array = view(body[offsets[0] : offsets[1]], spec, name)
    if array.nbytes != offsets[1] - offsets[0]:
        raise HeatcError(f"weight {name!r} of shape {shape} does not have the size of its data")
    return array
