"""
Values whose axes are cut and joined between products: bounds hold, and the machine computes them.

Every model is random: tokens after a norm, put back to sequences, in other shapes, through
products over the last axis, sums, norms and activations. The fixed-point program saturates nowhere
and is near the real numbers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.hdp.emit import run_module
from heatc.dialects.einsum import WeightOp
from heatc.dialects.fixed import QType
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.targets import RAISE, Hdp, Options, pipeline_text
from heatc.weights import WeightStore

BATCH, LENGTH, WIDTH = 2, 4, 8
IDS = f"tensor<{BATCH}x{LENGTH}xi64>"
P = f"!attn.packing<{BATCH}, {LENGTH}>"
SHAPES = ((2, 32), (2, 2, 16), (2, 4, 8), (2, 8, 4), (2, 4, 2, 4), (2, 16, 2), (2, 2, 2, 8))


def tensor(shape: tuple[int, ...]) -> str:
    """The type of an array."""
    return f"tensor<{'x'.join('?' if n < 0 else str(n) for n in shape)}xf32>"


class _Model:
    """The text of a random function of `x` and its weights."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.weights: dict[str, NDArray[Any]] = {}
        self.lines: list[str] = []

    def new(self, text: str, shape: tuple[int, ...]) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {text} -> {tensor(shape)}")
        return name

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        key = f"layer{len(self.weights)}.weight"
        self.weights[key] = (scale * self.rng.standard_normal(shape)).astype(np.float32)
        name = f"%w{len(self.weights)}"
        self.lines.append(f'  {name} = einsum.weight ["{key}"] : {tensor(shape)}')
        return name

    def norm(self, x: str, shape: tuple[int, ...]) -> str:
        width = shape[-1]
        g, b = self.weight(width), self.weight(width, scale=0.5)
        w = tensor((width,))
        text = f"nn.layer_norm {x}, {g}, {b} {{eps = 1.0e-05 : f64}} : ({tensor(shape)}, {w}, {w})"
        return self.new(text, shape)

    def reshape(self, x: str, old: tuple[int, ...], new: tuple[int, ...]) -> str:
        return self.new(f"nn.reshape {x} : ({tensor(old)})", new)

    def product(self, x: str, shape: tuple[int, ...], new: int) -> str:
        """Over the last axis, with a bias or without."""
        letters = "tpqa"[: len(shape) - 1] + "a"
        w = self.weight(new, shape[-1], scale=shape[-1] ** -0.5)
        out = (*shape[:-1], new)
        text = f'einsum.contract "{letters},oa->{letters[:-1]}o" {x}, {w}'
        y = self.new(f"{text} : ({tensor(shape)}, {tensor((new, shape[-1]))})", out)
        if self.random.random() < 0.7:
            b = self.weight(new, scale=2.0)
            y = self.new(f"nn.add {y}, {b} : ({tensor(out)}, {tensor((new,))})", out)
        return y

    def between(self, x: str, shape: tuple[int, ...]) -> str:
        """What the host does between products, or nothing."""
        kind = self.random.choice(("gelu", "relu", "tanh", "norm", "sum", "bias", ""))
        if kind == "norm":
            return self.norm(x, shape)
        if kind == "sum":
            other = self.product(x, shape, shape[-1])
            return self.new(f"nn.add {x}, {other} : ({tensor(shape)}, {tensor(shape)})", shape)
        if kind == "bias":
            b = self.weight(shape[-1])
            return self.new(f"nn.add {x}, {b} : ({tensor(shape)}, {tensor(shape[-1:])})", shape)
        if kind:
            word = ' {approximate = "none"}' if kind == "gelu" else ""
            return self.new(f"nn.{kind} {x}{word} : ({tensor(shape)})", shape)
        return x

    def text(self) -> str:
        """The whole function."""
        rows = (-1, WIDTH)
        self.lines.append(f"  %p = attn.packing %m : ({IDS}) -> {P}")
        self.lines.append(f"  %i = attn.pack %x, %p : ({IDS}, {P}) -> tensor<?xi64>")
        table = self.weight(20, WIDTH)
        types = f"{tensor((20, WIDTH))}, tensor<?xi64>"
        x = self.new(f"nn.embedding {table}, %i : ({types})", rows)
        x = self.norm(x, rows)
        if self.random.random() < 0.5:
            x = self.between(self.product(x, rows, WIDTH), rows)
        shape: tuple[int, ...] = (BATCH, LENGTH, WIDTH)
        x = self.new(f"attn.unpack {x}, %p : ({tensor(rows)}, {P})", shape)
        if self.random.random() < 0.3:
            x = self.between(x, shape)
        for _ in range(self.random.randrange(1, 4)):
            same = [s for s in SHAPES if np.prod(s) == np.prod(shape)]
            if same:
                cut = self.random.choice(same)
                x, shape = self.reshape(x, shape, cut), cut
            x = self.product(x, shape, new := self.random.choice((3, shape[-1])))
            shape = (*shape[:-1], new)
            x = self.between(x, shape)
        head = f'func.func @main(%x: {IDS} {{heatc.name = "x"}}, %m: {IDS} {{heatc.name = "m"}})'
        head += f' -> ({tensor(shape)} {{heatc.name = "y"}}) {{'
        return "\n".join([head, *self.lines, f"  func.return {x} : {tensor(shape)}", "}"])


FIXED = "assign-fixed-point"


def compare(seed: int) -> None:
    """Compile and run a model: at the fixed level as in real numbers, on the machine as there."""
    model = _Model(seed)
    module, weights = (
        Parser(make_context(), model.text()).parse_module(),
        WeightStore(model.weights),
    )
    rng = np.random.default_rng(seed)
    mask = np.ones((BATCH, LENGTH), np.int64)
    mask[1, : rng.integers(0, LENGTH)] = 0
    inputs = {"x": rng.integers(0, 20, (BATCH, LENGTH)), "m": mask}
    want = execute(module, inputs, weights)["y"]
    passes = pipeline_text(Options(Hdp("hdp-edge"))).split(",")[len(RAISE) :]
    cut = passes.index(FIXED) + 1
    hardware = load_hardware("hdp-edge")
    context = make_context(weights, hardware=hardware)
    run_passes(context, module, build(",".join(passes[:cut])))
    coarsest = [0.0]

    def observe(op: Operation, results: Sequence[Any]) -> None:
        for value, result in zip(op.results, results):
            type_ = value.type
            element = type_.get_element_type() if isinstance(type_, TensorType) else None
            if not isinstance(element, QType) or element.width.data != 16:
                continue
            if not isinstance(op, WeightOp):
                # Half a code of room is left beside the bound: the last code is never reached.
                assert np.abs(result).max(initial=0) < 32767, (seed, op)
                coarsest[0] = max(coarsest[0], 2.0**-element.point.data)

    fixed = execute(module, inputs, weights, observe)["y"]
    tolerance = 2e-2 * max(1.0, float(np.abs(want).max())) + 4 * coarsest[0]
    np.testing.assert_allclose(fixed, want, 0, tolerance, err_msg=f"seed {seed}")
    run_passes(context, module, build(",".join(passes[cut:])))
    got = run_module(module, inputs, weights, hardware)["y"]
    np.testing.assert_array_equal(got, fixed, err_msg=f"seed {seed}")


@pytest.mark.parametrize("first", range(0, 48, 8))
def test_products_over_axes_that_were_cut_and_joined(first: int) -> None:
    for seed in range(first, first + 8):
        compare(seed)
