"""Zip archives: every byte accounted for, members checked when they are used."""

from __future__ import annotations

import io
import random
import resource
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heatc.errors import HeatcError
from heatc.readers.zip_archive import MOST_MEMBERS, ZipArchive

MEMBERS = {"top/a": b"hello" * 10, "top/data/b": bytes(range(256)), "top/empty": b""}


class Stream(io.BytesIO):
    """A stream that cannot go back: zipfile then writes records behind the data, as torch does."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise OSError

    def tell(self) -> int:
        raise OSError


def made(method: int = zipfile.ZIP_STORED, stream: io.BytesIO | None = None) -> bytes:
    stream = io.BytesIO() if stream is None else stream
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return stream.getvalue()


def opened(folder: Path, data: bytes) -> ZipArchive:
    (folder / "x.zip").write_bytes(data)
    return ZipArchive(folder / "x.zip", "a model archive", "fetch it again")


def content(archive: ZipArchive) -> dict[str, bytes]:
    return {name: archive.read(name, 1 << 20) for name in archive.members}


def message(folder: Path, data: bytes) -> str:
    with pytest.raises(HeatcError) as caught:
        content(opened(folder, data))
    assert caught.value.exit_code == 1
    assert "x.zip" in caught.value.place
    assert "\n" not in caught.value.message
    return caught.value.render()


def test_reads_what_zipfile_writes(tmp_path: Path):
    for data in (made(), made(zipfile.ZIP_DEFLATED), made(stream=Stream())):
        archive = opened(tmp_path, data)
        assert content(archive) == MEMBERS
        assert archive.beginning("top/a", 3) == b"hel"
    assert bytes(opened(tmp_path, made()).view("top/a")) == MEMBERS["top/a"]
    compressed = opened(tmp_path, made(zipfile.ZIP_DEFLATED))
    with pytest.raises(HeatcError, match="compressed, only stored members can be mapped"):
        compressed.view("top/a")
    with pytest.raises(HeatcError, match="at most 10 bytes make sense"):
        compressed.read("top/a", 10)
    with pytest.raises(HeatcError, match="no such member"):
        compressed.read("other", 10)


def directory_of(data: bytes) -> int:
    return struct.unpack("<I", data[-6:-2])[0]


def set_bytes(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def twice() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("top/a", b"1")
        archive.writestr("top/a", b"2")
    return stream.getvalue()


def overlapping() -> bytes:
    """The directory says that the second member is where the first one is."""
    data = made()
    second = data.index(b"PK\1\2", directory_of(data) + 1)
    first = directory_of(data)
    entry = bytearray(data[first : first + 46 + len("top/a")])
    end = struct.unpack("<4s4H2IH", data[-22:])
    whole = data[:second] + bytes(entry).replace(b"top/a", b"top/a") + data[second:-22]
    return whole + struct.pack("<4s4H2IH", end[0], 0, 0, 4, 4, end[5] + len(entry), end[6], 0)


def renamed_locally(data: bytes) -> bytes:
    return set_bytes(data, data.index(b"top/data/b"), b"top/data/c")


def with_hole(data: bytes) -> bytes:
    """A byte between the members and the directory, and all offsets right."""
    start = directory_of(data)
    end = struct.unpack("<4s4H2IH", data[-22:])
    tail = struct.pack("<4s4H2IH", *end[:6], end[6] + 1, 0)
    return data[:start] + b"\0" + data[start:-22] + tail


def encrypted(data: bytes) -> bytes:
    start = directory_of(data)
    flags = struct.unpack_from("<H", data, start + 8)[0] | 1
    return set_bytes(data, start + 8, struct.pack("<H", flags))


def of_method(data: bytes, method: int) -> bytes:
    start = directory_of(data)
    changed = set_bytes(data, start + 10, struct.pack("<H", method))
    return set_bytes(changed, 8, struct.pack("<H", method))


def of_crc_0(data: bytes) -> bytes:
    """Both headers say that the checksum is 0."""
    changed = set_bytes(data, directory_of(data) + 16, bytes(4))
    return set_bytes(changed, 14, bytes(4))


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda d: d[:10], "it is too short"),
    (lambda d: d[:-1], "it is truncated, or does not end with its directory"),
    (lambda d: d + b"\0", "does not end with its directory"),
    (lambda d: d[:-2] + b"\2\0x", "does not end with its directory"),
    (lambda d: d[:-2] + b"\1\1" + b"x" * 257, "does not end with its directory"),
    (lambda d: b"\0" + d, "its directory is not where it belongs"),
    (with_hole, "its members end at"),
    (lambda d: twice(), "top/a: it exists twice"),
    (lambda d: overlapping(), "it exists twice"),
    (renamed_locally, "top/data/b: the header in front of it is not that of the directory"),
    (lambda d: set_bytes(d, 14, b"\1\2\3\4"), "its size or checksum is not that of the directory"),
    (
        lambda d: d.replace(b"hellohello", b"hellohallo", 1),
        "top/a: it is damaged: its checksum",
    ),
    (of_crc_0, "top/a: it is damaged: its checksum is wrong"),
    (encrypted, "top/a: it is encrypted"),
    (lambda d: of_method(d, 12), "top/a: it is compressed by method 12"),
    (lambda d: d.replace(b"top/a", b"../aa"), "unsafe name '../aa'"),
    (lambda d: d.replace(b"top/a", b"/op/a"), "unsafe name '/op/a'"),
    (lambda d: d.replace(b"top/a", b"to\\pa"), "unsafe name"),
    (lambda d: d.replace(b"top/a", b"to\0pa"), "unsafe name"),
]


@pytest.mark.parametrize(("damage", "expected"), DAMAGES)
def test_what_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], expected: str):
    assert expected in message(tmp_path, damage(made()))


@pytest.mark.parametrize("comment", [b"x", b"heatc 1.0 outputs", b"PK", b"x" * 256])
def test_a_short_comment_is_no_damage(tmp_path: Path, comment: bytes):
    data = made()[:-2] + struct.pack("<H", len(comment)) + comment
    assert content(opened(tmp_path, data)) == MEMBERS


def test_records_behind_the_data_are_compared(tmp_path: Path):
    data = made(stream=Stream())
    at = data.index(b"PK\7\x08")
    assert "record behind it" in message(tmp_path, set_bytes(data, at + 4, bytes(4)))
    assert "record behind it" in message(tmp_path, set_bytes(data, at, b"KP"))


def test_a_member_that_grows(tmp_path: Path):
    """A compressed member of more than its announced size is refused at that size."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/a", bytes(1 << 20))
    data, start = stream.getvalue(), directory_of(stream.getvalue())
    small = struct.pack("<I", 100)
    shrunk = set_bytes(set_bytes(data, start + 24, small), 22, small)
    assert "its size or checksum is wrong" in message(tmp_path, shrunk)
    huge = struct.pack("<I", 0xFFFFFFF0)
    archive = opened(tmp_path, set_bytes(set_bytes(data, start + 24, huge), 22, huge))
    with pytest.raises(HeatcError, match="has 4294967280 bytes, at most 1 GiB make sense"):
        archive.read("top/a", 1 << 30)


def test_so_many_members_at_most(tmp_path: Path):
    """The number is known before an object is made of any."""
    count = MOST_MEMBERS + 1
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 16)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, count * 46, 0, 0)
    assert f"a directory of {count} members" in message(tmp_path, entry * count + end)


def test_what_is_accepted_zipfile_reads_the_same(tmp_path: Path):
    seeded, path = random.Random(0), tmp_path / "x.zip"
    forms = (made(), made(zipfile.ZIP_DEFLATED), made(stream=Stream()))
    accepted = 0
    for k in range(6000):
        damaged = bytearray(forms[k % 3])
        for _ in range(seeded.choice((1, 1, 2, 3))):
            where = seeded.randrange(len(damaged))
            damaged[where] = seeded.choice((damaged[where] ^ 1 << seeded.randrange(8), 0, 255))
        try:
            found = content(opened(tmp_path, bytes(damaged)))
        except HeatcError:
            continue
        accepted += 1
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == found
    assert accepted > 30


def test_checking_holds_no_more_than_a_piece(tmp_path: Path):
    """The checksum of a large member is taken without its pages staying in memory."""
    block, count = np.random.default_rng(0).bytes(1 << 20), 256
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, archive.open("top/w", "w") as stream:
        for _ in range(count):
            stream.write(block)
    archive = ZipArchive(tmp_path / "x.zip", "a model archive")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = archive.view("top/w")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10
    assert (len(data), zlib.crc32(block)) == (count << 20, zlib.crc32(data[: 1 << 20].tobytes()))
