"""plan.json: what is read, and which key a message names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.heat.formats import Spec
from heatc.heat.plan import LayerHeat, entry
from heatc.plan import hardware_sha256, model_sha256, read_plan, weights_sha256
from heatc.rules import OPTIONS, RULE_NAMES, Rule, RuleError, make_rule, options_of
from heatc.tools.main import main
from heatc.tuning.common.factorised import FactorisedLayers
from heatc.tuning.common.plan_data import plan_data
from heatc.weights import WeightStore

LAYER = "encoder.layer.0.attention.self"
HEX = "0123456789abcdef" * 4


def written(folder: Path, data: Any) -> Path:
    path = folder / "plan.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def plan_of(hdp: Any) -> dict[str, Any]:
    return {"schema": 1, "layers": {LAYER: {"hdp": hdp}}}


def widths_of(widths: Any) -> dict[str, Any]:
    return {"schema": 2, "layers": {"up": {"widths": widths}}}


def test_widths_are_kept(tmp_path: Path):
    plan = read_plan(written(tmp_path, widths_of({"activations": 16, "weights": 16})))
    assert plan.widths == {"up": {"activations": 16, "weights": 16}}
    layers = FactorisedLayers({"up": HEAT}, tmp_path / "f.safetensors", HEX, widths=plan.widths)
    written(tmp_path, plan_data({"a": Rule()}, factorised=layers))
    again = read_plan(tmp_path / "plan.json")
    assert (again.schema, again.widths) == (2, plan.widths)


def test_a_plan(tmp_path: Path):
    hdp = {"rule": "ours", "point": 3, "rho_b": [0.5, 0, -0.25], "tau_h": 1, "gated": "zero"}
    layers = {LAYER: {"hdp": hdp}, "dense": {}}
    data = {"schema": 1, "layers": layers, "model_sha256": HEX, "hw_sha256": None, "seed": 7}
    plan = read_plan(written(tmp_path, data))
    assert plan.rules == {
        LAYER: Rule(
            "ours",
            finer=3,
            importance="positive",
            pruned_score="mean",
            gated="zero",
            rho_b=(0.5, 0.0, -0.25),
            tau_h=(1.0,),
        )
    }
    assert (plan.model_sha256, plan.hw_sha256, plan.seed) == (HEX, None, 7)


HEAT = {"format": "low-rank", "ranks": [3]}


def heat_of(**changed: Any) -> dict[str, Any]:
    return {"schema": 1, "layers": {LAYER: {"heat": HEAT | changed}}}


@pytest.mark.parametrize("fuse", [None, True, False, 64])
def test_a_factorised_layer(fuse: bool | int | None, tmp_path: Path):
    spec = Spec("low-rank", (8,), (12,), (3,))
    for path in (None, ((0, 1), (3, 2))):
        data = {"schema": 1, "layers": {LAYER: {"heat": entry(spec, path, fuse)}}}
        heat = read_plan(written(tmp_path, data)).heat[LAYER]
        assert heat == LayerHeat("low-rank", None, (3,), path, fuse)
        assert type(heat.fuse) is type(fuse)
        assert heat.spec(8, 12) == spec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not JSON"),
        (heat_of(fuse=0), ".heat.fuse: expected a boolean, a number of tokens or null, got 0"),
        (heat_of(fuse=-1), ".heat.fuse: expected a boolean, a number of tokens or null, got -1"),
        (heat_of(fuse=1.5), ".heat.fuse: expected a boolean, a number of tokens or null, got 1.5"),
        (heat_of(path=[[0]]), ".heat.path: expected a list of pairs of operands, got [[0]]"),
        (heat_of(path=[]), ".heat.path: expected a list of pairs of operands, got []"),
        (heat_of(ranks=[0]), ".heat.ranks: expected up to 16 integers from 1 to 1048576, got [0]"),
        (heat_of(fused=True), ".heat.fused: unknown key"),
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"schema": 1, "schema": 1}', "key 'schema' stands twice"),
        ([], "expected a JSON object, got an array"),
        ({}, "schema: the key is missing"),
        ({"schema": True, "layers": {}}, "schema: expected 1 or 2, got True"),
        ({"schema": 3, "layers": {}}, "schema: expected 1 or 2, got 3"),
        ({"schema": 1}, "layers: the key is missing"),
        ({"schema": 1, "layers": []}, "layers: expected an object, got an array"),
        ({"schema": 1, "layers": {}, "sha": 1}, "sha: unknown key"),
        ({"schema": 1, "layers": {}, "seed": 1.5}, "seed: expected an integer or null, got 1.5"),
        ({"schema": 2, "layers": {}, "hw": 3}, "hw: expected the name of a machine or null, got 3"),
        ({"schema": 1, "layers": {}, "hw_sha256": "0"}, "hw_sha256: expected 64 hexadecimal"),
        ({"schema": 1, "layers": {"a": None}}, 'layers["a"]: expected an object, got null'),
        ({"schema": 1, "layers": {"a": {"hpd": {}}}}, 'layers["a"].hpd: unknown key'),
        ({"schema": 1, "layers": {"a": {"widths": {}}}}, "unknown key, expected one of heat, hdp"),
        (widths_of([]), 'layers["up"].widths: expected an object, got an array'),
        (widths_of({"bias": 16}), 'layers["up"].widths.bias: unknown key, expected one of activ'),
        (
            widths_of({"weights": 0}),
            "widths.weights: expected a number of bits from 1 to 32, got 0",
        ),
        (widths_of({"weights": True}), "widths.weights: expected a number of bits from 1 to 32"),
        (widths_of({"weights": 8}), "weights: operands of 8 bits: heatc computes in 16 alone"),
        (plan_of([]), f'layers["{LAYER}"].hdp: expected an object, got an array'),
        (plan_of({}), f'layers["{LAYER}"].hdp.rule: expected a rule\'s name, got None'),
        (plan_of({"rule": "our"}), ".hdp.rule: unknown rule 'our'"),
        (plan_of({"rule": "ours", "finer": 1}), ".hdp.finer: unknown key"),
        (plan_of({"rule": "ours", "point": 15}), ".hdp.point: finer 15 is outside 0..14"),
        (plan_of({"rule": "ours", "point": 1.0}), ".hdp.point: finer 1.0 is no int"),
        (plan_of({"rule": "ours", "point": True}), ".hdp.point: finer True is no int"),
        (plan_of({"rule": "ours", "rho_b": [0, 1]}), ".hdp.rho_b: rho-b 1 is outside (-1, 1)"),
        (plan_of({"rule": "ours", "rho_b": []}), ".hdp.rho_b: rho-b needs at least one value"),
        (plan_of({"rule": "ours", "rho_b": None}), ".hdp.rho_b: rho-b None is no float"),
        (plan_of({"rule": "ours", "tau_h": float("inf")}), "Infinity is no number of JSON"),
        (plan_of({"rule": "ours", "tau_h": 10**400}), ".hdp.tau_h: tau-h 1"),
        (plan_of({"rule": "ours", "block": [2, 0]}), ".hdp.block: block 0 is outside 1..64"),
        (plan_of({"rule": "ours", "block": [2]}), ".hdp.block: block needs 2 value(s), got 1"),
        (plan_of({"rule": "ours", "gated": "no"}), ".hdp.gated: gated no is not one of zero"),
        (plan_of({"rule": "paper", "gated": "zero"}), ".hdp.gated: rule paper does not take gated"),
    ],
)
def test_a_wrong_key_is_named(data: Any, message: str, tmp_path: Path):
    path = written(tmp_path, data)
    with pytest.raises(HeatcError) as error:
        read_plan(path)
    assert message in error.value.message
    assert error.value.place == str(path)
    assert error.value.exit_code == 1


def test_every_rule_takes_its_own_defaults():
    every = {name: options_of(name) for name in RULE_NAMES}
    for name, defaults in every.items():
        rule = make_rule(name, defaults)
        assert rule == make_rule(name, {})
        assert rule.options == defaults
        assert str(rule).startswith(name)
    for option in OPTIONS:
        assert any(option in defaults for defaults in every.values())


def test_values_by_head():
    rule = make_rule("ours", {"rho_b": [0.1, 0.2], "tau_h": 1.0})
    rule.check_heads(2)
    with pytest.raises(RuleError, match="rho-b has 2 values for 3 heads"):
        rule.check_heads(3)


def test_digests(tmp_path: Path):
    one, other = tmp_path / "a.pt2", tmp_path / "b.pt2"
    one.write_bytes(b"model")
    other.write_bytes(b"model")
    assert model_sha256(one) == model_sha256(other)
    other.write_bytes(b"model.")
    assert model_sha256(one) != model_sha256(other)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README").write_text("of no matter")
    before = model_sha256(folder)
    (folder / "README").write_text("changed")
    assert model_sha256(folder) == before
    save_file({"w": np.zeros(1, np.float32)}, folder / "model.safetensors")
    assert model_sha256(folder) != before
    assert hardware_sha256(load_hardware("hdp-edge")) != hardware_sha256(
        load_hardware("hdp-server")
    )
    with pytest.raises(HeatcError, match="no such file"):
        model_sha256(tmp_path / "missing")


def weights(**arrays: Any) -> WeightStore:
    return WeightStore({name: np.array(array) for name, array in arrays.items()})


def test_the_digest_of_weights_is_of_their_values_by_name():
    one = weights(b=np.eye(3, dtype=np.float32), a=np.zeros(2), ids=[1, 2], more=[0.5])
    names = ["a", "b", "ids"]
    digest = weights_sha256(one, names)
    assert digest == weights_sha256(one, reversed(names))
    # Integers are left out, and what is not read.
    for same in ({"ids": np.array([3])}, {"more": np.array([1.5])}):
        assert digest == weights_sha256(WeightStore({**one, **same}), names)
    for other in (
        {"b": np.full((3, 3), 2, np.float32)},
        {"a": np.zeros(2, np.float32)},
        {"a": np.zeros((1, 2))},
        {"a": one["b"], "b": one["a"]},
    ):
        assert digest != weights_sha256(WeightStore({**one, **other}), names)


@pytest.mark.parametrize("changed", [False, True])
def test_a_plan_is_for_weights_whatever_file_holds_them(
    changed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    eye = np.eye(12, 8, dtype=np.float32)
    digest = weights_sha256(weights(**{"up.weight": eye}), ["up.weight"])
    model, file, output = (tmp_path / name for name in ("m.mlir", "w.safetensors", "x.py"))
    model.write_text(f"// of another text\n{FACTORISED}")
    save_file({"up.weight": eye + changed, "other": np.zeros(3)}, file)
    data = {"schema": 2, "model_sha256": digest, "layers": {"up": {"heat": HEAT}}}
    plan = written(tmp_path, data)
    words = ["--weights", str(file), "--target", "numpy", "--plan", str(plan)]
    assert main([str(model), "-o", str(output), *words]) == int(changed)
    assert (
        "model_sha256: the plan was made for another model" in capsys.readouterr().err
    ) == changed
    assert output.exists() != changed


MODULE = """
func.func @main(%m: tensor<1x1x1x4xi1> {heatc.name = "m"}, %x: tensor<1x4x4xf32> {heatc.name = "x"}) -> tensor<1x4x4xf32> {
  %o = attn.sdpa %x, %x, %x masks %m : tensor<1x1x1x4xi1> {heads = 2 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"} : tensor<1x4x4xf32>, tensor<1x4x4xf32>, tensor<1x4x4xf32> -> tensor<1x4x4xf32> loc("layer.0.attention"("m.py":1:0))
  func.return %o : tensor<1x4x4xf32>
}
"""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_sha256": HEX}, "model_sha256: the plan was made for another model"),
        (
            {"layers": {"layer.1.attention": {"hdp": {"rule": "paper"}}}},
            "layers['layer.1.attention']: the model has no such attention",
        ),
        (
            {"layers": {"layer.0.attention": {"hdp": {"rule": "paper", "rho_b": [0, 0, 0]}}}},
            "rho-b has 3 values for 2 heads",
        ),
    ],
)
def test_a_plan_for_something_else_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, output = tmp_path / "model.mlir", tmp_path / "x.mlir"
    model.write_text(MODULE)
    path = written(tmp_path, {"schema": 1, "layers": {}} | changed)
    arguments = [str(model), "-o", str(output), "--target", "hdp-edge", "--plan", str(path)]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert not output.exists()


def test_digests_that_fit_are_no_obstacle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = tmp_path / "model.mlir"
    model.write_text(MODULE)
    digests = {
        "model_sha256": model_sha256(model),
        "hw_sha256": hardware_sha256(load_hardware("hdp-edge")),
    }
    layers = {"layer.1.attention": {"hdp": {"rule": "paper"}}}
    path = written(tmp_path, {"schema": 1, "layers": layers} | digests)
    assert (
        main(
            [
                str(model),
                "-o",
                str(tmp_path / "x.mlir"),
                "--target",
                "hdp-edge",
                "--plan",
                str(path),
            ]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert "layers['layer.1.attention']" in error
    assert "did you mean 'layer.0.attention'?" in error


FACTORISED = """
func.func @main(%x: tensor<?x8xf32> {heatc.name = "x"}) -> (tensor<?x12xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["up.weight"] : tensor<12x8xf32>
  %y = einsum.contract "ti,oi->to" %x, %w : (tensor<?x8xf32>, tensor<12x8xf32>) -> tensor<?x12xf32>
  func.return %y : tensor<?x12xf32>
}
"""


@pytest.mark.parametrize(
    ("layer", "path", "message"),
    [
        ("up", [[0, 1], [0, 2]], "path of up is none: step (0, 2) contracts what is not in [2, 3]"),
        ("up", [[0, 1]], "path of up is none: expected a path of 2 steps, got 1"),
        ("down", None, "layers['down']: the model has no such layer"),
    ],
)
def test_a_plan_of_other_factors_is_refused(
    layer: str, path: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, weights, output = (tmp_path / name for name in ("m.mlir", "w.safetensors", "x.py"))
    model.write_text(FACTORISED)
    save_file({"up.weight": np.eye(12, 8, dtype=np.float32)}, weights)
    layers = {"up": {"heat": HEAT}} | {layer: {"heat": HEAT | {"path": path}}}
    plan = written(tmp_path, {"schema": 1, "layers": layers})
    words = ["--weights", str(weights), "--target", "numpy", "--plan", str(plan)]
    assert main([str(model), "-o", str(output), *words]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (heat_of(ranks=[1 << 40]), "heat.ranks: expected up to 16 integers from 1 to 1048576"),
        (heat_of(ranks=list(range(1, 100_000))), "heat.ranks: expected up to 16 integers"),
        (heat_of(ranks=[[[[3]]]]), "heat.ranks: expected up to 16 integers"),
        (heat_of(format=["low-rank"]), "heat.format: expected one of low-rank"),
        (heat_of(path=[[0, 1]] * 1000), "heat.path: expected a list of pairs of operands"),
        (heat_of(path=[[0, 1 << 40]]), "heat.path: expected a list of pairs of operands"),
        (heat_of(fuse=1 << 40), "heat.fuse: expected a boolean, a number of tokens or null"),
        (heat_of(format="tt", shape="2x" * 10_000 + "2|2"), "heat.shape: expected inputs|outputs"),
        (
            plan_of({"rule": "ours", "rho_b": [0.1] * 5000}),
            "rho_b: rho-b has 5000 values, at most 4096",
        ),
        (plan_of({"rule": "ours", "tau_h": [[0.1]]}), "tau_h: tau-h [0.1] is no float"),
        (plan_of({"rule": {"a": 1}}), "hdp.rule: expected a rule's name"),
        ({"schema": 1, "layers": {"x" * 10_000: 3}}, "xxx"),
        ({"schema": 1, "layers": {}, "x" * 10_000: 3}, "unknown key"),
        (
            {"schema": 1, "layers": {}, "factors": {"file": "../x", "sha256": HEX}},
            "beside the plan",
        ),
        (
            {"schema": 1, "layers": {}, "factors": {"file": "/dev/zero", "sha256": HEX}},
            "beside the",
        ),
        ('{"schema": 1, "layers": {"a": {}, "a": {}}}', "key 'a' stands twice"),
    ],
)
def test_an_absurd_plan_is_one_short_message(data: Any, message: str, tmp_path: Path):
    with pytest.raises(HeatcError) as error:
        read_plan(written(tmp_path, data))
    assert message in error.value.message
    assert len(error.value.message) < 500


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ranks": [9]}, "ranks: 9 is above 8, all that low-rank of a layer of 8 to 12 can use"),
        ({"ranks": [1 << 20]}, "ranks: 1048576 is above 8"),
        ({"format": "tt", "shape": "2x4|3x4", "ranks": [3, 8, 4]}, "ranks: 3 is above 2"),
        ({"format": "tt", "shape": "2x4|3x5", "ranks": [2, 2, 2]}, "shape: 2x4|3x5 does not fit"),
        (
            {"format": "tt", "shape": "2x1048576|3x4", "ranks": [2, 2, 2]},
            "shape: 2x1048576|3x4 does",
        ),
        ({"format": "cp", "shape": "2x2x2|2x2x3", "ranks": [64]}, "ranks: 64 is above 32"),
        ({"format": "cp", "shape": "2x4|3x4", "ranks": [24]}, None),
    ],
)
def test_a_layer_is_checked_before_anything_is_built(
    changed: dict[str, Any], message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, weights, output = (tmp_path / name for name in ("m.mlir", "w.safetensors", "x.py"))
    model.write_text(FACTORISED)
    save_file({"up.weight": np.eye(12, 8, dtype=np.float32)}, weights)
    plan = written(tmp_path, {"schema": 1, "layers": {"up": {"heat": HEAT | changed}}})
    words = ["--weights", str(weights), "--target", "numpy", "--plan", str(plan)]
    code = main([str(model), "-o", str(output), *words])
    assert code == (0 if message is None else 1)
    err = capsys.readouterr().err
    assert message is None or f"plan.json: layers['up'].heat.{message}" in err


def test_factors_may_not_outgrow_their_layer():
    heat = LayerHeat("cp", ((8, 8, 8), (8, 8, 8)), (4096,))
    with pytest.raises(HeatcError, match=r"ranks: the factors have \d+ elements, the layer 262144"):
        LayerHeat("cp", ((8, 8, 8), (8, 8, 8)), (32768,)).spec(512, 512)
    assert heat.spec(512, 512).parameters == 4096 * 48
    table = LayerHeat("cp", ((2, 4), (3, 4)), (2,))
    assert table.spec(7, 12, is_table=True).inputs == (2, 4)
    with pytest.raises(HeatcError, match="does not fit a layer of 7 to 12"):
        table.spec(7, 12)


def test_the_model_of_a_plan_is_a_file(tmp_path: Path):
    with pytest.raises(HeatcError, match="not a regular file"):
        model_sha256("/dev/zero")
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(HeatcError, match="not a regular file"):
        model_sha256(tmp_path)
