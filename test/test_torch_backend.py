"""`torch.compile(model, backend="heatc")`: programs where heatc can, PyTorch where it cannot, the same numbers."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from heatc import torch_backend  # noqa: E402
from heatc.torch_backend import NotCompiledWarning, heatc_backend  # noqa: E402


@pytest.fixture(autouse=True)
def fresh() -> Generator[None]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The programs that are compiled."""
    paths: list[Path] = []
    before = torch_backend.write_program

    def note(exported: Any, path: Path) -> None:
        before(exported, path)
        paths.append(path)

    monkeypatch.setattr(torch_backend, "write_program", note)
    return paths


def bert(**options: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return transformers.BertModel._from_config(config, **options).eval()


def text(batch: int, tokens: int) -> dict[str, Any]:
    """Right padding in the first row, holes in the last."""
    mask = torch.ones(batch, tokens, dtype=torch.long)
    mask[0, max(1, tokens // 2) :] = 0
    mask[-1, 1::2] = 0
    return {"input_ids": torch.randint(0, 50, (batch, tokens)), "attention_mask": mask}


def near(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_it_is_found_by_its_name():
    assert "heatc" in torch._dynamo.list_backends()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_at_several_sizes(attention: str, made: list[Path]):
    """Masked positions have PyTorch's numbers too; the second call of a size compiles nothing."""
    model = bert(attn_implementation=attention)
    compiled = torch.compile(model, backend=heatc_backend)
    with torch.no_grad():
        for batch, tokens in ((2, 7), (2, 7), (3, 9), (1, 1)):
            given = text(batch, tokens)
            found, expected = compiled(**given), model(**given)
            near(found.last_hidden_state, expected.last_hidden_state)
            near(found.pooler_output, expected.pooler_output)
    assert len(made) == 3


def test_weights_that_change():
    model = torch.nn.Linear(4, 3)
    compiled = torch.compile(model, backend=heatc_backend)
    x = torch.randn(2, 4)
    with torch.no_grad():
        compiled(x)
        model.weight.mul_(2)
        near(compiled(x), model(x))
        model.load_state_dict(torch.nn.Linear(4, 3).state_dict())
        near(compiled(x), model(x))
        for _ in range(5):
            # The old one is freed: the new one may lie where it lay.
            model.bias = None
            model.bias = torch.nn.Parameter(torch.randn(3))
            near(compiled(x), model(x))


def test_a_graph_break(made: list[Path]):
    def model(x: Any) -> Any:
        y = torch.tanh(x) @ x.T
        torch._dynamo.graph_break()
        return torch.relu(y) * 2

    x = torch.randn(3, 4)
    with torch.no_grad():
        near(torch.compile(model, backend=heatc_backend)(x), model(x))
    assert len(made) == 2


def in_place(x: Any) -> Any:
    x.add_(1)
    return torch.tanh(x)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an op": (torch.linalg.svdvals, "svd"),
    "a change": (in_place, "mutation"),
    "a view": (lambda x: (x.transpose(0, 1), torch.tanh(x)), "view"),
    "one output twice": (lambda x: (y := torch.tanh(x), y.T), "view"),
    "chance": (lambda x: torch.nn.functional.dropout(x, 1.0, training=True) + 1, "dropout"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_runs_in_pytorch(kind: str, made: list[Path]):
    model, reason = REFUSED[kind]
    x = torch.randn(3, 3)
    given, expected = x.clone(), model(x)
    compiled = torch.compile(model, backend=heatc_backend)
    with torch.no_grad(), pytest.warns(NotCompiledWarning, match=rf"in PyTorch: .*{reason}"):
        found = compiled(given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(given, x)
    assert not made or reason == "view"


def test_gradients_are_pytorchs():
    model = torch.nn.Linear(4, 3)
    compiled = torch.compile(model, backend=heatc_backend)
    x = torch.randn(2, 4)
    with pytest.warns(NotCompiledWarning, match="gradients are wanted"):
        compiled(x).sum().backward()
    near(model.weight.grad, x.sum(0).expand(3, 4))


def test_half_precision_keeps_its_dtype():
    model = torch.nn.Linear(4, 3).bfloat16()
    compiled = torch.compile(model, backend=heatc_backend)
    x = torch.randn(2, 4).bfloat16()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotCompiledWarning)
        found, expected = compiled(x), model(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)


def test_nothing_is_left_behind(made: list[Path]):
    compiled = torch.compile(torch.tanh, backend=heatc_backend)
    with torch.inference_mode():
        compiled(torch.randn(2, 3))
    (path,) = made
    assert path.exists()
    del compiled
    torch._dynamo.reset()
    gc.collect()
    assert not path.parent.exists()
