"""Reading `.npz` files that may be anything: no pickles, no surprises of size, one message."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.kinds import OUTPUTS, Kind

Array = NDArray[np.generic]

LARGEST = 8 << 30
"""Bytes of all arrays together that are read."""

_BROKEN = (
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise on damaged files."""


def read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """
    The arrays of a `.npz` by name.

    Object arrays are refused before anything of them is read, as are arrays whose header
    promises more than their data holds.
    """
    place = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            return _read(stream, place)
    except HeatcError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise HeatcError(f"cannot open: {reason[:1].lower()}{reason[1:]}", place=place) from error
    except _BROKEN as error:
        raise _not_npz(place, f"{error}".splitlines()[0] if str(error) else "") from error


def _not_npz(place: str, reason: str) -> HeatcError:
    notes = [reason] if reason else []
    notes.append("write one with numpy.savez(path, name=array, ...)")
    return HeatcError("not a .npz file, or a damaged one", place=place, notes=notes)


def _read(stream: IO[bytes], place: str) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    total = 0
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            total += info.file_size
            if total > LARGEST:
                raise HeatcError(f"more than {LARGEST >> 30} GiB of arrays", place=place)
            if name in arrays:
                raise HeatcError(f"the array {name!r} exists twice", place=place)
            with archive.open(info) as member:
                arrays[name] = _array(member, info.file_size, f"{place}: {name}")
    return arrays


def _array(member: IO[bytes], size: int, place: str) -> Array:
    version = npy.read_magic(member)
    read_header: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(member)
    if dtype.hasobject:
        note = "store numbers: numpy.savez of an array of dtype object is a pickle"
        raise HeatcError("the array holds Python objects", place=place, notes=[note])
    # Python's integers: a shape may promise anything.
    count = 1
    for axis in shape:
        count *= int(axis)
    if any(axis < 0 for axis in shape) or count * dtype.itemsize > size:
        raise HeatcError("the array is smaller than its header says", place=place)
    data = member.read()
    if len(data) != count * dtype.itemsize:
        raise HeatcError("the array is not as large as its header says", place=place)
    flat = np.frombuffer(data, dtype, count)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def write_npz(stream: IO[bytes], arrays: Mapping[str, Array], kind: Kind = OUTPUTS) -> None:
    """Writes a `.npz` of a kind; the same arrays give the same bytes."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = kind.mark.encode()
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)
