"""What heatc writes as text can be read back, with its weights, and goes on where it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heatc
from heatc.tools import main, opt, run, tune

pytestmark = pytest.mark.torch

Capture = pytest.CaptureFixture[str]
SHAPES = "input_ids=2x8:i64,attention_mask=2x8:i64"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT: its position ids are a buffer that no checkpoint holds."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    path = tmp_path_factory.mktemp("folder")
    transformers.BertModel(config).eval().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def phases(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All levels of an HDP program, which lies beside them."""
    path = tmp_path_factory.mktemp("phases")
    words = [
        "--inputs",
        SHAPES,
        "--dump-phases-to",
        str(path),
        "--heat",
        "low-rank,rank=8,init=plain",
    ]
    assert main.main([str(folder), "-o", str(path / "whole.hdp"), *words, "--no-verify"]) == 0
    return path


HEAT = ["--heat", "low-rank,rank=8,init=plain"]


def outputs(program: Path, tmp_path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What an HDP program gives for a padded batch."""
    mask = np.ones((2, 8), np.int64)
    mask[1, 5:] = 0
    ids = np.random.default_rng(0).integers(0, 60, (2, 8))
    np.savez(tmp_path / "in.npz", input_ids=ids, attention_mask=mask)
    words = [str(program), "--inputs", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")]
    assert run.main(words) == 0
    with np.load(tmp_path / "out.npz") as found:
        return dict(found)


def text_of(phases: Path, name: str) -> Path:
    """The text of a phase by the name of its pass."""
    return sorted(phases.glob(f"[0-9][0-9]-{name}.mlir"))[-1]


PHASES = [
    "captured",
    "raise-attention",
    "pack-tokens",
    "heat-decompose",
    "fuse-einsums",
    "insert-hdp",
    "assign-fixed-point",
    "tile-for-hdp",
    "allocate-buffers",
]


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_goes_on(phases: Path, tmp_path: Path, phase: str) -> None:
    """The program is the one that was written at once, whatever level its text is of."""
    program = tmp_path / "again.hdp"
    assert main.main([str(text_of(phases, phase)), "-o", str(program), *HEAT]) == 0
    expected = outputs(phases / "whole.hdp", tmp_path)
    found = outputs(program, tmp_path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


ADDED = ("captured", "heat-decompose", "fold-weights")


def test_weights_of_phases(phases: Path) -> None:
    """What was captured lies beside the first text, factors beside that of the pass."""
    from heatc.weights import WeightStore

    names = [path.name[3:] for path in sorted(phases.glob("*.safetensors"))]
    assert names == [f"{name}.mlir.safetensors" for name in ADDED]
    captured = WeightStore.open(phases / "00-captured.mlir.safetensors")
    assert "embeddings.position_ids" in captured
    assert "encoder.layer.0.attention.self.query.weight" in captured


def test_phases_of_a_phase(phases: Path, tmp_path: Path) -> None:
    """They go on with the numbers, and can be read back in turn."""
    words = ["-o", str(tmp_path / "a.hdp"), "--dump-phases-to", str(tmp_path / "b"), *HEAT]
    assert main.main([str(text_of(phases, "fuse-einsums")), *words]) == 0
    begun = text_of(phases, "fuse-einsums").name
    following = text_of(phases, "shape-products").name
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert names[:3] == [begun, f"{begun}.safetensors", following]
    text = str(text_of(tmp_path / "b", "insert-hdp"))
    assert main.main([text, "-o", str(tmp_path / "c.hdp"), *HEAT]) == 0


@pytest.mark.parametrize("target", ["numpy", "hdp-edge"])
def test_a_text_as_output(folder: Path, tmp_path: Path, target: str) -> None:
    text = tmp_path / "x.mlir"
    words = ["--target", target]
    assert main.main([str(folder), "-o", str(text), "--inputs", SHAPES, *words]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"x.mlir", "x.mlir.safetensors"}
    program = tmp_path / ("x.py" if target == "numpy" else "x.hdp")
    assert main.main([str(text), "-o", str(program), *words]) == 0


def test_weights_that_are_named_come_first(
    folder: Path, phases: Path, tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "00-captured.mlir"
    text.write_text((text_of(phases, "captured")).read_text())
    assert main.main([str(text), "-o", str(tmp_path / "a.py")]) == 1
    assert "no weight named" in capsys.readouterr().err
    file = str(phases / "00-captured.mlir.safetensors")
    # The folder's own weights, and once more those that were written, with the same values.
    words = ["--weights", str(folder / "model.safetensors"), "--weights", file]
    assert main.main([str(text), "-o", str(tmp_path / "a.py"), *words]) == 0


def test_two_files_with_other_values(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from heatc.weights import WeightStore

    tensors = load_file(folder / "model.safetensors")
    tensors["pooler.dense.bias"] = tensors["pooler.dense.bias"] + 1
    save_file(tensors, tmp_path / "other.safetensors")
    files = [folder / "model.safetensors", tmp_path / "other.safetensors"]
    with pytest.raises(heatc.HeatcError, match=r"'pooler\.dense\.bias' is in two files"):
        WeightStore.open_all(files)


@pytest.mark.parametrize(
    ("phase", "words", "message"),
    [
        ("pack-tokens", ["--padding=compute"], "has been through pack-tokens, where this"),
        (
            "heat-decompose",
            ["--heat=low-rank,rank=4,init=plain"],
            "where this compilation has heat-",
        ),
        ("fuse-einsums", [*HEAT, "--target=hdp-server"], "compiled for another machine"),
        ("insert-hdp", [*HEAT, "--target=numpy", "--emit=ir"], "has order-contractions"),
    ],
)
def test_another_way(
    phases: Path, tmp_path: Path, capsys: Capture, phase: str, words: list[str], message: str
) -> None:
    """A text whose passes this compilation does not begin with."""
    text = str(text_of(phases, phase))
    assert main.main([text, "-o", str(tmp_path / "x.mlir"), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert f"{phase}.mlir: " in error
    assert "00-captured.mlir" in error
    assert not list(tmp_path.iterdir())


def test_factors_need_no_option(phases: Path, tmp_path: Path) -> None:
    """They are in the text: --heat need not be said again."""
    program = tmp_path / "again.hdp"
    assert main.main([str(text_of(phases, "fuse-einsums")), "-o", str(program)]) == 0
    found, expected = outputs(program, tmp_path), outputs(phases / "whole.hdp", tmp_path)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_passes_that_follow_can_be_named(phases: Path, tmp_path: Path) -> None:
    text = str(text_of(phases, "lower-contractions"))
    words = ["--target=numpy", "--pass-pipeline=fuse-projections,dce,fuse-einsums"]
    assert main.main([text, "-o", str(tmp_path / "x.py"), *words]) == 0


def test_heatc_opt_finds_the_weights(phases: Path, tmp_path: Path) -> None:
    """A pass that reads them needs no option, and the text says that it ran."""
    text = tmp_path / "x.mlir"
    words = ["-p", "heat-decompose{rank=8 init=plain}", "-o", str(text)]
    factors = ["--factors", str(tmp_path / "f.safetensors")]
    assert opt.main([str(text_of(phases, "dce")), *words, *factors]) in (0, None)
    assert '"heat-decompose{rank=8 init=plain}"' in text.read_text()


def test_tuning_begins_at_the_captured_level(phases: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["--goal", "sparsity>=0.5", "-o", str(tmp_path / "p.json")]
    np.savez(tmp_path / "d.npz", input_ids=np.ones((2, 8), np.int64))
    text = str(text_of(phases, "pack-tokens"))
    assert tune.main(["calibrate", text, *words, "--data", str(tmp_path / "d.npz")]) == 1
    assert "tuning begins at what was captured" in capsys.readouterr().err


def test_a_text_that_says_nonsense(phases: Path, tmp_path: Path, capsys: Capture) -> None:
    text = (text_of(phases, "captured")).read_text()
    damaged = text.replace("{heatc.source", "{heatc.passes = [1 : i32], heatc.source", 1)
    (tmp_path / "x.mlir").write_text(damaged)
    assert main.main([str(tmp_path / "x.mlir"), "-o", str(tmp_path / "x.py")]) == 1
    assert "expected an array of strings" in capsys.readouterr().err
