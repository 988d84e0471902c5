"""Which values are the stream of tokens, which axes are its tokens, and which positions are read."""

from __future__ import annotations

import pytest
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.passes.analysis.axes import Axes
from heatc.passes.analysis.reads import Reads, TokenAxes

W = 5


def tensor(*extents: int) -> str:
    """The type of an array."""
    return f"tensor<{''.join(f'{n}x' for n in extents)}f32>"


def function_of(
    arguments: dict[str, str], lines: str, returned: str
) -> tuple[FuncOp, dict[str, SSAValue]]:
    """A function, and its values by name."""
    given = ", ".join(f"%{name}: {type_}" for name, type_ in arguments.items())
    names = returned.split(" : ")
    text = f"func.func @main({given}) -> ({names[1]}) {{\n{lines}\nfunc.return {returned}\n}}"
    (function,) = Parser(make_context(), text).parse_module().ops
    assert isinstance(function, FuncOp)
    function.verify()
    values: dict[str, SSAValue] = {v.name_hint or "": v for v in function.body.block.args}
    values |= {r.name_hint or "": r for op in function.body.block.ops for r in op.results}
    return function, values


@pytest.mark.parametrize(
    ("b", "s", "streams"),
    [
        # Tokens may come first.
        (2, 3, "x flat sum turned mixed"),
        (3, 2, "x flat sum turned mixed"),
        (1, 3, "x flat sum turned mixed"),
        # One token of each sequence, as a pooler has it, is no stream.
        (3, 1, "x sum"),
        (1, 1, "x sum other turned"),
    ],
)
def test_streams(b: int, s: int, streams: str):
    t, flat, turned = tensor(b, s, W), tensor(b * s, W), tensor(s, b, W)
    arguments = {"x": t, "other": t, "more": t, "rows": flat, "long": tensor(b * 2**s, W)}
    arguments |= {"wide": tensor(b, s, W, W), "shorter": tensor(b, s)}
    function, values = function_of(
        arguments,
        f"""
%flat = nn.reshape %x : ({t}) -> {flat}
%sum = nn.add %x, %more : ({t}, {t}) -> {t}
%turned = nn.transpose %x {{permutation = array<i64: 1, 0, 2>}} : ({t}) -> {turned}
%mixed = nn.reshape %turned : ({turned}) -> {flat}""",
        f"%x : {t}",
    )
    tokens = TokenAxes(Axes(function), values["x"])
    found = [name for name, value in values.items() if tokens.is_stream(value)]
    expected = {*streams.split(), *(["more"] if "sum" in streams else [])}
    assert set(found) == expected


SQUARE = tensor(4, 4, 4)


def test_token_axes_are_known_by_where_they_come_from():
    """Of extents that are all 4; longer and shorter axes of the class do not count."""
    function, values = function_of(
        {"x": SQUARE, "t": SQUARE},
        f"""
%pairs = einsum.contract "abc,adc->abd" %x, %x : ({SQUARE}, {SQUARE}) -> {SQUARE}
%across = nn.transpose %x {{permutation = array<i64: 2, 1, 0>}} : ({SQUARE}) -> {SQUARE}
%cut = nn.slice %x {{starts = array<i64: 0, 1, 0>, steps = array<i64: 1, 1, 1>}} : ({SQUARE}) -> {tensor(4, 2, 4)}
%sum = einsum.contract "abc->ac" %x : ({SQUARE}) -> {tensor(4, 4)}
%only = einsum.contract "abc->b" %x : ({SQUARE}) -> {tensor(4)}""",
        f"%x : {SQUARE}",
    )
    tokens = TokenAxes(Axes(function), values["x"])
    found = {name: tokens.token_axes(value) for name, value in values.items()}
    assert found == {
        "x": [1],
        "t": [],
        "pairs": [1, 2],
        "across": [1],
        "cut": [],
        "sum": [],
        "only": [0],
    }
    has = {name for name, value in values.items() if tokens.has_tokens(value)}
    assert has == {"x", "pairs", "across"}


@pytest.mark.parametrize(
    ("line", "result", "read"),
    [
        # Slices of the token axis read what they pick, others nothing more than what reads them.
        ("nn.slice %x {starts = array<i64: 0, 2, 0>, steps = array<i64: 1, 1, 1>}", (3, 1, W), {2}),
        (
            "nn.slice %x {starts = array<i64: 0, 1, 0>, steps = array<i64: 1, 2, 1>}",
            (3, 2, W),
            {1, 3},
        ),
        (
            "nn.slice %x {starts = array<i64: 0, 0, 1>, steps = array<i64: 1, 1, 1>}",
            (3, 4, 2),
            set(),
        ),
        ("nn.tanh %x", (3, 4, W), set()),
        ("nn.softmax %x {dim = 2 : i64}", (3, 4, W), set()),
        ("nn.softmax %x {dim = 1 : i64}", (3, 4, W), {0, 1, 2, 3}),
        ("nn.cumsum %x {axis = 1 : i64}", (3, 4, W), {0, 1, 2, 3}),
        ("nn.transpose %x {permutation = array<i64: 2, 0, 1>}", (W, 3, 4), set()),
        ("nn.reshape %x", (3, 4 * W), {0, 1, 2, 3}),
        ('einsum.contract "abc->ac" %x', (3, W), {0, 1, 2, 3}),
    ],
)
def test_positions_that_an_op_reads(line: str, result: tuple[int, ...], read: set[int]):
    t, r = tensor(3, 4, W), tensor(*result)
    function, values = function_of({"x": t}, f"%y = {line} : ({t}) -> {r}", f"%y : {r}")
    tokens = TokenAxes(Axes(function), values["x"])
    assert Reads(tokens, (), compute=False).of(values["x"]) == read
    if not read:
        assert Reads(tokens, (), compute=True).of(values["x"]) == {0, 1, 2, 3}


def test_an_output_of_tokens_reads_none():
    t = tensor(3, 4, W)
    function, values = function_of({"x": t}, "", f"%x : {t}")
    tokens = TokenAxes(Axes(function), values["x"])
    assert Reads(tokens, (), compute=False).of(values["x"]) == set()
    assert Reads(tokens, (), compute=True).of(values["x"]) == {0, 1, 2, 3}
