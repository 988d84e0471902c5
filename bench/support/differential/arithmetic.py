"""Random programs without attention: narrow integers, and tensors of floats that share values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.support.differential import functions
from bench.support.differential.program import (
    Choices,
    Extents,
    Output,
    Port,
    Program,
    Value,
    Writer,
    finished,
)

INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")
_CASTS = {
    "int64": "long",
    "int32": "int",
    "int16": "short",
    "int8": "char",
    "uint8": "byte",
    "bool": "bool",
    "float32": "float",
}
_EXTENTS = Extents(2, 5, 6, 1, 20)


def arithmetic(choices: Choices) -> Program:
    """Integers three times in four, otherwise floats."""
    kind = choices.pick("arithmetic", ("integers", "floats"), (60, 40))
    writer = Writer()
    values = (_integers if kind == "integers" else _floats)(writer, choices)
    text = f"({', '.join(v.text for v in values)},)"
    outputs = tuple(
        Output(f"output_{i}", "." * len(v.shape), v.shape) for i, v in enumerate(values)
    )
    return finished(choices, writer, text, outputs, _EXTENTS)


# --- Integers -------------------------------------------------------------------------------------


def _integers(writer: Writer, choices: Choices) -> list[Value]:
    """Casts, sums, products, bits and comparisons of narrow integers, which wrap in PyTorch."""
    shape = (2, 5)
    values = [
        writer.port(Port(name, choices.pick(name, INTEGERS), shape, "integers"), "..")
        for name in ("x", "y")
    ]
    for step in range(choices.pick("steps", (2, 1, 3, 4, 5))):
        own = choices.under(f"step {step}")
        texts = _INTEGER_STEPS[own.pick("kind", tuple(_INTEGER_STEPS))]
        a, b = (own.pick(name, values[::-1]) for name in ("first", "second"))
        text = own.pick("text", texts).format(
            a=a, b=b, c=own.pick("number", (1, 2, 3, 100, 200)), t=_CASTS[own.pick("to", INTEGERS)]
        )
        values.append(writer.let(text, shape, ".."))
    last = values[-1]
    how = choices.pick("result", ("float", "itself", "both", "mask"))
    if how == "itself":
        return [last]
    if how == "mask":
        return [writer.let(f"torch.where(({last}) > 1, 1.5, -0.5)", shape, "..")]
    found = writer.let(f"({last}).float() * 0.25", shape, "..")
    return [found, last] if how == "both" else [found]


_INTEGER_STEPS: Mapping[str, tuple[str, ...]] = {
    "cast": ("{a}.{t}()", "{a}.{t}() + {c}", "~{a}.{t}()", "~{a}.byte()", "{a}.byte() - {c}"),
    "number": ("{a} + {c}", "{a} * {c}", "{c} - {a}.long()", "{a}.long() - {c}", "{a}.int() * {c}"),
    "pair": ("{a} + {b}", "{a} * {b}", "{a}.int() - {b}", "{a}.{t}() * {b}.{t}()"),
    "bits": ("{a}.byte() & {b}.byte()", "{a}.bool() | {b}.bool()", "{a}.bool() & ~{b}.bool()"),
    "compare": ("{a} > {b}", "({a} != {c}).{t}()", "({a} <= {b}).long()", "{a} == {b}"),
    "choose": (
        "torch.where({a} > {c}, {a}, {b})",
        "torch.where({a}.long() > {c}, {c}, {a}.long())",
        "{a}.long().masked_fill({b}.bool(), {c})",
    ),
    "divide": (
        "{a}.long() // {c}",
        "{a}.long() % {c}",
        "torch.div({a}.long(), {c}, rounding_mode='floor')",
        "torch.remainder({a}.long(), -{c})",
    ),
    "extreme": (
        "torch.maximum({a}.long(), {b}.long())",
        "torch.minimum({a}.int(), {b}.int())",
        "{a}.long().clamp(-1, {c})",
        "{a}.long().abs()",
        "{a}.long().sign()",
    ),
    "reduce": (
        "{a}.long().sum(1, keepdim=True).expand(2, 5)",
        "{a}.int().cumsum(1)",
        "{a}.cumsum(0)",
        "{a}.long().amax(1, keepdim=True).expand(2, 5)",
        "{a}.long().amin(0).expand(2, 5)",
        "{a}.bool().any(1, keepdim=True).expand(2, 5)",
        "({a}.long() > {b}.long()).all(0).expand(2, 5)",
        "{a}.long().argmax(1, keepdim=True).expand(2, 5)",
        "{a}.long().sum() + {b}.long()",
    ),
    "power": ("{a}.long() ** 2", "({a}.{t}() * {a}.{t}())", "-({a}.{t}().long())"),
}


# --- Floats ---------------------------------------------------------------------------------------


def _floats(writer: Writer, choices: Choices) -> list[Value]:
    """A net of ops over (batch, length, width), whose values are used more than once."""
    e = _EXTENTS
    shape = (e.batch, e.length, e.width)
    values = [writer.port(Port("x", "float32", shape, "float"), "...")]
    for step in range(choices.pick("steps", (3, 2, 5, 7, 9))):
        own = choices.under(f"step {step}")
        make = own.pick("kind", tuple(_FLOAT_STEPS))
        a, b = (own.pick(name, values[::-1]) for name in ("first", "second"))
        values.append(writer.let(_FLOAT_STEPS[make](writer, own, a, b), shape, "..."))
    if choices.chance("two outputs", 0.4):
        return [values[-1], values[-2]]
    return [values[-1]]


def _layer(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    return f"{writer.linear('layer', a.shape[-1], a.shape[-1])}({a})"


def _sum(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    return choices.pick("sum", ("{a} + {b}", "{a} - {b}", "{a} + 0.5 * {b}")).format(a=a, b=b)


def _product(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    spellings = ("torch.tanh({a}) * {b}", "{a} * 0.7", "{a} / ({b} * {b} + 1)", "{a} * {a}.tanh()")
    return choices.pick("product", spellings).format(a=a, b=b)


def _activation(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    names = ("F.gelu({a})", "torch.relu({a})", "torch.tanh({a})", "F.softmax({a}, {d})")
    return choices.pick("activation", names).format(a=a, d=choices.pick("axis", (-1, 1, 0)))


def _normed(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    width = a.shape[-1]
    kinds = (f"nn.LayerNorm({width})", f"nn.LayerNorm({width}, elementwise_affine=False)")
    return f"{writer.module('norm', choices.pick('norm', kinds))}({a} + 0.1)"


def _moved(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    """Axes and elements in another place."""
    n, s, w = a.shape
    spellings = (
        f"{a}.transpose(1, 2).reshape({n}, {s}, {w})",
        f"{a}.reshape({n}, {w}, {s}).transpose(1, 2)",
        f"torch.cat([{a}[:, 1:], {b}[:, :1]], 1)",
        f"torch.stack([{a}[..., 0]] * {w}, -1)",
        f"{a}[:, :1].expand({n}, {s}, {w})",
        f"{a}.permute(1, 0, 2).reshape({n}, {s}, {w})",
        f"torch.cat({a}.chunk(2, -1)[::-1], -1)",
        f"{a}.flatten(1).view({n}, {w}, {s}).mT",
        f"{a}[:, ::2].repeat(1, 2, 1)[:, :{s}]",
    )
    return choices.pick("moved", spellings)


def _contracted(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    n, s, w = a.shape
    spellings = (
        f"(({a} @ {b}.transpose(1, 2)) @ {a}) * {1 / (s * w)!r}",
        f"torch.einsum('bsw,bst->btw', {a}, {b} @ {b}.mT) * {1 / (s * w)!r}",
        f"torch.einsum('bsw,bvw->bsv', {a}, {b}[:, :1].expand({n}, {w}, {w})) * {1 / w!r}",
        f"{a} + torch.einsum('bsw->bw', {b})[:, None] * {1 / s!r}",
        f"{a} * torch.einsum('bsw->s', {b})[:, None] * {1 / (n * w)!r}",
    )
    return choices.pick("contracted", spellings)


def _larger(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
    return choices.pick(
        "larger",
        (
            "torch.where({a} > {b}, {a}, {b})",
            "torch.where({a} > 1.0, 1.0, {a})",
            "{a}.masked_fill({a} < 0, 0.0)",
        ),
    ).format(a=a, b=b)


def _of(name: str, texts: tuple[str, ...]) -> Callable[[Writer, Choices, Value, Value], str]:
    def step(writer: Writer, choices: Choices, a: Value, b: Value) -> str:
        return choices.pick(name, texts).format(a=a, b=b)

    return step


_FLOAT_STEPS: Mapping[str, Callable[[Writer, Choices, Value, Value], str]] = {
    "layer": _layer,
    "sum": _sum,
    "product": _product,
    "activation": _activation,
    "norm": _normed,
    "moved": _moved,
    "contracted": _contracted,
    "larger": _larger,
    "function": _of("function", functions.FUNCTIONS),
    "pair": _of("pair", functions.PAIRS),
    "reduction": _of("reduction", functions.REDUCTIONS),
    "in place": _of("in place", functions.IN_PLACE),
}
