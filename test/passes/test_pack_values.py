"""
What packing does to values: every op that a stream may meet, where batch, tokens and width are equal.

The function before and after the pass is interpreted on the same inputs. An output whose positions
are `zero` at masked tokens has the model's values at the others; any other output has them all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.dialects import nn
from heatc.interpreter import execute
from heatc.passes.pack_tokens import pack_function
from heatc.weights import WeightStore

N = 3
T = f"tensor<{N}x{N}x{N}xf32>"
M = f"tensor<{N}x{N}xf32>"
V = f"tensor<{N}xf32>"
IDS = f"tensor<{N}x{N}xi64>"
MASKS = ([[1, 1, 1]] * N, [[0, 1, 1], [1, 0, 1], [1, 1, 0]], [[0, 0, 1], [1, 0, 0], [1, 1, 1]])


def head(b: int, s: int, result: str) -> str:
    """Attention of a stream (b, s, N), and other inputs."""
    t, ids, keys = tensor(b, s, N), f"tensor<{b}x{s}xi64>", f"tensor<{b}x1x1x{s}xi1>"
    return f"""
func.func @main(%x: {t} {{heatc.name = "x"}}, %m: {ids} {{heatc.name = "m"}}, %t: {t} {{heatc.name = "t"}},
                %s: {M} {{heatc.name = "s"}}, %v: {V} {{heatc.name = "v"}}, %i: {ids} {{heatc.name = "i"}})
    -> ({result} {{heatc.name = "y"}}) {{
  %one = nn.full {{value = 1.0 : f64}} : tensor<i64>
  %k = nn.compare %m, %one {{predicate = "eq"}} : ({ids}, tensor<i64>) -> tensor<{b}x{s}xi1>
  %keys = nn.reshape %k : (tensor<{b}x{s}xi1>) -> {keys}
  %a = attn.sdpa %x, %x, %x masks %keys : {keys}
    {{heads = 1 : i64, scale = 0.5 : f64, fills = [0xFFF0000000000000 : f64], keyless = "zero"}} : {t}, {t}, {t} -> {t}
"""


def tensor(*extents: int) -> str:
    """The type of an array."""
    return f"tensor<{''.join(f'{n}x' for n in extents)}f32>"


def ints(*values: int) -> str:
    """An array attribute."""
    return f"array<i64: {', '.join(map(str, values))}>"


def slice_of(x: str, type_: str, starts: tuple[int, ...], steps: tuple[int, ...], to: str) -> str:
    """A slice."""
    return f"nn.slice {x} {{starts = {ints(*starts)}, steps = {ints(*steps)}}} : ({type_}) -> {to}"


def softmax(dim: int) -> list[str]:
    return [f"nn.softmax %a {{dim = {dim} : i64}} : ({T}) -> {T}"]


def binary(op: str, other: str, type_: str, *, turned: bool = False) -> list[str]:
    given = f"{other}, %a : ({type_}, {T})" if turned else f"%a, {other} : ({T}, {type_})"
    return [f"nn.{op} {given} -> {T}"]


def reshaped(x: str, old: str, new: str) -> str:
    return f"nn.reshape {x} : ({old}) -> {new}"


def contraction(equation: str, operands: str, types: str, result: str = T) -> list[str]:
    return [f'einsum.contract "{equation}" {operands} : ({types}) -> {result}']


def picked(starts: tuple[int, int, int], to: tuple[int, ...], flat: tuple[int, ...]) -> list[str]:
    """A slice and its reshape."""
    return [
        slice_of("%a", T, starts, (1, 1, 1), tensor(*to)),
        reshaped("%0", tensor(*to), tensor(*flat)),
    ]


def transposed(x: str, axes: tuple[int, ...], old: str, new: str) -> str:
    return f"nn.transpose {x} {{permutation = {ints(*axes)}}} : ({old}) -> {new}"


def turned(axes: tuple[int, int, int]) -> list[str]:
    """A transpose, and the sum with what it was."""
    return [
        f"nn.transpose %a {{permutation = {ints(*axes)}}} : ({T}) -> {T}",
        f"nn.add %0, %a : ({T}, {T}) -> {T}",
    ]


def reduced(x: str, old: str, axis: int, new: str, kind: str = "max") -> str:
    return f'nn.reduce {x} {{kind = "{kind}", axes = {ints(axis)}}} : ({old}) -> {new}'


def over_its_size(type_: str, numbers: str, column: str) -> list[str]:
    """A stream over a root of its squares' sum along the width, which is clamped and repeated."""
    axis = type_.count("x") - 1
    return [
        f"nn.mul %a, %a : ({type_}, {type_}) -> {type_}",
        reduced("%0", type_, axis, numbers, "sum"),
        f'nn.map %1 {{function = "sqrt"}} : ({numbers}) -> {numbers}',
        reshaped("%2", numbers, column),
        f"nn.expand %3 : ({column}) -> {type_}",
        f"nn.div %a, %4 : ({type_}, {type_}) -> {type_}",
    ]


TAILS: dict[str, list[str]] = {
    "softmax over the width": softmax(2),
    "softmax over the last axis": softmax(-1),
    "softmax over tokens": softmax(1),
    "softmax over tokens, from behind": softmax(-2),
    "softmax over the batch": softmax(0),
    "times a stream": binary("mul", "%t", T),
    "minus a stream, turned": binary("sub", "%t", T, turned=True),
    "plus a matrix of tokens": binary("add", "%s", M),
    "plus a vector": binary("add", "%v", V),
    "minus a vector, turned": binary("sub", "%v", V, turned=True),
    "plus (1, S, W)": [reshaped("%s", M, tensor(1, N, N)), f"nn.add %a, %0 : ({T}, {tensor(1, N, N)}) -> {T}"],
    "plus (B, 1, W)": [reshaped("%s", M, tensor(N, 1, N)), f"nn.add %a, %0 : ({T}, {tensor(N, 1, N)}) -> {T}"],
    "plus (B, S, 1)": [reshaped("%s", M, tensor(N, N, 1)), f"nn.add %a, %0 : ({T}, {tensor(N, N, 1)}) -> {T}"],
    "plus (1, 1, W)": [reshaped("%v", V, tensor(1, 1, N)), f"nn.add %a, %0 : ({T}, {tensor(1, 1, N)}) -> {T}"],
    "plus (S, 1)": [reshaped("%v", V, tensor(N, 1)), f"nn.add %a, %0 : ({T}, {tensor(N, 1)}) -> {T}"],
    "plus (B, 1, 1)": [reshaped("%v", V, tensor(N, 1, 1)), f"nn.add %a, %0 : ({T}, {tensor(N, 1, 1)}) -> {T}"],
    "batch and tokens turned": turned((1, 0, 2)),
    "tokens and width turned": turned((0, 2, 1)),
    "all turned": turned((1, 2, 0)),
    "a column turned to a row": [
        reshaped("%a", T, tensor(N, N, N, 1)),
        transposed("%0", (0, 1, 3, 2), tensor(N, N, N, 1), tensor(N, N, 1, N)),
        reshaped("%1", tensor(N, N, 1, N), T),
    ],
    "a column turned to a row, for good": [
        reshaped("%a", T, tensor(N, N, N, 1)),
        transposed("%0", (0, 1, 3, 2), tensor(N, N, N, 1), tensor(N, N, 1, N)),
    ],
    "the first token": picked((0, 0, 0), (N, 1, N), (N, N)),
    "the last token": picked((0, 2, 0), (N, 1, N), (N, N)),
    "the first token, flat": picked((0, 0, 0), (N, 1, N), (N * N,)),
    "the first token, its width cut": picked((0, 1, 0), (N, 1, N), (N, N, 1)),
    "the second sequence": picked((1, 0, 0), (1, N, N), (N, N)),
    "the second channel": picked((0, 0, 1), (N, N, 1), (N, N)),
    "the first two tokens": picked((0, 0, 0), (N, 2, N), (N, 2 * N)),
    "one token of two sequences": picked((0, 1, 0), (2, 1, N), (2, N)),
    "two channels of a token": picked((0, 1, 1), (N, 1, 2), (N, 2)),
    "every other channel": [slice_of("%a", T, (0, 0, 0), (1, 1, 2), tensor(N, N, 2))],
    "every other token": [slice_of("%a", T, (0, 0, 0), (1, 2, 1), tensor(N, 2, N))],
    "every other sequence": [slice_of("%a", T, (0, 0, 0), (2, 1, 1), tensor(2, N, N))],
    "rows of all tokens": [reshaped("%a", T, tensor(N * N, N)), f"nn.gelu %0 {{approximate = \"none\"}} : ({tensor(N * N, N)}) -> {tensor(N * N, N)}"],
    "rows and back": [
        reshaped("%a", T, tensor(N * N, N)),
        f"nn.tanh %0 : ({tensor(N * N, N)}) -> {tensor(N * N, N)}",
        reshaped("%1", tensor(N * N, N), T),
    ],
    "cut otherwise and back": [
        reshaped("%a", T, tensor(N, N * N)),
        f"nn.softmax %0 {{dim = 1 : i64}} : ({tensor(N, N * N)}) -> {tensor(N, N * N)}",
        reshaped("%1", tensor(N, N * N), T),
    ],
    "over the width": contraction("abc,dc->abd", "%a, %s", f"{T}, {M}"),
    "over tokens": contraction("abc,db->adc", "%a, %s", f"{T}, {M}"),
    "over the batch": contraction("abc,da->dbc", "%a, %s", f"{T}, {M}"),
    "by token": contraction("abc,bc->abc", "%a, %s", f"{T}, {M}"),
    "by sequence": contraction("abc,ac->abc", "%a, %s", f"{T}, {M}"),
    "a sum over the width": contraction("abc,c->ab", "%a, %v", f"{T}, {V}", M),
    "similarities": contraction("abc,adc->abd", "%a, %a", f"{T}, {T}"),
    "similarities between sequences": contraction("abc,dbc->abd", "%a, %a", f"{T}, {T}"),
    "the mean": contraction("abc,b->ac", "%a, %v", f"{T}, {V}", M),
    "joined with itself": [f"nn.concat %a, %a {{dim = 2 : i64}} : ({T}, {T}) -> {tensor(N, N, 2 * N)}"],
    "tokens after tokens": [f"nn.concat %a, %t {{dim = 1 : i64}} : ({T}, {T}) -> {tensor(N, 2 * N, N)}"],
    "a norm": [f"nn.layer_norm %a, %v, %v {{eps = 1.0e-5 : f64}} : ({T}, {V}, {V}) -> {T}"],
    "embeddings of ids": [
        f"nn.embedding %s, %i : ({M}, {IDS}) -> {T}",
        f"nn.add %a, %0 : ({T}, {T}) -> {T}",
    ],
    "embeddings of positions": [
        f"nn.iota {{start = 0 : i64, step = 1 : i64}} : {V.replace('f32', 'i64')}",
        f"nn.embedding %s, %0 : ({M}, {V.replace('f32', 'i64')}) -> {M}",
        f"nn.add %a, %1 : ({T}, {M}) -> {T}",
    ],
    "over its size": over_its_size(T, M, tensor(N, N, 1)),
    "a number a token": [reduced("%a", T, 2, M)],
    "a number a sequence and channel": [reduced("%a", T, 1, M)],
    "a number a position and channel": [reduced("%a", T, 0, M)],
    "numbers along the width": [reduced("%a", T, 2, M), f"nn.add %a, %0 : ({T}, {M}) -> {T}"],
    "numbers of tokens and a matrix": [reduced("%a", T, 2, M), f"nn.add %0, %s : ({M}, {M}) -> {M}"],
    "numbers of tokens and a vector": [reduced("%a", T, 2, M), f"nn.mul %v, %0 : ({V}, {M}) -> {M}"],
    "numbers of tokens turned": [
        reduced("%a", T, 2, M),
        transposed("%0", (1, 0), M, M),
        f"nn.sub %1, %s : ({M}, {M}) -> {M}",
    ],
    "numbers of tokens and themselves turned": [
        reduced("%a", T, 2, M),
        transposed("%0", (1, 0), M, M),
        f"nn.sub %1, %0 : ({M}, {M}) -> {M}",
    ],
    "numbers of tokens as columns": [
        reduced("%a", T, 2, M),
        reshaped("%0", M, tensor(N, 1, N)),
        f"nn.add %a, %1 : ({T}, {tensor(N, 1, N)}) -> {T}",
    ],
    "a softmax of numbers": [reduced("%a", T, 2, M), f"nn.softmax %0 {{dim = 1 : i64}} : ({M}) -> {M}"],
    "tokens first over their size": [
        transposed("%a", (1, 0, 2), T, T),
        reduced("%0", T, 2, M, "sum"),
        reshaped("%1", M, tensor(N, N, 1)),
        f"nn.div %0, %2 : ({T}, {tensor(N, N, 1)}) -> {T}",
    ],
    "rows of all tokens, less their greatest": [
        reshaped("%a", T, tensor(N * N, N)),
        reduced("%0", tensor(N * N, N), 1, tensor(N * N)),
        reshaped("%1", tensor(N * N), tensor(N * N, 1)),
        f"nn.sub %0, %2 : ({tensor(N * N, N)}, {tensor(N * N, 1)}) -> {tensor(N * N, N)}",
    ],
    "where the greatest is": [
        f"nn.argmax %a {{axis = 2 : i64}} : ({T}) -> {IDS}",
        f"nn.add %0, %one : ({IDS}, tensor<i64>) -> {IDS}",
    ],
    "where the greatest token is": [
        f"nn.argmax %a {{axis = 1 : i64}} : ({T}) -> {IDS}",
        f"nn.add %0, %one : ({IDS}, tensor<i64>) -> {IDS}",
    ],
    "a second attention": [
        f"attn.sdpa %a, %x, %t masks %keys : tensor<{N}x1x1x{N}xi1> {{heads = 3 : i64, scale = 1.0 : f64, "
        f'fills = [-1.0e9 : f64], keyless = "nan"}} : {T}, {T}, {T} -> {T}',
    ],
}  # fmt: skip


def function_of(tail: list[str], b: int = N, s: int = N) -> FuncOp:
    """The stream (b, s, N) and what is done with it."""
    lines = [f"  %{number} = {line}" for number, line in enumerate(tail)]
    result = tail[-1].rpartition("-> ")[2]
    text = head(b, s, result) + "\n".join(lines)
    text += f"\n  func.return %{len(tail) - 1} : {result}\n}}"
    module = Parser(make_context(), text).parse_module()
    module.verify()
    (function,) = module.ops
    assert isinstance(function, FuncOp)
    return function


def outputs(function: FuncOp, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The interpreted output."""
    module = function.parent_op()
    assert module is not None
    module.verify()
    with np.errstate(all="ignore"):
        return execute(module, inputs, WeightStore({}))["y"]  # pyright: ignore[reportArgumentType]


def is_zero(function: FuncOp) -> bool:
    """Whether the output is 0 at masked positions."""
    attributes = function.res_attrs
    assert attributes is not None
    (given,) = attributes.data
    assert isinstance(given, DictionaryAttr)
    return given.data.get("heatc.padding") == StringAttr("zero")


ONE = tensor(1, N, N)
FIRST = tensor(N, 1, N)


def tanh(x: str, type_: str) -> str:
    return f"nn.tanh {x} : ({type_}) -> {type_}"


ONE_SEQUENCE: dict[str, list[str]] = {
    "rows": [reshaped("%a", ONE, M), tanh("%0", M)],
    "rows and back": [reshaped("%a", ONE, M), tanh("%0", M), reshaped("%1", M, ONE)],
    "tokens first": [transposed("%a", (1, 0, 2), ONE, FIRST), tanh("%0", FIRST)],
    "tokens first and back": [
        transposed("%a", (1, 0, 2), ONE, FIRST),
        tanh("%0", FIRST),
        transposed("%1", (1, 0, 2), FIRST, ONE),
    ],
    "tokens first by a reshape": [reshaped("%a", ONE, FIRST), tanh("%0", FIRST)],
    "channels first": [transposed("%a", (2, 0, 1), ONE, FIRST), tanh("%0", FIRST)],
    "channels for tokens": [transposed("%a", (0, 2, 1), ONE, ONE), tanh("%0", ONE)],
    "rows turned": [
        reshaped("%a", ONE, M),
        transposed("%0", (1, 0), M, M),
        f"nn.add %0, %1 : ({M}, {M}) -> {M}",
    ],
    "tokens first plus a stream": [
        transposed("%a", (1, 0, 2), ONE, FIRST),
        transposed("%t", (1, 0, 2), ONE, FIRST),
        f"nn.add %0, %1 : ({FIRST}, {FIRST}) -> {FIRST}",
    ],
    "plus a matrix": [f"nn.add %a, %s : ({ONE}, {M}) -> {ONE}"],
    "over the width": contraction("abc,dc->abd", "%a, %s", f"{ONE}, {M}", ONE),
    "the last token": [
        slice_of("%a", ONE, (0, 2, 0), (1, 1, 1), tensor(1, 1, N)),
        reshaped("%0", tensor(1, 1, N), tensor(1, N)),
    ],
    "the last token alone": [
        slice_of("%a", ONE, (0, 2, 0), (1, 1, 1), tensor(1, 1, N)),
        reshaped("%0", tensor(1, 1, N), V),
    ],
    "over its size": over_its_size(ONE, tensor(1, N), tensor(1, N, 1)),
    "numbers along the width": [
        reduced("%a", ONE, 2, tensor(1, N)),
        f"nn.add %a, %0 : ({ONE}, {tensor(1, N)}) -> {ONE}",
    ],
    "numbers of tokens and a vector": [
        reduced("%a", ONE, 2, tensor(1, N)),
        f"nn.mul %v, %0 : ({V}, {tensor(1, N)}) -> {tensor(1, N)}",
    ],
    "numbers as a vector": [
        reshaped("%a", ONE, M),
        reduced("%0", M, 1, V),
        f"nn.mul %v, %1 : ({V}, {V}) -> {V}",
    ],
    "numbers as a vector, along the width": [
        reshaped("%a", ONE, M),
        reduced("%0", M, 1, V),
        f"nn.mul %0, %1 : ({M}, {V}) -> {M}",
    ],
    "numbers as a column": [
        transposed("%a", (1, 0, 2), ONE, FIRST),
        reduced("%0", FIRST, 2, tensor(N, 1)),
        f"nn.add %0, %1 : ({FIRST}, {tensor(N, 1)}) -> {tensor(N, N, N)}",
    ],
}

ONE_TOKEN: dict[str, list[str]] = {
    "the token": [reshaped("%a", FIRST, M), tanh("%0", M)],
    "the token turned": [reshaped("%a", FIRST, M), transposed("%0", (1, 0), M, M), tanh("%1", M)],
    "the batch for tokens": [transposed("%a", (1, 0, 2), FIRST, ONE), tanh("%0", ONE)],
    "plus a matrix": [
        reshaped("%a", FIRST, M),
        f"nn.add %0, %s : ({M}, {M}) -> {M}",
        reshaped("%1", M, FIRST),
    ],
    "over the width": contraction("abc,dc->abd", "%a, %s", f"{FIRST}, {M}", FIRST),
    "over the batch": contraction("abc,da->dbc", "%a, %s", f"{FIRST}, {M}", FIRST),
    "over its size": over_its_size(FIRST, tensor(N, 1), tensor(N, 1, 1)),
    "a number a token": [reduced("%a", FIRST, 2, tensor(N, 1))],
    "numbers and the token": [
        reduced("%a", FIRST, 2, tensor(N, 1)),
        reshaped("%a", FIRST, M),
        f"nn.sub %1, %0 : ({M}, {tensor(N, 1)}) -> {M}",
    ],
    "the greatest of sequences": [reduced("%a", FIRST, 0, tensor(1, N))],
}


def compare(tail: list[str], padding: str, b: int = N, s: int = N) -> None:
    """Values before and after packing, for several masks."""
    packed = function_of(tail, b, s)
    pack_function(Context(), packed, padding)
    compare_functions(function_of(tail, b, s), packed, padding, b, s)


def compare_functions(
    function: FuncOp, packed: FuncOp, padding: str, b: int, s: int, axes: tuple[int, ...] = ()
) -> None:
    """Values of two functions, for several masks, whose shape is `axes` or (b, s)."""
    rng = np.random.default_rng(1)
    shapes = {"x": (b, s, N), "t": (b, s, N), "s": (N, N), "v": (N,)}
    inputs: dict[str, NDArray[Any]] = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    inputs["i"] = rng.integers(0, N, (b, s))
    for mask in MASKS:
        inputs["m"] = np.array(mask)[:b, -s:]
        # Every sequence has a token.
        inputs["m"][~inputs["m"].any(axis=1), -1] = 1
        real = inputs["m"]
        inputs["m"] = real.reshape(axes or real.shape)
        wanted, found = outputs(function, inputs), outputs(packed, inputs)
        if not is_zero(packed):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
            continue
        kept = found != 0
        np.testing.assert_allclose(found[kept], wanted[kept], atol=1e-5)
        # Positions of real tokens are kept: these at least, of two tokens at most.
        share = real.mean()
        assert kept.mean() >= share**2 - 1e-9
        assert padding == "skip"
        assert share == 1.0 or not kept.all()


@pytest.mark.parametrize("padding", ["skip", "compute"])
@pytest.mark.parametrize("tail", TAILS)
def test_values_are_the_models(tail: str, padding: str):
    compare(TAILS[tail], padding)


@pytest.mark.parametrize("padding", ["skip", "compute"])
@pytest.mark.parametrize("tail", ONE_SEQUENCE)
def test_values_of_one_sequence(tail: str, padding: str):
    compare(ONE_SEQUENCE[tail], padding, b=1)


@pytest.mark.parametrize("padding", ["skip", "compute"])
@pytest.mark.parametrize("tail", ONE_TOKEN)
def test_values_of_sequences_of_one_token(tail: str, padding: str):
    compare(ONE_TOKEN[tail], padding, s=1)


@pytest.mark.parametrize("padding", ["skip", "compute"])
@pytest.mark.parametrize("tail", ["the mean", "tokens after tokens", "times a stream"])
def test_values_where_the_mask_has_four_axes(tail: str, padding: str):
    """What is packed is the input, reshaped; also where masked positions get rows of their own."""
    flat, four = f"%m: {IDS}", f"%m: tensor<{N}x1x1x{N}xi64>"
    keys = [
        f"{IDS}, tensor<i64>) -> tensor<{N}x{N}xi1>",
        f"tensor<{N}x{N}xi1>) -> tensor<{N}x1x1x{N}xi1>",
    ]
    direct = [
        keys[0].replace(f"{N}x{N}", f"{N}x1x1x{N}"),
        keys[1].replace(f"<{N}x{N}", f"<{N}x1x1x{N}"),
    ]
    functions: list[FuncOp] = []
    for _ in range(2):
        text = str(function_of(TAILS[tail]).parent_op())
        for old, new in zip((flat, *keys), (four, *direct)):
            assert old in text
            text = text.replace(old, new)
        module = Parser(make_context(), text).parse_module()
        functions += [op for op in module.ops if isinstance(op, FuncOp)]
    function, packed = functions
    pack_function(Context(), packed, padding)
    compare_functions(function, packed, padding, N, N, (N, 1, 1, N))


@pytest.mark.parametrize("tail", ["softmax over the width", "softmax over the last axis", "a norm"])
def test_what_works_on_rows_works_on_packed_ones(tail: str):
    function = function_of(TAILS[tail])
    pack_function(Context(), function)
    ops = [op for op in function.walk() if isinstance(op, nn.SoftmaxOp | nn.LayerNormOp)]
    assert (nn.TOKENS, N) in [nn.shape_of(op.results[0]) for op in ops]


def test_a_sum_with_a_turned_input_works_on_packed_rows():
    function = function_of(ONE_SEQUENCE["tokens first plus a stream"], 1)
    pack_function(Context(), function)
    sums = [op for op in function.walk() if isinstance(op, nn.AddOp)]
    assert (nn.TOKENS, N) in [nn.shape_of(op.result) for op in sums]


def test_a_sum_with_a_flattened_input_works_on_packed_rows():
    flat = tensor(N * N, N)
    tail = [
        reshaped("%a", T, flat),
        reshaped("%t", T, flat),
        f"nn.add %0, %1 : ({flat}, {flat}) -> {flat}",
    ]
    function = function_of(tail)
    pack_function(Context(), function)
    sums = [op for op in function.walk() if isinstance(op, nn.AddOp)]
    assert (nn.TOKENS, N) in [nn.shape_of(op.result) for op in sums]


@pytest.mark.parametrize("n", [2, 3])
def test_sequences_and_tokens_that_are_one_axis(n: int):
    """A sum with its own transpose: nobody can tell which is which, so nothing is packed."""
    stream = tensor(n, n, N)
    tail = [
        transposed("%a", (1, 0, 2), stream, stream),
        f"nn.add %0, %a : ({stream}, {stream}) -> {stream}",
    ]
    compare(tail, "skip", n, n)
    function = function_of(tail, n, n)
    pack_function(Context(), function)
    assert not is_zero(function)
