"""Files that appear whole or not at all, and messages about those that can't be had."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, overload

from heatc import stopping
from heatc.errors import HeatcError
from heatc.temporary import Temporary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heatc.kinds import Kind

Mode = Literal["w", "wb"]
AnyPath = str | os.PathLike[str]


def from_os_error(error: OSError, path: AnyPath = "", verb: str = "") -> HeatcError:
    """`FileNotFoundError` and the like as a message about the file."""
    place = os.fspath(path) or (str(error.filename) if error.filename is not None else "")
    reason = error.strerror or str(error) or type(error).__name__
    reason = reason[:1].lower() + reason[1:]
    # An open stream that fails, typically stdout on a full disk, does not say which it is.
    verb = verb or ("open" if place else "read or write")
    return HeatcError(f"cannot {verb}: {reason}", place=place)


# --- Writing ----------------------------------------------------------------------------------


class _Noting(io.FileIO):
    """A file that remembers why it could not be written, whatever becomes of the exception."""

    failure: OSError | None = None
    is_stream = False

    def tell(self) -> int:
        # A device says that it is where it was: zip archives then go wrong.
        if self.is_stream:
            raise io.UnsupportedOperation("a device or pipe has no position")
        return super().tell()

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@dataclass
class _Draft:
    """A file that is being written: where it is wanted, and where it is."""

    path: AnyPath
    target: Path
    temporary: Temporary | None  # None for devices and pipes
    stream: IO[Any]
    raw: _Noting

    def discard(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.close()
        if self.temporary is not None:
            self.temporary.close()


@dataclass
class _Placed:
    """What was in a file's place, to bring it back; its second name is gone after `forget`."""

    target: Path
    is_new: bool
    second_name: Temporary | None = None

    @classmethod
    def of(cls, target: Path) -> _Placed:
        place = cls(target, not target.exists())
        if target.is_file():
            # Some file systems have no hard links.
            with contextlib.suppress(OSError):
                place.second_name = Temporary(target.parent, target)
        return place

    def restore(self) -> None:
        with contextlib.suppress(OSError):
            if self.second_name is not None:
                os.replace(self.second_name.path, self.target)
            elif self.is_new:
                self.target.unlink()

    def forget(self) -> None:
        if self.second_name is not None:
            self.second_name.close()


class Batch:
    """Files that appear together when the block of `together` ends well, or not at all."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []

    @overload
    def open(self, path: AnyPath, mode: Literal["wb"] = "wb") -> IO[bytes]: ...

    @overload
    def open(self, path: AnyPath, mode: Literal["w"]) -> IO[str]: ...

    def open(self, path: AnyPath, mode: Mode = "wb") -> IO[Any]:
        """
        A stream whose content appears at `path`: bytes, or text in UTF-8.

        A path that can't be written is a `HeatcError`, here where that can be known. Devices and
        pipes are written directly, a link's target is replaced, not the link.
        """
        try:
            draft = _draft(path, mode)
        except OSError as error:
            raise from_os_error(error, path, "write") from error
        self._drafts.append(draft)
        return draft.stream

    def draft(self, stream: IO[Any]) -> Path | None:
        """Where the content of a stream is until it appears; None for devices and pipes."""
        stream.flush()
        draft = next(d for d in self._drafts if d.stream is stream)
        return None if draft.temporary is None else draft.temporary.path

    def commit(self) -> None:
        """Put the files in their places, in the order in which they were opened."""
        for draft in self._drafts:
            try:
                draft.stream.close()
            except OSError as error:
                raise from_os_error(error, draft.path, "write") from error
        # A signal between two of them would leave one of each kind.
        with stopping.deferred():
            self._put_all()

    def _put_all(self) -> None:
        placed: list[_Placed] = []
        try:
            for draft in self._drafts:
                if len(self._drafts) > 1:
                    placed.append(_Placed.of(draft.target))
                _put(draft)
        except HeatcError:
            for place in placed[:-1]:
                place.restore()
            raise
        finally:
            for place in placed:
                place.forget()

    def discard(self) -> None:
        """Leave nothing of what has no place yet."""
        for draft in self._drafts:
            draft.discard()

    def explained(self, error: Exception) -> HeatcError | None:
        """A failed write as a message about its file, None if the error is about something else."""
        for draft in self._drafts:
            if draft.raw.failure is not None:
                return from_os_error(draft.raw.failure, draft.path, "write")
        # NumPy writes past Python's streams, and names no file either.
        if isinstance(error, OSError) and error.filename is None and len(self._drafts) == 1:
            return from_os_error(error, self._drafts[0].path, "write")
        return None


@contextlib.contextmanager
def together() -> Generator[Batch]:
    """
    A batch of files that appear when the block ends well, all of them or none.

    A file that can't be written, on a full disk say, is a `HeatcError` that names it; what was in
    its place is there still.
    """
    batch = Batch()
    try:
        yield batch
        batch.commit()
    except Exception as error:
        explained = batch.explained(error)
        if explained is None or isinstance(error, HeatcError):
            raise
        raise explained from error
    finally:
        batch.discard()


@overload
def atomic_write(
    path: AnyPath, mode: Literal["wb"] = "wb"
) -> contextlib.AbstractContextManager[IO[bytes]]: ...


@overload
def atomic_write(
    path: AnyPath, mode: Literal["w"]
) -> contextlib.AbstractContextManager[IO[str]]: ...


def atomic_write(path: AnyPath, mode: Mode = "wb") -> contextlib.AbstractContextManager[IO[Any]]:
    """A stream whose content appears at `path` when the block ends well; see `Batch.open`."""
    return _atomic_write(path, mode)


@contextlib.contextmanager
def _atomic_write(path: AnyPath, mode: Any) -> Generator[IO[Any]]:
    with together() as files:
        yield files.open(path, mode)


def _draft(path: AnyPath, mode: Mode) -> _Draft:
    target = Path(path if is_stream(path) else os.path.realpath(path))
    _check_writable(target)
    temporary = None
    if is_stream(path):
        raw = _Noting(target, "w")
        raw.is_stream = True
    else:
        temporary = Temporary(target.parent)
        raw = _Noting(temporary.descriptor(), "w")
    stream: IO[Any] = io.BufferedWriter(raw)
    if mode == "w":
        stream = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
    return _Draft(path, target, temporary, stream, raw)


def _put(draft: _Draft) -> None:
    """Move a finished file to its place, with the rights of what was there."""
    if draft.temporary is None:
        return
    try:
        if draft.target.exists():
            os.chmod(draft.temporary.path, draft.target.stat().st_mode & 0o7777)
        os.replace(draft.temporary.path, draft.target)
    except OSError as error:
        raise from_os_error(error, draft.path, "write") from error


@contextlib.contextmanager
def new_file(path: Path) -> Generator[Path]:
    """
    Where a file is to be made that appears at `path` when the block ends well.

    What somebody else has put there in the meantime stays. Raises `HeatcError` where it can't be.
    """
    try:
        temporary = Temporary(path.parent)
    except OSError as error:
        raise from_os_error(error, path, "write") from error
    try:
        yield temporary.path
        with contextlib.suppress(FileExistsError):
            os.link(temporary.path, path)
    except OSError as error:
        raise from_os_error(error, path, "write") from error
    finally:
        temporary.close()


def write_safetensors(path: AnyPath, arrays: Mapping[str, NDArray[Any]], kind: Kind) -> None:
    """Write arrays by name as a file of a kind; raises `HeatcError` where it cannot be."""
    with atomic_write(path) as stream:
        stream.write(safetensors_bytes(arrays, kind))


def safetensors_bytes(arrays: Mapping[str, NDArray[Any]], kind: Kind) -> bytes:
    """The bytes of a safetensors file of a kind; the same arrays give the same bytes."""
    # Here alone: tools that only read text start without them.
    import numpy as np
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, {"producer": kind.mark})


# --- Before the work --------------------------------------------------------------------------


def check_writable(path: AnyPath) -> None:
    """Raise a `HeatcError` if `path` can't be written, before the work that would be lost."""
    try:
        if is_stream(path):
            return
        target = Path(os.path.realpath(path))
        _check_writable(target)
        Temporary(target.parent).close()
    except OSError as error:
        raise from_os_error(error, path, "write") from error


def check_folder(path: AnyPath) -> None:
    """Raise a `HeatcError` if a folder can't be made, or can't be written in, before the work."""
    folder = Path(path)
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        if not there.is_dir():
            raise NotADirectoryError(None, f"{str(there)!r} is a file")
        Temporary(there).close()
    except OSError as error:
        raise from_os_error(error, path, "create" if there == folder else "write") from error


def make_folder(path: AnyPath) -> Path:
    """Make a folder, if it is not there; a `HeatcError` where that can't be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, path, "create") from error
    return Path(path)


@contextlib.contextmanager
def held_folder(folder: Path) -> Generator[None]:
    """
    Make a folder and hold it for this process: two runs would write over each other's checkpoints.

    Raises `HeatcError` where another process holds it; one that ended, however, holds nothing.
    """
    make_folder(folder)
    check_folder(folder)
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


def is_stream(path: AnyPath) -> bool:
    """Whether a path is a device, a pipe or a socket: it is written to, and keeps nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _leads_to_itself(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _check_writable(target: Path) -> None:
    if _leads_to_itself(target):
        # The rename would put the file in the place of the link.
        raise OSError(errno.ELOOP, "it is a link that leads to itself")
    # Replacing a file needs no right to write to it, only to its folder: ask for both.
    if target.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    if not target.parent.is_dir():
        raise NotADirectoryError(None, f"there is no folder {str(target.parent)!r}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(None, "permission denied")
