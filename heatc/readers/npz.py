"""
`.npz` files that may be anything: names, shapes and dtypes are known before any data is read.

A data set is a `.npz` keyed by the model's input names, first axis samples, with optional `labels`.
Arrays are read when they are asked for: stored ones are mapped and take no memory, compressed ones
are bounded. Nothing is unpickled.
"""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.kinds import OUTPUTS, Kind
from heatc.readers.source import size_text
from heatc.readers.zip_archive import ZipArchive

Array = NDArray[np.generic]

LABELS = "labels"
"""The array of a data set that is no input: a class of each sample."""

LARGEST = 1 << 30
"""Bytes of all compressed arrays together that are read; those that are stored are mapped."""

_LONGEST_HEADER = 1 << 14
_MOST_AXES = 32
_REMEDY = "write one with numpy.savez(path, name=array, ...)"

_BROKEN = (
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What numpy raises on damaged headers."""


class Form(Protocol):
    """What is known of an array without its data."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its extents."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        ...


class Header(NamedTuple):
    """
    The form of an array of a file.

    `fortran`: its first axis varies fastest. `start` is where its data begins in the member.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile(Mapping[str, Array]):
    """The arrays of a file by name, each read when it is first asked for; see `forms_of`."""

    def __init__(self, archive: ZipArchive, headers: Mapping[str, Header]):
        self._archive = archive
        self._read: dict[str, Array] = {}
        self._inflated = 0
        self.headers = headers

    @property
    def place(self) -> str:
        """The file, for messages."""
        return str(self._archive.path)

    def without(self, *names: str) -> NpzFile:
        """The same without some arrays."""
        headers = {name: form for name, form in self.headers.items() if name not in names}
        return NpzFile(self._archive, headers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    def __getitem__(self, name: str) -> Array:
        if name not in self._read:
            self._read[name] = self._array(name, self.headers[name])
        return self._read[name]

    def _array(self, name: str, header: Header) -> Array:
        place, member = f"{self.place}: {name}", _member_of(self._archive, name)
        if header.dtype.kind not in "biufc":
            raise HeatcError(f"expected numbers, found {str(header.dtype)[:40]}", place=place)
        if self._archive.members[member].stored:
            data = self._archive.view(member)
        else:
            self._inflated += header.nbytes
            if self._inflated > LARGEST:
                raise HeatcError(
                    f"more than {size_text(LARGEST)} of compressed arrays",
                    place=self.place,
                    notes=["store them as they are: numpy.savez, not numpy.savez_compressed"],
                )
            data = np.frombuffer(self._archive.read(member, header.start + LARGEST), np.uint8)
        flat: Array = data[header.start :].view(header.dtype)
        if header.dtype.kind == "b" and data[header.start :].max(initial=0) > 1:
            raise HeatcError("a boolean is neither 0 nor 1", place=place)
        shape = header.shape
        return flat.reshape(shape[::-1]).T if header.fortran else flat.reshape(shape)


def open_npz(path: str | os.PathLike[str]) -> NpzFile:
    """
    The arrays of a `.npz`, none of them read yet.

    Raises `HeatcError` for what is no `.npz` or damaged, and for an array whose header promises more
    or less than there is; reading an array that holds other than numbers raises one too.
    """
    archive = ZipArchive(path, "a .npz file", _REMEDY)
    headers: dict[str, Header] = {}
    for member in archive.members:
        name = member.removesuffix(".npy")
        if name in headers:
            raise HeatcError(f"the array {name!r} exists twice", place=str(archive.path))
        headers[name] = _header(archive, member, f"{archive.path}: {name}")
    return NpzFile(archive, headers)


def read_npz(
    path: str | os.PathLike[str], names: Collection[str] | None = None
) -> dict[str, Array]:
    """Some arrays of a `.npz`, those that it has, or all; see `open_npz`."""
    file = open_npz(path)
    return {name: file[name] for name in file if names is None or name in names}


def forms_of(arrays: Mapping[str, Array]) -> Mapping[str, Form]:
    """Shapes and dtypes of arrays; of those of a file without reading one."""
    return arrays.headers if isinstance(arrays, NpzFile) else arrays


def _member_of(archive: ZipArchive, name: str) -> str:
    return f"{name}.npy" if f"{name}.npy" in archive.members else name


def _header(archive: ZipArchive, member: str, place: str) -> Header:
    def error(message: str, *notes: str) -> HeatcError:
        return HeatcError(message, place=place, notes=notes or (_REMEDY,))

    stream = BytesIO(archive.beginning(member, _LONGEST_HEADER))
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} of the format is unknown")
        is_old = version == (1, 0)
        parse: Any = npy.read_array_header_1_0 if is_old else npy.read_array_header_2_0
        shape, fortran, dtype = parse(stream)
    except _BROKEN as caught:
        raise error(f"not an array, or a damaged one: {_reason(caught)}") from caught
    if dtype.hasobject:
        note = "store numbers: numpy.savez of an array of dtype object is a pickle"
        raise error("the array holds Python objects", note)
    header = Header(tuple(map(int, shape)), dtype, bool(fortran), stream.tell())
    if min(header.shape, default=0) < 0 or len(header.shape) > _MOST_AXES:
        raise error(f"the array has the shape {str(header.shape)[:80]}")
    size = archive.members[member].size
    if header.start + header.nbytes != size:
        raise error(
            f"the array has {size - header.start} bytes, its header says {header.nbytes}: "
            f"{str(header.shape)[:80]} {dtype}"
        )
    if math.prod(n for n in header.shape if n) > 1 << 48:
        raise error(f"the array has the shape {str(header.shape)[:80]}")
    return header


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def write_npz(stream: IO[bytes], arrays: Mapping[str, Array], kind: Kind = OUTPUTS) -> None:
    """Writes a `.npz` of a kind; the same arrays give the same bytes."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = kind.mark.encode()
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)
