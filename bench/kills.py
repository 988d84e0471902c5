"""
kill -9, SIGTERM and Ctrl-C at random moments of compile, tune and run, and the next run after them.

    python bench/kills.py -o bench/results/hostile.json
    python bench/kills.py --moments 10 --only "hdp-run"

A moment is a time since the start, or the n-th time that the tool touches a file. After the signal,
inputs must be what they were and outputs absent, the old ones, or the new ones; after the next run
of the same command everything must be as if nothing had happened.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from bench.support import parts, report
from bench.support.parts import Part
from bench.support.report import Json, Row
from bench.support.signals import process
from bench.support.signals.process import ROOT
from bench.support.signals.trial import DAMAGED, LEFT, RUDE, STUCK, Bench, Job

SEED = 21
MOMENTS = 200
GOAL = 200

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
"""In turn."""

_DATA = ("--data", "data.npz", "--work-dir", "work", "--quiet")
_HEAT = ("--heat", "low-rank,ratio=0.5,init=plain", "--epochs", "1+1")

_USE = (
    "import numpy, prog; found = prog.main(**numpy.load('in.npz'));"
    "print({name: array.tolist() for name, array in found.items()})"
)

JOBS = (
    Job(
        "compile to HDP",
        ("heatc", "m.pt2", "-o", "prog.hdp", "--dump-phases-to", "phases", "--remarks", "r.jsonl",
         "--hdp-rule", "ours"),
        ("--hdp-rule", "none"),
        ("prog.hdp", "phases", "r.jsonl"),
    ),
    Job(
        "compile to NumPy",
        ("heatc", "-o", "prog.py", "--heat", "low-rank,ratio=0.5,init=plain", "m.pt2"),
        ("m2.pt2",),
        ("prog.py", "prog.safetensors"),
        use=(("python", "-c", _USE), "-"),
    ),
    Job(
        "heatc-tune calibrate",
        ("heatc-tune", "calibrate", "m.pt2", *_DATA, "-o", "plan.json", "--goal", "sparsity>=0.4"),
        ("--goal", "sparsity>=0.2"),
        ("plan.json", "plan.report.json"),
    ),
    Job(
        "heatc-tune search",
        ("heatc-tune", "search", "m.pt2", *_DATA, "-o", "front", "--jobs", "2", "--layers",
         "wide|narrow", "--formats", "low-rank", "--validate", "0", "--samples", "8",
         "--points", "3"),
        ("--points", "2"),
        ("front",),
    ),
    Job(
        "heatc-tune distill",
        ("heatc-tune", "distill", "m.pt2", *_DATA, "-o", "small.json", *_HEAT, "--seed", "0"),
        ("--seed", "1"),
        ("small.json", "small.factors.safetensors", "small.report.json"),
        use=(("heatc", "m.pt2", "--plan", "small.json", "-o", "used.hdp"), "used.hdp"),
    ),
    Job(
        "hdp-run",
        ("hdp-run", "m.hdp", "-o", "out.npz", "--stats", "stats", "--layers", "layers.npz",
         "--save-masks", "masks.npz", "--trace", "t.json", "--quiet", "--inputs", "in.npz"),
        ("--inputs", "other.npz"),
        ("out.npz", "stats", "layers.npz", "masks.npz", "t.json"),
        inputs=("m.hdp", "in.npz", "other.npz"),
    ),
)  # fmt: skip


def make_inputs(folder: Path) -> None:
    """Two models of one layer, data, and a program; torch is imported by another process."""
    folder.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from bench.support.fuzz.models import save_archive;"
        "[save_archive(Path(sys.argv[1]) / f'm{s or str()}.pt2', 16, 32, s) for s in (0, 2)]"
    )
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=ROOT, env=process.environment(folder.parent), check=True)
    write_data(folder)
    target = ("heatc", "m.pt2", "-o", "m.hdp", "--hdp-rule", "ours")
    if process.run(target, folder).code:
        raise RuntimeError("the model does not compile")


def write_data(folder: Path) -> None:
    """Data sets with padding on the right."""
    import numpy as np

    rng = np.random.default_rng(0)
    for name, samples in {"data.npz": 24, "in.npz": 2, "other.npz": 4}.items():
        lengths = rng.integers(4, 17, samples)
        mask = (np.arange(16) < lengths[:, None]).astype(np.int64)
        more = {"labels": rng.integers(0, 2, samples)} if name == "data.npz" else {}
        ids = rng.integers(0, 24, (samples, 16))
        np.savez(folder / name, allow_pickle=False, input_ids=ids, attention_mask=mask, **more)


def measure(
    benches: Sequence[Bench], moments: int, seed: int, workers: int, console: Console
) -> None:
    """All jobs in turn, signal after signal, until SIGKILL and SIGTERM hit often enough."""
    number = 0
    with ThreadPoolExecutor(workers) as pool:
        while _hard_hits(benches) < moments:
            signal_ = SIGNALS[number // len(benches) % len(SIGNALS)]
            trials = [
                pool.submit(bench.trial, seed, number + i, signal_)
                for i, bench in enumerate(benches)
            ]
            for trial in trials:
                trial.result()
            number += len(benches)
            found = [f"{where}: {t.what}" for b in benches for where, t in b.troubles]
            console.print(f"{number} runs, {_hard_hits(benches)} hits, {found or 'no troubles'}")


def _hard_hits(benches: Sequence[Bench]) -> int:
    """Hits of SIGKILL and SIGTERM; Ctrl-C is beside them."""
    return sum(b.hits["SIGKILL"] + b.hits["SIGTERM"] for b in benches)


def part(benches: Sequence[Bench]) -> Part:
    """Rows and tables."""
    what = "kill -9 and SIGTERM at 200 random moments of compile, tune and run"
    hits = _hard_hits(benches)
    cases = {(where, trouble.what) for b in benches for where, trouble in b.troubles}
    counts = Counter(kind for _, kind in cases)
    rows = [Row(what, hits, "moments", GOAL, ">=")]
    rows += [Row(f"{what}: {w}", counts[w], "cases", 0, "<=") for w in (DAMAGED, LEFT, STUCK)]
    rows.append(Row(f"{what}, and Ctrl-C: {RUDE}", counts[RUDE], "cases", 0, "<="))
    jobs: dict[str, Json] = {b.job.name: {**b.hits, "ended before": b.late} for b in benches}
    found: list[Json] = [
        {"where": where, "what": trouble.what, "detail": trouble.detail}
        for b in benches
        for where, trouble in b.troubles
    ]
    return Part(rows, {"kills: moments": jobs, "kills: troubles": found})


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 0 if nothing was damaged, left or stuck."""
    parser = argparse.ArgumentParser(description="signals at random moments")
    parser.add_argument("--moments", type=int, default=MOMENTS, help=f"default {MOMENTS}")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the moments, default {SEED}")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time, default 2")
    parser.add_argument("--only", default="", metavar="TEXT", help="jobs whose name has this text")
    parser.add_argument("--keep", type=Path, help="folder in which to work, and to look afterwards")
    parser.add_argument("-o", "--output", type=Path, help="the result file")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="heatc-kills-") as place:
        folder = options.keep or Path(place)
        shutil.rmtree(folder / "inputs", ignore_errors=True)
        make_inputs(folder / "inputs")
        benches = [
            Bench(job, folder / job.name.replace(" ", "-"), folder / "inputs")
            for job in JOBS
            if options.only in job.name
        ]
        measure(benches, options.moments, options.seed, options.workers, console)
    found = part(benches)
    for bench in benches:
        for where, trouble in bench.troubles:
            console.print(f"{where}: {trouble.what}: {trouble.detail}", markup=False)
    report.show(found.rows)
    if options.output is not None:
        origin = report.provenance(f"python bench/kills.py {' '.join(arguments)}", options.seed)
        parts.merge(options.output, {"kills": found}, ("inputs", "kills"), origin)
    return int(any(bench.troubles for bench in benches))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
