"""Layers that repeat are found wherever they stand, and the search looks at few nodes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.numpy.loops import Finder, Loop
from heatc.backends.numpy.nodes import collect_nodes
from heatc.backends.numpy.weight_file import WeightTable
from heatc.weights import WeightStore

X = "tensor<?x4xf32>"
W = "tensor<4x4xf32>"
VISITS_A_NODE = 8


def finder(statements: Sequence[str], result: str, more: Sequence[str] = ()) -> Finder:
    """
    The search over statements on `%x`: `z = name y` is a product with a weight, `z = y + u` a sum.
    """
    lines: list[str] = []
    names: dict[str, str] = {}
    for statement in statements:
        target, _, right = statement.partition(" = ")
        if " + " in right:
            a, _, b = right.partition(" + ")
            lines.append(f"%{target} = nn.add %{a}, %{b} : ({X}, {X}) -> {X}")
            continue
        name, _, x = right.partition(" ")
        if name not in names:
            names[name] = f"%w{len(names)}"
            lines.append(f'{names[name]} = einsum.weight ["{name}"] : {W}')
        product = f'einsum.contract "ti,oi->to" %{x}, {names[name]} : ({X}, {W}) -> {X}'
        lines.append(f"%{target} = {product}")
    returned = [result, *more]
    types = ", ".join([X] * len(returned))
    values = ", ".join(f"%{name}" for name in returned)
    text = "\n".join(
        [
            f"func.func @main(%x: {X}) -> ({types}) {{",
            *lines,
            f"func.return {values} : {types}",
            "}",
        ]
    )
    module = Parser(make_context(), text).parse_module()
    function = next(op for op in module.ops if isinstance(op, FuncOp))
    last = function.body.block.last_op
    assert isinstance(last, ReturnOp)
    weights = WeightStore({name: np.zeros((4, 4), np.float32) for name in names})
    return Finder(collect_nodes(function), set(last.arguments), WeightTable(weights))


def found(statements: Sequence[str], result: str, more: Sequence[str] = ()) -> Loop:
    """The loop, which must be there."""
    loop = finder(statements, result, more).best()
    assert loop is not None
    return loop


def layers(count: int, first: int = 0, x: str = "x") -> list[str]:
    """Layers `h = b (a h) + h` without a fusion: their results are `h0` to `h<count - 1>`."""
    lines: list[str] = []
    for k in range(first, first + count):
        lines += [f"u{k} = layer.{k}.a {x}", f"v{k} = layer.{k}.b u{k}", f"s{k} = v{k} + {x}"]
        # Two readers: the sum is a node of its own.
        lines += [f"h{k} = s{k} + s{k}"]
        x = f"h{k}"
    return lines


def test_layers_between_others() -> None:
    before, after = ["p = in x", "q = other p"], ["y = out h6"]
    loop = found([*before, *layers(4, 3, "q"), *after], "y")
    assert (loop.start, loop.count, loop.first, len(loop.body)) == (2, 4, 3, 3)
    assert sorted(loop.names.values()) == ["layer.{i}.a", "layer.{i}.b"]


@pytest.mark.parametrize("count", [2, 12, 96])
def test_all_layers_are_found(count: int) -> None:
    loop = found(layers(count), f"h{count - 1}")
    assert (loop.start, loop.count) == (0, count)


def test_a_value_that_every_layer_reads_is_not_the_one_that_passes_on() -> None:
    lines = ["x0 = in x"]
    for k in range(3):
        h = f"h{k - 1}" if k else "x0"
        lines += [f"u{k} = layer.{k}.a {h}", f"h{k} = u{k} + x0"]
    loop = found(lines, "h2")
    assert loop.invariants() == [loop.initial]
    assert loop.carried_in is not loop.initial


@pytest.mark.parametrize(
    ("lines", "outputs"),
    [
        (["a = l.0.w x", "b = l.2.w a", "c = l.4.w b"], ["c"]),  # does not count up by one
        (["a = l.0.w x", "b = l.1.v a", "c = l.2.w b"], ["c"]),  # other names
        (["a = same x", "b = same a", "c = same b"], ["c"]),  # no number
        (layers(3), ["h2", "s1"]),  # an inner value is read outside
        (["a = l.0.w x", "b = l.1.w x", "c = a + b"], ["c"]),  # nothing passes on
    ],
)
def test_what_is_no_loop(lines: list[str], outputs: list[str]) -> None:
    assert finder(lines, outputs[0], outputs[1:]).best() is None


def test_two_stacks_are_told_apart() -> None:
    lines = ["e0 = enc.0.w x", "e1 = enc.1.w e0", "d0 = dec.0.w e1"]
    lines += ["d1 = dec.1.w d0", "d2 = dec.2.w d1"]
    loop = found(lines, "d2")
    assert (loop.start, loop.count) == (2, 3)


def _sums(count: int) -> list[str]:
    return [f"y{k} = {f'y{k - 1}' if k else 'x'} + x" for k in range(count)]


def _shuffled(count: int) -> list[str]:
    """Products whose numbers follow each other at every distance."""
    numbers = random.Random(0).sample(range(count), count)
    return [f"y{k} = l.{n}.w {f'y{k - 1}' if k else 'x'}" for k, n in enumerate(numbers)]


def _apart(count: int) -> list[str]:
    """Pairs of numbers, each pair at a distance of its own, around one middle."""
    half = count // 2
    names = [f"a{k}.0.w" for k in range(half)] + [f"a{k}.1.w" for k in reversed(range(half))]
    return [f"y{k} = {name} {f'y{k - 1}' if k else 'x'}" for k, name in enumerate(names)]


def _tails(count: int) -> list[str]:
    """Two numbered products, each before a long chain that is the same: a loop of long period."""
    lines, x = list[str](), "x"
    for k in range(2):
        lines.append(f"a{k} = l.{k}.w {x}")
        x = f"a{k}"
        for j in range(count // 2 - 1):
            lines.append(f"b{k}_{j} = {x} + {x}")
            x = f"b{k}_{j}"
    return lines


def _kept_tails(count: int) -> list[str]:
    """The same, with every value read again at the end: no start of the run is a loop."""
    lines = _tails(count)
    return [*lines, *(f"c{k} = {line.split()[0]} + x" for k, line in enumerate(lines))]


@pytest.mark.parametrize(
    "make", [_sums, _shuffled, _apart, _tails, _kept_tails, lambda n: layers(n // 4)]
)
def test_the_search_looks_at_few_nodes(make: Callable[[int], list[str]]) -> None:
    counts: list[tuple[int, int]] = []
    for size in (200, 800):
        lines = make(size)
        search = finder(lines, lines[-1].split()[0])
        search.best()
        counts.append((len(search.nodes), search.visits))
    assert all(visits <= VISITS_A_NODE * nodes for nodes, visits in counts)
