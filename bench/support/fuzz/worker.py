"""A process that runs cases: one after the other, each under a time limit."""

from __future__ import annotations

import faulthandler
import functools
import importlib
import importlib.metadata
import os
import resource
import shutil
import sys
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.support.fuzz import entry
from bench.support.fuzz.case import KINDS, Case, Kind
from bench.support.fuzz.corpus import Corpus
from bench.support.fuzz.judge import INTERNAL_ERROR, MEMORY, Fault, Run, judge

SPACE = 16 << 30
"""Bytes of address space beyond what a worker has: more is out of memory on any machine."""

LARGEST_FILE = 2 << 30

IMPORTS = (
    "heatc.tools.main",
    "heatc.tools.opt",
    "heatc.tools.run",
    "heatc.tools.tune",
    "heatc.backends.numpy.emit",
    "heatc.tuning.calibrate.session",
    "heatc.tuning.search.session",
)
TORCH = (
    "torch.export",
    "transformers.models.bert.modeling_bert",
    "heatc.capture.exported",
    "heatc.tuning.distill.session",
)
"""What tools import late: imported first, it counts as neither time nor memory of a case."""


@dataclass(frozen=True)
class Setting:
    """
    What a worker is told at its start.

    Attributes:
        folder: its own, below which cases run.
        corpus: the folder of the corpus.
        seed: of the cases.
        limit: seconds of a case.
        bound: bytes of resident memory that a case may take.
        torch: whether it is to import torch.
        kinds: the module that registers the kinds.
        imports: what is imported before the first case.
    """

    folder: Path
    corpus: Path
    seed: int
    limit: float
    bound: int
    torch: bool
    kinds: str = "bench.support.fuzz.kinds"
    imports: tuple[str, ...] = IMPORTS

    @property
    def dump(self) -> Path:
        """Where the stack of a case over its limit is left."""
        return self.folder / "stack.txt"


def serve(setting: Setting, pipe: Connection) -> None:
    """
    Runs what comes through the pipe: (kind, start, stop).

    Answers ("ready", resident bytes) once, then ("case", index, exit code, (seconds, seconds of this
    process), faults) for each, and ("done",); or ("failed", traceback) where it is itself at fault.
    Who waits longer for an answer than a case may take sends SIGABRT: then the process ends, and its
    stack is in `setting.dump`.
    """
    try:
        _serve(setting, pipe)
    # A fault of the harness itself, which has no other way out: this process is silent.
    except Exception:
        pipe.send(("failed", traceback.format_exc()))


def _serve(setting: Setting, pipe: Connection) -> None:
    worker = _Worker(setting)
    pipe.send(("ready", resident()))
    while True:
        message = pipe.recv()
        if message is None:
            return
        name, start, stop = message
        for index in range(start, stop):
            run, faults = worker.run(KINDS[name], index)
            times = run.seconds, run.cpu
            pipe.send(("case", index, run.code, times, [f.to_json() for f in faults]))
        pipe.send(("done",))


def resident() -> int:
    """Bytes of memory that this process holds."""
    return resident_of(os.getpid())


def resident_of(pid: int) -> int:
    """Bytes of memory that a process holds, 0 where there is none such."""
    try:
        with open(f"/proc/{pid}/statm") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _peak() -> int:
    """The most bytes that this program held; `ru_maxrss` would count its parent before `exec`."""
    with open("/proc/self/status") as stream:
        line = next(line for line in stream if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


class _Worker:
    def __init__(self, setting: Setting):
        self.setting = setting
        _import(setting)
        shutil.rmtree(setting.folder, ignore_errors=True)
        self.case = setting.folder / "case"
        self.case.mkdir(parents=True)
        # A copy: a tool that writes where it must not does no harm to others.
        shutil.copytree(setting.corpus, setting.folder / "base")
        self.corpus = Corpus(setting.corpus)
        os.environ["XDG_CACHE_HOME"] = str(setting.folder / "cache")
        self.dump: Any = setting.dump.open("w")
        faulthandler.enable(self.dump)
        _silence()
        _bound_space()
        _read_entry_points_once()

    def run(self, kind: Kind, index: int) -> tuple[Run, list[Fault]]:
        """How a case ended and what is wrong with that."""
        case = kind.case(self.setting.seed, index, self.corpus)
        self._write(case)
        before = resident()
        run = self._timed(kind, case)
        if run.code == INTERNAL_ERROR:
            again = self._timed(kind, case, debug=True)
            run = replace(run, trace=again.trace or run.stderr)
        faults = judge(case, run)
        more = _peak() - before
        if more > self.setting.bound:
            faults.append(Fault(MEMORY, "seen at the end", "", f"{more >> 20} MiB"))
        self._clear()
        return run, faults

    def _timed(self, kind: Kind, case: Case, *, debug: bool = False) -> Run:
        return entry.run(kind.entry, case, self.case, debug=debug)

    def _write(self, case: Case) -> None:
        for name, content in case.files.items():
            path = self.case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _clear(self) -> None:
        for path in self.case.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _import(setting: Setting) -> None:
    for module in (setting.kinds, *setting.imports, *(TORCH if setting.torch else ())):
        importlib.import_module(module)


def _silence() -> None:
    """What is written past Python's streams, such as torch's own log, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _read_entry_points_once() -> None:
    """What is installed does not change; xDSL asks for it three times in each run of heatc-opt."""
    importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)


def _bound_space() -> None:
    with open("/proc/self/statm") as stream:
        size = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + SPACE, size + SPACE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
