"""
Runs a tool in this process and, if wanted, sends it a signal when it touches its files.

    python launch.py TOUCHES SIGNAL NOTE TOOL ARGUMENTS...

`SIGNAL` is sent before this process opens a file for writing, renames, removes or makes one below
the current folder for the TOUCHES-th time, with TOUCHES 0 never. The number of touches so far is
kept in the file NOTE, which is written before the tool starts: it then is ready for signals.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


class Watch:
    """Counts touches of files below a folder."""

    def __init__(self, touches: int, signal: int, note: int):
        self.folder = os.getcwd()
        self.touches, self.signal, self.note = touches, signal, note
        self.count = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event == "open" and not self._writes(*arguments):
            return
        if event != "open" and event not in _CHANGES:
            return
        if not self._below(arguments[0]):
            return
        self.count += 1
        os.pwrite(self.note, b"%8d" % self.count, 0)
        if self.count == self.touches:
            os.kill(os.getpid(), self.signal)

    def _writes(self, _path: object, mode: str | None, flags: int) -> bool:
        return bool(flags & _WRITING) if mode is None else bool(set(mode) & set("wxa+"))

    def _below(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder + os.sep)


def main(arguments: list[str]) -> None:
    """Runs the script of the tool, as a shell would."""
    touches, signal, note, tool, *rest = arguments
    stream = os.open(note, os.O_RDWR | os.O_CREAT)
    os.pwrite(stream, b"%8d" % 0, 0)
    sys.addaudithook(Watch(int(touches), int(signal), stream))
    script = Path(sys.executable).parent / tool
    sys.argv = [str(script), *rest]
    # Python puts the script's folder first, not this one's.
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
