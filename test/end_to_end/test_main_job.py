"""
The main job, small: compile by `heatc`, run, compare with PyTorch and with the oracle.

A tiny random BERT always, the real model where it is installed. The whole of it, on hundreds of
sentences, is `bench/main_job.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="capture needs torch")
pytest.importorskip("transformers", reason="capture needs transformers")

from bench import main_job
from bench.main_job import HIDDEN
from bench.support import programs
from bench.support.data import texts as data
from bench.support.programs import Array, Arrays, NumpyProgram
from oracle import bert as oracle

pytestmark = pytest.mark.torch

SETTINGS = [(-0.5, 0.0), (0.0, 1.3), (0.25, 0.0), (0.25, 1.3)]
SIDES: tuple[data.Side, ...] = ("right", "left", "both")


def tiny_inputs(lengths: tuple[int, ...], width: int, side: data.Side = "right") -> Arrays:
    """Random sentences of the given lengths for the tiny model, with positions."""
    arrays = {
        name: np.zeros((len(lengths), width), np.int64)
        for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    }
    for row, length in enumerate(lengths):
        generator = np.random.default_rng(length)  # the same sentence whatever the batch
        room = width - length
        start = {"right": 0, "left": room, "both": room // 2}[side]
        here = slice(start, start + length)
        arrays["input_ids"][row, here] = generator.integers(1, 96, length)
        arrays["token_type_ids"][row, here] = generator.integers(0, 2, length)
        arrays["attention_mask"][row, here] = 1
        arrays["position_ids"][row, here] = np.arange(length)
    return arrays


def real(inputs: Mapping[str, Array]) -> Array:
    """Where the real tokens are, bool (B, S)."""
    return inputs["attention_mask"].astype(bool)


def paper_program(model: Path, folder: Path, inputs: Arrays, rho_b: float, tau_h: float) -> Path:
    """The HDP program of rule `paper`."""
    options = programs.paper(rho_b, tau_h)
    return programs.compile_model(model, folder / "paper.hdp", inputs, *options)


# ---- the tiny model ---------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_numpy_program_is_pytorch(tiny: Path, tmp_path: Path, side: data.Side) -> None:
    inputs = tiny_inputs((9, 16, 1), 16, side)
    path = programs.compile_model(tiny, tmp_path / "tiny.py", inputs)
    found = NumpyProgram(path)(inputs)
    expected = main_job.pytorch(tiny)(inputs)
    assert np.abs(found[HIDDEN] - expected)[real(inputs)].max() <= 1e-4
    assert not found[HIDDEN][~real(inputs)].any()


@pytest.mark.parametrize("rule", ["none", "paper"])
def test_vector_units_change_no_bit(tiny: Path, tmp_path: Path, rule: str) -> None:
    """Outputs, masks and every named tensor, in DRAM or on the chip; nothing is the host's then."""
    inputs = tiny_inputs((9, 16, 1, 2), 16, "both")
    runs = []
    for hw in ("hdp-edge", "hdp-edge-vector"):
        path = tmp_path / f"{hw}.hdp"
        programs.compile_model(tiny, path, inputs, f"--hdp-rule={rule}", f"--hw={hw}")
        runs.append(programs.run_hdp(path, inputs, layers=True))
    host, vector = runs
    assert host.layers.keys() == vector.layers.keys()
    for name, expected in {**host.outputs, **host.layers}.items():
        assert np.array_equal({**vector.outputs, **vector.layers}[name], expected), name
    busy = [
        {e: run.stats["modelled"][f"{e}_busy_cycles"] for e in ("vector", "host")} for run in runs
    ]
    assert busy[0]["vector"] == 0 < busy[1]["vector"]
    assert busy[1]["host"] < busy[0]["host"] / 2


def test_hdp_without_pruning_is_pytorch_and_the_oracle(tiny: Path, tmp_path: Path) -> None:
    inputs = tiny_inputs((9, 16, 1, 2), 16)
    path = programs.compile_model(tiny, tmp_path / "none.hdp", inputs, "--hdp-rule=none")
    run = programs.run_hdp(path, inputs, layers=True)
    mask = real(inputs)
    expected = main_job.pytorch(tiny)(inputs)
    assert main_job.cosine(run.outputs[HIDDEN][mask], expected[mask]).min() > 0.999
    _, differences = main_job.compare(run, inputs, programs.points(path), tiny, oracle.Rule())
    assert differences == [""] * 4


@pytest.mark.parametrize(("rho_b", "tau_h"), SETTINGS)
def test_hdp_paper_is_the_oracle(tiny: Path, tmp_path: Path, rho_b: float, tau_h: float) -> None:
    inputs = tiny_inputs((9, 16, 1, 2), 16, "both")
    path = paper_program(tiny, tmp_path, inputs, rho_b, tau_h)
    run = programs.run_hdp(path, inputs, layers=True)
    rule = oracle.Rule("paper", rho_b, tau_h)
    traces, differences = main_job.compare(run, inputs, programs.points(path), tiny, rule)
    assert differences == [""] * 4
    blocks, _, _ = main_job.pruned_shares(traces)
    assert 0.05 < blocks < 0.95, "a mask that keeps or prunes everything compares nothing"


def test_comparison_finds_another_rule(tiny: Path, tmp_path: Path) -> None:
    """The comparison with the oracle can fail: of its mask, its gate and its codes."""
    inputs = tiny_inputs((16,), 16)
    path = paper_program(tiny, tmp_path, inputs, 0.0, 0.0)
    run = programs.run_hdp(path, inputs, layers=True)
    points = programs.points(path)

    def first(points: dict[str, int], rule: oracle.Rule) -> str:
        return main_job.compare(run, inputs, points, tiny, rule)[1][0]

    rule = oracle.Rule("paper")
    assert first(points, rule) == ""
    assert first(points, dataclasses.replace(rule, rho_b=0.3)).startswith("mask of")
    assert first(points, dataclasses.replace(rule, tau_h=1e6)).startswith("gate of")
    assert first(points, dataclasses.replace(rule, pruned_score="int")) != ""
    name = "encoder.layer.1.output.dense"
    assert first(points | {name: points[name] - 1}, rule) == f"codes of {name}"


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_padding_changes_nothing_and_costs_nothing(tiny: Path, tmp_path: Path, length: int) -> None:
    alone = tiny_inputs((length,), length)
    short = programs.run_hdp(paper_program(tiny, tmp_path, alone, 0.0, 0.5), alone)
    padded = tiny_inputs((length,), 24)
    program = paper_program(tiny, tmp_path, padded, 0.0, 0.5)
    costs: dict[str, list[float]] = {}
    for side in SIDES:
        inputs = tiny_inputs((length,), 24, side)
        run = programs.run_hdp(program, inputs)
        hidden = run.outputs[HIDDEN]
        assert np.array_equal(hidden[real(inputs)], short.outputs[HIDDEN][0])
        assert not hidden[~real(inputs)].any()
        # The pooler reads the first position: on the left it costs a row, however much there is.
        costs[side] = [run.busy(engine) for engine in programs.CORE_ENGINES]
    assert costs["right"] == [short.busy(engine) for engine in programs.CORE_ENGINES]
    assert costs["left"] == costs["both"] > costs["right"]


def test_longer_sentences_cost_more_cycles(tiny: Path, tmp_path: Path) -> None:
    """The counts that padding leaves alone are counts of something."""
    program = paper_program(tiny, tmp_path, tiny_inputs((8,), 32), 0.0, 0.0)
    short, long = (programs.run_hdp(program, tiny_inputs((n,), 32)) for n in (8, 32))
    for engine in programs.CORE_ENGINES:
        assert long.busy(engine) > short.busy(engine) > 0, engine


def test_a_sentence_without_a_token_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pooler would read a row that attends to nothing."""
    inputs = tiny_inputs((5, 0, 3), 8)
    path = programs.compile_model(tiny, tmp_path / "tiny.py", inputs)
    with pytest.raises(ValueError, match="row 1 has no real token"):
        NumpyProgram(path)(inputs)
    program = paper_program(tiny, tmp_path, inputs, 0.0, 0.0)
    with pytest.raises(programs.CommandError):
        programs.run_hdp(program, inputs)
    assert "row 1 has no real token" in capsys.readouterr().err


def test_same_program_twice_is_the_same_file(tiny: Path, tmp_path: Path) -> None:
    inputs = tiny_inputs((8,), 8)
    first = programs.compile_model(tiny, tmp_path / "a.hdp", inputs, "--hdp-rule=none")
    second = programs.compile_model(tiny, tmp_path / "b.hdp", inputs, "--hdp-rule=none")
    assert first.read_bytes() == second.read_bytes()


# ---- the real model ---------------------------------------------------------------------------


@pytest.mark.model
def test_minilm_numpy_program(minilm: Path, tmp_path: Path) -> None:
    inputs = data.encode(data.EXAMPLES[:3], 32)
    path = programs.compile_model(minilm, tmp_path / "minilm.py", inputs)
    found, expected = NumpyProgram(path)(inputs)[HIDDEN], main_job.pytorch(minilm)(inputs)
    assert np.abs(found - expected)[real(inputs)].max() <= 1e-4


@pytest.mark.model
@pytest.mark.parametrize("rule", [oracle.Rule(), oracle.Rule("paper", 0.25, 1.3)])
def test_minilm_hdp_program(minilm: Path, tmp_path: Path, rule: oracle.Rule) -> None:
    inputs = data.encode(data.EXAMPLES[:3], 32)
    paper = programs.paper(rule.rho_b, rule.tau_h)
    options: Any = paper if rule.name == "paper" else ("--hdp-rule=none",)
    path = programs.compile_model(minilm, tmp_path / "minilm.hdp", inputs, *options)
    run = programs.run_hdp(path, inputs, layers=True)
    _, differences = main_job.compare(run, inputs, programs.points(path), minilm, rule)
    assert differences == [""] * 3
    ours, theirs = (
        main_job.embeddings(hidden, inputs["attention_mask"])
        for hidden in (run.outputs[HIDDEN], main_job.pytorch(minilm)(inputs))
    )
    assert main_job.cosine(ours, theirs).min() >= (0.999 if rule.name == "none" else 0.3)
