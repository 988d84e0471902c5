"""Blocks of scores of other sizes, instruction by instruction."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from machine_kit import Kit, Tiny, codes

from heatc.errors import HeatcError, InfeasibleError
from heatc.hardware import load_hardware
from heatc.isa import units
from heatc.machine.energy import energy_report

LENGTH = 9


def _begin(kit: Kit, block: tuple[int, int] | None, length: int | None = None) -> None:
    length = length or LENGTH
    mask, positions, inverse = (kit.put(np.ones((1, length), np.int64), "i64"),) + tuple(
        kit.tensor((1, length), "i64") for _ in range(2)
    )
    kit.emit("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=length, has_mask=1)
    kit.emit("seq", rb=0)
    if block is not None:
        kit.emit("blocks", rows=block[0], columns=block[1])


def _ranked(kit: Kit, block: tuple[int, int] | None, rho: float = 0.2) -> dict[str, int]:
    """Scores of queries that are the keys, and their mask."""
    _begin(kit, block)
    x = kit.put(codes((LENGTH, 3), 5, "i8", 9), "i8")
    tiles = {
        name: kit.tile("local", dtype, 600)
        for name, dtype in (("x", "i8"), ("a", "i32"), ("theta", "acc"), ("m", "i8"))
    }
    kit.emit("ld", t=tiles["x"], d=x, rows=LENGTH, cols=3)
    x_tile, theta = tiles["x"], tiles["theta"]
    kit.emit("scores", a=tiles["a"], q=x_tile, k=x_tile, theta=theta, r=theta)
    kit.emit("mask", m=tiles["m"], theta=theta, rho=rho)
    return tiles


def _expected(block: tuple[int, int], rho: float = 0.2) -> Any:
    x = codes((LENGTH, 3), 5, "i8", 9).astype(np.int64)
    return units.block_mask(units.block_importance(x @ x.T, block), rho)


@pytest.mark.parametrize("block", [(1, 1), (4, 2), (8, 8), (2, 2), None])
def test_masks_of_a_size(block: tuple[int, int] | None):
    """Mask and ranking: up(blocks, 2) cycles of the two lanes; both 2 x 2 unless it is said."""
    kit = Kit(Tiny(cores=1))
    tiles = _ranked(kit, block)
    seen: dict[str, Any] = {}

    def watch(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "mask":
            seen["mask"] = np.array(state.tile(tiles["m"]).read().array[0])

    result = kit.run(watch)
    high, wide = block or (2, 2)
    np.testing.assert_array_equal(seen["mask"], _expected((high, wide)))
    blocks = -(-LENGTH // high) * -(-LENGTH // wide)
    assert result.blocks_total == blocks
    assert result.busy["se"].tolist() == [-(-blocks // 2)]


@pytest.mark.parametrize(
    ("block", "high", "wide"), [((1, 1), 4, 4), ((4, 2), 1, 2), ((2, 2), 2, 2), ((8, 8), 0.5, 0.5)]
)
def test_products_of_kept_blocks(block: tuple[int, int], high: float, wide: float):
    """An array of 4 x 4 holds `high` block rows and `wide` blocks of them in a fold, or parts of one."""
    kit = Kit(Tiny(cores=1))
    tiles = _ranked(kit, block)
    f1, f2 = kit.tile("local", "acc", 600), kit.tile("local", "acc", 600)
    x = tiles["x"]
    kit.emit("frac", f1=f1, f2=f2, qi=x, qf=x, ki=x, kf=x, mask=tiles["m"])
    result = kit.run()
    kept = _expected(block).sum(axis=1).tolist()
    folds = [-(-n // wide) if wide >= 1 else n / wide for n in kept]
    size = max(1, int(high))
    times = max(1, 1 / high)
    total = sum(max(folds[i : i + size]) for i in range(0, len(folds), size)) * times
    scores = 3 * 3 * 3 + 6
    assert result.busy["pe"].tolist() == [scores + 2 * 3 * total + 6]


def test_what_the_engine_does_not_have_is_refused():
    for block in ((3, 2), (0, 1)):
        kit = Kit(Tiny(cores=1))
        _begin(kit, block)
        with pytest.raises(
            InfeasibleError, match=rf"of tiny has no blocks of {block[0]}x"
        ) as caught:
            kit.run()
        assert list(caught.value.notes) == ["sparsity_engine.blocks: 2x2, 1x1, 4x2, 8x8"]
    kit = Kit(Tiny(cores=1, blocks=((1, 1),)))
    _ranked(kit, None)
    with pytest.raises(InfeasibleError, match="tiny has no blocks of 2x2"):
        kit.run()


def test_blocks_do_not_change_under_a_mask():
    """Importances, masks and the rows of a group are of blocks of one size."""
    kit = Kit(Tiny(cores=1))
    tiles = _ranked(kit, (4, 2))
    kit.code = [i for i in kit.code if i.mnemonic != "mask"]
    kit.emit("blocks", rows=2, columns=2)
    kit.emit("mask", m=tiles["m"], theta=tiles["theta"], rho=0.0)
    with pytest.raises(HeatcError, match="t2 has blocks of 4x2, expected 2x2"):
        kit.run()
    kit = Kit(Tiny(cores=1))
    tiles = _ranked(kit, (4, 2))
    kit.emit("all")
    f1, f2, x = kit.tile("local", "acc", 600), kit.tile("local", "acc", 600), tiles["x"]
    kit.emit("frac", f1=f1, f2=f2, qi=x, qf=x, ki=x, kf=x, mask=tiles["m"])
    with pytest.raises(HeatcError, match="t3 has blocks of 4x2, expected 2x2"):
        kit.run()
    kit = Kit(Tiny(cores=2))
    _begin(kit, None)
    kit.emit("group", parts=2, rows=6)
    kit.emit("blocks", rows=4, columns=2)
    with pytest.raises(HeatcError, match="6 rows of a part do not end with a block"):
        kit.run()
    kit = Kit(Tiny(cores=2))
    _begin(kit, (4, 2))
    kit.emit("group", parts=2, rows=6)
    with pytest.raises(HeatcError, match="6 rows of a part do not end with a block"):
        kit.run()


# --- The greatest of a row -----------------------------------------------------------------------


def _topk(kit: Kit, block: tuple[int, int], density: float) -> dict[str, int]:
    tiles = _ranked(kit, block)
    kit.code = [i for i in kit.code if i.mnemonic != "mask"]
    kit.emit("topk", m=tiles["m"], theta=tiles["theta"], density=density)
    return tiles


@pytest.mark.parametrize(
    ("block", "density", "compares"),
    # 9 keys are sorted as 16: 8 * 10 compare-exchanges; 5 as 8: 4 * 6; 2 need one.
    [((1, 1), 0.5, 80), ((2, 2), 0.25, 24), ((2, 2), 1.0, 24), ((8, 8), 0.01, 1)],
)
def test_the_greatest_of_block_rows(block: tuple[int, int], density: float, compares: int):
    """Ties go to the left; a sort of each row and a comparison a block, two a cycle."""
    kit = Kit(Tiny(cores=1))
    tiles = _topk(kit, block, density)
    seen: dict[str, Any] = {}

    def watch(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "topk":
            seen["mask"] = np.array(state.tile(tiles["m"]).read().array[0])

    result = kit.run(watch)
    x = codes((LENGTH, 3), 5, "i8", 9).astype(np.int64)
    theta = units.block_importance(x @ x.T, block)
    rows, columns = theta.shape
    number = max(1, int(np.ceil(density * columns)))
    for row, kept in zip(theta.tolist(), seen["mask"]):
        best = sorted(range(columns), key=lambda j: (-row[j], j))[:number]
        assert sorted(best) == np.flatnonzero(kept).tolist()
    assert result.busy["se"].tolist() == [-(-rows * (compares + columns) // 2)]
    assert result.blocks_total == rows * columns
    assert result.blocks_kept == rows * number


def test_a_single_block_is_sorted_without_a_comparison(monkeypatch: pytest.MonkeyPatch):
    """And is charged all the same: for the block itself."""
    monkeypatch.setattr(sys.modules[__name__], "LENGTH", 8)
    kit = Kit(Tiny(cores=1))
    _topk(kit, (8, 8), 0.5)
    result = kit.run()
    assert (result.blocks_total, result.blocks_kept) == (1, 1)
    actions = energy_report(result, load_hardware("hdp-edge")).actions
    assert actions["block"] == 1


@pytest.mark.parametrize("density", [0.0, -0.5, 1.5, float("inf")])
def test_a_density_is_a_share(density: float):
    kit = Kit(Tiny(cores=1))
    _topk(kit, (2, 2), density)
    with pytest.raises(HeatcError, match=r"is outside of \(0, 1\]"):
        kit.run()
