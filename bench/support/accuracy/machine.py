"""The parts `machine`, `predictions`, `calibration`, `tuned` and `cost` of bench/hdp_accuracy.py."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from bench.support import programs
from bench.support.accuracy.plans import CALIBRATION, GOALS, PLANS, read_plan
from bench.support.accuracy.runs import LENGTH, Bench, Set, judged, of_plan, say, test_set
from bench.support.accuracy.statistics import entry
from bench.support.data import teacher
from bench.support.data import texts as data
from bench.support.machine import hdp_machine
from bench.support.machine import setup as machine_setup
from bench.support.parts import Part
from bench.support.report import Json, Row
from oracle.encoder import Encoder
from oracle.rules import Rule

AGREEMENT = 200
"""Test sentences that are compared bit for bit"""


FORM = "HDP program (bit-exact machine model) against the PyTorch form of the same rule"


def part_machine() -> Part:
    """The compiled programs of the plans against the PyTorch form of the same rules, by the bit."""
    part = Part()
    rows = test_set().rows[:AGREEMENT]
    for name in GOALS:
        path = PLANS / f"snippets-{name}.json"
        bench = Bench(teacher.SENTIMENT, of_plan(path))
        form = Encoder(bench.model, bench.points, read_plan(path))
        with tempfile.TemporaryDirectory(prefix="heatc-bench-") as folder:
            program = _program(bench, path, 8, Path(folder))
            differences = hdp_machine.agreement(program, form, rows, LENGTH)
        for one in filter(None, differences):
            say(f"plan {name} %: {one}")
        what = f"{FORM}: plan {name} %, masks, gates and outputs bit-identical on test sentences"
        part.rows.append(Row(what, differences.count(""), "sentences", len(rows), ">="))
    return part


def _program(bench: Bench, plan: Path, batch: int, folder: Path) -> Path:
    """The teacher compiled with a plan for so many sentences at once."""
    shapes = hdp_machine.padded([[0]] * batch, LENGTH)
    options = ("--target=hdp-edge", f"--plan={plan}")
    return programs.compile_model(bench.model, folder / "plan.hdp", shapes, *options)


def part_predictions(name: str, sentences: Callable[[], Set | None]) -> Part:
    """What the compiled program of a plan says of a whole set, beside its PyTorch form."""
    chosen_set = sentences()
    if chosen_set is None:
        return Part()
    path = PLANS / f"snippets-{name}.json"
    bench, chosen = Bench(teacher.SENTIMENT, of_plan(path)), read_plan(path)
    kept = data.cache_folder().parent / "predictions"
    with tempfile.TemporaryDirectory(prefix="heatc-bench-") as folder:
        program = _program(bench, path, 16, Path(folder))
        logits, seconds = hdp_machine.predict(program, chosen_set.rows, LENGTH, kept)
    say(f"program of plan {name} % on {chosen_set.name}: {seconds:.0f} s")
    expected = bench.run(chosen, chosen_set)
    found = replace(expected, logits=torch.from_numpy(logits))
    dense = Bench(teacher.SENTIMENT).run(Rule(), chosen_set)
    equal = float((logits.argmax(-1) == expected.logits.argmax(-1).numpy()).mean())
    what = f"{FORM}: plan {name} %, same predictions on {chosen_set.name}"
    line = entry(f"program of plan {name} %", found, dense, chosen_set) | {
        "sentences": len(logits),
        "of them with the form's logits": int((logits == expected.logits.numpy()).all(-1).sum()),
    }
    return Part(
        [Row(what, equal, f"share of {len(logits):,}", 1.0, ">=")],
        {f"compiled program, plan {name} %, {chosen_set.name}": [line]},
    )


TUNED, TUNED_GOAL = PLANS / "snippets-tuned-85.json", "sparsity>=0.85"


def part_calibration() -> Part:
    """`heatc-tune calibrate` from nothing: its time."""
    with tempfile.TemporaryDirectory(prefix="heatc-bench-") as folder:
        took = tuned_plan(Path(folder) / "plan.json")
    what = f"calibration time, MiniLM, {CALIBRATION} sentences, 2 cores: heatc-tune calibrate"
    spent: dict[str, Json] = {
        "goal": TUNED_GOAL,
        "wall time, s": round(took.seconds, 1),
        "CPU time, s": round(took.cpu_seconds, 1),
        "cores": os.cpu_count() or 1,
        "load average before": round(took.load_before, 2),
        "load average after": round(took.load_after, 2),
    }
    row = Row(f"{what}, {TUNED_GOAL}", took.seconds / 60, "min", 5.0, "<=")
    return Part([row], {"calibration time": [spent]})


def tuned_plan(path: Path, work: Path | None = None) -> hdp_machine.Calibration:
    """Writes the plan of `heatc-tune calibrate` on the calibration sentences."""
    model = teacher.teacher(teacher.SENTIMENT)
    texts = [snippet.text for snippet in teacher.train_set("snippets")[:CALIBRATION]]
    rows = data.token_ids(texts, LENGTH)
    return hdp_machine.calibrate(model, rows, LENGTH, TUNED_GOAL, path, work)


def part_tuned() -> Part:
    """The plan of `heatc-tune calibrate` beside the bench's own, on the judged sets."""
    with tempfile.TemporaryDirectory(prefix="heatc-bench-") as folder:
        path = Path(folder) / "plan.json"
        tuned_plan(path, data.cache_folder().parent / "calibrate")
        TUNED.write_bytes(path.read_bytes())
    dense = Bench(teacher.SENTIMENT)
    own = PLANS / "snippets-85.json"
    plans = {
        "bench's plan 85 %": (own, read_plan(own)),
        f"heatc-tune calibrate, {TUNED_GOAL}": (TUNED, hdp_machine.rules_of(TUNED, dense.layers)),
    }
    forms = {name: Bench(teacher.SENTIMENT, of_plan(path)) for name, (path, _) in plans.items()}
    part, entries = Part(), list[Json]()
    goal = float(TUNED_GOAL.rpartition("=")[2])
    for sentences in judged():
        for name, (path, chosen) in plans.items():
            found = forms[name].run(chosen, sentences)
            entries.append(entry(name, found, dense.run(Rule(), sentences), sentences))
            if path == TUNED:
                what = f"heatc-tune calibrate, {TUNED_GOAL}: net sparsity on {sentences.name}"
                part.rows.append(Row(what, found.net_sparsity, "share", goal, ">="))
    part.tables["calibration"] = entries
    return part


def part_cost() -> Part:
    """Cycles, DRAM bytes and energy at the 85 % plan's sparsity, beside dense programs."""
    path = PLANS / "snippets-85.json"
    bench = Bench(teacher.SENTIMENT, of_plan(path))
    found = bench.run(read_plan(path), test_set())
    net, heads, blocks = found.net_sparsity, found.head_sparsity, found.block_sparsity
    with tempfile.TemporaryDirectory(prefix="heatc-bench-") as folder:
        workshop = hdp_machine.Workshop(machine_setup.Bench(machine_setup.FULL, Path(folder)))
        tables = hdp_machine.at_512(workshop, net, heads)
        tables |= hdp_machine.pays(workshop, blocks)
        tables |= hdp_machine.buys(workshop, bench.model, path, net, heads)
    return Part(tables=tables)
