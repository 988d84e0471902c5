"""Every tool answers files that are none with one message, at once."""

from __future__ import annotations

import os
import resource
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from heatc.tools import assemble, main, objdump, opt, run, tune

Main = Callable[[Sequence[str] | None], int]

MODULE = """
func.func @main(%x: tensor<1x4xf32> {heatc.name = "x"}) -> (tensor<1x2xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["w"] : tensor<2x4xf32>
  %y = nn.linear %x, %w : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  func.return %y : tensor<1x2xf32>
}
"""

HEATC = ("model.mlir", "--weights", "w.safetensors", "-o", "out.py")
TUNE = ("calibrate", "model.mlir", "--goal", "sparsity>=0.5", "-o", "p.json")

PLACES: list[tuple[Main, tuple[str, ...]]] = [
    (main.main, ("{}", "-o", "out.py")),
    (main.main, ("{}.mlir", "-o", "out.py")),
    (main.main, ("model.mlir", "--weights", "{}", "-o", "out.py")),
    (main.main, (*HEATC, "--plan", "{}")),
    (main.main, (*HEATC, "--heat", "low-rank,rank=1", "--calibrate", "{}")),
    (main.main, ("model.mlir", "--weights", "w.safetensors", "-o", "out.hdp", "--hw", "{}.yaml")),
    (opt.main, ("{}",)),
    (assemble.main, ("{}", "-o", "out.bin")),
    (objdump.main, ("-d", "{}")),
    (run.main, ("{}", "--inputs", "in.npz")),
    (tune.main, (*TUNE, "--data", "{}")),
    (tune.main, (*TUNE, "--data", "in.npz", "--hw", "{}.yaml")),
    (tune.main, (*TUNE, "--data", "in.npz", "--plan", "{}")),
]
"""Where each tool takes a file; the place of the file is {}."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("model.mlir").write_text(MODULE)
    save_file({"w": np.arange(8, dtype=np.float32).reshape(2, 4)}, "w.safetensors")
    np.savez("in.npz", x=np.ones((16, 4), np.float32))
    return tmp_path


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def without_writer(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def huge(path: Path) -> None:
    """More than any text may have; sparse, so that it takes no disk."""
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


KINDS = (endless, without_writer, folder, empty, binary, huge)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("tool", "arguments"), PLACES)
def test_what_is_no_file_of_a_tool(
    tool: Main,
    arguments: tuple[str, ...],
    make: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
):
    words = [argument.format("bad") for argument in arguments]
    bad = next(new for new, old in zip(words, arguments) if new != old)
    make(Path(bad))
    if tool is assemble.main and make in (empty, without_writer):
        pytest.skip("a text without a line is a program without an instruction")
    assert tool(words) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert f": error: {bad}" in found.err
    assert "error: " in found.err
    assert not any(Path().glob("out*"))


def test_labels_are_no_input(capsys: pytest.CaptureFixture[str]):
    """A data set with classes calibrates as one without; see test_run.py for a run."""
    np.savez("data.npz", x=np.ones((16, 4), np.float32), labels=np.zeros(16, np.int64))
    assert main.main([*HEATC, "--heat", "low-rank,rank=1", "--calibrate", "data.npz"]) == 0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((16, 4), np.complex64), "has shape (16, 4) and dtype complex64"),
        (np.zeros((16, 5), np.float32), "has shape (16, 5) and dtype float32"),
        (np.zeros(16, np.float32), "has shape (16,) and dtype float32"),
    ],
)
def test_calibration_inputs_are_those_of_the_model(
    x: Any, message: str, capsys: pytest.CaptureFixture[str]
):
    np.savez("data.npz", x=x)
    assert main.main([*HEATC, "--heat", "low-rank,rank=1", "--calibrate", "data.npz"]) == 1
    assert f"calibration input 'x' {message}" in capsys.readouterr().err


def test_a_small_file_of_a_large_array(capsys: pytest.CaptureFixture[str]):
    """Gigabytes of something else are not read to say that the input is missing."""
    header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (1 << 26,)}
    archive = zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("z.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for _ in range(256):
            stream.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main.main([*HEATC, "--heat", "low-rank,rank=1", "--calibrate", "bomb.npz"]) == 1
    assert "calibration input 'x' is missing" in capsys.readouterr().err
    assert tune.main([*TUNE, "--data", "bomb.npz"]) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10
