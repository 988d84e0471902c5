"""Factors of several plans are made on moments that are measured once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_classifier import ir_text, weights
from xdsl.parser import Parser

from heatc.api import Compilation, make_context
from heatc.passes import heat_decompose
from heatc.plan import read_plan
from heatc.targets import Numpy, Options
from heatc.tuning.compress.model import CapturedModel, copy_plan, write_plan
from heatc.weights import WeightStore

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> CapturedModel:
    captured = Compilation(Options(Numpy(), level=0))
    module = Parser(make_context(), ir_text(8)).parse_module()
    captured.adopt(module, WeightStore(weights(seed=0)), "tiny")
    return CapturedModel.of(captured)


def planned(path: Path, rank: int, *layers: str) -> Path:
    heat = {"heat": {"format": "low-rank", "ranks": [rank]}}
    path.write_text(json.dumps({"schema": 2, "layers": dict.fromkeys(layers, heat)}))
    return path


def test_the_moments_of_one_plan_serve_the_others(
    model: CapturedModel, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs: list[int] = []

    class Counted(heat_decompose.Calibration):
        def __init__(self, *arguments: Any):
            runs.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(heat_decompose, "Calibration", Counted)
    first = planned(tmp_path / "a.json", 4, "l0.q", "l0.k", "l1.o")
    # Queries stay dense, so that the layer that names their input is another one.
    second = planned(tmp_path / "b.json", 2, "l0.k", "l1.o")
    made = [model.factorised(plan, tiny / "unlabelled.npz") for plan in (first, second)]
    assert len(runs) == 1
    assert [len(one.weights.added) for one in made] == [9, 6]


def test_a_copied_plan_names_its_own_factors(model: CapturedModel, tiny: Path, tmp_path: Path):
    plan = planned(tmp_path / "a.json", 4, "l0.q")
    made = model.factorised(plan, tiny / "unlabelled.npz")
    own, copy = tmp_path / "own.json", tmp_path / "copy.json"
    write_plan(own, json.loads(plan.read_text()), made.weights, made.weights.added)
    copy_plan(own, copy)
    own.unlink()
    (tmp_path / "own.factors.safetensors").unlink()
    found = read_plan(copy)
    assert found.factors is not None
    assert set(found.factors.open()) == set(made.weights.added)


def test_the_inputs_of_a_model_as_the_option_says_them(model: CapturedModel):
    assert model.inputs == "input_ids=8x12:i64,attention_mask=8x12:i64"
