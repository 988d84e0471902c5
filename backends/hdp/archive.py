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
from pathlib import Path
from typing import IO, NoReturn, Self

from heatc.errors import HeatcError

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
_LONGEST_DIRECTORY = 1 << 20
_CHUNK = 1 << 20

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
        self.path = Path(path)
        try:
            self._stream = open(self.path, "rb")  # noqa: SIM115
            self._size = os.fstat(self._stream.fileno()).st_size
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            message = f"cannot open: {reason[:1].lower()}{reason[1:]}"
            raise HeatcError(message, place=str(path)) from error
        try:
            self.members = {m.name: m for m in self._read_directory()}
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def fail(self, message: str, section: str = "", *notes: str) -> NoReturn:
        """Raises a `HeatcError` about the file, or about one section of it."""
        place = f"{self.path}: {section}" if section else str(self.path)
        raise HeatcError(message, place=place, notes=notes or [_REMEDY])

    def read(self, name: str, most: int) -> bytes:
        """The checked bytes of a member of at most `most` bytes."""
        member = self.members[name]
        if member.size > most:
            self.fail(f"the section has {member.size} bytes, at most {most} make sense", name)
        data = self._read(member.start, member.size)
        if zlib.crc32(data) != member.crc:
            self._damaged(name)
        return data

    def check(self, name: str) -> None:
        """Verifies the checksum of a member of any size, in constant memory."""
        member = self.members[name]
        buffer = memoryview(bytearray(min(_CHUNK, member.size)))
        self._stream.seek(member.start)
        crc, left = 0, member.size
        while left:
            count = self._stream.readinto(buffer[: min(left, _CHUNK)])
            if not count:
                self._damaged(name)
            crc = zlib.crc32(buffer[:count], crc)
            left -= count
        if crc != member.crc:
            self._damaged(name)

    def check_frame(self) -> None:
        """Verifies every byte that belongs to no member."""
        position = 0
        for member in self.members.values():
            header = _local_header(member)
            if member.offset != position or self._read(position, len(header)) != header:
                self.fail("the header of the section is damaged", member.name)
            position = member.start + member.size
        if position > self._size or self._size - position > _LONGEST_DIRECTORY + _END.size:
            self.fail("the file is damaged: its directory is not where it belongs")
        if self._read(position, self._size - position) != _directory(
            self.members.values(), position
        ):
            self.fail("the file is damaged: its directory is not the one heatc writes")

    def _damaged(self, name: str) -> NoReturn:
        self.fail("the section is damaged: its checksum is wrong", name)

    def _read(self, position: int, count: int) -> bytes:
        if position + count > self._size:
            self.fail("the file is truncated")
        self._stream.seek(position)
        return self._stream.read(count)

    def _read_directory(self) -> list[Member]:
        if self._size == 0:
            self.fail("the file is empty")
        if self._read(0, min(4, self._size)) != b"PK\3\4":
            note = "a .hdp is written by heatc MODEL -o prog.hdp"
            self.fail("not an HDP program: it does not start like one", "", note)
        if self._size < _END.size:
            self.fail("the file is truncated")
        end = _END.unpack(self._read(self._size - _END.size, _END.size))
        if end[0] != b"PK\5\6":
            self.fail("the file is truncated or damaged: the end of its directory is missing")
        count, size, offset = end[4], end[5], end[6]
        if offset == _LIMIT32:
            offset = self._large_offset()
        if count > _MOST_MEMBERS or size > _LONGEST_DIRECTORY:
            self.fail(f"not an HDP program: a directory of {count} members in {size} bytes")
        return self._parse_entries(self._read(offset, size), count)

    def _large_offset(self) -> int:
        before = _END.size + _LOCATOR.size + _END64.size
        if self._size < before:
            self.fail("the file is truncated")
        return _END64.unpack(self._read(self._size - before, _END64.size))[9]

    def _parse_entries(self, data: bytes, count: int) -> list[Member]:
        members: list[Member] = []
        position = 0
        for _ in range(count):
            if len(data) < position + _CENTRAL.size:
                self.fail("the directory of the file is damaged")
            fields = _CENTRAL.unpack_from(data, position)
            name_size, extra_size, comment_size = fields[10:13]
            position += _CENTRAL.size
            raw_name = data[position : position + name_size]
            extra = data[position + name_size : position + name_size + extra_size]
            position += name_size + extra_size + comment_size
            if fields[0] != b"PK\1\2" or position > len(data):
                self.fail("the directory of the file is damaged")
            name = raw_name.decode("ascii", "backslashreplace")
            if fields[4] != _STORED:
                self.fail("the section is compressed; an HDP program stores its sections", name)
            if name in {m.name for m in members}:
                self.fail("the section exists twice", name)
            large = iter(_large_values(extra))
            size, offset = (
                next(large, value) if value == _LIMIT32 else value
                for value in (fields[9], fields[16])
            )
            members.append(Member(name, size, fields[7], offset))
        return members


def _large_values(extra: bytes) -> list[int]:
    """The size and the offset of the zip64 field, which holds the size twice."""
    if len(extra) < 12 or struct.unpack_from("<H", extra)[0] != _ZIP64_ID:
        return []
    values = [v for (v,) in struct.iter_unpack("<Q", extra[4 : 4 + (len(extra) - 4) // 8 * 8])]
    return values[1:] if len(values) > 1 else values
