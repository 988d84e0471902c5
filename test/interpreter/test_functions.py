"""Functions of elements, reductions and RMS norm: interpreter and NumPy program against PyTorch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.numpy.emit import emit_program
from heatc.functions import FUNCTIONS
from heatc.interpreter import execute
from heatc.weights import WeightStore

RNG = np.random.default_rng(5)
SIGNED = RNG.normal(size=(3, 5)).astype(np.float32) * 4
POSITIVE = np.abs(SIGNED) + np.float32(0.1)
INTEGERS = RNG.integers(-9, 9, (3, 5))
POSITIVE_ONLY = ("log", "sqrt", "rsqrt")
TYPES = {"float32": "f32", "int64": "i64", "bool": "i1"}


def _type(array: np.ndarray[Any, Any]) -> str:
    shape = "".join(f"{n}x" for n in array.shape)
    return f"tensor<{shape}{TYPES[str(array.dtype)]}>"


def both(op: str, arrays: list[Any], want: Any, folder: Path, tolerance: float = 2e-6) -> None:
    """What one op gives by the interpreter and by a NumPy program is what PyTorch gives."""
    names = [f"x{i}" for i in range(len(arrays))]
    arguments = ", ".join(f'%{n}: {_type(a)} {{heatc.name = "{n}"}}' for n, a in zip(names, arrays))
    result = _type(np.asarray(want))
    operands = ", ".join(f"%{n}" for n in names)
    types = ", ".join(map(_type, arrays))
    name, _, rest = op.partition(" ")
    text = (
        f"func.func @main({arguments}) -> ({result}) {{\n"
        f"%r = {name} {operands} {rest} : ({types}) -> {result}\nfunc.return %r : {result}\n}}"
    )
    module = Parser(make_context(), text).parse_module()
    module.verify()
    inputs = dict(zip(names, arrays))
    found = [execute(module, inputs, WeightStore({}))["output_0"]]
    path = folder / "prog.py"
    emit_program(module, WeightStore({}), path)
    space: dict[str, Any] = {"__name__": "prog", "__file__": str(path)}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), space)
    found.append(space["main"](**inputs)["output_0"])
    for array in found:
        assert array.shape == np.asarray(want).shape
        assert array.dtype == np.asarray(want).dtype
        np.testing.assert_allclose(array, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_that_of_pytorch(name: str, tmp_path: Path):
    x = POSITIVE if name in POSITIVE_ONLY else SIGNED
    want = getattr(torch.ops.aten, name)(torch.from_numpy(x)).numpy()
    both(f'nn.map {{function = "{name}"}}', [x], want, tmp_path)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("ends", [(-3.0, 2.5), (0.5, 4.0), (-2.0, -0.25), (-1.4, -1.1), (0.0, 1.0)])
def test_reach_holds_every_value(name: str, ends: tuple[float, float]):
    low, high = ends
    x = np.linspace(low, high, 1001)
    with np.errstate(all="ignore"):
        values = FUNCTIONS[name].compute(x)
    values = values[np.isfinite(values)]
    least, most = FUNCTIONS[name].reach(low, high)
    assert least <= values.min(initial=math.inf) + 1e-12
    assert most >= values.max(initial=-math.inf) - 1e-12


@pytest.mark.parametrize("name", ["exp", "log", "silu", "sigmoid", "sqrt", "abs", "erf"])
def test_reach_of_everything_is_no_error(name: str):
    least, most = FUNCTIONS[name].reach(-math.inf, math.inf)
    assert least <= most


def test_quick_gelu(tmp_path: Path):
    x = torch.from_numpy(SIGNED)
    both(
        'nn.gelu {approximate = "quick"}',
        [SIGNED],
        (x * torch.sigmoid(1.702 * x)).numpy(),
        tmp_path,
    )


@pytest.mark.parametrize("name", ["maximum", "minimum", "floor_div", "remainder"])
@pytest.mark.parametrize("array", [SIGNED, INTEGERS], ids=["f32", "i64"])
def test_binary_is_that_of_pytorch(name: str, array: Any, tmp_path: Path):
    other = np.array([3, -2, 5, 1, -4]).astype(array.dtype)
    function = {"floor_div": torch.floor_divide}.get(name) or getattr(torch, name)
    want = function(torch.from_numpy(array), torch.from_numpy(other)).numpy()
    both(f"nn.{name}", [array, other], want, tmp_path)


def test_power(tmp_path: Path):
    both("nn.pow", [POSITIVE, SIGNED], POSITIVE.astype(np.float32) ** SIGNED, tmp_path, 1e-5)


@pytest.mark.parametrize("kind", ["sum", "mean", "max", "min", "prod"])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_reduction_is_that_of_pytorch(kind: str, axes: tuple[int, ...], tmp_path: Path):
    x = torch.from_numpy(SIGNED)
    functions = {"max": torch.amax, "min": torch.amin, "sum": torch.sum, "mean": torch.mean}
    if kind == "prod":
        want = x.prod() if len(axes) == 2 else x.prod(axes[0])
    else:
        want = functions[kind](x, dim=axes)
    listing = ", ".join(map(str, axes))
    op = f'nn.reduce {{kind = "{kind}", axes = array<i64: {listing}>}}'
    both(op, [SIGNED], want.numpy(), tmp_path, 1e-5)


@pytest.mark.parametrize("kind", ["any", "all"])
def test_reduction_of_truth_values(kind: str, tmp_path: Path):
    x = INTEGERS > -7
    op = f'nn.reduce {{kind = "{kind}", axes = array<i64: 1>}}'
    both(op, [x], getattr(torch, kind)(torch.from_numpy(x), dim=1).numpy(), tmp_path)


def test_sum_of_truth_values_counts(tmp_path: Path):
    x = INTEGERS > 0
    both('nn.reduce {kind = "sum", axes = array<i64: 1>}', [x], x.sum(axis=1), tmp_path)


def test_argmax_is_the_first_of_equals(tmp_path: Path):
    x = np.array([[1, 3, 3], [2, 2, 0]])
    both("nn.argmax {axis = 1 : i64}", [x], np.array([1, 0]), tmp_path)


@pytest.mark.parametrize("array", [SIGNED, INTEGERS], ids=["f32", "i64"])
def test_running_sum(array: Any, tmp_path: Path):
    want = torch.from_numpy(array).cumsum(1).numpy()
    both("nn.cumsum {axis = 1 : i64}", [array], want, tmp_path)


def test_rms_norm(tmp_path: Path):
    weight = RNG.normal(size=5).astype(np.float32)
    x, w = torch.from_numpy(SIGNED), torch.from_numpy(weight)
    want = torch.nn.functional.rms_norm(x, (5,), w, 1e-3).numpy()
    both("nn.rms_norm {eps = 1.0e-3 : f64}", [SIGNED, weight], want, tmp_path)
