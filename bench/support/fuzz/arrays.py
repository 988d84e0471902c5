"""Hostile .npz files: arrays whose headers, names, shapes, dtypes and values are not the model's."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bench.support.fuzz import archives, octets
from bench.support.fuzz.corpus import Corpus

Array = NDArray[Any]

DESCRIPTIONS = (
    *("|b1", "|i1", "|u1", "<i2", "<i4", "<i8", ">i8", "<u8", "<f2", "<f4", ">f4", "<f8", "<f16"),
    *("<c8", "<c16", "|S4", "<U4", "|V8", "<M8[s]", "<m8", "|O", "<i3", "", "i8; import os"),
)
SHAPES = (
    *((), (0,), (1,), (2, 0), (0, 6), (2, 6, 1), (1, 2, 6), (6, 2), (2, 5), (2, 7), (3, 6), (12,)),
    *((-1,), (1 << 31,), (1 << 40,), (1 << 62, 4), (1 << 32, 1 << 32), (2, -6), (1,) * 40),
)
NAMES = (
    *("", "labels", "INPUT_IDS", "../x", "/x", "a" * 300, "é", "x/y", "input_ids.npy", "arr_0"),
    *("__class__", "input_ids ", "attention_mask\0"),
)
VALUES = (-1, 0, 1, 2, 23, 24, -100, 127, 1 << 31, (1 << 63) - 1, -(1 << 63))
REALS = (0.0, 0.5, -0.5, 1.5, 1e30, -1e30, math.nan, math.inf, -math.inf)


def parse(file: bytes) -> dict[str, Array]:
    """The arrays of a good file."""
    with np.load(io.BytesIO(file), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def member(array: Array) -> bytes:
    """An array as .npy."""
    stream = io.BytesIO()
    npy.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def join(arrays: Mapping[str, Array]) -> bytes:
    """A good file of arrays."""
    return archives.join({f"{name}.npy": member(array) for name, array in arrays.items()})


def change(rng: Random, arrays: Mapping[str, Array]) -> bytes:
    """A file in which something is wrong, or unusual."""
    members = {f"{name}.npy": member(array) for name, array in arrays.items()}
    name = rng.choice(list(members))
    way = rng.randrange(12)
    if way == 0:
        return octets.damage(rng, archives.join(members))
    if way == 1:
        return archives.frame(rng, members)
    if way == 2:
        members[name] = octets.damage(rng, members[name])
    elif way in (3, 4):
        members[name] = _header(rng, arrays[name[:-4]])
    elif way == 5:
        other = rng.choice((rng.choice(NAMES), name[:-4].upper()))
        members[f"{other}.npy"] = members[name] if rng.random() < 0.5 else members.pop(name)
    else:
        members[name] = member(_values(rng, arrays[name[:-4]]))
    return archives.join(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def values(rng: Random, arrays: Mapping[str, Array]) -> bytes:
    """A good file whose values, shapes or dtypes are others."""
    name = rng.choice(list(arrays))
    return join({**arrays, name: _values(rng, arrays[name])})


def _values(rng: Random, array: Array) -> Array:
    way = rng.randrange(7)
    if way == 0:
        shape = rng.choice([s for s in SHAPES if all(0 <= n < 100 for n in s) and len(s) < 32])
        return np.zeros(shape, array.dtype)
    if way == 1:
        return array.astype(rng.choice(("bool", "i1", "u1", "i2", "i4", ">i8", "u8", "f2", "f4")))
    if way == 2:
        return array.astype(rng.choice(("f8", "c8", "S4", "U4", "O", "M8[s]")))
    if way == 3:
        return np.asfortranarray(array).T if rng.random() < 0.5 else np.asfortranarray(array)
    if way == 4:
        new = array.astype(np.float32)
        new[_somewhere(rng, new)] = rng.choice(REALS)
        return new
    if way == 5 and array.ndim:
        return np.concatenate([array] * rng.choice((2, 3, 50)), axis=rng.randrange(array.ndim))
    new = array.copy()
    if new.size:
        limits = np.iinfo(new.dtype) if new.dtype.kind in "iu" else None
        value = rng.choice(VALUES)
        if limits is not None and limits.min <= value <= limits.max:
            new[_somewhere(rng, new)] = value
        elif limits is None:
            new[_somewhere(rng, new)] = rng.choice((0, 1))
    return new


def _somewhere(rng: Random, array: Array) -> tuple[int, ...]:
    return tuple(rng.randrange(n) for n in array.shape) if array.size else ()


def _header(rng: Random, array: Array) -> bytes:
    """An array whose header says something else than its data."""
    version, text = (1, 0), npy.header_data_from_array_1_0(array)
    described = {k: text[k] for k in ("descr", "fortran_order", "shape")}
    edit = rng.randrange(6)
    if edit == 0:
        described["descr"] = rng.choice((*DESCRIPTIONS, [("a", "<i8")], [("a", "|O")], None))
    elif edit == 1:
        described["shape"] = rng.choice(SHAPES)
    elif edit == 2:
        described["fortran_order"] = rng.choice((True, 1, "no", None))
    elif edit == 3:
        del described[rng.choice(list(described))]
    elif edit == 4:
        described[rng.choice(("x", "", "shape "))] = 1
    else:
        version = rng.choice(((1, 0), (2, 0), (3, 0), (9, 9), (0, 0)))
    header = repr(described)
    if rng.random() < 0.1:
        header = rng.choice(("[" * 1000, "9" * 5000, "{'shape': " + "(" * 500, header[:-3], "1"))
    return _written(header.encode(), version) + array.tobytes()


def _written(header: bytes, version: tuple[int, int]) -> bytes:
    size = 2 if version == (1, 0) else 4
    return b"\x93NUMPY" + bytes(version) + len(header).to_bytes(size, "little") + header


def hostile(rng: Random, corpus: Corpus, name: str, *, valid: float = 0.3) -> bytes:
    """A file made of one of the corpus: a share of `valid` are good files of wrong arrays."""
    if rng.random() < 0.0005:
        return corpus.bytes("bomb.npz")
    good = corpus.keep("arrays", name, lambda: parse(corpus.bytes(name)))
    return (values if rng.random() < valid else change)(rng, good)


def bomb(name: str, size: int) -> bytes:
    """A small file with one very large array: `size` bytes of zeros."""
    stream, block = io.BytesIO(), bytes(1 << 20)
    header = repr({"descr": "<i8", "fortran_order": False, "shape": (2, size // 16)}).encode()
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(stream, "w") as archive, archive.open(info, "w", force_zip64=True) as out:
        out.write(_written(header, (1, 0)))
        for _ in range(size >> 20):
            out.write(block)
    return stream.getvalue()
