"""Places in tracebacks: which line of the project an exception, a hang or a crash belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]

_FRAME = re.compile(r'File "(.+?)", line (\d+),? in (\S+)')
_PARTS = ("heatc", "passes", "backends", "dialects")


class Frame(NamedTuple):
    """One line of a traceback."""

    file: str
    line: int
    function: str

    @property
    def module(self) -> str:
        """`heatc/readers/npz.py` of the project's files, `numpy/lib/npyio.py` of others."""
        path = Path(self.file)
        if path.is_relative_to(ROOT):
            return path.relative_to(ROOT).as_posix()
        _, found, tail = self.file.rpartition("/site-packages/")
        return tail if found else "/".join(path.parts[-2:])

    @property
    def ours(self) -> bool:
        """Whether the file is the compiler's own."""
        return self.module.split("/")[0] in _PARTS

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}"


def frames(text: str) -> list[Frame]:
    """
    The frames of a text, innermost last.

    Python's tracebacks begin with the outermost frame, those of faulthandler with the innermost.
    """
    found = [Frame(file, int(line), name) for file, line, name in _FRAME.findall(text)]
    return found[::-1] if "most recent call first" in text else found


def last_traceback(text: str) -> tuple[list[Frame], str]:
    """
    The frames of the last traceback in a text, the one that ended the tool, and its exception.

    A tool prints its own message below a traceback; the exception is the first line after the
    frames.
    """
    _, _, text = text.rpartition("Traceback (most recent call last):\n")
    lines = text.split("\n")
    end = next((i for i, line in enumerate(lines) if line and line[0] not in " \t"), len(lines))
    return frames("\n".join(lines[:end])), "".join(lines[end : end + 1])


def place(found: Sequence[Frame]) -> str:
    """
    The innermost frame of the project, and the innermost one of all where that is another.

    Without line numbers, so that it stays the same fault when lines move.
    """
    ours = [f for f in found if f.ours]
    ends = dict.fromkeys(f"{f.module}:{f.function}" for f in (*ours[-1:], *found[-1:]))
    return " > ".join(ends) or "unknown"


def line_of(found: Sequence[Frame]) -> str:
    """The innermost frame of the project with its line."""
    return str(next((f for f in reversed(found) if f.ours), found[-1] if found else "unknown"))
