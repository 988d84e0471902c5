"""`heatc-tune compress`: goals met and not, gone on with, without labels, within its time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_classifier import LENGTH, VOCABULARY, ir_text, weights
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.plan import hardware_sha256, read_plan
from heatc.tools import run as hdp_run
from heatc.tools import tune
from heatc.tuning.common.goal import Goal
from heatc.tuning.compress import budget, points, pruning, session, training
from heatc.tuning.compress.figures import FIGURES
from heatc.tuning.compress.pruning import Probe
from heatc.tuning.compress.run import Run
from heatc.tuning.distill import train
from heatc.tuning.distill.train import Training
from heatc.tuning.search import front as fronts
from heatc.weights import WeightStore

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = """\
base: hdp-edge-vector
name: small
cores: 1
pe_array: {rows: 2, columns: 2}
dram: {bandwidth: 0.05 GB/s}
"""
"""On it layers of 16 x 16 gain from ranks."""

SAMPLES = 96
STEP = 0.2
"""Seconds that a step of training is taken for."""


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """An evolution of fewer generations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fronts, "EPOCHS", 2)
        patch.setattr(fronts, "GENERATIONS", 5)
        patch.setattr(fronts, "POPULATION", 40)
        yield


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data.npz` with labels that the model has mostly right, `unlabelled.npz`, and a machine."""
    folder = tmp_path_factory.mktemp("compress")
    (folder / "small.yaml").write_text(MACHINE)
    rng = np.random.default_rng(1)
    mask = (np.arange(LENGTH) < rng.integers(3, LENGTH + 1, SAMPLES)[:, None]).astype(np.int64)
    inputs = {
        "input_ids": rng.integers(0, VOCABULARY, mask.shape) * mask,
        "attention_mask": mask,
    }
    module, store = Parser(make_context(), ir_text(8)).parse_module(), WeightStore(weights(seed=0))
    parts = [
        execute(module, {n: a[i : i + 8] for n, a in inputs.items()}, store)["logits"]
        for i in range(0, SAMPLES, 8)
    ]
    right = rng.random(SAMPLES) < 0.9
    labels = np.where(right, np.concatenate(parts).argmax(1), rng.integers(0, 2, SAMPLES))
    np.savez(folder / "data.npz", allow_pickle=False, **inputs, labels=labels)
    np.savez(folder / "unlabelled.npz", allow_pickle=False, **inputs)
    return folder


def arguments(tiny: Path, place: Path, output: Path, *goals: str, **changes: str) -> list[str]:
    options = {
        "--data": str(place / "data.npz"),
        "--weights": str(tiny / "weights.safetensors"),
        "--hw": str(place / "small.yaml"),
        "--work-dir": str(place / "work"),
        "--layers": "l*",
        "--points": "3",
        "--jobs": "1",
        "--minutes": "2",
        "-o": str(output),
    }
    options |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    words = [x for option in options.items() if option[1] for x in option]
    words += [x for goal in goals for x in ("--goal", goal)]
    return ["compress", str(tiny / "model.mlir"), *words]


def train_briefly(patch: pytest.MonkeyPatch) -> None:
    """Trainings of few steps, whatever the computer: a step is taken for `STEP` seconds long."""
    patch.setattr(Training, "step_seconds", lambda self: STEP)
    patch.setattr(train, "time", SimpleNamespace(monotonic=lambda: 0.0))
    patch.setattr(budget, "SLACK", 0.1)
    patch.setattr(training, "LEAST_TRAINING", 0.0)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    train_briefly(monkeypatch)


@pytest.fixture(scope="module")
def met(tiny: Path, place: Path) -> Path:
    """The folder of a run whose goal holds."""
    output = place / "met"
    with pytest.MonkeyPatch.context() as patch:
        train_briefly(patch)
        assert tune.main(arguments(tiny, place, output, "accuracy-drop<=45")) == 0
    return output


def front_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "front.json").read_text())


def chosen_of(data: dict[str, Any]) -> dict[str, Any]:
    return next(p for p in data["points"] if p["file"] == (data["chosen"] or data["nearest"]))


# ---- a goal that holds -------------------------------------------------------------------------


def test_the_front_says_what_every_plan_loses_and_takes(met: Path, place: Path):
    data = front_of(met)
    assert data["goals_met"]
    assert data["nearest"] is None
    assert data["samples"] == {"train": 72, "dev": 24}
    gains = [point["edp_times_less"] for point in data["points"]]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 1
    for point in data["points"]:
        assert point["accuracy_drop_low"] <= point["accuracy_drop"] <= point["accuracy_drop_high"]
        assert point["edp_times_less"] == pytest.approx(data["dense"]["edp"] / point["edp"])
        assert point["macs"] < data["dense"]["macs"]
        assert point["weight_bytes"] < data["dense"]["weight_bytes"]
    for figure in FIGURES:
        assert data["figures"][figure.name]["unit"] == figure.unit
        assert data["figures"][figure.name]["source"] in data["sources"]
    assert all(figure.name in data["dense"] for figure in FIGURES)
    machine = load_hardware(place / "small.yaml")
    assert (data["hw"], data["hw_sha256"]) == ("small", hardware_sha256(machine))


def test_the_chosen_plan_gains_most_of_those_that_hold(met: Path):
    data = front_of(met)
    holding = [p for p in data["points"] if p["accuracy_drop"] <= 45]
    assert chosen_of(data)["edp_times_less"] == max(p["edp_times_less"] for p in holding)
    own, plan = read_plan(met / data["chosen"]), read_plan(met / "plan.json")
    assert plan.layers == own.layers
    assert plan.factors is not None
    assert own.factors is not None
    assert plan.factors.path != own.factors.path
    assert plan.factors.path.read_bytes() == own.factors.path.read_bytes()


def test_every_plan_brings_its_factors_and_names_its_machine(met: Path, place: Path):
    for point in front_of(met)["points"]:
        plan = read_plan(met / point["file"])
        assert plan.factors is not None
        assert set(load_file(plan.factors.path)) >= {f"{path}.0" for path in plan.heat}
        assert plan.hw == "small"
        assert plan.hw_sha256 == hardware_sha256(load_hardware(place / "small.yaml"))


def test_the_program_of_the_chosen_plan_runs(met: Path, place: Path):
    words = [str(met / "prog.hdp"), "--inputs", str(place / "unlabelled.npz")]
    assert hdp_run.main([*words, "-o", str(place / "out.npz")]) == 0
    with np.load(place / "out.npz") as found:
        assert found["logits"].shape == (SAMPLES, 2)


def test_the_table_and_what_to_type_next(
    met: Path, tiny: Path, place: Path, capsys: pytest.CaptureFixture[str]
):
    """The same command again has nothing left to do."""
    assert tune.main(arguments(tiny, place, met, "accuracy-drop<=45")) == 0
    printed, told = capsys.readouterr()
    data = front_of(met)
    lines = printed.splitlines()
    assert "lost, points" in lines[0]
    assert "edp, nJ s" in lines[0]
    assert lines[1].startswith("dense")
    assert any(line.startswith(data["chosen"]) and " *" in line for line in lines)
    assert "modelled for small" in printed
    assert f"* {met / data['chosen']} holds accuracy-drop<=45" in printed
    assert f"--plan {met / '02.json'}" in printed or len(data["points"]) < 2
    assert "remark: goal accuracy-drop<=45" in told
    assert "going on with the results of an earlier run" in told


# ---- goals that do not hold --------------------------------------------------------------------


def test_goals_out_of_reach_are_exit_code_4_and_everything_is_written(
    met: Path,
    tiny: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def no_search(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(points.searching, "search", no_search)
    output = place / "far"
    words = arguments(tiny, place, output, "accuracy-drop<=45", "edp>=1000x")
    assert tune.main(words) == 4
    printed, told = capsys.readouterr()
    data = front_of(output)
    assert not data["goals_met"]
    assert data["chosen"] is None
    assert "no plan reaches accuracy-drop<=45 and edp>=1000x" in told
    nearest = chosen_of(data)
    assert f"the nearest plan is {output / data['nearest']}: it loses" in told
    assert f"{nearest['accuracy_drop']:.2f} points" in told
    assert f"~ {output / data['nearest']} comes nearest" in printed
    assert read_plan(output / "plan.json").layers == read_plan(output / data["nearest"]).layers
    assert (output / "prog.hdp").exists()


def test_plans_of_an_earlier_run_are_not_left(met: Path, tiny: Path, place: Path):
    output = place / "fewer"
    assert tune.main(arguments(tiny, place, output, "accuracy-drop<=45", points="3")) == 0
    before = {point["file"] for point in front_of(output)["points"]}
    assert len(before) > 1
    words = arguments(tiny, place, output, "accuracy-drop<=45", points="1", minutes="1.5")
    assert tune.main([*words, "--quiet"]) in (0, 4)
    left = {p.name for p in output.glob("[0-9][0-9].json")}
    assert left - {"01.json"} <= {"02.json", "03.json"}
    assert "01.json" in left


# ---- interrupted -------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_interrupted(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    output = place / "interrupted"
    words = arguments(tiny, place, output, "accuracy-drop<=45", work_dir=str(place / "again"))
    step, taken = Training._step, list[int]()

    def interrupted(self: Training, batch: Any) -> None:
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(1)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", interrupted)
        assert tune.main(words) == 130
    assert not output.exists()
    (folder,) = (p for p in (place / "again").iterdir() if (p / "results").is_dir())
    decided = next(folder.glob("run-*/training-0.json")).read_text()

    def no_search(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(points.searching, "search", no_search)
    assert tune.main(words) == 0
    assert next(folder.glob("run-*/training-0.json")).read_text() == decided
    assert front_of(output)["goals_met"]


# ---- without labels ----------------------------------------------------------------------------


def test_without_labels_changed_predictions_count(
    tiny: Path, place: Path, capsys: pytest.CaptureFixture[str]
):
    output = place / "unlabelled"
    words = arguments(tiny, place, output, "edp>=1.01x", data=str(place / "unlabelled.npz"))
    assert tune.main(words) == 0
    data = front_of(output)
    assert data["judged_by"]["basis"] == "changed predictions"
    assert data["dense"]["accuracy"] is None
    for point in data["points"]:
        assert point["accuracy_drop"] == pytest.approx(point["changed"])
        assert point["accuracy"] is None
    # What is not bounded is optimised.
    enough = [p for p in data["points"] if p["edp_times_less"] >= 1.01]
    assert chosen_of(data)["accuracy_drop"] == min(p["accuracy_drop"] for p in enough)
    assert "predictions that changed (no labels)" in capsys.readouterr().out


# ---- its time ----------------------------------------------------------------------------------


def test_steps_are_cut_to_the_time(met: Path, place: Path):
    data = front_of(met)
    steps = [point["steps"] for point in data["points"] if point["steps"] is not None]
    assert sum(steps) <= 2 * 60 / STEP
    folders = [p for p in (place / "work").iterdir() if (p / "results").is_dir()]
    decisions = [
        json.loads(file.read_text()) for f in folders for file in f.glob("run-*/training-*.json")
    ]
    assert decisions
    trained = [json.loads(p.read_text()) for f in folders for p in f.glob("results/trained-*.json")]
    assert any(one["steps"] > 0 for one in trained)
    longest = max(decision["seconds"] for decision in decisions)
    assert 0.5 * longest / STEP < max(one["steps"] for one in trained) <= longest / STEP


def test_no_time_left_still_gives_plans(
    tiny: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "LEAST_TRAINING", 3.0)
    output = place / "brief"
    words = arguments(tiny, place, output, "accuracy-drop<=0,edp>=1.01x", minutes="0.001")
    assert tune.main(words) in (0, 4)
    assert "no time is left to train factors" in capsys.readouterr().err
    assert front_of(output)["points"]
    assert not any(point["is_trained"] for point in front_of(output)["points"])


# ---- what does not pay -------------------------------------------------------------------------


def test_pruning_that_costs_more_is_left_out_and_said(met: Path):
    data = front_of(met)
    assert not any(point["is_pruned"] for point in data["points"])
    assert any("attention is not pruned" in remark for remark in data["remarks"])


def test_training_that_brings_nothing_keeps_the_first_factors(
    met: Path, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "RATE", 0.0)
    monkeypatch.setattr(training, "NEAR_RATE", 0.0)
    output = place / "kept"
    words = arguments(tiny, place, output, "edp>=1.02x", minutes="1.9")
    assert tune.main(words) in (0, 4)
    data = front_of(output)
    assert any("keeps its first factors" in remark for remark in data["remarks"])
    assert not any(point["is_trained"] for point in data["points"])


def test_pruning_that_pays_is_a_point_more(
    met: Path, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
):
    """Deciding costs too much on any machine for so small a model: costs are made up here."""
    monkeypatch.setattr(session, "probe", lambda *_: Probe(2.0, 0.1))
    monkeypatch.setattr(pruning, "_goal", lambda *_: Goal("sparsity", 0.2))
    cost = Run.cost

    def cheaper(self: Run, plan: Path) -> dict[str, float]:
        found = cost(self, plan)
        if read_plan(plan).rules:
            found = {
                **found,
                "edp": found["edp"] / 9,
                "edp_times_less": 9 * found["edp_times_less"],
            }
        return found

    monkeypatch.setattr(Run, "cost", cheaper)
    output = place / "pruned"
    words = arguments(tiny, place, output, "accuracy-drop<=60", work_dir=str(place / "pruning"))
    assert tune.main(words) == 0
    data = front_of(output)
    pruned = [point for point in data["points"] if point["is_pruned"]]
    assert pruned, data["remarks"]
    assert read_plan(output / pruned[0]["file"]).rules
    assert data["chosen"] == pruned[0]["file"]


# ---- targets and refusals ----------------------------------------------------------------------


def test_the_numpy_target_gets_a_numpy_program(met: Path, tiny: Path, place: Path):
    output = place / "numpy"
    words = arguments(tiny, place, output, "accuracy-drop<=45", target="numpy")
    assert tune.main(words) == 0
    assert (output / "prog.py").exists()
    assert (output / "prog.safetensors").exists()
    assert not (output / "prog.hdp").exists()
    assert front_of(output)["target"] == "numpy"


@pytest.mark.parametrize(
    ("changes", "goals", "code", "message"),
    [
        ({}, ["accuracy-drop>=1"], 2, "accuracy-drop is bounded by <=, not by >="),
        ({}, ["edp>=2x", "edp>=3x"], 2, "edp is bounded twice"),
        ({"minutes": "0"}, [], 2, "0 is no number of minutes"),
        ({"points": "0"}, [], 2, "0 is outside 1 to 90"),
        ({"hw": "", "target": "hdp-egde"}, [], 2, "unknown target 'hdp-egde'"),
        ({"target": "hdp-edge"}, [], 2, "--hw and --target both name the machine"),
        ({"layers": "none*"}, [], 1, "no linear layer is named by 'none*'"),
    ],
)
def test_refusals(
    tiny: Path,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    goals: list[str],
    code: int,
    message: str,
):
    assert tune.main(arguments(tiny, place, tmp_path / "out", *goals, **changes)) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("error:") == 1
    assert not (tmp_path / "out").exists()
