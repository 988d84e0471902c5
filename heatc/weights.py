"""
Weights by state-dict name, mapped from the file they came in.

A store never copies: `store[name]` is a read-only view of the mapped file, and a page of it
is read when it is touched. What a file holds in another form is made when it is asked for, and
dropped with its last reader. The IR carries names; whoever executes or emits carries a store.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.safetensors_file import NUMPY_DTYPES, open_safetensors
from heatc.readers.source import as_path

Array = NDArray[np.generic]


class LazyArray(Protocol):
    """An array of float32 that is not there yet: `shape` is known, `read` makes it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what `read` gives."""
        ...

    def read(self) -> Array:
        """Make the array."""
        ...


_MADV_DONTNEED, _MADV_PAGEOUT = 4, 21  # of <sys/mman.h> on Linux


def _map_safetensors(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file that numpy has a type for, views of one map."""
    file = open_safetensors(path)
    return {n: file.array(n) for n, entry in file.entries.items() if entry.dtype in NUMPY_DTYPES}


def _page_out(array: Array) -> None:
    """
    Give back an array's pages.

    Those of a mapped file leave this process and stay in the kernel's cache, so that they are read
    again in no time. Of all others the kernel is asked to reclaim what is clean: unlike
    MADV_DONTNEED that never loses data. Where the kernel cannot do it, nothing happens.
    """
    start, size = array.__array_interface__["data"][0], array.nbytes
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = getattr(ctypes.CDLL(None), "madvise", None) if os.name == "posix" else None
    if madvise is not None and last > first and array.flags.c_contiguous:
        advice = _MADV_DONTNEED if _is_mapped(array) else _MADV_PAGEOUT
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


def _is_mapped(array: Array) -> bool:
    """Whether an array is a view of a file that was mapped to be read: such pages are shared."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return isinstance(owner, mmap.mmap)  # `map_file` maps to read alone


def _are_same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def joined_name(keys: Sequence[str]) -> str:
    """`attention.query+key.weight` for `attention.query.weight`, `attention.key.weight`."""
    if len(keys) == 1:
        return keys[0]
    parts = [key.split(".") for key in keys]
    shortest = min(map(len, parts))
    head = 0
    while head < shortest - 1 and len({p[head] for p in parts}) == 1:
        head += 1
    tail = 0
    while tail < shortest - 1 - head and len({p[-1 - tail] for p in parts}) == 1:
        tail += 1
    middle = "+".join(".".join(p[head : len(p) - tail]) for p in parts)
    return ".".join([*parts[0][:head], middle, *parts[0][len(parts[0]) - tail :]])


class WeightStore(Mapping[str, Array]):
    """
    Read-only arrays by state-dict name; a pass may `add` new ones.

    `source` is the file the arrays are mapped from, or None for arrays given from Python.
    """

    def __init__(self, arrays: Mapping[str, Array | LazyArray], source: Path | None = None):
        self._arrays: dict[str, Array | LazyArray] = dict(arrays)
        self._made: weakref.WeakValueDictionary[str, Array] = weakref.WeakValueDictionary()
        self._added: list[str] = []
        self.source = source

    def copy(self, source: Path | None = None) -> WeightStore:
        """A store of the same arrays, to which nothing was added."""
        return WeightStore(self._arrays, source or self.source)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight, which is not made for this."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """The element type of a weight, which is not made for this."""
        entry = self._entry(name)
        return entry.dtype if isinstance(entry, np.ndarray) else np.dtype(np.float32)

    @property
    def added(self) -> tuple[str, ...]:
        """The names of what passes added, in order."""
        return tuple(self._added)

    @classmethod
    def open(cls, path: str | Path) -> WeightStore:
        """
        Map a safetensors file; raises `HeatcError` where it cannot be read.

        bfloat16 and 8-bit float tensors are left out: nothing in heatc computes on them.
        """
        file = as_path(path, "weights")
        return cls(_map_safetensors(file), file)

    @classmethod
    def open_all(cls, paths: Sequence[str | Path]) -> WeightStore:
        """
        Map several safetensors files as one store.

        Raises `HeatcError` for a name that two of them have with other values.
        """
        stores = [cls.open(path) for path in paths]
        merged = cls({}, Path(paths[0]) if paths else None)
        for path, store in zip(paths, stores):
            for name in store:
                if name in merged and not _are_same(merged[name], store[name]):
                    raise HeatcError(
                        f"weight {name!r} is in two files, with other values", place=str(path)
                    )
            merged._arrays.update(store._arrays)
        return merged

    def fill(self, paths: Sequence[Path]) -> None:
        """Take from safetensors files what is not there yet."""
        for path in paths:
            found = _map_safetensors(path)
            self._arrays.update({n: array for n, array in found.items() if n not in self._arrays})
            self.source = self.source or path

    def __getitem__(self, name: str) -> Array:
        entry = self._entry(name)
        if isinstance(entry, np.ndarray):
            return entry
        made = self._made.get(name)
        if made is None:
            made = entry.read()
            made.flags.writeable = False
            self._made[name] = made
        return made

    def _entry(self, name: str) -> Array | LazyArray:
        try:
            return self._arrays[name]
        except KeyError:
            place = str(self.source) if self.source else "weights"
            raise HeatcError(
                f"no weight named {name!r}",
                place=place,
                notes=[
                    f"the store has {len(self._arrays)} weights",
                    "give the file that has it by another --weights; what a checkpoint leaves out "
                    "(position ids and other buffers) is saved from model.state_dict() or "
                    "model.named_buffers() with safetensors",
                ],
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def add(self, name: str, array: Array) -> None:
        """Take in a new array; `ValueError` where there is one of that name."""
        if name in self._arrays:
            raise ValueError(f"there is a weight {name!r} already")
        array.flags.writeable = False
        self._arrays[name] = array
        self._added.append(name)

    def release(self, name: str) -> None:
        """
        Give the memory of a mapped weight back; it is read again when it is touched.

        A compiler that walks over all weights then holds one at a time, not all of them.
        """
        entry = self._entry(name)
        if isinstance(entry, np.ndarray):
            _page_out(entry)

    def release_files(self) -> None:
        """`release` every weight that is mapped from a file."""
        for name, array in self._arrays.items():
            if isinstance(array, np.ndarray) and _is_mapped(array):
                self.release(name)

    def checksum(self, names: Sequence[str]) -> str:
        """`"crc32:<8 hex digits>"` of the bytes of some weights, one after the other."""
        crc = 0
        for name in names:
            crc = zlib.crc32(np.ascontiguousarray(self[name]).reshape(-1).view(np.uint8).data, crc)
        return f"crc32:{crc:08x}"

    def check(self, names: Sequence[str], checksum: str) -> None:
        """Raise a `HeatcError` if some weights do not have a checksum."""
        actual = self.checksum(names)
        if actual != checksum:
            raise HeatcError(
                f"weight {', '.join(names)!r} has checksum {actual}, the IR says {checksum}",
                place=str(self.source) if self.source else "weights",
                notes=["these are the weights of another model, or the file is damaged"],
            )
