"""
Hostile inputs: mutated files and command lines at every entry point, and what must not happen.

    python bench/hostile.py --cases 1000000 --state build/hostile.state.json --keep build/faults
    python bench/hostile.py --seconds 60 --only "hdp-run"
    python bench/hostile.py --case "hdp-run: container:17"

Stopped runs go on with the same --state. A run of a tool is judged by `bench.support.fuzz.judge`: no
traceback, no exit 70, nothing over the limits of time and memory, nothing accepted that a reference
reader refuses. A case is known by its kind and its number; the same seed gives the same input
anywhere.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from bench.support import parts, report
from bench.support.fuzz import faults, judge
from bench.support.fuzz.corpus import ROOT, Corpus
from bench.support.fuzz.kinds import KINDS
from bench.support.fuzz.pool import Pool
from bench.support.fuzz.state import State, StateError, read
from bench.support.fuzz.worker import Setting
from bench.support.parts import Part
from bench.support.report import Json, Row

SEED = 20
LIMIT = 10.0
BOUND = 2 << 30
GOAL = 1_000_000

WRITE_EVERY = 5.0
"""Seconds between two states that are written."""


@dataclass
class Progress:
    """Writes the state now and then, and says how far it is."""

    pool: Pool
    path: Path | None
    console: Console
    began: float
    last: float = 0.0

    def __call__(self) -> None:
        """To be called often."""
        now = time.monotonic()
        if now - self.last < WRITE_EVERY:
            return
        self.last = now
        self.write()
        state, seconds = self.pool.state, now - self.began
        self.console.print(
            f"{seconds:7.0f} s  {state.done:9,} cases  {len(state.faults):4} kinds of fault  "
            f"{self.pool.restarts} restarts"
        )

    def write(self) -> None:
        """The state as it stands."""
        if self.path is not None:
            self.pool.state.write(self.path, self.pool.open_spans())


def goals(total: int, only: str = "", least: int = 0) -> dict[str, int]:
    """Cases by kind for `total` in all, `least` of each, of the kinds whose name has `only`."""
    chosen = {name: kind.count for name, kind in KINDS.items() if only in name}
    whole = sum(chosen.values())
    return {name: max(least, 1, round(total * n / whole)) for name, n in chosen.items()}


def rows(state: State) -> list[Row]:
    """The figures of the issue."""
    what = "mutated inputs over all entry points"
    counts = {name: 0 for name in _FIGURES}
    for seen in state.faults.values():
        for name, kinds_ in _FIGURES.items():
            counts[name] += seen.count if seen.fault.what in kinds_ else 0
    return [
        Row(what, state.done, "inputs", GOAL, ">="),
        *(Row(f"{what}: {name}", count, "inputs", 0, "<=") for name, count in counts.items()),
    ]


_FIGURES = {
    "tracebacks": (judge.TRACEBACK, judge.CRASH),
    "exit 70": (judge.INTERNAL,),
    "over 10 s": (judge.HANG,),
    "over the memory bound": (judge.MEMORY,),
    "accepted that a reference reader refuses": (judge.LENIENT,),
    "anything else (unknown exit code, no message, leftovers, inputs changed, old versions)": (
        judge.CODE,
        judge.SILENT,
        judge.LEFT,
        judge.CHANGED,
        judge.VERSION,
    ),
}


def tables(state: State) -> dict[str, Json]:
    """Counts by entry point and kind, and the faults."""
    kinds_: dict[str, Json] = {}
    for name, tally in state.tallies.items():
        codes: dict[str, Json] = {k: n for k, n in sorted(tally.codes.items())}
        mean = 1e3 * tally.cpu / tally.done if tally.done else 0.0
        kinds_[name] = {
            "inputs": tally.done,
            "by exit code": codes,
            "mean CPU, ms": round(mean, 2),
            "slowest, s": round(tally.slowest, 2),
        }
    entries: dict[str, Json] = {}
    for name, tally in state.tallies.items():
        entry = KINDS[name].entry
        entries[entry] = int(str(entries.get(entry, 0))) + tally.done
    found: list[Json] = [
        {**seen.fault.to_json(), "count": seen.count, "case": list(seen.cases[0])}
        for seen in state.faults.values()
    ]
    return {
        "inputs: entry points": entries,
        "inputs: kinds": kinds_,
        "inputs: faults": found,
        "inputs: corpus": str(state.key.get("corpus", "")),
    }


def show(state: State, console: Console) -> None:
    """Prints counts by kind, and the faults, most frequent first."""
    table = Table("kind", "inputs", "exit codes", "CPU ms")
    for name, tally in state.tallies.items():
        if tally.done:
            codes = ", ".join(f"{k}: {n}" for k, n in sorted(tally.codes.items()))
            table.add_row(name, str(tally.done), codes, f"{1e3 * tally.cpu / tally.done:.1f}")
    console.print(table)
    for seen in sorted(state.faults.values(), key=lambda s: -s.count):
        console.print(f"{seen.count:7}  {seen.fault.signature}", markup=False, soft_wrap=True)
        kind, index = seen.cases[0]
        console.print(f"         {kind}:{index}  {seen.fault.line}", markup=False, soft_wrap=True)
        console.print(f"         {seen.fault.message[:160]!r}", markup=False, soft_wrap=True)


def made_corpus(folder: Path, *old: str) -> Corpus:
    """
    The corpus in a folder, built there if there is none; another process imports torch.

    `old` are the commits whose programs it has, without them all that are known.
    """
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, "-m", "bench.support.fuzz.corpus", str(part.resolve()), *old]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        part.rename(folder)
    return Corpus(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="hostile inputs at every entry point")
    add = parser.add_argument
    add("--seed", type=int, default=SEED, help=f"of the inputs, default {SEED}")
    add("--cases", type=int, default=GOAL, help=f"inputs of all kinds, default {GOAL}")
    add("--seconds", type=float, help="stop after so many, go on with the same --state")
    add("--least", type=int, default=0, help="inputs of each kind at least")
    add("--only", default="", metavar="TEXT", help="kinds whose name has this text")
    add("--processes", type=int, default=2, help="default 2")
    add("--limit", type=float, default=LIMIT, help=f"seconds of a case, default {LIMIT:g}")
    add("--corpus", type=Path, help="folder of the corpus, built if it is not there")
    add("--state", type=Path, help="file of what was done, so that a run can go on")
    add("--keep", type=Path, help="folder for the faults, each with its input")
    add("--case", help='one case again: "KIND:NUMBER"')
    add("--list", action="store_true", help="the kinds")
    add("-o", "--output", type=Path, help="the result file")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 0 if nothing happened that must not."""
    options = _parser().parse_args(arguments)
    if options.list:
        for name, count in goals(options.cases, options.only).items():
            print(f"{count:8}  {name}")
        return 0
    with tempfile.TemporaryDirectory(prefix="heatc-hostile-", dir=_fast_folder()) as place:
        corpus = made_corpus(options.corpus or Path(place) / "corpus")
        setting = Setting(
            Path(place) / "workers", corpus.folder, options.seed, options.limit, BOUND, torch=False
        )
        if options.case is not None:
            return faults.again(options.case, setting, corpus)
        return _run(options, setting, corpus, " ".join(arguments))


def _run(options: argparse.Namespace, setting: Setting, corpus: Corpus, command: str) -> int:
    console = Console(stderr=True)
    key = {"seed": options.seed, "commit": report.commit(), "corpus": corpus.digest}
    try:
        state = State(key) if options.state is None else read(options.state, key)
    except StateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    wanted = goals(options.cases, options.only, options.least)
    keeper = faults.Keeper(options.keep, setting, corpus)
    began = time.monotonic()
    deadline = began + options.seconds if options.seconds else float("inf")
    pool = Pool(wanted, state, setting, options.processes, keeper, deadline)
    progress = Progress(pool, options.state, console, began)
    pool.every = progress
    try:
        pool.run()
    except KeyboardInterrupt:
        console.print("interrupted")
    progress.write()
    show(state, console)
    found = rows(state)
    report.show(found)
    if options.output is not None:
        origin = report.provenance(f"python bench/hostile.py {command}", options.seed)
        result = {"inputs": Part(found, tables(state))}
        parts.merge(options.output, result, ("inputs", "kills"), origin)
    return int(bool(state.faults))


def _fast_folder() -> str | None:
    """Where files cost no disk; the system's own folder where there is no such place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
