"""How soon a command says something, and how long it is silent after that."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Pace(NamedTuple):
    """Seconds until the first output, and the longest time without any after it."""

    first: float
    silence: float
    total: float


def pace(module: str, arguments: Sequence[str], folder: Path) -> Pace:
    """
    Run a command as where no terminal is, and note when it writes to stdout or stderr.

    Raises:
        RuntimeError: it did not end with 0.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    times: list[float] = []
    said = b""
    while data := os.read(process.stdout.fileno(), 1 << 16):
        times.append(time.perf_counter() - start)
        said += data
    end = time.perf_counter() - start
    if process.wait() != 0:
        raise RuntimeError(f"{module} ended with {process.returncode}: {said[-2000:].decode()}")
    moments = [*times, end]
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    return Pace(moments[0], max(gaps, default=0.0), end)


def startup(module: str, arguments: Sequence[str], repeats: int = 5) -> float:
    """The least seconds of a command that ends at once."""
    command = [sys.executable, "-m", module, *arguments]

    def once() -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    return min(once() for _ in range(repeats))
