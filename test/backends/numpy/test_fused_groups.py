"""Groups of steps in the NumPy program: one loop over tiles of tokens, and what it saves."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.numpy.emit import emit_program
from heatc.dialects.einsum import ContractOp, PathAttr
from heatc.errors import HeatcError
from heatc.heat.formats import Format
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.weights import WeightStore

Array = NDArray[Any]
Path_ = tuple[tuple[int, int], ...] | None

WIDTH, BATCH, LENGTH, LAYERS = 32, 2, 100, 2
MASK = np.ones((BATCH, LENGTH), np.int64)
MASK[1, 90:] = 0

HEAD = f"""
func.func @main(%x: tensor<{BATCH}x{LENGTH}x{WIDTH}xf32> {{heatc.name = "x"}}, %m: tensor<{BATCH}x{LENGTH}xi64> {{heatc.name = "m"}})
    -> (tensor<{BATCH}x{LENGTH}x{WIDTH}xf32> {{heatc.name = "y"}}) {{
  %p = attn.packing %m : (tensor<{BATCH}x{LENGTH}xi64>) -> !attn.packing<{BATCH}, {LENGTH}>
  %h0 = attn.pack %x, %p : (tensor<{BATCH}x{LENGTH}x{WIDTH}xf32>, !attn.packing<{BATCH}, {LENGTH}>) -> tensor<?x{WIDTH}xf32>
"""
# y = norm(gelu(x W' + b) + x)
LAYER = """
  %w{k} = einsum.weight ["layer.{k}.weight"] : tensor<{d}x{d}xf32>
  %b{k} = einsum.weight ["layer.{k}.bias"] : tensor<{d}xf32>
  %c{k} = einsum.contract "ti,oi->to" %h{k}, %w{k} : (tensor<?x{d}xf32>, tensor<{d}x{d}xf32>) -> tensor<?x{d}xf32>
  %s{k} = nn.add %c{k}, %b{k} : (tensor<?x{d}xf32>, tensor<{d}xf32>) -> tensor<?x{d}xf32>
  %g{k} = nn.gelu %s{k} {{approximate = "none"}} : (tensor<?x{d}xf32>) -> tensor<?x{d}xf32>
  %r{k} = nn.add %g{k}, %h{k} : (tensor<?x{d}xf32>, tensor<?x{d}xf32>) -> tensor<?x{d}xf32>
  %v{k} = einsum.weight ["layer.{k}.norm"] : tensor<{d}xf32>
  %h{n} = nn.layer_norm %r{k}, %v{k}, %b{k} {{eps = 1.0e-12 : f64}} : (tensor<?x{d}xf32>, tensor<{d}xf32>, tensor<{d}xf32>) -> tensor<?x{d}xf32>
"""
TAIL = f"""
  %y = attn.unpack %h{LAYERS}, %p : (tensor<?x{WIDTH}xf32>, !attn.packing<{BATCH}, {LENGTH}>) -> tensor<{BATCH}x{LENGTH}x{WIDTH}xf32>
  func.return %y : tensor<{BATCH}x{LENGTH}x{WIDTH}xf32>
}}
"""
# Formats with options, a path where the best one leaves steps that are no products, and a cache.
CASES: dict[Format, tuple[str, Path_, int]] = {
    "low-rank": ("rank=12", None, 1536),
    "tucker": ('shape="4x8|8x4" rank=4,8,8,4', None, 8192),
    "cp": ('shape="4x8|8x4" rank=24', None, 16384),
    "tt": ('shape="4x8|8x4" rank=4,24,4', None, 8192),
    "ttm": ('shape="4x8|8x4" rank=12', ((0, 1), (3, 2)), 131072),
}


def factorised(format_: Format, *, fuse: bool) -> tuple[ModuleOp, WeightStore]:
    """Layers of a format, in steps, fused or not."""
    layers = "".join(LAYER.format(k=k, n=k + 1, d=WIDTH) for k in range(LAYERS))
    module = Parser(make_context(), HEAD + layers + TAIL).parse_module()
    rng = np.random.default_rng(0)
    arrays = {f"layer.{k}.weight": rng.normal(size=(WIDTH, WIDTH)) / 6 for k in range(LAYERS)}
    names = [f"layer.{k}.{name}" for k in range(LAYERS) for name in ("bias", "norm")]
    arrays |= {name: rng.normal(size=WIDTH) for name in names}
    weights = WeightStore({name: a.astype(np.float32) for name, a in arrays.items()})
    options, path, cache = CASES[format_]
    heat = f"heat-decompose{{format={format_} {options} init=plain refinements=0}}"
    run_passes(make_context(weights), module, build(heat))
    for op in module.walk():
        if isinstance(op, ContractOp) and path is not None:
            op.path = PathAttr(path)
    # For few tokens a weight is never rebuilt.
    passes = "order-contractions{tokens=4},lower-contractions"
    passes += f",fuse-einsums{{cache={cache}}}" if fuse else ""
    run_passes(make_context(weights), module, build(passes))
    return module, weights


def load(module: ModuleOp, weights: WeightStore, path: Path) -> Any:
    """The program as a module of its own."""
    path.parent.mkdir(exist_ok=True)
    emit_program(module, weights, path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def buffer_bytes(program: Any, *, tiles: bool = False) -> int:
    """Bytes of the buffers that a program holds after a call, or of its tiles alone."""
    buffers = program._buffers.items()
    return sum(array.nbytes for key, array in buffers if not tiles or key in ("a", "b"))


@pytest.mark.parametrize("format_", CASES)
def test_results_and_bytes(format_: Format, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    results: list[Array] = []
    programs: list[Any] = []
    for fuse in (False, True):
        module, weights = factorised(format_, fuse=fuse)
        path = tmp_path / str(fuse) / "prog.py"
        programs.append(load(module, weights, path))
        assert ("    for t in slices(tokens," in path.read_text()) == fuse
        results.append(programs[-1].main(x, MASK)["y"])
        want = execute(module, {"x": x, "m": MASK}, weights)["y"]
        np.testing.assert_allclose(results[-1], want, atol=1e-5 * float(np.abs(want).max()))
    np.testing.assert_allclose(results[1], results[0], atol=1e-5 * float(np.abs(results[0]).max()))
    plain, fused = map(buffer_bytes, programs)
    assert fused < plain
    assert 0 < buffer_bytes(programs[1], tiles=True) <= CASES[format_][2]


def test_a_group_is_one_readable_loop(tmp_path: Path) -> None:
    module, weights = factorised("ttm", fuse=True)
    load(module, weights, tmp_path / "prog.py")
    text = (tmp_path / "prog.py").read_text()
    # Layers still are one function, and bias, GELU and residual sum are in the last step.
    assert EXPECTED in text
    assert text.count("for t in slices(") == 1
    assert "def add(" not in text
    assert "def apply(" not in text


EXPECTED = """
    y = matrix("b", 32, tokens)
    for t in slices(tokens, 32):
        part = contract(
            oriented(layer + "0", (0, 2, 1), (96, 4)),
            x[:, t],
            tile("a", 768, t.stop - t.start),
            lead=(),
        )
        contract(
            oriented(layer + "1", (1, 0, 2), (4, 96)),
            part,
            y[:, t],
            lead=(8,),
            bias=w[layer + "bias"],
            activation=gelu,
            residual=x[:, t],
        )
    normed = layer_norm(\
"""


FOREIGN = """
func.func @main(%x: tensor<?x2x3xf32> {heatc.name = "x"}) -> (tensor<?x4xf32> {heatc.name = "y"}) {
  %a = einsum.weight ["a"] : tensor<5x3xf32>
  %b = einsum.weight ["b"] : tensor<4x5x2xf32>
  %p = einsum.contract "tab,cb->tca" %x, %a {fuse = #einsum.fuse<tokens = 16>} : (tensor<?x2x3xf32>, tensor<5x3xf32>) -> tensor<?x5x2xf32>
  %y = einsum.contract "tca,dca->td" %p, %b : (tensor<?x5x2xf32>, tensor<4x5x2xf32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}
"""


def test_a_group_of_a_foreign_step_is_refused(tmp_path: Path) -> None:
    module = Parser(make_context(), FOREIGN).parse_module()
    module.verify()
    weights = WeightStore({"a": np.ones((5, 3), "f"), "b": np.ones((4, 5, 2), "f")})
    with pytest.raises(HeatcError, match="no tiles of the step 'tab,cb->tca'"):
        emit_program(module, weights, tmp_path / "prog.py")
    assert not list(tmp_path.iterdir())


def test_what_weights_alone_make_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a path that joins the factors of either side first, in each layer of the loop."""
    case = 'shape="4x8|8x4" rank=4,24,4', ((1, 2), (0, 5), (3, 4), (6, 7)), 1 << 20
    monkeypatch.setitem(CASES, "tt", case)
    module, weights = factorised("tt", fuse=True)
    program = load(module, weights, tmp_path / "prog.py")
    text = (tmp_path / "prog.py").read_text()
    head, loop = text.split("\ndef layer_(w, i, x):")
    assert "@functools.cache\ndef layer__constants(i):" in head
    assert "np.einsum(" in head
    assert "np.einsum(" not in loop
    x = np.random.default_rng(1).normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    first = program.main(x, MASK)["y"]
    want = execute(module, {"x": x, "m": MASK}, weights)["y"]
    np.testing.assert_allclose(first, want, atol=1e-5 * float(np.abs(want).max()))
    assert program.layer__constants.cache_info().misses == LAYERS
    np.testing.assert_array_equal(program.main(x, MASK)["y"], first)
    assert program.layer__constants.cache_info().misses == LAYERS
