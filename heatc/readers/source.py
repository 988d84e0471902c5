"""
Bytes of files that may be anything, so many at most.

A device such as /dev/zero never ends and a pipe may wait for a writer that never comes: only
regular files are read, and pipes that somebody writes to.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import IO, Any

from heatc.errors import HeatcError
from heatc.files import from_os_error

STDIN = "-"

_CHUNK = 1 << 20


def as_path(value: Any, what: str) -> Path:
    """The path that an argument of the Python API stands for; `HeatcError` for another type."""
    path: Any = value.__fspath__() if hasattr(value, "__fspath__") else value
    if not isinstance(path, str):
        raise HeatcError(f"expected a path for {what}, got {type(value).__name__}")
    return Path(path)


def read_bytes(path: str | os.PathLike[str], what: str, most: int) -> bytes:
    """
    The bytes of a file or of a pipe, at most `most`; `what` says what it should be ("a plan").

    Raises `HeatcError`: it can't be opened or read, it is larger, or it is a folder or a device.
    """
    file = as_path(path, what)
    try:
        with open_file(file, what, pipes=True) as stream:
            return _read(stream, str(file), what, most)
    except OSError as error:
        raise from_os_error(error, str(file)) from error


def read_stdin(what: str, most: int) -> bytes:
    """The bytes of standard input, at most `most`."""
    try:
        data = sys.stdin.buffer.read(most + 1)
    except OSError as error:
        raise from_os_error(error, "<stdin>", "read") from error
    if len(data) > most:
        raise _too_large("<stdin>", what, most)
    return data


def decode(data: bytes, place: str) -> str:
    """UTF-8 text; `HeatcError` names the line of the first byte that is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HeatcError(
            f"not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}",
            place=f"{place}:{line}",
        ) from None


def open_file(path: Path, what: str, *, pipes: bool) -> IO[bytes]:
    """A regular file, or a pipe where they are allowed, unbuffered; `HeatcError` for all else."""
    try:
        # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        # A null character in the name.
        raise HeatcError(f"cannot open: {error}", place=repr(str(path))) from None
    stream = open(descriptor, "rb", buffering=0)  # noqa: SIM115
    try:
        _check_kind(os.fstat(descriptor).st_mode, path, what, pipes=pipes)
    except BaseException:
        stream.close()
        raise
    return stream


def _check_kind(mode: int, path: Path, what: str, *, pipes: bool) -> None:
    if stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode)):
        return
    kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
    raise HeatcError(f"cannot open: it is {kind}", place=str(path), notes=[f"expected {what}"])


def _read(stream: IO[bytes], place: str, what: str, most: int) -> bytes:
    if os.fstat(stream.fileno()).st_size > most:
        raise _too_large(place, what, most)
    # A pipe that nobody writes to ends here: it reads as empty.
    part = stream.read(_CHUNK)
    os.set_blocking(stream.fileno(), True)
    if part is None:  # pyright: ignore[reportUnnecessaryComparison]
        part = stream.read(_CHUNK)
    parts: list[bytes] = []
    left = most
    while part:
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise _too_large(place, what, most)
        part = stream.read(_CHUNK)
    return b"".join(parts)


def _too_large(place: str, what: str, most: int) -> HeatcError:
    return HeatcError(f"{what} has at most {size_text(most)}, this has more", place=place)


def size_text(count: int) -> str:
    """`64 MiB`; a number of bytes that is no whole number of KiB as it is."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"
