"""Plans of rule `ours`: calibrated on training sentences, written, read, run as compiled."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from bench.support import report
from bench.support.accuracy import calibration
from bench.support.accuracy.runs import LENGTH, SEED, Bench, Set, of_plan, say
from bench.support.data import teacher
from bench.support.data import texts as data
from heatc.plan import SCHEMA
from oracle import rules
from oracle.encoder import Outcome
from oracle.rules import Rule

CALIBRATION = 256
GOALS = {"75": 0.765, "85": 0.87, "90": 0.91}
"""Net sparsity on the calibration sentences, above the goal since other text differs a little"""
INTEGERS = {"75": 2}
"""Layers of a plan whose pruned scores keep their integer part, others than none"""
PLANS = report.RESULTS / "plans"


def plan(
    bench: Bench, sparsity: float, task: teacher.Task = "snippets", integers: int = 0
) -> list[Rule]:
    """
    Calibrated rules for a net sparsity on 256 training sentences.

    In `integers` layers pruned scores keep their integer part.
    """
    found = measured(bench, task)
    if integers == 0:
        return calibration.choose(found, sparsity)
    whole = measured(bench, task, "int")
    return calibration.choose_integers(found, whole, sparsity, integers)


_MEASURED: dict[tuple[Path, str, str], calibration.Measured] = {}


def measured(
    bench: Bench, task: teacher.Task, pruned_score: Literal["mean", "int"] = "mean"
) -> calibration.Measured:
    """What pruning does to the calibration sentences of a task, measured once."""
    key = (bench.model, json.dumps(bench.points), pruned_score)
    if key not in _MEASURED:
        texts = [snippet.text for snippet in teacher.train_set(task)[:CALIBRATION]]
        began = time.monotonic()
        rows = data.token_ids(texts, LENGTH)
        found = calibration.measure(bench.model, bench.points, rows, pruned_score=pruned_score)
        _MEASURED[key] = found
        say(f"measured {CALIBRATION} sentences: {time.monotonic() - began:.0f} s")
    return _MEASURED[key]


def write_plan(path: Path, chosen: Sequence[Rule]) -> None:
    """Writes rules of `ours` as a plan.json."""
    layers = {
        f"bert.encoder.layer.{index}.attention.self": {
            "hdp": {
                "rule": rule.name, "point": rule.finer, "importance": rule.importance,
                "pruned_score": rule.pruned_score, "gated": rule.gated,
                "rho_b": list(by_head(rule.rho_b)), "tau_h": list(by_head(rule.tau_h)),
            }
        }
        for index, rule in enumerate(chosen)
    }  # fmt: skip
    content = {
        "schema": SCHEMA,
        "model_sha256": None,
        "hw_sha256": None,
        "seed": SEED,
        "layers": layers,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_plan(path: Path) -> list[Rule]:
    """The rules of a plan.json, in the order of its layers."""
    layers = json.loads(path.read_text(encoding="utf-8"))["layers"]
    return [
        replace(
            rules.ours(tuple(one["hdp"]["rho_b"]), tuple(one["hdp"]["tau_h"])),
            pruned_score=one["hdp"]["pruned_score"],
        )
        for one in layers.values()
    ]


def values_spared(found: Outcome, chosen: Sequence[Rule]) -> float:
    """The share of blocks whose products with V are spared: `int` spares those of pruned heads."""
    kept = 0.0
    for (blocks, _, net, heads, kept_heads), rule in zip(found.counts.tolist(), chosen):
        kept += blocks * kept_heads / heads if rule.pruned_score == "int" else net
    return 1.0 - kept / float(found.counts[:, 0].sum())


class Compiled(NamedTuple):
    """Rules, and the binary points of the program that they compile to."""

    bench: Bench
    rules: list[Rule]

    def run(self, sentences: Set) -> Outcome:
        """The outcome on a set of sentences."""
        return self.bench.run(self.rules, sentences)


def compiled(recipe: teacher.Recipe, path: Path) -> Compiled:
    """A plan as `heatc --plan` compiles it."""
    return Compiled(Bench(recipe, of_plan(path)), read_plan(path))


def by_head(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """One value for all heads as a tuple too."""
    return value if isinstance(value, tuple) else (value,)


def heads_only(bench: Bench, share: float, task: teacher.Task = "snippets") -> list[Rule]:
    """Calibrated head thresholds, with (almost) no block pruned, for a share of heads."""
    whole = measured(bench, task)
    only = replace(whole, change=whole.change[:, :, :1], kept=whole.kept[:, :, :1])
    # What rho_B = -0.999 prunes anyway is no part of the share of heads.
    anyway = 1 - float(only.kept.mean((0, 1)).sum() / whole.blocks.sum())
    wanted = 1 - (1 - share) * (1 - anyway)
    return calibration.choose(only, wanted, calibration.RATIOS[:1])
