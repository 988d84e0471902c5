"""The NumPy backend: emitted programs against the interpreter, and how they behave as programs."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser

from heatc.backends.numpy.emit import emit_program
from heatc.backends.numpy.weight_file import joined_name
from heatc.dialects.attn import ATTN
from heatc.dialects.einsum import EINSUM
from heatc.dialects.nn import NN
from heatc.errors import HeatcError
from heatc.interpreter import execute
from heatc.weights import WeightStore

Array = NDArray[Any]
_serial = itertools.count()
RNG = np.random.default_rng(0)


def parse(text: str) -> ModuleOp:
    """A module of the packed level."""
    context = Context()
    for dialect in (Builtin, Func, NN, ATTN, EINSUM):
        context.load_dialect(dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return module


def load(path: Path) -> ModuleType:
    """An emitted program as a module."""
    spec = importlib.util.spec_from_file_location(f"emitted_{next(_serial)}", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def build(text: str, weights: Mapping[str, Array], folder: Path) -> ModuleType:
    """Emit and load the program of a module."""
    path = folder / f"prog{next(_serial)}.py"
    emit_program(parse(text), WeightStore(weights), path)
    return load(path)


def check(
    text: str,
    inputs: Mapping[str, Array],
    weights: Mapping[str, Array],
    folder: Path,
    tolerance: float = 1e-5,
) -> str:
    """Compare a program with the interpreter; returns its text."""
    program = build(text, weights, folder)
    expected = execute(parse(text), inputs, WeightStore(weights))
    for _ in range(2):  # buffers are used again
        got = program.main(**inputs)
        assert list(got) == list(expected)
        for name, array in expected.items():
            assert got[name].dtype == array.dtype
            np.testing.assert_allclose(got[name], array, rtol=tolerance, atol=tolerance)
    assert program.__file__ is not None
    return Path(program.__file__).read_text()


def floats(*shape: int) -> Array:
    """Random float32 numbers."""
    return RNG.standard_normal(shape).astype(np.float32)


def one(body: str, argument: str, result: str, name: str = "x") -> str:
    """A module of one function with one input and one output `y`."""
    return (
        f'func.func @main(%x: {argument} {{heatc.name = "{name}"}})'
        f' -> ({result} {{heatc.name = "y"}}) {{\n{body}\n  func.return %y : {result}\n}}'
    )


F = "tensor<2x6xf32>"
UNARY = {
    "tanh": f"%y = nn.tanh %x : ({F}) -> {F}",
    "relu": f"%y = nn.relu %x : ({F}) -> {F}",
    "gelu": f'%y = nn.gelu %x {{approximate = "none"}} : ({F}) -> {F}',
    "gelu_tanh": f'%y = nn.gelu %x {{approximate = "tanh"}} : ({F}) -> {F}',
    "softmax": f"%y = nn.softmax %x {{dim = 0 : i64}} : ({F}) -> {F}",
    "add": f"%y = nn.add %x, %x : ({F}, {F}) -> {F}",
    "sub": f"%y = nn.sub %x, %x : ({F}, {F}) -> {F}",
    "mul": f"%y = nn.mul %x, %x : ({F}, {F}) -> {F}",
    "div": f"%y = nn.div %x, %x : ({F}, {F}) -> {F}",
    "where": f"""
  %z = nn.full {{value = 0.25 : f64}} : tensor<f32>
  %c = nn.compare %x, %z {{predicate = "ge"}} : ({F}, tensor<f32>) -> tensor<2x6xi1>
  %n = nn.not %c : (tensor<2x6xi1>) -> tensor<2x6xi1>
  %a = nn.and %n, %n : (tensor<2x6xi1>, tensor<2x6xi1>) -> tensor<2x6xi1>
  %o = nn.or %a, %n : (tensor<2x6xi1>, tensor<2x6xi1>) -> tensor<2x6xi1>
  %y = nn.where %o, %x, %z : (tensor<2x6xi1>, {F}, tensor<f32>) -> {F}""",
    "cast": f"""
  %b = nn.cast %x : ({F}) -> tensor<2x6xi1>
  %y = nn.cast %b : (tensor<2x6xi1>) -> {F}""",
    "layer_norm": f"""
  %g = einsum.weight ["g"] : tensor<6xf32>
  %b = einsum.weight ["b"] : tensor<6xf32>
  %y = nn.layer_norm %x, %g, %b {{eps = 1.0e-05 : f64}} : ({F}, tensor<6xf32>, tensor<6xf32>) -> {F}""",
    "linear": f"""
  %w = einsum.weight ["w"] : tensor<6x6xf32>
  %b = einsum.weight ["b"] : tensor<6xf32>
  %y = nn.linear %x, %w, %b : ({F}, tensor<6x6xf32>, tensor<6xf32>) -> {F}""",
    "matmul": f"""
  %w = einsum.weight ["w"] : tensor<6x6xf32>
  %y = nn.matmul %x, %w : ({F}, tensor<6x6xf32>) -> {F}""",
    "permuted": f"""
  %w = einsum.weight ["w"] {{permutation = array<i64: 1, 0>}} : tensor<6x6xf32>
  %y = einsum.contract "ti,oi->to" %x, %w : ({F}, tensor<6x6xf32>) -> {F}""",
    "nary": f"""
  %w = einsum.weight ["w"] : tensor<6x6xf32>
  %b = einsum.weight ["b"] : tensor<6xf32>
  %y = einsum.contract "ti,ri,r,ro->to" %x, %w, %b, %w : ({F}, tensor<6x6xf32>, tensor<6xf32>, tensor<6x6xf32>) -> {F}""",
    "concatenated": f"""
  %w = einsum.weight ["w", "v"] : tensor<12x6xf32>
  %s = nn.slice %w {{starts = array<i64: 1, 0>, steps = array<i64: 2, 1>}} : (tensor<12x6xf32>) -> tensor<6x6xf32>
  %y = einsum.contract "ti,io->to" %x, %s : ({F}, tensor<6x6xf32>) -> {F}""",
    "shapes": f"""
  %r = nn.reshape %x : ({F}) -> tensor<3x4xf32>
  %t = nn.transpose %r {{permutation = array<i64: 1, 0>}} : (tensor<3x4xf32>) -> tensor<4x3xf32>
  %s = nn.slice %t {{starts = array<i64: 1, 0>, steps = array<i64: 2, 1>}} : (tensor<4x3xf32>) -> tensor<2x3xf32>
  %y = nn.concat %s, %s {{dim = 1 : i64}} : (tensor<2x3xf32>, tensor<2x3xf32>) -> {F}""",
    "index": f"""
  %i = nn.iota {{start = 1 : i64, step = -1 : i64}} : tensor<2xi64>
  %a = nn.index %x, %i : ({F}, tensor<2xi64>) -> {F}
  %e = nn.embedding %a, %i : ({F}, tensor<2xi64>) -> {F}
  %z = nn.full {{value = 2.0 : f64}} : tensor<1x6xf32>
  %b = nn.expand %z : (tensor<1x6xf32>) -> {F}
  %y = nn.add %e, %b : ({F}, {F}) -> {F}""",
    "view_of_input": f"%y = nn.slice %x {{starts = array<i64: 0, 0>, steps = array<i64: 1, 1>}} : ({F}) -> {F}",
}


@pytest.mark.parametrize("name", UNARY)
def test_plain_op(name: str, tmp_path: Path) -> None:
    weights = {"w": floats(6, 6), "v": floats(6, 6), "b": floats(6), "g": floats(6)}
    x = floats(2, 6)
    x[0, 0] = 0
    with np.errstate(invalid="ignore"):
        check(one(UNARY[name], F, F), {"x": x}, weights, tmp_path)


def test_output_is_no_view_of_the_input(tmp_path: Path) -> None:
    program = build(one(UNARY["view_of_input"], F, F), {}, tmp_path)
    x = floats(2, 6)
    assert not np.shares_memory(program.main(x)["y"], x)


def test_gelu_is_exact_to_1e_6(tmp_path: Path) -> None:
    n = 200_001
    text = f'%y = nn.gelu %x {{approximate = "none"}} : (tensor<{n}xf32>) -> tensor<{n}xf32>'
    program = build(one(text, f"tensor<{n}xf32>", f"tensor<{n}xf32>"), {}, tmp_path)
    x = np.linspace(-20, 20, n).astype(np.float32)
    exact = 0.5 * x.astype(np.float64) * (1 + erf(x.astype(np.float64) / np.sqrt(2)))
    error = np.abs(program.main(x)["y"] - exact) / np.maximum(np.abs(exact), 1)
    assert error.max() <= 1e-6


@pytest.mark.parametrize(
    ("equation", "is_stack"),
    [("amk,akn->amn", True), ("amk,ank->amn", True), ("amk,kan->amn", False)],
)
def test_stacks_of_products(equation: str, is_stack: bool, tmp_path: Path) -> None:
    w = {"akn": (3, 5, 4), "ank": (3, 4, 5), "kan": (5, 3, 4)}[equation[4:7]]
    x, y, z = "tensor<3x2x5xf32>", "tensor<3x2x4xf32>", f"tensor<{'x'.join(map(str, w))}xf32>"
    text = f"""
  %w = einsum.weight ["w"] : {z}
  %y = einsum.contract "{equation}" %x, %w : ({x}, {z}) -> {y}"""
    found = check(one(text, x, y), {"x": floats(3, 2, 5)}, {"w": floats(*w)}, tmp_path)
    assert ("np.einsum(" in found) != is_stack


KEEP, BIAS = "%m : tensor<2x1x1x5xi1>", "%b : tensor<2x1x5x5xf32>"


@pytest.mark.parametrize("keyless", ["zero", "nan"])
@pytest.mark.parametrize("masks", [(), (KEEP,), (BIAS,), (KEEP, BIAS)])
def test_padded_attention(masks: tuple[str, ...], keyless: str, tmp_path: Path) -> None:
    t = "tensor<2x5x8xf32>"
    names, types = zip(*(mask.split(" : ") for mask in masks)) if masks else ((), ())
    fills = ["0xFFF0000000000000 : f64" if mask == KEEP else "0.0 : f64" for mask in masks]
    shown = f"masks {', '.join(names)} : {', '.join(types)} " if masks else ""
    said = f', fills = [{", ".join(fills)}], keyless = "{keyless}"' if masks else ""
    text = f"""
func.func @main(%q: {t} {{heatc.name = "q"}}, %m: tensor<2x1x1x5xi1> {{heatc.name = "m"}},
                %b: tensor<2x1x5x5xf32> {{heatc.name = "b"}}) -> ({t} {{heatc.name = "y"}}) {{
  %y = attn.sdpa %q, %q, %q {shown}{{heads = 2 : i64, scale = 0.5 : f64{said}}} : {t}, {t}, {t} -> {t}
  func.return %y : {t}
}}"""
    keep = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], np.bool_)[:, None, None]
    inputs = {"q": floats(2, 5, 8), "m": keep, "b": floats(2, 1, 5, 5)}
    inputs["b"][0, 0, 1] = -np.inf
    check(text, inputs, {}, tmp_path)


@pytest.mark.parametrize("causal", ["true", "false"])
def test_captured_attention(causal: str, tmp_path: Path) -> None:
    t = "tensor<2x4x4xf32>"
    text = f"%y = nn.sdpa %x, %x, %x {{scale = 0.5 : f64, is_causal = {causal}}} : ({t}, {t}, {t}) -> {t}"
    check(one(text, t, t), {"x": floats(2, 4, 4)}, {}, tmp_path)


# --- A small encoder ------------------------------------------------------------------------------

WIDTH, HEADS, INNER = 16, 2, 40


def encoder(batch: int, length: int, layers: int, bias: bool = False, first: int = 0) -> str:
    """A packed encoder, as the passes write it."""
    d, m = f"tensor<?x{WIDTH}xf32>", f"tensor<?x{INNER}xf32>"
    v = f"tensor<{WIDTH}xf32>"
    ids = f"tensor<{batch}x{length}xi64>"
    packing = f"!attn.packing<{batch}, {length}, reads [0]>"
    b = f"tensor<{batch}x1x{length}x{length}xf32>"
    extra = f', %b: {b} {{heatc.name = "bias"}}' if bias else ""
    use = f"masks %b : {b}" if bias else ""
    keyless = ', keyless = "zero"' if bias else ""
    out = f"tensor<{batch}x{length}x{WIDTH}xf32>"
    lines = [
        f'func.func @main(%ids: {ids} {{heatc.name = "input_ids"}}, %m: {ids} '
        f'{{heatc.name = "attention_mask"}}{extra}) -> ({out} {{heatc.name = "hidden"}}, '
        f'tensor<{batch}x{WIDTH}xf32> {{heatc.name = "first"}}) {{',
        f"  %p = attn.packing %m : ({ids}) -> {packing}",
        f"  %i = attn.pack %ids, %p : ({ids}, {packing}) -> tensor<?xi64>",
        f'  %t = einsum.weight ["table"] : tensor<50x{WIDTH}xf32>',
        f"  %x{first} = nn.embedding %t, %i : (tensor<50x{WIDTH}xf32>, tensor<?xi64>) -> {d}",
    ]
    for k in range(first, first + layers):
        n = f"stack.{k}."
        w = f"tensor<{WIDTH * 3}x{WIDTH}xf32>"
        z = f"tensor<?x{WIDTH * 3}xf32>"
        names = ", ".join(f'"{n}{x}.weight"' for x in "qkv")
        biases = ", ".join(f'"{n}{x}.bias"' for x in "qkv")
        lines += [
            f"  %w{k} = einsum.weight [{names}] : {w}",
            f"  %v{k} = einsum.weight [{biases}] : tensor<{WIDTH * 3}xf32>",
            f'  %a{k} = einsum.contract "ti,oi->to" %x{k}, %w{k} : ({d}, {w}) -> {z}',
            f"  %z{k} = nn.add %a{k}, %v{k} : ({z}, tensor<{WIDTH * 3}xf32>) -> {z}",
        ]
        for j, x in enumerate("qkv"):
            lines.append(
                f"  %{x}{k} = nn.slice %z{k} {{starts = array<i64: 0, {j * WIDTH}>, "
                f"steps = array<i64: 1, 1>}} : ({z}) -> {d}"
            )
        lines += [
            f"  %o{k} = attn.sdpa %q{k}, %k{k}, %v{k}_ packed %p : {packing} {use} "
            f"{{heads = {HEADS} : i64, scale = 0.35 : f64{keyless}}} : {d}, {d}, {d} -> {d}".replace(
                f"%v{k}_", f"%v{k}x"
            ),
            f'  %g{k} = einsum.weight ["{n}norm.weight"] : {v}',
            f'  %h{k} = einsum.weight ["{n}norm.bias"] : {v}',
            f"  %r{k} = nn.add %o{k}, %x{k} : ({d}, {d}) -> {d}",
            f"  %n{k} = nn.layer_norm %r{k}, %g{k}, %h{k} {{eps = 1.0e-12 : f64}} : ({d}, {v}, {v}) -> {d}",
            f'  %u{k} = einsum.weight ["{n}up.weight"] : tensor<{INNER}x{WIDTH}xf32>',
            f'  %c{k} = einsum.weight ["{n}up.bias"] : tensor<{INNER}xf32>',
            f'  %d{k} = einsum.contract "ti,oi->to" %n{k}, %u{k} : ({d}, tensor<{INNER}x{WIDTH}xf32>) -> {m}',
            f"  %e{k} = nn.add %d{k}, %c{k} : ({m}, tensor<{INNER}xf32>) -> {m}",
            f'  %f{k} = nn.gelu %e{k} {{approximate = "none"}} : ({m}) -> {m}',
            f'  %s{k} = einsum.weight ["{n}down.weight"] : tensor<{INNER}x{WIDTH}xf32>',
            f'  %y{k} = einsum.contract "ti,io->to" %f{k}, %s{k} : ({m}, tensor<{INNER}x{WIDTH}xf32>) -> {d}',
            f"  %x{k + 1} = nn.add %n{k}, %y{k} : ({d}, {d}) -> {d}",
        ]
        lines = [line.replace(f"%v{k} = nn.slice", f"%v{k}x = nn.slice") for line in lines]
    last = first + layers
    lines += [
        f"  %out = attn.unpack %x{last}, %p : ({d}, {packing}) -> {out}",
        f"  %first = attn.token %x{last}, %p {{position = 0 : i64}} : ({d}, {packing}) -> tensor<{batch}x{WIDTH}xf32>",
        f"  func.return %out, %first : {out}, tensor<{batch}x{WIDTH}xf32>",
        "}",
    ]
    return "\n".join(lines)


def encoder_weights(layers: int, first: int = 0) -> dict[str, Array]:
    """Weights of `encoder`."""
    weights = {"table": floats(50, WIDTH)}
    for k in range(first, first + layers):
        for x in "qkv":
            weights[f"stack.{k}.{x}.weight"] = floats(WIDTH, WIDTH) / 3
            weights[f"stack.{k}.{x}.bias"] = floats(WIDTH)
        weights[f"stack.{k}.norm.weight"] = floats(WIDTH)
        weights[f"stack.{k}.norm.bias"] = floats(WIDTH)
        weights[f"stack.{k}.up.weight"] = floats(INNER, WIDTH) / 3
        weights[f"stack.{k}.up.bias"] = floats(INNER)
        weights[f"stack.{k}.down.weight"] = floats(INNER, WIDTH) / 3
    return weights


def masks(batch: int, length: int) -> dict[str, Array]:
    """Padding on every side, and sequences without a token."""
    result = {name: np.ones((batch, length), np.int64) for name in ("full", "left", "right")}
    result["left"][:, :5] = 0
    result["right"][:, -4:] = 0
    both = result["left"] * result["right"]
    result |= {"both": both, "middle": 1 - both, "none": np.zeros_like(both)}
    result["one_empty"] = both.copy()
    result["one_empty"][0] = 0
    return result


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_encoder(batch: int, bias: bool, tmp_path: Path) -> None:
    length, layers = 12, 3
    text, weights = encoder(batch, length, layers, bias), encoder_weights(layers)
    program = build(text, weights, tmp_path)
    inputs: dict[str, Array] = {"input_ids": RNG.integers(0, 50, (batch, length))}
    if bias:
        inputs["bias"] = floats(batch, 1, length, length)
    for name, mask in masks(batch, length).items():
        inputs["attention_mask"] = mask
        if name in ("none", "one_empty"):
            with pytest.raises(HeatcError, match="row 0 of the batch has no real token"):
                execute(parse(text), inputs, WeightStore(weights))
            with pytest.raises(ValueError, match="row 0"):
                program.main(**inputs)
            continue
        expected = execute(parse(text), inputs, WeightStore(weights))
        got = program.main(**inputs)
        assert not got["hidden"][mask == 0].any(), name
        for output in expected:
            np.testing.assert_allclose(got[output], expected[output], rtol=0, atol=5e-5)


def test_layers_become_a_loop(tmp_path: Path) -> None:
    inputs = {"input_ids": RNG.integers(0, 50, (1, 9)), "attention_mask": np.ones((1, 9), int)}
    text = check(encoder(1, 9, 4, first=2), inputs, encoder_weights(4, 2), tmp_path, 1e-4)
    assert "for i in range(2, 6):" in text
    assert text.count("= attention(") == 1
    assert 'layer = f"stack.{i}."' in text
    assert 'w[layer + "q+k+v.weight"]' in text


def test_one_layer_is_straight_line(tmp_path: Path) -> None:
    inputs = {"input_ids": RNG.integers(0, 50, (1, 9)), "attention_mask": np.ones((1, 9), int)}
    text = check(encoder(1, 9, 1), inputs, encoder_weights(1), tmp_path, 1e-4)
    assert "for i in" not in text.partition("def main")[2]


def test_padded_and_unpadded_runs_agree(tmp_path: Path) -> None:
    weights = encoder_weights(2)
    padded = build(encoder(1, 12, 2), weights, tmp_path)
    unpadded = build(encoder(1, 7, 2), weights, tmp_path)
    ids = RNG.integers(0, 50, (1, 7))
    wide, mask = np.zeros((1, 12), np.int64), np.zeros((1, 12), np.int64)
    wide[:, 3:10], mask[:, 3:10] = ids, 1
    a = padded.main(wide, mask)["hidden"][:, 3:10]
    b = unpadded.main(ids, np.ones((1, 7), np.int64))["hidden"]
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


# --- The program as a program ---------------------------------------------------------------------


def test_runs_without_heatc_and_torch(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    emit_program(parse(encoder(1, 9, 2)), WeightStore(encoder_weights(2)), path)
    np.savez(
        tmp_path / "in.npz",
        input_ids=RNG.integers(0, 50, (1, 9)),
        attention_mask=np.ones((1, 9), np.int64),
    )
    code = (
        "import runpy, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('heatc', 'torch', 'scipy', 'xdsl'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"sys.argv = ['prog.py', {str(tmp_path / 'in.npz')!r}, {str(tmp_path / 'out.npz')!r}]\n"
        f"runpy.run_path({str(path)!r}, run_name='__main__')\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd="/")
    with np.load(tmp_path / "in.npz") as inputs, np.load(tmp_path / "out.npz") as outputs:
        expected = load(path).main(**inputs)
        np.testing.assert_allclose(outputs["hidden"], expected["hidden"], rtol=0, atol=1e-6)


def test_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    emit_program(parse(one(UNARY["tanh"], F, F)), WeightStore({}), path)
    np.savez(tmp_path / "wrong.npz", z=floats(2, 6))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for arguments, message in (
        ((), "usage: prog.py in.npz out.npz"),
        (("missing.npz", "out.npz"), "error: "),
        ((str(tmp_path / "wrong.npz"), "out.npz"), "error: no x in "),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_wrong_inputs_are_value_errors(tmp_path: Path) -> None:
    program = build(encoder(1, 9, 1), encoder_weights(1), tmp_path)
    ids, mask = np.zeros((1, 9), np.int64), np.ones((1, 9), np.int64)
    with pytest.raises(ValueError, match=r"input_ids has shape \(1, 8\), expected \(1, 9\)"):
        program.main(ids[:, :8], mask)
    with pytest.raises(ValueError, match="attention_mask has dtype float64, expected int64"):
        program.main(ids, mask * 1.0)
    wrong, late = ids.copy(), mask.copy()
    wrong[0, 4], late[0, :2] = 50, 0
    with pytest.raises(ValueError, match=r"input_ids\[0, 4\] is 50: an id is outside 0\.\.49"):
        program.main(wrong, late)
    with pytest.raises(ValueError, match=r"an id is outside 0\.\.49"):
        program.main(ids - 1, mask)
    # The program still works, also on narrower types.
    assert program.main(ids.astype(np.int32), mask != 0)["hidden"].any()


def test_the_command_line_keeps_its_inputs_and_writes_whole_files(tmp_path: Path) -> None:
    path, data, out = (tmp_path / name for name in ("prog.py", "in.npz", "out.npz"))
    emit_program(parse(one(UNARY["tanh"], F, F)), WeightStore({}), path)
    np.savez(data, x=floats(2, 6))
    before = data.read_bytes()
    (tmp_path / "link.npz").symlink_to(data)

    def run(output: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(path), str(data), output]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for output in (data, tmp_path / "link.npz"):
        done = run(str(output))
        assert (done.returncode, done.stderr) == (
            1,
            "error: the output would overwrite the inputs\n",
        )
    assert data.read_bytes() == before
    for _ in range(2):
        assert run(str(out)).returncode == 0
    run(os.devnull)
    assert not Path(os.devnull).is_file()
    assert {p.name for p in tmp_path.iterdir()} == {
        *("prog.py", "prog.safetensors", "in.npz", "link.npz", "out.npz")
    }


def test_a_program_takes_its_own_weights_alone(tmp_path: Path) -> None:
    """What a kill between the two moves may leave: a program with the weights of the next one."""
    for text, name in ((UNARY["tanh"], "a"), (UNARY["relu"], "b")):
        emit_program(parse(one(text, F, F)), WeightStore({}), tmp_path / f"{name}.py")
    shutil.copy(tmp_path / "b.safetensors", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="the weights of another program"):
        load(tmp_path / "a.py").main(floats(2, 6))


@pytest.mark.parametrize("name", ["prog", "prog.safetensors", "prog.txt"])
def test_the_name_of_a_program_ends_in_py(tmp_path: Path, name: str) -> None:
    with pytest.raises(HeatcError, match=r"ends in \.py"):
        emit_program(parse(one(UNARY["tanh"], F, F)), WeightStore({}), tmp_path / name)


def test_same_bytes_every_time(tmp_path: Path) -> None:
    weights = encoder_weights(2)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        emit_program(parse(encoder(1, 9, 2)), WeightStore(weights), tmp_path / name / "prog.py")
    for name in ("prog.py", "prog.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_weights_file_is_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    weights = encoder_weights(1)
    emit_program(parse(encoder(1, 9, 1)), WeightStore(weights), tmp_path / "prog.py")
    stored = load_file(tmp_path / "prog.safetensors")
    parts = [weights[f"stack.0.{x}.weight"] for x in "qkv"]
    np.testing.assert_array_equal(stored["stack.0.q+k+v.weight"], np.concatenate(parts))
    np.testing.assert_array_equal(stored["table"], weights["table"])


def test_joined_names() -> None:
    assert joined_name(("a.weight",)) == "a.weight"
    assert joined_name(("e.0.q.weight", "e.0.k.weight")) == "e.0.q+k.weight"
    assert joined_name(("q", "k")) == "q+k"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "%a, %y = attn.split %x : (tensor<2x6xf32>) -> (tensor<2x6xf32>, tensor<2x6xf32>)"
            ' loc("encoder.split"("model.py":7:0))',
            "cannot emit 'attn.split'",
        ),
        (
            "%h = nn.cast %x : (tensor<2x6xf32>) -> tensor<2x6xf16>\n"
            "%y = nn.cast %h : (tensor<2x6xf16>) -> tensor<2x6xf32>",
            "tensor<2x6xf16>",
        ),
    ],
)
def test_refuses_what_it_cannot_emit(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(HeatcError) as caught:
        emit_program(parse(one(text, F, F)), WeightStore({}), tmp_path / "prog.py")
    assert message in caught.value.message
    if "loc(" in text:
        assert caught.value.place == "encoder.split (model.py:7)"
    assert not list(tmp_path.iterdir())


def test_unwritable_path_leaves_nothing(tmp_path: Path) -> None:
    module = parse(one(UNARY["tanh"], F, F))
    with pytest.raises(HeatcError, match="there is no folder"):
        emit_program(module, WeightStore({}), tmp_path / "no" / "prog.py")
    (tmp_path / "prog.safetensors").mkdir()
    with pytest.raises(HeatcError, match="it is a folder"):
        emit_program(module, WeightStore({}), tmp_path / "prog.py")
    assert [p.name for p in tmp_path.iterdir()] == ["prog.safetensors"]


def test_missing_weight_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HeatcError, match="no weight named 'w'"):
        emit_program(parse(one(UNARY["matmul"], F, F)), WeightStore({}), tmp_path / "prog.py")
    assert not list(tmp_path.iterdir())


HOSTILE = '"]; raise SystemExit #\n"""\nraise SystemExit\n{i}{1/0}\\'


def test_names_never_become_code(tmp_path: Path) -> None:
    """Names of weights, inputs, outputs and modules are text, also those that repeat in a loop."""
    quoted = HOSTILE.encode("unicode_escape").decode().replace('"', '\\"')
    width = "tensor<?x4xf32>"
    lines = [
        f'func.func @main(%x: tensor<1x3x4xf32> {{heatc.name = "{quoted}"}})'
        f' -> (tensor<1x3x4xf32> {{heatc.name = "{quoted}y"}}) {{',
        "  %p = attn.packing : () -> !attn.packing<1, 3>",
        f"  %h0 = attn.pack %x, %p : (tensor<1x3x4xf32>, !attn.packing<1, 3>) -> {width}",
    ]
    for k in range(3):
        lines.append(f'  %w{k} = einsum.weight ["{quoted}.{k}.w"] : tensor<4x4xf32>')
        lines.append(
            f'  %h{k + 1} = einsum.contract "ti,oi->to" %h{k}, %w{k} : '
            f'({width}, tensor<4x4xf32>) -> {width} loc("{quoted}"("a.py":1:1))'
        )
    lines += [
        f"  %y = attn.unpack %h3, %p : ({width}, !attn.packing<1, 3>) -> tensor<1x3x4xf32>",
        "  func.return %y : tensor<1x3x4xf32>\n}",
    ]
    text = "\n".join(lines)
    weights = {f"{HOSTILE}.{k}.w": floats(4, 4) for k in range(3)}
    inputs = {HOSTILE: floats(1, 3, 4)}
    program = build(text, weights, tmp_path)
    expected = execute(parse(text), inputs, WeightStore(weights))
    got = program.main(*inputs.values())
    np.testing.assert_allclose(got[f"{HOSTILE}y"], expected[f"{HOSTILE}y"], rtol=1e-5, atol=1e-5)
