"""Made-up inputs: within the tables, padded in every way, of the model's own types."""

from __future__ import annotations

import math

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.errors import HeatcError
from heatc.parsing import parse_module
from heatc.samples import (
    KINDS,
    LEFT_AND_HOLES,
    MaskValues,
    mask_inputs,
    padding,
    sample_inputs,
    table_limits,
)

ENCODER = """
func.func @main(
  %ids: tensor<3x8xi64> {heatc.name = "ids"},
  %mask: tensor<3x8xi64> {heatc.name = "mask"},
  %x: tensor<3x8x4xf32> {heatc.name = "x"},
  %flag: tensor<3xi1> {heatc.name = "flag"},
  %count: tensor<3xi32> {heatc.name = "count"}
) -> (tensor<3x8x4xf32> {heatc.name = "y"}) {
  %t = einsum.weight ["t"] : tensor<5x4xf32>
  %moved = nn.transpose %ids {permutation = array<i64: 1, 0>} : (tensor<3x8xi64>) -> tensor<8x3xi64>
  %back = nn.transpose %moved {permutation = array<i64: 1, 0>} : (tensor<8x3xi64>) -> tensor<3x8xi64>
  %e = nn.embedding %t, %back : (tensor<5x4xf32>, tensor<3x8xi64>) -> tensor<3x8x4xf32>
  %y = nn.add %e, %x : (tensor<3x8x4xf32>, tensor<3x8x4xf32>) -> tensor<3x8x4xf32>
  func.return %y : tensor<3x8x4xf32>
}
"""


@pytest.fixture
def module() -> ModuleOp:
    return parse_module(make_context(), ENCODER.encode(), "encoder.mlir")


def test_inputs_fit_the_module(module: ModuleOp):
    assert table_limits(module) == {"ids": 5}
    assert mask_inputs(module) == {"mask": MaskValues()}
    for seed in range(20):
        inputs = sample_inputs(module, seed=seed)
        assert {n: (a.shape, a.dtype.name) for n, a in inputs.items()} == {
            "ids": ((3, 8), "int64"),
            "mask": ((3, 8), "int64"),
            "x": ((3, 8, 4), "float32"),
            "flag": ((3,), "bool"),
            "count": ((3,), "int32"),
        }
        assert 0 <= inputs["ids"].min() <= inputs["ids"].max() < 5
        assert 0 <= inputs["count"].min() <= inputs["count"].max() <= 3
    first, again = sample_inputs(module), sample_inputs(module)
    assert all(np.array_equal(again[name], array) for name, array in first.items())


def test_samples_are_padded_in_turn(module: ModuleOp):
    mask = sample_inputs(module, ("no padding", "one token"))["mask"]
    assert mask.sum(axis=1).tolist() == [8, 1, 8]


def test_masks_may_have_other_values(module: ModuleOp):
    masks = {
        "mask": MaskValues(((0, 0),), ((-math.inf, -100), (2, 2))),
        "ids": MaskValues(((-math.inf, -1), (1, math.inf)), ((0, 0),)),
        "x": MaskValues(),
    }
    inputs = sample_inputs(module, ("no padding", LEFT_AND_HOLES), masks=masks)
    assert inputs["mask"][0].tolist() == [0] * 8
    assert set(inputs["mask"][1].tolist()) == {0, -100, 2}
    assert masks["mask"].tells(inputs["mask"]).tolist() == (inputs["mask"] == 0).tolist()
    assert not inputs["ids"][1, :3].any()
    assert set(inputs["ids"][0].tolist()) <= {1, 2, 3, 4}
    assert set(inputs["x"].ravel().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("values", "real", "masked"),
    [
        (MaskValues(((1, math.inf),), ((-math.inf, 0),)), {1, 2, 2**31 - 1}, {0, -1, -(2**31)}),
        (MaskValues(((3, 3),), ((5, 9),)), {3}, {5, 6, 8, 9}),
        (MaskValues(((-math.inf, -1),), ((0, math.inf),)), {-1, -2, -(2**31)}, {0, 1, 2**31 - 1}),
    ],
)
def test_masks_may_hold_numbers_far_from_the_usual_ones(
    module: ModuleOp, values: MaskValues, real: set[int], masked: set[int]
):
    """A mask of which -1 is padding was read as truth values once, of which -1 is one."""
    found: tuple[set[int], set[int]] = (set(), set())
    for seed in range(8):
        mask = sample_inputs(
            module, ("right padding",), masks={"mask": values}, seed=seed, far=True
        )["mask"]
        is_real = values.tells(mask)
        found[0].update(mask[is_real].tolist())
        found[1].update(mask[~is_real].tolist())
    assert found == (real, masked)


def test_integers_can_be_kept_small(module: ModuleOp):
    assert not sample_inputs(module, most_integer=0)["count"].any()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_what_its_name_says(kind: str, length: int):
    for seed in range(30):
        real = padding(kind, length, np.random.default_rng(seed))
        assert real.shape == (length,)
        assert real.any()
        if kind == "no padding":
            assert real.all()
        elif kind == "one token":
            assert real.sum() == 1
        elif kind == "right padding":
            assert (np.diff(real.astype(int)) <= 0).all()
            assert real.all() == (length == 1)
        else:
            assert real[-1]
            assert real[0] == (length == 1)
            first = int(real.argmax())
            assert length - first < 3 or not real[first + 1]


def test_open_axes_have_some_size():
    text = b"func.func @main(%x: tensor<?x3xf32>) -> tensor<?x3xf32> { func.return %x : tensor<?x3xf32> }"
    module = parse_module(make_context(), text, "x.mlir")
    assert sample_inputs(module)["input_0"].shape == (5, 3)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind of padding 'both'"):
        padding("both", 4, np.random.default_rng(0))


def test_a_type_without_an_array_is_refused():
    text = (
        b"func.func @main(%x: tensor<2xbf16>) -> tensor<2xbf16> { func.return %x : tensor<2xbf16> }"
    )
    module = parse_module(make_context(), text, "x.mlir")
    with pytest.raises(HeatcError, match="no array has elements of type bf16"):
        sample_inputs(module)
