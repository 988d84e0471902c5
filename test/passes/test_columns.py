"""Slices of rearranged values become slices of columns, and give the same elements."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.dialects import nn
from heatc.interpreter import execute
from heatc.parsing import parse_module
from heatc.passes.analysis.columns import columns_of
from heatc.passes.raise_attention import slice_columns
from heatc.weights import WeightStore

BATCH, LENGTH, HEADS, HEAD = 2, 3, 2, 4
WIDTH = HEADS * HEAD


def typed(shape: tuple[int, ...]) -> str:
    """The type of an array."""
    return f"tensor<{'x'.join(map(str, shape))}xf32>"


def listed(numbers: tuple[int, ...]) -> str:
    """An array of integers."""
    return f"array<i64: {', '.join(map(str, numbers))}>"


class Chain:
    """Text of a function that rearranges %x and takes a slice of the result."""

    def __init__(self, shape: tuple[int, ...]):
        self.first, self.shape = shape, shape
        self.lines: list[str] = []

    @property
    def _last(self) -> str:
        return f"%v{len(self.lines)}" if self.lines else "%x"

    def _add(self, op: str, shape: tuple[int, ...]) -> Chain:
        name, attributes = op.split(" ", 1)
        line = f"{name} {self._last} {attributes} : ({typed(self.shape)}) -> {typed(shape)}"
        self.lines.append(f"%v{len(self.lines) + 1} = {line}")
        self.shape = shape
        return self

    def reshape(self, *shape: int) -> Chain:
        return self._add("nn.reshape ", shape)

    def transpose(self, *order: int) -> Chain:
        shape = tuple(self.shape[axis] for axis in order)
        return self._add(f"nn.transpose {{permutation = {listed(order)}}}", shape)

    def slice(self, starts: tuple[int, ...], sizes: tuple[int, ...]) -> ModuleOp:
        steps = (1,) * len(starts)
        self._add(f"nn.slice {{starts = {listed(starts)}, steps = {listed(steps)}}}", sizes)
        text = (
            f'func.func @main(%x: {typed(self.first)} {{heatc.name = "x"}}) -> '
            f'({typed(self.shape)} {{heatc.name = "y"}}) {{\n'
            + "\n".join(self.lines)
            + f"\nfunc.return {self._last} : {typed(self.shape)}\n}}"
        )
        return parse_module(make_context(), text.encode(), "x.mlir")

    def part(self, axis: int, start: int, size: int = 1) -> ModuleOp:
        """A slice of one axis."""
        starts = tuple(start if a == axis else 0 for a in range(len(self.shape)))
        sizes = tuple(size if a == axis else n for a, n in enumerate(self.shape))
        return self.slice(starts, sizes)


def the_slice(module: ModuleOp) -> nn.SliceOp:
    """The slice of a function that has one."""
    (found,) = (op for op in module.walk() if isinstance(op, nn.SliceOp))
    return found


def computed(module: ModuleOp, x: Any) -> Any:
    """What a function gives."""
    return execute(module, {"x": x}, WeightStore({}))["y"]


def packed() -> Chain:
    """q, k and v beside each other."""
    return Chain((BATCH, LENGTH, 3 * WIDTH))


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    ("chain", "axis"),
    [
        (lambda: packed().reshape(BATCH, LENGTH, 3, WIDTH), 2),
        (lambda: packed().reshape(BATCH, LENGTH, 3, HEADS, HEAD), 2),
        (lambda: packed().reshape(BATCH, LENGTH, 3, HEADS, HEAD).transpose(2, 0, 3, 1, 4), 0),
        (lambda: packed().transpose(1, 0, 2).reshape(LENGTH, BATCH, 3, WIDTH), 2),
        (lambda: packed().reshape(BATCH * LENGTH, 3 * WIDTH).reshape(BATCH * LENGTH, 3, WIDTH), 1),
    ],
    ids=["view", "view of heads", "heads first", "tokens first", "flat"],
)
def test_a_packed_projection_is_cut_by_columns(chain: Any, axis: int, which: int):
    module = chain().part(axis, which)
    found = columns_of(the_slice(module))
    assert found is not None
    assert (found.start, found.width) == (which * WIDTH, WIDTH)
    x = np.arange(BATCH * LENGTH * 3 * WIDTH, dtype=np.float32).reshape(BATCH, LENGTH, 3 * WIDTH)
    want = computed(module, x)
    slice_columns(the_slice(module))
    module.verify()
    np.testing.assert_array_equal(computed(module, x), want)


@pytest.mark.parametrize(
    ("chain", "axis"),
    [
        (lambda: packed().reshape(BATCH, LENGTH, WIDTH, 3), 3),
        (lambda: packed().reshape(BATCH * LENGTH, 3 * WIDTH).reshape(BATCH, LENGTH, 3 * WIDTH), 1),
        (lambda: packed().reshape(BATCH, LENGTH, 3, WIDTH), 0),
        (packed, 2),
    ],
    ids=["with gaps", "one token", "one sequence", "columns already"],
)
def test_other_slices_stay(chain: Any, axis: int):
    assert columns_of(the_slice(chain().part(axis, 0))) is None


def random_chain(rng: random.Random) -> Chain:
    """Some reshapes into random factors and some transposes."""
    chain = Chain((2, 6, 24))
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.5:
            order = list(range(len(chain.shape)))
            rng.shuffle(order)
            chain.transpose(*order)
            continue
        left, shape = math.prod(chain.shape), list[int]()
        while left > 1:
            factor = rng.choice([n for n in (2, 3, 4, 6, 8, 12, 24, left) if left % n == 0])
            shape.append(factor)
            left //= factor
        chain.reshape(*shape)
    return chain


def test_whatever_is_rewritten_gives_the_same_elements():
    rewritten = 0
    x = np.arange(2 * 6 * 24, dtype=np.float32).reshape(2, 6, 24)
    for seed in range(400):
        rng = random.Random(seed)
        chain = random_chain(rng)
        axis = rng.randrange(len(chain.shape))
        size = rng.randint(1, chain.shape[axis])
        module = chain.part(axis, rng.randint(0, chain.shape[axis] - size), size)
        want = computed(module, x)
        rewritten += columns_of(the_slice(module)) is not None
        slice_columns(the_slice(module))
        module.verify()
        np.testing.assert_array_equal(computed(module, x), want)
    assert rewritten > 20
