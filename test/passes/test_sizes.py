"""Vectors over their own size: each spelling has its range, nothing else has one, and no input exceeds it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.dialects import nn
from heatc.interpreter import execute
from heatc.passes.analysis.ranges import ANYTHING, Range
from heatc.passes.analysis.sizes import unit_range
from heatc.weights import WeightStore

N = 4
T, C, V = f"tensor<{N}x{N}xf32>", f"tensor<{N}x1xf32>", f"tensor<{N}xf32>"
ROW = f"tensor<1x{N}xf32>"
SQUARES = [f"%s = nn.mul %x, %x : ({T}, {T}) -> {T}"]
CENTRED = [
    f'%e = nn.reduce %x {{kind = "mean", axes = array<i64: 1>}} : ({T}) -> {V}',
    f"%f = nn.reshape %e : ({V}) -> {C}",
    f"%y = nn.sub %x, %f : ({T}, {C}) -> {T}",
]
LEAST = [
    f'%e = nn.reduce %x {{kind = "min", axes = array<i64: 1>}} : ({T}) -> {V}',
    f"%f = nn.reshape %e : ({V}) -> {C}",
]


def reduced(x: str, kind: str, axis: int = 1) -> str:
    return f'%t = nn.reduce {x} {{kind = "{kind}", axes = array<i64: {axis}>}} : ({T}) -> {V}'


def mapped(x: str, function: str, name: str, type_: str) -> str:
    return f'{name} = nn.map {x} {{function = "{function}"}} : ({type_}) -> {type_}'


ROOT = mapped("%t", "sqrt", "%r", V)
COLUMN = f"%c = nn.reshape %r : ({V}) -> {C}"
KEPT = f"%c = nn.reshape %t : ({V}) -> {C}"
WHOLE = f"%w = nn.expand %c : ({C}) -> {T}"
OVER = f"%q = nn.div %x, %w : ({T}, {T}) -> {T}"
NORM = [*SQUARES, reduced("%s", "sum"), ROOT]
LENGTH = 1 / math.sqrt(N)

BOUNDED: dict[str, tuple[list[str], tuple[float, float]]] = {
    "over its norm": ([*NORM, COLUMN, WHOLE, OVER], (-1, 1)),
    "over its norm, repeated by the quotient": (
        [*NORM, COLUMN, f"%q = nn.div %x, %c : ({T}, {C}) -> {T}"],
        (-1, 1),
    ),
    "clamped after it is repeated": (
        [*NORM, COLUMN, WHOLE, f"%d = nn.maximum %w, %tiny : ({T}, tensor<f32>) -> {T}", OVER.replace("%w", "%d")],
        (-1, 1),
    ),
    "a number added to the norm": (
        [*NORM, COLUMN, f"%d = nn.add %tiny, %c : (tensor<f32>, {C}) -> {C}", f"%q = nn.div %x, %d : ({T}, {C}) -> {T}"],
        (-1, 1),
    ),
    "twice the norm": (
        [*NORM, COLUMN, f"%d = nn.mul %c, %two : ({C}, tensor<f32>) -> {C}", f"%q = nn.div %x, %d : ({T}, {C}) -> {T}"],
        (-0.5, 0.5),
    ),
    "the squares over two": (
        [*SQUARES, reduced("%s", "sum"), f"%d = nn.div %t, %two : ({V}, tensor<f32>) -> {V}",
         mapped("%d", "sqrt", "%r", V), COLUMN, WHOLE, OVER],
        (-math.sqrt(2), math.sqrt(2)),
    ),
    "over the root of the mean square": (
        [*SQUARES, reduced("%s", "mean"), ROOT, COLUMN, WHOLE, OVER],
        (-1 / LENGTH, 1 / LENGTH),
    ),
    "by rsqrt": (
        [*SQUARES, reduced("%s", "sum"), f"%d = nn.add %t, %tiny : ({V}, tensor<f32>) -> {V}",
         mapped("%d", "rsqrt", "%r", V), COLUMN, f"%q = nn.mul %c, %x : ({C}, {T}) -> {T}"],
        (-1, 1),
    ),
    "by one over the norm": (
        [*NORM, COLUMN, f"%d = nn.div %two, %c : (tensor<f32>, {C}) -> {C}",
         f"%q = nn.mul %x, %d : ({T}, {C}) -> {T}"],
        (-2, 2),
    ),
    "over the sum of magnitudes": (
        [mapped("%x", "abs", "%s", T), reduced("%s", "sum"), KEPT, WHOLE, OVER],
        (-1, 1),
    ),
    "over the greatest magnitude": (
        [mapped("%x", "abs", "%s", T), reduced("%s", "max"), KEPT, WHOLE, OVER],
        (-1, 1),
    ),
    "over a sum of what is above 0": (
        [mapped("%x", "exp", "%y", T), reduced("%y", "sum"), KEPT, f"%q = nn.div %y, %c : ({T}, {C}) -> {T}"],
        (0, 1),
    ),
    "over its deviation": (
        [*CENTRED, f"%z = nn.sub %x, %f : ({T}, {C}) -> {T}", f"%s = nn.mul %z, %z : ({T}, {T}) -> {T}",
         reduced("%s", "mean"), ROOT, COLUMN, f"%q = nn.div %y, %c : ({T}, {C}) -> {T}"],
        (-1 / LENGTH, 1 / LENGTH),
    ),
    "over its span": (
        [*LEAST, f"%y = nn.sub %x, %f : ({T}, {C}) -> {T}", reduced("%x", "max"), KEPT,
         f"%d = nn.sub %c, %f : ({C}, {C}) -> {C}", f"%q = nn.div %y, %d : ({T}, {C}) -> {T}"],
        (0, 1),
    ),
}  # fmt: skip

OTHERS: dict[str, list[str]] = {
    "the norm along the other axis": [
        *SQUARES, reduced("%s", "sum", 0), ROOT, COLUMN, WHOLE, OVER,
    ],
    "the norm as a row": [
        *NORM, f"%c = nn.reshape %r : ({V}) -> {ROW}", f"%q = nn.div %x, %c : ({T}, {ROW}) -> {T}",
    ],
    "the norm as a vector": [*NORM, f"%q = nn.div %x, %r : ({T}, {V}) -> {T}"],
    "another's norm": [
        f"%s = nn.mul %o, %o : ({T}, {T}) -> {T}", reduced("%s", "sum"), ROOT, COLUMN, WHOLE, OVER,
    ],
    "a product of two": [
        f"%s = nn.mul %x, %o : ({T}, {T}) -> {T}", reduced("%s", "sum"), ROOT, COLUMN, WHOLE, OVER,
    ],
    "the squares": [*SQUARES, reduced("%s", "sum"), KEPT, WHOLE, OVER],
    "a sum of any": [reduced("%x", "sum"), KEPT, WHOLE, OVER],
    "the least magnitude": [mapped("%x", "abs", "%s", T), reduced("%s", "min"), KEPT, WHOLE, OVER],
    "a norm less a number": [
        *NORM, COLUMN, f"%d = nn.sub %c, %tiny : ({C}, tensor<f32>) -> {C}",
        f"%q = nn.div %x, %d : ({T}, {C}) -> {T}",
    ],
    "the greatest less the mean": [
        *LEAST, f"%y = nn.sub %x, %f : ({T}, {C}) -> {T}", *(line.replace("%e", "%g").replace("%f", "%h") for line in CENTRED[:2]),
        reduced("%x", "max"), KEPT, f"%d = nn.sub %c, %h : ({C}, {C}) -> {C}",
        f"%q = nn.div %y, %d : ({T}, {C}) -> {T}",
    ],
    "what is not centred over its deviation": [
        *CENTRED, f"%s = nn.mul %y, %y : ({T}, {T}) -> {T}", reduced("%s", "mean"), ROOT, COLUMN, WHOLE, OVER,
    ],
}  # fmt: skip


def module_of(lines: list[str]) -> ModuleOp:
    """A function of two matrices."""
    body = "\n".join(lines)
    text = f"""func.func @main(%x: {T} {{heatc.name = "x"}}, %o: {T} {{heatc.name = "o"}}) -> {T} {{
  %tiny = nn.full {{value = 0.001 : f64}} : tensor<f32>
  %two = nn.full {{value = 2.0 : f64}} : tensor<f32>
{body}
  func.return %q : {T}
}}"""
    module = Parser(make_context(), text).parse_module()
    module.verify()
    return module


def found(module: ModuleOp) -> Range | None:
    """The range of the result, of operands that may be anything, or above 0 where they are an exp."""
    last = [op for op in module.walk() if isinstance(op, nn.DivOp | nn.MulOp)][-1]
    return unit_range(
        last,
        lambda value: Range.of(0.0, math.inf) if isinstance(value.owner, nn.MapOp) else ANYTHING,
    )


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded(name: str):
    lines, expected = BOUNDED[name]
    module = module_of(lines)
    range_ = found(module)
    assert range_ is not None
    assert range_.whole == pytest.approx(expected)
    # Vectors with one large element come nearest to the ends.
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e3):
        x = (rng.standard_normal((N, N)) * scale).astype(np.float32)
        x[range(N), range(N)] *= 30.0
        with np.errstate(all="ignore"):
            y = execute(module, {"x": x, "o": x}, WeightStore({}))["output_0"]
        y = y[np.isfinite(y)]
        assert y.size
        assert expected[0] - 1e-5 <= y.min() <= y.max() <= expected[1] + 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_not_bounded(name: str):
    assert found(module_of(OTHERS[name])) is None
