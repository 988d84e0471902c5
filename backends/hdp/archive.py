"""
The frame of a `.hdp`: a zip archive in one canonical form.

Members are stored, not compressed, with the timestamp 1980-01-01 and their data at multiples of
64 bytes, so that weights can be mapped. Nothing about the frame is free: from the names, sizes
and checksums of the members follows every other byte. A reader therefore detects a change
anywhere in the file, and the same content is always the same file. `unzip -l` reads it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.zip_archive import ZipArchive

ALIGNMENT = 64

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")

_STORED = 0
_MIDNIGHT, _NEW_YEAR_1980 = 0, (1 << 5) | 1
_UTF8 = 1 << 11
_VERSION, _VERSION64 = 20, 45
_UNIX_FILE = (0o100644 << 16, 3 << 8)
"""External attributes and the system that gives them their meaning."""

_ALIGN_ID = 0xD935
"""The extra field that Android's zipalign pads with."""

_ZIP64_ID = 1
_LIMIT32 = 0xFFFFFFFF
_MOST_MEMBERS = 1024

_REMEDY = "compile the model again, or copy the file again if it was transferred"


@dataclass(frozen=True)
class Member:
    """One file of the archive: its size in bytes, its CRC-32, where its local header starts."""

    name: str
    size: int
    crc: int
    offset: int

    @property
    def start(self) -> int:
        """Where the member's data starts, in bytes from the start of the archive."""
        return self.offset + len(_local_header(self))


# --- The canonical bytes ----------------------------------------------------------------------


def _large(member: Member) -> bool:
    return member.size >= _LIMIT32


def _local_header(member: Member) -> bytes:
    name = member.name.encode()
    size, extra = member.size, b""
    if _large(member):
        size, extra = _LIMIT32, struct.pack("<2H2Q", _ZIP64_ID, 16, member.size, member.size)
    taken = member.offset + _LOCAL.size + len(name) + len(extra)
    padding = -(taken + 4) % ALIGNMENT
    extra += struct.pack("<2H", _ALIGN_ID, padding) + bytes(padding)
    return (
        _LOCAL.pack(
            b"PK\3\4",
            _VERSION64 if _large(member) else _VERSION,
            _UTF8,
            _STORED,
            _MIDNIGHT,
            _NEW_YEAR_1980,
            member.crc,
            size,
            size,
            len(name),
            len(extra),
        )
        + name
        + extra
    )


def _directory(members: Iterable[Member], offset: int) -> bytes:
    """The central directory at `offset` and the records after it: the tail of the file."""
    members = tuple(members)
    entries = b"".join(map(_entry, members))
    count, size = len(members), len(entries)
    end64 = b""
    if offset >= _LIMIT32:
        end64 = _END64.pack(
            b"PK\6\6", _END64.size - 12, _VERSION64, _VERSION64, 0, 0, count, count, size, offset
        ) + _LOCATOR.pack(b"PK\6\7", 0, offset + size, 1)
    end = _END.pack(b"PK\5\6", 0, 0, count, count, size, min(offset, _LIMIT32), 0)
    return entries + end64 + end


def _entry(member: Member) -> bytes:
    name, large = member.name.encode(), b""
    if _large(member):
        large += struct.pack("<2Q", member.size, member.size)
    if member.offset >= _LIMIT32:
        large += struct.pack("<Q", member.offset)
    extra = struct.pack("<2H", _ZIP64_ID, len(large)) + large if large else b""
    attributes, system = _UNIX_FILE
    version = _VERSION64 if large else _VERSION
    size = min(member.size, _LIMIT32)
    return (
        _CENTRAL.pack(
            b"PK\1\2",
            system | version,
            version,
            _UTF8,
            _STORED,
            _MIDNIGHT,
            _NEW_YEAR_1980,
            member.crc,
            size,
            size,
            len(name),
            len(extra),
            0,
            0,
            0,
            attributes,
            min(member.offset, _LIMIT32),
        )
        + name
        + extra
    )


# --- Writing ----------------------------------------------------------------------------------


class ArchiveWriter:
    """Writes members one after the other to a seekable stream; `close` ends the archive."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._position = 0
        self.members: list[Member] = []

    def add(self, name: str, data: bytes) -> Member:
        """Adds a member that is in memory."""
        return self.add_stream(name, len(data), [data])

    def add_stream(self, name: str, size: int, chunks: Iterable[bytes | memoryview]) -> Member:
        """
        Adds a member of `size` bytes that come in chunks.

        The checksum is known at the end, so the header is written twice.
        """
        member = Member(name, size, 0, self._position)
        self._stream.write(_local_header(member))
        crc = written = 0
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
            written += self._stream.write(chunk)
        if written != size:
            raise ValueError(f"{name}: {written} bytes were given, {size} announced")
        member = replace(member, crc=crc)
        self._stream.seek(member.offset)
        self._stream.write(_local_header(member))
        self._position = member.start + size
        self._stream.seek(self._position)
        self.members.append(member)
        return member

    def close(self) -> None:
        """Writes the central directory."""
        self._stream.write(_directory(self.members, self._position))


# --- Reading ----------------------------------------------------------------------------------


class ArchiveReader:
    """
    Reads an archive of the canonical form.

    Opening reads the directory only. `check_frame` and `check` detect what the file has that
    its members do not account for, and damage inside a member.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._zip = ZipArchive(path, "an HDP program", _REMEDY)
        self.path = self._zip.path
        if len(self._zip.members) > _MOST_MEMBERS:
            self.fail(f"an HDP program has at most {_MOST_MEMBERS} sections")
        for member in self._zip.members.values():
            if not member.stored:
                self.fail("the section is compressed; a program stores its sections", member.name)
        members = (Member(m.name, m.size, m.crc, m.offset) for m in self._zip.members.values())
        self.members = {member.name: member for member in members}

    def fail(self, message: str, section: str = "", *notes: str) -> NoReturn:
        """Raises a `HeatcError` about the file, or about one section of it."""
        error = self._zip.error(message, section)
        raise HeatcError(error.message, place=error.place, notes=notes or error.notes)

    def read(self, name: str, most: int) -> bytes:
        """The checked bytes of a member of at most `most` bytes."""
        return self._zip.read(name, most)

    def view(self, name: str) -> NDArray[np.uint8]:
        """The checked bytes of a member of any size, mapped."""
        return self._zip.view(name)

    def check_frame(self) -> None:
        """Verifies every byte that belongs to no member."""
        position, data = 0, self._zip.data
        for member in self.members.values():
            header = _local_header(member)
            if member.offset != position or not _begins(data[position:], header):
                self.fail("the header of the section is damaged", member.name)
            position = member.start + member.size
        tail = _directory(self.members.values(), position)
        if len(data) - position != len(tail) or not _begins(data[position:], tail):
            self.fail("the file is damaged: its directory is not the one heatc writes")


def _begins(data: NDArray[np.uint8], expected: bytes) -> bool:
    return data[: len(expected)].tobytes() == expected
