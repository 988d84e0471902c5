"""
Temporary files and folders that no process leaves behind, however it ends.

A temporary lies beside what it will become, and its process holds a lock (flock) on it for as long
as it is there. The kernel gives the lock back when the process ends, after kill -9 too: whoever
writes in that folder next takes the lock of what it finds, and what can be locked is removed.
A number of a process would not do: it is used again, and means nothing in another container.

Locks of some network file systems hold on one machine alone. The name therefore says where the
temporary is from, by digests of host name and boot; one of another place is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterable
from functools import cache, partial
from pathlib import Path

from heatc import stopping

_PATTERN = ".heatc-*.tmp"
_NAME = re.compile(r"\.heatc-([0-9a-f]{8})-([0-9a-f]{8})-\d+-\d+\.tmp")

_serial = itertools.count()
_live: set[Path] = set()
_swept: set[Path] = set()
_owner = os.getpid()


class Temporary:
    """
    A new file in a folder, locked by this process until it is closed; `path` is where it lies.

    With `of` it is a second name (a hard link) of that file. Raises `OSError` where it can't be made.
    """

    def __init__(self, folder: Path, of: Path | None = None):
        sweep(folder)
        make = _new_file if of is None else partial(_new_name, of)
        self.path, self._lock = _new(folder, make)

    def descriptor(self) -> int:
        """A descriptor of the file to write by, which the caller closes."""
        return os.dup(self._lock)

    def close(self) -> None:
        """Remove the file, if it has not been moved to its place, and let go of it."""
        _remove(self.path)
        os.close(self._lock)


@contextlib.contextmanager
def scratch_folder() -> Generator[Path]:
    """A new folder in that of temporary files, gone with all that is in it when the block ends."""
    # Here alone: most commands start without it.
    import tempfile

    root = Path(tempfile.gettempdir())
    sweep(root)
    path, lock = _new(root, _new_folder)
    try:
        yield path
    finally:
        _remove(path)
        os.close(lock)


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left in a folder; looks once a run."""
    if folder in _swept:
        return
    _swept.add(folder)
    for path in _temporaries(folder.glob(_PATTERN)):
        # Removed while it is locked: its maker, who locks it too, then sees that it is gone.
        with _stale(path) as is_stale:
            if is_stale:
                _delete(path)


def forget_swept() -> None:
    """A new run begins: folders are looked at again."""
    _swept.clear()


def leftovers(folder: Path) -> list[Path]:
    """
    The temporaries in a folder and all below it whose process is gone.

    Those of live processes, of other hosts and of file systems without locks are not listed.
    """
    found: list[Path] = []
    for path in _temporaries(folder.rglob(_PATTERN)):
        with _stale(path) as is_stale:
            if is_stale:
                found.append(path)
    return found


def _temporaries(paths: Iterable[Path]) -> list[Path]:
    """Those that are temporaries of this host, or of this boot in another container."""
    names = ((path, _NAME.fullmatch(path.name)) for path in paths)
    with contextlib.suppress(OSError):
        return sorted(p for p, m in names if m and (m[1] == _host() or m[2] == _boot()))
    return []


@contextlib.contextmanager
def _stale(path: Path) -> Generator[bool]:
    """Whether nobody holds a temporary; if so, it is held inside."""
    try:
        lock = _open(path)
    except OSError:
        yield False
        return
    try:
        yield _lock(lock, fcntl.LOCK_NB)
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # Some file systems lock what is open for writing only.
        return os.open(path, os.O_RDWR | flags)
    except IsADirectoryError:
        return os.open(path, os.O_RDONLY | flags)


def _lock(descriptor: int, flags: int = 0) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except OSError:
        return False
    return True


def _new(folder: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A path that `make` made anew, and the descriptor by which it is locked."""
    while True:
        path = folder / f".heatc-{_host()}-{_boot()}-{os.getpid()}-{next(_serial)}.tmp"
        with stopping.deferred():
            try:
                descriptor = make(path)
            except FileExistsError:
                continue
            _live.add(path)
        # A file system without locks has no sweepers either.
        if not _lock(descriptor) or _is_at(path, descriptor):
            return path, descriptor
        _live.discard(path)
        os.close(descriptor)


def _new_file(path: Path) -> int:
    # The rights of a new file are what the user's umask leaves.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _new_name(of: Path, path: Path) -> int:
    os.link(of, path)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _new_folder(path: Path) -> int:
    path.mkdir(mode=0o700)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    _delete(path)
    _live.discard(path)


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        import shutil

        shutil.rmtree(path, ignore_errors=True)


def _remove_all() -> None:
    # A forked child has a copy of what is its parent's.
    if os.getpid() == _owner:
        for path in _live:
            _delete(path)


stopping.at_the_end(_remove_all)


@cache
def _host() -> str:
    """Eight hexadecimal digits of the host's name."""
    return _digits(os.uname().nodename)


@cache
def _boot() -> str:
    """Eight hexadecimal digits of this boot of the machine; of the host where none are told."""
    try:
        return _digits(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    except OSError:
        return _host()


def _digits(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
