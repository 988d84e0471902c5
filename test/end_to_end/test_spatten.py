"""
Rule `spatten` end to end: programs of `heatc --hdp-rule=spatten` and the oracle, bit for bit.

The oracle's encoder takes the attention of `oracle/rules.py`, a ranking for each sentence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="capture needs torch")
pytest.importorskip("transformers", reason="capture needs transformers")

import torch

from bench import main_job
from bench.support import programs
from bench.support.data import texts as data
from bench.support.programs import Arrays, Run
from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.simulation import simulate_timing
from oracle import bert as oracle
from oracle import rules

pytestmark = pytest.mark.torch

TARGETS = ("hdp-edge", "hdp-server")


class Cascade:
    """The oracle's attention under `spatten`; sentences come one after the other."""

    def __init__(self, layers: int, ratio: float):
        self.rule = rules.Rule("spatten", ratio=ratio)
        self.layers = layers
        self.ranking = rules.Ranking(layers)

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        points: oracle.AttentionPoints,
        rule: oracle.Rule,
    ) -> oracle.Attention:
        """Attention of one sentence, codes (L, d)."""
        if self.ranking.seen == self.layers:
            self.ranking = rules.Ranking(self.layers)
        split = [x.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for x in (q, k, v)]
        found = rules.attention(split[0], split[1], split[2], points, self.rule, self.ranking)
        assert found.heads is not None
        output = found.output[0].transpose(0, 1).flatten(1)
        return oracle.Attention(output, None, found.heads[0])


def agreement(
    model: Path, path: Path, run: Run, inputs: Arrays, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> float:
    """The share of heads pruned, once every code, gate and output is the oracle's."""
    layers = oracle.load(model, programs.points(path), oracle.Rule()).depth
    monkeypatch.setattr(oracle, "attention", Cascade(layers, ratio))
    traces, differences = main_job.compare(run, inputs, programs.points(path), model, oracle.Rule())
    assert differences == [""] * len(traces)
    gates: list[bool] = []
    for row, trace in enumerate(traces):
        for layer, one in enumerate(trace.attentions):
            assert one.heads is not None
            kept = one.heads.numpy()
            name = f"gate/encoder.layer.{layer}.attention.self"
            if name in run.layers:
                assert np.array_equal(run.layers[name][row], kept)
            else:
                assert kept.all()
            gates += kept.tolist()
    return 1 - float(np.mean(gates))


def timed(path: Path, inputs: Arrays) -> None:
    """`--model=timing` on the gates of a run costs what the run costs."""
    program = open_program(path)
    found = simulate(program, inputs, masks=True)
    again = simulate_timing(program, found.masks)
    assert again.result.cycles == found.result.cycles
    assert again.result.dram_bytes_read == found.result.dram_bytes_read
    assert again.result.heads_kept == found.result.heads_kept


@pytest.mark.parametrize("side", ["right", "left", "both"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_tiny_model(
    tiny: Path, tmp_path: Path, target: str, side: data.Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd lengths, a sentence of one token, padding anywhere."""
    rng = np.random.default_rng(5)
    lengths, width = (9, 16, 1, 7), 16
    inputs = {
        name: np.zeros((len(lengths), width), np.int64)
        for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    }
    for row, length in enumerate(lengths):
        start = {"right": 0, "left": width - length, "both": (width - length) // 2}[side]
        here = slice(start, start + length)
        inputs["input_ids"][row, here] = rng.integers(1, 96, length)
        inputs["attention_mask"][row, here] = 1
        inputs["position_ids"][row, here] = np.arange(length)
    options = (f"--target={target}", "--hdp-rule=spatten", "--ratio=0.3")
    path = programs.compile_model(tiny, tmp_path / "tiny.hdp", inputs, *options)
    run = programs.run_hdp(path, inputs, layers=True)
    # Two layers of four heads: two go on in the second.
    assert agreement(tiny, path, run, inputs, 0.3, monkeypatch) == 0.25
    timed(path, inputs)


@pytest.mark.model
@pytest.mark.parametrize(("target", "ratio"), [("hdp-edge", 0.35), ("hdp-server", 0.2)])
def test_minilm(
    minilm: Path, tmp_path: Path, target: str, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real sentences of different length, twelve heads in six layers."""
    inputs = data.encode(data.EXAMPLES[:4], 32)
    options = (f"--target={target}", "--hdp-rule=spatten", f"--ratio={ratio}")
    path = programs.compile_model(minilm, tmp_path / "minilm.hdp", inputs, *options)
    run = programs.run_hdp(path, inputs, layers=True)
    counts = [12 - int(12 * 2 * ratio * layer / 5) for layer in range(6)]
    pruned = agreement(minilm, path, run, inputs, ratio, monkeypatch)
    assert pruned == pytest.approx(1 - sum(counts) / 72)
    # A sentence keeps heads of its own.
    last = run.layers["gate/encoder.layer.5.attention.self"]
    assert len({tuple(row) for row in last.tolist()}) > 1
    timed(path, inputs)
