"""Commands of the demo: shown as a user would type them, run as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

ROOT = Path(__file__).resolve().parents[3]

MODULES = {
    "heatc": "heatc.tools.main",
    "heatc-tune": "heatc.tools.tune",
    "heatc-report": "heatc.tools.report",
    "hdp-run": "heatc.tools.run",
}


class CommandError(Exception):
    """A command that ended with another exit code than 0; has what it said."""


class Command(NamedTuple):
    """A command's name and its arguments, paths as seen from the demo's folder."""

    tool: str
    arguments: Sequence[str]

    def __str__(self) -> str:
        return " ".join([self.tool, *map(_quoted, self.arguments)])


def _quoted(word: str) -> str:
    return f"'{word}'" if set(word) & set("*|<> ") else word


def run_all(commands: Sequence[Command], folder: Path, console: Console) -> None:
    """
    Run commands in a folder, as many at once as there are cores.

    Raises:
        CommandError: one of them failed.
    """
    for command in commands:
        console.print(f"  $ {command}", style="dim", markup=False, soft_wrap=True)
    cores = os.cpu_count() or 1
    at_once = min(cores, len(commands))
    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(_run, c, folder, max(1, cores // at_once)) for c in commands]:
            done.result()


def _run(command: Command, folder: Path, threads: int) -> None:
    words = [sys.executable, "-m", MODULES[command.tool], *command.arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    environment["OPENBLAS_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip()[-2000:]
        raise CommandError(f"`{command}` ended with {done.returncode}:\n{said}")
