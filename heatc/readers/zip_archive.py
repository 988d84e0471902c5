"""
Zip archives of which every byte is accounted for, mapped.

The directory is read by `zipfile`. What zipfile leaves open is checked here: the members follow
each other without holes from the first byte of the file to the directory, each has the same name,
size and checksum in front of its data as in the directory, and nothing stands behind. The bytes of
a member are compared with their CRC-32 before they are used, once.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple, NoReturn

from heatc.errors import HeatcError
from heatc.readers.mapped_file import Bytes, map_file
from heatc.readers.source import size_text

MOST_MEMBERS = 1 << 15
LARGEST_DIRECTORY = 16 << 20

BROKEN = (
    zipfile.BadZipFile,
    struct.error,
    zlib.error,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
    EOFError,
    RuntimeError,
    KeyError,
    IndexError,
)
"""What zipfile raises on damaged files."""

_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ZIP64_ID = 1
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF

_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_HAS_DESCRIPTOR = 1 << 3
_UTF8 = 1 << 11

_PIECE = 1 << 20
"""Bytes of a member that are in memory at once while it is checked."""
_LONGEST_COMMENT = 256
"""Of an archive: heatc says there who wrote it."""


class Member(NamedTuple):
    """
    A file of the archive.

    Its name, its size in bytes, the CRC-32 of its content, whether it is stored as it is, and its
    bytes [start, stop) of the archive; `offset` is where the header in front of them begins.
    """

    name: str
    size: int
    crc: int
    stored: bool
    offset: int
    start: int
    stop: int


class ZipArchive:
    """
    An archive whose frame was checked; `members` are in the order of the directory.

    `what` says what it should be ("a .npz file"). Raises `HeatcError`, with `remedy` as its note, for
    whatever is not in order.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, remedy: str = ""):
        self._broken = f"not {what}, or a damaged one"
        self._remedy = remedy or "the file is damaged: copy or make it again"
        self._mapped = map_file(path, what)
        self.data: Bytes = self._mapped.array
        self._checked: set[str] = set()
        self.directory = self._directory()
        infos = self._infos()
        self.members = {m.name: m for m in map(self._member, infos)}
        if len(self.members) != len(infos):
            names = [info.filename for info in infos]
            self.fail("it exists twice", next(n for n in names if names.count(n) > 1))
        self._check_order()

    @property
    def path(self) -> Path:
        """The file."""
        return self._mapped.path

    def error(self, message: str, member: str = "") -> HeatcError:
        """An error about the file, or about one member of it."""
        place = f"{self.path}: {member[:80]}" if member else str(self.path)
        return HeatcError(message, place=place, notes=[self._remedy])

    def fail(self, message: str, member: str = "") -> NoReturn:
        """Raise such an error."""
        raise self.error(message, member)

    # --- Content --------------------------------------------------------------------------------

    def view(self, name: str) -> Bytes:
        """The bytes of a stored member, mapped; their checksum is right."""
        member = self._of(name)
        if not member.stored:
            self.fail("it is compressed, only stored members can be mapped", name)
        if name not in self._checked:
            self._check(member)
            self._checked.add(name)
        return self.data[member.start : member.stop]

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a member of at most `most` bytes; their checksum is right."""
        member = self._of(name)
        if member.size > most:
            self.fail(f"it has {member.size} bytes, at most {size_text(most)} make sense", name)
        if member.stored:
            return self.view(name).tobytes()
        return self._inflate(member, member.size)

    def beginning(self, name: str, count: int) -> bytes:
        """The first bytes of a member, at most `count`; their checksum is not looked at."""
        member = self._of(name)
        if member.stored:
            return self.data[member.start : min(member.stop, member.start + count)].tobytes()
        return self._inflate(member, count)

    def _of(self, name: str) -> Member:
        if name not in self.members:
            self.fail("the archive has no such member", name)
        return self.members[name]

    def _inflate(self, member: Member, count: int) -> bytes:
        """The first bytes of a compressed member; all of them are compared with the checksum."""
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One byte more than wanted: that is where the end is noticed.
            data = stream.decompress(self.data[member.start : member.stop].data, count + 1)
        except zlib.error as error:
            self.fail(f"it is damaged: {_reason(error)}", member.name)
        whole = count >= member.size
        if whole and (len(data), stream.eof, zlib.crc32(data)) != (member.size, True, member.crc):
            self.fail("it is damaged: its size or checksum is wrong", member.name)
        return data[:count]

    def _check(self, member: Member) -> None:
        crc = 0
        for start in range(member.start, member.stop, _PIECE):
            stop = min(start + _PIECE, member.stop)
            crc = zlib.crc32(self.data[start:stop].data, crc)
            self._mapped.forget(start, stop)
        if crc != member.crc:
            self.fail("it is damaged: its checksum is wrong", member.name)

    # --- The frame ------------------------------------------------------------------------------

    def _directory(self) -> tuple[int, int, int]:
        """Where the directory begins and ends, and how many entries it has."""
        stop = self._end()
        count, length, offset = _END.unpack(self._bytes(stop, stop + _END.size))[4:7]
        if _FULL32 in (length, offset) or count == _FULL16:
            stop -= _LOCATOR.size + _END64.size
            count, length, offset = self._large_end(stop)
        elif self._bytes(stop - _LOCATOR.size, stop)[:4] == b"PK\6\7":
            stop -= _LOCATOR.size + _END64.size
        if count > MOST_MEMBERS or length > LARGEST_DIRECTORY:
            self.fail(f"{self._broken}: a directory of {count} members in {length} bytes")
        if offset + length != stop:
            self.fail(f"{self._broken}: its directory is not where it belongs")
        return offset, stop, count

    def _end(self) -> int:
        """Where the record begins that ends the archive, with a short comment behind it or none."""
        size = len(self.data)
        if size < _END.size:
            self.fail(f"{self._broken}: it is too short")
        first = max(0, size - _END.size - _LONGEST_COMMENT)
        tail = self._bytes(first, size)
        at = tail.rfind(b"PK\5\6", 0, len(tail) - _END.size + 4)
        if at < 0 or at + _END.size + _END.unpack_from(tail, at)[-1] != len(tail):
            self.fail(f"{self._broken}: it is truncated, or does not end with its directory")
        return first + at

    def _large_end(self, start: int) -> tuple[int, int, int]:
        if start < 0:
            self.fail(f"{self._broken}: it is too short")
        record = _END64.unpack(self._bytes(start, start + _END64.size))
        at = start + _END64.size
        locator = _LOCATOR.unpack(self._bytes(at, at + _LOCATOR.size))
        if record[0] != b"PK\6\6" or locator[::2] != (b"PK\6\7", start):
            self.fail(f"{self._broken}: it does not end with its directory")
        return record[7:]

    def _infos(self) -> list[zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                infos = archive.infolist()
        except BROKEN as error:
            self.fail(f"{self._broken}: {_reason(error)}")
        if len(infos) != self.directory[2]:
            self.fail(
                f"{self._broken}: a directory of {len(infos)} members, {self.directory[2]} are announced"
            )
        return infos

    def _member(self, info: zipfile.ZipInfo) -> Member:
        name = info.orig_filename
        self._check_name(name)
        if info.flag_bits & _ENCRYPTED:
            self.fail("it is encrypted", name)
        stored = info.compress_type == zipfile.ZIP_STORED
        if not stored and info.compress_type != zipfile.ZIP_DEFLATED:
            self.fail(f"it is compressed by method {info.compress_type}", name)
        if stored and info.file_size != info.compress_size:
            self.fail("it has two different sizes", name)
        start = self._check_local(info)
        stop = start + info.compress_size
        if stop > self.directory[0]:
            self.fail("it ends after the directory's beginning: the file is truncated", name)
        return Member(name, info.file_size, info.CRC, stored, info.header_offset, start, stop)

    def _check_name(self, name: str) -> None:
        parts = name.split("/")
        if ".." in parts or parts[0] == "" or "\\" in name or not name.isprintable():
            self.fail(f"unsafe name {name[:80]!r} in the archive")

    def _check_local(self, info: zipfile.ZipInfo) -> int:
        """Compare the header in front of the data with the directory; where the data begins."""
        name, begin = info.orig_filename, info.header_offset
        if begin < 0 or begin + _LOCAL.size > self.directory[0]:
            self.fail("it begins after the directory's beginning", name)
        header = _LOCAL.unpack(self._bytes(begin, begin + _LOCAL.size))
        magic, _, flags, method, _, _, crc, packed, size, name_size, extra_size = header
        at = begin + _LOCAL.size
        raw, extra = (
            self._bytes(at, at + name_size),
            self._bytes(at + name_size, at + name_size + extra_size),
        )
        encoded = name.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        if magic != b"PK\3\4" or (raw, flags, method) != (
            encoded,
            info.flag_bits,
            info.compress_type,
        ):
            self.fail("the header in front of it is not that of the directory", name)
        if not flags & _HAS_DESCRIPTOR:
            size, packed = _large_sizes(extra, size, packed)
            if (crc, packed, size) != (info.CRC, info.compress_size, info.file_size):
                self.fail("its size or checksum is not that of the directory", name)
        return at + name_size + extra_size

    def _check_order(self) -> None:
        """The members follow each other, with nothing before, between and behind them."""
        end = 0
        for member in sorted(self.members.values(), key=lambda m: m.offset):
            if member.offset != end:
                self.fail(
                    f"it begins at {member.offset}, what is before it ends at {end}", member.name
                )
            end = member.stop + self._descriptor(member)
        if end != self.directory[0]:
            self.fail(
                f"{self._broken}: its members end at {end}, its directory begins at {self.directory[0]}"
            )

    def _descriptor(self, member: Member) -> int:
        """The size of the record behind the data, of archives that were written in one go."""
        begin = member.offset + 6
        if not int.from_bytes(self._bytes(begin, begin + 2), "little") & _HAS_DESCRIPTOR:
            return 0
        sizes = member.stop - member.start, member.size
        found = self._bytes(member.stop, min(member.stop + 24, self.directory[0]))
        for form in ("<4sI2Q", "<4s3I"):
            if form == "<4s3I" and max(sizes) > _FULL32:
                continue
            record = struct.pack(form, b"PK\7\x08", member.crc, *sizes)
            if found.startswith(record):
                return len(record)
        self.fail("the record behind it is not that of the directory", member.name)

    def _bytes(self, start: int, stop: int) -> bytes:
        return self.data[max(start, 0) : max(stop, 0)].tobytes()


def _large_sizes(extra: bytes, size: int, packed: int) -> tuple[int, int]:
    """The sizes of a local header; where they do not fit 32 bits they stand in an extra field."""
    while len(extra) >= 4 and _FULL32 in (size, packed):
        kind, length = struct.unpack_from("<2H", extra)
        if kind == _ZIP64_ID and length >= 16:
            return struct.unpack_from("<2Q", extra, 4) if len(extra) >= 20 else (size, packed)
        extra = extra[4 + length :]
    return size, packed


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
