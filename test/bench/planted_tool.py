"""A tool that does what its first argument says: what the judge of hostile inputs must catch."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HOG = 1 << 30


def _hang() -> int:
    while True:
        pass


def _sleep() -> int:
    time.sleep(3600)
    return 0


def _hog() -> int:
    zeros = bytearray(HOG)
    zeros[::4096] = b"x" * len(zeros[::4096])
    time.sleep(1)
    return 0


def _brief_hog() -> int:
    return 0 * len(bytearray(HOG).replace(b"\0", b"x"))


def _raise() -> int:
    raise LookupError("planted 17")


def _print_traceback() -> int:
    print('Traceback (most recent call last):\n  File "x.py", line 1, in f\nKeyError: 1')
    print(
        'Traceback (most recent call last):\n  File "x.py", line 1, in f\nKeyError: 1',
        file=sys.stderr,
    )
    return 1


def _crash() -> int:
    ctypes.string_at(0)
    return 0


def _overwrite() -> int:
    Path("input").write_bytes(b"other")
    return 0


def _leave() -> int:
    Path(".heatc-1-0.tmp").write_bytes(b"")
    return _refuse()


def _refuse() -> int:
    print("input: error: no", file=sys.stderr)
    return 1


DEEDS: dict[str, Callable[[], int]] = {
    "good": lambda: 0,
    "refuse": _refuse,
    "raise": _raise,
    "print traceback": _print_traceback,
    "exit 70": lambda: 70,
    "exit 9": lambda: 9,
    "silent": lambda: 1,
    "hang": _hang,
    "sleep": _sleep,
    "hog": _hog,
    "brief hog": _brief_hog,
    "crash": _crash,
    "overwrite": _overwrite,
    "leave": _leave,
    "accept": lambda: 0,
    "old": _refuse,
}


def main(argv: Sequence[str]) -> int:
    """Entry point, as that of a tool."""
    return DEEDS[argv[0]]()
