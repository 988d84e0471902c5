"""How far is too far: bounds, padding, numbers that are none, noise, and where it begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.dialects import attn
from heatc.parsing import parse_module
from heatc.samples import MaskValues
from heatc.tools.main import main
from heatc.verify.compare import CLOSE, IDENTICAL, ROUNDED, cosine, differences
from heatc.verify.programs import NumpyFile
from heatc.verify.rows import Rows, Tokens, output_rows, tokens_of
from heatc.verify.sensitivity import float_noise, shaken
from heatc.verify.trace import Trace, first_difference
from heatc.weights import WeightStore

NAN, INF = float("nan"), float("inf")


def module(text: str) -> ModuleOp:
    return parse_module(make_context(), text.encode(), "x.mlir")


def array(*values: float) -> Any:
    return np.array(values, np.float32)


# ---- bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "found", "bound", "holds"),
    [
        (array(1, -200), array(1, -200.01), CLOSE, True),
        (array(1, -200), array(1.03, -200), CLOSE, False),
        (array(1e-9, 0), array(2e-9, 0), CLOSE, False),
        (array(0, 0), array(0, 0), CLOSE, True),
        (array(0, 0), array(0, 1e-30), CLOSE, False),
        (array(1, NAN, INF), array(1, NAN, INF), CLOSE, True),
        (array(1, NAN), array(1, 2), CLOSE, False),
        (array(1, 2), array(1, NAN), CLOSE, False),
        (array(1, INF), array(1, -INF), CLOSE, False),
        (array(3, 4), array(3.3, 4.3), ROUNDED, True),
        (array(3, 4), array(3.4, 4.4), ROUNDED, False),
        (array(1, 2), array(1, 2), IDENTICAL, True),
        (array(1, 2), array(1, 2 + 2e-7), IDENTICAL, False),
        (array(1, NAN), array(1, NAN), IDENTICAL, True),
        (array(1, 2), array(1, 2, 3), CLOSE, False),
    ],
)
def test_bounds(expected: Any, found: Any, bound: Any, holds: bool):
    (difference,) = differences({"y": expected}, {"y": found}, {}, bound)
    assert difference.holds(bound) == holds


def test_an_output_that_is_missing_differs():
    (difference,) = differences({"y": array(1)}, {}, {}, CLOSE)
    assert not difference.holds(CLOSE)


def test_masked_positions_are_zero_and_nothing_else():
    rows = {"y": Rows(np.array([True, False]))}
    expected = array(1, 5)
    for value, holds in ((0.0, True), (-0.0, True), (5.0, False), (1e-30, False), (NAN, False)):
        (found,) = differences({"y": expected}, {"y": array(1, value)}, rows, CLOSE)
        assert found.holds(CLOSE) == holds
        assert found.values == 1


def test_cosines():
    assert cosine(np.zeros(2), np.zeros(2)) == 1.0
    assert cosine(np.zeros(2), np.ones(2)) == 0.0
    assert cosine(np.array([1.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx(0.5**0.5)


# ---- what is compared --------------------------------------------------------------------------

PACKED = """
func.func @main(%mask: tensor<2x3xi64> {heatc.name = "mask"}, %x: tensor<2x3x4xf32> {heatc.name = "x"})
    -> (tensor<2x3x4xf32> {heatc.name = "y", heatc.padding = "zero"},
        tensor<3x2x4xf32> {heatc.name = "turned", heatc.padding = "zero"},
        tensor<2x3x4xf32> {heatc.name = "covered", heatc.padding = "zero"},
        tensor<2x4xf32> {heatc.name = "first"}) {
  %p = attn.packing %mask {real = #attn.values<1 : 1>, masked = #attn.values<min : 0, 2 : max>}
    : (tensor<2x3xi64>) -> !attn.packing<2, 3, reads [0]>
  %r = attn.pack %x, %p : (tensor<2x3x4xf32>, !attn.packing<2, 3, reads [0]>) -> tensor<?x4xf32>
  %y = attn.unpack %r, %p : (tensor<?x4xf32>, !attn.packing<2, 3, reads [0]>) -> tensor<2x3x4xf32>
  %turned = nn.transpose %y {permutation = array<i64: 1, 0, 2>} : (tensor<2x3x4xf32>) -> tensor<3x2x4xf32>
  %real = attn.real %p : (!attn.packing<2, 3, reads [0]>) -> tensor<2x3xi1>
  %keep = nn.reshape %real : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
  %zero = nn.full {value = 0.0 : f64} : tensor<f32>
  %covered = nn.where %keep, %x, %zero : (tensor<2x3x1xi1>, tensor<2x3x4xf32>, tensor<f32>) -> tensor<2x3x4xf32>
  %first = attn.token %r, %p {position = 0 : i64} : (tensor<?x4xf32>, !attn.packing<2, 3, reads [0]>) -> tensor<2x4xf32>
  func.return %y, %turned, %covered, %first
    : tensor<2x3x4xf32>, tensor<3x2x4xf32>, tensor<2x3x4xf32>, tensor<2x4xf32>
}
"""


def test_rows_are_those_that_the_packed_level_declares():
    packed = module(PACKED)
    (packing,) = [op for op in packed.walk() if isinstance(op, attn.PackingOp)]
    assert packing.real is not None
    assert packing.masked is not None
    masks = {"mask": MaskValues(packing.real.intervals, packing.masked.intervals, (2, 3))}
    inputs = {"mask": np.array([[0, 1, 2], [1, 1, -5]]), "x": np.zeros((2, 3, 4), np.float32)}
    tokens = tokens_of(packed, inputs, masks)
    assert tokens is not None
    real = np.array([[False, True, False], [True, True, False]])
    assert (tokens.real == real).all()
    # The first token is read, also where it is masked: its row stands behind the real ones.
    assert tokens.rows.tolist() == [1, 0, 3, 4]
    rows = output_rows(packed, tokens)
    shape = (2, 3, 4)
    for name, kept in {"y": real, "turned": real.T, "covered": real}.items():
        found = rows[name].kept
        assert found is not None
        wide = np.broadcast_to(found, shape if name != "turned" else (3, 2, 4))
        assert (wide == kept[:, :, None]).all()
    assert rows["first"].kept is None


def test_without_padding_everything_is_compared():
    assert output_rows(None, None) == {}
    assert tokens_of(None, {}, {}) is None


# ---- noise -------------------------------------------------------------------------------------

CANCELS = """
func.func @main(%x: tensor<2x8xf32> {heatc.name = "x"}) -> (tensor<2x8xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["w"] : tensor<8x8xf32>
  %b = einsum.weight ["b"] : tensor<8xf32>
  %g = einsum.weight ["g"] : tensor<8xf32>
  %h = nn.linear %x, %w, %b : (tensor<2x8xf32>, tensor<8x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
  %y = nn.layer_norm %h, %g, %g {eps = 1.0e-12 : f64} : (tensor<2x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}
"""
"""A norm of rows that are nearly constant: what is left is mostly rounding."""


def weights(spread: float) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    random = (spread * rng.standard_normal((8, 8))).astype(np.float32)
    return {"w": random, "b": np.full(8, 1000, np.float32), "g": np.ones(8, np.float32)}


@pytest.mark.parametrize(("spread", "judged"), [(1e-4, False), (1.0, True)])
def test_what_rounding_alone_decides_is_not_judged(
    spread: float, judged: bool, tmp_path: Any, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "m.mlir").write_text(CANCELS)
    save_file(weights(spread), tmp_path / "w.safetensors")
    command = [str(tmp_path / "m.mlir"), "--weights", str(tmp_path / "w.safetensors")]
    assert main([*command, "-o", str(tmp_path / "y.py")]) == 0
    line = next(x for x in capsys.readouterr().err.splitlines() if "verified" in x)
    assert ("output 'y' is not judged, rounding alone moves it by" in line) != judged


@pytest.mark.parametrize(("fault", "code"), [(0.0, 0), (10.0, 3)])
def test_rounding_moves_zeros(
    fault: float,
    code: int,
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """Rows of one value are 0 after a norm: a program has noise there, which has no size."""
    text = CANCELS.replace("8", "7").replace("%h, %g, %g", "%h, %g, %z")
    text = text.replace("%g =", '%z = einsum.weight ["z"] : tensor<7xf32>\n  %g =')
    (tmp_path / "m.mlir").write_text(text)
    given = {"b": np.full(7, 0.7), "g": np.ones(7), "w": np.zeros((7, 7)), "z": np.zeros(7)}
    save_file({k: a.astype(np.float32) for k, a in given.items()}, tmp_path / "w.safetensors")
    run = NumpyFile.run
    monkeypatch.setattr(
        NumpyFile, "run", lambda self, x: {"y": run(self, x)["y"] + np.float32(fault)}
    )
    command = [str(tmp_path / "m.mlir"), "--weights", str(tmp_path / "w.safetensors")]
    assert main([*command, "-o", str(tmp_path / "y.py")]) == code
    said = capsys.readouterr().err
    assert ("rounding alone moves its zeros" in said) == (code == 0), said
    assert ("by inf of its largest value" in said) == (code == 3)


def test_noise_leaves_weights_alone():
    store = weights(1.0)
    before = {name: a.copy() for name, a in store.items()}
    inputs = {"x": np.ones((2, 8), np.float32)}
    text = CANCELS.replace(
        "%y = nn.layer",
        "%v = nn.add %w, %b : (tensor<8x8xf32>, tensor<8xf32>) -> tensor<8x8xf32>\n  %y = nn.layer",
    )
    outputs = shaken(module(text), WeightStore(store), inputs, float_noise)
    again = shaken(module(text), WeightStore(store), inputs, lambda op, a: 0.0)
    assert not np.array_equal(outputs["y"], again["y"])
    assert all(np.array_equal(before[name], store[name]) for name in store)


# ---- where it begins ---------------------------------------------------------------------------


def trace(**values: Any) -> Trace:
    found = Trace()
    for path, value in values.items():
        found.add(path.replace("_", "."), np.asarray(value, np.float32))
    return found


def test_the_first_layer_that_differs():
    expected = trace(a=[1, 2], b_c=[3, 4], d=[5, 6])
    assert first_difference(expected, trace(a=[1, 2], b_c=[3, 5], d=[9, 9]), None, 1e-3) == "b.c"
    assert first_difference(expected, trace(a=[1, 2], d=[5, 6]), None, 1e-3) is None
    # A value that stands somewhere else in the reference is not wrong, nor is an unknown path.
    assert first_difference(expected, trace(a=[5, 6], e=[7, 7]), None, 1e-3) is None


def test_rows_of_tokens_are_found_in_padded_values():
    real = np.array([[True, False, True]])
    tokens = Tokens(real, np.array([0, 2, 1]))
    expected = trace(a=[[[1, 1], [2, 2], [3, 3]]])
    for right in ([[1, 1], [3, 3]], [[1, 1], [3, 3], [2, 2]], [[1, 3], [1, 3]]):
        assert first_difference(expected, trace(a=right), tokens, 1e-3) is None
    assert first_difference(expected, trace(a=[[1, 1], [2, 2]]), tokens, 1e-3) == "a"
