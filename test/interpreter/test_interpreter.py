"""The interpreter's ops against NumPy written out, and what it says about bad inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects.builtin import TensorType, f32
from xdsl.parser import Parser
from xdsl.utils.exceptions import InterpretationError

from heatc.api import make_context
from heatc.dialects.einsum import WeightOp
from heatc.dialects.fixed import QType
from heatc.errors import HeatcError
from heatc.interpreter import execute, make_interpreter
from heatc.interpreter.einsum import weight_array
from heatc.interpreter.values import Packing
from heatc.weights import WeightStore

PACKING = "!attn.packing<2, 3>"
MASK = np.array([[0, 1, 1], [1, 0, 1]])


def run(line: str, *args: Any, arguments: str, result: str, values: int = 1) -> Any:
    """The result of one op: `line` defines %r."""
    names = ", ".join(f"%{i}" for i in range(values)) if values > 1 else "%r"
    text = (
        f"func.func @main({arguments}) -> ({result}) {{\n{line}\nfunc.return {names} : {result}\n}}"
    )
    module = Parser(make_context(), text).parse_module()
    module.verify()
    results = make_interpreter(module, WeightStore({})).call_op("main", args)
    return results[0] if values == 1 else results


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
def test_sums_of_a_host_task_are_in_float64(op: str):
    """A host rounds once, when it stores."""
    found = run(
        f"%r = nn.{op} %x, %y : (tensor<1x1xf32>, tensor<1x1xf32>) -> tensor<1x1xf64>",
        np.array([[0.1]], np.float32),
        np.array([[0.7]], np.float32),
        arguments="%x: tensor<1x1xf32>, %y: tensor<1x1xf32>",
        result="tensor<1x1xf64>",
    )
    x, y = float(np.float32(0.1)), float(np.float32(0.7))
    exact = {"add": x + y, "sub": x - y, "mul": x * y, "div": x / y}[op]
    assert found.tolist() == [[exact]]


def test_tanh_of_a_host_task_is_in_float64():
    x = np.linspace(-3, 3, 64, dtype=np.float32).reshape(1, 64)
    found = run(
        "%r = nn.tanh %x : (tensor<1x64xf32>) -> tensor<1x64xf64>",
        x,
        arguments="%x: tensor<1x64xf32>",
        result="tensor<1x64xf64>",
    )
    assert np.abs(found[0] - [math.tanh(v) for v in x[0].tolist()]).max() < 1e-15


def test_packing_lists_real_tokens():
    packing = Packing.of(MASK != 0)
    assert packing.rows.tolist() == [1, 2, 3, 5]
    assert packing.starts.tolist() == [0, 2]
    assert packing.lengths.tolist() == [2, 2]
    assert packing.sequences() == [slice(0, 2), slice(2, 4)]


def test_pack_and_unpack():
    x = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2)
    packing = Packing.of(MASK != 0)
    rows = run(
        f"%r = attn.pack %x, %p : (tensor<2x3x2xf32>, {PACKING}) -> tensor<?x2xf32>",
        x,
        packing,
        arguments=f"%x: tensor<2x3x2xf32>, %p: {PACKING}",
        result="tensor<?x2xf32>",
    )
    assert rows.tolist() == [x[0, 1].tolist(), x[0, 2].tolist(), x[1, 0].tolist(), x[1, 2].tolist()]
    back = run(
        f"%r = attn.unpack %x, %p : (tensor<?x2xf32>, {PACKING}) -> tensor<2x3x2xf32>",
        rows,
        packing,
        arguments=f"%x: tensor<?x2xf32>, %p: {PACKING}",
        result="tensor<2x3x2xf32>",
    )
    assert np.array_equal(back, x * MASK[:, :, None])


@pytest.mark.parametrize("position", [0, 1, 2])
def test_token_counts_padded_positions(position: int):
    x = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2) + 1
    found = run(
        f"%r = attn.token %x, %p {{position = {position} : i64}} : (tensor<?x2xf32>, {PACKING}) -> tensor<2x2xf32>",
        x[MASK != 0],
        Packing.of(MASK != 0),
        arguments=f"%x: tensor<?x2xf32>, %p: {PACKING}",
        result="tensor<2x2xf32>",
    )
    assert np.array_equal(found, (x * MASK[:, :, None])[:, position])


@pytest.mark.parametrize("form", ["packed", "padded"])
def test_attention_of_heads(form: str):
    """Head by head, token by token, in loops."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    v = rng.normal(size=(2, 3, 6)).astype(np.float32)
    expected = np.zeros((2, 3, 6))
    for b, h in np.ndindex(2, 2):
        real = np.flatnonzero(MASK[b])
        for i in real if form == "packed" else range(3):
            scores = [0.7 * q[b, i, 2 * h : 2 * h + 2] @ k[b, j, 2 * h : 2 * h + 2] for j in real]
            weights = np.exp(scores) / np.exp(scores).sum()
            for weight, j in zip(weights, real):
                expected[b, i, 3 * h : 3 * h + 3] += weight * v[b, j, 3 * h : 3 * h + 3]
    attributes = "heads = 2 : i64, scale = 0.7 : f64"
    if form == "padded":
        x, y = "tensor<2x3x4xf32>", "tensor<2x3x6xf32>"
        found = run(
            f"%r = attn.sdpa %q, %k, %v masks %m : tensor<2x1x1x3xi1> {{{attributes}, "
            'fills = [0xFFF0000000000000 : f64], keyless = "zero"} '
            f": {x}, {x}, {y} -> {y}",
            *(q, k, v, MASK[:, None, None] != 0),
            arguments=f"%q: {x}, %k: {x}, %v: {y}, %m: tensor<2x1x1x3xi1>",
            result=y,
        )
    else:
        x, y = "tensor<?x4xf32>", "tensor<?x6xf32>"
        rows = run(
            f"%r = attn.sdpa %q, %k, %v packed %m : {PACKING} {{{attributes}}} : {x}, {x}, {y} -> {y}",
            *(a[MASK != 0] for a in (q, k, v)),
            Packing.of(MASK != 0),
            arguments=f"%q: {x}, %k: {x}, %v: {y}, %m: {PACKING}",
            result=y,
        )
        found = np.zeros((2, 3, 6))
        found[MASK != 0] = rows
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_layer_norm_and_linear():
    rng = np.random.default_rng(1)
    x, g, b = rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5)
    x, g, b = (a.astype(np.float32) for a in (x, g, b))
    found = run(
        "%r = nn.layer_norm %x, %g, %b {eps = 0.5 : f64} : (tensor<3x5xf32>, tensor<5xf32>, tensor<5xf32>) -> tensor<3x5xf32>",
        *(x, g, b),
        arguments="%x: tensor<3x5xf32>, %g: tensor<5xf32>, %b: tensor<5xf32>",
        result="tensor<3x5xf32>",
    )
    expected = [(r - r.mean()) / np.sqrt(r.var() + 0.5) * g + b for r in x]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sums_of_codes_round_once():
    """Operands are read as exact values, the sum is rounded half to even into the result."""
    q8, q4 = "tensor<4x!fixed.q<16, 3>>", "tensor<4x!fixed.q<16, 1>>"
    found = run(
        f"%r = nn.add %a, %b : ({q8}, {q8}) -> {q4}",
        np.array([1, 3, 5, 32767]),
        np.array([1, 3, 1, 32767]),
        arguments=f"%a: {q8}, %b: {q8}",
        result=q4,
    )
    # 2 / 8, 6 / 8, 6 / 8, 65534 / 8 in halves: 0.5, 1.5, 1.5, 16383.5
    assert found.tolist() == [0, 2, 2, 16384]


def test_contraction_of_codes_is_exact():
    x, w, y = "tensor<1x3x!fixed.q<16, 4>>", "tensor<2x3x!fixed.q<16, 5>>", "!fixed.q<48, 9>"
    a, b = np.full((1, 3), -32768), np.array([[-32768] * 3, [32767] * 3])
    line = f'%r = einsum.contract "ti,oi->to" %x, %w : ({x}, {w}) -> tensor<1x2x{y}>'
    keywords: dict[str, Any] = {"arguments": f"%x: {x}, %w: {w}", "result": f"tensor<1x2x{y}>"}
    assert run(line, a, b, **keywords).tolist() == [[3 << 30, -3 * 32768 * 32767]]
    other: dict[str, Any] = {
        "arguments": f"%x: {x}, %w: {w}",
        "result": "tensor<1x2x!fixed.q<48, 8>>",
    }
    with pytest.raises(InterpretationError, match="result point 9"):
        run(line.replace("<48, 9>", "<48, 8>"), a, b, **other)


def test_softmax_of_a_row_without_scores():
    """PyTorch gives NaN for softmax, and zeros for its fused attention; so does the interpreter."""
    x = np.array([[0.0, 0.0], [-np.inf, -np.inf]], np.float32)
    with np.errstate(invalid="ignore"):
        found = run(
            "%r = nn.softmax %x {dim = -1 : i64} : (tensor<2x2xf32>) -> tensor<2x2xf32>",
            x,
            arguments="%x: tensor<2x2xf32>",
            result="tensor<2x2xf32>",
        )
    assert np.isnan(found[1]).all()
    assert found[0].tolist() == [0.5, 0.5]


@pytest.mark.torch
@pytest.mark.parametrize("mask", ["none", "bool", "add", "causal"])
def test_fused_attention_is_torchs(mask: str):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 3, 4).unbind(0)
    keep = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    masks = {"bool": keep, "add": torch.where(keep, 0.5, -torch.inf)}
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=masks.get(mask), is_causal=mask == "causal", scale=0.3
    )
    x, element = "tensor<1x2x3x4xf32>", {"bool": "i1", "add": "f32"}.get(mask)
    operands = [a.numpy() for a in (q, k, v)]
    arguments, types, name = f"%q: {x}, %k: {x}, %v: {x}", f"{x}, {x}, {x}", ""
    if element:
        operands.append(masks[mask].numpy())
        arguments += f", %m: tensor<3x3x{element}>"
        types += f", tensor<3x3x{element}>"
        name = ", %m"
    causal = "true" if mask == "causal" else "false"
    found = run(
        f"%r = nn.sdpa %q, %k, %v{name} {{scale = 0.3 : f64, is_causal = {causal}}} : ({types}) -> {x}",
        *operands,
        arguments=arguments,
        result=x,
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.torch
def test_fused_attention_without_heads_hides_keys_behind_each_query():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 6)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)
    types = [f"tensor<{a}xf32>" for a in ("2x3x4", "2x5x4", "2x5x6", "2x3x6")]
    found = run(
        "%r = nn.sdpa %q, %k, %v {scale = 0.3 : f64, is_causal = true} "
        f": ({', '.join(types[:3])}) -> {types[3]}",
        *(a.numpy() for a in (q, k, v)),
        arguments=f"%q: {types[0]}, %k: {types[1]}, %v: {types[2]}",
        result=types[3],
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def weights() -> WeightStore:
    arrays: dict[str, NDArray[Any]] = {
        "a": np.arange(6.0, dtype=np.float32).reshape(2, 3),
        "b": -np.arange(3.0, dtype=np.float32).reshape(1, 3),
        "d": np.arange(2.0, dtype=np.float32),
    }
    return WeightStore(arrays)


def test_weights():
    joined = WeightOp(["a", "b"], TensorType(f32, (3, 3)), [1, 0])
    expected = np.concatenate([weights()["a"], weights()["b"]]).T
    assert np.array_equal(weight_array(joined, weights()), expected)
    codes = WeightOp("a", TensorType(QType(8, 1), (2, 3)))
    assert weight_array(codes, weights()).tolist() == [[0, 2, 4], [6, 8, 10]]
    saturated = WeightOp("a", TensorType(QType(8, 5), (2, 3)))
    assert weight_array(saturated, weights()).tolist() == [[0, 32, 64], [96, 127, 127]]


def test_weights_that_do_not_fit():
    with pytest.raises(HeatcError, match=r"has shape \(2, 3\), the IR says \(3, 2\)"):
        weight_array(WeightOp("a", TensorType(f32, (3, 2))), weights())
    with pytest.raises(HeatcError, match=r"has shape \(2, 3\), the IR says \(2,\)"):
        weight_array(WeightOp("a", TensorType(f32, (2,)), [0]), weights())
    with pytest.raises(HeatcError, match=r"weight a, d has shape \(2, 3\) and \(2,\), the IR says"):
        weight_array(WeightOp(["a", "d"], TensorType(f32, (4, 3))), weights())
    with pytest.raises(HeatcError, match="no weight named 'c'"):
        weight_array(WeightOp("c", TensorType(f32, (3, 2))), weights())


MAIN = """
func.func @main(%x: tensor<2xf32> {heatc.name = "ids"}, %y: tensor<2xf32>) -> (tensor<2xf32> {heatc.name = "sum"}, tensor<2xf32>) {
  %r = nn.add %x, %y : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  func.return %r, %y : tensor<2xf32>, tensor<2xf32>
}
"""


def test_inputs_and_outputs_by_name():
    module = Parser(make_context(), MAIN).parse_module()
    one = np.ones(2, np.float32)
    found = execute(module, {"ids": one, "input_1": 2 * one}, WeightStore({}))
    assert {name: value.tolist() for name, value in found.items()} == {
        "sum": [3, 3],
        "output_1": [2, 2],
    }
    with pytest.raises(HeatcError, match="input 'ids' is missing"):
        execute(module, {"x": one}, WeightStore({}))
    with pytest.raises(HeatcError, match=r"input 'ids' has shape \(3,\), expected \(2,\)"):
        execute(module, {"ids": np.ones(3), "input_1": one}, WeightStore({}))
    with pytest.raises(HeatcError, match="no function 'main'"):
        execute(Parser(make_context(), "builtin.module {}").parse_module(), {}, WeightStore({}))


@pytest.mark.parametrize("ids", [[0, 3], [-1, 0]])
def test_ids_that_a_table_lacks(ids: list[int]):
    with pytest.raises(HeatcError, match=f"ids from {ids[0]} to {ids[1]} index a table of 3 rows"):
        run(
            "%r = nn.embedding %t, %i : (tensor<3x2xf32>, tensor<2xi64>) -> tensor<2x2xf32>",
            np.zeros((3, 2), np.float32),
            np.array(ids),
            arguments="%t: tensor<3x2xf32>, %i: tensor<2xi64>",
            result="tensor<2x2xf32>",
        )


@pytest.mark.parametrize("indices", [[0, 3], [-4, 0]])
def test_indices_that_an_axis_lacks(indices: list[int]):
    match = f"indices from {indices[0]} to {indices[1]} on an axis of 3"
    with pytest.raises(HeatcError, match=match):
        run(
            "%r = nn.index %t, %i : (tensor<3x2xf32>, tensor<2xi64>) -> tensor<2x2xf32>",
            np.zeros((3, 2), np.float32),
            np.array(indices),
            arguments="%t: tensor<3x2xf32>, %i: tensor<2xi64>",
            result="tensor<2x2xf32>",
        )
