"""Hostile safetensors files: a header of JSON, then bytes."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any, NamedTuple

from bench.support.fuzz import octets, trees

DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I32",
    "I16",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F4",
    "X",
)
NUMBERS = (
    b"\0\0\xc0\x7f",
    b"\0\0\x80\x7f",
    b"\0\0\x80\xff",
    b"\xff\xff\x7f\x7f",
    b"\1\0\0\0",
    b"\0\0\0\x80",
)
"""float32 NaN, infinities, the greatest, the least above 0, and -0."""


class Parts(NamedTuple):
    """Header and data of a file."""

    header: dict[str, Any]
    data: bytes


def parse(file: bytes) -> Parts:
    """The parts of a good file."""
    size = int.from_bytes(file[:8], "little")
    return Parts(json.loads(file[8 : 8 + size]), file[8 + size :])


def join(header: bytes, data: bytes, size: int | None = None) -> bytes:
    """A file; `size` is the length of the header that it claims, else the right one."""
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def change(rng: Random, parts: Parts) -> bytes:
    """A file with something wrong, or with other numbers in it."""
    header, data = parts
    way = rng.randrange(10)
    if way == 0:
        return octets.damage(rng, join(json.dumps(header).encode(), data))
    if way == 1:
        sizes = (0, 1, 7, len(data), 1 << 20, 1 << 31, 1 << 62, (1 << 64) - 1)
        return join(json.dumps(header).encode(), data, rng.choice(sizes))
    if way in (2, 3):
        return join(trees.write(rng, trees.change(rng, header)), data)
    if way in (4, 5, 6):
        header = _entry(rng, header)
    elif way == 7:
        data = rng.choice((data + b"\0", data + bytes(64), data[:-4], data[4:], b""))
    else:
        data = _numbers(rng, data)
    text = json.dumps(header).encode()
    return join(text + b" " * rng.choice((0, 0, -len(text) % 8)), data)


def _entry(rng: Random, header: dict[str, Any]) -> dict[str, Any]:
    """A header in which one tensor says something else about itself."""
    name = rng.choice([n for n in header if n != "__metadata__"])
    other = header[rng.choice([n for n in header if n != "__metadata__"])]
    entry = dict(header[name])
    begin, end = entry["data_offsets"]
    edit = rng.randrange(9)
    if edit == 0:
        entry["dtype"] = rng.choice(DTYPES)
    elif edit == 1:
        entry["shape"] = trees.change(rng, entry["shape"])
    elif edit == 2:
        entry["data_offsets"] = list(other["data_offsets"])
    elif edit == 3:
        entry = dict(other)
    elif edit == 4:
        step = rng.choice((-4, -1, 1, 4, 1 << 40))
        entry["data_offsets"] = [begin + step, end + step]
    elif edit == 5:
        entry["data_offsets"] = rng.choice(([end, begin], [begin], [begin, end, end], [0, 0]))
    elif edit == 6:
        entry["shape"] = [*entry["shape"], 1] if rng.random() < 0.5 else entry["shape"][::-1]
    elif edit == 7:
        entry["shape"] = [rng.choice((1e999, "1", 1 << 40, -1, 1.0, True))]
    else:
        halves = {"F32": "I32", "I32": "F32", "I64": "F64", "F64": "I64"}
        entry["dtype"] = halves.get(entry["dtype"], "F32")
    if rng.random() < 0.1:
        return {n: e for n, e in header.items() if n != name}
    if rng.random() < 0.1:
        return {**header, f"{name}.more": entry}
    return {**header, name: entry}


def _numbers(rng: Random, data: bytes) -> bytes:
    """Other numbers, of which one may be no number."""
    at = 4 * rng.randrange(max(len(data) // 4, 1))
    new = rng.choice((*NUMBERS, rng.randbytes(4)))
    return data[:at] + new * rng.choice((1, 1, 8)) + data[at + 4 :] if data else data


def numbers(rng: Random, parts: Parts) -> bytes:
    """A good file with other numbers in it."""
    data = _numbers(rng, parts.data)[: len(parts.data)].ljust(len(parts.data), b"\0")
    return join(json.dumps(parts.header).encode(), data)
