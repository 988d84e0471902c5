"""Programs of which 16 bits leave nothing are refused, also where rounding explains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from heatc.tools.main import main
from heatc.verify.rounding import DOUBTED_RUNS, Rounding
from heatc.verify.rows import Rows


def array(*values: float) -> Any:
    return np.array(values, np.float32)


# ---- what is pooled ----------------------------------------------------------------------------


def test_no_input_is_no_doubt():
    assert Rounding().worst == ("", 0.0)
    assert not Rounding().is_doubtful


def test_the_larger_share_of_the_worst_output_counts():
    rounding = Rounding()
    rounding.add({"a": array(3, 4), "b": array(1, 1)}, {"a": array(3, 3.5), "b": array(1, 1)}, {})
    assert rounding.worst == ("a", pytest.approx(0.1))  # of the norm, 0.125 of the largest value
    assert rounding.is_doubtful
    rounding = Rounding()
    ones = array(*[1.0] * 9)
    rounding.add({"a": ones}, {"a": ones - 0.3 * array(*[1.0] + [0.0] * 8)}, {})
    assert rounding.worst[1] == pytest.approx(0.15)  # half of the largest value, 0.1 of the norm


def test_an_output_near_zero_on_one_input_is_held_against_the_others():
    rounding = Rounding()
    rounding.add({"a": array(0.01)}, {"a": array(0)}, {})
    assert rounding.worst == ("a", 1.0)
    rounding.add({"a": array(10)}, {"a": array(10)}, {})
    assert rounding.worst[1] == pytest.approx(0.001)
    assert rounding.runs == 2


def test_masked_positions_and_missing_numbers():
    rounding = Rounding()
    rows = {"a": Rows(np.array([True, False]))}
    rounding.add({"a": array(1, 5)}, {"a": array(1, 0)}, rows)
    assert rounding.worst[1] == 0.0
    rounding.add({"a": array(1, 5)}, {"a": array(np.nan, 0)}, rows)
    assert rounding.worst[1] == np.inf


# ---- programs ----------------------------------------------------------------------------------

WIDTH = 16


def layers(depth: int) -> str:
    """Layers whose sound bounds grow much faster than their values, since no norm is between."""
    shape, square = f"tensor<2x{WIDTH}xf32>", f"tensor<{WIDTH}x{WIDTH}xf32>"
    lines = [
        f'func.func @main(%x0: {shape} {{heatc.name = "x"}}) -> ({shape} {{heatc.name = "y"}}) {{'
    ]
    gain = f"tensor<{WIDTH}xf32>"
    lines += [f'%g = einsum.weight ["g"] : {gain}']
    lines += [
        f"%x1 = nn.layer_norm %x0, %g, %g {{eps = 1.0e-5 : f64}} : ({shape}, {gain}, {gain}) -> {shape}"
    ]
    for i in range(1, depth + 1):
        lines += [
            f'%w{i} = einsum.weight ["w{i}"] : {square}',
            f'%h{i} = nn.linear %x{i}, %w{i} : ({shape}, {square}) -> {shape} loc("layer{i}")',
            f'%x{i + 1} = nn.gelu %h{i} {{approximate = "none"}} : ({shape}) -> {shape}',
        ]
    return "\n".join([*lines, f"func.return %x{depth + 1} : {shape}", "}"])


def words(folder: Path, depth: int) -> list[str]:
    """A command that compiles so many layers."""
    rng = np.random.default_rng(0)
    weights = {
        f"w{i}": (rng.standard_normal((WIDTH, WIDTH)) / 2).astype(np.float32)
        for i in range(1, depth + 1)
    }
    save_file({**weights, "g": np.ones(WIDTH, np.float32)}, folder / "w.safetensors")
    (folder / "m.mlir").write_text(layers(depth))
    model = str(folder / "m.mlir")
    return [model, "--weights", str(folder / "w.safetensors"), "-o", str(folder / "y.hdp")]


def test_a_shallow_program_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*words(tmp_path, 4), "--verify-seconds=60"]) == 0
    assert "2 inputs (no padding; no padding)" in capsys.readouterr().err


def test_binary_points_that_leave_nothing_are_refused_and_the_layer_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(words(tmp_path, 8)) == 3
    error = capsys.readouterr().err
    assert "16 bits are too coarse: rounding moves output 'y' by 1 of its size" in error
    assert "the first layer that is far off is layer7" in error
    assert not (tmp_path / "y.hdp").exists()


def test_in_doubt_a_program_is_run_on_more_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("heatc.verify.rounding.COARSE", 1e-9)
    monkeypatch.setattr("heatc.verify.rounding.NOTICEABLE", 1e-9)
    assert main(words(tmp_path, 4)) == 0
    assert f"{DOUBTED_RUNS} inputs (" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "runs"), [(60, str(DOUBTED_RUNS)), (1e-6, "1 of 2")])
def test_where_rounding_shows_more_inputs_are_run_while_there_is_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    runs: str,
):
    monkeypatch.setattr("heatc.verify.rounding.NOTICEABLE", 1e-9)
    assert main([*words(tmp_path, 4), f"--verify-seconds={seconds}"]) == 0
    assert f" {runs} inputs (" in capsys.readouterr().err
