"""`heatc-tune distill`: what is trained is what is compiled, near the model, and resumed alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_classifier import ir_text, weights
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.files import held_folder
from heatc.interpreter import execute
from heatc.names import factors_file
from heatc.plan import read_plan
from heatc.tools import main as heatc
from heatc.tools import tune, tune_distill
from heatc.tuning.common import torch_model
from heatc.tuning.common.torch_model import Run, TorchModel
from heatc.tuning.distill import train
from heatc.tuning.distill.fast_matmul import fast_matmul
from heatc.tuning.distill.losses import output_loss
from heatc.tuning.distill.session import distill
from heatc.tuning.distill.texts import shuffled
from heatc.tuning.distill.train import Training
from heatc.weights import WeightStore

pytestmark = pytest.mark.usefixtures("one_thread")

HEAT = "low-rank,rank=6,layers=l*"


def arguments(folder: Path, output: Path, *others: str) -> list[str]:
    options = {
        "--data": str(folder / "data.npz"),
        "--weights": str(folder / "weights.safetensors"),
        "--epochs": "3+3",
        "--rates": "1e-2,1e-2",
        "--work-dir": str(output.parent / "work"),
        "-o": str(output),
    }
    words = [x for option in options.items() for x in option]
    return ["distill", str(folder / "model.mlir"), *words, *others]


def report_of(plan: Path) -> dict[str, Any]:
    return json.loads(plan.with_suffix(".report.json").read_text())


def module_of(batch: int) -> ModuleOp:
    return Parser(make_context(), ir_text(batch)).parse_module()


def batch_of(folder: Path, size: int) -> dict[str, Any]:
    with np.load(folder / "data.npz") as data:
        return {name: data[name][:size] for name in ("input_ids", "attention_mask")}


def padded_batch_of(folder: Path, size: int) -> dict[str, Any]:
    """With left padding: of one sequence all but the last token, whose first position is read."""
    inputs = batch_of(folder, size)
    inputs["attention_mask"][3] = 0
    inputs["attention_mask"][3, -1] = 1
    return inputs


# ---- the model in PyTorch ---------------------------------------------------------------------


def test_the_model_in_pytorch_is_that_of_the_interpreter(tiny: Path):
    module, store = module_of(8), WeightStore(weights(seed=0))
    inputs = padded_batch_of(tiny, 8)
    expected = execute(module, inputs, store)["logits"]
    model = TorchModel(module, store, ["l0.q.weight", "classifier.weight"])
    run = model(inputs)
    assert np.abs(run.outputs["logits"].detach().numpy() - expected).max() < 1e-5
    assert [tuple(f.shape) for f in run.features] == [
        (int(inputs["attention_mask"].sum()) + 1, 16)
    ] * 2


def test_many_scores_take_the_fused_attention(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    inputs = padded_batch_of(tiny, 8)
    model = TorchModel(module_of(8), WeightStore(weights(seed=0)), ["l0.q.weight"])
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for few in (torch_model.FEW_SCORES, 0):
        monkeypatch.setattr(torch_model, "FEW_SCORES", few)
        model.zero_grad()
        logits = model(inputs).outputs["logits"]
        logits.square().sum().backward()
        gradient = model.parameters_by_name["l0.q.weight"].grad
        assert gradient is not None
        found.append((logits.detach(), gradient.clone()))
    for by_products, fused in zip(*found):
        torch.testing.assert_close(by_products, fused, rtol=1e-3, atol=1e-5)


def test_fast_matmul_are_of_float32():
    before = torch.get_float32_matmul_precision()
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((200, 300), (300, 100)))
    with fast_matmul("cpu"):
        found = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    assert np.abs(found - a.astype(np.float64) @ b).max() < 1e-4
    assert torch.get_float32_matmul_precision() == before


def test_gradients_are_those_of_differences(tiny: Path):
    inputs, size = batch_of(tiny, 8), 1e-2
    name = "l0.q.weight"
    model = TorchModel(module_of(8), WeightStore(weights(seed=0)), [name])
    model(inputs).outputs["logits"].square().sum().backward()
    gradient = model.parameters_by_name[name].grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()

    def value(change: float) -> float:
        arrays = weights(seed=0)
        arrays[name][2, 5] += change
        logits = execute(module_of(8), inputs, WeightStore(arrays))["logits"]
        return float((logits.astype(np.float64) ** 2).sum())

    expected = (value(size) - value(-size)) / (2 * size)
    assert float(gradient[2, 5]) == pytest.approx(expected, rel=2e-2, abs=2e-3)


def test_padding_that_is_read_leaves_gradients_finite(tiny: Path):
    inputs = padded_batch_of(tiny, 8)
    model = TorchModel(module_of(8), WeightStore(weights(seed=0)), ["l0.k.weight"])
    model(inputs).outputs["logits"].sum().backward()
    gradient = model.parameters_by_name["l0.k.weight"].grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()


def test_the_divergence_of_classes_is_that_of_scipy():
    from scipy.special import softmax
    from scipy.stats import entropy

    rng = np.random.default_rng(0)
    ours, theirs = (rng.standard_normal((5, 3)).astype(np.float32) for _ in range(2))
    runs = (Run([], {"logits": torch.from_numpy(x)}, None) for x in (ours, theirs))
    found = output_loss(*runs, temperature=2.0).item()
    p, q = softmax(theirs / 2, axis=1), softmax(ours / 2, axis=1)
    assert found == pytest.approx(4 * entropy(p, q, axis=1).mean(), rel=1e-4)


def test_batches_hold_every_sample():
    import random

    lengths = list(np.random.default_rng(0).integers(1, 60, 203))
    batches = shuffled(lengths, 8, random.Random(1))
    assert {len(batch) for batch in batches} == {8}
    assert set(range(203)) == {i for batch in batches for i in batch}


# ---- the command ------------------------------------------------------------------------------


def test_distilled_factors_are_nearer_and_compile(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "small.json"
    assert tune.main(arguments(tiny, output, "--heat", HEAT, "--epochs", "10+10")) == 0
    assert "dev outputs" in capsys.readouterr().out
    report = report_of(output)
    assert report["seconds"] > 0
    assert report["after"]["dev outputs"] < 0.7 * report["before"]["dev outputs"]
    assert report["samples"] == {"train": 36, "dev": 12}
    plan = read_plan(output)
    assert set(plan.heat) == {f"l{layer}.{name}" for layer in (0, 1) for name in "qkvo"}

    # The program computes what was trained, and nothing is decomposed again.
    trained = load_file(factors_file(output))
    program = tmp_path / "small.mlir"
    model = [str(tiny / "model.mlir"), "--weights", str(tiny / "weights.safetensors")]
    assert heatc.main([*model, "--plan", str(output), "--emit", "ir", "-o", str(program),
                       "--target", "numpy"]) == 0  # fmt: skip
    module = Parser(make_context(), program.read_text()).parse_module()
    inputs = batch_of(tiny, 8)
    found = execute(module, inputs, WeightStore({**weights(seed=0), **trained}))["logits"]
    expected = execute(_dense(trained), inputs, WeightStore(_products(trained)))["logits"]
    assert np.abs(found - expected).max() < 1e-4


def _products(trained: dict[str, Any]) -> dict[str, Any]:
    """Dense weights that the trained factors stand for; biases apart."""
    found = weights(seed=0)
    for name in list(found):
        layer = name.removesuffix(".weight")
        if f"{layer}.0" in trained:
            found[name] = trained[f"{layer}.1"] @ trained[f"{layer}.0"]
            found[f"{layer}.bias"] = trained[f"{layer}.2"]
    return found


def _dense(trained: dict[str, Any]) -> ModuleOp:
    """The tiny model with a bias behind each linear of its encoder."""
    lines: list[str] = []
    for line in ir_text(8).splitlines():
        lines.append(line)
        if 'einsum.contract "ti,oi->to"' in line:
            value = line.split()[0]
            weight = line.split('"ti,oi->to"')[1].split(",")[1].split(":")[0].strip()
            layer, name = weight.removeprefix("%l").split("w")
            rows = line.rsplit("->", 1)[1].strip()
            lines[-1] = line.replace(f"  {value} =", f"  {value}_w =")
            lines += [
                f'  {value}_c = einsum.weight ["l{layer}.{name}.bias"] : tensor<16xf32>',
                f"  {value} = nn.add {value}_w, {value}_c : ({rows}, tensor<16xf32>) -> {rows}",
            ]
    return Parser(make_context(), "\n".join(lines)).parse_module()


def told(folder: Path, output: Path) -> list[str]:
    extra = ("--extra", str(folder / "unlabelled.npz"))
    return arguments(folder, output, "--heat", HEAT, *extra)


@pytest.mark.parametrize("stop", [2, 7, 13])
def test_an_interrupted_run_gives_the_same_factors(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: int,
):
    monkeypatch.setattr("heatc.tuning.distill.train.KEEP_EVERY", 2)
    step, steps, last = Training._step, 0, 0

    def counted(self: Training, batch: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(Training, "_step", counted)
    whole = tmp_path / "whole" / "small.json"
    whole.parent.mkdir()
    assert tune.main(told(tiny, whole)) == 0
    needed, steps, last = steps, 0, stop

    broken = tmp_path / "broken" / "small.json"
    broken.parent.mkdir()
    assert tune.main(told(tiny, broken)) == 130
    assert not broken.exists()
    # Of copies elsewhere: content is what an interrupted run is known by.
    moved = Path(shutil.copytree(tiny, tmp_path / "moved"))
    assert tune.main(told(moved, broken)) == 0
    assert "went on with the checkpoint" in capsys.readouterr().err or stop == 2
    # The step that was stopped and what came after the last checkpoint are done again.
    assert steps <= needed + 2
    first, second = (load_file(factors_file(p)) for p in (whole, broken))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    for key in ("before", "epochs", "after"):
        assert report_of(whole)[key] == report_of(broken)[key]


def test_a_rate_that_is_too_great_is_made_smaller(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # The few samples of the test let no rate win much: any loss begins again.
    monkeypatch.setattr(train, "WORSE", 1.0)
    output = tmp_path / "small.json"
    words = arguments(tiny, output, "--heat", HEAT, "--epochs", "3+0", "--rates", "0.05,1e-2")
    assert tune.main(words) == 0
    assert "the stage of features began again with rate 0.0045: one epoch with 0.05" in (
        capsys.readouterr().err
    )
    found = report_of(output)
    stage = [entry for entry in found["epochs"] if entry["stage"] == 1]
    start = stage[0]["dev features"]
    assert [entry["epoch"] for entry in stage] == [0, 1, 1, 1, 2, 3]
    rates = [0.05, 0.05, 0.015, 0.0045, 0.0045, 0.0045]
    assert [entry["rate"] for entry in stage] == pytest.approx(rates)
    assert all(entry["dev features"] > start for entry in stage[1:3])
    assert found["after"]["dev features"] < start


def test_a_run_that_works_keeps_others_out(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "small.json"
    assert tune.main(told(tiny, output)) == 0
    (work,) = (tmp_path / "work").iterdir()
    first = output.read_bytes()
    output.unlink()
    with held_folder(work):
        assert tune.main(told(tiny, output)) == 1
        assert f"{work}: another run of the same works here" in capsys.readouterr().err
    assert not output.exists()
    # It then finds what that left.
    assert tune.main(told(tiny, output)) == 0
    assert output.read_bytes() == first


def test_other_text_is_judged_apart(tiny: Path, tmp_path: Path):
    output = tmp_path / "small.json"
    extra = ["--extra", str(tiny / "unlabelled.npz"), "--dev", str(tiny / "data.npz")]
    words = arguments(tiny, output, "--heat", "tt,rank=4,modes=2,layers=l*", *extra)
    assert tune.main([*words, "--epochs", "1+0"]) == 0
    report = report_of(output)
    assert report["samples"] == {"train": 48 + 36, "dev": 48, "unlabelled": 12}
    assert {f"{name} features" for name in ("dev", "unlabelled")} < set(report["after"])
    assert read_plan(output).heat["l0.q"].format == "tt"


def test_two_texts_of_one_name(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    again = tmp_path / "unlabelled.npz"
    again.write_bytes((tiny / "unlabelled.npz").read_bytes())
    extra = ["--extra", str(tiny / "unlabelled.npz"), "--extra", str(again)]
    assert tune.main([*arguments(tiny, tmp_path / "small.json", "--heat", HEAT), *extra]) == 1
    assert "two sets of text are called 'unlabelled'" in capsys.readouterr().err


def test_a_plan_is_trained_further(tiny: Path, tmp_path: Path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert tune.main(arguments(tiny, first, "--heat", HEAT, "--epochs", "1+0")) == 0
    assert tune.main(arguments(tiny, second, "--plan", str(first), "--epochs", "0+2")) == 0
    assert report_of(second)["before"] == pytest.approx(report_of(first)["after"], rel=1e-4)
    assert read_plan(second).heat == read_plan(first).heat


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "give --plan or --heat"),
        (["--heat", HEAT, "--epochs", "two"], 2, "expected two numbers"),
        (["--heat", HEAT, "--rates", "1"], 2, "expected two rates"),
        (["--heat", HEAT, "--device", "nowhere"], 2, "no device 'nowhere'"),
        (["--heat", HEAT, "--data", "missing.npz"], 1, "missing.npz"),
        (["--heat", f"{HEAT},joint"], 1, "decomposed as one"),
    ],
)
def test_wrong_options(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
):
    assert tune.main([*arguments(tiny, tmp_path / "small.json"), *words]) == code
    assert message in capsys.readouterr().err


# ---- plans with factors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("digest", "the plan names factors with digest"),
        ("missing", "l0.q.0 is not there"),
        ("shape", "l0.q.1 has shape (3, 3)"),
    ],
)
def test_factors_that_are_not_the_plans(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, message: str
):
    output = tmp_path / "small.json"
    assert tune.main(arguments(tiny, output, "--heat", HEAT, "--epochs", "1+0")) == 0
    file = factors_file(output)
    factors = load_file(file)
    if wrong == "missing":
        del factors["l0.q.0"]
    else:
        factors["l0.q.1"] = np.zeros((3, 3), np.float32)
    save_file(factors, file)
    if wrong != "digest":
        from heatc.plan import model_sha256

        plan = json.loads(output.read_text())
        plan["factors"]["sha256"] = model_sha256(file)
        output.write_text(json.dumps(plan))
    model = [str(tiny / "model.mlir"), "--weights", str(tiny / "weights.safetensors")]
    command = [*model, "--plan", str(output), "-o", str(tmp_path / "x.mlir"), "--target", "numpy"]
    assert heatc.main(command) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.mlir").exists()


# ---- so many seconds ---------------------------------------------------------------------------


class _Clock:
    """A clock that training itself moves: a step takes 1 s, an evaluation 2 s."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("spoils", [False, True])
def test_a_training_of_so_many_seconds_takes_no_more(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoils: bool
):
    """Also where the first round spoils the student, and all of them begin again."""
    clock, step, evaluate = _Clock(), Training._step, Training.evaluate

    def timed_step(self: Training, batch: Any) -> None:
        clock.now += 1.0
        step(self, batch)

    def timed_evaluate(self: Training) -> dict[str, float]:
        clock.now += 2.0
        found = evaluate(self)
        return {k: v * (10.0 if spoils and self.state.taken else 1.0) for k, v in found.items()}

    monkeypatch.setattr(train, "time", clock)
    monkeypatch.setattr(Training, "_step", timed_step)
    monkeypatch.setattr(Training, "evaluate", timed_evaluate)
    monkeypatch.setattr(Training, "step_seconds", lambda self: 0.5)
    plan = tmp_path / "start.json"
    assert tune.main(arguments(tiny, plan, "--heat", HEAT, "--epochs", "0+0", "--quiet")) == 0
    words = arguments(tiny, tmp_path / "timed.json", "--plan", str(plan), "--quiet")[1:]
    request = tune_distill._request(tune_distill.make_parser().parse_args(words))
    recipe = replace(request.recipe, epochs=(1, 0), seconds=40.0, patience=9)
    clock.now = 0.0
    result = distill(replace(request, recipe=recipe), lambda *_: None)
    steps = result.report["steps"]
    assert 8 <= steps <= 40
    # The last evaluations, of the second stage and of the result, come after the training.
    assert clock.now <= 1.15 * 40.0 + 2 * 2.0
