"""Two files that appear together or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from heatc.errors import HeatcError

_serial = itertools.count()


def write_both(
    program: Path,
    text: bytes,
    weights: Path,
    write_weights: Callable[[IO[bytes]], None],
    check: Callable[[Path, Path], None] | None = None,
) -> None:
    """
    Write a program and its weights; on any failure the folder is as it was before.

    `check` sees both files, complete but under other names, before they are moved into place, and
    raises where they shall not be. Raises `HeatcError` where a file cannot be written.
    """
    temporary: list[Path] = []
    try:
        for target in (program, weights):
            _check(target)
            temporary.append(_beside(target))
        with open(temporary[0], "xb") as stream:
            stream.write(text)
        with open(temporary[1], "xb") as stream:
            write_weights(stream)
        if check is not None:
            check(temporary[0], temporary[1])
        _replace_both(temporary, [program, weights])
    except OSError as error:
        place = next((t for t in (weights, program) if str(t) == error.filename), program)
        reason = error.strerror or str(error)
        raise HeatcError(
            f"cannot write: {reason[:1].lower()}{reason[1:]}", place=str(place)
        ) from error
    finally:
        for path in temporary:
            with contextlib.suppress(OSError):
                path.unlink()


def _check(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(None, "it is a folder", str(target))
    if not target.parent.is_dir():
        raise NotADirectoryError(None, f"there is no folder {str(target.parent)!r}", str(target))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(None, "permission denied", str(target))


def _beside(target: Path) -> Path:
    return target.parent / f".heatc-{os.getpid()}-{next(_serial)}.tmp"


def _replace_both(temporary: list[Path], targets: list[Path]) -> None:
    """Move two files into place; what the first replaced comes back if the second fails."""
    backup = _beside(targets[1])
    had_weights = targets[1].exists()
    if had_weights:
        os.replace(targets[1], backup)
    try:
        os.replace(temporary[1], targets[1])
        os.replace(temporary[0], targets[0])
    except OSError:
        with contextlib.suppress(OSError):
            targets[1].unlink()
        if had_weights:
            os.replace(backup, targets[1])
        raise
    if had_weights:
        with contextlib.suppress(OSError):
            backup.unlink()
