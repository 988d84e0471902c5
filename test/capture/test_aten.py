"""Single ATen ops and hand-written attention against PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from aten_kit import Lambda, check
from capture_support import count_ops, names_of

from heatc.capture import capture_exported, capture_module
from heatc.errors import HeatcError

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.torch

torch.manual_seed(0)
X = torch.randn(2, 3, 4)
Y = torch.randn(2, 4, 5)
I = torch.arange(6).reshape(2, 3)  # noqa: E741
B = torch.tensor([[True, False, True]] * 2)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "arithmetic": (lambda x: (x + 1, x - 2.5, 2 - x, x * 3, x / 2, 1 / x, -x, x**2, x**3), (X,)),
    "integers": (lambda i: (i + 1, i - 2, i * 3, i / 2, i + 0.5, -i), (I,)),
    "promotion": (lambda x, i: (x + i[..., None], i[..., None] * x), (X, I)),
    "alpha of booleans": (
        lambda b: (torch.add(b, ~b, alpha=False), torch.add(b, ~b, alpha=True)),
        (B,),
    ),
    "alpha": (
        lambda x: (
            torch.add(x, x, alpha=2),
            torch.sub(x, x * 2, alpha=3),
            torch.rsub(x, 1.0, alpha=2),
        ),
        (X,),
    ),
    "booleans": (lambda b: (b + b, b * b, b.float() + b, b * 2.0, b + 1, 1.0 - b.float()), (B,)),
    "compare": (lambda x: (x > 0, x >= 0.5, x < 0, x <= 0, x == 0, x != 0), (X,)),
    "compare_mixed": (lambda i: (i > 2, i >= 2.5, i == 3, i != 0), (I,)),
    "logic": (
        lambda x, b: (
            b & (x[..., 0] > 0),
            b | (x[..., 0] > 0),
            ~b,
            torch.logical_not(x),
            torch.logical_and(x, x),
            torch.logical_xor(b, b),
            b.logical_or(b),
        ),
        (X, B),
    ),
    "where": (
        lambda x, b: (
            torch.where(b[..., None], x, 0.0),
            torch.where(b[..., None], 1.0, x),
            torch.where(b, 1.0, 2.0),
            torch.where(b[..., None], x, x * 2),
            x.masked_fill(b[..., None], float("-inf")),
        ),
        (X, B),
    ),
    "matmul": (
        lambda x, y: (
            x @ y,
            torch.bmm(x, y),
            x @ y[0],
            x[0] @ y,
            x[0, 0] @ y[0],
            x @ y[0, :, 0],
            x[0, 0] @ y[0, :, 0],
            torch.baddbmm(x @ y, x, y, beta=0.5, alpha=2),
            torch.addmm(y[0, 0], x[0], y[0]),
            torch.mm(x[0], y[0]),
        ),
        (X, Y),
    ),
    "einsum": (
        lambda x, y: (
            torch.einsum("bij,bjk->bik", x, y),
            torch.einsum("...ij,...jk->...ik", x, y),
            torch.einsum("bij,bjk", x, y),
            torch.einsum("bij,jk->bik", x, y[0]),
            torch.einsum("bij->", x),
            torch.einsum("i...->...i", x),
            torch.einsum("bij,bjk->bik", x[:1], y),
            torch.einsum("bij,bkj,bkl->bil", x, x, x),
        ),
        (X, Y),
    ),
    "activations": (
        lambda x: (
            F.gelu(x),
            F.gelu(x, approximate="tanh"),
            torch.tanh(x),
            F.relu(x),
            F.softmax(x, -1),
            torch.softmax(x, 1),
            F.softmax(x, 0, dtype=torch.float32),
        ),
        (X,),
    ),
    "layer_norm": (
        lambda x: (F.layer_norm(x, (4,)), F.layer_norm(x, (4,), torch.ones(4) * 2, eps=1e-3)),
        (X,),
    ),
    "axes": (
        lambda x: (
            x.transpose(0, 2),
            x.permute(2, 0, 1),
            x[0].t(),
            x.mT,
            x.movedim(0, 2),
            x.swapaxes(0, 1),
            x[0].T,
        ),
        (X,),
    ),
    "views": (
        lambda x: (
            x.view(6, 4),
            x.reshape(-1),
            x.flatten(1),
            x.unflatten(2, (2, 2)),
            x.unsqueeze(-1),
            x[:1].squeeze(0),
            x[:1].squeeze(),
        ),
        (X,),
    ),
    "slices": (
        lambda x: (x[:, 1:], x[:, -1], x[..., ::2], x[1], x[:, 0:2, 1:3], x.narrow(1, 1, 2)),
        (X,),
    ),
    "splits": (
        lambda x: (*x.split(2, 1), *x.chunk(2, 2), *x.unbind(0), *x.split([1, 2], dim=1)),
        (X,),
    ),
    "split_unused": (lambda x: (x.chunk(2, 2)[1], x.split(1, 0)[1]), (X,)),
    "joins": (
        lambda x: (torch.cat([x, x * 2], 1), torch.stack([x, x], 2), torch.cat([x, x], -1)),
        (X,),
    ),
    "expand": (
        lambda x: (
            x[:1].expand(5, 3, 4),
            x[:, :1].expand(-1, 7, -1),
            x.repeat(2, 1, 3),
            x.repeat(2, 1, 1, 1),
            x.repeat_interleave(2, dim=1),
        ),
        (X,),
    ),
    "index": (
        lambda x, i: (
            x[i * 0],
            x[:, i[0]],
            x[i * 0, i * 0 + 1],
            x.index_select(1, i[0]),
            x.gather(1, (i * 0 + 2)[..., None]),
        ),
        (X, I),
    ),
    "create": (
        lambda x: (
            torch.zeros(2, 3) + x[..., 0],
            torch.ones_like(x),
            torch.full((2,), 3.5) + x[:, 0, 0],
            x.new_zeros(3),
            torch.full_like(x, 2),
            torch.scalar_tensor(2.0) + x,
            torch.arange(4) + x,
            torch.arange(1, 9, 2) * 1,
            torch.arange(3, dtype=torch.float32),
        ),
        (X,),
    ),
    "cast": (
        lambda x: (
            x.to(torch.int64),
            x.to(torch.bool),
            x.float(),
            x.type_as(x),
            x.long().float(),
            x.contiguous(),
            x.clone(),
            x.detach(),
            F.dropout(x, 0.5, False),
        ),
        (X,),
    ),
    "triangle": (
        lambda x: (
            torch.tril(x[0]),
            torch.triu(x, 1),
            torch.tril(torch.ones(4, 4, dtype=torch.bool)),
        ),
        (X,),
    ),
    "constants": (
        lambda x: (
            x / torch.sqrt(torch.tensor(8.0)),
            x / math.sqrt(8),
            x * torch.tensor(2.0) ** -0.5,
            x * torch.tensor([1.0, 2.0, 3.0, 4.0]),
        ),
        (X,),
    ),
    "sdpa": (
        lambda x: (
            F.scaled_dot_product_attention(x, x, x),
            F.scaled_dot_product_attention(x, x, x, is_causal=True),
            F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(3, 3)),
            F.scaled_dot_product_attention(x, x, x, scale=0.5),
        ),
        (X,),
    ),
    "embedding": (lambda i: F.embedding(i, torch.arange(12.0).reshape(6, 2)), (I,)),
    "narrow_integers": (lambda i: (i != 1).int().long() * 2, (I,)),
}


@pytest.mark.parametrize("name", CASES)
def test_op(name: str) -> None:
    fn, args = CASES[name]
    check(Lambda(fn), *args)


class Attention(torch.nn.Module):
    """Hand-written, with one reshape more than needed and heads merged into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(32, 96)
        self.out = torch.nn.Linear(32, 32, bias=False)
        self.register_buffer("scale", torch.tensor(8.0))

    def forward(self, hidden: Any, mask: Any) -> Any:
        batch, length, _ = hidden.shape
        q, k, v = self.qkv(hidden).view(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        q, k, v = (t.reshape(batch * 4, length, 8) for t in (q, k, v))
        scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(8)
        scores = scores.view(batch, 4, length, length)
        scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e9)
        context = torch.einsum("bhst,bhtd->bshd", scores.softmax(-1), v.view(batch, 4, length, 8))
        return self.out(context.flatten(2)) + hidden


@pytest.mark.parametrize("batch", [1, 3])
def test_hand_written_attention(batch: int) -> None:
    mask = torch.ones(batch, 6, dtype=torch.int64)
    mask[-1, 4:] = 0
    captured = check(Attention().eval(), torch.randn(batch, 6, 32), mask)
    counts = count_ops(captured.module)
    assert counts["nn.linear"] == 2
    assert counts["nn.matmul"] == 1
    assert counts["einsum.contract"] == 1
    assert names_of(captured) == (["hidden", "mask"], ["output"])
    assert set(captured.weights) == {"qkv.weight", "qkv.bias", "out.weight"}


def test_tuple_outputs_are_numbered() -> None:
    captured = check(Lambda(lambda x: (x + 1, (x * 2,))[0:1] + (x * 3,)), X)
    assert names_of(captured)[1] == ["output_0", "output_1"]


def test_an_input_may_be_returned_and_another_unused() -> None:
    captured = capture_module(Lambda(lambda x, y: (x, x)), (X, Y))
    assert len(names_of(captured)[0]) == 2
    assert names_of(captured)[1] == ["output_0", "output_1"]


def refusal(fn: Callable[..., Any] | Any, *args: Any) -> HeatcError:
    module: Any = fn if isinstance(fn, torch.nn.Module) else Lambda(fn)
    with pytest.raises(HeatcError) as info:
        capture_module(module, args)
    assert info.value.exit_code == 1
    return info.value


def test_one_tensor_given_twice_stays_two_inputs() -> None:
    class Difference(torch.nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a - b

    x = torch.ones(1, 4)
    text = str(capture_module(Difference(), {"a": x, "b": x}).module)
    assert "nn.sub %a, %b" in text


def test_all_unsupported_ops_are_reported_at_once() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Lambda(lambda x: x.kthvalue(1)[0])

        def forward(self, x: Any) -> Any:
            x = self.inner(x)[..., None] + self.inner(x)[..., None]
            return torch.sort(x, 1)[0] + torch.rand_like(x)

    error = refusal(Model(), X)
    assert error.message == "the model has 4 unsupported calls of 3 ops"
    first = error.notes[0]
    assert first.startswith("aten.kthvalue.default: 2 calls, first in inner (aten_kit.py:")
    assert [note.partition(":")[0] for note in error.notes[1:3]] == [
        "aten.sort.default",
        "aten.rand_like.default",
    ]
    assert "random numbers" in error.notes[2]
    assert "aten.sort.default" in str(error)


def test_training_dropout_is_refused() -> None:
    error = refusal(torch.nn.Dropout(0.5).train(), X)
    assert "model.eval()" in error.notes[0]


def test_mutated_buffers_are_refused() -> None:
    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(4))

        def forward(self, x: Any) -> Any:
            self.count += 1
            return x + self.count

    program = torch.export.export(Counter(), (X,)).run_decompositions({})
    with pytest.raises(HeatcError, match="buffer_mutation"):
        capture_exported(program)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_refused(dtype: Any) -> None:
    layer = torch.nn.Linear(4, 4).to(dtype)
    error = refusal(layer, X.to(dtype))
    assert "weight" in error.message
    assert "model.float()" in error.notes[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_inputs_of_other_precisions_are_refused(dtype: Any) -> None:
    """Converting the model would not change its inputs."""
    error = refusal(lambda x: x.float() + 1, X.to(dtype))
    assert error.message.startswith("input ")
    assert "export it with float32 example inputs" in error.notes[0]


def test_half_precision_inside_is_refused() -> None:
    error = refusal(lambda x: (x.half() + 1).float(), X)
    assert "element type f16" in error.notes[0]


def test_dynamic_shapes_are_refused() -> None:
    program = torch.export.export(
        Lambda(lambda x: x * 2), (X,), dynamic_shapes=[({0: torch.export.Dim("batch")},)]
    )
    with pytest.raises(HeatcError, match=r"dimension 0 of .* is dynamic") as info:
        capture_exported(program)
    assert "static shapes" in info.value.notes[0]


def test_a_model_that_cannot_be_exported() -> None:
    error = refusal(lambda x: x.missing(), X)
    assert error.message.startswith("torch.export cannot export the model: AttributeError")
