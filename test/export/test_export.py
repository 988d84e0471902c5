"""`heatc-export` end to end: what it writes runs without heatc and computes what prog.py does."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_kit import (
    ARCHIVE,
    FORMATS,
    LENGTH,
    MODELING,
    SPEC,
    WIDTH,
    alone,
    bert,
    text_inputs,
    write_plan,
)
from numpy.typing import NDArray

from heatc.export import agreement, session
from heatc.tools import export, main

pytestmark = pytest.mark.torch

Capture = pytest.CaptureFixture[str]
Monkey = pytest.MonkeyPatch
Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Path:
    """Every format, and a table."""
    head = "bert.encoder.layer.{}.attention.self.{}"
    places = [head.format(i, name) for i in range(2) for name in ("query", "key", "value")]
    layers = dict(zip(places, FORMATS.values()))
    layers["bert.embeddings.word_embeddings"] = {"format": "low-rank", "ranks": [16]}
    layers["bert.encoder.layer.1.output.dense"] = {"format": "low-rank", "ranks": [8]}
    return write_plan(folder.with_name("plan.json"), layers)


@pytest.fixture(scope="module")
def exported(folder: Path, plan: Path) -> Path:
    """All formats of the model, the weights of ONNX beside it."""
    out = folder.with_name("exported")
    words = ["--plan", str(plan), "-o", str(out), "--inputs", SPEC, "--external-data"]
    assert export.main([str(folder), *words]) == 0
    return out


def numpy_program(model: Path, plan: Path, inputs: Arrays, *words: str) -> dict[str, NDArray[Any]]:
    """The outputs of the plan's prog.py, as `heatc` writes it."""
    program = plan.with_name("x.py")
    command = [str(model), "--plan", str(plan), "--target=numpy", "-o", str(program), *words]
    assert main.main(command) == 0
    spec = importlib.util.spec_from_file_location("x", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: np.array(value) for name, value in module.main(**inputs).items()}


def near(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-4, rtol=0)


def test_a_folder_without_heatc(folder: Path, plan: Path, exported: Path):
    assert {path.name for path in exported.iterdir()} >= {
        "config.json",
        "export.json",
        "model.onnx",
        "model.onnx.data",
        "model.pt2",
        "model.safetensors",
        "modeling.py",
        "vocab.txt",
    }
    inputs = text_inputs()
    expected = numpy_program(folder, plan, inputs, "--inputs", SPEC)
    near(alone(exported, inputs, MODELING), expected)
    near(alone(exported, inputs, ARCHIVE), expected)
    # Any number of samples and tokens.
    other = text_inputs(rows=1, length=7)
    near(alone(exported, other, ARCHIVE), alone(exported, other, MODELING))


def test_factors_are_all_that_is_stored(exported: Path):
    from safetensors.numpy import load_file

    found = load_file(exported / "model.safetensors")
    query = "bert.encoder.layer.0.attention.self.query"
    assert found[f"{query}.a"].shape == (6, WIDTH)
    assert found[f"{query}.b"].shape == (WIDTH, 6)
    assert f"{query}.weight" not in found
    assert f"{query}.bias" in found
    assert found["bert.encoder.layer.0.attention.self.key.core"].shape == (3, 6, 6, 3)
    described = json.loads((exported / "export.json").read_text())
    assert described["layers"][query]["format"] == "low-rank"
    differences = described["largest_difference"]
    assert list(differences) == ["modeling.py", "model.pt2", "model.onnx (ONNX Runtime)"]
    assert max(differences.values()) < 1e-4


def test_onnx_in_its_runtime(folder: Path, plan: Path, exported: Path):
    runtime = pytest.importorskip("onnxruntime")
    opened = runtime.InferenceSession(exported / "model.onnx")
    assert [i.name for i in opened.get_inputs()] == ["input_ids", "attention_mask"]
    assert [i.shape for i in opened.get_inputs()] == [["batch", "tokens"]] * 2
    inputs = text_inputs()
    found = dict(zip(["logits"], opened.run(["logits"], inputs)))
    near(found, numpy_program(folder, plan, inputs, "--inputs", SPEC))
    opened.run(["logits"], text_inputs(rows=1, length=7))


def test_what_heatc_wrote_is_replaced(
    folder: Path, plan: Path, exported: Path, tmp_path: Path, capsys: Capture
):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    words = ["--plan", str(plan), "-o", str(out), "--inputs", SPEC, "--static", "--formats=torch"]
    assert export.main([str(folder), *words, "--no-verify"]) == 0
    assert "not compared" in capsys.readouterr().out
    assert json.loads((out / "export.json").read_text())["largest_difference"] is None


def test_an_archive_without_heatc(tmp_path: Path):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True)
    module = torch.nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, LENGTH, WIDTH)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "m.pt2")
    layers = {
        "layers.0.self_attn": {"format": "low-rank", "ranks": [7]},
        "layers.0.self_attn.out_proj": FORMATS["tt"],
        "layers.1.linear1": {"format": "low-rank", "ranks": [9]},
    }
    plan = write_plan(tmp_path / "plan.json", layers)
    out = tmp_path / "out"
    words = [str(tmp_path / "m.pt2"), "--plan", str(plan), "-o", str(out)]
    assert export.main([*words, "--formats=torch"]) == 0
    inputs = {"src": x.numpy()}
    expected = numpy_program(tmp_path / "m.pt2", plan, inputs)
    near(alone(out, inputs, ARCHIVE), expected)
    near(alone(out, inputs, MODELING), expected)
    # heatc reads its own archive again, and nothing is left to factorise.
    again = main.main([str(out / "model.pt2"), "--target=numpy", "-o", str(tmp_path / "again.py")])
    assert again == 0


class _Positions(torch.nn.Module):
    """A linear that is applied to tokens, and to a table that no input decides, as in DeBERTa."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(LENGTH, WIDTH))
        self.linear = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.linear(self.get_buffer("table"))


def test_what_no_input_decides_keeps_the_weight(tmp_path: Path):
    """The plan's program folds it before there are factors."""
    torch.manual_seed(0)
    x = torch.randn(2, LENGTH, WIDTH)
    torch.export.save(torch.export.export(_Positions().eval(), (x,)), tmp_path / "m.pt2")
    plan = write_plan(tmp_path / "plan.json", {"linear": {"format": "low-rank", "ranks": [3]}})
    out = tmp_path / "out"
    words = [str(tmp_path / "m.pt2"), "--plan", str(plan), "-o", str(out)]
    assert export.main([*words, "--formats=torch"]) == 0
    inputs = {"x": x.numpy()}
    expected = numpy_program(tmp_path / "m.pt2", plan, inputs)
    near(alone(out, inputs, MODELING), expected)


def test_modules_that_are_used_twice(tmp_path: Path):
    from transformers import AlbertConfig, AlbertModel

    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=60,
        embedding_size=WIDTH,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    AlbertModel(config).save_pretrained(tmp_path / "albert")
    query = "encoder.albert_layer_groups.0.albert_layers.0.attention.query"
    plan = write_plan(tmp_path / "plan.json", {query: FORMATS["ttm"]})
    out = tmp_path / "out"
    words = [str(tmp_path / "albert"), "--plan", str(plan), "-o", str(out), "--inputs", SPEC]
    assert export.main([*words, "--formats=torch", "--static"]) == 0
    inputs = text_inputs()
    expected = numpy_program(tmp_path / "albert", plan, inputs, "--inputs", SPEC)
    found = alone(out, inputs, MODELING)
    real = inputs["attention_mask"][..., None] == 1
    found["last_hidden_state"] = np.where(real, found["last_hidden_state"], 0)
    near(found, expected)


def test_factors_made_on_data_bring_biases(folder: Path, plan: Path, tmp_path: Path):
    np.savez(tmp_path / "data.npz", **text_inputs(rows=8))  # pyright: ignore[reportArgumentType]
    out = tmp_path / "out"
    words = [str(folder), "--plan", str(plan), "--inputs", SPEC]
    words += ["--calibrate", str(tmp_path / "data.npz")]
    assert export.main([*words, "-o", str(out), "--formats=torch", "--static"]) == 0
    inputs = text_inputs()
    expected = numpy_program(folder, plan, inputs, "--inputs", SPEC, *words[-2:])
    near(alone(out, inputs, MODELING), expected)


def test_pruning_of_attention_is_left_out(folder: Path, tmp_path: Path, capsys: Capture):
    attention = {"bert.encoder.layer.0.attention.self": {"hdp": {"rule": "ours", "rho_b": 0.2}}}
    layers = {"bert.encoder.layer.1.output.dense": {"format": "low-rank", "ranks": [8]}}
    plan = write_plan(tmp_path / "plan.json", layers, **attention)
    words = [str(folder), "--plan", str(plan), "-o", str(tmp_path / "out"), "--inputs", SPEC]
    assert export.main([*words, "--formats=torch", "--static"]) == 0
    assert "the plan prunes 1 attentions" in capsys.readouterr().err


# --- What is refused --------------------------------------------------------------------------


def test_a_form_that_differs_is_not_written(
    folder: Path, plan: Path, tmp_path: Path, capsys: Capture, monkeypatch: Monkey
):
    """A factor that is another one on the way is found, and the folder is not made."""
    query = "bert.encoder.layer.0.attention.self.query"
    right = session.live_model

    def wrong(*arguments: Any) -> Any:
        found = right(*arguments)
        with torch.no_grad():
            found.model.get_submodule(query).get_parameter("a").mul_(1.5)
        return found

    monkeypatch.setattr(session, "live_model", wrong)
    out = tmp_path / "out"
    words = [str(folder), "--plan", str(plan), "-o", str(out), "--inputs", SPEC]
    assert export.main([*words, "--formats=torch", "--static"]) == 3
    assert "differs from the plan's program" in capsys.readouterr().err
    assert not out.exists()


def test_an_output_that_is_no_number_is_wrong():
    rows: dict[str, Any] = {}
    expected, found = {"y": np.ones(3, np.float32)}, {"y": np.full(3, np.nan, np.float32)}
    with pytest.raises(agreement.VerificationError, match="differs"):
        agreement._distance("form", expected, found, rows, "out")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--formats", "onyx"], 2, "did you mean 'onnx'?"),
        (["--formats", ""], 2, "unknown format ''"),
        (["--inputs", "input_ids=1"], 2, "--inputs"),
        (["--inputs", "pixels=1x3:f32"], 1, "the model has no input 'pixels'"),
    ],
)
def test_wrong_words(
    words: list[str],
    code: int,
    message: str,
    folder: Path,
    plan: Path,
    tmp_path: Path,
    capsys: Capture,
):
    out = tmp_path / "out"
    assert export.main([str(folder), "--plan", str(plan), "-o", str(out), *words]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_plan_that_factorises_nothing(folder: Path, tmp_path: Path, capsys: Capture):
    plan = write_plan(tmp_path / "plan.json", {})
    assert export.main([str(folder), "--plan", str(plan), "-o", str(tmp_path / "out")]) == 2
    assert "factorises no layer" in capsys.readouterr().err


def test_ir_has_no_model_behind_it(plan: Path, tmp_path: Path, capsys: Capture):
    (tmp_path / "m.mlir").write_text("")
    words = [str(tmp_path / "m.mlir"), "--plan", str(plan), "-o", str(tmp_path / "out")]
    assert export.main(words) == 2
    assert "IR has no PyTorch model behind it" in capsys.readouterr().err


def test_a_layer_of_another_model(folder: Path, tmp_path: Path, capsys: Capture):
    plan = write_plan(tmp_path / "plan.json", {"bert.encoder.layer.7.output.dense": FORMATS["tt"]})
    assert export.main([str(folder), "--plan", str(plan), "-o", str(tmp_path / "out")]) == 1
    assert "the model has no such layer" in capsys.readouterr().err


def test_a_convolution_stays_out(tmp_path: Path, capsys: Capture):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Flatten()).eval()
    program = torch.export.export(module, (torch.randn(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "m.pt2")
    plan = write_plan(tmp_path / "plan.json", {"0": {"format": "low-rank", "ranks": [2]}})
    words = [str(tmp_path / "m.pt2"), "--plan", str(plan), "-o", str(tmp_path / "out")]
    assert export.main(words) == 1
    assert "its weight is no tensor of the model as it is" in capsys.readouterr().err


def test_a_file_of_somebody_else(folder: Path, plan: Path, tmp_path: Path, capsys: Capture):
    out = tmp_path / "out"
    out.mkdir()
    (out / "modeling.py").write_text("mine\n")
    assert export.main([str(folder), "--plan", str(plan), "-o", str(out)]) == 1
    assert "would replace a file that heatc did not write" in capsys.readouterr().err
    assert (out / "modeling.py").read_text() == "mine\n"
