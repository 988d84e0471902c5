"""
A job that writes its files well, or in one of the ways that a signal makes trouble of.

    planted_job.py WAY WORD

`good` goes on where it was interrupted and ends with `out.json` and `out.bin`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS = 5


def _torn(path: Path, text: str) -> None:
    """Byte by byte into the file itself."""
    with path.open("w") as stream:
        for character in text:
            stream.write(character)
            stream.flush()
            time.sleep(0.002)


def _whole(path: Path, text: str, *, clean: bool = True) -> None:
    part = path.with_name(f".heatc-{'x' if clean else os.getpid()}-{path.name}.tmp")
    try:
        part.write_text(text)
        time.sleep(0.01)
        part.replace(path)
    finally:
        if clean:
            part.unlink(missing_ok=True)


def main(way: str, word: str) -> None:
    """Some steps, then two files."""
    write = _torn if way == "torn" else _whole
    for step in range(STEPS):
        checkpoint = Path("work") / f"{step}.done"
        checkpoint.parent.mkdir(exist_ok=True)
        if not checkpoint.exists():
            time.sleep(0.02)
            _whole(checkpoint, word)
    if way == "greedy":
        Path("in.npz").write_bytes(b"gone")
    if way == "stuck" and Path("lock").exists():
        sys.exit("error: locked")
    if way == "stuck":
        Path("lock").touch()
    text = json.dumps({"word": word * 20, "seconds": time.time()})
    if way == "littering":
        _whole(Path("out.json"), text, clean=False)
    else:
        write(Path("out.json"), text)
    write(Path("out.bin"), word * 50)
    if way == "stuck":
        Path("lock").unlink()


def _interrupted() -> None:
    print("planted: error: interrupted", file=sys.stderr)
    sys.exit(130)


if __name__ == "__main__":
    if sys.argv[1] == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Path("work").mkdir(exist_ok=True)
        time.sleep(1.5)
    elif sys.argv[1] != "rude":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        try:
            main(*sys.argv[1:])
        except KeyboardInterrupt:
            if sys.argv[1] == "rude":
                raise
            _interrupted()
