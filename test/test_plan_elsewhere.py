"""Plans used elsewhere: the same weights in another container, and another machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from heatc.hardware import load_hardware
from heatc.plan import hardware_sha256
from heatc.tools import main as heatc
from heatc.tools import tune

BATCH, LENGTH, VOCABULARY = 8, 12, 40
INPUTS = f"input_ids={BATCH}x{LENGTH}:i64,attention_mask={BATCH}x{LENGTH}:i64"
LAYER = "bert.encoder.layer.1.output.dense"


class Wrapped(torch.nn.Module):
    """The same model under a prefix."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The classes' scores."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT as `folder`, `model.pt2`, `wrapped.pt2` and `model.mlir`, and data for it."""
    folder = tmp_path_factory.mktemp("containers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder / "folder")
    ids = torch.ones(BATCH, LENGTH, dtype=torch.long)
    example = {"input_ids": ids, "attention_mask": ids.clone()}
    for name, module in (("model", model), ("wrapped", Wrapped(model).eval())):
        program = torch.export.export(module, (), kwargs=example, strict=False)
        torch.export.save(program, folder / f"{name}.pt2")
    words = ["--inputs", INPUTS, "--target", "numpy", "--dump-phases-to", str(folder / "phases")]
    assert heatc.main([str(folder / "folder"), *words, "-o", str(folder / "dense.py")]) == 0
    rng = np.random.default_rng(0)
    mask = (np.arange(LENGTH) < rng.integers(3, LENGTH + 1, 32)[:, None]).astype(np.int64)
    words_ = rng.integers(0, VOCABULARY, mask.shape) * mask
    np.savez(folder / "data.npz", input_ids=words_, attention_mask=mask)
    return folder


@pytest.fixture(scope="module")
def plan(place: Path) -> Path:
    """A plan with trained factors, made on the folder."""
    output = place / "plan.json"
    words = ["--heat", f"low-rank,rank=4,layers={LAYER}", "--epochs", "1+0", "--quiet"]
    words += ["--data", str(place / "data.npz"), "--work-dir", str(place / "work")]
    assert tune.main(["distill", str(place / "folder"), *words, "-o", str(output)]) == 0
    return output


def compiled(model: Path, plan: Path, output: Path, *words: str) -> int:
    return heatc.main([str(model), "--plan", str(plan), "-o", str(output), *words])


@pytest.mark.parametrize("name", ["folder", "model.pt2", "phases/00-captured.mlir"])
def test_a_plan_of_a_folder_is_for_its_other_containers(
    name: str, place: Path, plan: Path, tmp_path: Path
):
    output = tmp_path / "x.py"
    words = ["--inputs", INPUTS] if name == "folder" else []
    assert compiled(place / name, plan, output, "--target", "numpy", *words) == 0
    assert f"{LAYER}.0" in output.read_text()


def test_the_same_weights_under_a_prefix_are_told(
    place: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert compiled(place / "wrapped.pt2", plan, tmp_path / "x.py", "--target", "numpy") == 1
    told = capsys.readouterr().err
    assert "the weights are those of the plan, their names are not" in told
    assert "this model's begin with 'model.', the plan's do not" in told


def test_a_plan_of_the_prefixed_model_is_told_on_the_other(
    place: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "wrapped.json"
    words = ["--heat", f"low-rank,rank=4,layers=model.{LAYER}", "--epochs", "1+0", "--quiet"]
    words += ["--data", str(place / "data.npz"), "--work-dir", str(tmp_path / "work")]
    assert tune.main(["distill", str(place / "wrapped.pt2"), *words, "-o", str(other)]) == 0
    assert compiled(place / "model.pt2", other, tmp_path / "x.py", "--target", "numpy") == 1
    assert "the plan's begin with 'model.', this model's do not" in capsys.readouterr().err


MACHINES: dict[str, tuple[dict[str, Any], str]] = {
    "named": ({"hw": "my-board", "hw_sha256": "0" * 64}, "my-board"),
    "a preset": ({"hw": None, "hw_sha256": None}, "hdp-server"),
    "unknown": ({"hw": None, "hw_sha256": "0" * 64}, "another hardware description"),
}


@pytest.mark.parametrize("kind", MACHINES)
def test_another_machine_is_a_remark_that_names_both(
    kind: str, place: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    changes, name = MACHINES[kind]
    if kind == "a preset":
        changes = {**changes, "hw_sha256": hardware_sha256(load_hardware(name))}
    other = place / "elsewhere.json"
    other.write_text(json.dumps({**json.loads(plan.read_text()), **changes}))
    output = tmp_path / "x.hdp"
    assert compiled(place / "model.pt2", other, output, "--target", "hdp-edge") == 0
    told = capsys.readouterr().err
    assert f"remark: the plan was made for {name}, this is hdp-edge: " in told
    assert output.exists()


def test_its_own_machine_is_no_remark(
    place: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own = {"hw": "hdp-edge", "hw_sha256": hardware_sha256(load_hardware("hdp-edge"))}
    other = place / "own.json"
    other.write_text(json.dumps({**json.loads(plan.read_text()), **own}))
    assert compiled(place / "model.pt2", other, tmp_path / "x.hdp", "--target", "hdp-edge") == 0
    assert "the plan was made for" not in capsys.readouterr().err
