"""The `heatc` command on its own: options, forms, bad input, nothing half-written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from heatc.hardware import preset_names
from heatc.tools.main import main

MODULE = """
func.func @main(%x: tensor<1x4xf32> {heatc.name = "x"}) -> (tensor<1x2xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["w"] : tensor<2x4xf32>
  %y = nn.linear %x, %w : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  func.return %y : tensor<1x2xf32>
}
"""


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path]:
    """One linear layer as text, and its weights."""
    text, weights = tmp_path / "model.mlir", tmp_path / "weights.safetensors"
    text.write_text(MODULE)
    save_file({"w": np.arange(8, dtype=np.float32).reshape(2, 4)}, weights)
    return text, weights


def test_a_numpy_program_from_text(model: tuple[Path, Path], tmp_path: Path):
    output = tmp_path / "linear.py"
    assert main([str(model[0]), "--weights", str(model[1]), "-o", str(output)]) == 0
    namespace: dict[str, Any] = {"__file__": str(output), "__name__": "linear"}
    exec(compile(output.read_text(), str(output), "exec"), namespace)
    y = namespace["main"](np.array([[1.0, 0.0, 2.0, 0.0]], np.float32))["y"]
    np.testing.assert_allclose(y, [[4.0, 16.0]])


@pytest.mark.parametrize("output", ["x.py", "x.mlir"])
def test_what_it_wrote_is_replaced(model: tuple[Path, Path], tmp_path: Path, output: str):
    """Every file has the mark of its kind, by which the second compilation knows it."""
    arguments = [str(model[0]), "--weights", str(model[1]), "-o", str(tmp_path / output)]
    arguments += ["--target", "numpy", "--heat", "low-rank,rank=1,init=plain"]
    arguments += ["--remarks", str(tmp_path / "r.jsonl"), "--dump-phases-to", str(tmp_path / "ir")]
    runs: list[dict[str, bytes]] = []
    for _ in range(2):
        assert main(arguments) == 0
        files = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        # The remark of the check tells its seconds.
        runs.append({p: re.sub(rb"[0-9.]+ s;", b"", data) for p, data in files.items()})
    assert runs[0] == runs[1]
    assert (tmp_path / "r.jsonl").stat().st_size > 0


@pytest.mark.parametrize("words", ["ratio=.5", "ratio=5e-1", 'rank=1,layers=*|a{b}="c\\'])
def test_values_of_factors_need_no_care(model: tuple[Path, Path], tmp_path: Path, words: str):
    output = str(tmp_path / "x.py")
    arguments = [str(model[0]), "--weights", str(model[1]), "-o", output]
    assert main([*arguments, f"--heat=low-rank,init=plain,{words}"]) == 0


def test_calibration_inputs_of_any_name(model: tuple[Path, Path], tmp_path: Path):
    data = tmp_path / 'a\nb\r"c".npz'
    np.savez(data, x=np.ones((4, 4), np.float32))
    arguments = [str(model[0]), "--weights", str(model[1]), "-o", str(tmp_path / "x.py")]
    assert main([*arguments, "--heat=low-rank,rank=1", "--calibrate", str(data)]) == 0


def test_a_text_is_read_with_its_factors(model: tuple[Path, Path], tmp_path: Path):
    text = str(tmp_path / "x.mlir")
    arguments = [str(model[0]), "--weights", str(model[1]), "--target", "numpy"]
    assert main([*arguments, "-o", text, "--heat", "low-rank,rank=1,init=plain"]) == 0
    own = ["--weights", f"{text}.safetensors", "--weights", str(model[1])]
    assert main([text, *own, "-o", str(tmp_path / "x.py")]) == 0


def test_the_name_of_a_numpy_program(capsys: pytest.CaptureFixture[str]):
    assert main(["m.pt", "-o", "x.txt", "--emit=numpy"]) == 2
    assert "ends in .py" in capsys.readouterr().err


def test_ir_goes_to_stdout(model: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    arguments = [str(model[0]), "--weights", str(model[1]), "--target", "numpy", "--emit", "ir"]
    assert main(arguments) == 0
    assert 'einsum.contract "ai,oi->ao"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no MODEL given"),
        (["missing.pt", "-o", "x.hdp"], 1, "no such file"),
        (["missing.pt", "-o", "x.hdp", "--target", "hdp-edg"], 2, "did you mean 'hdp-edge'"),
        (["missing.pt", "-o", "x.hdp", "--hw", "missing.yaml"], 1, "missing.yaml"),
        (["missing.pt", "-o", "x.hdp", "--hw", "a", "--target", "numpy"], 2, "both name"),
        (["missing.pt", "-o", "x.bin"], 2, "suffix"),
        (["missing.pt"], 2, "needs a file"),
        (["missing.pt", "-o", "no/such/folder/x.hdp"], 1, "no folder"),
        (["missing.pt", "-o", "x.py", "--hdp-rule", "paper"], 2, "for HDP targets"),
        (["missing.pt", "-o", "x.py", "--target", "hdp-edge"], 2, "has no form"),
        (["missing.pt", "-o", "x.hdp", "--rho-b", "1"], 2, "outside (-1, 1)"),
        (["missing.pt", "-o", "x.hdp", "--tau-h", "nan"], 2, "not a threshold"),
        (["missing.pt", "-o", "x.hdp", "--density", "0.5"], 2, "rule ours does not take density"),
        (["missing.pt", "-o", "x.hdp", "--hdp-rule=none", "--rho-b=0.5"], 2, "not take rho-b"),
        (["missing.pt", "-o", "x.hdp", "--hdp-rule=paper", "--finer=1"], 2, "not take finer"),
        (["missing.pt", "-o", "x.hdp", "--hdp-rule=topk", "--density=0"], 2, "outside (0, 1]"),
        (
            ["missing.pt", "-o", "x.hdp", "--hdp-rule=topk", "--density=0.1,0.2"],
            2,
            "1 value(s), got 2",
        ),
        (["missing.pt", "-o", "x.hdp", "--hdp-rule=topk", "--density=few"], 2, "invalid float"),
        (["missing.pt", "-o", "x.hdp", "--hdp-rule=energon", "--alpha=0"], 2, "needs 2 value(s)"),
        (["missing.pt", "-o", "x.hdp", "--hdp-rule=ours", "--gated=one"], 2, "zero, mean, col"),
        (["missing.pt", "-o", "x.hdp", "--hdp-rule=sangre"], 2, "did you mean 'sanger'"),
        (["missing.pt", "-o", "x.hdp", "--plan", "p", "--hdp-rule", "none"], 2, "both choose"),
        (["missing.pt", "-o", "x.hdp", "--plan", "p", "--tau-h", "1"], 2, "both choose"),
        (["missing.pt", "-o", "x.hdp", "--plan", "missing.json"], 1, "missing.json"),
        (["missing.pt", "-o", "x.py", "--plan", "missing.json"], 1, "missing.json"),
        *(
            (["missing.pt", "-o", "x.py", f"--heat=low-rank,{words}"], 2, message)
            for words, message in (
                ("rank=1e9", "expected whole numbers from 1 on, e.g. 8 or 8x64x64, got '1e9'"),
                ("rank=8xx", "expected whole numbers"),
                ("rank=0", "expected whole numbers"),
                ("rank=1,modes=x", "--heat modes: expected a whole number, 1 or more"),
                ("rank=1,joint=1", "--heat joint: expected true or false, got '1'"),
                ("rank=1,init=none", "expected activation or plain, got 'none'"),
                ("ratio=-1", "expected a number above 0, at most 1, got '-1'"),
                ("ratio=nan", "expected a number above 0"),
                ("rank=1,rank=2", "'rank' is given twice"),
            )
        ),
        (["missing.pt", "-o", "x.hdp", "--inputs", "a=1y2"], 2, "malformed"),
        (["missing.pt", "-o", "x.hdp", "--print-ir-after", "rise-einsum"], 2, "unknown pass"),
        (["missing.pt", "-o", "x.hdp", "--hdp-rle", "none"], 2, "unknown option"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """One message, the right exit code, no file."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_op_without_a_unit_is_refused(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = MODULE.replace(
        "func.return %y",
        "%e = nn.expand %y : (tensor<1x2xf32>) -> tensor<2x2xf32>\n"
        '  %d = einsum.contract "aa->a" %e : (tensor<2x2xf32>) -> tensor<2xf32>\n'
        "  %z = nn.reshape %d : (tensor<2xf32>) -> tensor<1x2xf32>\n  func.return %z",
    )
    model[0].write_text(text)
    output = tmp_path / "x.hdp"
    code = main([str(model[0]), "--weights", str(model[1]), "-o", str(output)])
    assert code == 1
    message = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert "einsum.contract at model.mlir:6: it reads a diagonal" in message
    assert not output.exists()


def test_pruning_is_offered_where_there_is_attention(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A model without any has nothing to prune."""
    text, weights = tmp_path / "model.mlir", tmp_path / "weights.safetensors"
    ids, rows, table = "tensor<1x4xi64>", "tensor<1x4x2xf32>", "tensor<9x2xf32>"
    head = f'func.func @main(%i: {ids} {{heatc.name = "i"}}) -> {rows} {{'
    lookup = (
        f'%t = einsum.weight ["t"] : {table}\n%e = nn.embedding %t, %i : ({table}, {ids}) -> {rows}'
    )
    attention = (
        f"%a = attn.sdpa %e, %e, %e {{heads = 1 : i64, scale = 1.0 : f64}} : "
        f"{rows}, {rows}, {rows} -> {rows}"
    )
    save_file({"t": np.ones((9, 2), np.float32)}, weights)
    for ops, result in ((lookup, "%e"), (f"{lookup}\n{attention}", "%a")):
        text.write_text(f"{head}\n{ops}\nfunc.return {result} : {rows}\n}}\n")
        output = str(tmp_path / f"x{result[1]}.hdp")
        assert main([str(text), "--weights", str(weights), "-o", output]) == 0
        offered = "--hdp-rule=ours prunes it" in capsys.readouterr().err
        assert offered == (result == "%a")


def test_missing_weights_are_named(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(model[0]), "-o", str(tmp_path / "x.py")]) == 1
    assert "no weight named 'w'" in capsys.readouterr().err


def test_questions_are_answered(capsys: pytest.CaptureFixture[str]):
    assert main(["--list-targets"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [*preset_names(), "numpy"]
    assert {row[1] for row in rows} == {"heatc"}
    for what, name in (("passes", "raise-attention"), ("rules", "paper"), ("formats", "tt")):
        assert main([f"--list-{what}"]) == 0
        rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
        assert rows[name][1] == "heatc"
        assert all(len(row) > 3 for row in rows.values())
    assert main(["--print-hw", "hdp-edge"]) == 0
    assert "name: hdp-edge" in capsys.readouterr().out
    assert main(["--dump-pass-pipeline", "-o", "x.hdp"]) == 0
    assert "insert-hdp{rule=none}" in capsys.readouterr().out
    assert main(["--dump-pass-pipeline", "-o", "x.hdp", "--finer=2"]) == 0
    assert "insert-hdp{rule=ours finer=2" in capsys.readouterr().out
    question = ["--dump-pass-pipeline", "-o", "x.hdp", "--hdp-rule=energon", "--alpha=1e-3,-0.5"]
    assert main(question) == 0
    assert "insert-hdp{rule=energon alpha=0.001,-0.5}" in capsys.readouterr().out


LINEAR = "raise-einsum,order-contractions,lower-contractions"


def test_a_pipeline_of_ones_own(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [str(model[0]), "--weights", str(model[1]), "-o", str(tmp_path / "x.py")]
    words = ["--pass-pipeline", LINEAR, "--insert-pass", "cse,dce:before=lower-contractions"]
    assert main([*arguments, *words, "--dump-phases-to", str(tmp_path / "phases")]) == 0
    names = [p.name[3:-5] for p in sorted((tmp_path / "phases").glob("*.mlir"))]
    assert names == ["captured", "raise-einsum", "order-contractions", "cse", "dce", *names[-1:]]
    assert names[-1] == "lower-contractions"
    assert "verified" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--insert-pass", "csee:after=dce"], "did you mean 'cse'"),
        (["--insert-pass", "cse:after=raise-einsm"], "did you mean 'raise-einsum'"),
        (["--insert-pass", "cse"], "malformed insertion 'cse'"),
        (["--insert-pass", ":after=cse"], "malformed insertion"),
        (["--insert-pass", "cse:after=dce"], "the pipeline has 3 passes 'dce'"),
        (["--insert-pass", "cse:after=tile-for-hdp"], "the pipeline has no pass 'tile-for-hdp'"),
        (["--insert-pass", "heat-decompose{rnk=1}:after=cse"], "did you mean 'rank'"),
        (["--pass-pipeline", "raise-einsum,{"], "malformed pass pipeline"),
        (["--pass-pipeline", "raise-einsm"], "did you mean 'raise-einsum'"),
        (["--pass-pipeline", "cse", "--heat", "tt,rank=1"], "--heat both choose the passes"),
        (["--pass-pipeline", "cse", "--padding", "compute"], "--padding both choose"),
        (["--pass-pipeline", "cse", "--calibrate", "d.npz"], "nothing asks for calibration"),
        (["--hdp-rule", "papr"], "did you mean 'paper'"),
        (["--hdp-rule", "paper", "--rule-option", "bits=2"], "rule paper has no option 'bits=2'"),
    ],
)
def test_wrong_passes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["missing.pt", "-o", "x.py", "--target", "numpy", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("applied", [False, True])
def test_a_plan_beside_a_pipeline_of_ones_own(
    applied: bool,
    model: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    plan = tmp_path / "plan.json"
    plan.write_text('{"schema": 2, "layers": {"nowhere": {"hdp": {"rule": "ours"}}}}')
    passes = f"raise-einsum,{'apply-plan' if applied else 'cse'},dce"
    words = ["--weights", str(model[1]), "-o", str(tmp_path / "x.mlir"), "--pass-pipeline", passes]
    assert main([str(model[0]), *words, "--target", "hdp-edge", "--plan", str(plan)]) == 2 - applied
    wanted = "no such attention" if applied else "nothing applies the plan"
    assert wanted in capsys.readouterr().err


def test_phases_and_timing(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "phases"
    arguments = [str(model[0]), "--weights", str(model[1]), "-o", str(tmp_path / "x.py")]
    arguments += ["--dump-phases-to", str(folder), "--timing", "--execute-each"]
    assert main([*arguments, "--print-ir-after", "raise-einsum"]) == 0
    names = [p.name for p in sorted(folder.glob("*.mlir"))]
    assert names[:2] == ["00-captured.mlir", "01-canonicalize.mlir"]
    assert any(name.endswith("-raise-attention.mlir") for name in names)
    error = capsys.readouterr().err
    assert "// IR after raise-einsum:" in error
    assert "ms  raise-einsum" in error
    assert "raise-einsum: exact" in error
