"""Every converter of a family against PyTorch, on tensors that hurt, in every form of a program."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from aten_kit import Lambda, check_everywhere, compare  # noqa: E402
from capture_support import save  # noqa: E402
from xdsl.dialects.builtin import NameLoc  # noqa: E402

from heatc.capture import capture_exported, capture_path  # noqa: E402
from heatc.capture.exported import export  # noqa: E402
from heatc.dialects.nn import MulOp  # noqa: E402

F = torch.nn.functional
INF, NAN = math.inf, math.nan

pytestmark = pytest.mark.torch

torch.manual_seed(0)
X = torch.randn(2, 3, 4)
POSITIVE = torch.rand(2, 3, 4) + 0.1
I = torch.tensor([[-7, 3, 0, 5], [2, -1, 9, 4]])  # noqa: E741
J = torch.tensor([[2, -3, 5, 2], [-4, 3, 2, 7]])
B = torch.tensor([[True, False, True], [False, False, False]])
ODD = torch.tensor([[0.0, -0.0, 1.5, -2.5], [INF, -INF, NAN, 30.0]])
IMAGE = torch.randn(2, 4, 6, 8)
SIGNAL = torch.randn(2, 4, 11)
WEIGHT = torch.randn(8, 4, 3)
GROUPED = torch.randn(8, 2, 4)
KERNEL = torch.randn(6, 4, 2, 2)
OVERLAPPING = torch.randn(6, 4, 3, 3)
WIDE = torch.randn(8, 4, 19)
VECTOR = torch.randn(8)

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "functions": (
        lambda x: (x.exp(), x.sigmoid(), x.erf(), x.cos(), x.sin(), x.abs(), x.sign(), F.silu(x)),
        (X,),
    ),
    "functions_of_odd_numbers": (
        lambda x: (x.exp(), x.sigmoid(), x.abs(), x.sign(), x.floor(), x.ceil(), x.round()),
        (ODD,),
    ),
    "roots_and_logarithms": (
        lambda x: (x.log(), x.log2(), x.log10(), x.log1p(), x.sqrt(), x.rsqrt(), x.expm1()),
        (POSITIVE,),
    ),
    "powers": (
        lambda x: (x**0.5, x**-0.5, x**-1, x**1.7, 2**x, x**x, x**0, torch.exp2(x), x.reciprocal()),
        (POSITIVE,),
    ),
    "functions_of_integers": (
        lambda i, b: (i.abs(), i.sign(), i.floor(), i.exp(), i.float().sqrt(), b.sigmoid()),
        (I, B),
    ),
    "special_numbers": (
        lambda x, i: (x.isnan(), x.isinf(), x.isfinite(), i.isnan(), torch.nan_to_num(x)),
        (ODD, I),
    ),
    "activations": (
        lambda x: (
            F.softplus(x * 9),
            F.softplus(x, 2, 1),
            F.leaky_relu(x, 0.2),
            F.elu(x, 0.7),
            F.selu(x),
            F.hardtanh(x, -0.5, 0.7),
            F.relu6(x * 9),
            F.hardswish(x * 4),
            F.hardsigmoid(x * 4),
            F.mish(x * 9),
            F.glu(x),
            F.glu(x.mT, 1) if x.shape[2] % 2 else F.glu(x, -1),
            F.softsign(x),
            F.logsigmoid(x),
            F.tanhshrink(x),
        ),
        (X,),
    ),
    "clamps": (
        lambda x, i: (
            x.clamp(-0.5, 0.5),
            x.clamp(min=0),
            x.clamp(max=0.25),
            x.clamp_min(0.1),
            i.clamp(-2, 3),
            i.clamp(max=2),
            i.clamp(min=0.5),
            x.clamp(min=x * 0, max=x * 0 + 0.3),
        ),
        (X, I),
    ),
    "extremes_of_two": (
        lambda x, i: (
            torch.maximum(x, -x),
            torch.minimum(x, -x),
            torch.max(x, x * 2),
            torch.min(i, i * 0),
            torch.maximum(i, i.int()),
            torch.maximum(i > 0, i > 3),
        ),
        (X, I),
    ),
    "quotients_of_integers": (
        lambda i, j: (
            i // j,
            i % j,
            torch.div(i, j, rounding_mode="trunc"),
            torch.div(i, j, rounding_mode="floor"),
            torch.fmod(i, j),
            torch.remainder(i, 3),
            i // 2,
            torch.remainder(7, j),
            i / j,
        ),
        (I, J),
    ),
    "quotients_of_floats": (
        lambda x, y: (
            x // y,
            x % y,
            torch.div(x, y, rounding_mode="trunc"),
            torch.div(x, y, rounding_mode="floor"),
            torch.fmod(x, y),
            torch.remainder(x, -0.7),
            x // 0.3,
        ),
        (X * 5, POSITIVE),
    ),
    "bits": (lambda i, j: (i & j, i | j, i ^ j, (i > 0) ^ (j > 0), i & 3), (I, J)),
    "sums": (
        lambda x, i, b: (
            x.sum(),
            x.sum(1),
            x.sum((0, -1)),
            x.sum(-2, keepdim=True),
            x.sum([]),
            i.sum(),
            i.int().sum(1),
            b.sum(1),
            b.sum(),
            i.sum(1, dtype=torch.float32),
        ),
        (X, I, B),
    ),
    "means": (
        lambda x, i: (
            x.mean(),
            x.mean(1),
            x.mean((0, 2), keepdim=True),
            i.float().mean(-1),
            x[0, 0, 0].mean(),
            x.mean((1, 2)),
        ),
        (X, I),
    ),
    "products": (lambda x, i: (x.prod(), x.prod(1), x.prod(2, keepdim=True), i.prod(1)), (X, I)),
    "extremes": (
        lambda x, i: (
            x.max(),
            x.min(),
            x.amax(1),
            x.amin((0, 2), keepdim=True),
            x.amax(),
            *x.max(1),
            *x.min(-1, keepdim=True),
            *i.max(0),
            *i.min(1),
            x[0, 0, 0].max(),
        ),
        (X, I),
    ),
    "extremes_of_nan": (lambda x: (x.max(), x.amax(1), *x.min(1), x.argmax(1)), (ODD,)),
    "places": (
        lambda x, i: (
            x.argmax(),
            x.argmin(),
            x.argmax(1),
            x.argmax(-1, keepdim=True),
            x.argmin(0),
            (i > 0).int().argmax(1),
            (i * 0).argmax(1),
            (i * 0).argmin(0),
        ),
        (X, I),
    ),
    "truth": (
        lambda x, i, b: (
            b.any(),
            b.all(),
            b.any(1),
            b.all(0, keepdim=True),
            x.any(1),
            i.all(1),
            (i > 0).any((0, 1)),
            i.to(torch.uint8).any(1) > 0,
            i.to(torch.uint8).all() > 0,
        ),
        (X, I, B),
    ),
    "running_sums": (
        lambda x, i, b: (x.cumsum(1), x.cumsum(-1), i.cumsum(1), i.int().cumsum(0), b.cumsum(1)),
        (X, I, B),
    ),
    "norms_of_vectors": (
        lambda x: (
            torch.linalg.vector_norm(x),
            torch.linalg.vector_norm(x, dim=1),
            torch.linalg.vector_norm(x, 1, dim=(0, 2), keepdim=True),
            torch.linalg.vector_norm(x, INF, dim=-1),
            torch.linalg.vector_norm(x, -INF, dim=-1),
            torch.linalg.vector_norm(x, 0, dim=-1),
            torch.linalg.vector_norm(x, 3, dim=-1),
            x.norm(dim=1),
            x.norm(),
            x.norm(p=1, dim=(1, 2)),
            F.normalize(x, dim=1),
            F.cosine_similarity(x, x * 2 + 1, dim=-1),
        ),
        (X,),
    ),
    "variances": (
        lambda x: (
            x.var(1),
            x.std(-1, keepdim=True),
            x.var(),
            x.std(0, unbiased=False),
            x.var((1, 2), correction=0),
            *torch.var_mean(x, 2),
        ),
        (X,),
    ),
    "log_softmax": (
        lambda x: (
            F.log_softmax(x, -1),
            F.log_softmax(x * 50, 1),
            torch.logsumexp(x, 1),
            torch.logsumexp(x, (0, 2), keepdim=True),
            F.softmin(x, -1),
        ),
        (X,),
    ),
    "layer_norms": (
        lambda x: (
            F.layer_norm(x, (3, 4)),
            F.layer_norm(x, (3, 4), x[0], x[1], 1e-3),
            F.rms_norm(x, (4,)),
            F.rms_norm(x, (4,), x[0, 0], 1e-5),
            F.rms_norm(x, (3, 4), x[0]),
        ),
        (X,),
    ),
    "group_norms": (
        lambda x, s: (
            F.group_norm(s, 2, VECTOR[:4], VECTOR[4:]),
            F.group_norm(s, 4),
            F.group_norm(x, 1, VECTOR[:3]),
            F.instance_norm(s),
        ),
        (X, SIGNAL),
    ),
    "batch_norm": (
        lambda s, x: (
            F.batch_norm(s, VECTOR[:4], VECTOR[4:].abs(), VECTOR[2:6], VECTOR[:4]),
            F.batch_norm(x, VECTOR[:4], VECTOR[4:].abs()),
        ),
        (SIGNAL, IMAGE),
    ),
    "convolution_side_by_side": (
        lambda x, s: (
            F.conv2d(x, KERNEL, VECTOR[:6], stride=2),
            F.conv2d(x[:, :, :5], KERNEL, stride=2),
            F.conv1d(s, WEIGHT, stride=3),
            F.conv1d(s, WEIGHT[:, :, :1], VECTOR),
            F.conv2d(x[0], KERNEL, VECTOR[:6], stride=2),
        ),
        (IMAGE, SIGNAL),
    ),
    "convolution_overlapping": (
        lambda x, s: (
            F.conv1d(s, WEIGHT, VECTOR),
            F.conv1d(s, WEIGHT, VECTOR, stride=2, padding=1),
            F.conv1d(s, WEIGHT, padding=2, dilation=2),
            F.conv1d(s, WEIGHT, padding="same"),
            F.conv1d(s, WEIGHT[:, :, :2], padding="same", dilation=3),
            F.conv2d(x, OVERLAPPING, VECTOR[:6], padding=1),
            F.conv2d(x, OVERLAPPING, stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
            F.conv1d(s[0], WEIGHT, VECTOR),
        ),
        (IMAGE, SIGNAL),
    ),
    "convolution_of_many_places": (
        lambda s: (
            F.conv1d(s, WIDE, VECTOR, padding=9),
            F.conv1d(s, WIDE, padding=12, stride=2, dilation=1),
            F.conv2d(s[:, None], torch.ones(2, 1, 4, 5), padding=2),
        ),
        (SIGNAL,),
    ),
    "convolution_in_groups": (
        lambda x, s: (
            F.conv1d(s, GROUPED, VECTOR, padding=2, groups=2),
            F.conv1d(s, GROUPED[:, :1], groups=4, stride=2),
            F.conv2d(x, OVERLAPPING[:4, :1], padding=1, groups=4),
            F.conv1d(s, WIDE[:, :2], VECTOR, padding=9, groups=2),
        ),
        (IMAGE, SIGNAL),
    ),
    "pooling": (
        lambda x, s: (
            F.max_pool1d(s, 3, 2, 1),
            F.max_pool2d(x, 2),
            F.max_pool2d(x, 3, 1, 1),
            F.avg_pool1d(s, 3, 2, 1),
            F.avg_pool2d(x, (2, 4)),
            F.adaptive_avg_pool1d(s, 1),
            F.adaptive_avg_pool2d(x, (3, 4)),
            F.adaptive_avg_pool2d(x, 1),
        ),
        (IMAGE, SIGNAL),
    ),
    "interpolation": (
        lambda x, s: (
            F.interpolate(x, size=(3, 5), mode="bilinear"),
            F.interpolate(x, scale_factor=2, mode="nearest"),
            F.interpolate(x, size=(6, 8), mode="bicubic", align_corners=False),
            F.interpolate(s, size=7, mode="linear", align_corners=True),
            F.pixel_shuffle(x, 2),
            F.unfold(x, 2, stride=2),
        ),
        (IMAGE, SIGNAL),
    ),
    "padding": (
        lambda x: (F.pad(x, (1, 2)), F.pad(x, (0, 1, 2, 0), value=3.0), F.pad(x, (-1, 1, 0, -1))),
        (X,),
    ),
    "rolls_and_flips": (
        lambda x: (
            x.roll(1, 1),
            x.roll((-1, 2), (0, 2)),
            x.roll(5),
            x.roll(3, 1),
            x.flip(1),
            x.flip((0, -1)),
            x.unfold(2, 2, 1),
            x.unfold(1, 2, 1),
            torch.diagonal(x, dim1=1, dim2=2),
            torch.diagonal(x, 1, 0, 2),
        ),
        (X,),
    ),
    "gaps_between_indices": (
        lambda x, i: (x[i, :, i], x[:, i, :][..., 0], x[i[:, None], :, i]),
        (X, torch.tensor([1, 0, 1])),
    ),
    "made_numbers": (
        lambda x: (
            torch.arange(0, 1, 0.1) + x[0, 0, 0],
            torch.linspace(-1, 1, 5) + x[0, 0, 0],
            torch.arange(5.0) * x[0, 0, 0],
            F.one_hot((x > 0).long(), 3),
            torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5])),
            torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5]), right=True),
            torch.eye(3, 4) + x,
        ),
        (X,),
    ),
    "sets": (
        lambda i, x: (
            torch.isin(i, torch.tensor([3, 9])),
            i.diff(),
            torch.outer(i[0], i[1]),
            torch.meshgrid(i[0], i[1], indexing="ij")[1] + 0,
            torch.addcmul(x, x, x, value=0.5),
            torch.lerp(x, x * 2, 0.3),
        ),
        (I, X),
    ),
    "grouped_queries": (
        lambda q, k: (
            F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
            F.scaled_dot_product_attention(
                q, k[:, :1].expand(-1, 4, -1, -1), k[:, :1].expand_as(q)
            ),
        ),
        (torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_family(name: str, tmp_path: Path) -> None:
    fn, args = CASES[name]
    check_everywhere(fn, tmp_path, *args)


def _assigned(x: Any, i: Any) -> Any:
    y = x.clone()
    y[:, 1:3, ::2] = 7
    y[0] = y[1] * 2
    y[y > 1] = 1
    y[..., -1] += 3
    z = torch.zeros(2, 5)
    z[torch.arange(2), i - 1] = 1
    return y, z.flip([-1]).cumsum(-1).flip([-1])


def _autocast(x: Any) -> Any:
    with torch.autocast("cpu", enabled=False):
        y = x @ x.mT
    with torch.no_grad():
        y = y.add_(1).div_(2)
    return torch.empty_like(y).copy_(y)


IN_PLACE: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "arithmetic": (lambda x: (x + 1).add_(2).mul_(x).masked_fill_(x > 1, -1), (X,)),
    "views": (lambda x: ((y := x + 0), y.view(-1)[3:].mul_(2), y.mT[0].zero_())[0], (X,)),
    "assignments": (_assigned, (X, torch.tensor([3, 0]))),
    "blocks": (_autocast, (X,)),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str, tmp_path: Path) -> None:
    fn, args = IN_PLACE[name]
    check_everywhere(fn, tmp_path, *args)


def test_weights_of_a_decomposed_program_are_views() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.linear(x).add_(1)

    model = Model()
    captured = capture_exported(export(model, (X,)))
    compare(captured, model, X)
    assert captured.weights["linear.weight"].ctypes.data == model.linear.weight.data_ptr()


def test_places_survive_decomposition(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Lambda(lambda x: (x @ x.mT).mul_(2))

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    program = export(Model(), (X,))
    live, read = capture_exported(program), capture_path(save(program, tmp_path / "model.pt2"))
    for captured in (live, read):
        product = next(op for op in captured.module.walk() if isinstance(op, MulOp))
        assert isinstance(product.location, NameLoc)
        assert product.location.desc.data == "inner"
        assert "aten_kit.py" in str(product.location)
