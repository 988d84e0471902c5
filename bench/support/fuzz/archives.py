"""Hostile zip archives: members changed with their checksums mended, and damaged frames."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from random import Random

from bench.support.fuzz import octets

NAMES = ("", ".", "..", "../x", "/x", "a\\b", "a/b", "C:x", "x" * 300, "é", "a\0b", "PK\3\4")


def parse(file: bytes) -> dict[str, bytes]:
    """The members of a good archive."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def join(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with right checksums, always the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


def frame(rng: Random, members: Mapping[str, bytes]) -> bytes:
    """An archive whose members are good and whose frame is not, or is unusual."""
    items = dict(members)
    name = rng.choice(list(items))
    way = rng.randrange(9)
    if way == 0:
        return octets.damage(rng, join(items))
    if way == 1:
        return join(items, rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    if way == 2:
        return rng.choice((b"\0", b"#!/bin/sh\n", b"PK\3\4" * 20)) + join(items)
    if way == 3:
        del items[name]
        return join(items)
    if way == 4:
        items[rng.choice(NAMES)] = items.pop(name)
        return join(items)
    if way == 5:
        return _twice(rng, items, name)
    if way == 6:
        return join({**items, rng.choice(NAMES): rng.randbytes(8)})
    if way == 7:
        return join({name: items.pop(name), **items})
    return _fields(rng, join(items))


def _twice(rng: Random, members: Mapping[str, bytes], name: str) -> bytes:
    """An archive that holds a member twice."""
    import warnings

    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        for other, data in members.items():
            archive.writestr(zipfile.ZipInfo(other), data)
            if other == name:
                archive.writestr(zipfile.ZipInfo(other), octets.damage(rng, data))
    return stream.getvalue()


_CENTRAL = {
    **{"flags": (8, 2), "method": (10, 2), "crc": (16, 4), "packed": (20, 4), "size": (24, 4)},
    **{"name": (28, 2), "extra": (30, 2), "comment": (32, 2), "offset": (42, 4)},
}
_LOCAL = {
    **{"flags": (6, 2), "method": (8, 2), "crc": (14, 4), "packed": (18, 4), "size": (22, 4)},
    **{"name": (26, 2), "extra": (28, 2)},
}
"""Fields of a member's header: place and bytes, in the directory and in front of the member."""


def _fields(rng: Random, data: bytes) -> bytes:
    """One field of a member's header, in the directory, in front of the member or in both."""
    ends = data.rfind(b"PK\5\6")
    offset = struct.unpack_from("<I", data, ends + 16)[0]
    entries = _starts(data, offset, ends)
    entry = rng.choice(entries)
    local = struct.unpack_from("<I", data, entry + 42)[0]
    field = rng.choice(list(_LOCAL))
    new = rng.choice((0, 1, 8, 12, 0xFFFF, 0xFFFFFFFF, rng.randrange(1 << 16)))
    out = bytearray(data)
    places = [(entry, _CENTRAL[field]), (local, _LOCAL[field])]
    if rng.random() < 0.2:
        places = [(entry, _CENTRAL[rng.choice(("offset", "comment"))])]
    elif rng.random() < 0.6:
        places = [rng.choice(places)]
    for base, (at, size) in places:
        out[base + at : base + at + size] = (new % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(out)


def _starts(data: bytes, offset: int, end: int) -> list[int]:
    found: list[int] = []
    while offset < end:
        found.append(offset)
        offset += 46 + sum(struct.unpack_from("<3H", data, offset + 28))
    return found
