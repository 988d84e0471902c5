"""HEAT and HDP in one plan: students trained under pruning, factorised models calibrated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_classifier import HEADS, LAYERS, LENGTH, VOCABULARY, ir_text, weights
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.parser import Parser

from heatc.api import Compilation, make_context
from heatc.backends.hdp import open_program, simulate
from heatc.dialects import attn
from heatc.hardware import load_hardware
from heatc.heat.options import plan_options
from heatc.interpreter import execute, reference
from heatc.names import factors_file
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.plan import hardware_sha256, read_plan
from heatc.rules import Rule, make_rule
from heatc.targets import Numpy, Options
from heatc.tools import main as heatc
from heatc.tools import tune
from heatc.tuning.common.packed_model import PackedModel
from heatc.tuning.common.torch_attention import attend
from heatc.tuning.common.torch_model import TorchModel
from heatc.tuning.distill.train import Training
from heatc.weights import WeightStore

pytestmark = pytest.mark.usefixtures("one_thread")

HEAT = "low-rank,rank=6,layers=l*"
OURS = ["--hdp-rule", "ours", "--rho-b", "0.3,0.2,0.1,0.4", "--tau-h", "0,0.4,0,0"]
RULE = make_rule("ours", {"rho_b": (0.3, 0.2, 0.1, 0.4), "tau_h": (0.0, 0.4, 0.0, 0.0)})


def arguments(command: str, folder: Path, output: Path, *others: str) -> list[str]:
    options = {
        "--data": str(folder / "data.npz"),
        "--weights": str(folder / "weights.safetensors"),
        "--work-dir": str(output.parent / "work"),
        "-o": str(output),
    }
    words = [x for option in options.items() for x in option]
    return [command, str(folder / "model.mlir"), *words, *others]


def run(*words: str | list[str]) -> int:
    return tune.main([w for word in words for w in ([word] if isinstance(word, str) else word)])


def report_of(plan: Path) -> dict[str, Any]:
    return json.loads(plan.with_suffix(".report.json").read_text())


def module_of(batch: int) -> ModuleOp:
    return Parser(make_context(), ir_text(batch)).parse_module()


def batches(folder: Path) -> list[dict[str, Any]]:
    with np.load(folder / "unlabelled.npz") as data:
        arrays = dict(data)
    return [{k: v[i : i + 8] for k, v in arrays.items()} for i in range(0, 48, 8)]


def factorised(plan: Path) -> tuple[ModuleOp, WeightStore]:
    """The tiny model with a plan's factors, at the packed level."""
    compilation = Compilation(
        Options(Numpy(), plan=read_plan(plan), level=0, heat=plan_options(None))
    )
    compilation.adopt(module_of(8), WeightStore(weights(seed=0)), "tiny")
    compilation.run()
    return compilation.module, compilation.weights


def compiled(folder: Path, plan: Path, output: Path) -> int:
    model = [str(folder / "model.mlir"), "--weights", str(folder / "weights.safetensors")]
    return heatc.main([*model, "--plan", str(plan), "-o", str(output)])


@pytest.fixture(scope="module")
def heat(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan with factors as `heat-decompose` leaves them."""
    output = tmp_path_factory.mktemp("heat") / "heat.json"
    assert run(arguments("distill", tiny, output, "--heat", HEAT, "--epochs", "0+0", "-q")) == 0
    return output


@pytest.fixture(scope="module")
def both(tiny: Path, heat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, calibrated for pruning, in a folder of its own."""
    output = tmp_path_factory.mktemp("both") / "both.json"
    command = arguments("calibrate", tiny, output, "--plan", str(heat), "-q")
    assert run(command, "--goal", "sparsity>=0.6") == 0
    return output


# ---- the student's attention ------------------------------------------------------------------


def interpreted(
    module: ModuleOp, store: WeightStore, inputs: dict[str, Any]
) -> tuple[Any, list[Any], list[Any]]:
    """Outputs, block masks and head gates of a pruned module, op by op by the interpreter."""
    masks: list[Any] = []
    gates: list[Any] = []

    def observe(op: Operation, found: Sequence[Any]) -> None:
        masks.extend([found[0]] if isinstance(op, attn.BlockMaskOp) else [])
        gates.extend([found[0]] if isinstance(op, attn.HeadGateOp) else [])

    (output, *_) = execute(module, inputs, store, observe).values()
    return output, masks, gates


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ours", {"rho_b": (0.3, -0.2, 0.1, 0.6), "tau_h": (0.0, 0.4, 100.0, 0.1)}),
        ("ours", {"rho_b": 0.5, "pruned_score": "int", "gated": "mean", "tau_h": 0.5}),
        ("ours", {"rho_b": 0.9, "pruned_score": "neginf", "importance": "abs", "finer": 0}),
        ("ours", {"rho_b": 0.2, "pruned_score": "zero", "block": (4, 2), "finer": 3}),
        ("paper", {"rho_b": 0.25, "tau_h": (0.0, 0.9, 0.0, 1.2)}),
        ("paper", {"rho_b": -0.5, "pruned_score": "neginf"}),
    ],
)
def test_the_student_decides_and_computes_as_the_interpreter(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
):
    # Of eight sequences three, three and two are decided on at once.
    monkeypatch.setattr("heatc.tuning.common.torch_attention.CHUNK", 3 * HEADS * LENGTH**2)
    inputs, store = batches(tiny)[0], WeightStore(weights(seed=0))
    inputs["attention_mask"][3, 1:] = 0
    pruned = module_of(8)
    values = {k: (v,) if isinstance(v, float) else v for k, v in options.items()}
    InsertHdpPass(rule=name, **values).apply(make_context(store), pruned)  # pyright: ignore[reportArgumentType]
    expected, masks, gates = interpreted(pruned, store, inputs)

    module = module_of(8)
    rules: dict[Operation, Rule] = {
        op: make_rule(name, options) for op in module.walk() if isinstance(op, attn.SdpaOp)
    }
    student = TorchModel(module, store, ["l0.q.weight"], rules=rules)(inputs)
    assert np.abs(student.outputs["logits"].detach().numpy() - expected).max() < 1e-5
    assert len(student.decisions) == len(masks) == len(LAYERS)
    for decisions, mask in zip(student.decisions, masks):
        found = decisions.blocks.numpy()
        np.testing.assert_array_equal(found, mask[:, :, : found.shape[2], : found.shape[3]])
        assert 0 < int(decisions.kept()) < int(decisions.total())
    assert len(gates) == (len(LAYERS) if "tau_h" in options else 0)
    for decisions, gate in zip(student.decisions, gates):
        # What a sequence without tokens does matters to nothing.
        real = inputs["attention_mask"].any(axis=1)
        np.testing.assert_array_equal(decisions.heads.numpy()[real], gate[real])


@pytest.mark.parametrize("pruned", ["zero", "neginf", "int", "mean"])
@pytest.mark.parametrize("gated", ["zero", "mean", "col"])
def test_gradients_are_those_of_differences(pruned: str, gated: str):
    # Integer parts so fine that a step is many of them: rounding then has the slope of none.
    options = {"finer": 14, "rho_b": 0.1, "pruned_score": pruned, "gated": gated}
    rule = make_rule("ours", {**options, "tau_h": (0.0, 1e6)})
    generator = torch.Generator().manual_seed(0)
    lengths, real = torch.tensor([6, 3, 0]), torch.zeros(3, 1, 6, 1)
    for sequence, length in enumerate(lengths):
        real[sequence, :, :length] = 1

    def drawn() -> torch.Tensor:
        return real * torch.randn(3, 2, 6, 4, generator=generator, dtype=torch.float64)

    point = [drawn().requires_grad_() for _ in range(3)]
    direction, weight = [drawn() for _ in range(3)], drawn()

    def value(step: float) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (x + step * d for x, d in zip(point, direction))
        out, decisions = attend(q, k, v, lengths, 0.5, rule)
        return (out * weight).sum(), decisions.blocks

    size = 4e-3
    (above, kept_above), (below, kept_below) = value(size), value(-size)
    assert torch.equal(kept_above, kept_below), "the step changes a decision"
    here, kept = value(0.0)
    assert bool(kept.any()), "nothing is kept"
    here.backward()  # pyright: ignore[reportUnknownMemberType]
    slopes = [torch.zeros_like(x) if x.grad is None else x.grad for x in point]
    slope = sum(float((g * d).sum()) for g, d in zip(slopes, direction))
    expected = float(above.detach() - below.detach()) / (2 * size)
    assert slope == pytest.approx(expected, rel=0.02)


def test_a_row_that_is_pruned_whole_gives_nothing():
    # Of one block a row: Theta may exceed theta by one rounding (docs/design/numerics.md).
    rule = make_rule("ours", {"rho_b": 0.2, "pruned_score": "neginf"})
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(40, 1, 2, 4, generator=generator) * 3 for _ in range(3))
    q.requires_grad_()
    out, decisions = attend(q, k, v, torch.full((40,), 2), 0.5, rule)
    out.sum().backward()  # pyright: ignore[reportUnknownMemberType]
    kept = decisions.blocks[:, 0, 0, 0]
    assert 0 < int(kept.sum()) < 40
    assert not out[~kept].any()
    assert q.grad is not None
    assert torch.isfinite(q.grad).all()
    assert q.grad[kept].any()
    for sequence in range(40):
        a, b, c = (x[sequence, 0].detach().double().numpy() for x in (q, k, v))
        expected = reference.attend(a, b, c, 0.5, reference.Head.of(rule, 0))
        np.testing.assert_allclose(out[sequence, 0].detach().numpy(), expected, atol=1e-5)


def test_gradients_reach_the_factors(tiny: Path, both: Path):
    module, store = factorised(both)
    rules: Any = InsertHdpPass().rules(module)
    inputs = batches(tiny)[0]
    inputs["attention_mask"][3, 1:] = 0
    student = TorchModel(module, store, store.added, rules=rules)
    student(inputs).outputs["logits"].square().sum().backward()
    for name, parameter in student.parameters_by_name.items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A bias of keys moves all scores of a row alike: it reaches integer parts alone.
        assert name.endswith("k.2") or parameter.grad.abs().max() > 0, name


# ---- training under pruning -------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More random text than the other tests need."""
    file, rng = tmp_path_factory.mktemp("texts") / "texts.npz", np.random.default_rng(7)
    mask = (np.arange(LENGTH) < rng.integers(3, LENGTH + 1, 320)[:, None]).astype(np.int64)
    ids = rng.integers(0, VOCABULARY, (320, LENGTH)) * mask
    np.savez(file, input_ids=ids, attention_mask=mask)
    return file


def test_training_lowers_the_loss_under_pruning(
    tiny: Path, both: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "small.json"
    command = arguments("distill", tiny, output, "--plan", str(both), "--data", str(texts))
    assert run(command, "--epochs", "3+3", "--rates", "3e-3,3e-3") == 0
    assert "dev pruned" in capsys.readouterr().out
    report = report_of(output)
    before, after = report["before"], report["after"]
    assert after["dev outputs"] < 0.8 * before["dev outputs"]
    assert all(0.4 < found["dev pruned"] < 0.8 for found in (before, after))


def test_an_interrupted_run_gives_the_same_factors(
    tiny: Path,
    both: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    words = ["--plan", str(both), "--epochs", "2+2", "--rates", "1e-2,1e-2"]
    files = [tmp_path / name / "small.json" for name in ("whole", "broken")]
    for file in files:
        file.parent.mkdir()
    whole, broken = files
    assert run(arguments("distill", tiny, whole, *words)) == 0

    monkeypatch.setattr("heatc.tuning.distill.train.KEEP_EVERY", 2)
    step, count = Training._step, 0

    def interrupted(self: Training, inputs: Any) -> None:
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        step(self, inputs)

    monkeypatch.setattr(Training, "_step", interrupted)
    assert run(arguments("distill", tiny, broken, *words)) == 130
    # Without the rules it is another training: nothing to go on with.
    assert run(arguments("distill", tiny, broken, *words, "--hdp-rule", "none")) == 0
    assert "went on" not in capsys.readouterr().err
    assert run(arguments("distill", tiny, broken, *words)) == 0
    assert "went on" in capsys.readouterr().err
    first, second = (load_file(factors_file(p)) for p in files)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    for key in ("before", "epochs", "after", "rules"):
        assert report_of(whole)[key] == report_of(broken)[key]


# ---- plans that say both ----------------------------------------------------------------------


def kept_on_machine(masks: dict[str, Any], layer: str) -> Any:
    """Kept blocks of kept heads, (samples, heads, blocks, blocks); no gate keeps all heads."""
    gate = masks.get(f"gate/{layer}", np.ones(1)).astype(bool)
    return masks[f"mask/{layer}"].astype(bool) & gate[..., None, None]


@pytest.mark.parametrize("words", [["--heat", HEAT, *OURS], ["--plan"]])
def test_the_plan_compiles_to_the_program_that_was_trained(
    tiny: Path, both: Path, tmp_path: Path, words: list[str]
):
    output, program = tmp_path / "small.json", tmp_path / "small.hdp"
    command = arguments("distill", tiny, output, "--epochs", "1+1", "-q")
    assert run(command, words, [str(both)] if words == ["--plan"] else []) == 0
    plan = read_plan(output)
    expected = read_plan(both).rules if words == ["--plan"] else dict.fromkeys(LAYERS, RULE)
    assert plan.rules == expected
    assert len(plan.heat) == 8
    assert set(report_of(output)["rules"]) == set(LAYERS)

    # The machine's masks are those of the student, but for blocks that rounding moves.
    assert compiled(tiny, output, program) == 0
    loaded = open_program(program)
    assert set(loaded.manifest.options["plan"]) == set(LAYERS)
    module, store = factorised(output)
    rules: Any = InsertHdpPass().rules(module)
    student = TorchModel(module, store, rules=rules)
    same = total = 0
    for inputs in batches(tiny):
        machine: Any = simulate(loaded, inputs, masks=True)
        ours = student(inputs)
        for layer, decisions in zip(LAYERS, ours.decisions):
            kept = (decisions.blocks & decisions.heads[..., None, None]).numpy()
            theirs = kept_on_machine(machine.masks, layer)[:, :, : kept.shape[2], : kept.shape[3]]
            edge = -(-inputs["attention_mask"].sum(axis=1) // 2)
            real = np.arange(kept.shape[2]) < edge[:, None]
            real = (real[:, :, None] & real[:, None])[:, None] & np.ones((1, HEADS, 1, 1), bool)
            same, total = same + int((kept == theirs)[real].sum()), total + int(real.sum())
    assert same / total > 0.985


def test_training_without_pruning_keeps_the_rules_of_the_plan(
    tiny: Path, both: Path, tmp_path: Path
):
    output = tmp_path / "small.json"
    command = arguments("distill", tiny, output, "--plan", str(both), "--epochs", "1+0", "-q")
    assert run(command, "--hdp-rule", "none") == 0
    assert read_plan(output).rules == read_plan(both).rules
    assert report_of(output)["rules"] == {}
    assert "dev pruned" not in report_of(output)["before"]


# ---- calibrating a factorised model -----------------------------------------------------------


def test_a_factorised_model_is_calibrated(tiny: Path, heat: Path, both: Path):
    before, after = read_plan(heat), read_plan(both)
    assert after.heat == before.heat
    assert after.factors is not None
    assert after.factors.path == factors_file(both)
    assert before.factors is not None
    assert after.factors.path.read_bytes() == before.factors.path.read_bytes()
    assert set(after.rules) == set(LAYERS)
    report = report_of(both)
    assert report["factorised"] == 8
    assert any("losses are those of pruning alone" in text for text in report["remarks"])

    # What calibration measured in NumPy is what the student prunes in PyTorch.
    module, store = factorised(both)
    rules: Any = InsertHdpPass().rules(module)
    student = TorchModel(module, store, rules=rules)
    decided = [d for inputs in batches(tiny) for d in student(inputs).decisions]
    kept, total = (
        sum(int(f) for f in found) for found in zip(*[(d.kept(), d.total()) for d in decided])
    )
    assert 1 - kept / total == pytest.approx(report["result"]["all"]["net_sparsity"], abs=1e-3)


@pytest.mark.parametrize("words", [HEAT, "tt,rank=8,modes=2,layers=l*"])
def test_the_metric_of_a_factorised_projection_is_that_of_its_product(
    tiny: Path, tmp_path: Path, words: str
):
    output = tmp_path / "heat.json"
    command = arguments("distill", tiny, output, "--heat", words, "--epochs", "0+0", "-q")
    assert run(command) == 0
    module, store = factorised(output)
    model = PackedModel(module, store)
    for layer, attention in enumerate(model.attentions):
        factors: list[Any] = [store[f"l{layer}.o.{k}"] for k in range(2 if words == HEAT else 4)]
        if words == HEAT:
            product = factors[1] @ factors[0]
        else:
            product = np.einsum("aA,AbB,BmC,Cn->mnab", *factors).reshape(16, 16)
        for head in range(HEADS):
            own = product[:, 4 * head : 4 * head + 4]
            np.testing.assert_allclose(attention.metric[head], own.T @ own, atol=1e-4)


def test_factors_that_the_plan_does_not_bring_are_written(tiny: Path, heat: Path, tmp_path: Path):
    """And cycles are counted of the factorised program."""
    bare, output = tmp_path / "bare.json", tmp_path / "out.json"
    plan = json.loads(heat.read_text())
    del plan["factors"]
    bare.write_text(json.dumps(plan))
    command = arguments("calibrate", tiny, output, "--plan", str(bare), "-q")
    assert run(command, "--goal", "sparsity>=0.5", "--target", "hdp-edge") == 0
    found = read_plan(output)
    assert found.factors is not None
    assert len(found.factors.open()) == 8 * 3
    assert found.hw_sha256 == hardware_sha256(load_hardware("hdp-edge"))
    program = tmp_path / "x.hdp"
    assert compiled(tiny, output, program) == 0
    with np.load(tiny / "unlabelled.npz") as data:
        cycles = [simulate(open_program(program), b).result.cycles for b in _sorted(dict(data))]
    assert report_of(output)["cost"]["plan"]["cycles"] == pytest.approx(np.mean(cycles), rel=0.1)


def _sorted(data: dict[str, Any]) -> list[dict[str, Any]]:
    order = np.argsort(data["attention_mask"].sum(axis=1), kind="stable")
    return [{k: v[order[i : i + 8]] for k, v in data.items()} for i in range(0, 48, 8)]


def test_a_plan_is_calibrated_anew(tiny: Path, both: Path, tmp_path: Path):
    """The factors of the plan that was read stay, its rules are chosen again."""
    plan = tmp_path / "again.json"
    command = arguments("calibrate", tiny, plan, "--plan", str(both), "-q")
    assert run(command, "--goal", "sparsity>=0.3") == 0
    assert read_plan(plan).rules != read_plan(both).rules
    first, second = (load_file(factors_file(p)) for p in (both, plan))
    assert all(np.array_equal(second[name], array) for name, array in first.items())
    assert compiled(tiny, plan, tmp_path / "x.hdp") == 0


# ---- wrong inputs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--heat", HEAT, "--hdp-rule", "topk"], 2, "topk"),
        (["--heat", HEAT, "--rho-b", "0.3"], 2, "give --hdp-rule too"),
        (["--heat", HEAT, "--hdp-rule", "none", "--rho-b", "0.3"], 2, "does not take rho-b"),
        (["--heat", HEAT, "--hdp-rule", "ours", "--rho-b", "3"], 2, "outside (-1, 1)"),
        (["--heat", HEAT, "--hdp-rule", "paper", "--gated", "col"], 2, "does not take gated"),
        (["--heat", HEAT, "--hdp-rule", "ours", "--rho-b", "0.1,0.2"], 1, "2 values for 4 heads"),
    ],
)
def test_wrong_options_of_rules(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
):
    assert run(arguments("distill", tiny, tmp_path / "small.json", *words)) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "small.json").exists()


def changed(plan: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a plan with other rules in its first attention, and with its factors."""
    data = json.loads(plan.read_text())
    data |= {k: v for k, v in changes.items() if k != "layer"}
    for path, entry in changes.get("layer", {}).items():
        data["layers"][path] = entry
    copy = folder / "changed.json"
    copy.write_text(json.dumps(data))
    factors = factors_file(plan)
    (folder / factors.name).write_bytes(factors.read_bytes())
    return copy


@pytest.mark.parametrize(
    ("layer", "words", "code", "message"),
    [
        ({LAYERS[0]: {"hdp": {"rule": "topk"}}}, [], 1, "nothing is trained under rule topk"),
        ({"nowhere": {"hdp": {"rule": "ours"}}}, [], 1, "the model has no such attention"),
        ({LAYERS[0]: {"hdp": {"rule": "ours", "rho_b": [0.1, 0.2]}}}, [], 1, "2 values for 4"),
        ({}, ["--hdp-rule", "paper"], 2, "--hdp-rule and the plan both say"),
    ],
)
def test_plans_that_nothing_is_trained_by(
    tiny: Path,
    both: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    layer: dict[str, Any],
    words: list[str],
    code: int,
    message: str,
):
    plan = changed(both, tmp_path, layer=layer)
    command = arguments("distill", tiny, tmp_path / "small.json", "--plan", str(plan), *words)
    assert run(command) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "small.json").exists()


@pytest.mark.parametrize(
    ("wrong", "words", "code", "message"),
    [
        ("rules alone", [], 2, "the plan factorises no layer"),
        ("missing", [], 1, "heat.factors.safetensors: the plan's factors are not there"),
        ("digest", [], 1, "the plan names factors with digest"),
        ("model", [], 1, "made for another model"),
    ],
)
def test_plans_that_are_not_calibrated(
    tiny: Path,
    heat: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
    words: list[str],
    code: int,
    message: str,
):
    changes: dict[str, dict[str, Any]] = {
        "rules alone": {"layers": {LAYERS[0]: {"hdp": {"rule": "ours"}}}, "factors": None},
        "model": {"model_sha256": "0" * 64},
    }
    plan = changed(heat, tmp_path, **changes.get(wrong, {}))
    factors = tmp_path / "heat.factors.safetensors"
    if wrong == "missing":
        factors.unlink()
    if wrong == "digest":
        save_file({"x": np.zeros(1, np.float32)}, factors)
    command = arguments("calibrate", tiny, tmp_path / "out.json", "--plan", str(plan), *words)
    assert run(command, "--goal", "sparsity>=0.5") == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_factors_of_another_machine_are_calibrated_with_a_remark(
    tiny: Path, heat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plan, output = changed(heat, tmp_path, hw="my-board", hw_sha256="0" * 64), tmp_path / "out.json"
    words = ["--plan", str(plan), "--target", "hdp-edge", "--goal", "sparsity>=0.5"]
    assert run(arguments("calibrate", tiny, output, *words)) == 0
    assert "the plan was made for my-board, this is hdp-edge" in capsys.readouterr().err
    assert read_plan(output).hw == "hdp-edge"


@pytest.mark.parametrize("command", ["calibrate", "distill"])
def test_factors_do_not_overwrite_the_weights(
    tiny: Path, heat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    own = tmp_path / "model.factors.safetensors"
    save_file(weights(seed=0), own)
    before = own.read_bytes()
    words = ["--plan", str(heat), "--weights", str(own)]
    words += ["--goal", "sparsity>=0.5"] if command == "calibrate" else []
    assert run(arguments(command, tiny, tmp_path / "model.json", *words)) == 1
    assert "would overwrite an input" in capsys.readouterr().err
    assert own.read_bytes() == before
