"""What a masked position means, on both targets: every number that PyTorch defines is PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_models import (
    READINGS,
    VOCABULARY,
    WIDTH,
    Attention,
    Reader,
    batch,
    masks,
    run_numpy,
)

from heatc.api import make_context
from heatc.backends.hdp.emit import run_module
from heatc.capture import capture_module
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.pipeline import build, run_passes
from heatc.targets import Hdp, Numpy, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

TOKENS = 12
TOLERANCE = {"numpy": 2e-5, "hdp-edge": 3e-2}
PAIRS = [(reading, target) for reading in READINGS for target in TOLERANCE]


def close(found: Any, wanted: Any, target: str, name: str) -> None:
    """Codes are as far off as their share of a sum of many of them."""
    rtol = 0.0 if target == "numpy" else 4e-3
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=TOLERANCE[target], err_msg=name)


def expected(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """PyTorch's outputs."""
    with torch.no_grad():
        outputs = model(**{name: torch.tensor(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def compiled(model: Any, inputs: dict[str, Any], target: str, padding: str, folder: Path) -> Any:
    """A function from inputs to outputs."""
    example = {name: torch.tensor(value) for name, value in inputs.items()}
    captured = capture_module(model, example)
    options = Options(Numpy() if target == "numpy" else Hdp(target), padding=padding)
    hardware = None if target == "numpy" else load_hardware(target)
    context = make_context(captured.weights, hardware=hardware)
    run_passes(context, captured.module, build(pipeline_text(options)))
    if hardware is not None:
        return lambda given: run_module(captured.module, given, captured.weights, hardware)
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
            close(value, wanted[name], target, name)
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
        close(found[name], value, target, name)


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


class OneToken(torch.nn.Module):
    """Sequences of one token: a column of it, or its first token, of the same shape either way."""

    def __init__(self, reading: str):
        super().__init__()
        torch.manual_seed(0)
        self.reading = reading
        self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layer = Attention()
        self.head = torch.nn.Linear(WIDTH, 1)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """(batch, 1) by name."""
        y = self.head(self.layer(self.words(input_ids), attention_mask > 0))
        ways = {"column": y[..., 0], "squeezed": y.squeeze(-1), "first": y[:, 0]}
        return {self.reading: ways[self.reading]}


@pytest.mark.parametrize("target", TOLERANCE)
@pytest.mark.parametrize("reading", ["column", "squeezed", "first"])
def test_one_token_a_sequence(reading: str, target: str, tmp_path: Path):
    """Which axis of extent 1 is dropped decides whether an output has the tokens."""
    inputs = {"input_ids": np.array([[3], [5]]), "attention_mask": np.ones((2, 1), np.int64)}
    model = OneToken(reading).eval()
    run = compiled(model, inputs, target, "skip", tmp_path)
    wanted = expected(model, inputs)[reading]
    np.testing.assert_allclose(run(inputs)[reading], wanted, atol=TOLERANCE[target])
    empty = {**inputs, "attention_mask": np.array([[1], [0]])}
    if reading == "first":
        with pytest.raises(HeatcError if target != "numpy" else ValueError, match="row 1"):
            run(empty)
        return
    found = run(empty)[reading]
    np.testing.assert_allclose(found[0], wanted[0], atol=TOLERANCE[target])
    np.testing.assert_array_equal(found[1], 0)


class TwoMasks(torch.nn.Module):
    """An attention, and weights that are none of an attention, with a mask each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layer = Attention()

    def forward(self, input_ids: Any, first_mask: Any, second_mask: Any) -> Any:
        """Tokens after both."""
        x = self.layer(self.words(input_ids), first_mask > 0)
        weights = (x @ x.transpose(1, 2)).tanh() * second_mask[:, None].float()
        return {"tokens": x + weights @ x}


def test_a_program_says_which_mask(tmp_path: Path):
    """Where two masks differ, outputs are 0 where the one that it names masks a position."""
    inputs = {"input_ids": batch(TOKENS)["input_ids"][:2]}
    inputs |= {"first_mask": masks(TOKENS)[[1, 2]], "second_mask": masks(TOKENS)[[3, 5]]}
    model = TwoMasks().eval()
    run = compiled(model, inputs, "numpy", "skip", tmp_path)
    (mask,) = run.program.MASKS
    assert mask == "first_mask"
    assert f"0 where {mask} masks a position" in run.program.__doc__
    hidden, wanted = inputs[mask] == 0, expected(model, inputs)["tokens"]
    found = run(inputs)["tokens"]
    np.testing.assert_array_equal(found[hidden], 0)
    np.testing.assert_allclose(found[~hidden], wanted[~hidden], atol=TOLERANCE["numpy"])
