"""The summaries of heatc-tune, and what is said of results that are worse or leave nothing."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from heatc.tools import main, report, run, tune_calibrate, tune_distill, tune_eval
from heatc.tools.reference.summary import SECTIONS
from heatc.tools.summary import (
    calibrated,
    compressed,
    distilled,
    exported,
    searched,
    simulated,
    tokenized,
)
from heatc.tools.summary.output import Summary
from heatc.tuning.calibrate.report import Report
from heatc.tuning.distill.session import Result

GIVEN = argparse.Namespace(
    model="my model",
    inputs="x=1x4:f32",
    data="d.npz",
    output="out.json",
    hw=None,
    target="hdp-server",
    weights=None,
    dev=None,
    tokenizer="my model",
)

COSTS = {"proxy": 0.1, "edp": 6e-9, "seconds": 2e-3, "joules": 3e-6, "cycles": 100}
FIGURES = {**COSTS, "parameters": 7, "macs": 28}
FRONT: dict[str, Any] = {"dense": FIGURES, "points": [{**FIGURES, "file": "00.json"}]}

MEASURED = {"net_sparsity": 0.25, "heads_pruned": 0.5, "goal_loss": 1.5}
COST = {"cycles": 10.0, "joules": 2.0, "edp": 4.0}
CALIBRATION: dict[str, Any] = {
    "samples": {"held back": 12},
    "result": {"held back": {**MEASURED, "changed_predictions": None}},
    "layers": [{**MEASURED, "path": "layer.0", "rho_b": [0.1], "tau_h": [0.0]}],
    "cost": {"plan": COST, "unpruned": {**COST, "cycles": 20.0}},
}

TRAINING: dict[str, Any] = {
    "before": {"dev outputs": 2.0, "dev pruned": 0.1, "other outputs": 1.0},
    "after": {"dev outputs": 1.0, "dev pruned": 0.2, "other outputs": 1.5},
    "samples": {"train": 36},
    "device": "cpu",
    "seconds": 2.0,
    "epochs": [],
    "recipe": {"rates": [1e-3, 1e-4]},
}

SMALLER: dict[str, Any] = {
    **{"hw": "hdp-server", "goals": ["edp>=2x"], "goals_met": False},
    **{"chosen": None, "nearest": "01.json"},
    "dense": {"edp": 6e-9, "accuracy": 90.0},
    "points": [{"file": "01.json", "made_by": "factorised", "edp": 4e-9, "accuracy_drop": 0.5}],
}

TEXTS: Any = SimpleNamespace(
    arrays={"input_ids": np.zeros((3, 8), np.int64), "labels": np.array([0, 1, 1])},
    classes=SimpleNamespace(names=("bad", "good"), labels=np.array([0, 1, 1])),
    cut=1,
)

EXPORTED: Any = SimpleNamespace(
    files=["model.onnx", "modeling.py"],
    layers=2,
    parameters=70,
    differences={"model.onnx (ONNX Runtime)": 2e-6},
    axes={"x": [0, 1]},
)


def summaries() -> list[Summary]:
    return [
        searched.summarize(GIVEN, FRONT, "a table"),
        calibrated.summarize(GIVEN, CALIBRATION, "a table"),
        distilled.summarize(GIVEN, TRAINING),
        compressed.summarize(
            compressed.Compressed(GIVEN, SMALLER, "x=1x4:f32", "verified"), "a table"
        ),
        tokenized.summarize(GIVEN, TEXTS),
        exported.summarize(GIVEN, EXPORTED),
    ]


@pytest.mark.parametrize("number", range(6))
def test_every_key_is_declared(number: int):
    told = json.loads(summaries()[number].json_text())
    named = {section.name: section for section in SECTIONS[told["command"]]}
    assert set(told) == {"producer", "schema", "command", "next", *named}
    for name, section in named.items():
        objects = told[name] if section.is_list else [told[name]]
        assert all(one is None or set(one) == {k.name for k in section.keys} for one in objects)


def test_figures_are_those_of_the_reports():
    front, calibration, training, smaller, texts, folder = (
        json.loads(one.json_text()) for one in summaries()
    )
    assert front["points"][0]["energy_delay_product_joule_seconds"] == 6e-9
    assert front["chosen"] is None
    assert calibration["samples"][0]["pruned_blocks_percent"] == 25.0
    assert calibration["cost"]["unpruned_cycles"] == 20.0
    assert training["losses"][0] == {"name": "dev outputs", "before": 2.0, "after": 1.0}
    assert smaller["chosen"] == {"goals": ["edp>=2x"], "is_met": False, "file": "01.json"}
    assert smaller["points"][0]["energy_delay_product_joule_seconds"] == 4e-9
    assert smaller["points"][0]["accuracy_drop_points"] == 0.5
    assert smaller["dense"]["accuracy_percent"] == 90.0
    assert smaller["program"]["checked"] == "verified"
    assert texts["data"] == {"file": "out.json", "samples_count": 3, "cut_count": 1}
    assert texts["arrays"][0] == {"name": "input_ids", "shape": [3, 8]}
    assert [one["samples_count"] for one in texts["classes"]] == [1, 2]
    assert folder["folder"]["parameters_count"] == 70
    assert folder["differences"] == [{"form": "model.onnx (ONNX Runtime)", "largest": 2e-6}]


def test_next_steps_are_taken_by_their_commands():
    parsers = {
        "heatc": main.make_parser,
        "heatc-tune calibrate": tune_calibrate.make_parser,
        "heatc-tune distill": tune_distill.make_parser,
        "heatc-tune eval": tune_eval.make_parser,
    }
    lines = [one.command for summary in summaries() for one in summary.steps]
    assert len(lines) == 9
    for line in lines:
        words = shlex.split(line)
        split = 2 if words[0] == "heatc-tune" else 1
        found = parsers[" ".join(words[:split])]().parse_args(words[split:])
        if "eval" in words:
            assert found.subjects[-1] == "my model"
            continue
        assert found.model == "my model"
        # A compressed folder's inputs are given, as a folder alone lacks their shapes.
        assert found.inputs == ("x=1x4:f32" if "--inputs" in words else None)


@pytest.mark.parametrize("stats", [None, "st"])
def test_the_next_step_of_a_run(stats: str | None):
    """Statistics first, then the page of them."""
    given = argparse.Namespace(
        program="p.hdp", inputs="d.npz", hw=None, stats=stats, save_masks=None
    )
    made: Any = SimpleNamespace(arguments=given, program=SimpleNamespace(path=Path("p.hdp")))
    (found,) = simulated.next_steps(made)
    tool, *words = shlex.split(found.command)
    make = {"hdp-run": run.make_parser, "heatc-report": report.make_parser}[tool]
    assert make().parse_args(words)
    assert tool == ("hdp-run" if stats is None else "heatc-report")


def test_a_training_that_made_it_worse_is_told():
    """A share of pruned blocks that grows is no loss."""
    assert Result(TRAINING, resumed=False).worse == [("other outputs", 1.0, 1.5)]
    better = {**TRAINING, "after": TRAINING["before"]}
    assert Result(better, resumed=False).worse == []


def test_a_layer_that_is_pruned_to_nothing_is_told():
    heads = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 0, 0]])
    told: Any = SimpleNamespace(
        found=SimpleNamespace(trial=SimpleNamespace(heads=heads)),
        tables=[SimpleNamespace(path="layer.0"), SimpleNamespace(path="layer.1")],
        _columns=lambda index: np.arange(2) + 2 * index,
    )
    (text,) = Report._layers_without_heads(told)
    assert text.startswith("nothing is left of layer.1 on 2 of 3 samples")
