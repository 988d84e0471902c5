"""Files that appear whole or not at all, and messages about those that can't be had."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, overload

from heatc.errors import HeatcError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def from_os_error(error: OSError, path: str | os.PathLike[str] = "", verb: str = "") -> HeatcError:
    """`FileNotFoundError` and the like as a message about the file."""
    place = os.fspath(path) or (str(error.filename) if error.filename is not None else "")
    reason = error.strerror or str(error) or type(error).__name__
    reason = reason[:1].lower() + reason[1:]
    # An open stream that fails, typically stdout on a full disk, does not say which it is.
    verb = verb or ("open" if place else "read or write")
    return HeatcError(f"cannot {verb}: {reason}", place=place)


_serial = itertools.count()


@overload
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["wb"] = "wb"
) -> contextlib.AbstractContextManager[IO[bytes]]: ...


@overload
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["w"]
) -> contextlib.AbstractContextManager[IO[str]]: ...


def atomic_write(
    path: str | os.PathLike[str], mode: Literal["w", "wb"] = "wb"
) -> contextlib.AbstractContextManager[IO[Any]]:
    """
    A stream whose content appears at `path` when the block ends well, and never in part.

    A path that can't be written is a `HeatcError`, before the block runs where that can be
    known. Devices and pipes are written directly, a link's target is replaced, not the link.
    """
    return _atomic_write(path, mode)


@contextlib.contextmanager
def _atomic_write(
    path: str | os.PathLike[str], mode: Literal["w", "wb"]
) -> Generator[IO[Any], None, None]:
    target = Path(os.path.realpath(path))
    try:
        _check_writable(target)
        if target.exists() and not target.is_file():
            with _open(target, mode) as stream:
                yield stream
            return
        temporary, stream = _open_beside(target, mode)
    except OSError as error:
        raise from_os_error(error, path, "write") from error
    try:
        try:
            yield stream
        finally:
            stream.close()
        if target.exists():
            os.chmod(temporary, target.stat().st_mode & 0o7777)
        os.replace(temporary, target)
    except OSError as error:
        # A failed write names no file; an error that names one is not about the output.
        if error.filename is not None and error.filename != str(temporary):
            raise
        raise from_os_error(error, path, "write") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise a `HeatcError` if `path` can't be written, before the work that would be lost."""
    target = Path(os.path.realpath(path))
    try:
        _check_writable(target)
        if not target.exists() or target.is_file():
            temporary, stream = _open_beside(target, "wb")
            stream.close()
            temporary.unlink()
    except OSError as error:
        raise from_os_error(error, path, "write") from error


def check_writable_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder; a `HeatcError` where it can't be made or written in, before the work."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        temporary, stream = _open_beside(Path(path) / "new", "wb")
        stream.close()
        temporary.unlink()
    except OSError as error:
        raise from_os_error(error, path, "write") from error


@contextlib.contextmanager
def held_folder(folder: Path) -> Generator[None]:
    """
    Make a folder and hold it for this process: two runs would write over each other's checkpoints.

    Raises `HeatcError` where another process holds it; one that ended, however, holds nothing.
    """
    check_writable_folder(folder)
    with (folder / "held").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeatcError(
                "another run of the same works here",
                place=str(folder),
                notes=["wait for it: this command then finds what it left"],
            ) from None
        yield


def _check_writable(target: Path) -> None:
    # Replacing a file needs no right to write to it, only to its folder: ask for both.
    if target.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    if not target.parent.is_dir():
        raise NotADirectoryError(None, f"there is no folder {str(target.parent)!r}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(None, "permission denied")


def _open_beside(target: Path, mode: Literal["w", "wb"]) -> tuple[Path, IO[Any]]:
    """A new file in the target's folder, with the rights that the user's umask gives."""
    while True:
        temporary = target.parent / f".heatc-{os.getpid()}-{next(_serial)}.tmp"
        with contextlib.suppress(FileExistsError):
            return temporary, _open(temporary, "x" if mode == "w" else "xb")


def _open(path: Path, mode: str) -> IO[Any]:
    if "b" in mode:
        return open(path, mode)
    return open(path, mode, encoding="utf-8", newline="\n")


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, whole or not at all; raises `HeatcError` where it cannot be."""
    # Here alone: tools that only read text start without them.
    import numpy as np
    from safetensors.numpy import save

    with atomic_write(path) as stream:
        stream.write(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
