"""What the demo does, one step after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.support.data import texts as data
from bench.support.demo.commands import Command, run_all

MACHINE = "hdp-edge-vector"
SHORT, LONG = 64, 512
"""Tokens of a program: for sentences as they are, and for text that fills the model's positions."""

SCORED, SIMULATED, CALIBRATION = 800, 64, 128
"""Test sentences of NumPy programs and of HDP programs; training sentences that factors are found on."""

LONG_TEXTS = 1
"""Texts of 512 tokens."""

HEAT = "--heat=low-rank,ratio=0.6,joint,statistics=original,layers=encoder.*"
FACTORS = (HEAT, "--calibrate", "train.npz")
PRUNING = ("--hdp-rule=ours", "--rho-b=0.5", "--block=8,8", "--pruned-score=zero")
OPTIONS: dict[str, tuple[str, ...]] = {
    "dense": (),
    "heat": FACTORS,
    "hdp": PRUNING,
    "both": (*FACTORS, *PRUNING),
}
"""How each program is compiled."""


class Made(NamedTuple):
    """What the tables are made of."""

    numpy: dict[str, Any]
    """The evaluation of NumPy programs."""
    short: dict[str, Any]
    """That of HDP programs, on sentences as they are."""
    long: dict[str, Any]
    """That of HDP programs, on text of 512 tokens."""
    report: Path


def run(folder: Path, console: Console) -> Made:
    """All steps; see `MissingError` and `CommandError` for what is raised."""
    with _step(console, "1. a classifier of film reviews: frozen MiniLM, a logistic head"):
        _make_models(folder)
        _make_data(folder)
    names = [f"{name}.hdp" for name in OPTIONS]
    with _step(console, f"2. compile it for {MACHINE} and for NumPy, dense, HEAT, HDP, both"):
        hdp = [_compile("reviews.pt2", f"{n}.hdp", *o) for n, o in OPTIONS.items()]
        numpy = [
            Command("heatc", ["reviews.pt2", "-o", f"{n}.py", *OPTIONS[n]])
            for n in ("dense", "heat")
        ]
        run_all([*hdp, *numpy], folder, console)
    with _step(console, f"3. score labelled test sentences: {SCORED} in NumPy, {SIMULATED} on HDP"):
        few = ("--limit", str(SIMULATED))
        run_all([_eval(["dense.py", "heat.py"], "test.npz", "numpy.json")], folder, console)
        run_all([_eval(names, "test.npz", "eval.json", *few)], folder, console)
    with _step(console, f"4. the same on text of {LONG} tokens, where attention weighs more"):
        long = [_compile("long.pt2", f"long-{n}.hdp", *o) for n, o in OPTIONS.items()]
        run_all(long, folder, console)
        run_all([_eval([f"long-{n}" for n in names], "long.npz", "long.json")], folder, console)
    with _step(console, "5. a page with every layer, mask and figure"):
        run_all([_stats(name) for name in ("long-dense", "long-both")], folder, console)
        words = ["long-dense", "long-both", "eval.json", "-o", "report.html"]
        run_all([Command("heatc-report", words)], folder, console)
    numpy_scores, short, long_ = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("numpy", "eval", "long")
    )
    return Made(numpy_scores, short, long_, folder / "report.html")


@contextmanager
def _step(console: Console, title: str) -> Generator[None]:
    console.print(title, style="bold", soft_wrap=True)
    start = time.perf_counter()
    yield
    console.print(f"  {time.perf_counter() - start:.0f} s", style="dim")


def _make_models(folder: Path) -> None:
    from bench.support.demo import classifier

    model = classifier.model()
    classifier.archive(model, folder / "reviews.pt2", classifier.BATCH, SHORT)
    classifier.archive(model, folder / "long.pt2", 1, LONG)


def _make_data(folder: Path) -> None:
    """Sentences of test and train, and test sentences one after the other until 512 tokens are full."""
    for name, count in (("test", SCORED), ("train", CALIBRATION)):
        snippets = data.labelled("test" if name == "test" else "train")[:count]
        labels = np.array([snippet.label for snippet in snippets])
        texts = [snippet.text for snippet in snippets]
        _save(folder / f"{name}.npz", {**data.encode(texts, SHORT), "labels": labels})
    texts = data.sentences("test", 60 * LONG_TEXTS)
    joined = [" ".join(texts[60 * i : 60 * (i + 1)]) for i in range(LONG_TEXTS)]
    _save(folder / "long.npz", data.encode(joined, LONG))


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _compile(model: str, output: str, *options: str) -> Command:
    return Command("heatc", [model, "--hw", MACHINE, *options, "-o", output])


def _eval(programs: list[str], texts: str, output: str, *options: str) -> Command:
    words = ["eval", *programs, "--data", texts, *options, "-o", output, "--quiet"]
    return Command("heatc-tune", words)


def _stats(name: str) -> Command:
    words = [f"{name}.hdp", "--inputs", "long.npz", "--stats", name, "--keep-masks", "1"]
    return Command("hdp-run", words)
