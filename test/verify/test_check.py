"""What the check says, when it stops, what it is asked for, and what it does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import heatc
from heatc.errors import VerificationError
from heatc.rules import make_rule
from heatc.tools.main import main
from heatc.verify import Settings
from heatc.verify.settings import FEWEST_SECONDS, SHARE

MODULE = """
func.func @main(%x: tensor<1x4xf32> {heatc.name = "x"}) -> (tensor<1x2xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["w"] : tensor<2x4xf32>
  %y = nn.linear %x, %w : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  func.return %y : tensor<1x2xf32>
}
"""


@pytest.fixture
def linear(tmp_path: Path) -> list[str]:
    """The words of a command for one linear layer as text."""
    (tmp_path / "model.mlir").write_text(MODULE)
    weights = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    save_file({"w": weights}, tmp_path / "w.safetensors")
    return [str(tmp_path / "model.mlir"), "--weights", str(tmp_path / "w.safetensors")]


def off_by(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """NumPy programs whose outputs are off by a factor."""
    from heatc.backends.numpy.program import LoadedProgram

    right = LoadedProgram.__call__
    monkeypatch.setattr(
        LoadedProgram,
        "__call__",
        lambda self, inputs: {k: factor * v for k, v in right(self, inputs).items()},
    )


# ---- what it says ------------------------------------------------------------------------------


def test_one_line_says_what_was_found(
    linear: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "y.py"
    assert main([*linear, "-o", str(output)]) == 0
    lines = [x for x in capsys.readouterr().err.splitlines() if "verified" in x]
    assert len(lines) == 1
    assert lines[0].startswith(f"{output}: remark: verified: largest difference ")
    assert "cosine 1.000000, 2 inputs (no padding; no padding), " in lines[0]


def test_the_line_is_a_remark(linear: list[str], tmp_path: Path):
    remarks = tmp_path / "remarks.jsonl"
    assert main([*linear, "-o", str(tmp_path / "y.py"), "--remarks", str(remarks)]) == 0
    records = [json.loads(line) for line in remarks.read_text().splitlines()]
    assert records[-1]["pass"] == "verify"
    assert records[-1]["message"].startswith("verified: ")


def test_what_the_user_may_want_to_know_is_listed(pair: Any):
    found = pair.compile("hdp", rule=make_rule("paper", {"rho_b": 0.0}))
    assert found.parts == (
        "pruned by paper",
        "approximated: softmax",
        "on the host: add, embedding, gelu, layer norm, tanh",
    )
    assert found.cosine < 0.9999
    factorised = pair.compile("numpy", heat="low-rank,ratio=0.5,init=plain,refinements=0")
    assert factorised.parts == ("factors in place of weights",)
    assert factorised.largest > 0.01


# ---- how long it takes -------------------------------------------------------------------------


def test_the_budget_is_a_share_of_compiling():
    assert Settings().budget(100.0) == SHARE * 100.0
    assert Settings().budget(0.0) == FEWEST_SECONDS
    assert Settings(seconds=0.0).budget(100.0) == 0.0


def test_one_input_is_always_taken_and_the_rest_is_said(tiny: Any):
    found = tiny.compile("hdp", Settings(seconds=0.0))
    assert found.inputs == ("left padding with holes",)
    assert found.left_out == 3
    assert "1 of 4 inputs (left padding with holes; more with --verify-seconds)" in str(found)


def test_a_batch_sees_several_kinds_at_once(pair: Any):
    found = pair.compile("numpy")
    assert found.inputs == ("left padding with holes, no padding", "right padding, one token")


# ---- what it is asked for ----------------------------------------------------------------------


def test_no_verify(linear: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    off_by(monkeypatch, 1.5)
    output = tmp_path / "y.py"
    assert main([*linear, "-o", str(output), "--no-verify"]) == 0
    assert output.exists()


def test_a_wrong_program_is_not_written(
    linear: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    output, folder = tmp_path / "y.py", tmp_path / "wrong"
    assert main([*linear, "-o", str(output)]) == 0
    before = output.read_bytes(), output.with_suffix(".safetensors").read_bytes()
    off_by(monkeypatch, 1.001)
    capsys.readouterr()
    command = [*linear, "-o", str(output), "--dump-divergence", str(folder)]
    assert main(command) == 3
    error = capsys.readouterr().err
    assert f"{output}: the program differs from the model in output 'y' by 0.001 of" in error
    assert "note: nothing was written; --no-verify writes it as it is" in error
    assert (output.read_bytes(), output.with_suffix(".safetensors").read_bytes()) == before
    assert sorted(p.name for p in folder.iterdir()) == [
        "inputs.npz",
        "model.npz",
        "module.npz",
        "program.npz",
    ]
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "model.npz") as model:
        weights = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
        np.testing.assert_allclose(inputs["x"] @ weights.T, model["y"], rtol=1e-6)


def test_a_program_that_fails_is_wrong(
    linear: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    from heatc.backends.numpy.program import LoadedProgram

    monkeypatch.setattr(LoadedProgram, "__call__", lambda self, inputs: {}["y"])
    assert main([*linear, "-o", str(tmp_path / "y.py")]) == 3
    assert "the program fails on an input that the model takes: 'y'" in capsys.readouterr().err


@pytest.mark.parametrize(("least", "fails"), [(0.5, False), (0.9999999, True)])
def test_pruning_is_judged_where_a_cosine_is_asked_for(least: float, fails: bool, pair: Any):
    rule, settings = make_rule("paper", {"rho_b": 0.0}), Settings(60.0, min_cosine=least)
    if not fails:
        assert pair.compile("hdp", settings, rule=rule).cosine >= least
        return
    with pytest.raises(VerificationError, match="cosine of an output with the model's") as caught:
        pair.compile("hdp", settings, rule=rule)
    assert caught.value.notes[0] == "asked for: at least 1 (--min-cosine)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-verify", "--min-cosine=0.9"], "--min-cosine: it says how to verify"),
        (["--no-verify", "--dump-divergence=x"], "--dump-divergence: it says how"),
        (["--min-cosine=2"], "outside [-1, 1]"),
        (["--verify-seconds=-1"], "no number of seconds"),
        (["--verify-seconds=nan"], "no number of seconds"),
    ],
)
def test_wrong_usage(
    words: list[str],
    message: str,
    linear: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert main([*linear, "-o", str(tmp_path / "y.py"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "y.py").exists()


# ---- what it does not know ---------------------------------------------------------------------


def test_text_above_the_machine_is_run(
    linear: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*linear, "--target=numpy", "-o", str(tmp_path / "y.mlir")]) == 0
    assert "y.mlir: remark: verified: " in capsys.readouterr().err


@pytest.mark.parametrize("form", ["ir", "asm"])
def test_text_of_the_machine_is_not(form: str, tiny: Any):
    assert tiny.compile("hdp", form=form).reason == "what was written cannot be run"


def test_text_without_the_weights_beside_it_is_not_written(
    linear: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([linear[0], "--target=numpy", "-o", str(tmp_path / "y.mlir")]) == 1
    error = capsys.readouterr().err
    assert "not verified: the model cannot be interpreted: weights: no weight named 'w'" in error
    assert "no weight named 'w'" in error
    assert not (tmp_path / "y.mlir").exists()


# ---- Python ------------------------------------------------------------------------------------


@pytest.mark.torch
def test_the_python_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model, inputs = torch.nn.Linear(4, 2).eval(), {"input": torch.zeros(1, 4)}
    path = heatc.compile(model, inputs, target="numpy", output=tmp_path / "x.py")
    off_by(monkeypatch, 1.01)
    path.unlink()
    with pytest.raises(VerificationError, match="differs from the model in output") as caught:
        heatc.compile(model, inputs, target="numpy", output=path, dump_divergence=tmp_path / "d")
    assert isinstance(caught.value, heatc.HeatcError)
    assert caught.value.notes[1].startswith("inputs and outputs are in ")
    assert not path.exists()
    assert heatc.compile(model, inputs, target="numpy", output=path, verify=False).exists()
