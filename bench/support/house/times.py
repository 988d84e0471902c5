"""How long two checkouts take for the same, in turns: `heatc`, and `hdp-run --model=timing`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from bench.support import programs
from bench.support.programs import Arrays, CommandError

LENGTH = 128
TARGET = "hdp-edge"
SAMPLES = 2000
"""Samples of the bootstrap."""
SEED = 7

Call: TypeAlias = Callable[[], object]
_TOOL = "import sys; from heatc.tools.{tool} import main; sys.exit(main(sys.argv[1:]))"


class Compared(NamedTuple):
    """Seconds before and after by round; round i of both came one after the other."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median after, over the median before."""
        return statistics.median(self.after) / statistics.median(self.before)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the ratio lies with 95 %, by a bootstrap of the rounds."""
        rng = np.random.default_rng(SEED)
        picks = rng.integers(0, len(self.before), (SAMPLES, len(self.before)))
        before, after = (np.median(np.array(s)[picks], axis=1) for s in (self.before, self.after))
        low, high = np.percentile(after / before, (2.5, 97.5))
        return float(low), float(high)

    def table(self) -> dict[str, Any]:
        """All of it for the result file."""
        return {
            "before, s": list(self.before),
            "after, s": list(self.after),
            "ratio of medians": self.ratio,
            "95 % interval": list(self.interval),
        }


def in_turns(rounds: int, before: Call, after: Call) -> Compared:
    """Times two calls; who comes first alternates, a first round of both warms the caches."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        order = ((0, before), (1, after)) if turn % 2 else ((1, after), (0, before))
        for place, call in order:
            start = time.perf_counter()
            call()
            if turn:
                found[place].append(time.perf_counter() - start)
    return Compared(tuple(found[0]), tuple(found[1]))


def compared(
    roots: Sequence[Path], model: Path, inputs: Arrays, folder: Path, rounds: int
) -> dict[str, Compared]:
    """Compile time, and the time of `hdp-run --model=timing`, of two checkouts on one model."""
    source = folder / "in.npz"
    np.savez(source, **cast(Any, dict(inputs)))
    files = [(folder / f"{name}.hdp", folder / f"{name}.npz") for name in ("before", "after")]
    words = (model, "--inputs", programs.signature(inputs), f"--target={TARGET}", "--no-verify")
    compiles = [
        lambda root=root, program=program: tool(root, "main", *words, "-o", program)
        for root, (program, _) in zip(roots, files)
    ]
    found = {"compile": in_turns(rounds, *compiles)}
    for root, (program, masks) in zip(roots, files):
        tool(root, "run", program, "--inputs", source, "--save-masks", masks, "-q")
    timings = [
        lambda root=root, program=program, masks=masks: tool(
            root, "run", program, "--model=timing", "--masks", masks, "-q"
        )
        for root, (program, masks) in zip(roots, files)
    ]
    return found | {"hdp-run --model=timing": in_turns(rounds, *timings)}


def tool(root: Path, name: str, *arguments: object) -> None:
    """Runs a tool of a checkout in a process of its own, as its command does."""
    command = [sys.executable, "-c", _TOOL.format(tool=name), *map(str, arguments)]
    run = subprocess.run(
        command, check=False, capture_output=True, text=True, env=_environment(root), cwd=root
    )
    if run.returncode:
        raise CommandError(f"{name} of {root} ended with {run.returncode}: {run.stderr}")


def _environment(root: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(root.resolve())}


def bert_base(folder: Path) -> Path:
    """A BERT-Base with random weights."""
    import torch
    import transformers

    cast(Any, torch).manual_seed(SEED)
    cast(Any, transformers.BertModel)(transformers.BertConfig()).save_pretrained(folder)
    return folder
