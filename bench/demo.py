"""
The demo: a real model, real sentences, four ways to compute them, one table.

    python bench/demo.py        (or: make demo)

all-MiniLM-L6-v2 is compiled to a NumPy program and to HDP programs without and with pruning.
The same sentences go through PyTorch and through each program.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import data, programs
from bench.main_job import HIDDEN, cosine, embeddings, pytorch, quiet, run_hdp
from bench.programs import Array, Arrays, NumpyProgram, Run

LENGTH = 32
RHO_B, TAU_H = 0.0, 1.3
PAIRS = ((0, 1), (2, 3), (0, 4))
"""Two paraphrases and a pair that has nothing in common"""


@dataclass
class Result:
    """What one way of computing the sentences gave."""

    name: str
    hidden: Array
    """float32 (B, S, d)"""
    seconds: float
    compile_seconds: float | None = None
    megabytes: float | None = None
    run: Run | None = None


def main() -> int:
    """Compiles, runs, prints; 1 if something is missing."""
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="heatc-demo-") as folder:
            results, inputs = compute(Path(folder), console)
    except (data.MissingError, programs.CommandError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for number, text in enumerate(data.EXAMPLES, 1):
        console.print(f"  {number}. {text}", highlight=False)
    console.print(table(results, inputs["attention_mask"]))
    console.print(
        "cosine: of mean-pooled sentence embeddings; error: largest difference from PyTorch on a "
        "real token;\n[modelled]: counted by the simulator of hdp-edge, for all sentences; "
        "run: this machine's time (for HDP, the simulator's).",
        highlight=False,
        markup=False,
    )
    return 0


def compute(folder: Path, console: Console) -> tuple[list[Result], Arrays]:
    """Runs the example sentences in PyTorch, NumPy and HDP."""
    model = data.model_folder()
    inputs = data.encode(data.EXAMPLES, LENGTH)
    with console.status("PyTorch"):
        results = [timed("PyTorch", pytorch(model), inputs)]
    with console.status("compiling to NumPy"):
        start = time.perf_counter()
        path = compiled(model, folder / "minilm.py", inputs)
        seconds = time.perf_counter() - start
        results.append(timed("NumPy program", numpy_runner(path), inputs))
        results[-1].compile_seconds = seconds
        results[-1].megabytes = size(path, path.with_suffix(".safetensors"))
    for name, options in (
        ("HDP, no pruning", ("--hdp-rule=none",)),
        (f"HDP, paper, rho_B {RHO_B:g}, tau_H {TAU_H:g}", programs.paper(RHO_B, TAU_H)),
    ):
        with console.status(f"compiling to {name}"):
            results.append(hdp(name, model, folder / f"{len(results)}.hdp", inputs, options))
    return results, inputs


def numpy_runner(path: Path) -> Callable[[Arrays], Array]:
    """The compiled NumPy program as a function of its inputs."""
    program = NumpyProgram(path)
    return lambda inputs: program(inputs)[HIDDEN]


def compiled(model: Path, path: Path, inputs: Arrays, *options: str) -> Path:
    """`heatc MODEL -o PATH`."""
    with quiet():
        return programs.compile_model(model, path, inputs, *options)


def timed(name: str, run: Callable[[Arrays], Array], inputs: Arrays) -> Result:
    """Runs once to warm up and once for the clock."""
    run(inputs)
    start = time.perf_counter()
    hidden = run(inputs)
    return Result(name, hidden, time.perf_counter() - start)


def hdp(name: str, model: Path, path: Path, inputs: Arrays, options: tuple[str, ...]) -> Result:
    """Compiles for HDP and simulates the sentences."""
    start = time.perf_counter()
    compiled(model, path, inputs, *options)
    middle = time.perf_counter()
    run = run_hdp(path, inputs)
    end = time.perf_counter()
    return Result(name, run.outputs[HIDDEN], end - middle, middle - start, size(path), run)


def size(*paths: Path) -> float:
    """The size of some files together in MB."""
    return sum(path.stat().st_size for path in paths) / 1e6


def table(results: list[Result], mask: Array) -> Table:
    """One row for each way to compute the sentences."""
    shown = Table(title="all-MiniLM-L6-v2, six sentences")
    shown.add_column("program")
    for a, b in PAIRS:
        shown.add_column(f"cosine\n{a + 1} and {b + 1}", justify="right")
    for heading in ("cosine\nto PyTorch", "error", "blocks\nkept", "heads\nkept"):
        shown.add_column(heading, justify="right")
    for heading in ("cycles\n(modelled)", "size", "compile", "run"):
        shown.add_column(heading, justify="right")
    for result in results:
        shown.add_row(*cells(result, results[0], mask))
    return shown


def cells(result: Result, reference: Result, mask: Array) -> list[str]:
    """One row of the table."""
    ours, theirs = embeddings(result.hidden, mask), embeddings(reference.hidden, mask)
    error = np.abs(result.hidden - reference.hidden)[mask.astype(bool)].max()
    kept = [result.run.kept(what) if result.run else None for what in ("blocks", "heads")]
    return [
        result.name,
        *(f"{cosine(ours[a], ours[b]):.4f}" for a, b in PAIRS),
        f"{cosine(ours, theirs).min():.5f}",
        f"{error:.1e}" if result is not reference else "",
        *("" if share is None else f"{share:.0f} %" for share in kept),
        f"{result.run.cycles:,}" if result.run else "",
        f"{result.megabytes:.1f} MB" if result.megabytes else "",
        f"{result.compile_seconds:.1f} s" if result.compile_seconds else "",
        f"{result.seconds * 1e3:.0f} ms",
    ]


if __name__ == "__main__":
    sys.exit(main())
