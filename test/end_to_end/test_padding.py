"""What a masked position means, on both targets: every number that PyTorch defines is PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_models import READINGS, Reader, batch, run_numpy
from xdsl.utils.exceptions import PassFailedException

from heatc.api import make_context
from heatc.backends.hdp.emit import run_module
from heatc.capture import capture_module
from heatc.errors import HeatcError
from heatc.pipeline import Options, build, pipeline_text, run_passes

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

TOKENS = 12
TOLERANCE = {"numpy": 2e-5, "hdp-edge": 3e-2}
ON_HDP = {"tokens", "first", "last", "flat"}  # of the others an op has no unit there
PAIRS = [
    (reading, target)
    for reading in READINGS
    for target in TOLERANCE
    if target == "numpy" or reading in ON_HDP
]


def expected(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """PyTorch's outputs."""
    with torch.no_grad():
        outputs = model(**{name: torch.tensor(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def compiled(model: Any, inputs: dict[str, Any], target: str, padding: str, folder: Path) -> Any:
    """A function from inputs to outputs."""
    example = {name: torch.tensor(value) for name, value in inputs.items()}
    captured = capture_module(model, example)
    options = Options(None if target == "numpy" else target, padding=padding)
    run_passes(make_context(captured.weights), captured.module, build(pipeline_text(options)))
    if target != "numpy":
        return lambda given: run_module(captured.module, given, captured.weights, target)
    return run_numpy(captured.module, captured.weights, folder)


@pytest.mark.parametrize(("reading", "target"), PAIRS)
def test_every_reading_is_the_models(reading: str, target: str, tmp_path: Path):
    """Real tokens, and all that no longer has a token axis; 0 at masked positions."""
    model = Reader(reading, TOKENS).eval()
    inputs = batch(TOKENS)
    real = inputs["attention_mask"] > 0
    wanted = expected(model, inputs)
    found = compiled(model, inputs, target, "skip", tmp_path)(inputs)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        if name != "tokens":
            np.testing.assert_allclose(value, wanted[name], atol=TOLERANCE[target])
            continue
        np.testing.assert_allclose(value[real], wanted[name][real], atol=TOLERANCE[target])
        np.testing.assert_array_equal(value[~real], 0)


@pytest.mark.parametrize(("reading", "target"), PAIRS)
def test_computed_padding_is_pytorch(reading: str, target: str, tmp_path: Path):
    """With `padding=compute` masked positions too."""
    model = Reader(reading, TOKENS).eval()
    inputs = batch(TOKENS)
    found = compiled(model, inputs, target, "compute", tmp_path)(inputs)
    for name, value in expected(model, inputs).items():
        np.testing.assert_allclose(found[name], value, atol=TOLERANCE[target], err_msg=name)


@pytest.mark.parametrize("reading", sorted(READINGS.keys() - ON_HDP))
def test_what_has_no_unit_is_refused(reading: str, tmp_path: Path):
    """The HDP target refuses at compile time what it cannot compute; nothing is left out."""
    model, inputs = Reader(reading, TOKENS).eval(), batch(TOKENS)
    with pytest.raises(
        PassFailedException, match=r"has a unit for|provably key padding|the same mask for all"
    ):
        compiled(model, inputs, "hdp-edge", "skip", tmp_path)


@pytest.mark.parametrize("target", TOLERANCE)
def test_a_row_without_a_token(target: str, tmp_path: Path):
    """Its token rows are 0 where nothing else depends on it; else the run says which row it is."""
    inputs = batch(TOKENS)
    mask = inputs["attention_mask"].copy()
    mask[1] = 0
    empty = {**inputs, "attention_mask": mask}
    tokens = Reader("tokens", TOKENS).eval()
    run = compiled(tokens, inputs, target, "skip", tmp_path)
    found, full = run(empty)["tokens"], run(inputs)["tokens"]
    np.testing.assert_array_equal(found[1], 0)
    others = np.delete(found, 1, 0), np.delete(full, 1, 0)
    np.testing.assert_allclose(*others, atol=1e-6 if target == "numpy" else 0)
    for reading in ("first", "flat"):
        run = compiled(Reader(reading, TOKENS).eval(), inputs, target, "skip", tmp_path)
        error = HeatcError if target != "numpy" else ValueError
        with pytest.raises(error, match="row 1"):
            run(empty)
