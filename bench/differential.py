"""
heatc's programs against PyTorch: random models, every case of torch's op_db, einsum equations.

    python bench/differential.py --state run.json     all of it; writes bench/results/differential.json
    python bench/differential.py --only models --programs 200 --keep wrong/
    python bench/differential.py --show 17            one program: its text, inputs and verdicts

Every model is compiled for NumPy and for HDP without pruning, and run on inputs with several
paddings. A wrong program is made as simple as it stays wrong and kept as a script (--keep). A run
that was killed goes on at the same --state, also where the judge was mended since: tasks in which
something was wrong are judged again. How outputs are judged: `differential_compare`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

# One thread a process: two processes then use both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console

from bench.support import report
from bench.support.differential import equations as differential_equations
from bench.support.differential.build import NotExported
from bench.support.differential.inputs import cases
from bench.support.differential.judge import TARGETS, Verdict, judge, normalised
from bench.support.differential.keep import keep
from bench.support.differential.models import generate
from bench.support.differential.program import Program
from bench.support.differential.tally import State, Tally
from bench.support.report import Json, Row

RESULT = report.RESULTS / "differential.json"
CHUNK = 50
"""Programs of one task"""
WORKER_TASKS = 20
"""Tasks of one process"""
_FOLDERS = ("passes/**/*.py", "backends/**/*.py", "dialects/**/*.py")
_SUPPORT = "bench/support/differential"


@dataclass(frozen=True)
class Part:
    """A part of the run: its tasks, and what does one of them."""

    tasks: Callable[[argparse.Namespace], list[str]]
    run: Callable[[str, Path | None], Tally]


# ---- Random models -------------------------------------------------------------------------------


def _model_tasks(options: argparse.Namespace) -> list[str]:
    first, count = options.seed, options.programs
    return [
        f"models {start} {min(start + CHUNK, first + count)}"
        for start in range(first, first + count, CHUNK)
    ]


def judge_models(task: str, folder: Path | None) -> Tally:
    """The programs of a range of seeds."""
    _, start, stop = task.split()
    tally = Tally()
    for seed in range(int(start), int(stop)):
        program = generate(seed)
        verdicts = _verdicts(program)
        tally.add(str(seed), verdicts)
        for verdict in verdicts:
            if verdict.kind == "wrong" and folder is not None:
                keep(folder, program, verdict)
    return tally


def _verdicts(program: Program) -> list[Verdict]:
    try:
        return judge(program)
    except NotExported as error:
        return [Verdict(t, "invalid", normalised(str(error))) for t in TARGETS]


# ---- Ops and equations ---------------------------------------------------------------------------


def _op_tasks(options: argparse.Namespace) -> list[str]:
    from bench.support.differential.ops import names

    return [f"ops {name}" for name in names()]


def judge_ops(task: str, folder: Path | None) -> Tally:
    """All samples of one op of op_db."""
    from bench.support.differential.ops import judge_op

    return judge_op(task.partition(" ")[2])


def _equation_tasks(options: argparse.Namespace) -> list[str]:
    count = len(differential_equations.programs())
    return [f"equations {start} {min(start + CHUNK, count)}" for start in range(0, count, CHUNK)]


def judge_equations(task: str, folder: Path | None) -> Tally:
    """A range of the equations."""
    _, start, stop = task.split()
    tally = Tally()
    for equation, seed in differential_equations.programs()[int(start) : int(stop)]:
        program = differential_equations.program(equation, seed)
        tally.add(f"{equation} {seed}", _verdicts(program))
    return tally


PARTS: dict[str, Part] = {
    "models": Part(_model_tasks, judge_models),
    "ops": Part(_op_tasks, judge_ops),
    "equations": Part(_equation_tasks, judge_equations),
}


# ---- Running -------------------------------------------------------------------------------------


def prepare() -> None:
    """A worker says nothing, since remarks and warnings are no verdicts, and ends with the run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    # Modules and levels are many small objects that live as long as a program: looking for garbage
    # among them after every 700 new ones is a sixth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _timed(task: str, folder: Path | None) -> Tally:
    start = time.perf_counter()
    tally = PARTS[task.split()[0]].run(task, folder)
    tally.seconds = time.perf_counter() - start
    return tally


def run(tasks: Iterable[str], state: State, jobs: int, folder: Path | None) -> None:
    """Do the tasks that the state has not, in `jobs` processes, or in this one if 0."""
    left = [task for task in tasks if task not in state.done]
    if jobs == 0:
        for task in left:
            state.add(task, _timed(task, folder))
        return
    console = Console(stderr=True)
    # Forked from one process that has imported everything: a new worker costs nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__"])
    number = 0
    for first in range(0, len(left), jobs * WORKER_TASKS):
        # New workers now and then, since PyTorch keeps something of every export.
        with ProcessPoolExecutor(jobs, context, prepare) as pool:
            some = left[first : first + jobs * WORKER_TASKS]
            futures: dict[Future[Tally], str] = {pool.submit(_timed, t, folder): t for t in some}
            for future in as_completed(futures):
                tally = future.result()
                number += 1
                state.add(futures[future], tally)
                wrong = sum(tally.count(target, "wrong") for target in TARGETS)
                console.print(
                    f"{number} of {len(left)}: {futures[future]}: {tally.programs} programs, "
                    f"{tally.both} right, {wrong} wrong ({tally.seconds:.0f} s)"
                )


# ---- Results -------------------------------------------------------------------------------------


def rows(found: Mapping[str, Tally]) -> list[Row]:
    """The figures, as far as their parts were run."""
    result: list[Row] = []
    if (models := found.get("models")) is not None:
        what = "random models against PyTorch, both targets"
        result.append(Row(f"{what}", models.programs, "programs", 20_000, ">="))
        for target in TARGETS:
            wrong = models.count(target, "wrong")
            result.append(Row(f"{what}: wrong [{target}]", wrong, "programs", 0, "<="))
        for target in TARGETS:
            share = 100 * models.count(target, "right") / max(models.programs, 1)
            result.append(Row(f"{what}: right [{target}]", share, "%", 80, ">="))
    for part, label in (("ops", "op_db (supported table)"), ("equations", "einsum equations")):
        if (tally := found.get(part)) is not None:
            for target in TARGETS:
                wrong = tally.count(target, "wrong")
                result.append(Row(f"{label}: wrong [{target}]", wrong, "cases", 0, "<="))
    return result


def tables(found: Mapping[str, Tally]) -> dict[str, Json]:
    """Verdicts by reason, with the first programs of each."""
    result: dict[str, Json] = {}
    for part, tally in found.items():
        whole: dict[str, Json] = {
            "programs": tally.programs,
            "right on both targets": tally.both,
            "seconds of all processes": round(tally.seconds),
        }
        result[part] = whole
        for target in TARGETS:
            for kind in ("right", "refused", "wrong", "invalid", "refused when run"):
                reasons: dict[str, Json] = {
                    reason: count for reason, count in tally.reasons(target, kind).items()
                }
                if reasons:
                    result[f"{part}: {kind} [{target}]"] = reasons
    return result


def show(seed: int, forced: Mapping[str, int], simple: bool) -> int:
    """Print a program, its inputs and its verdicts; 1 where one is wrong."""
    program = generate(seed, forced, simple)
    print(program.text)
    for case in cases(program):
        print(f"{case.name}: real {case.real.astype(int).tolist()}")
    try:
        verdicts = judge(program)
    except NotExported as error:
        print(f"PyTorch: {error}")
        return 1
    for verdict in verdicts:
        print(
            verdict.target, verdict.kind, verdict.reason, verdict.detail, *verdict.later, sep="\n  "
        )
    return int(any(verdict.kind == "wrong" for verdict in verdicts))


def sources() -> str:
    """A digest of the compiler and of what makes programs: what verdicts depend on but the judge."""
    digest = hashlib.sha256()
    for pattern in ("heatc/**/*.py", "heatc/**/*.yaml", *_FOLDERS, f"{_SUPPORT}/*.py"):
        for file in sorted(report.ROOT.glob(pattern)):
            if file != report.ROOT / _SUPPORT / "judge.py":
                digest.update(f"{file.relative_to(report.ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


# ---- Command -------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="heatc's programs against PyTorch")
    add = result.add_argument
    add("--only", action="append", choices=list(PARTS), help="one part; writes no results")
    add("--seed", type=int, default=0, help="the first seed of the random models")
    add("--programs", type=int, default=20_000, help="how many random models (20000)")
    add("--jobs", type=int, default=2, help="processes (2), 0 for this one")
    add("--state", type=Path, metavar="FILE", help="where a run is kept that may be killed")
    add("--keep", type=Path, metavar="DIR", help="scripts of wrong programs")
    add("--show", type=int, metavar="SEED", help="print one program and its verdicts")
    add("--choose", type=json.loads, default={}, help='with --show: {"outputs": 1}, by number')
    add("--simple", action="store_true", help="with --show: all other choices at their simplest")
    return result


def main(arguments: Sequence[str]) -> int:
    """Run the parts asked for; 0 if nothing is wrong."""
    options = parser().parse_args(arguments)
    if options.show is not None:
        return show(options.show, options.choose, options.simple)
    names = options.only or list(PARTS)
    tasks = {name: PARTS[name].tasks(options) for name in names}
    key = {"seed": options.seed, "chunk": CHUNK, "sources": sources()}
    state = State(options.state, key)
    try:
        run([task for part in tasks.values() for task in part], state, options.jobs, options.keep)
    except KeyboardInterrupt:
        return 130
    found = {name: state.total(part) for name, part in tasks.items()}
    figures = rows(found)
    report.show(figures)
    if options.only:
        print(json.dumps(tables(found), indent=1))
    else:
        origin = report.provenance(
            " ".join(["python bench/differential.py", *arguments]), options.seed
        )
        report.write(RESULT, figures, tables(found), origin)
    return int(any(tally.count(t, "wrong") for tally in found.values() for t in TARGETS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
