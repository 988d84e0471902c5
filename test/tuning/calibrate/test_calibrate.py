"""`heatc-tune calibrate` from the command line: plans that compile, resuming, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_classifier
from safetensors.numpy import save_file
from tiny_classifier import HEADS, LAYERS, LENGTH, VOCABULARY, ir_text, weights

from heatc.backends.hdp import open_program, simulate
from heatc.machine.energy import energy_report
from heatc.plan import read_plan
from heatc.tools import main as heatc
from heatc.tools import tune
from heatc.tuning.calibrate import layer_costs, session
from heatc.tuning.calibrate.calibrator import Calibrator
from heatc.tuning.calibrate.layer_costs import LayerCost


def arguments(folder: Path, output: Path, goal: str, **changes: str) -> list[str]:
    options = {
        "--data": str(folder / "data.npz"),
        "--weights": str(folder / "weights.safetensors"),
        "--goal": goal,
        "-o": str(output),
        "--work-dir": str(output.parent / "work"),
    }
    options |= changes
    return ["calibrate", str(folder / "model.mlir"), *(x for o in options.items() for x in o)]


def report_of(plan: Path) -> dict[str, Any]:
    return json.loads(plan.with_suffix(".report.json").read_text())


def test_a_sparsity_goal_is_reached_and_the_plan_compiles(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "plan.json"
    assert tune.main(arguments(tiny, output, "sparsity>=0.7")) == 0
    text = capsys.readouterr()
    assert LAYERS[0] in text.out
    assert "sensitivity" in text.out
    assert "remark: " in text.err
    plan, report = read_plan(output), report_of(output)
    assert set(plan.rules) == set(LAYERS)
    assert all(rule.name == "ours" for rule in plan.rules.values())
    assert report["result"]["all"]["net_sparsity"] >= report["figure"] >= 0.7
    assert any("is assured" in text for text in report["remarks"])
    assert report["samples"] == {"fitted": 36, "held back": 12, "all": 48}
    compiled = [str(tiny / "model.mlir"), "--weights", str(tiny / "weights.safetensors")]
    compiled += ["--plan", str(output), "--emit", "ir", "--dump-phases-to", str(tmp_path / "ir")]
    assert heatc.main([*compiled, "-o", str(tmp_path / "x.mlir")]) == 0


def test_a_goal_that_one_value_does_not_reach_takes_values_by_head(tiny: Path, tmp_path: Path):
    output = tmp_path / "plan.json"
    assert tune.main(arguments(tiny, output, "sparsity>=0.7")) == 0
    report = report_of(output)
    assert report["one_value"] is None
    assert report["values"] == "by head"
    assert len(set(read_plan(output).rules[LAYERS[0]].rho_b)) > 1


def test_a_plan_runs_on_the_machine_as_it_was_calibrated(tiny: Path, tmp_path: Path):
    output, program = tmp_path / "plan.json", tmp_path / "tiny.hdp"
    assert tune.main(arguments(tiny, output, "sparsity>=0.8", **{"--target": "hdp-edge"})) == 0
    report = report_of(output)
    compiled = [str(tiny / "model.mlir"), "--weights", str(tiny / "weights.safetensors")]
    assert heatc.main([*compiled, "--plan", str(output), "-o", str(program)]) == 0
    data = dict(np.load(tiny / "unlabelled.npz"))
    masks = simulate(open_program(program), data, masks=True).masks
    kept = 0
    for path in LAYERS:
        blocks_kept, gate = masks[f"mask/{path}"].astype(int), masks[f"gate/{path}"].astype(int)
        kept += int((blocks_kept * gate[..., None, None]).sum())
    edge = (data["attention_mask"].sum(axis=1) + 1) // 2
    blocks = int((edge * edge).sum()) * HEADS * len(LAYERS)
    # Rounding to 16 bits may move a block across its threshold.
    assert 1 - kept / blocks == pytest.approx(report["result"]["all"]["net_sparsity"], abs=0.01)
    assert report["cost"]["hw"] == "hdp-edge"
    assert report["cost"]["plan"]["cycles"] > 0


def test_a_plan_says_only_what_was_allowed(tiny: Path, tmp_path: Path):
    output, program = tmp_path / "plan.json", tmp_path / "tiny.hdp"
    words = arguments(tiny, output, "sparsity>=0.4", **{"--block": "4,2", "--pruned-score": "zero"})
    assert tune.main([*words, "--no-head-gate", "--target", "hdp-edge"]) == 0
    rules = read_plan(output).rules
    assert set(rules) == set(LAYERS)
    for rule in rules.values():
        assert rule.block == (4, 2)
        assert rule.pruned_score == "zero"
        assert max(rule.tau_h) == 0.0
    report = report_of(output)
    compiled = [str(tiny / "model.mlir"), "--weights", str(tiny / "weights.safetensors")]
    assert heatc.main([*compiled, "--plan", str(output), "-o", str(program)]) == 0
    data = dict(np.load(tiny / "unlabelled.npz"))
    masks = simulate(open_program(program), data, masks=True).masks
    lengths = data["attention_mask"].sum(axis=1)
    blocks = int((-(-lengths // 4) * -(-lengths // 2)).sum()) * HEADS * len(LAYERS)
    kept = sum(int(masks[f"mask/{path}"].sum()) for path in LAYERS)
    # Rounding to 16 bits may move a block across its threshold.
    expected = report["result"]["all"]["net_sparsity"]
    assert 1 - kept / blocks == pytest.approx(expected, abs=0.01)


def test_a_cycle_goal_that_holds_without_pruning_prunes_nothing(tiny: Path, tmp_path: Path):
    output = tmp_path / "plan.json"
    assert tune.main(arguments(tiny, output, "cycles<=1e9")) == 0
    assert {rule.name for rule in read_plan(output).rules.values()} == {"none"}
    report = report_of(output)
    assert report["result"]["all"]["net_sparsity"] == 0
    assert report["figure"] == report["cost"]["unpruned"]["cycles"]


def test_a_cycle_goal_out_of_reach_says_what_no_pruning_takes(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert tune.main(arguments(tiny, tmp_path / "plan.json", "cycles<=10")) == 4
    assert "without pruning: " in capsys.readouterr().err


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny classifier on sequences of up to 96 tokens: there pruning is worth its cost."""
    folder, length, count = tmp_path / "long", 96, 8
    folder.mkdir()
    monkeypatch.setattr(tiny_classifier, "LENGTH", length)
    (folder / "model.mlir").write_text(ir_text(batch=1))
    save_file(weights(seed=0), folder / "weights.safetensors")
    rng = np.random.default_rng(1)
    mask = (np.arange(length) < rng.integers(80, length + 1, count)[:, None]).astype(np.int64)
    ids = rng.integers(0, VOCABULARY, (count, length)) * mask
    np.savez(folder / "data.npz", input_ids=ids, attention_mask=mask)
    return folder


CHEAP = {"--hw": "hdp-edge-vector", "--block": "8,8", "--pruned-score": "zero"}


def test_a_goal_of_energy_and_latency_is_reached_by_the_program(long: Path, tmp_path: Path):
    output, dense = tmp_path / "plan.json", tmp_path / "dense.json"
    assert tune.main(arguments(long, output, "edp>=1.2x", **CHEAP)) == 0
    dense.write_text(json.dumps({"schema": 1, "layers": {}}))
    model = [str(long / "model.mlir"), "--weights", str(long / "weights.safetensors")]
    products: list[float] = []
    for plan in (dense, output):
        program = plan.with_suffix(".hdp")
        words = [*model, "--hw", "hdp-edge-vector", "--plan", str(plan), "-o", str(program)]
        assert heatc.main(words) == 0
        opened = open_program(program)
        run = simulate(opened, dict(np.load(long / "data.npz")))
        products.append(energy_report(run.results, opened.manifest.hardware).delay_product)
    report = report_of(output)
    assert products[0] / products[1] == pytest.approx(report["figure"], rel=1e-9)
    assert report["figure"] >= 1.2
    assert set(report["cost"]["prices"]) == set(LAYERS)


def test_a_layer_whose_pruning_is_not_worth_it_stays_dense(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    output, measured = tmp_path / "plan.json", layer_costs.measure_layer_costs

    def dear(*given: Any) -> dict[str, LayerCost]:
        return {**measured(*given), LAYERS[1]: LayerCost(0.9, 0.0, 0.5)}

    monkeypatch.setattr(session, "measure_layer_costs", dear)
    assert tune.main(arguments(long, output, "edp>=1.05x", **CHEAP)) == 0
    assert [read_plan(output).rules[path].name for path in LAYERS] == ["ours", "none"]
    assert f"{LAYERS[1]} (deciding adds 90.00 %" in capsys.readouterr().err


def test_a_plan_within_a_loss_is_never_dearer_than_no_pruning(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """On sequences of up to 12 tokens deciding costs more than it can spare."""
    output = tmp_path / "plan.json"
    assert tune.main(arguments(tiny, output, "accuracy-drop<=30", **{"--hw": "hdp-edge"})) == 0
    assert {rule.name for rule in read_plan(output).rules.values()} == {"none"}
    assert "makes the program cheaper on hdp-edge" in capsys.readouterr().err
    cost = report_of(output)["cost"]
    assert cost["plan"] == cost["unpruned"]


@pytest.mark.parametrize("data", ["data.npz", "unlabelled.npz"])
def test_an_accuracy_goal_says_what_a_point_is(tiny: Path, tmp_path: Path, data: str):
    output = tmp_path / "plan.json"
    options = {"--data": str(tiny / data)}
    assert tune.main(arguments(tiny, output, "accuracy-drop<=30", **options)) == 0
    report = report_of(output)
    assert report["figure"] <= 30
    assert report["basis"]["name"] == ("labels" if data == "data.npz" else "changed predictions")
    assert any(report["basis"]["meaning"] in text for text in report["remarks"])


def test_an_embedding_model_is_calibrated_by_cosine(tiny: Path, tmp_path: Path):
    model, output = tmp_path / "model.mlir", tmp_path / "plan.json"
    model.write_text(ir_text(8, output="embedding"))
    argv = arguments(tiny, output, "accuracy-drop<=60", **{"--data": str(tiny / "unlabelled.npz")})
    argv[1] = str(model)
    assert tune.main(argv) == 0
    assert report_of(output)["basis"]["name"] == "cosine"


@pytest.mark.parametrize("output", ["embedding", "logits"])
def test_samples_of_one_token_are_calibrated(tiny: Path, tmp_path: Path, output: str):
    """Nothing that is probed changes a layer: errors are 0, and cosines 1 up to rounding."""
    model, plan, data = (tmp_path / name for name in ("model.mlir", "plan.json", "data.npz"))
    model.write_text(ir_text(8, output=output))
    mask = np.zeros((16, LENGTH), np.int64)
    mask[:, 0] = 1
    ids = np.random.default_rng(1).integers(0, VOCABULARY, mask.shape)
    np.savez(data, input_ids=ids * mask, attention_mask=mask)
    argv = arguments(tiny, plan, "sparsity>=0.5", **{"--data": str(data)})
    argv[1] = str(model)
    assert tune.main(argv) == 0
    damage = [layer["sensitivity"] for layer in report_of(plan)["layers"]]
    assert all(0 <= value < 1e3 for value in damage)


def test_a_model_of_one_sample_a_pass_gives_the_same_plan(tiny: Path, tmp_path: Path):
    plans = [tmp_path / "eight.json", tmp_path / "one.json"]
    (tmp_path / "model.mlir").write_text(ir_text(1))
    for plan, model in zip(plans, (tiny / "model.mlir", tmp_path / "model.mlir")):
        argv = arguments(tiny, plan, "sparsity>=0.75")
        argv[1] = str(model)
        assert tune.main(argv) == 0
    eight, one = (read_plan(plan).rules for plan in plans)
    for path in LAYERS:
        assert eight[path].importance == one[path].importance
        np.testing.assert_allclose(eight[path].rho_b, one[path].rho_b, atol=1e-3)
        np.testing.assert_allclose(eight[path].tau_h, one[path].tau_h, rtol=1e-4)


def test_an_interrupted_run_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole, broken = tmp_path / "a" / "plan.json", tmp_path / "b" / "plan.json"
    whole.parent.mkdir()
    broken.parent.mkdir()
    assert tune.main(arguments(tiny, whole, "sparsity>=0.75")) == 0
    trial = Calibrator._trial_batch

    def interrupted(self: Calibrator, rules: Any, number: int) -> Any:
        if number == 3:
            raise KeyboardInterrupt
        return trial(self, rules, number)

    monkeypatch.setattr(Calibrator, "_trial_batch", interrupted)
    assert tune.main(arguments(tiny, broken, "sparsity>=0.75")) == 130
    assert not broken.exists()
    monkeypatch.undo()
    measured: list[int] = []
    measure = Calibrator._measure_batch
    monkeypatch.setattr(Calibrator, "_measure_batch", lambda *a: measured.append(1) or measure(*a))
    assert tune.main(arguments(tiny, broken, "sparsity>=0.75")) == 0
    assert not measured, "the second start measures nothing again"
    assert json.loads(whole.read_text()) == json.loads(broken.read_text())
    # 6 measured batches, the probes, and the 3 batches of a trial before the interruption.
    assert report_of(broken)["reused"] >= 9
    assert report_of(whole)["reused"] == 0


def test_other_weights_share_nothing(tiny: Path, tmp_path: Path):
    output, other = tmp_path / "plan.json", tmp_path / "other.safetensors"
    save_file(weights(seed=5), other)
    assert tune.main(arguments(tiny, output, "sparsity>=0.7")) == 0
    assert tune.main(arguments(tiny, output, "sparsity>=0.7", **{"--weights": str(other)})) == 0
    assert report_of(output)["reused"] == 0


def test_a_damaged_store_is_computed_again(tiny: Path, tmp_path: Path):
    output = tmp_path / "plan.json"
    assert tune.main(arguments(tiny, output, "sparsity>=0.7")) == 0
    first = output.read_text()
    for file in (tmp_path / "work").rglob("measured-*.npz"):
        file.write_bytes(b"PK damaged")
    assert tune.main(arguments(tiny, output, "sparsity>=0.7")) == 0
    assert output.read_text() == first


def test_an_unreachable_goal_is_exit_code_4_with_a_goal_that_holds(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output, data = tmp_path / "plan.json", {"--data": str(tiny / "unlabelled.npz")}
    assert tune.main(arguments(tiny, output, "accuracy-drop<=0", **data)) == 4
    message = capsys.readouterr().err
    assert "cannot be reached" in message
    assert not output.exists()
    goal = message.split('a goal that holds: "')[1].split('"')[0]
    assert tune.main(arguments(tiny, output, goal, **data)) == 0


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--goal": "sparsity>=2"}, 2, "no share between 0 and 1"),
        ({"--goal": "proxy<=0.1"}, 2, "proxy is no goal of heatc-tune calibrate"),
        ({"--target": "hdp-egde"}, 2, "did you mean 'hdp-edge'?"),
        ({"--target": "numpy"}, 2, "targets that prune attention"),
        ({"--seed": "-1"}, 2, "-1 is below 0"),
        ({"-o": "plan.txt"}, 2, "ends in .json"),
        ({"--block": "8"}, 2, "--block: expected two extents from 1 to 64"),
        ({"--block": "0,2"}, 2, "--block: expected two extents from 1 to 64"),
        (
            {"--block": "3,3", "--hw": "hdp-edge"},
            4,
            "--block: the sparsity engine of hdp-edge has no blocks of 3x3",
        ),
        ({"--pruned-score": "int"}, 2, "unknown pruned score 'int'"),
        ({"--data": "nothing.npz"}, 1, "nothing.npz: cannot open"),
        ({"-o": "no/such/folder/plan.json"}, 1, "there is no folder"),
    ],
)
def test_wrong_options_are_refused(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
):
    argv = arguments(tiny, tmp_path / "plan.json", "sparsity>=0.7", **changes)
    assert tune.main(argv) == code
    assert message in capsys.readouterr().err


def test_a_model_without_attention_has_nothing_to_prune(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = tmp_path / "model.mlir"
    model.write_text(
        f"""func.func @main(%i: tensor<8x{LENGTH}xi64> {{heatc.name = "input_ids"}}) -> tensor<8x{LENGTH}x4xf32> {{
  %t = einsum.weight ["t"] : tensor<{VOCABULARY}x4xf32>
  %y = nn.embedding %t, %i : (tensor<{VOCABULARY}x4xf32>, tensor<8x{LENGTH}xi64>) -> tensor<8x{LENGTH}x4xf32>
  func.return %y : tensor<8x{LENGTH}x4xf32>
}}"""
    )
    weights_file = tmp_path / "w.safetensors"
    save_file({"t": np.ones((VOCABULARY, 4), np.float32)}, weights_file)
    data = tmp_path / "ids.npz"
    np.savez(data, input_ids=np.zeros((16, LENGTH), np.int64))
    changes = {"--weights": str(weights_file), "--data": str(data)}
    argv = arguments(tiny, tmp_path / "plan.json", "sparsity>=0.7", **changes)
    argv[1] = str(model)
    assert tune.main(argv) == 1
    assert "the model has no attention to prune" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["search", "x"], "required"),
        (["calibrat"], "did you mean 'calibrate'?"),
        ([], "COMMAND"),
        (["calibrate", "x"], "required"),
    ],
)
def test_wrong_commands_are_wrong_usage(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert tune.main(argv) == 2
    assert message in capsys.readouterr().err


def test_data_that_does_not_fit_names_the_array(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = tmp_path / "wrong.npz"
    np.savez(data, input_ids=np.full((16, 12), 99), attention_mask=np.ones((16, 12), int))
    argv = arguments(tiny, tmp_path / "plan.json", "sparsity>=0.7", **{"--data": str(data)})
    assert tune.main(argv) == 1
    assert f"{data}: input_ids: values 99..99" in capsys.readouterr().err
