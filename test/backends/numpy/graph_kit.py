"""
Random models of the packed level, as text: products in every fusion, sums in every order, views,
groups held tile by tile, attention, several outputs, layers that repeat.

Values are drawn by what they can be used for alone, so that every order of definition, every
aliasing of a view with its buffer and every last use comes up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH, LENGTH, WIDTH, WIDE = 2, 5, 8, 16
PACKING = f"!attn.packing<{BATCH}, {LENGTH}, reads [2]>"
IDS = f"tensor<{BATCH}x{LENGTH}xi64>"


def rows(*axes: int) -> str:
    """The type of packed rows."""
    return f"tensor<{'x'.join(('?', *map(str, axes)))}xf32>"


def floats(*axes: int) -> str:
    """The type of a weight."""
    return f"tensor<{'x'.join(map(str, axes))}xf32>"


@dataclass(frozen=True)
class Value:
    """A packed value and its width."""

    name: str
    width: int


@dataclass
class Graph:
    """The text of one random function, its weights, and the values that can still be read."""

    random: random.Random
    lines: list[str] = field(default_factory=list[str])
    weights: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    values: list[Value] = field(default_factory=list[Value])
    prefix: str = ""
    count: int = 0

    def new(self, text: str, type_: str) -> str:
        """A statement with one result; returns its name."""
        self.count += 1
        name = f"%v{self.count}"
        self.lines.append(f"  {name} = {text.replace('RESULT', type_)}")
        return name

    def add(self, name: str, width: int) -> Value:
        """A value that others may read."""
        self.values.append(Value(name, width))
        return self.values[-1]

    def weight(self, *shape: int) -> str:
        """A new weight; small, so that long chains keep their magnitude."""
        key = f"{self.prefix}w{sum(k.startswith(self.prefix) for k in self.weights)}"
        rng = np.random.default_rng(len(self.weights))
        scale = 1 / np.sqrt(shape[-1]) if len(shape) > 1 else 1.0
        self.weights[key] = (rng.standard_normal(shape) * scale).astype(np.float32)
        return self.new(f'einsum.weight ["{key}"] : RESULT', floats(*shape))

    def pick(self, width: int | None = None) -> Value:
        """A value to read, of a width where it matters."""
        return self.random.choice([v for v in self.values if width in (None, v.width)])

    # --- Statements -----------------------------------------------------------------------

    def contract(self, x: str, inner: int, outer: int, fuse: str = "") -> str:
        """A product of matrices, its weight either way round."""
        order, shape = self.random.choice((("oi", (outer, inner)), ("io", (inner, outer))))
        w = self.weight(*shape)
        types = f"({rows(inner)}, {floats(*shape)}) -> RESULT"
        return self.new(f'einsum.contract "ti,{order}->to" {x}, {w} {fuse} : {types}', rows(outer))

    def biased(self, x: str, width: int) -> str:
        """With a bias."""
        types = f"({rows(width)}, {floats(width)}) -> RESULT"
        return self.new(f"nn.add {x}, {self.weight(width)} : {types}", rows(width))

    def activated(self, x: str, width: int) -> str:
        """An activation."""
        op = self.random.choice(("nn.gelu", "nn.relu", "nn.tanh"))
        kind = self.random.choice(("none", "tanh"))
        text = f'{{approximate = "{kind}"}} ' if op == "nn.gelu" else ""
        return self.new(f"{op} {x} {text}: ({rows(width)}) -> RESULT", rows(width))

    def plus(self, x: str, y: str, width: int) -> str:
        """A sum, either way round."""
        x, y = self.random.sample((x, y), 2)
        types = f"({rows(width)}, {rows(width)}) -> RESULT"
        return self.new(f"nn.add {x}, {y} : {types}", rows(width))

    def _finished(self, y: str, width: int) -> None:
        """Bias, activation and residual, or some of them."""
        if self.random.random() < 0.5:
            y = self.biased(y, width)
        if self.random.random() < 0.3:
            y = self.activated(y, width)
        if self.random.random() < 0.3:
            y = self.plus(y, self.pick(width).name, width)
        self.add(y, width)

    def linear(self) -> None:
        """A linear layer."""
        x, width = self.pick(), self.random.choice((WIDTH, WIDTH, WIDE))
        if width == WIDE and not any(v.width == WIDE for v in self.values):
            self.add(self.contract(x.name, x.width, WIDE), WIDE)
            return
        self._finished(self.contract(x.name, x.width, width), width)

    def sum_of_products(self) -> None:
        """`f(x) + g(h(y))`, the sum standing where it likes."""
        x, y = self.pick(), self.pick()
        f = self.contract(x.name, x.width, WIDTH)
        if self.random.random() < 0.5:
            f = self.biased(f, WIDTH)
        h = y.name if self.random.random() < 0.4 else self.activated(y.name, y.width)
        g = self.contract(h, y.width, WIDTH)
        if self.random.random() < 0.5:
            g = self.activated(g, WIDTH)
        self.add(self.plus(f, g, WIDTH), WIDTH)

    def low_rank(self) -> None:
        """Two steps of a factorised layer, as one group or not."""
        x = self.pick()
        tokens = self.random.choice((1, 2, 32))
        fuse = f"{{fuse = #einsum.fuse<tokens = {tokens}>}}" if self.random.random() < 0.7 else ""
        y = self.contract(x.name, x.width, 3, fuse)
        self._finished(self.contract(y, 3, WIDTH), WIDTH)

    def kronecker(self) -> None:
        """A step over some of the axes of a token."""
        x = self.pick(WIDTH)
        cut = self.new(f"nn.reshape {x.name} : ({rows(WIDTH)}) -> RESULT", rows(2, 4))
        w = self.weight(4, 4)
        types = f"({rows(2, 4)}, {floats(4, 4)}) -> RESULT"
        y = self.new(f'einsum.contract "tab,cb->tac" {cut}, {w} : {types}', rows(2, 4))
        if self.random.random() < 0.3:
            types = f"({rows(2, 4)}) -> RESULT"
            text = f"nn.transpose {y} {{permutation = array<i64: 0, 2, 1>}} : {types}"
            y = self.new(text, rows(4, 2))
            back = f"nn.reshape {y} : ({rows(4, 2)}) -> RESULT"
        else:
            back = f"nn.reshape {y} : ({rows(2, 4)}) -> RESULT"
        self._finished(self.new(back, rows(WIDTH)), WIDTH)

    def sum(self) -> None:
        """A sum of two values, perhaps of one with itself."""
        x = self.pick()
        self.add(self.plus(x.name, self.pick(x.width).name, x.width), x.width)

    def activation(self) -> None:
        """An activation of a value that others may read too."""
        x = self.pick()
        self.add(self.activated(x.name, x.width), x.width)

    def normed(self) -> None:
        """A layer norm."""
        x = self.pick()
        g, b, w = self.weight(x.width), self.weight(x.width), x.width
        types = f"({rows(w)}, {floats(w)}, {floats(w)}) -> RESULT"
        text = f"nn.layer_norm {x.name}, {g}, {b} {{eps = 1.0e-05 : f64}} : {types}"
        self.add(self.new(text, rows(w)), w)

    def columns(self) -> None:
        """Some channels: a view."""
        x = self.pick()
        start = self.random.randrange(0, x.width - WIDTH + 1, 4)
        step = self.random.choice((1, 1, 2)) if x.width == WIDE and start == 0 else 1
        starts = f"starts = array<i64: 0, {start}>, steps = array<i64: 1, {step}>"
        types = f"({rows(x.width)}) -> RESULT"
        text = f"nn.slice {x.name} {{{starts}}} : {types}"
        self.add(self.new(text, rows(WIDTH)), WIDTH)

    def turned(self) -> None:
        """The axes of a token in another order: a view of an array, then a copy."""
        x = self.pick(WIDTH)
        cut = self.new(f"nn.reshape {x.name} : ({rows(WIDTH)}) -> RESULT", rows(2, 4))
        text = (
            f"nn.transpose {cut} {{permutation = array<i64: 0, 2, 1>}} : ({rows(2, 4)}) -> RESULT"
        )
        other = self.new(text, rows(4, 2))
        back = f"nn.reshape {other} : ({rows(4, 2)}) -> RESULT"
        self.add(self.new(back, rows(WIDTH)), WIDTH)

    def plain(self) -> None:
        """An op that has no form on matrices."""
        x = self.pick()
        y, w = self.pick(x.width), x.width
        op = self.random.choice(("nn.mul", "nn.sub"))
        types = f"({rows(w)}, {rows(w)}) -> RESULT"
        z = self.new(f"{op} {x.name}, {y.name} : {types}", rows(w))
        # Products of products grow: bring them back.
        self.add(self.new(f"nn.tanh {z} : ({rows(w)}) -> RESULT", rows(w)), w)

    def joined(self) -> None:
        """Two values beside each other."""
        x, y = self.pick(WIDTH), self.pick(WIDTH)
        types = f"({rows(WIDTH)}, {rows(WIDTH)}) -> RESULT"
        text = f"nn.concat {x.name}, {y.name} {{dim = 1 : i64}} : {types}"
        self.add(self.new(text, rows(WIDE)), WIDE)

    def attention(self) -> None:
        """Attention of values to values."""
        q, k, v = (self.pick(WIDTH).name for _ in range(3))
        kinds = ", ".join([rows(WIDTH)] * 3)
        text = (
            f"attn.sdpa {q}, {k}, {v} packed %p : {PACKING} {{heads = 2 : i64, scale = 0.35 : f64}}"
        )
        self.add(self.new(f"{text} : {kinds} -> RESULT", rows(WIDTH)), WIDTH)

    def some(self, count: int) -> None:
        """A few random statements."""
        kinds: list[Callable[[], None]] = [
            *(self.linear, self.linear, self.sum_of_products, self.sum_of_products, self.sum),
            *(self.sum, self.low_rank, self.kronecker, self.activation, self.normed),
            *(self.columns, self.turned, self.plain, self.joined, self.attention),
        ]
        for _ in range(count):
            self.random.choice(kinds)()

    def layers(self, count: int) -> None:
        """A run of statements that repeats with other weights; what it reads outside stays."""
        outside = list(self.values)
        carried = self.pick(WIDTH)
        seed, size = self.random.random(), self.random.randrange(1, 6)
        before, first = self.random, self.random.randrange(3)
        for k in range(first, first + count):
            self.random = random.Random(seed)
            self.prefix = f"layer.{k}."
            # The hidden state is likelier to be read than what lies outside.
            self.values = [*self.random.sample(outside, min(2, len(outside))), *[carried] * 3]
            self.some(size)
            inner = self.values[-1]
            y = self.contract(inner.name, inner.width, WIDTH)
            if self.random.random() < 0.5:
                y = self.plus(y, carried.name, WIDTH)
            carried = Value(y, WIDTH)
        self.random, self.prefix = before, ""
        self.values = [*outside, carried]

    def axes(self, count: int) -> None:
        """Layers that pass on a value whose tokens have two axes."""
        x, two = self.pick(WIDTH), rows(2, 4)
        cut = y = self.new(f"nn.reshape {x.name} : ({rows(WIDTH)}) -> RESULT", two)
        equation = self.random.choice(("tab,cb->tac", "tab,ca->tcb"))
        extent = 4 if equation.startswith("tab,cb") else 2
        reads_cut = self.random.random() < 0.3
        for k in range(count):
            self.prefix = f"step.{k}."
            w = self.weight(extent, extent)
            types = f"({two}, {floats(extent, extent)}) -> RESULT"
            y = self.new(f'einsum.contract "{equation}" {y}, {w} : {types}', two)
            if reads_cut:
                y = self.new(f"nn.add {y}, {cut} : ({two}, {two}) -> RESULT", two)
        self.prefix = ""
        self.add(self.new(f"nn.reshape {y} : ({two}) -> RESULT", rows(WIDTH)), WIDTH)

    # --- Outputs ------------------------------------------------------------------------------

    def row(self, value: Value) -> tuple[str, str]:
        """One row of each sequence, and perhaps what a head makes of it."""
        type_ = floats(BATCH, value.width)
        kinds = f"({rows(value.width)}, {PACKING}) -> RESULT"
        name = self.new(f"attn.token {value.name}, %p {{position = 2 : i64}} : {kinds}", type_)
        return name, type_

    def seen_again(self, name: str, width: int) -> tuple[str, str]:
        """A view of a row, or something computed from it."""
        type_, other = floats(BATCH, width), floats(width, BATCH)
        match self.random.randrange(3):
            case 0:
                return self.new(f"nn.reshape {name} : ({type_}) -> RESULT", other), other
            case 1:
                return self.new(f"nn.tanh {name} : ({type_}) -> RESULT", type_), type_
            case _:
                text = f"nn.transpose {name} {{permutation = array<i64: 1, 0>}}"
                return self.new(f"{text} : ({type_}) -> RESULT", other), other

    def outputs(self) -> list[tuple[str, str]]:
        """Names and types of what the function returns; some are views of others."""
        found: list[tuple[str, str]] = []
        for value in self.random.choices(self.values, k=self.random.randrange(1, 4)):
            if self.random.random() < 0.6:
                type_ = floats(BATCH, LENGTH, value.width)
                kinds = f"({rows(value.width)}, {PACKING}) -> RESULT"
                found.append((self.new(f"attn.unpack {value.name}, %p : {kinds}", type_), type_))
                continue
            found.append(self.row(value))
            if self.random.random() < 0.5:
                found.append(self.seen_again(found[-1][0], value.width))
            if self.random.random() < 0.2:
                found.append(found[-1])
        return found


def random_graph(seed: int) -> tuple[str, dict[str, NDArray[Any]]]:
    """A module with inputs `x` and `m` and outputs `y0`, `y1` ..., and its weights."""
    rng = random.Random(seed)
    graph = Graph(rng)
    whole = f"tensor<{BATCH}x{LENGTH}x{WIDTH}xf32>"
    graph.lines += [
        f"  %p = attn.packing %m : ({IDS}) -> {PACKING}",
        f"  %x0 = attn.pack %x, %p : ({whole}, {PACKING}) -> {rows(WIDTH)}",
    ]
    graph.add("%x0", WIDTH)
    graph.some(rng.randrange(0, 8))
    if rng.random() < 0.6:
        graph.layers(rng.randrange(2, 5))
    if rng.random() < 0.2:
        graph.axes(rng.randrange(2, 5))
    graph.some(rng.randrange(0, 8))
    results = graph.outputs()
    types = ", ".join(f'{t} {{heatc.name = "y{k}"}}' for k, (_, t) in enumerate(results))
    head = (
        f'func.func @main(%x: {whole} {{heatc.name = "x"}}, %m: {IDS} {{heatc.name = "m"}})'
        f" -> ({types}) {{"
    )
    names, kinds = ", ".join(n for n, _ in results), ", ".join(t for _, t in results)
    text = "\n".join([head, *graph.lines, f"  func.return {names} : {kinds}", "}"])
    return text, graph.weights
