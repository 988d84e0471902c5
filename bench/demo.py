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

from bench.main_job import HIDDEN, cosine, embeddings, pytorch, quiet, run_hdp
from bench.support import programs
from bench.support.data import texts as data
from bench.support.programs import Array, Arrays, NumpyProgram, Run

LENGTH = 32
RHO_B, TAU_H = 0.0, 1.3
PAIRS = ((0, 1), (2, 3), (0, 4))
"""Two paraphrases and a pair that has nothing in common"""


LEGEND = """\
similarity: cosine of two sentence embeddings (mean over real tokens)
error: largest difference from PyTorch in a hidden state of a real token
least cosine: of a sentence embedding with the one of PyTorch
cycles: of the preset hdp-edge; run: on this machine (HDP: the simulator)"""


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
    console.print(LEGEND, highlight=False, markup=False)
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
        results.append(timed("NumPy\nprogram", numpy_runner(path), inputs))
        results[-1].compile_seconds = seconds
        results[-1].megabytes = size(path, path.with_suffix(".safetensors"))
    for name, options in (
        ("HDP\nno pruning", ("--hdp-rule=none",)),
        (f"HDP, paper\nrho_B {RHO_B:g}, tau_H {TAU_H:g}", programs.paper(RHO_B, TAU_H)),
    ):
        with console.status("compiling to HDP and simulating"):
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
    """A column for each way to compute the sentences, so that it fits on 80 characters."""
    shown = Table(title=f"all-MiniLM-L6-v2, {len(mask)} sentences at once")
    shown.add_column("")
    for result in results:
        shown.add_column(result.name, justify="right")
    columns = [figures(result, results[0], mask) for result in results]
    for name in columns[0]:
        shown.add_row(name, *(column[name] for column in columns))
    return shown


def figures(result: Result, reference: Result, mask: Array) -> dict[str, str]:
    """One column of the table."""
    ours, theirs = embeddings(result.hidden, mask), embeddings(reference.hidden, mask)
    error = np.abs(result.hidden - reference.hidden)[mask.astype(bool)].max()
    run, compiling = result.run, result.compile_seconds
    kept = [run.kept(what) if run else None for what in ("blocks", "heads")]
    blocks, heads = ("" if share is None else f"{share:.0f} %" for share in kept)
    return {
        **{f"similarity {a + 1}-{b + 1}": f"{cosine(ours[a], ours[b]):.4f}" for a, b in PAIRS},
        "least cosine": f"{cosine(ours, theirs).min():.5f}",
        "error": "" if result is reference else f"{error:.1e}",
        "blocks kept": blocks,
        "heads kept": heads,
        "cycles (modelled)": f"{run.cycles:,}" if run else "",
        "size": f"{result.megabytes:.1f} MB" if result.megabytes else "",
        "compile": f"{compiling:.1f} s" if compiling else "",
        "run": f"{result.seconds * 1e3:.0f} ms",
    }


if __name__ == "__main__":
    sys.exit(main())
