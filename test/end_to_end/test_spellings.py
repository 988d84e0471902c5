"""Attention in any spelling is PyTorch's, and is one op; what only looks like it is PyTorch's too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attention_spellings import EQUAL_EXTENTS, HEADS, LOOKALIKES, SPELLINGS, Speller
from padded_models import masks, run_numpy
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.capture import capture_exported
from heatc.dialects import attn, nn
from heatc.pipeline import build, run_passes
from heatc.remarks import Remark
from heatc.targets import Numpy, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

WIDTH = 32
Array = np.ndarray[Any, Any]


def inputs_of(mask: Array) -> dict[str, Any]:
    """Ids of other values at masked positions too."""
    ids = np.random.default_rng(1).integers(1, 40, mask.shape)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


class Compiled:
    """A model's module before packing and after all passes, its program's outputs and PyTorch's."""

    def __init__(self, model: Any, inputs: dict[str, Any], folder: Path, *, apart: bool = False):
        program = torch.export.export(model.eval(), (), kwargs=inputs, strict=False)
        captured = capture_exported(program.run_decompositions() if apart else program)
        self.remarks: list[Remark] = []
        context = make_context(captured.weights)
        context.remarks = self.remarks.append
        run_passes(context, captured.module, build(pipeline_text(Options(Numpy()))))
        self.module: ModuleOp = captured.module
        given = {name: value.numpy() for name, value in inputs.items()}
        self.found: dict[str, Array] = run_numpy(captured.module, captured.weights, folder)(given)
        with torch.no_grad():
            self.wanted = {name: y.numpy() for name, y in model(**inputs).items()}

    def count(self, kind: type[Any]) -> int:
        """How many ops of a kind the compiled module has."""
        return sum(isinstance(op, kind) for op in self.module.walk())

    def check(self, real: Array) -> None:
        """Real tokens, and what no longer has a token axis, are PyTorch's."""
        for name, value in self.found.items():
            own, wanted = (x[real] if name == "tokens" else x for x in (value, self.wanted[name]))
            np.testing.assert_allclose(own, wanted, atol=3e-5, err_msg=name)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_op(spelling: str, tmp_path: Path):
    """No padding, right, left, holes, one token; every softmax is in an attention."""
    mask = masks(12)
    model = Speller(SPELLINGS[spelling], WIDTH, 12, layers=2)
    compiled = Compiled(model, inputs_of(mask), tmp_path)
    compiled.check(mask > 0)
    assert compiled.count(attn.SdpaOp) == 2
    assert compiled.count(nn.SoftmaxOp) == 0


@pytest.mark.parametrize(("batch", "tokens"), [(4, 4), (8, 8), (1, 6), (3, 1), (1, 1)])
@pytest.mark.parametrize("spelling", [*SPELLINGS, *LOOKALIKES])
def test_equal_extents(spelling: str, batch: int, tokens: int, tmp_path: Path):
    """As many sequences as tokens, as heads, as channels of a head; one of either."""
    if tokens == 1 and spelling in {"window", "window_and"}:
        pytest.skip("one token has no window")
    mask = np.ones((batch, tokens), np.int64)
    mask[-1, : tokens // 2] = 0
    model = Speller({**SPELLINGS, **LOOKALIKES}[spelling], WIDTH, tokens)
    Compiled(model, inputs_of(mask), tmp_path).check(mask > 0)


@pytest.mark.parametrize("lookalike", LOOKALIKES)
def test_lookalikes_stay(lookalike: str, tmp_path: Path):
    """What is no attention is left, computed right, and one remark says what broke the pattern."""
    mask = np.ones((3, 8), np.int64)
    compiled = Compiled(Speller(LOOKALIKES[lookalike], WIDTH, 8), inputs_of(mask), tmp_path)
    compiled.check(mask > 0)
    assert compiled.count(attn.SdpaOp) == 0
    assert len(compiled.remarks) == 1
    assert "no attention" in compiled.remarks[0].message


@pytest.mark.parametrize("lookalike", EQUAL_EXTENTS)
def test_equal_extents_hide_nothing(lookalike: str, tmp_path: Path):
    """Axes of one extent change places: the result is PyTorch's, whatever it is taken for."""
    batch, tokens = HEADS, WIDTH // HEADS if lookalike in ("keys_not_turned", "channels") else HEADS
    for mask in (np.ones((batch, tokens), np.int64), masks(tokens)[:batch]):
        model = Speller(EQUAL_EXTENTS[lookalike], WIDTH, tokens)
        Compiled(model, inputs_of(mask), tmp_path).check(mask > 0)


class Tokens(Speller):
    """No pooled output: no masked position is read."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return {"tokens": super().forward(input_ids, attention_mask)["tokens"]}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_padding_is_skipped(spelling: str, tmp_path: Path):
    """Key padding is packed away beside static masks and biases: no masked position has a row."""
    mask = masks(12)
    compiled = Compiled(Tokens(SPELLINGS[spelling], WIDTH, 12, layers=2), inputs_of(mask), tmp_path)
    compiled.check(mask > 0)
    (packing,) = (op for op in compiled.module.walk() if isinstance(op, attn.PackingOp))
    assert packing.mask is not None
    assert attn.packing_of(packing.result).reads == ()
    assert not compiled.remarks


class Encoder(torch.nn.Module):
    """PyTorch's own encoder, its tokens first or its sequences; `causal` hides what follows."""

    def __init__(self, batch_first: bool, causal: bool):
        super().__init__()
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 48, batch_first=batch_first)
        self.words = torch.nn.Embedding(40, WIDTH)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first, self.causal = batch_first, causal

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.words(input_ids)
        turned = x if self.batch_first else x.transpose(0, 1)
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        y = self.layers(
            turned, seen, src_key_padding_mask=attention_mask == 0, is_causal=self.causal
        )
        return {"tokens": y if self.batch_first else y.transpose(0, 1)}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_encoders_of_pytorch(batch_first: bool, causal: bool, apart: bool, tmp_path: Path):
    """As exported, and after all of PyTorch's decompositions; padding has no rows in either."""
    mask = masks(12)
    compiled = Compiled(Encoder(batch_first, causal), inputs_of(mask), tmp_path, apart=apart)
    # A causal row of padding alone is NaN in PyTorch, and so is what follows of it.
    defined = ~np.isnan(compiled.wanted["tokens"]).any(-1)
    compiled.check((mask > 0) & defined)
    assert compiled.count(attn.SdpaOp) == 2
    (packing,) = (op for op in compiled.module.walk() if isinstance(op, attn.PackingOp))
    assert packing.mask is not None
    assert attn.packing_of(packing.result).reads == ()
