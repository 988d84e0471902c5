"""Any format, shape, rank and path computes the layer of the matrix that its factors stand for."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.numpy.emit import emit_program
from heatc.dialects.einsum import ContractOp, FuseAttr, PathAttr, only_reader
from heatc.errors import HeatcError
from heatc.execute_each import ExecuteEach
from heatc.heat.decompose import decompose
from heatc.heat.formats import (
    FORMATS,
    Format,
    Modes,
    Spec,
    balanced,
    covering,
    parse_shape,
    rank_limits,
    rebuild,
    scaled,
    top_level,
    uniform,
)
from heatc.heat.norm import Norm, relative_error
from heatc.interpreter import execute
from heatc.passes.analysis.products import product_form
from heatc.pipeline import build, run_passes
from heatc.weights import WeightStore

Array = NDArray[Any]

LINEAR = """
func.func @main(%x: tensor<2x5xINxf32> {heatc.name = "x"}, %m: tensor<2x5xi64> {heatc.name = "m"})
    -> (tensor<2x5xOUTxf32> {heatc.name = "y"}) {
  %p = attn.packing %m : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  %r = attn.pack %x, %p : (tensor<2x5xINxf32>, !attn.packing<2, 5>) -> tensor<?xINxf32>
  %w = einsum.weight ["layer.weight"] : tensor<OUTxINxf32>
  %c = einsum.contract "ti,oi->to" %r, %w : (tensor<?xINxf32>, tensor<OUTxINxf32>) -> tensor<?xOUTxf32>
  %b = einsum.weight ["layer.bias"] : tensor<OUTxf32>
  %s = nn.add %c, %b : (tensor<?xOUTxf32>, tensor<OUTxf32>) -> tensor<?xOUTxf32>
  %y = attn.unpack %s, %p : (tensor<?xOUTxf32>, !attn.packing<2, 5>) -> tensor<2x5xOUTxf32>
  func.return %y : tensor<2x5xOUTxf32>
}
"""

TABLE = """
func.func @main(%x: tensor<2x5xi64> {heatc.name = "x"}, %m: tensor<2x5xi64> {heatc.name = "m"})
    -> (tensor<2x5xOUTxf32> {heatc.name = "y"}) {
  %p = attn.packing %m : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  %r = attn.pack %x, %p : (tensor<2x5xi64>, !attn.packing<2, 5>) -> tensor<?xi64>
  %w = einsum.weight ["layer.weight"] : tensor<INxOUTxf32>
  %s = nn.embedding %w, %r : (tensor<INxOUTxf32>, tensor<?xi64>) -> tensor<?xOUTxf32>
  %y = attn.unpack %s, %p : (tensor<?xOUTxf32>, !attn.packing<2, 5>) -> tensor<2x5xOUTxf32>
  func.return %y : tensor<2x5xOUTxf32>
}
"""

MASK = np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]])


def parsed(text: str, inputs: int, outputs: int) -> ModuleOp:
    """The module of a layer."""
    return Parser(
        make_context(), text.replace("IN", str(inputs)).replace("OUT", str(outputs))
    ).parse_module()


def run_both(module: ModuleOp, weights: WeightStore, inputs: Any, folder: Path) -> list[Array]:
    """What the interpreter and the NumPy program compute."""
    emit_program(module, weights, folder / "prog.py")
    spec = importlib.util.spec_from_file_location("prog", folder / "prog.py")
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return [execute(module, inputs, weights)["y"], program.main(**inputs)["y"]]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    format_: Format = draw(st.sampled_from(FORMATS))
    count = 1 if format_ == "low-rank" else draw(st.integers(1, 3))
    other = count if format_ in ("ttm", "low-rank") else draw(st.integers(1, 3))
    ins, outs = (
        tuple(draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))) for n in (count, other)
    )
    level = draw(st.integers(1, max(1, min(6, top_level(format_, ins, outs)))))
    return scaled(format_, ins, outs, level)


@st.composite
def paths(draw: st.DrawFn, operands: int) -> tuple[tuple[int, int], ...]:
    live, path = list(range(operands)), list[tuple[int, int]]()
    for number in range(operands, 2 * operands - 1):
        a, b = draw(st.permutations(live))[:2]
        live = [n for n in live if n not in (a, b)] + [number]
        path.append((a, b))
    return tuple(path)


def fuse_some(module: ModuleOp, data: st.DataObject) -> None:
    """Keep the results of some steps on the chip, a few tokens at a time."""
    ops = [op for op in module.walk() if isinstance(op, ContractOp)]
    for op in reversed(ops):
        reader = only_reader(op.result) if product_form(op) is not None else None
        if reader is None or product_form(reader) is None or not data.draw(st.booleans()):
            continue
        op.fuse = reader.fuse or FuseAttr(data.draw(st.integers(1, 8)))
    module.verify()


@given(specs(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_path_and_fusion_computes_the_layer(
    tmp_path_factory: pytest.TempPathFactory, spec: Spec, data: st.DataObject
) -> None:
    inputs, outputs = math.prod(spec.inputs), math.prod(spec.outputs)
    rng = np.random.default_rng(inputs * 31 + outputs)
    weights = WeightStore(
        {
            "layer.weight": rng.standard_normal((outputs, inputs)).astype(np.float32),
            "layer.bias": rng.standard_normal(outputs).astype(np.float32),
        }
    )
    module = parsed(LINEAR, inputs, outputs)
    ranks = ",".join(map(str, spec.ranks)) or "1"
    options = f'format={spec.format} shape="{spec.shape}" rank={ranks} init=plain refinements=0'
    run_passes(make_context(weights), module, build(f"heat-decompose{{{options}}}"))
    found = next(op for op in module.walk() if isinstance(op, ContractOp))
    if len(found.inputs) > 2:
        found.path = PathAttr(data.draw(paths(len(found.inputs))))
    run_passes(make_context(weights), module, build("lower-contractions,dce"))
    assert all(len(op.inputs) <= 2 for op in module.walk() if isinstance(op, ContractOp))

    factors = [weights[name] for name in weights.added]
    matrix = rebuild(spec, [f.astype(np.float64) for f in factors])
    x = rng.standard_normal((2, 5, inputs)).astype(np.float32)
    bias: Array = weights["layer.bias"].astype(np.float64)
    expected = (x @ matrix.T + bias) * MASK[:, :, None]
    folder = tmp_path_factory.mktemp("prog")
    scale = 1 + np.abs(expected).max()
    plain = run_both(module, weights, {"x": x, "m": MASK}, folder)
    for got in plain:
        np.testing.assert_allclose(got, expected, atol=1e-4 * scale)
    fuse_some(module, data)
    for got, want in zip(run_both(module, weights, {"x": x, "m": MASK}, folder), plain):
        np.testing.assert_allclose(got, want, atol=1e-5 * scale)


@pytest.mark.parametrize("format_", FORMATS)
def test_tables(format_: Format, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30, 8)).astype(np.float32)
    weights = WeightStore({"layer.weight": table})
    module = parsed(TABLE, 30, 8)
    options = (
        f"format={format_} rank=400 tables=true init=plain modes={2 if format_ == 'cp' else 3}"
    )
    passes = f"heat-decompose{{{options}}},order-contractions,lower-contractions,dce"
    ids = rng.integers(0, 30, (2, 5))
    run_passes(
        make_context(weights), module, build(passes), [watch({"x": ids, "m": MASK}, weights)]
    )
    expected = table[ids] * MASK[:, :, None]
    for got in run_both(module, weights, {"x": ids, "m": MASK}, tmp_path):
        np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("format_", FORMATS)
def test_each_pass_is_compared_with_the_matrices_of_factors(format_: Format) -> None:
    rng = np.random.default_rng(0)
    weights = WeightStore(
        {
            "layer.weight": rng.standard_normal((24, 16)).astype(np.float32),
            "layer.bias": rng.standard_normal(24).astype(np.float32),
        }
    )
    inputs = {"x": rng.standard_normal((2, 5, 16)).astype(np.float32), "m": MASK}
    module = parsed(LINEAR, 16, 24)
    passes = f"heat-decompose{{format={format_} modes=2 rank=3 init=plain}},order-contractions"
    lines: list[str] = []
    watcher = watch(inputs, weights, lines)
    run_passes(make_context(weights), module, build(f"{passes},lower-contractions"), [watcher])
    assert lines[0].startswith("heat-decompose: changes-values, max difference")


def watch(inputs: Any, weights: WeightStore, lines: list[str] | None = None) -> ExecuteEach:
    """Runs before and after every pass and compares; nothing reaches a machine."""

    def machine(module: ModuleOp, given: Any) -> dict[str, Array]:
        raise AssertionError("no machine is asked for")

    return ExecuteEach(inputs, weights, machine, [].append if lines is None else lines.append)


# ---- numerics ---------------------------------------------------------------------------------


def sample(outputs: int = 24, inputs: int = 16) -> tuple[Array, Array]:
    """A weight, and the moment of inputs of which few directions are strong."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, inputs)) @ (
        rng.standard_normal((inputs, inputs)) * np.geomspace(0.05, 3, inputs)
    )
    return rng.standard_normal((outputs, inputs)), x.T @ x / 400


@pytest.mark.parametrize("format_", FORMATS)
def test_activation_aware_factors_are_nearer(format_: Format) -> None:
    weight, moment = sample()
    ins, outs = ((16,), (24,)) if format_ == "low-rank" else ((4, 4), (4, 6))
    spec = scaled(format_, ins, outs, 3)
    plain = decompose(weight, spec).matrix()
    aware = decompose(weight, spec, moment)
    assert aware.error < relative_error(weight, plain, Norm.of(moment)) * 0.97
    assert aware.error == pytest.approx(
        relative_error(weight, aware.matrix(), Norm.of(moment)), rel=2e-2
    )


@pytest.mark.parametrize("ranks", [(4, 16, 6), (9, 20, 9), (4, 16, 3), (2, 5, 6)])
def test_a_tensor_train_is_the_nearest_matrix_where_its_ends_are_free(ranks: tuple[int, ...]):
    weight, moment = sample()
    train = decompose(weight, Spec("tt", (4, 4), (4, 6), ranks), moment)
    nearest = decompose(weight, Spec("low-rank", (16,), (24,), (min(16, ranks[1]),)), moment)
    assert [a.shape for a in train.arrays] == [
        (4, ranks[0]), (ranks[0], 4, ranks[1]), (ranks[1], 4, ranks[2]), (ranks[2], 6),
    ]  # fmt: skip
    is_free = ranks[0] >= 4 and ranks[2] >= 6
    assert (train.error < nearest.error + 1e-5) == is_free


@pytest.mark.parametrize("format_", ["tucker", "cp", "tt", "ttm"])
def test_refinement_lowers_the_error(format_: Format) -> None:
    weight, moment = sample()
    spec = scaled(format_, (4, 4), (4, 6), 3)
    rough = decompose(weight, spec, moment, refinements=0).error
    assert decompose(weight, spec, moment).error < rough


@pytest.mark.parametrize("aware", [False, True])
def test_low_rank_is_optimal(aware: bool) -> None:
    """Eckart and Young in the weighted norm, on both sides of a matrix."""
    for outputs, inputs in ((24, 16), (16, 24)):
        weight, _ = sample(outputs, inputs)
        moment = sample(outputs, inputs)[1] if aware else None
        root = np.eye(inputs)
        if moment is not None:
            ridge = 1e-4 * np.trace(moment) / inputs
            root = np.linalg.cholesky(moment + ridge * np.eye(inputs))
        values = np.linalg.svd(weight @ root, compute_uv=False)
        best = math.sqrt((values[5:] ** 2).sum() / (values**2).sum())
        spec = Spec("low-rank", (inputs,), (outputs,), (5,))
        assert decompose(weight, spec, moment).error == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("format_", FORMATS)
def test_full_rank_is_exact(format_: Format) -> None:
    weight, moment = sample()
    ins, outs = ((16,), (24,)) if format_ == "low-rank" else ((4, 4), (4, 6))
    spec = uniform(format_, ins, outs, max(rank_limits(format_, ins, outs)))
    for norm in (None, moment):
        assert decompose(weight, spec, norm).error < 2e-3


# ---- shapes -----------------------------------------------------------------------------------


def test_balanced_and_covering_modes() -> None:
    assert balanced(768, 3) == (8, 8, 12)
    assert balanced(3072, 3) == (12, 16, 16)
    assert balanced(768, 2) == (24, 32)
    assert balanced(7, 2) == (1, 7)
    assert covering(30522, 3) == (31, 31, 32)
    for extent, modes in itertools.product((1, 2, 30, 512, 1000), (1, 2, 3)):
        assert math.prod(covering(extent, modes)) >= extent


@pytest.mark.parametrize("text", ["8x8", "8x|8", "a|b", "0x4|4", ""])
def test_malformed_shapes(text: str) -> None:
    with pytest.raises(HeatcError, match="shape"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("format_", "ins", "outs", "ranks"),
    [
        ("low-rank", (2, 4), (8,), (2,)),
        ("ttm", (2, 4), (8,), (2,)),
        ("tt", (2, 4), (8,), (2,)),
        ("cp", (2, 4), (8,), (0,)),
    ],
)
def test_specs_that_cannot_be(format_: Format, ins: Modes, outs: Modes, ranks: Modes) -> None:
    with pytest.raises(HeatcError):
        Spec(format_, ins, outs, ranks)
