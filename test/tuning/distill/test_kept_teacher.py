"""`heatc-tune distill --keep-teacher`: the model runs once, for all epochs and all later students."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_classifier import ir_text, weights
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.errors import HeatcError
from heatc.names import factors_file
from heatc.tools import tune
from heatc.tuning.common.torch_model import Run, TorchModel
from heatc.tuning.distill.teacher import KeptTeacher, LiveTeacher
from heatc.tuning.distill.texts import Texts
from heatc.tuning.distill.train import Training
from heatc.weights import WeightStore

pytestmark = pytest.mark.usefixtures("one_thread")

HEAT = "low-rank,rank=6,layers=l*"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of samples of each run of the model."""
    sizes: list[int] = []
    run = LiveTeacher.__call__

    def noted(self: LiveTeacher, texts: Texts, samples: Sequence[int]) -> Run:
        sizes.append(len(samples))
        return run(self, texts, samples)

    monkeypatch.setattr(LiveTeacher, "__call__", noted)
    return sizes


def arguments(tiny: Path, output: Path, kept: Path | None, *others: str) -> list[str]:
    output.parent.mkdir(exist_ok=True)
    options = {
        "--data": str(tiny / "data.npz"),
        "--weights": str(tiny / "weights.safetensors"),
        "--heat": HEAT,
        "--epochs": "3+3",
        "--rates": "1e-2,1e-2",
        "--work-dir": str(output.parent / "work"),
        "-o": str(output),
    }
    if kept is not None:
        options["--keep-teacher"] = str(kept)
    words = [x for option in options.items() for x in option]
    return ["distill", str(tiny / "model.mlir"), *words, *others]


def report_of(plan: Path) -> dict[str, Any]:
    return json.loads(plan.with_suffix(".report.json").read_text())


def factors_of(plan: Path) -> dict[str, Any]:
    return load_file(factors_file(plan))


def model() -> TorchModel:
    module = Parser(make_context(), ir_text(8)).parse_module()
    return TorchModel(module, WeightStore(weights(seed=0)))


def texts_of(tiny: Path, count: int) -> Texts:
    with np.load(tiny / "data.npz") as data:
        inputs = {name: data[name][:count] for name in ("input_ids", "attention_mask")}
    return Texts(inputs, inputs["attention_mask"].sum(axis=1).astype(np.int64))


def test_what_is_kept_is_what_the_model_gives(tiny: Path, tmp_path: Path):
    teacher, texts = model(), texts_of(tiny, 40)
    kept = KeptTeacher(teacher, [texts], 8, tmp_path, lambda *_: None)
    live = LiveTeacher(teacher)
    rng = np.random.default_rng(0)
    for _ in range(5):
        samples = [int(i) for i in rng.integers(40, size=8)]  # some of them twice
        found, expected = kept(texts, samples), live(texts, samples)
        assert len(found.features) == len(expected.features) == 2
        for ours, theirs in zip(found.features, expected.features):
            torch.testing.assert_close(ours, theirs, rtol=2**-10, atol=1e-5)
        logits = (run.outputs["logits"] for run in (found, expected))
        torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


def test_a_kept_teacher_trains_alike(tiny: Path, tmp_path: Path):
    live, kept = tmp_path / "live" / "small.json", tmp_path / "kept" / "small.json"
    assert tune.main(arguments(tiny, live, None)) == 0
    assert tune.main(arguments(tiny, kept, tmp_path / "teacher")) == 0
    first, second = report_of(live), report_of(kept)
    assert first["after"] == pytest.approx(second["after"], rel=0.02)
    assert (first["teacher"], second["teacher"]) == (
        "run at every step", "kept, features in float16",
    )  # fmt: skip


def test_the_model_runs_once_for_all_students(tiny: Path, tmp_path: Path, asked: list[int]):
    first, second = tmp_path / "first" / "small.json", tmp_path / "second" / "small.json"
    assert tune.main(arguments(tiny, first, tmp_path / "teacher")) == 0
    # Batches of 36 and 12 samples, and the first of each set once more, to see what it gives.
    assert asked == [8] * (1 + 5 + 1 + 2)
    asked.clear()
    assert tune.main(arguments(tiny, second, tmp_path / "teacher", "--epochs", "1+1")) == 0
    assert asked == [8, 8]


def test_a_file_that_is_gone_is_made_again(tiny: Path, tmp_path: Path):
    teacher, texts = model(), texts_of(tiny, 40)
    KeptTeacher(teacher, [texts], 8, tmp_path, lambda *_: None)
    next(tmp_path.rglob("feature-1.npy")).unlink()
    kept = KeptTeacher(teacher, [texts], 8, tmp_path, lambda *_: None)
    samples = list(range(8, 16))
    found, expected = kept(texts, samples), LiveTeacher(teacher)(texts, samples)
    torch.testing.assert_close(found.features[1], expected.features[1], rtol=2**-10, atol=1e-5)


def test_another_model_is_another_teacher(tiny: Path, tmp_path: Path, asked: list[int]):
    first, second = tmp_path / "first" / "small.json", tmp_path / "second" / "small.json"
    assert tune.main(arguments(tiny, first, tmp_path / "teacher")) == 0
    asked.clear()
    # The module is the same file; its weights are others.
    save_file(weights(seed=1), tmp_path / "other.safetensors")
    others = ["--weights", str(tmp_path / "other.safetensors")]
    assert tune.main(arguments(tiny, second, tmp_path / "teacher", *others)) == 0
    assert asked == [8] * (1 + 5 + 1 + 2)


@pytest.mark.parametrize("stop", [3, 7, 15])
def test_an_interrupted_run_gives_the_same_factors(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
):
    whole, broken = tmp_path / "whole" / "small.json", tmp_path / "broken" / "small.json"
    assert tune.main(arguments(tiny, whole, tmp_path / "teacher of whole")) == 0
    monkeypatch.setattr("heatc.tuning.distill.train.KEEP_EVERY", 2)
    monkeypatch.setattr("heatc.tuning.distill.teacher.KEEP_EVERY", 2)
    count = 0

    def interrupt() -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise KeyboardInterrupt

    run, step = LiveTeacher.__call__, Training._step

    def running(self: LiveTeacher, texts: Texts, samples: Sequence[int]) -> Run:
        interrupt()
        return run(self, texts, samples)

    def stepping(self: Training, batch: Sequence[int]) -> None:
        interrupt()
        step(self, batch)

    monkeypatch.setattr(LiveTeacher, "__call__", running)
    monkeypatch.setattr(Training, "_step", stepping)
    again = arguments(tiny, broken, tmp_path / "teacher of broken")
    assert tune.main(again) == 130
    assert not broken.exists()
    assert tune.main(again) == 0
    first, second = factors_of(whole), factors_of(broken)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert report_of(whole)["after"] == report_of(broken)["after"]


def test_a_disk_without_room(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    output = tmp_path / "small" / "small.json"
    assert tune.main(arguments(tiny, output, tmp_path / "teacher")) == 1
    message = capsys.readouterr().err
    assert "what the teacher gives takes" in message
    assert "--keep-teacher" in message


@pytest.mark.parametrize("option", ["--keep-teacher", "--work-dir"])
def test_a_file_in_the_place_of_a_folder(
    tiny: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
):
    output, file = tmp_path / "out" / "plan.json", tmp_path / "file"
    file.write_text("", encoding="utf-8")
    words = [*arguments(tiny, output, None), option, str(file / "below")]
    assert tune.main(words) == 1
    message = capsys.readouterr().err
    assert f"{file}" in message
    assert "cannot write" in message
    assert not [path for path in output.parent.rglob("*") if path.is_file()]


def test_features_beyond_float16(tiny: Path, tmp_path: Path):
    module = Parser(make_context(), ir_text(8)).parse_module()
    arrays = weights(seed=0)
    arrays["l0.gamma"] *= 1e6
    teacher = TorchModel(module, WeightStore(arrays))
    with pytest.raises(HeatcError, match="beyond float16"):
        KeptTeacher(teacher, [texts_of(tiny, 16)], 8, tmp_path, lambda *_: None)
