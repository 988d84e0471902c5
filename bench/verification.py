"""
The check after compiling: what it costs, and what it finds.

    python bench/verification.py                  all rows; writes bench/results/verification.json
    python bench/verification.py --only faults    one part; writes nothing
    python bench/verification.py --quick          few faults, one repeat; writes nothing

`heatc` compiles all-MiniLM-L6-v2 and a folder of BERT-Base's shape as its command does. Faults are
those of `bench/support/miscompilations.py`, one at a time, on the real model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from bench import main_job
from bench.support import parts, programs, report
from bench.support.data import texts as data
from bench.support.miscompilations import MISCOMPILATIONS, Miscompilation
from bench.support.parts import Part
from bench.support.report import Json, Row
from heatc.tools.main import main as heatc

SHAPES = "input_ids=1x128:i64,attention_mask=1x128:i64"
SUFFIXES = {"numpy": "py", "hdp": "hdp"}
SEED = 0
"""Of BERT-Base's random weights; the check's own inputs have theirs."""

_STEP = re.compile(r"^ *([\d.]+) ms  (.+)$", re.MULTILINE)
_LINE = re.compile(r": remark: (verified: .*)")
_LAYER = re.compile(r"the first layer that differs is (\S+)")


@dataclass(frozen=True)
class Sizes:
    """How much of each part is run."""

    repeats: int = 5
    faults: int = len(MISCOMPILATIONS)


FULL = Sizes()
QUICK = Sizes(repeats=1, faults=3)


# ---- what it costs -----------------------------------------------------------------------------


def cost_part(sizes: Sizes, folder: Path) -> Part:
    """Seconds of the check in those that the same command takes without it."""
    base = folder / "bert-base"
    main_job.bert_base(base)
    rows: list[Row] = []
    entries: list[Json] = []
    for name, model in (("MiniLM", data.model_folder(verify=True)), ("BERT-Base folder", base)):
        for target, suffix in SUFFIXES.items():
            arguments = [model, "-o", folder / f"program.{suffix}", "--inputs", SHAPES, "--timing"]
            runs = [
                main_job.watched(folder, "heatc.tools.main", *arguments)
                for _ in range(sizes.repeats + 1)
            ][1:]
            shares = [share(run.errors, run.seconds) for run in runs]
            entries.append(
                {
                    "model": name,
                    "target": target,
                    "share of the command, %": sorted(shares),
                    "share of the steps alone, %": sorted(share(run.errors) for run in runs),
                    "line": _LINE.search(runs[0].errors)[1],  # pyright: ignore[reportOptionalSubscript]
                    "whole command, s": sorted(run.seconds for run in runs),
                }
            )
            what = f"verification by default, {name}, 1x128, {target}: share of the compile time"
            rows.append(Row(what, statistics.median(shares), "%", 20, "<="))
    return Part(rows, {"cost: runs": entries})


def share(errors: str, seconds: float | None = None) -> float:
    """
    The check's seconds in percent of those of everything else, from what --timing printed.

    `seconds` are those of the whole command: its imports and its start are then part of the rest.
    """
    steps = {name: float(milliseconds) / 1000 for milliseconds, name in _STEP.findall(errors)}
    check = steps.pop("verify")
    rest = sum(steps.values()) if seconds is None else seconds - check
    return 100 * check / rest


# ---- what it finds -----------------------------------------------------------------------------


def fault_part(sizes: Sizes, folder: Path) -> Part:
    """Exit code 3 and the layer, for each fault and each target that it concerns."""
    found = 0
    entries: list[Json] = []
    named, nameable = 0, 0
    chosen = MISCOMPILATIONS[: sizes.faults]
    for fault in chosen:
        results = [tried(fault, target, folder) for target in fault.targets]
        found += all(result["exit code"] == 3 for result in results)
        if fault.layer:
            nameable += len(results)
            named += sum(str(r["layer"]).endswith(fault.layer) for r in results)
        entries += results
    many = f"{len(chosen)} seeded miscompilations, MiniLM, 1x128"
    rows = [
        Row(f"finds each of {many}: exit code 3", found, "faults", len(chosen), ">="),
        Row(f"{many}: the layer that is wrong is named", named, "programs", nameable, ">="),
    ]
    return Part(rows, {"faults: found": entries})


def tried(fault: Miscompilation, target: str, folder: Path) -> dict[str, Json]:
    """What the command says while one step of the compiler is broken."""
    output = folder / f"broken.{SUFFIXES[target]}"
    arguments = [str(data.model_folder()), "-o", str(output), "--inputs", SHAPES]
    errors = io.StringIO()
    with fault.inject(), contextlib.redirect_stderr(errors):
        code = heatc(arguments)
    text = errors.getvalue()
    layer = _LAYER.search(text)
    message = next((x for x in text.splitlines() if "error: " in x), "")
    return {
        "fault": fault.name,
        "step": fault.step,
        "target": target,
        "exit code": code,
        "layer": layer[1].rstrip(",") if layer else "",
        "expected layer": fault.layer,
        "message": message.partition("error: ")[2],
        "written": output.exists(),
    }


# ---- the command -------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Sizes, Path], Part]] = {"cost": cost_part, "faults": fault_part}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; 0 if every goal is reached."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="cost and worth of the check after compiling")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="one part alone")
    parser.add_argument("--quick", action="store_true", help="few faults, one repeat")
    parser.add_argument("-o", "--output", type=Path, help="default for a whole run only")
    options = parser.parse_args(words)
    whole = not options.only and not options.quick
    output = options.output or (report.RESULTS / "verification.json" if whole else None)
    sizes = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="heatc-verification-") as name:
        folder = Path(name)
        chosen = {part: PARTS[part] for part in options.only or PARTS}
        try:
            found = parts.run({k: lambda run=run: run(sizes, folder) for k, run in chosen.items()})
        except (data.MissingError, programs.CommandError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    rows = [row for part in found.values() for row in part.rows]
    report.show(rows, Console())
    if output is not None:
        tables = {name: table for part in found.values() for name, table in part.tables.items()}
        command = " ".join(["python bench/verification.py", *words])
        report.write(output, rows, tables, report.provenance(command, SEED))
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
