"""`--remarks`: what passes decided for every layer, and what else they weighed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from heatc.context import HeatcContext
from heatc.passes.rewriting import remark
from heatc.remarks import Remark, RemarkLog
from heatc.tools.main import main

REMARK = Remark("up", "", "why", {}, (), True)

MODEL = """
func.func @main(%x: tensor<?x32xf32> {heatc.name = "x"}) -> (tensor<?x4xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["up.weight"] : tensor<48x32xf32>
  %h = einsum.contract "ti,oi->to" %x, %w : (tensor<?x32xf32>, tensor<48x32xf32>) -> tensor<?x48xf32> loc("up"("m.py":7:0))
  %r = nn.relu %h : (tensor<?x48xf32>) -> tensor<?x48xf32>
  %v = einsum.weight ["side.weight"] : tensor<4x48xf32>
  %y = einsum.contract "ti,oi->to" %r, %v : (tensor<?x48xf32>, tensor<4x48xf32>) -> tensor<?x4xf32> loc("side"("m.py":8:0))
  func.return %y : tensor<?x4xf32>
}
"""


def compiled(folder: Path, heat: str, remarks: str) -> int:
    """The exit code of a compilation for NumPy."""
    rng = np.random.default_rng(0)
    weights = {"up.weight": rng.normal(size=(48, 32)), "side.weight": rng.normal(size=(4, 48))}
    model, store = folder / "m.mlir", folder / "w.safetensors"
    model.write_text(MODEL)
    save_file({name: a.astype(np.float32) for name, a in weights.items()}, store)
    words = [str(model), "--weights", str(store), "-o", str(folder / "x.py"), "--target", "numpy"]
    return main([*words, f"--heat={heat},init=plain", "--remarks", remarks, "--no-verify"])


def records(folder: Path, heat: str) -> list[dict[str, Any]]:
    """The records of a compilation."""
    path = folder / "remarks.jsonl"
    assert compiled(folder, heat, str(path)) == 0
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_layer_is_told_of(tmp_path: Path):
    found = records(tmp_path, "low-rank,ratio=0.4")
    assert all(
        sorted(r) == ["chosen", "layer", "message", "pass", "place", "weighed"] for r in found
    )
    assert {r["layer"] for r in found} == {"up", "side"}
    up, fused = (
        next(r for r in found if (r["pass"], r["layer"]) == (name, "up"))
        for name in ("heat-decompose", "fuse-einsums")
    )
    # 7 (32 + 48) of 32 x 48 multiply-accumulates a token are the most within 0.4 of them.
    assert up["chosen"]["ranks"] == [7]
    assert up["chosen"]["macs"] == 7 * (32 + 48) * 128
    assert up["chosen"]["parameters"] == 7 * (32 + 48)
    assert 0 < up["chosen"]["error"] < 1
    assert up["weighed"] == [
        {"format": "dense", "parameters": 1536, "macs": 1536 * 128, "tokens": 128, "error": 0.0}
    ]
    assert up["place"] == "up (m.py:7)"
    path = next(r for r in found if (r["pass"], r["layer"]) == ("order-contractions", "up"))
    assert path["chosen"] == {
        "name": "least macs",
        "path": [[0, 1], [3, 2]],
        "macs": 7 * (32 + 48) * 128,
        "words": 128 * (32 + 7 + 7 + 48) + 7 * (32 + 48),
        "largest_words": 128 * 48,
    }
    macs = {w["name"]: w["macs"] for w in path["weighed"]}
    rebuilt = 7 * 32 * 48 + 1536 * 128
    assert macs == {"left to right": path["chosen"]["macs"], "weight rebuilt": rebuilt}
    assert path["message"] == (
        f"up: the path of least macs takes {7 * (32 + 48) * 128}; "
        f"left to right {7 * (32 + 48) * 128}, weight rebuilt {rebuilt}"
    )
    # Without the way out and back of 7 values of 4 bytes for each of 128 tokens.
    moved = {r["fuse"]: r["moved_bytes"] for r in (fused["chosen"], *fused["weighed"])}
    assert moved[False] - moved[True] == 2 * 7 * 4 * 128
    assert fused["chosen"]["tiles"] == [128]


def test_a_layer_that_stays_dense_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = {r["layer"]: r for r in records(tmp_path, "low-rank,ratio=0.1")}
    assert found["side"]["message"] == (
        "side stays dense: low-rank 48|4 of rank 1 costs 0.271 of its multiply-accumulates, "
        "the ratio is 0.1"
    )
    assert found["side"]["chosen"]["format"] == "dense"
    assert found["side"]["weighed"][0]["macs"] == (48 + 4) * 128
    # What is shown unasked is shown beside a file too, the rest is not.
    assert capsys.readouterr().err.count("remark: ") == 1
    found = {r["layer"]: r for r in records(tmp_path, "low-rank,rank=2,layers=up")}
    assert found["side"]["message"] == "side stays dense: layers=up does not name it"


def test_text_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert compiled(tmp_path, "low-rank,ratio=0.4", "-") == 0
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.endswith(" [heat-decompose]") for line in lines) == 2
    assert "up (m.py:7): remark: up: 1 of 1 result(s) between steps stay on the chip" in "\n".join(
        lines
    )


def test_an_unwritable_file_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert compiled(tmp_path, "low-rank,ratio=0.4", str(tmp_path / "no" / "r.jsonl")) == 1
    assert "cannot write" in capsys.readouterr().err
    assert not (tmp_path / "x.py").exists()


def test_a_log_is_written_after_an_error(tmp_path: Path):
    log = RemarkLog(tmp_path / "r.jsonl")

    def fail() -> None:
        with log:
            log.take(REMARK)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert json.loads((tmp_path / "r.jsonl").read_text())["message"] == "why"


def test_each_context_has_remarks_of_its_own(capsys: pytest.CaptureFixture[str]):
    first, second = list[Remark](), list[Remark]()
    contexts = HeatcContext(remarks=first.append), HeatcContext(remarks=second.append)
    for context in (*contexts, contexts[1].clone()):
        remark(context, ModuleOp([]), "why")
    assert [len(first), len(second)] == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_context_that_carries_none_prints_what_is_shown(capsys: pytest.CaptureFixture[str]):
    for context in (Context(), HeatcContext()):
        remark(context, ModuleOp([]), "why")
        remark(context, ModuleOp([]), "not asked for", shown=False)
    assert capsys.readouterr().err == "remark: why\n" * 2
