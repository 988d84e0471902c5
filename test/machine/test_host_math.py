"""The host's arithmetic against NumPy and PyTorch's definitions, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from host_kit import HostKit, matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from heatc.errors import HeatcError, InfeasibleError
from heatc.isa.table import FUNCTION_COSTS, OPERATION_COSTS

Array = Any

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 6)


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "gelu_quick": lambda x: x / (1 + math.exp(-1.702 * x)),
    "abs": math.fabs,
    "neg": lambda x: -x,
    "sign": lambda x: (x > 0) - (x < 0),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "trunc": math.trunc,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: x**-0.5,
    "reciprocal": lambda x: 1 / x,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "erf": math.erf,
    "cos": math.cos,
    "sin": math.sin,
}
"""Each function of a float, by the math module."""

POSITIVE = ("log", "sqrt", "rsqrt", "reciprocal")

OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: y - x,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "rdiv": lambda x, y: y / x,
    "max": max,
    "min": min,
    "pow": lambda x, y: x**y,
    "rpow": lambda x, y: y**x,
    "floor_div": lambda x, y: x // y,
    "rfloor_div": lambda x, y: y // x,
    "remainder": lambda x, y: x % y,
    "rremainder": lambda x, y: y % x,
    "eq": lambda x, y: float(x == y),
    "ne": lambda x, y: float(x != y),
    "lt": lambda x, y: float(x < y),
    "le": lambda x, y: float(x <= y),
    "gt": lambda x, y: float(x > y),
    "ge": lambda x, y: float(x >= y),
}
"""Each operation of two floats, by Python."""


def test_every_function_and_operation_has_a_judge():
    assert FUNCTIONS.keys() == FUNCTION_COSTS.keys()
    assert OPERATIONS.keys() == OPERATION_COSTS.keys()


@pytest.mark.parametrize("function", FUNCTION_COSTS)
@given(SEEDS, SIDES, SIDES)
@settings(max_examples=5, deadline=None)
def test_functions(function: str, seed: int, rows: int, columns: int):
    x = matrix(seed, rows, columns)
    x = np.abs(x) + 0.1 if function in POSITIVE else x
    expected = [[FUNCTIONS[function](float(value)) for value in row] for row in x]
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hfun", h=0, function=function)
    assert_allclose(kit.register(0), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", ["exp", "silu", "abs"])
def test_functions_of_codes_are_those_of_their_values(function: str):
    """Codes that nobody changed take some functions from a table."""
    codes = np.arange(-3000, 3000, 7, dtype=np.int16)[None]
    kit = HostKit()
    kit.emit("hget", h=0, d=kit.kit.put(codes, "i16"), rows=1, point=9)
    kit.emit("hcopy", g=1, h=0)
    for h in (0, 1):
        kit.emit("hfun", h=h, function=function)
    expected = [[FUNCTIONS[function](float(code) / 512) for code in codes[0]]]
    assert_allclose(kit.register(0), expected, rtol=1e-12)
    assert_array_equal(kit.register(0), kit.register(1))


@pytest.mark.parametrize("operation", OPERATION_COSTS)
@given(SEEDS, SIDES, SIDES, st.tuples(*[st.booleans()] * 4))
@settings(max_examples=8, deadline=None)
def test_operations_repeat_sides_of_one(
    operation: str, seed: int, rows: int, columns: int, ones: tuple[bool, ...]
):
    sides = [1 if one else side for one, side in zip(ones, (rows, columns, rows, columns))]
    x, y = matrix(seed, sides[0], sides[1]), matrix(seed + 1, sides[2], sides[3])
    if "pow" in operation:
        x, y = np.abs(x) + 0.1, np.abs(y) + 0.1
    if operation in ("eq", "ne", "le", "ge"):
        x, y = np.rint(x), np.rint(y)
    wide = np.broadcast_arrays(x, y)
    expected = np.vectorize(OPERATIONS[operation], otypes=[np.float64])(*wide)
    kit = HostKit()
    kit.load(3, x)
    kit.load(1, y)
    kit.emit("hop", h=3, g=1, operation=operation)
    assert_allclose(kit.register(3), expected, rtol=1e-12, atol=1e-12)
    assert_array_equal(kit.register(1), y)


def test_operations_of_a_register_with_itself():
    kit = HostKit()
    kit.load(0, matrix(1, 3, 4))
    kit.emit("hop", h=0, g=0, operation="mul")
    assert_array_equal(kit.register(0), matrix(1, 3, 4) ** 2)


def test_numbers_that_hurt():
    """A NaN makes a maximum one, and compares with nothing; a quotient by 0 is infinite."""
    x = np.array([[math.nan, math.nan, 1.0, -1.0, math.inf, 0.0]])
    y = np.array([[1.0, math.nan, 0.0, 0.0, -math.inf, 0.0]])
    expected = {
        "max": [math.nan, math.nan, 1.0, 0.0, math.inf, 0.0],
        "eq": [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        "ne": [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        "div": [math.nan, math.nan, math.inf, -math.inf, math.nan, math.nan],
    }
    for operation, values in expected.items():
        kit = HostKit()
        kit.load(0, x)
        kit.load(1, y)
        kit.emit("hop", h=0, g=1, operation=operation)
        assert_array_equal(kit.register(0), [values])


@pytest.mark.parametrize(("x", "y"), [((2, 3), (3, 3)), ((2, 3), (2, 2)), ((4, 2), (2, 4))])
def test_operations_refuse_other_shapes(x: tuple[int, int], y: tuple[int, int]):
    kit = HostKit()
    kit.load(0, matrix(1, *x))
    kit.load(1, matrix(2, *y))
    kit.emit("hop", h=0, g=1, operation="add")
    with pytest.raises(HeatcError, match=r"h1 is \(., .\), expected the rows and columns of"):
        kit.register(0)


@given(SEEDS, SIDES, SIDES, st.tuples(*[st.booleans()] * 6))
@settings(max_examples=30, deadline=None)
def test_choices(seed: int, rows: int, columns: int, ones: tuple[bool, ...]):
    sides = [1 if one else side for one, side in zip(ones, (rows, columns) * 3)]
    arrays = [matrix(seed + i, *sides[2 * i : 2 * i + 2]) for i in range(3)]
    arrays[0] = np.where(np.abs(arrays[0]) < 1, 0.0, arrays[0])
    kit = HostKit()
    for number, array in enumerate(arrays):
        kit.load(number, array)
    kit.emit("hsel", h=0, g=1, f=2)
    c, a, b = np.broadcast_arrays(*arrays)
    expected = [[a[i, j] if c[i, j] else b[i, j] for j in range(c.shape[1])] for i in range(len(c))]
    assert_array_equal(kit.register(0), expected)


def test_choices_do_not_touch_what_is_not_chosen():
    """0 * inf is no part of a choice: a mask of infinities leaves what it does not hide."""
    kit = HostKit()
    kit.load(0, np.array([[1.0, 0.0]]))
    kit.load(1, np.array([[2.0, math.nan]]))
    kit.load(2, np.array([[-math.inf]]))
    kit.emit("hsel", h=0, g=1, f=2)
    assert_array_equal(kit.register(0), [[2.0, -math.inf]])


@given(SEEDS, SIDES, SIDES, st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_rms_norm(seed: int, rows: int, columns: int, eps: float):
    x, gamma = matrix(seed, rows, columns), matrix(seed + 1, 1, columns).astype(np.float32)
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hrms", h=0, gamma=kit.kit.put(gamma, "f32"), eps=eps + 1e-9)
    expected = [
        [
            v * float(g) / math.sqrt(sum(u * u for u in row) / columns + eps + 1e-9)
            for v, g in zip(row, gamma[0])
        ]
        for row in x.tolist()
    ]
    assert_allclose(kit.register(0), expected, rtol=1e-12, atol=1e-15)


@given(SEEDS, SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_softmax(seed: int, rows: int, columns: int):
    x = 100 * matrix(seed, rows, columns)
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hsoft", h=0)
    found = kit.register(0)
    for row, got in zip(x.tolist(), found.tolist()):
        powers = [math.exp(v - max(row)) for v in row]
        assert_allclose(got, [p / sum(powers) for p in powers], rtol=1e-12)


def test_softmax_of_masked_rows():
    """-inf has no weight; a row of nothing else is a NaN, which has no code."""
    kit = HostKit()
    kit.load(0, np.array([[0.0, -math.inf, 0.0]]))
    kit.emit("hsoft", h=0)
    assert_array_equal(kit.register(0), [[0.5, 0.0, 0.5]])
    kit.load(1, np.full((1, 3), -math.inf))
    kit.emit("hsoft", h=1)
    for dtype in ("i16", "f32"):
        other = kit.copy()
        other.emit("hput", d=other.kit.tensor((1, 3), dtype), h=1, point=3)
        with pytest.raises(HeatcError, match="h1 holds a NaN, which has no code"):
            other.run()


@given(SEEDS, SIDES, st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_rotation(seed: int, rows: int, heads: int, half: int, one_row: bool):
    x, width = matrix(seed, rows, 2 * half * heads), 2 * half
    cosines, sines = (matrix(seed + i, 1 if one_row else rows, width) for i in (1, 2))
    kit = HostKit()
    for number, array in enumerate((x, cosines, sines)):
        kit.load(number, array)
    kit.emit("hrope", h=0, g=1, f=2, heads=heads)
    expected = np.zeros_like(x)
    for i in range(rows):
        r = 0 if one_row else i
        for head in range(heads):
            for j in range(width):
                at, sign = head * width, -1 if j < half else 1
                turned = sign * x[i, at + (j + half) % width]
                expected[i, at + j] = x[i, at + j] * cosines[r, j] + turned * sines[r, j]
    assert_allclose(kit.register(0), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        *((n, f"{n} heads do not divide 12 columns of h0 into an even number") for n in (0, 4, 5)),
        (2, r"h1 is \(2, 4\), expected \(2, 6\) or one row"),
    ],
)
def test_rotation_refuses(heads: int, message: str):
    kit = HostKit()
    for number in range(3):
        kit.load(number, matrix(1, 2, 4 if number else 12))
    kit.emit("hrope", h=0, g=1, f=2, heads=heads)
    with pytest.raises(HeatcError, match=message):
        kit.register(0)


def test_rotation_needs_sines_like_cosines():
    kit = HostKit()
    for number, shape in enumerate([(2, 8), (2, 4), (1, 4)]):
        kit.load(number, matrix(1, *shape))
    kit.emit("hrope", h=0, g=1, f=2, heads=2)
    with pytest.raises(HeatcError, match=r"shape of h2 is \(1, 4\), expected \(2, 4\)"):
        kit.register(0)


@given(SEEDS, *[st.integers(1, 4)] * 4, st.booleans())
@settings(max_examples=30, deadline=None)
def test_products(seed: int, batches: int, m: int, k: int, n: int, transposed: bool):
    x = matrix(seed, batches * m, k)
    y = matrix(seed + 1, batches * n, k) if transposed else matrix(seed + 1, batches * k, n)
    kit = HostKit()
    kit.load(0, x)
    kit.load(1, y)
    kit.emit("hdot", h=0, g=1, transposed=transposed, batches=batches)
    expected = np.zeros((batches * m, n))
    for b in range(batches):
        for i in range(m):
            for j in range(n):
                other = y[b * n + j] if transposed else y[b * k : (b + 1) * k, j]
                expected[b * m + i, j] = math.fsum(x[b * m + i] * other)
    assert_allclose(kit.register(0), expected, rtol=1e-10, atol=1e-12)


def test_products_of_nothing_are_zeros():
    kit = HostKit()
    kit.emit("hnum", h=0, rows=2, columns=0, value=1.0)
    kit.emit("hnum", h=1, rows=0, columns=3, value=1.0)
    kit.emit("hdot", h=0, g=1, transposed=0, batches=1)
    assert_array_equal(kit.register(0), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("x", "y", "batches", "transposed", "message"),
    [
        ((4, 2), (4, 2), 0, 0, "0 batches do not divide 4 rows of h0"),
        ((4, 2), (4, 2), 3, 0, "3 batches do not divide 4 rows of h0"),
        ((4, 2), (3, 2), 2, 1, "2 batches do not divide 3 rows of h1"),
        ((4, 2), (4, 2), 1, 0, r"shape of h1 is \(4, 2\), expected \(2, 2\)"),
        ((4, 2), (4, 3), 1, 1, r"shape of h1 is \(4, 3\), expected \(4, 2\)"),
    ],
)
def test_products_refuse(
    x: tuple[int, int], y: tuple[int, int], batches: int, transposed: int, message: str
):
    kit = HostKit()
    kit.load(0, matrix(1, *x))
    kit.load(1, matrix(2, *y))
    kit.emit("hdot", h=0, g=1, transposed=transposed, batches=batches)
    with pytest.raises(HeatcError, match=message):
        kit.register(0)


def test_work_beyond_reason_is_refused_before_it_is_done():
    kit = HostKit()
    kit.kit.size = 1 << 28
    for h in (0, 1):
        kit.emit("hnum", h=h, rows=8192, columns=8192, value=0.0)
    kit.emit("hdot", h=0, g=1, transposed=0, batches=1)
    with pytest.raises(InfeasibleError, match="549755813888 products exceed"):
        kit.run()
