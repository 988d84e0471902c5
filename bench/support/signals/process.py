"""One process, and a signal that ends it at some moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LAUNCH = Path(__file__).with_name("launch.py")

GRACE = 20.0
"""Seconds in which a signal that can be handled must end a tool."""


@dataclass
class Ended:
    """How a process ended: its code, stderr, seconds, touches of files, and whether it was hit."""

    code: int
    stderr: str
    seconds: float
    touches: int
    hit: bool


def environment(folder: Path) -> dict[str, str]:
    """Of a process in a folder: caches of its own, one thread so that sums have one order."""
    caches = {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **caches, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(
    command: Sequence[str],
    folder: Path,
    *,
    number: int = signal.SIGKILL,
    touches: int = 0,
    after: float | None = None,
) -> Ended:
    """Runs a command; the signal comes at a touch of a file, or `after` seconds, or never."""
    note = folder.with_name(f"{folder.name}.note")
    note.unlink(missing_ok=True)
    launched = [sys.executable, str(LAUNCH), str(touches), str(int(number)), str(note), *command]
    errors = folder.with_name(f"{folder.name}.err")
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            launched,
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
    while not note.exists() and process.poll() is None:
        time.sleep(0.002)
    start = time.monotonic()
    hit = _wait(process, number, after)
    seconds = time.monotonic() - start
    survivors = _end_group(process.pid)
    text = errors.read_text(errors="replace")
    count = int(note.read_text() or 0) if note.exists() else 0
    hit = hit or (touches > 0 and count >= touches)
    if survivors:
        text += f"\n{survivors} processes survived"
    return Ended(process.returncode, text, seconds, count, hit)


def _wait(process: subprocess.Popen[bytes], number: int, after: float | None) -> bool:
    """Waits for the end, sends the signal on the way; whether it was sent in time."""
    hit = False
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        hit = True
        process.send_signal(number)
    try:
        process.wait(GRACE if hit else 600)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return hit


def _end_group(pid: int) -> int:
    """Ends what stays of a process's session, and says how many processes these were."""
    for _ in range(20):
        if not _members(pid):
            return 0
        time.sleep(GRACE / 20)
    found = _members(pid)
    for path in found:
        os.kill(int(path.name), signal.SIGKILL)
    return len(found)


def _members(session: int) -> list[Path]:
    return [p for p in Path("/proc").iterdir() if p.name.isdigit() and _session(p) == session]


def _session(process: Path) -> int:
    try:
        state, _, _, session = process.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else int(session)
