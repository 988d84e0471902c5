"""A folder of transformers, its plans and its text, against PyTorch itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heatc.readers.npz import open_npz
from heatc.tools import tune

pytestmark = pytest.mark.torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(35))]
NAMES = ["no", "maybe", "yes"]
SAMPLES = 37
DENSE = "bert.encoder.layer.0.intermediate.dense"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with three classes, its vocabulary, and test.csv."""
    import torch
    import transformers

    place = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.4,
        id2label=dict(enumerate(NAMES)),
        label2id={name: n for n, name in enumerate(NAMES)},
    )
    transformers.BertForSequenceClassification(config).eval().save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for _ in range(SAMPLES):
        words = rng.choice(WORDS[5:], rng.integers(2, 11))
        lines.append(f"{' '.join(words)},{rng.choice(NAMES)}")
    (place / "test.csv").write_text("\n".join(lines) + "\n")
    words = ["--text", str(place / "test.csv"), "--tokenizer", str(place), "--length", "12"]
    assert tune.main(["data", *words, "-o", str(place / "test.npz"), "-q"]) == 0
    return place


@pytest.fixture(scope="module")
def predictions(folder: Path) -> Any:
    """(SAMPLES,): what PyTorch predicts."""
    import torch
    import transformers

    model: Any = transformers.BertForSequenceClassification.from_pretrained(folder)
    data = open_npz(folder / "test.npz")
    inputs = {n: torch.from_numpy(np.array(data[n])) for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return model.eval()(**inputs).logits.argmax(dim=1).numpy()


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    """The folder, and a plan for it that is found on the data, on NumPy and on a machine."""
    heat = {"heat": {"format": "low-rank", "ranks": [6]}}
    (folder / "plan.json").write_text(json.dumps({"schema": 1, "layers": {DENSE: heat}}))
    text = ["--text", str(folder / "test.csv"), "--tokenizer", str(folder), "--length", "12"]
    words = [str(folder / "plan.json"), "--model", str(folder), "--batch", "5", "-j", "1", "-q"]
    words += ["--calibrate", str(folder / "test.npz"), "-o", str(folder / "eval.json")]
    results: list[Any] = []
    for machine in ([], ["--hw", "hdp-edge"]):
        assert tune.main(["eval", *words, *text, *machine]) == 0
        results.append(json.loads((folder / "eval.json").read_text()))
    return results


def test_the_model_predicts_what_pytorch_predicts(found: Any, folder: Path, predictions: Any):
    labels = np.array(open_npz(folder / "test.npz")["labels"])
    for result in found:
        compared = result["subjects"][0]["compared"]
        assert result["classes"] == 3
        assert compared["accuracy_percent"]["value"] == pytest.approx(
            100 * (predictions == labels).mean()
        )
        x, y = (np.equal.outer(v, np.arange(3)).astype(float) for v in (labels, predictions))
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        mcc = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
        assert compared["mcc"]["value"] == pytest.approx(mcc)


def test_pytorch_is_the_reference(folder: Path, predictions: Any, tmp_path: Path):
    """Of a folder and of an archive; the archive's batch is its own."""
    import torch
    import transformers

    model: Any = transformers.BertForSequenceClassification.from_pretrained(folder)
    given = {n: torch.ones(4, 12, dtype=torch.int64) for n in ("input_ids", "attention_mask")}
    program = torch.export.export(model.eval(), (), given, strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    labels = np.array(open_npz(folder / "test.npz")["labels"])
    for path, batch in ((folder, 32), (tmp_path / "model.pt2", 4)):
        words = [str(path), "--torch", "--data", str(folder / "test.npz"), "-q"]
        assert tune.main(["eval", *words, "-o", str(tmp_path / "eval.json")]) == 0
        result = json.loads((tmp_path / "eval.json").read_text())
        first, second = result["subjects"]
        assert result["reference"] == first["name"] == f"{path} in PyTorch"
        assert first["runs"] == "PyTorch"
        assert first["batch_samples"] == second["batch_samples"] == batch
        assert first["compared"]["accuracy_percent"]["value"] == pytest.approx(
            100 * (predictions == labels).mean()
        )
        assert second["compared"]["cosine_least"]["value"] > 1 - 1e-6
        assert second["compared"]["changed_predictions_percent"]["value"] == 0
        assert first["measured"]["batch_p50_cpu_seconds"] > 0


def test_a_plan_is_smaller_and_near_the_model(found: Any):
    model, plan = found[0]["subjects"]
    assert plan["measured"]["program_bytes"] < model["measured"]["program_bytes"]
    assert 0.5 < plan["compared"]["cosine_mean"]["value"] < 0.999999
    assert plan["batch_samples"] == model["batch_samples"] == 5


def test_a_machine_runs_the_same_plan(found: Any):
    names = [Path(s["name"]).name for s in found[1]["subjects"]]
    _, dense, plan = found[1]["subjects"]
    assert names[2] == "plan.json on hdp-edge"
    assert dense["compared"]["cosine_least"]["value"] > 0.99
    near = found[0]["subjects"][1]["compared"]["cosine_mean"]["value"]
    assert plan["compared"]["cosine_mean"]["value"] == pytest.approx(near, abs=0.02)
    assert dense["modelled"]["batch_p50_cycles"] > 0
