"""Low-bit predictions on the machine: their instructions one by one, and whole programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from machine_kit import Kit, Tiny, codes

from heatc.errors import HeatcError
from heatc.isa import units

LENGTH, DIM = 7, 5


def _kit(hardware: Tiny | None = None, block: int = 1) -> tuple[Kit, dict[str, int]]:
    """Queries, keys and the tiles that predictions use; one sequence of `LENGTH` tokens."""
    kit = Kit(hardware or Tiny(cores=1))
    mask, positions, inverse = (kit.put(np.ones((1, LENGTH), np.int64), "i64"),) + tuple(
        kit.tensor((1, LENGTH), "i64") for _ in range(2)
    )
    kit.emit("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=LENGTH, has_mask=1)
    kit.emit("seq", rb=0)
    kit.emit("blocks", rows=block, columns=block)
    names = {"q": "i16", "k": "i16", "ql": "i4", "kl": "i4", "s": "i32", "p": "i16"}
    names |= {"m": "i8", "n": "i8", "acc": "acc", "qp": "acc", "kp": "acc"}
    tiles = {name: kit.tile("local", dtype, 400) for name, dtype in names.items()}
    for name, seed in (("q", 1), ("k", 2)):
        tensor = kit.put(codes((LENGTH, DIM), seed, "i16", 900 * seed), "i16")
        kit.emit("ld", t=tiles[name], d=tensor, rows=LENGTH, cols=DIM)
        kit.emit("peak", t=tiles[f"{name}p"], x=tiles[name], first=1)
        low = {"t": tiles[f"{name}l"], "x": tiles[name], "peak": tiles[f"{name}p"]}
        kit.emit("low", **low, bits=4)
    return kit, tiles


def _operands() -> tuple[Any, Any]:
    q, k = (codes((LENGTH, DIM), seed, "i16", 900 * seed).astype(np.int64) for seed in (1, 2))
    return q, k


def _scores(kit: Kit, tiles: dict[str, int]) -> None:
    kit.emit("mm", acc=tiles["acc"], a=tiles["ql"], b=tiles["kl"], first=1, b_transposed=1)
    kit.emit("drainc", t=tiles["s"], acc=tiles["acc"], shift=0)


def _seen(kit: Kit, tiles: dict[str, int], *names: str) -> tuple[dict[str, Any], Any]:
    """What tiles hold at the end, and the result of the run."""
    found: dict[str, Any] = {}

    def watch(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "halt":
            found.update({n: np.array(state.tile(tiles[n]).read().array[0]) for n in names})

    return found, kit.run(watch)


# --- Instructions --------------------------------------------------------------------------------


def test_codes_of_few_bits():
    """The greatest magnitude in two parts; each number takes the adder a quarter of a cycle."""
    kit, tiles = _kit()
    part = kit.put(np.full((2, DIM), -3000, np.int16), "i16")
    kit.emit("ld", t=tiles["p"], d=part, rows=2, cols=DIM)
    kit.emit("peak", t=tiles["qp"], x=tiles["p"], first=0)
    kit.emit("low", t=tiles["m"], x=tiles["q"], peak=tiles["qp"], bits=8)
    found, result = _seen(kit, tiles, "ql", "kl", "m", "qp")
    for name, x in zip(("ql", "kl"), _operands()):
        np.testing.assert_array_equal(found[name], units.low_bits(x, 4)[0])
    whole = np.concatenate([_operands()[0], np.full((2, DIM), -3000)])
    np.testing.assert_array_equal(found["m"], units.low_bits(whole, 8)[0][:LENGTH])
    assert found["qp"].tolist() == [[3000]]
    assert result.busy["adder"].tolist() == [5 * -(-LENGTH * DIM // 4) + -(-2 * DIM // 4)]


def test_codes_above_a_peak_that_is_not_theirs():
    """They clip: what is read of masked positions is scaled by the peak of the real rows."""
    kit, tiles = _kit()
    kit.emit("low", t=tiles["kl"], x=tiles["k"], peak=tiles["qp"], bits=4)
    found, _ = _seen(kit, tiles, "kl")
    q, k = _operands()
    length = int(np.abs(q).max()).bit_length()
    scaled = np.rint(k * 2.0 ** (3 - length))
    assert np.abs(scaled).max() > 7
    np.testing.assert_array_equal(found["kl"], np.clip(scaled, -7, 7))


@pytest.mark.parametrize("split", [16, 8, 4])
def test_low_bit_products_at_the_rate_of_the_array(split: int):
    """4 x 4 bits: 1, 4 or 16 products a PE and cycle, along the depth; 2 x 2 folds."""
    kit, tiles = _kit(Tiny(cores=1, split_bits=split))
    _scores(kit, tiles)
    found, result = _seen(kit, tiles, "s")
    q, k = (units.low_bits(x, 4)[0] for x in _operands())
    np.testing.assert_array_equal(found["s"], q @ k.T)
    steps = -(-DIM // (16 // split) ** 2)
    assert result.busy["pe"].tolist() == [4 * steps + 6 + 2 * LENGTH]


def test_predicted_scores_at_a_point():
    """The shift follows the bit lengths of the peaks."""
    kit, tiles = _kit()
    kit.emit("mm", acc=tiles["acc"], a=tiles["ql"], b=tiles["kl"], first=1, b_transposed=1)
    peaks = {"q_peak": tiles["qp"], "k_peak": tiles["kp"]}
    kit.emit("drainp", t=tiles["s"], acc=tiles["acc"], **peaks, shift=26)
    found, result = _seen(kit, tiles, "s")
    (q, n_q), (k, n_k) = (units.low_bits(x, 4) for x in _operands())
    assert (int(n_q), int(n_k)) == (10, 11)
    np.testing.assert_array_equal(found["s"], np.rint(np.ldexp((q @ k.T).astype(float), 21 - 26)))
    assert result.saturations == {}


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.3])
def test_two_rounds_of_mean_filtering(rho: float):
    """The second looks at what the first one kept; signed scores; each round ranks every score."""
    kit, tiles = _kit()
    _scores(kit, tiles)
    first = {"m": tiles["n"], "s": tiles["s"], "among": tiles["n"]}
    kit.emit("filter", **first, rho=rho)
    kit.emit("pick", acc=tiles["acc"], q=tiles["q"], k=tiles["k"], mask=tiles["n"])
    kit.emit("drainm", t=tiles["s"], acc=tiles["acc"], mask=tiles["n"], shift=8)
    second = {"m": tiles["m"], "s": tiles["s"], "among": tiles["n"]}
    kit.emit("filter", **second, rho=0.1, has_among=1)
    found, result = _seen(kit, tiles, "m", "n", "s")
    q, k = _operands()
    low = units.low_bits(q, 4)[0] @ units.low_bits(k, 4)[0].T
    kept = units.block_mask(low, rho)
    np.testing.assert_array_equal(found["n"], kept)
    whole = np.rint((q @ k.T) / 256).astype(np.int64)
    np.testing.assert_array_equal(found["s"], np.where(kept, whole, units.EXCLUDED))
    np.testing.assert_array_equal(found["m"], units.block_mask(whole, 0.1, kept))
    blocks = LENGTH * LENGTH
    assert result.blocks_total == 2 * blocks
    assert result.busy["se"].tolist() == [2 * -(-blocks // 2)]
    # Rows 0..3 and 4..6 of the array; the fullest row of each decides, 4 keys a fold.
    counts = kept.sum(axis=1)
    folds = sum(-(-int(counts[rows].max()) // 4) for rows in (slice(0, 4), slice(4, 7)))
    dense = 4 * DIM + 6 + 2 * LENGTH
    assert result.busy["pe"].tolist() == [dense + folds * DIM + 6 + folds * 4]
    assert result.macs == blocks * DIM + int(kept.sum()) * DIM


def test_probabilities_above_a_code():
    """And the first greatest of each row, whatever the code."""
    kit, tiles = _kit()
    rows = np.array([[5, 9, 9, 2, 0, 1, 3], [7] * LENGTH, [0] * LENGTH, [8, 7, 6, 9, 9, 1, 0]])
    probabilities = kit.put(np.vstack([rows, rows[:3]]).astype(np.int16), "i16")
    kit.emit("ld", t=tiles["p"], d=probabilities, rows=LENGTH, cols=LENGTH)
    kit.emit("likely", m=tiles["m"], p=tiles["p"], code=8)
    found, result = _seen(kit, tiles, "m")
    kept = [np.flatnonzero(row).tolist() for row in found["m"]]
    assert kept[:4] == [[1, 2], [0], [0], [3, 4]]
    assert result.busy["se"].tolist() == [-(-LENGTH * LENGTH // 2)]


def _refused(kit: Kit, message: str) -> None:
    with pytest.raises(HeatcError, match=message):
        kit.run()


def test_what_codes_need():
    for bits in (0, 1, 9, 15):
        kit, tiles = _kit()
        kit.emit("low", t=tiles["m"], x=tiles["q"], peak=tiles["qp"], bits=bits)
        _refused(kit, rf"bits {bits} are outside of 2..8")
    kit, tiles = _kit()
    kit.emit("low", t=tiles["ql"], x=tiles["q"], peak=tiles["qp"], bits=5)
    _refused(kit, "i4, too narrow for 5 bits")
    kit, tiles = _kit()
    _scores(kit, tiles)
    kit.emit("low", t=tiles["kl"], x=tiles["k"], peak=tiles["acc"], bits=4)
    _refused(kit, r"shape of t8 is \(7, 7\), expected \(1, 1\)")
    kit, tiles = _kit()
    kit.emit("peak", t=tiles["qp"], x=tiles["ql"], first=1)
    _refused(kit, "is i4, expected i8 or i16")


def test_what_masks_of_scores_need():
    kit, tiles = _kit(block=2)
    _scores(kit, tiles)
    kit.emit("filter", m=tiles["m"], s=tiles["s"], among=tiles["m"], rho=0.0)
    _refused(kit, r"size of a block is \(2, 2\), expected \(1, 1\)")
    for rho in (1.0, -1.0):
        kit, tiles = _kit()
        _scores(kit, tiles)
        kit.emit("filter", m=tiles["m"], s=tiles["s"], among=tiles["m"], rho=rho)
        _refused(kit, "is outside of")
    kit, tiles = _excluding()
    kit.emit("filter", m=tiles["m"], s=tiles["s"], among=tiles["n"], rho=0.0)
    _refused(kit, "t4 has excluded scores")
    kit, tiles = _excluding()
    low = {"m": tiles["m"], "p": tiles["p"]}
    kit.emit("softmax", p=tiles["p"], s=tiles["s"], multiplier=40000, shift=16, point=8)
    kit.emit("likely", **low, code=0)
    kit.emit("filter", m=tiles["n"], s=tiles["s"], among=tiles["m"], rho=-0.9, has_among=1)
    kit.run()
    kit, tiles = _excluding(rho=0.9)
    kit.emit("filter", m=tiles["m"], s=tiles["s"], among=tiles["p"], rho=0.0, has_among=1)
    _refused(kit, "read before it is written")


def _excluding(rho: float = 0.2) -> tuple[Kit, dict[str, int]]:
    """Scores of which a mask has excluded some."""
    kit, tiles = _kit()
    _scores(kit, tiles)
    kit.emit("filter", m=tiles["n"], s=tiles["s"], among=tiles["n"], rho=rho)
    kit.emit("pick", acc=tiles["acc"], q=tiles["q"], k=tiles["k"], mask=tiles["n"])
    kit.emit("drainm", t=tiles["s"], acc=tiles["acc"], mask=tiles["n"], shift=8)
    return kit, tiles


def test_a_round_looks_at_no_excluded_score():
    kit, tiles = _kit()
    _scores(kit, tiles)
    kit.emit("filter", m=tiles["n"], s=tiles["s"], among=tiles["n"], rho=-0.9)
    kit.emit("filter", m=tiles["m"], s=tiles["s"], among=tiles["n"], rho=0.6)
    kit.emit("pick", acc=tiles["acc"], q=tiles["q"], k=tiles["k"], mask=tiles["m"])
    kit.emit("drainm", t=tiles["s"], acc=tiles["acc"], mask=tiles["m"], shift=8)
    kit.emit("filter", m=tiles["m"], s=tiles["s"], among=tiles["n"], rho=0.0, has_among=1)
    _refused(kit, "among keeps an excluded score")


def test_tensors_hold_no_codes_of_4_bits():
    kit, _ = _kit()
    kit.put(np.zeros((1, 1), np.int8), "i4")
    _refused(kit, "a tensor of i4, which only tiles hold")
