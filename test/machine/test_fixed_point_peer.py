"""The datapath against apytypes, a fixed-point library that shares nothing with heatc."""

from __future__ import annotations

from typing import Any

import numpy as np
from apytypes import APyFixedArray, OverflowMode, QuantizationMode
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Array, Kit, Tiny, codes

WIDTHS = {"i8": 8, "i16": 16, "i32": 32}


def _fixed(array: Array, point: int, width: int = 16) -> Any:
    """Codes as the peer's numbers."""
    return APyFixedArray(array.astype(np.int64).tolist(), int_bits=width - point, frac_bits=point)


def _rounded(values: Any, point: int, width: int) -> Array:
    """Codes of the peer's numbers, rounded half to even and saturated by the peer."""
    cast = values.cast(
        int_bits=width - point,
        frac_bits=point,
        quantization=QuantizationMode.TIES_EVEN,
        overflow=OverflowMode.SAT,
    )
    return _codes(cast, point)


def _codes(values: Any, point: int) -> Array:
    """Exact: a code of at most 32 bits is a float64."""
    return np.rint(np.ldexp(values.to_numpy(), point)).astype(np.int64)


def _load(kit: Kit, array: Array, dtype: str) -> int:
    """A local tile with the contents of an array."""
    rows, cols = array.shape
    tile = kit.tile("local", dtype, array.nbytes)
    kit.emit("ld", t=tile, d=kit.put(array, dtype), rows=rows, cols=cols)
    return tile


POINTS = st.integers(0, 15)
SEEDS = st.integers(0, 1000)
BOUNDS = st.sampled_from([3, 200, 32767])


@given(SEEDS, BOUNDS, POINTS, POINTS, st.integers(0, 8), st.sampled_from(sorted(WIDTHS)))
@settings(max_examples=40, deadline=None)
def test_linear(seed: int, bound: int, px: int, pw: int, py: int, dtype: str):
    """A product, a bias at a point of its own, one rounding into any width."""
    x, w = codes((6, 9), seed, bound=bound), codes((5, 9), seed + 1, bound=bound)
    pb = min(px + pw, 7)
    bias = codes((1, 5), seed + 2, "i32")
    kit = Kit(Tiny(cores=1))
    dy = kit.tensor((6, 5), dtype)
    a, b, c = _load(kit, x, "i16"), _load(kit, w, "i16"), _load(kit, bias, "i32")
    acc, y = kit.tile("local", "acc", 6 * 5 * 6), kit.tile("local", dtype, 6 * 5 * 4)
    kit.emit("mm", acc=acc, a=a, b=b, first=1, b_transposed=1)
    moved = {"has_bias": 1, "bias_shift": px + pw - pb, "shift": px + pw - py}
    kit.emit("drain", t=y, acc=acc, bias=c, **moved)
    kit.emit("st", d=dy, t=y)
    result = kit.run()
    rows = _fixed(np.ones((6, 1)), 0) @ _fixed(bias, pb, 32)
    exact = _fixed(x, px) @ _fixed(w, pw).T + rows
    expected = _rounded(exact, py, WIDTHS[dtype])
    np.testing.assert_array_equal(kit.get(dy).astype(np.int64), expected)
    clipped = np.count_nonzero(expected != _rounded(exact, py, 60))
    assert sum(result.saturations.values()) == clipped


def _parts(array: Array, point: int) -> tuple[Any, Any]:
    """Integer part, truncated toward zero, and what it leaves."""
    whole = _fixed(array, point)
    integer = whole.cast(int_bits=17, frac_bits=0, quantization=QuantizationMode.TO_ZERO)
    return integer, whole - integer


@given(SEEDS, BOUNDS, POINTS, POINTS, st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_split_and_merge(seed: int, bound: int, pq: int, pk: int, ps: int):
    """Both parts of q and k, three of their four products, and the adder's sum."""
    q, k = codes((4, 6), seed, bound=bound), codes((7, 6), seed + 1, bound=bound)
    identity = np.eye(6, dtype=np.int16)
    kit = Kit(Tiny(cores=1))
    kit.emit("li", rd=60, imm=7)
    one = _load(kit, identity, "i16")
    stored = {name: kit.tensor(x.shape, "i16") for name, x in (("q", q), ("k", k))}
    tiles: dict[str, int] = {}
    for name, x, point in (("q", q, pq), ("k", k, pk)):
        source = _load(kit, x, "i16")
        acc = kit.tile("local", "acc", x.size * 6)
        parts = [kit.tile("local", "i16", x.nbytes) for _ in range(2)]
        kit.emit("mm", acc=acc, a=source, b=one, first=1)
        kit.emit("drains", ti=parts[0], tf=parts[1], acc=acc, point=point)
        kit.emit("st", d=stored[name], t=parts[1])
        tiles |= {f"{name}i": parts[0], f"{name}f": parts[1]}
    a, s = kit.tile("local", "i32", 112), kit.tile("local", "i32", 112)
    theta, mask = kit.tile("local", "acc", 48), kit.tile("local", "i8", 2)
    f1, f2 = kit.tile("local", "acc", 168), kit.tile("local", "acc", 168)
    ds = kit.tensor((4, 7), "i32")
    kit.emit("scores", a=a, q=tiles["qi"], k=tiles["ki"], theta=theta)
    kit.emit("mask", m=mask, theta=theta, rho=0.0)
    operands = {n: tiles[n] for n in ("qi", "qf", "ki", "kf")}
    kit.emit("frac", f1=f1, f2=f2, mask=mask, **operands)
    points = {"point_q": pq, "point_k": pk, "point_s": ps}
    kit.emit("add", s=s, a=a, f1=f1, f2=f2, mask=mask, pruned="zero", **points)
    kit.emit("st", d=ds, t=s)
    kit.run()

    (qi, qf), (ki, kf) = _parts(q, pq), _parts(k, pk)
    np.testing.assert_array_equal(kit.get(stored["q"]), _codes(qf, pq))
    np.testing.assert_array_equal(kit.get(stored["k"]), _codes(kf, pk))
    integer = qi @ ki.T
    merged = _rounded(integer + qf @ ki.T + qi @ kf.T, ps, 32)
    kept = _kept(integer.to_numpy())
    np.testing.assert_array_equal(kit.get(ds), np.where(kept, merged, 0))


def _kept(scores: Array) -> Array:
    """Scores in 2 x 2 blocks whose absolute sum reaches the mean of their row of blocks."""
    padded = np.zeros((4, 8))
    padded[:, :7] = np.abs(scores)
    theta = padded.reshape(2, 2, 4, 2).sum(axis=(1, 3))
    blocks = theta >= theta.sum(axis=1, keepdims=True) / 4
    return blocks.repeat(2, axis=0).repeat(2, axis=1)[:, :7]
