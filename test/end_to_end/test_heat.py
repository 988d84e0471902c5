"""Factorised models end to end: `heatc --heat=...`, both programs of every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="capture needs torch")
pytest.importorskip("transformers", reason="capture needs transformers")

from bench.main_job import HIDDEN, cosine, embeddings
from bench.support import programs
from bench.support.programs import Arrays, NumpyProgram

pytestmark = pytest.mark.torch

FORMATS = (
    "low-rank,ratio=0.6",
    "low-rank,ratio=0.5,joint",
    "tt,modes=2,rank=12",
    "ttm,modes=2,rank=4",
    "tucker,modes=2,rank=6",
    "cp,modes=2,rank=24",
)


def inputs() -> Arrays:
    """Three sentences of the tiny model, one of a single token."""
    rng = np.random.default_rng(0)
    mask = (np.arange(16) < np.array([[9], [16], [1]])).astype(np.int64)
    return {"input_ids": rng.integers(1, 96, (3, 16)) * mask, "attention_mask": mask}


@pytest.mark.parametrize("target", ["hdp-edge", "hdp-server"])
@pytest.mark.parametrize("heat", FORMATS)
def test_the_machine_is_the_numpy_program(
    tiny: Path, tmp_path: Path, heat: str, target: str
) -> None:
    """The same factors, along paths of their own; fixed point takes what it takes without factors."""
    arrays, option = inputs(), f"--heat={heat},init=plain"
    options = (option, "--hdp-rule=none", "--execute-each", f"--target={target}")
    hdp = programs.compile_model(tiny, tmp_path / "small.hdp", arrays, *options)
    plain = programs.compile_model(tiny, tmp_path / "small.py", arrays, option)
    found = programs.run_hdp(hdp, arrays)
    expected = NumpyProgram(plain)(arrays)[HIDDEN]
    mask = arrays["attention_mask"]
    assert not found.outputs[HIDDEN][mask == 0].any()
    near = cosine(embeddings(found.outputs[HIDDEN], mask), embeddings(expected, mask))
    assert near.min() >= 0.999
