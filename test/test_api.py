"""The compiler from Python: live modules to both targets."""

from __future__ import annotations

import importlib.util
import json
import pickle
import runpy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import heatc
from heatc.api import Compilation
from heatc.errors import HeatcError
from heatc.plan import model_sha256
from heatc.targets import Hdp, Numpy, Options

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


class Encoder(torch.nn.Module):
    """Token embedding, one attention with a padding mask, one residual layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.q, self.k, self.v = (torch.nn.Linear(8, 8) for _ in range(3))
        self.last = torch.nn.LayerNorm(8)

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.norm(self.embed(ids))
        q, k, v = (f(x).view(1, 6, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        keep = mask[:, None, None, :].bool()
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.last(x + o.transpose(1, 2).reshape(1, 6, 8))


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return Encoder().eval()


IDS = np.array([[3, 1, 4, 1, 5, 9]])
MASK = np.array([[1, 1, 1, 1, 0, 0]])


def reference(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(IDS), torch.tensor(MASK)).numpy()


def example() -> dict[str, Any]:
    return {"ids": torch.tensor(IDS), "mask": torch.tensor(MASK)}


def test_numpy(model: Any, tmp_path: Path):
    path = heatc.compile(model, example(), target="numpy", output=tmp_path / "encoder.py")
    spec = importlib.util.spec_from_file_location("encoder", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    y = module.main(IDS, MASK)["output"]
    np.testing.assert_allclose(y[:, :4], reference(model)[:, :4], atol=1e-5)
    assert not y[:, 4:].any()


@pytest.mark.parametrize("phase", ["00-captured", "*-raise-attention"])
def test_a_text_of_the_model_goes_on(model: Any, tmp_path: Path, phase: str):
    """What `--dump-phases-to` wrote is a model, with the weights beside it."""
    first = Compilation(Options(Numpy()), dump_phases_to=tmp_path / "phases")
    first.capture_module(model, example())
    first.run()
    (text,) = (tmp_path / "phases").glob(f"{phase}.mlir")
    names = ("again.py", "direct.py")
    heatc.compile(text, target="numpy", output=tmp_path / names[0])
    heatc.compile(model, example(), target="numpy", output=tmp_path / names[1])
    found = [runpy.run_path(str(tmp_path / name))["main"](IDS, MASK)["output"] for name in names]
    np.testing.assert_array_equal(*found)
    with pytest.raises(HeatcError, match=r"shapes of an \.mlir model are in its text"):
        heatc.compile(text, example(), target="numpy", output=tmp_path / "x.py")


def test_hdp(model: Any, tmp_path: Path):
    from heatc.backends.hdp import open_program, simulate

    path = heatc.compile(model, example(), output=tmp_path / "encoder.hdp", hdp_rule="none")
    y: Any = simulate(open_program(path), {"ids": IDS, "mask": MASK}).outputs["output"]
    np.testing.assert_allclose(y[:, :4], reference(model)[:, :4], atol=5e-3)
    assert not y[:, 4:].any()


def test_a_plan_is_for_weights_that_a_live_module_or_an_archive_has(model: Any, tmp_path: Path):
    archive, plan = tmp_path / "m.pt2", tmp_path / "plan.json"
    torch.export.save(torch.export.export(model, (), example()), archive)
    captured = Compilation(Options(Hdp()))
    captured.capture(archive)
    data = {"schema": 2, "model_sha256": captured.weights_sha256(), "layers": {}}
    plan.write_text(json.dumps(data))
    for source, inputs in ((model, example()), (archive, None)):
        heatc.compile(source, inputs, output=tmp_path / "m.hdp", plan=plan, verify=False)
    with torch.no_grad():
        model.q.weight += 1
    with pytest.raises(HeatcError, match="the plan was made for another model"):
        heatc.compile(model, example(), output=tmp_path / "m.hdp", plan=plan, verify=False)
    # Of schema 1 it is the digest of the file.
    plan.write_text(json.dumps({**data, "schema": 1}))
    with pytest.raises(HeatcError, match="a live module has no file to compare with"):
        heatc.compile(model, example(), output=tmp_path / "m.hdp", plan=plan, verify=False)
    plan.write_text(json.dumps({**data, "schema": 1, "model_sha256": model_sha256(archive)}))
    heatc.compile(archive, output=tmp_path / "m.hdp", plan=plan, verify=False)


def test_pruning_changes_the_result(model: Any, tmp_path: Path):
    from heatc.backends.hdp import open_program, simulate

    outputs = []
    for rule in ("none", "paper"):
        path = heatc.compile(model, example(), output=tmp_path / "x.hdp", hdp_rule=rule)
        outputs.append(simulate(open_program(path), {"ids": IDS, "mask": MASK}).outputs["output"])
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_a_live_module_needs_inputs(model: Any, tmp_path: Path):
    with pytest.raises(heatc.HeatcError, match="example inputs"):
        heatc.compile(model, output=tmp_path / "x.hdp")


def test_an_exported_program(model: Any, tmp_path: Path):
    program = torch.export.export(model, (), kwargs=example(), strict=False)
    texts: list[str] = []
    given: Any
    for name, given in (("one", (program,)), ("other", (model, example()))):
        (tmp_path / name).mkdir()
        path = heatc.compile(*given, target="numpy", output=tmp_path / name / "p.py")
        texts.append(path.read_text())
    assert texts[0].replace("ExportedProgram", "Encoder") == texts[1]


LINEAR = torch.nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"model": 3}, "expected a path or an nn.Module for model, got int"),
        ({"model": None}, "expected a path or an nn.Module for model, got NoneType"),
        ({"model": b"x.pt2"}, "expected a path or an nn.Module for model, got bytes"),
        ({"model": LINEAR}, "give `inputs`"),
        ({"model": LINEAR, "inputs": [1]}, "expected a dict or a tuple of tensors for inputs"),
        ({"model": LINEAR, "inputs": (torch.zeros(3, 5),)}, "torch.export cannot export the model"),
        ({"model": "none.pt2"}, "none.pt2: no such file"),
        ({"model": "n" * 5000}, "file name too long"),
        ({"model": "x", "output": 3}, "expected a path for output, got int"),
        ({"model": "x", "target": None}, "expected a path for target, got NoneType"),
        ({"model": "x", "target": "hdp-edg"}, "unknown hardware 'hdp-edg'"),
        ({"model": "x", "plan": 3}, "expected a path for plan, got int"),
        ({"model": "x", "plan": "none.json"}, "none.json: cannot open"),
        ({"model": "x", "calibrate": 3}, "expected a path for calibrate, got int"),
        ({"model": "x", "calibrate": "c.npz"}, "nothing asks for calibration inputs"),
        ({"model": "x", "hdp_rule": ""}, "unknown rule ''"),
        (
            {"model": "none.pt2", "target": Path("numpy"), "output": "x.py"},
            "none.pt2: no such file",
        ),
        ({"model": "x", "remarks": 3}, "expected a path for remarks, got int"),
        ({"model": "x", "hdp_rule": 3}, "expected a text for hdp_rule, got int"),
        ({"model": "x", "heat": 3}, "expected a text for heat, got int"),
        ({"model": "x", "padding": 3}, "expected a text for padding, got int"),
        ({"model": "x", "verify": "yes"}, "expected true or false for verify, got str"),
        ({"model": "x", "verify_seconds": "1"}, "expected a number for verify_seconds, got str"),
        ({"model": "x", "verify_seconds": -1}, "verify_seconds is -1.0, expected 0 to inf"),
        ({"model": "x", "min_cosine": [1]}, "expected a number for min_cosine, got list"),
        ({"model": "x", "min_cosine": 1.5}, "min_cosine is 1.5, expected -1 to 1"),
        ({"model": "x", "min_cosine": float("nan")}, "min_cosine is nan, expected -1 to 1"),
        ({"model": "x", "dump_divergence": 3}, "expected a path for dump_divergence, got int"),
        ({"model": "x", "rho_c": 3}, "unknown option rho-c"),
        ({"model": "x", "hdp_rule": "ours", "rho_b": "x"}, "rho-b 'x' is no float"),
    ],
)
def test_whatever_is_wrong_is_one_error(arguments: dict[str, Any], expected: str, tmp_path: Path):
    with pytest.raises(HeatcError) as caught:
        heatc.compile(**cast("dict[str, Any]", {"output": tmp_path / "x.hdp"} | arguments))
    assert expected in str(caught.value)


class Odd(torch.nn.Module):
    """Weights that no fixed-point type holds: a pass refuses them, not capture."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Encoder()
        self.mix = torch.nn.Linear(8, 8)
        torch.nn.init.constant_(self.mix.weight, 1e31)

    def forward(self, ids: Any, mask: Any) -> Any:
        return self.mix(self.inner(ids, mask))


def test_what_a_pass_refuses_is_the_same_error(tmp_path: Path):
    """Passes raise xDSL's exceptions; what leaves the API is ours, with place and message in its text."""
    with pytest.raises(HeatcError) as caught:
        heatc.compile(Odd().eval(), example(), output=tmp_path / "x.hdp", hdp_rule="none")
    assert caught.value.__cause__ is not None
    assert type(caught.value.__cause__).__module__.startswith("xdsl.")
    text = str(caught.value)
    assert "weight 'mix.weight' can be as large as" in text
    assert text.startswith(
        f"{caught.value.place}: " if caught.value.place else caught.value.message
    )


def test_an_error_survives_a_process():
    error = HeatcError("what", place="where", notes=["what to do"])
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.render()) == (str(error), error.render())
    assert str(error) == "where: what\nnote: what to do"
    assert error.render() == "error: where: what\nnote: what to do"
