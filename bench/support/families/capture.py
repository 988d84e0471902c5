"""What capture of a BERT-Base costs, beside an older checkout: seconds and memory, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.support import report
from bench.support.families import judge
from bench.support.families.entry import Entry
from bench.support.house.times import Compared, bert_base
from bench.support.parts import Part
from bench.support.report import Row

ROUNDS = 7
SLOWER = 1.05
"""What the noise of this many rounds may add, as bench/house.py has it"""
LENGTH = 128
_SCRIPT = """
import json, sys, time
import torch, transformers.models.bert.modeling_bert
from heatc.capture import capture_path, parse_inputs
def peak(): return next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if "VmHWM" in l)
before, start = peak(), time.perf_counter()
capture_path(sys.argv[1], parse_inputs(sys.argv[2]) if sys.argv[2] else None)
print(json.dumps([time.perf_counter() - start, peak() - before]))
"""


def capture_part(before: Path, rounds: int = ROUNDS) -> Part:
    """Ratios of now to before, for an archive and a folder."""
    part = Part()
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="heatc-families-") as name:
        base = bert_base(Path(name) / "bert-base")
        for route, model, inputs in models(base, Path(name)):
            runs = in_turns((before, report.ROOT), model, inputs, rounds)
            for index, what in enumerate(("time", "memory")):
                pair = Compared(*(tuple(run[index] for run in side) for side in runs))
                text = f"capture of a BERT-Base {route}, {what}: no worse than before, paired"
                part.rows.append(Row(text, pair.ratio, "x before", SLOWER, "<="))
                lines.append(_line(route, what, pair))
    part.tables["capture: BERT-Base"] = lines
    return part


def models(base: Path, folder: Path) -> list[tuple[str, Path, str]]:
    """The archive and the folder of a BERT-Base, with what `--inputs` says."""
    import transformers

    model: Any = transformers.BertModel.from_pretrained(base).eval()
    inputs = {n: _tokens() for n in ("input_ids", "attention_mask", "token_type_ids")}
    entry = Entry("BERT-Base", "base", lambda implementation: model, inputs)
    archive = judge.save_archive(entry, model, folder / "model.pt2")
    words = ",".join(f"{name}={spec}" for name, spec in judge.specs(inputs).items())
    return [("archive", archive, ""), ("folder", base, words)]


def _tokens() -> Any:
    import numpy as np

    return np.ones((1, LENGTH), np.int64)


def in_turns(
    roots: Sequence[Path], model: Path, inputs: str, rounds: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds and MiB of captures by two checkouts; who comes first alternates."""
    found: tuple[list[list[float]], list[list[float]]] = ([], [])
    for turn in range(rounds + 1):
        for place in (0, 1) if turn % 2 else (1, 0):
            run = measured(roots[place], model, inputs)
            if turn:
                found[place].append(run)
    return found


def measured(root: Path, model: Path, inputs: str) -> list[float]:
    """Seconds of one capture, and MiB above the imports, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(root.resolve())}
    command = [sys.executable, "-c", _SCRIPT, str(model), inputs]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=root
    )
    return json.loads(run.stdout.splitlines()[-1])


def _line(route: str, what: str, pair: Compared) -> dict[str, Any]:
    before, after = (statistics.median(side) for side in pair)
    low, high = pair.interval
    return {
        "model": f"BERT-Base {route}",
        "what": f"{what}, {'s' if what == 'time' else 'MiB'}",
        "before": round(before, 3),
        "now": round(after, 3),
        "ratio": round(pair.ratio, 3),
        "95 % interval": f"{low:.3f} to {high:.3f}",
    }
