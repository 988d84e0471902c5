"""
safetensors files, mapped: what the reference library accepts, and less.

The library sees every file first, so that nothing is read that it refuses. Refused beside that are
keys that stand twice (the library takes the last one), unknown keys, and more axes than arrays have.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.json_text import parse_json
from heatc.readers.mapped_file import Bytes, map_file

BITS: Mapping[str, int] = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}
"""Bits of an element of each type that the format has."""

NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""The types whose arrays heatc has."""

LARGEST_HEADER = 64 << 20
MOST_AXES = 32
MOST_ELEMENTS = 1 << 48
"""Beyond, numpy has no array, not even one with an extent of 0."""

_LENGTH = 8
_KEYS = {"dtype", "shape", "data_offsets"}
_REMEDY = ("the file is damaged or not complete: fetch it again",)


Fail: TypeAlias = Callable[[str], NoReturn]


class Entry(NamedTuple):
    """One tensor: the format's name of its type, its shape, its bytes [start, stop) of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file by name; `data` are the bytes that `entries` point into, mapped."""

    place: str
    entries: Mapping[str, Entry]
    data: Bytes

    def array(self, name: str) -> NDArray[Any]:
        """A read-only view of a tensor whose type is one of `NUMPY_DTYPES`; `HeatcError`."""
        dtype, shape, start, stop = self.entries[name]
        if dtype == "BOOL" and self.data[start:stop].max(initial=0) > 1:
            raise HeatcError(f"{name[:80]!r}: a boolean is neither 0 nor 1", place=self.place)
        return self.data[start:stop].view(NUMPY_DTYPES[dtype]).reshape(shape)


def open_safetensors(path: str | os.PathLike[str]) -> TensorFile:
    """Map a file; raises `HeatcError` for one that is not in order to the last byte."""
    mapped = map_file(path, "a safetensors file")
    place = str(mapped.path)
    _ask_library(place)
    entries, start = read_header(mapped.array, place)
    return TensorFile(place, entries, mapped.array[start:])


def _ask_library(place: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, "numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise HeatcError(
            f"not a safetensors file: {str(error)[:200]}", place=place, notes=_REMEDY
        ) from None


def read_header(
    data: Bytes, place: str, notes: Sequence[str] = _REMEDY
) -> tuple[dict[str, Entry], int]:
    """
    The tensors of the format's bytes, and where the data begins.

    Every byte belongs to one tensor: there are no holes, overlaps and rests. Raises `HeatcError`.
    """

    def fail(message: str) -> NoReturn:
        raise HeatcError(message, place=place, notes=notes)

    if len(data) < _LENGTH:
        fail("not a safetensors file: it is too short")
    length = int.from_bytes(data[:_LENGTH].tobytes(), "little")
    if length > min(len(data) - _LENGTH, LARGEST_HEADER):
        fail(f"not a safetensors file: a header of {length} bytes in a file of {len(data)}")
    if data[_LENGTH : _LENGTH + 1].tobytes() != b"{":
        fail("not a safetensors file: its header does not start with '{'")
    header = parse_json(data[_LENGTH : _LENGTH + length].tobytes(), place, notes)
    _check_metadata(header.pop("__metadata__", None), fail)
    entries = {name: _entry(name, value, fail) for name, value in header.items()}
    _check_order(entries, len(data) - _LENGTH - length, fail)
    return entries, _LENGTH + length


def _check_metadata(value: Any, fail: Fail) -> None:
    table = cast("dict[str, Any]", value) if isinstance(value, dict) else None
    if value is not None and (table is None or any(type(v) is not str for v in table.values())):
        fail("__metadata__: expected an object of texts")


def _entry(name: str, value: Any, fail: Fail) -> Entry:
    label = repr(name[:80])
    record = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if record.keys() != _KEYS:
        fail(f"{label}: expected dtype, shape and data_offsets, no more and no less")
    dtype = str(record["dtype"])
    shape, offsets = _extents(record["shape"]), _extents(record["data_offsets"])
    if dtype not in BITS:
        fail(f"{label}: unknown dtype {dtype[:40]!r}")
    if shape is None or len(shape) > MOST_AXES:
        fail(f"{label}: malformed shape {str(record['shape'])[:60]}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        fail(f"{label}: malformed data_offsets {str(record['data_offsets'])[:60]}")
    if math.prod(n for n in shape if n) > MOST_ELEMENTS:
        fail(f"{label}: shape {shape} is too large for an array")
    if math.prod(shape) * BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        fail(f"{label}: shape {shape} of {dtype} has not {offsets[1] - offsets[0]} bytes")
    return Entry(dtype, shape, *offsets)


def _extents(value: Any) -> tuple[int, ...] | None:
    """A list of integers that a 64-bit machine counts with, None for anything else."""
    if not isinstance(value, list):
        return None
    numbers = cast("list[Any]", value)
    are_extents = all(type(n) is int and 0 <= n <= sys.maxsize for n in numbers)
    return tuple(numbers) if are_extents else None


def _check_order(entries: Mapping[str, Entry], size: int, fail: Fail) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != end:
            fail(f"{name[:80]!r}: its data begins at {entry.start}, what is before ends at {end}")
        end = entry.stop
    if end != size:
        fail(f"the tensors have {end} bytes, the file has {size} for them")
