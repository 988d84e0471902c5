"""
Accuracy of pruned attention on real labelled text: `python bench/hdp_accuracy.py`.

The dense teacher is MiniLM fine-tuned on movie-review snippets (bench/support/data/teacher.py). Every figure
comes from the bit-exact fixed-point form of the whole model (oracle/encoder.py, oracle/rules.py) at
the binary points that heatc chose; without retraining. Sparsity counts blocks of real tokens,
pooled over sentences, layers and heads; all blocks of a pruned head count as pruned. Accuracy
differences are paired, with a 95 % interval. Thresholds are calibrated on 256 training sentences
without their labels.

    python bench/hdp_accuracy.py [--parts plans,headline,heads,...]

Parts `machine`, `predictions`, `calibration`, `tuned` and `cost` use bench/support/machine/hdp_machine.py: whether
compiled programs compute what was measured, how long `heatc-tune` takes and how good its plan is, and
what a plan costs in modelled cycles, bytes and joules.

Writes bench/results/hdp_accuracy.json (parts that are not run keep what they had), the plans in
bench/results/plans/ that `heatc --plan` compiles, and docs/hdp_accuracy.md. What was run once is
kept in the user's cache folder, keyed by model, text, rule and the sources of the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from bench.support import report
from bench.support.accuracy import machine as machine
from bench.support.accuracy import page as accuracy_page
from bench.support.accuracy.curves import (
    part_approximation,
    part_combined,
    part_curves,
    part_head_curves,
)
from bench.support.accuracy.dynamic import part_dynamic
from bench.support.accuracy.points import part_headline, part_heads, part_plans, part_second
from bench.support.accuracy.runs import SEED, review_set, test_set
from bench.support.parts import Part
from bench.support.report import Json, Row

NAME = "hdp_accuracy"

PARTS: dict[str, Callable[[], Part]] = {
    "plans": part_plans,
    "headline": part_headline,
    "heads": part_heads,
    "second": part_second,
    "curves": part_curves,
    "head_curves": part_head_curves,
    "dynamic": part_dynamic,
    "approximation": part_approximation,
    "combined": part_combined,
    "machine": machine.part_machine,
    "predictions": partial(machine.part_predictions, "85", test_set),
    "predictions_out_of_domain": partial(machine.part_predictions, "85", review_set),
    "calibration": machine.part_calibration,
    "tuned": machine.part_tuned,
    "cost": machine.part_cost,
}


def main(arguments: Sequence[str]) -> int:
    """Runs the parts, in order, and writes results and page after each."""
    parser = argparse.ArgumentParser(description="Accuracy of pruned attention on real text.")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--page", action="store_true", help="only write docs/ from the results")
    options = parser.parse_args(arguments)
    names = options.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}")
    path = report.RESULTS / f"{NAME}.json"
    if not options.page:
        torch.manual_seed(SEED)
        for name in [name for name in PARTS if name in names]:
            with torch.no_grad():
                merge(path, name, PARTS[name]())
    accuracy_page.write(path)
    report.show([_row(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["rows"]])
    return 0


def merge(path: Path, name: str, part: Part) -> None:
    """Puts a part's rows and tables into the result file, in the place of its old ones."""
    content: dict[str, Any] = {"rows": [], "tables": {}, "provenance": {}}
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
    rows: dict[str, list[Row]] = {key: [] for key in PARTS}
    for old in content["rows"]:
        rows.setdefault(old["part"], []).append(_row(old))
    rows[name] = part.rows
    tables = content["tables"] | part.tables
    origin = report.provenance(f"python bench/{NAME}.py --parts {name}", SEED)
    origins: Mapping[str, Json] = content["provenance"] | {name: origin}
    entries = [row.entry() | {"part": key} for key, found in rows.items() for row in found]
    content = {"rows": entries, "tables": tables, "provenance": origins}
    report.RESULTS.mkdir(parents=True, exist_ok=True)
    waiting = path.with_suffix(".part")
    waiting.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    waiting.replace(path)


def _row(one: Mapping[str, Any]) -> Row:
    return Row(one["what"], one["measured"], one["unit"], one["goal"], one["sense"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
