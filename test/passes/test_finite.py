"""Infinite and NaN weights: refused by one text where they must be numbers, else computed with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.parser import Parser
from xdsl.utils.exceptions import PassFailedException

from heatc.api import make_context
from heatc.backends.hdp.emit import run_module
from heatc.backends.numpy.emit import emit_program
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.targets import RAISE, Hdp, Options, pipeline_text
from heatc.weights import WeightStore

Array = NDArray[Any]
Change = Callable[[dict[str, Array]], None]

# words + positions, a norm, a linear, a norm, logits; six of nine positions are there.
MODEL = """
func.func @main(%x: tensor<1x6xi64> {heatc.name = "x"}, %m: tensor<1x6xi64> {heatc.name = "m"})
    -> (tensor<1x6x3xf32> {heatc.name = "y"}) {
  %p = attn.packing %m : (tensor<1x6xi64>) -> !attn.packing<1, 6>
  %i = attn.pack %x, %p : (tensor<1x6xi64>, !attn.packing<1, 6>) -> tensor<?xi64>
  %words = einsum.weight ["words.weight"] : tensor<10x4xf32>
  %a = nn.embedding %words, %i : (tensor<10x4xf32>, tensor<?xi64>) -> tensor<?x4xf32> loc("words"("m.py":1:0))
  %n = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<6xi64>
  %r = nn.reshape %n : (tensor<6xi64>) -> tensor<1x6xi64>
  %j = attn.pack %r, %p : (tensor<1x6xi64>, !attn.packing<1, 6>) -> tensor<?xi64>
  %places = einsum.weight ["places.weight"] : tensor<9x4xf32>
  %b = nn.embedding %places, %j : (tensor<9x4xf32>, tensor<?xi64>) -> tensor<?x4xf32> loc("places"("m.py":2:0))
  %s = nn.add %a, %b : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %g = einsum.weight ["norm.weight"] : tensor<4xf32>
  %h = einsum.weight ["norm.bias"] : tensor<4xf32>
  %o = nn.layer_norm %s, %g, %h {eps = 1.0e-05 : f64} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32> loc("norm"("m.py":3:0))
  %w = einsum.weight ["head.weight"] : tensor<3x4xf32>
  %c = einsum.contract "ti,oi->to" %o, %w : (tensor<?x4xf32>, tensor<3x4xf32>) -> tensor<?x3xf32> loc("head"("m.py":4:0))
  %v = einsum.weight ["head.bias"] : tensor<3xf32>
  %d = nn.add %c, %v : (tensor<?x3xf32>, tensor<3xf32>) -> tensor<?x3xf32> loc("head"("m.py":4:0))
  %y = attn.unpack %d, %p : (tensor<?x3xf32>, !attn.packing<1, 6>) -> tensor<1x6x3xf32>
  func.return %y : tensor<1x6x3xf32>
}
"""
INPUTS = {"x": np.array([[3, 1, 4, 1, 5, 9]]), "m": np.array([[1, 1, 1, 1, 1, 0]])}


def arrays() -> dict[str, Array]:
    """The weights of `MODEL`."""
    rng = np.random.default_rng(0)
    shapes = {
        "words.weight": (10, 4),
        "places.weight": (9, 4),
        "norm.weight": (4,),
        "norm.bias": (4,),
        "head.weight": (3, 4),
        "head.bias": (3,),
    }
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def put(name: str, value: float, *place: int) -> Change:
    """A change of one weight: at a place, or in a row."""

    def change(weights: dict[str, Array]) -> None:
        weights[name][place] = value

    return change


def on_hdp(change: Change) -> Array:
    """What the machine computes with changed weights."""
    weights = arrays()
    change(weights)
    module, store = Parser(make_context(), MODEL).parse_module(), WeightStore(weights)
    passes = pipeline_text(Options(Hdp("hdp-edge"))).split(",")[len(RAISE) :]
    hardware = load_hardware("hdp-edge")
    context = make_context(store, hardware=hardware)
    run_passes(context, module, build(",".join(passes)))
    return run_module(module, INPUTS, store, hardware)["y"]


def on_numpy(change: Change, folder: Path) -> Array:
    """What the NumPy program computes with changed weights."""
    weights = arrays()
    change(weights)
    module = Parser(make_context(), MODEL).parse_module()
    emit_program(module, WeightStore(weights), folder / "prog.py")
    spec = importlib.util.spec_from_file_location("prog", folder / "prog.py")
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    with np.errstate(invalid="ignore"):
        return program.main(**INPUTS)["y"]


@pytest.mark.parametrize(
    ("change", "message", "place"),
    [
        (
            put("words.weight", np.inf, 7),
            "weight 'words.weight' holds 4 infinities at row 7",
            "words (m.py:1)",
        ),
        (
            put("words.weight", np.nan, 7, 2),
            "weight 'words.weight' holds 1 NaN at [7, 2]",
            "words (m.py:1)",
        ),
        (
            put("places.weight", -np.inf, 5, 0),
            "weight 'places.weight' holds 1 infinity at [5, 0]",
            "places (m.py:2)",
        ),
        (
            put("norm.weight", np.inf, 3),
            "weight 'norm.weight' holds 1 infinity at [3]",
            "norm (m.py:3)",
        ),
        (put("norm.bias", np.nan), "weight 'norm.bias' holds 4 NaN at [0], [1], [2], ...", "norm (m.py:3)"),
        (put("head.weight", np.nan, 0, 0), "weight 'head.weight' holds 1 NaN at [0, 0]", "head (m.py:4)"),
        (put("head.bias", -np.inf, 2), "weight 'head.bias' holds 1 infinity at [2]", "head (m.py:4)"),
    ],
)  # fmt: skip
def test_fixed_point_refuses_what_it_would_read(change: Change, message: str, place: str) -> None:
    with pytest.raises(HeatcError) as caught:
        on_hdp(change)
    assert caught.value.message == f"{message}: fixed point has no code for it"
    assert caught.value.place == place
    assert caught.value.exit_code == 1
    assert "use --target numpy" in caught.value.notes[0]


def test_rows_that_no_input_can_name_do_no_harm() -> None:
    def change(weights: dict[str, Array]) -> None:
        weights["places.weight"][6:] = (np.inf, np.nan, -np.inf, 3e38)

    np.testing.assert_array_equal(on_hdp(change), on_hdp(lambda _: None))


@pytest.mark.parametrize(
    "change",
    [
        put("head.bias", -np.inf, 2),
        put("head.weight", np.inf, 1, 1),
        put("words.weight", np.inf, 4),
        put("words.weight", np.nan, 7),
        put("norm.bias", np.inf, 0),
        put("places.weight", np.inf, 8),
    ],
)
def test_the_numpy_program_computes_with_them_as_pytorch(change: Change, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weights = arrays()
    change(weights)
    w = {name: torch.from_numpy(a) for name, a in weights.items()}
    x = w["words.weight"][torch.from_numpy(INPUTS["x"])] + w["places.weight"][torch.arange(6)]
    normed = torch.nn.functional.layer_norm(x, (4,), w["norm.weight"], w["norm.bias"], 1e-5)
    want = (normed @ w["head.weight"].T + w["head.bias"]).numpy()
    want[INPUTS["m"] == 0] = 0
    np.testing.assert_allclose(on_numpy(change, tmp_path), want, rtol=1e-4, atol=1e-5)


def test_factors_are_refused_by_the_same_text() -> None:
    weights = arrays()
    weights["head.weight"][0, 0] = np.nan
    store = WeightStore(weights)
    module = Parser(make_context(), MODEL).parse_module()
    passes = build('heat-decompose{rank=2 init=plain layers="head"}')
    with pytest.raises(HeatcError) as caught:
        run_passes(make_context(store), module, passes)
    message = "weight 'head.weight' holds 1 NaN at [0, 0]: it has no factors"
    assert (caught.value.message, caught.value.place) == (message, "head (m.py:4)")


@pytest.mark.parametrize("name", sorted(arrays()))
@pytest.mark.parametrize("exponent", [10, 20, 30, 38])
def test_huge_weights_have_a_type_or_a_reason(name: str, exponent: int) -> None:
    def change(weights: dict[str, Array]) -> None:
        weights[name] *= np.float32(10.0**exponent / np.abs(weights[name]).max())

    weights = arrays()
    change(weights)
    reason = ""
    got = np.zeros(0)
    try:
        got = on_hdp(change)
    except PassFailedException as error:
        reason = str(error)
    if reason:
        assert "can be as large as" in reason
        assert reason.startswith(("head (m.py:4)", "norm (m.py:3)"))
        return
    want = execute(Parser(make_context(), MODEL).parse_module(), INPUTS, WeightStore(weights))["y"]
    size = np.abs(want).max()
    np.testing.assert_allclose(got / size, want / size, 0, 2e-3)
