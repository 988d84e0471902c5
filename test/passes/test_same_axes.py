"""
Which axes are the same: every kind of op on arrays whose extents are all equal.

Axes are written as letters, one word a value: operands first, the result last. Two axes are one
class where they have the same letter, and are not where they have different ones. A letter stands
for an extent of 4, `1` for an extent of 1, which is in no class; other extents are in EXTENTS.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.dialects import nn
from heatc.passes.analysis.axes import Axes, runs

EXTENTS = {"1": 1, "u": 2, "v": 2, "w": 2, "x": 2, "y": 2, "Z": 8}


def tensor(axes: str, element: str = "f32") -> str:
    """The type of an array with these axes."""
    return f"tensor<{''.join(f'{EXTENTS.get(a, 4)}x' for a in axes)}{element}>"


def function_of(op: str, words: list[str], elements: dict[int, str]) -> FuncOp:
    """A function of one op on `%0`, `%1`, ... that returns its result."""
    types = [tensor(word, elements.get(i, "f32")) for i, word in enumerate(words)]
    arguments = ", ".join(f"%{i}: {t}" for i, t in enumerate(types[:-1]))
    names = ", ".join(f"%{i}" for i in range(len(words) - 1))
    line = op.format(names, *types, args=", ".join(types[:-1]), result=types[-1])
    text = f"func.func @main({arguments}) -> {types[-1]} {{\n%r = {line}\nfunc.return %r : {types[-1]}\n}}"
    module = Parser(make_context(), text).parse_module()
    module.verify()
    (function,) = module.ops
    assert isinstance(function, FuncOp)
    return function


def check(axes: Axes, values: Sequence[SSAValue], words: Sequence[str]) -> None:
    """The classes are those of the letters."""
    named = [(v, a, c) for v, word in zip(values, words) for a, c in enumerate(word) if c != "1"]
    for (v, a, c), (w, b, d) in itertools.combinations(named, 2):
        assert axes.same((v, a), (w, b)) == (c == d), f"{c}{a} and {d}{b} of {words}"
        assert axes.same((v, a - len(nn.shape_of(v))), (v, a))


def named(name: str, properties: str = "") -> str:
    """The pattern of an op's text."""
    braces = f" {{{{{properties}}}}}" if properties else ""
    return f"{name} {{0}}{braces} : ({{args}}) -> {{result}}"


def sdpa(masks: int = 0, fill: str = "0.0") -> str:
    """The pattern of `attn.sdpa` with two heads and masks."""
    types = ", ".join(f"{{{4 + i}}}" for i in range(masks))
    names = ", ".join(f"%{3 + i}" for i in range(masks))
    fills = f', fills = [{", ".join([f"{fill} : f64"] * masks)}], keyless = "zero"' if masks else ""
    head = "attn.sdpa %0, %1, %2" + (f" masks {names} : {types}" if masks else "")
    return (
        f"{head} {{{{heads = 2 : i64, scale = 0.5 : f64{fills}}}}} "
        ": {1}, {2}, {3} -> {result}"
    )


SCALED = "scale = 0.5 : f64, is_causal = false"


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (named("nn.tanh"), "ij ij"),
        (named("nn.layer_norm", "eps = 1.0e-5 : f64"), "ij a b ij"),
        (named("nn.softmax", "dim = 0 : i64"), "ijk ijk"),
        (named("nn.add"), "ij ij ij"),
        (named("nn.add"), "ij j ij"),
        (named("nn.add"), "ij i1 ij"),
        (named("nn.add"), "i1 1j ij"),
        (named("nn.mul"), "hij j hij"),
        (named("nn.expand"), "1j ij"),
        (named("nn.linear"), "ijk pq b ijo"),
        (named("nn.matmul"), "ij jk ik"),
        (named("nn.matmul"), "bhij bhjk bhik"),
        (named("nn.matmul"), "hij bhjk bhik"),
        (named("nn.matmul"), "bhij jk bhik"),
        (named("nn.matmul"), "1hij b1jk bhik"),
        (named("nn.matmul"), "cbhij bhjk cbhik"),
        (named('einsum.contract "abc,dc->abd"'), "abc dc abd"),
        (named('einsum.contract "ab,ab,b->ba"'), "ab ab b ba"),
        (named('einsum.contract "ab,cd->adbc"'), "ab cd adbc"),
        (named("nn.sdpa", SCALED), "bhqc bhkc bhkd bhqd"),
        (named("nn.sdpa", SCALED), "bhqc bhkc bhkd bhqk bhqd"),
        (named("nn.sdpa", SCALED), "bhqc bhkc bhkd qk bhqd"),
        (named("nn.sdpa", SCALED), "bhqc bhkc bhkd b11k bhqd"),
        (named("nn.sdpa", SCALED), "hqc hkc hkd hqd"),
        (sdpa(), "bqc bkd bke bqf"),
        (sdpa(1), "bqc bkd bke buqk bqf"),
        (sdpa(1), "bqc bkd bke b11k bqf"),
        (sdpa(2), "bqc bkd bke qk b1q1 bqf"),
        (named("nn.transpose", "permutation = array<i64: 2, 0, 1>"), "ijk kij"),
        (named("nn.slice", "starts = array<i64: 0, 1>, steps = array<i64: 1, 1>"), "iZ ij"),
        (named("nn.slice", "starts = array<i64: 0, 0>, steps = array<i64: 1, 1>"), "ij ij"),
        (named("nn.concat", "dim = 1 : i64"), "ij ik iZ"),
        (named("nn.concat", "dim = 1 : i64"), "ij ij"),
        # Reshapes: whole axes, axes of extent 1 between them, axes cut and put together.
        (named("nn.reshape"), "ij i1j"),
        (named("nn.reshape"), "1ij1 ij"),
        (named("nn.reshape"), "ij iuv"),
        (named("nn.reshape"), "uvij aij"),
    ],
)
def test_axes_of_an_op(op: str, words: str):
    given = words.split()
    function = function_of(op, given, {})
    (first, *_) = function.body.block.ops
    values: list[SSAValue] = [*function.body.block.args, first.results[0]]
    check(Axes(function), values, given)


def test_ids_lead_to_their_rows():
    function = function_of(named("nn.embedding"), ["vc", "ij", "ijc"], {1: "i64"})
    (first, *_) = function.body.block.ops
    table, ids = function.body.block.args
    axes = Axes(function)
    rows = first.results[0]
    assert [axes.same((ids, a), (rows, b)) for a in (0, 1) for b in (0, 1, 2)] == [
        *(True, False, False),
        *(False, True, False),
    ]
    assert not any(axes.same((table, a), (rows, b)) for a in (0, 1) for b in (0, 1))


CHAIN = """
func.func @main(%x: tensor<2x2x4xf32>, %y: tensor<4x4xf32>) -> tensor<2x2x4xf32> {
  %flat = nn.reshape %x : (tensor<2x2x4xf32>) -> tensor<4x4xf32>
  %sum = nn.add %flat, %y : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %turned = nn.transpose %sum {permutation = array<i64: 1, 0>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %cut = nn.reshape %sum : (tensor<4x4xf32>) -> tensor<2x2x4xf32>
  %other = nn.reshape %turned : (tensor<4x4xf32>) -> tensor<2x2x4xf32>
  func.return %cut : tensor<2x2x4xf32>
}
"""


def read(text: str) -> tuple[Axes, list[SSAValue]]:
    """The axes of a function, and its values: arguments, then the result of each op."""
    module = Parser(make_context(), text).parse_module()
    (function,) = module.ops
    assert isinstance(function, FuncOp)
    block = function.body.block
    return Axes(function), [*block.args, *(op.results[0] for op in block.ops if op.results)]


def test_an_axis_remembers_what_it_was_made_of():
    """Two axes put together, summed, and cut again: the same two."""
    axes, (x, y, flat, total, turned, cut, other) = read(CHAIN)
    assert axes.parts(flat, 0) == axes.parts(total, 0) == axes.parts(y, -2) == ((x, 0), (x, 1))
    assert axes.parts(turned, 1) == ((x, 0), (x, 1))
    assert axes.parts(total, 1) == axes.parts(turned, 0) == ((other, 0), (other, 1))
    assert axes.parts(x, 0) == ()
    assert [axes.same((cut, a), (x, a)) for a in range(3)] == [True] * 3
    assert not any(axes.same((other, a), (x, b)) for a in (0, 1) for b in (0, 1))
    assert not axes.same((x, 0), (x, 1))


CUT = """
func.func @main(%x: tensor<4x6xf32>, %y: tensor<4x6xf32>) -> tensor<3x8xf32> {
  %sum = nn.add %x, %y : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  %mixed = nn.reshape %x : (tensor<4x6xf32>) -> tensor<3x8xf32>
  %a = nn.reshape %sum : (tensor<4x6xf32>) -> tensor<2x2x6xf32>
  %b = nn.reshape %y : (tensor<4x6xf32>) -> tensor<2x2x6xf32>
  func.return %mixed : tensor<3x8xf32>
}
"""


def test_axes_that_are_mixed_say_nothing_of_each_other():
    """Of (4, 6) as (3, 8) no axis is made of others; cut into (2, 2, 6) the first one is."""
    axes, (x, _, _, mixed, a, b) = read(CUT)
    assert axes.parts(mixed, 0) == axes.parts(mixed, 1) == axes.parts(x, 1) == ()
    assert axes.parts(x, 0) == ((a, 0), (a, 1))
    assert [axes.same((a, i), (b, i)) for i in range(3)] == [True] * 3


APART = """
func.func @main(%x: tensor<8x3xf32>, %y: tensor<8x3xf32>) -> tensor<8x3xf32> {
  %sum = nn.add %x, %y : (tensor<8x3xf32>, tensor<8x3xf32>) -> tensor<8x3xf32>
  %a = nn.reshape %x : (tensor<8x3xf32>) -> tensor<2x4x3xf32>
  %b = nn.reshape %y : (tensor<8x3xf32>) -> tensor<4x2x3xf32>
  func.return %sum : tensor<8x3xf32>
}
"""


def test_one_axis_cut_in_two_ways():
    """The first axis of (2, 4) is not the first of (4, 2)."""
    axes, (_, _, _, a, b) = read(APART)
    assert [axes.same((a, i), (b, i)) for i in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("own", "new", "expected"),
    [
        ((2, 3), (6,), [([0, 1], [0])]),
        ((6,), (3, 2), [([0], [0, 1])]),
        ((2, 1, 3), (1, 2, 3), [([0], [1]), ([2], [2])]),
        ((2, 6), (4, 3), [([0, 1], [0, 1])]),
        ((4, 3, 5), (2, 2, 15), [([0], [0, 1]), ([1, 2], [2])]),
        ((1, 1), (1,), []),
        ((2, 3, 4), (2, 3, 4), [([0], [0]), ([1], [1]), ([2], [2])]),
    ],
)
def test_runs(own: tuple[int, ...], new: tuple[int, ...], expected: list[object]):
    assert runs(own, new) == expected
