"""The host's arithmetic on registers, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from heatc.errors import InfeasibleError
from heatc.fixed_point import Reals
from heatc.functions import FUNCTIONS
from heatc.isa import units
from heatc.isa.shapes import Shape
from heatc.isa.table import COMPARISONS, FUNCTION_COSTS, OPERATION_COSTS, ElementCost
from heatc.machine.execution import Execution, executes
from heatc.machine.host_registers import (
    apply,
    apply_to_codes,
    charge,
    put,
    row_vector,
    shape_of,
)
from heatc.machine.scoreboard import Rows
from heatc.machine.state import Trap, expect

Unary = Callable[[Reals], Reals]
Binary = Callable[[Reals, Reals], Reals]

HOST_PRODUCTS = 1 << 34
"""Most multiplications of a `hdot`, some seconds of this computer."""


def _gelu_tanh(x: Reals) -> Reals:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x * x * x)))


def _gelu_quick(x: Reals) -> Reals:
    return x * FUNCTIONS["sigmoid"].compute(1.702 * x)


_FUNCTIONS: Mapping[str, Unary] = MappingProxyType(
    {
        "gelu_tanh": _gelu_tanh,
        "gelu_quick": _gelu_quick,
        **{name: row.compute for name, row in FUNCTIONS.items()},
    }
)
assert _FUNCTIONS.keys() == FUNCTION_COSTS.keys()
_UNARY = tuple((name, _FUNCTIONS[name], cost) for name, cost in FUNCTION_COSTS.items())


@executes("hfun")
def take_function(run: Execution, h: int, function: int) -> None:
    name, compute, each = _UNARY[function]
    # A step of an adder is as fast as a table.
    if each.functions:
        apply_to_codes(run, h, name, compute, each)
    else:
        apply(run, h, compute, each)


def _turned(operation: Binary) -> Binary:
    return lambda x, y: operation(y, x)


def _comparison(name: str) -> Binary:
    compare = units.COMPARE[name]
    return lambda x, y: compare(x, y).astype(np.float64)


_OPERATIONS: Mapping[str, Binary] = MappingProxyType(
    {
        **{"add": np.add, "sub": np.subtract, "rsub": _turned(np.subtract), "mul": np.multiply},
        **{"div": np.divide, "rdiv": _turned(np.divide), "max": np.maximum, "min": np.minimum},
        **{"pow": np.power, "rpow": _turned(np.power)},
        **{"floor_div": np.floor_divide, "rfloor_div": _turned(np.floor_divide)},
        **{"remainder": np.remainder, "rremainder": _turned(np.remainder)},
        **{name: _comparison(name) for name in COMPARISONS},
    }
)
assert _OPERATIONS.keys() == OPERATION_COSTS.keys()
_BINARY = tuple((_OPERATIONS[name], cost) for name, cost in OPERATION_COSTS.items())


def _expect_repeatable(what: str, shape: Shape, other: Shape) -> None:
    if not all(a == b or 1 in (a, b) for a, b in zip(shape, other)):
        raise Trap(f"{what} is {other}, expected the rows and columns of {shape}, or 1")


@executes("hop")
def operate(run: Execution, h: int, g: int, operation: int) -> None:
    x, y = run.state.host_register(h), run.state.host_register(g)
    _expect_repeatable(f"h{g}", shape_of(x), shape_of(y))
    compute, each = _BINARY[operation]
    sizes = run.sizes({"h": shape_of(x), "g": shape_of(y)})
    charge(run, put(run, h, sizes, lambda: compute(x, y)), each=each)


@executes("hsel")
def select(run: Execution, h: int, g: int, f: int) -> None:
    x, y, z = (run.state.host_register(number) for number in (h, g, f))
    _expect_repeatable(f"h{g}", shape_of(x), shape_of(y))
    _expect_repeatable(f"h{f}", shape_of(x), shape_of(z))
    _expect_repeatable(f"h{f}", shape_of(y), shape_of(z))
    sizes = run.sizes({"h": shape_of(x), "g": shape_of(y), "f": shape_of(z)})
    charge(run, put(run, h, sizes, lambda: np.where(x != 0.0, y, z)))


@executes("hrms")
def rms_norm(run: Execution, h: int, gamma: int, eps: float) -> None:
    x = run.state.host_register(h)
    scale, tensor = row_vector(run, gamma, x.shape[1]), run.state.tensor(gamma)
    put(run, h, run.sizes({"h": shape_of(x)}), lambda: _scaled(x, scale, eps))
    charge(run, x.size, nbytes=tensor.data.nbytes, reads=[Rows(tensor)])


def _scaled(x: Reals, scale: Reals, eps: float) -> Reals:
    if not x.size:
        return x
    root = np.sqrt((x * x).mean(axis=1, keepdims=True) + eps)
    result = x / root
    result *= scale
    return result


@executes("hsoft")
def softmax(run: Execution, h: int) -> None:
    expect(run.state.host_register(h).shape[1] > 0, f"h{h} has no columns")
    apply(run, h, _softmax)


def _softmax(x: Reals) -> Reals:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


@executes("hrope")
def rotate(run: Execution, h: int, g: int, f: int, heads: int) -> None:
    x, cosines, sines = (run.state.host_register(number) for number in (h, g, f))
    rows, columns = shape_of(x)
    even = heads > 0 and columns % (2 * heads) == 0
    expect(even, f"{heads} heads do not divide {columns} columns of h{h} into an even number")
    expected = (rows, columns // heads)
    if shape_of(cosines) not in (expected, (1, expected[1])):
        raise Trap(f"h{g} is {shape_of(cosines)}, expected {expected} or one row")
    sizes = run.sizes({"h": shape_of(x), "g": shape_of(cosines), "f": shape_of(sines)})
    put(run, h, sizes, lambda: _rotated(x, cosines, sines, heads))
    charge(run, x.size)


def _rotated(x: Reals, cosines: Reals, sines: Reals, heads: int) -> Reals:
    apart = x.reshape(x.shape[0], heads, x.shape[1] // heads)
    half = apart.shape[2] // 2
    turned = np.concatenate([-apart[:, :, half:], apart[:, :, :half]], axis=2)
    turned *= sines[:, None]
    turned += apart * cosines[:, None]
    return turned.reshape(x.shape)


@executes("hdot")
def multiply(run: Execution, h: int, g: int, transposed: int, batches: int) -> None:
    x, y = run.state.host_register(h), run.state.host_register(g)
    for number, rows in ((h, x.shape[0]), (g, y.shape[0])):
        divides = batches > 0 and rows % batches == 0
        expect(divides, f"{batches} batches do not divide {rows} rows of h{number}")
    sizes = run.sizes({"h": shape_of(x), "g": shape_of(y)})
    rows, columns = sizes.of("h")
    products, depth = rows * columns * x.shape[1], x.shape[1]
    if products > HOST_PRODUCTS:
        raise Trap(
            f"{products} products exceed a host instruction's {HOST_PRODUCTS}",
            "run the operation on fewer rows at a time",
            error=InfeasibleError,
        )
    before = x.size + y.size
    elements = put(run, h, sizes, lambda: _products(x, y, batches, transposed=bool(transposed)))
    charge(run, elements, each=ElementCost(2 * depth), registers=before + elements)


def _products(x: Reals, y: Reals, batches: int, *, transposed: bool) -> Reals:
    left = x.reshape(batches, x.shape[0] // batches, x.shape[1])
    right = y.reshape(batches, y.shape[0] // batches, y.shape[1])
    if transposed:
        right = right.swapaxes(1, 2)
    product = left @ right
    return product.reshape(x.shape[0], product.shape[2])
