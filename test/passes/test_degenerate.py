"""Weights and calibration inputs that numerics stumble over: factors that are finite, or a reason."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.parser import Parser

import heatc.heat.start as starting
from heatc.api import make_context
from heatc.errors import HeatcError
from heatc.execute_each import ExecuteEach
from heatc.heat.calibrate import read_calibration
from heatc.heat.decompose import decompose
from heatc.heat.formats import FORMATS, Format, default_modes, uniform
from heatc.heat.norm import Matrix, relative_error
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.plan import read_plan
from heatc.remarks import Remark
from heatc.weights import WeightStore

OUT, IN = 12, 8
RNG = np.random.default_rng(0)


def ranked(rank: int) -> Matrix:
    """A weight of a rank."""
    return RNG.standard_normal((OUT, rank)) @ RNG.standard_normal((rank, IN))


WEIGHTS: dict[str, Matrix] = {
    "zero": np.zeros((OUT, IN)),
    "constant": np.full((OUT, IN), 0.01),
    "rank 1": ranked(1),
    "rank 2": ranked(2),
    "one row": ranked(4) * (np.arange(OUT)[:, None] == 3),
    "one column": ranked(4) * (np.arange(IN) == 5),
    "identity": np.eye(OUT, IN),
    "tiny": ranked(4) * 1e-30,
    "denormal": ranked(4) * 1e-42,
    "huge": ranked(4) * 1e30,
    "outliers": np.where(RNG.random((OUT, IN)) < 0.05, 1e20, 1.0) * ranked(4),
}
X = RNG.standard_normal((100, IN))
MOMENTS: dict[str, Matrix | None] = {
    "none": None,
    "usual": X.T @ X / 100,
    "zero": np.zeros((IN, IN)),
    "one token": np.outer(X[0], X[0]),
    "one channel": np.diag((np.arange(IN) == 3) * 1.0),
    "tiny": X.T @ X * 1e-32,
    "huge": X.T @ X * 1e28,
}


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_factors_are_finite_and_no_worse_than_none(weight: str, format_: Format) -> None:
    ins, outs = default_modes(format_, IN, OUT, 0 if format_ == "low-rank" else 2)
    for name, moment in MOMENTS.items():
        for rank in (1, 4, 1000) if name in ("none", "one channel") else (2,):
            spec = uniform(format_, ins, outs, rank)
            found = decompose(WEIGHTS[weight], spec, moment, refinements=60 if rank > 4 else 10)
            assert tuple(a.shape for a in found.arrays) == spec.factor_shapes
            assert all(np.isfinite(a.astype(np.float32)).all() for a in found.arrays)
            assert found.error <= 1.0 + 1e-4
            if rank == 1000:
                assert found.error < 2e-2


@pytest.mark.parametrize("format_", FORMATS)
def test_scale_is_kept(format_: Format) -> None:
    ins, outs = default_modes(format_, IN, OUT, 0 if format_ == "low-rank" else 2)
    spec, weight = uniform(format_, ins, outs, 1000), ranked(6)
    for scale in (1e-30, 1.0, 1e30):
        found = decompose(weight * scale, spec)
        assert relative_error(weight, found.matrix() / scale, None) < 2e-3


def test_factors_that_are_far_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(w: Matrix, norm: object, spec: object, arrays: list[Matrix], steps: int) -> Any:
        return [100 * a for a in arrays]

    monkeypatch.setattr(starting, "refine", worse)
    spec = uniform("cp", (2, 4), (3, 4), 2)
    with pytest.raises(HeatcError, match="comes no nearer to the weight than 0 does") as caught:
        decompose(ranked(4), spec)
    assert any("leave it dense" in note for note in caught.value.notes)


# ---- the pass ---------------------------------------------------------------------------------

# Three uses of one block by two modules, and a head that shares the table of words.
SHARED = """
func.func @main(%ids: tensor<1x6xi64> {heatc.name = "ids"}, %mask: tensor<1x6xi64> {heatc.name = "attention_mask"}) -> (tensor<1x6x30xf32> {heatc.name = "y"}) {
  %p = attn.packing %mask : (tensor<1x6xi64>) -> !attn.packing<1, 6>
  %i = attn.pack %ids, %p : (tensor<1x6xi64>, !attn.packing<1, 6>) -> tensor<?xi64>
  %t = einsum.weight ["words.weight"] : tensor<30x8xf32>
  %x = nn.embedding %t, %i : (tensor<30x8xf32>, tensor<?xi64>) -> tensor<?x8xf32> loc("words"("m.py":1:0))
  %w = einsum.weight ["block.0.weight"] : tensor<8x8xf32>
  %a = einsum.contract "ti,oi->to" %x, %w : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32> loc("block.0"("m.py":2:0))
  %b = nn.relu %a : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %c = einsum.contract "ti,oi->to" %b, %w : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32> loc("block.1"("m.py":2:0))
  %d = nn.relu %c : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %e = einsum.contract "ti,oi->to" %d, %w : (tensor<?x8xf32>, tensor<8x8xf32>) -> tensor<?x8xf32> loc("block.1"("m.py":2:0))
  %h = einsum.contract "ti,oi->to" %e, %t : (tensor<?x8xf32>, tensor<30x8xf32>) -> tensor<?x30xf32> loc("head"("m.py":3:0))
  %y = attn.unpack %h, %p : (tensor<?x30xf32>, !attn.packing<1, 6>) -> tensor<1x6x30xf32>
  func.return %y : tensor<1x6x30xf32>
}
"""


def arrays() -> dict[str, NDArray[Any]]:
    """The weights of `SHARED`."""
    rng = np.random.default_rng(1)
    shapes = {"words.weight": (30, 8), "block.0.weight": (8, 8)}
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def decomposed(
    options: str, *, plan: Path | None = None, data: Path | None = None
) -> tuple[list[Remark], WeightStore, Any]:
    """What the pass says, the weights after it, and the module."""
    module, weights = Parser(make_context(), SHARED).parse_module(), WeightStore(arrays())
    said: list[Remark] = []
    context = make_context(weights)
    context.remarks = said.append
    context.calibration = None if data is None else read_calibration(data)
    context.plan = None if plan is None else read_plan(plan)
    first = "" if plan is None else "apply-plan,"
    run_passes(context, module, build(f"{first}heat-decompose{{{options}}}"))
    return [r for r in said if r.chosen.get("format") != "dense"], weights, module


@pytest.mark.parametrize("more", ["", " spread=true"])
def test_every_use_of_a_shared_weight_counts_in_the_budget(more: str) -> None:
    said, _, _ = decomposed(f'init=plain ratio=0.5{more} layers="block.*"')
    assert len(said) == 3
    assert sum(r.chosen["macs"] for r in said) <= 0.5 * sum(r.weighed[0]["macs"] for r in said)


@pytest.mark.parametrize("name", ["block.0", "block.1", "block.*"])
def test_a_shared_weight_is_named_by_all_its_owners(name: str) -> None:
    said, weights, module = decomposed(f'init=plain rank=2 layers="{name}"')
    assert [r.message.partition(":")[0] for r in said] == ["block.0 (also block.1)"] * 3
    assert sorted(weights.added) == ["block.0.0", "block.0.1"]
    inputs = {"ids": np.arange(6)[None], "attention_mask": np.ones((1, 6), np.int64)}
    assert np.isfinite(execute(module, inputs, weights)["y"]).all()


def test_a_head_that_shares_a_table_has_its_own_name() -> None:
    said, weights, _ = decomposed('init=plain rank=2 layers="head"')
    assert [r.layer for r in said] == ["head"]
    assert sorted(weights.added) == ["head.0", "head.1"]


@pytest.mark.parametrize("more", ['layers="head"', 'layers="block.*"', "tables=true", ""])
def test_what_is_shared_is_compared_where_it_is_used(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference of one layer's factors leaves the weight of the others, and has its bias."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data, inputs = (
        tmp_path / "data.npz",
        {"ids": np.arange(6)[None], "attention_mask": np.ones((1, 6))},
    )
    ids = RNG.integers(0, 30, (8, 6))
    np.savez(data, ids=ids, attention_mask=np.ones((8, 6), np.int64))
    module, weights = Parser(make_context(), SHARED).parse_module(), WeightStore(arrays())
    lines: list[str] = []
    watcher = ExecuteEach(inputs, weights, lambda *_: {}, lines.append)
    context = make_context(weights)
    context.calibration = read_calibration(data)
    run_passes(context, module, build(f"heat-decompose{{rank=2 {more}}}"), [watcher])
    assert lines[0].startswith("heat-decompose: changes-values, max difference")
    assert len(weights.added) > 1


def test_a_plan_names_the_first_owner(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    heat = '{"heat": {"format": "low-rank", "ranks": [8]}}'
    plan.write_text(f'{{"schema": 1, "layers": {{"block.1": {heat}}}}}')
    with pytest.raises(HeatcError, match=r"block\.1.*shares its weight with 'block\.0'"):
        decomposed("init=plain", plan=plan)
    plan.write_text(f'{{"schema": 1, "layers": {{"block.0": {heat}}}}}')
    said, _, _ = decomposed("init=plain", plan=plan)
    assert [r.chosen["ranks"] for r in said] == [[8]] * 3


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.full((4, 6), 30), "values 30 to 30, the table that it indexes has 30 rows"),
        (np.full((4, 6), -1), "values -1 to -1, the table"),
        (np.zeros((4, 6), np.float32), "has shape .* and dtype float32, the model takes"),
    ],
)
def test_calibration_ids_that_no_table_has(ids: Any, message: str, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, ids=ids, attention_mask=np.ones((4, 6), np.int64))
    with pytest.raises(HeatcError, match=f"calibration input 'ids' (has )?{message}"):
        decomposed('rank=4 layers="block.*"', data=data)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint64])
def test_calibration_ids_of_any_integers(dtype: Any, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, ids=np.ones((4, 6), dtype), attention_mask=np.ones((4, 6), np.uint8))
    assert len(decomposed('rank=4 layers="block.*"', data=data)[0]) == 3


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.ones, None), (np.zeros, "no real token")],
)
@pytest.mark.parametrize("more", ["ratio=0.5 spread=true", "rank=4", "rank=4 statistics=original"])
def test_calibration_inputs_that_say_little(
    mask: Any, message: str | None, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = tmp_path / "data.npz"
    np.savez(data, ids=np.full((4, 6), 3), attention_mask=mask((4, 6), np.int64))
    options = f'{more} layers="block.*"'
    if message is None:
        assert len(decomposed(options, data=data)[0]) == 3
        return
    with pytest.raises(HeatcError, match=message):
        decomposed(options, data=data)
