"""oracle/encoder.py: many sentences at once against the oracle's one; the calibration's promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import safetensors.torch
import torch
import transformers

from bench.support.accuracy import calibration
from oracle import bert as oracle
from oracle import rules
from oracle.encoder import Encoder, equal_lengths
from oracle.rules import Rule

pytestmark = pytest.mark.torch

ROWS = [[5, 9, 3], [7, 1, 8, 2, 6], [4, 4, 4], [1, 2, 3, 4, 5, 6, 7, 8], [2, 9, 11]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with two layers of two heads and random weights, as a folder."""
    torch.manual_seed(0)
    config: Any = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        vocab_size=12, max_position_embeddings=32,
    )  # fmt: skip
    made: Any = transformers.BertForSequenceClassification(config)
    state = {name: (3 * tensor).contiguous() for name, tensor in made.state_dict().items()}
    folder = tmp_path_factory.mktemp("model")
    safetensors.torch.save_file(state, folder / "model.safetensors")
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def points(model: Path) -> dict[str, int]:
    """Binary points of everything that has one."""
    names = ["bert.embeddings.LayerNorm", "bert.pooler.dense", "bert.pooler.activation"]
    names += ["classifier"]
    for index in range(2):
        base = f"bert.encoder.layer.{index}."
        names += [f"{base}attention.self{part}" for part in ("", ".query", ".key", ".value")]
        names += [f"{base}attention.output.{part}" for part in ("dense", "LayerNorm")]
        names += [f"{base}intermediate.{part}" for part in ("dense", "intermediate_act_fn")]
        names += [f"{base}output.{part}" for part in ("dense", "LayerNorm")]
    found = dict.fromkeys(names, 11)
    found |= {f"bert.encoder.layer.{index}.attention.self.scores": 16 for index in range(2)}
    weights = safetensors.torch.load_file(model / "model.safetensors")
    return found | {
        name: 13 if name.endswith("weight") else 20
        for name in weights
        if "LayerNorm" not in name and "embeddings" not in name
    }


@pytest.mark.parametrize("rho_b", [None, -0.3, 0.2])
def test_is_the_oracle(model: Path, points: dict[str, int], rho_b: float | None):
    rule = Rule() if rho_b is None else rules.paper(rho_b, 0.1)
    old = oracle.Rule() if rho_b is None else oracle.Rule("paper", rho_b, 0.1)
    single = oracle.load(model, points, old)
    found = Encoder(model, points, rule)(ROWS)
    for row, logits in zip(ROWS, found.logits):
        expected = single(row, range(len(row)), [0] * len(row))
        assert torch.equal(logits, expected.outputs["logits"])


def test_one_rule_for_each_layer(model: Path, points: dict[str, int]):
    found = Encoder(model, points, [Rule(), rules.ours(0.5)])(ROWS)
    assert int(found.counts[0, 0]) == int(found.counts[0, 1])
    assert int(found.counts[1, 0]) > int(found.counts[1, 1])
    with pytest.raises(ValueError, match="1 rules for 2 layers"):
        Encoder(model, points, [Rule()])


def test_net_sparsity_counts_pruned_heads_whole(model: Path, points: dict[str, int]):
    found = Encoder(model, points, rules.ours(0.0, (0.0, 1e6)))(ROWS)
    assert found.head_sparsity == 0.5
    assert found.net_sparsity > max(0.5, found.block_sparsity)
    assert [gates.tolist() for gates in found.heads] == [[[True, False]] * 2] * len(ROWS)


def test_equal_lengths_has_every_sentence_once():
    rows = [[0] * n for n in (200, 3, 3, 200, 3, 64)]
    batches = equal_lengths(rows)
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len({len(rows[index]) for index in batch}) == 1 for batch in batches)
    assert [0] in batches  # 200 * 200 scores are a batch of their own


def test_calibration_hits_the_sparsity_and_frees_the_harmless(model: Path, points: dict[str, int]):
    rows = [[*row, *row, 3] for row in ROWS] * 3
    measured = calibration.measure(model, points, rows)
    assert bool((measured.kept <= measured.blocks).all())
    # A higher ratio keeps no more.
    assert bool((measured.kept.diff(dim=2) <= 0).all())
    for sparsity in (0.5, 0.8):
        chosen = calibration.choose(measured, sparsity)
        found = Encoder(model, points, chosen)(rows)
        assert sparsity - 0.1 < found.net_sparsity < sparsity + 0.25
    # Of two heads that cost alike, the one whose pruning changes nothing goes first.
    measured.gated[0, 0] = 0
    measured.gated[1:] = 100
    measured.gated[0, 1] = 100
    chosen = calibration.choose(measured, 0.3, gates=True)
    assert isinstance(chosen[0].tau_h, tuple)
    assert chosen[0].tau_h[0] > chosen[0].tau_h[1]


def test_calibration_predicts_the_change_of_the_logits(model: Path, points: dict[str, int]):
    """A small change in one head moves the logit difference as the measurement says."""
    fine = dict(points)
    measured = calibration.measure(model, fine, ROWS, (-0.999, 0.5))
    predicted = measured.change[1, :, 1].sum(0) - measured.change[1, :, 0].sum(0)
    before = Encoder(model, fine, [rules.ours(-0.999)] * 2)(ROWS).logits
    after = Encoder(model, fine, [rules.ours(-0.999), rules.ours(0.5)])(ROWS).logits
    actual = (after - before)[:, 1] - (after - before)[:, 0]
    assert float((actual - predicted).abs().max()) < 0.2 * float(actual.abs().max()) + 2e-3
