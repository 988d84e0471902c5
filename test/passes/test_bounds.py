"""Bounds are sound: no input, random or searched for, exceeds them; and they are of some use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from heatc.interpreter.nn import gelu, layer_norm, softmax
from heatc.passes.analysis import bounds
from heatc.passes.analysis.bounds import Bound
from heatc.passes.analysis.normal_form import Product

Reals = NDArray[np.float64]
Function = Callable[[Reals], Reals]
WIDTH = 12
SEEDS = range(3)


def random_norm(seed: int) -> tuple[Reals, Reals]:
    rng = np.random.default_rng(seed)
    return rng.normal(1, 0.5, WIDTH), rng.normal(0, 0.3, WIDTH)


def normalised(gamma: Reals, beta: Reals) -> Function:
    return lambda x: layer_norm(x, gamma, beta, 1e-12)


def random_linear(seed: int, outputs: int = 10, inputs: int = WIDTH) -> tuple[Reals, Reals]:
    rng = np.random.default_rng(100 + seed)
    weight = rng.normal(0, 0.5, (outputs, inputs)).astype(np.float32)
    return weight.astype(np.float64), rng.normal(0, 0.5, outputs)


def of_linear(x: Bound, weight: Reals, bias: Reals | None, rounding: float = 0.0) -> Bound:
    return bounds.of_linear(x, weight.astype(np.float32), bias, rounding)


def climb(function: Function, channel: int, sign: float, seed: int, width: int = WIDTH) -> float:
    """The largest value of one channel that a hill climb without gradients finds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(128, width))
    step = 1.0
    for _ in range(50):
        values = sign * function(x)[:, channel]
        best = x[np.argsort(values)[-8:]]
        x = np.repeat(best, 16, 0) + step * rng.normal(size=(128, width))
        x[:8] = best
        step *= 0.92
    return float((sign * function(x)[:, channel]).max())


def check(function: Function, bound: Bound, seed: int, tight: float, width: int = WIDTH) -> None:
    """No search exceeds the peak of any channel, and the largest comes within a factor of it."""
    reached = np.array(
        [max(climb(function, c, s, seed, width) for s in (-1, 1)) for c in range(len(bound.peak))]
    )
    assert (reached <= bound.peak).all()
    assert bound.largest <= tight * reached.max()


def check_norms(values: Reals, bound: Bound, groups: list[slice]) -> None:
    for group in groups:
        assert np.linalg.norm(values[:, group], axis=1).max() <= bound.group_norm(group) * 1.000001


HALVES = [slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH), slice(0, WIDTH)]


@pytest.mark.parametrize("seed", SEEDS)
def test_layer_norm(seed: int):
    gamma, beta = random_norm(seed)
    bound = bounds.of_layer_norm(gamma, beta)
    # One channel far out reaches the bound itself.
    check(normalised(gamma, beta), bound, seed, 1.01)
    spikes = np.concatenate(
        [np.eye(WIDTH), -np.eye(WIDTH), np.random.default_rng(seed).normal(size=(500, WIDTH))]
    )
    check_norms(normalised(gamma, beta)(spikes), bound, HALVES)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_linear_of_layer_norm(seed: int, with_bias: bool):
    norm = normalised(*random_norm(seed))
    weight, bias = random_linear(seed)
    bound = of_linear(bounds.of_layer_norm(*random_norm(seed)), weight, bias if with_bias else None)

    def function(x: Reals) -> Reals:
        return norm(x) @ weight.T + (bias if with_bias else 0.0)

    # The bound does not know that the channels of a norm sum to 0.
    check(function, bound, seed, 1.3)
    values = function(np.random.default_rng(seed).normal(size=(2000, WIDTH)))
    check_norms(values, bound, [slice(0, 5), slice(5, 10), slice(0, 10)])


def test_layer_norm_without_spread():
    """Gammas of zero: the norm is its offset."""
    beta = np.arange(4.0)
    bound = bounds.of_layer_norm(np.zeros(4), beta)
    assert np.allclose(bound.peak, beta, rtol=2e-3)
    linear = of_linear(bound, np.eye(4), None)
    assert np.allclose(linear.peak, beta, rtol=5e-3)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("seed", SEEDS)
def test_feed_forward(seed: int, approximate: str):
    """norm, linear, GELU, linear: the second linear knows the first one's ellipsoid."""
    norm = normalised(*random_norm(seed))
    (w1, b1), (w2, b2) = random_linear(seed), random_linear(seed + 50, 6, 10)
    inner = bounds.of_gelu(of_linear(bounds.of_layer_norm(*random_norm(seed)), w1, b1))
    bound = of_linear(inner, w2, b2)

    def activate(x: Reals) -> Reals:
        return gelu(norm(x) @ w1.T + b1, approximate)

    check(activate, inner, seed, 1.3)
    check(lambda x: activate(x) @ w2.T + b2, bound, seed, 3.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_feed_forward_whose_linear_part_cancels(sign: float):
    """gelu(t) + gelu(-t) is |t|: the part of the bound that follows the magnitude is needed."""
    row = 10 * np.array([1.0, -1.0, 0.0, 0.0]) / np.sqrt(2)
    weight, last = np.stack([row, -row]), np.array([[sign, sign]])
    linear = of_linear(bounds.of_layer_norm(np.ones(4), np.zeros(4)), weight, None)
    bound = of_linear(bounds.of_gelu(linear), last, None)
    rows = normalised(np.ones(4), np.zeros(4))(np.array([[1.0, -1.0, 0.0, 0.0]]))
    reached = abs(float((gelu(rows @ weight.T, "none") @ last.T)[0, 0]))
    assert 19.9 < reached <= bound.largest < 1.1 * reached


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_dip_of_gelu(approximate: str):
    x = np.linspace(-10, 10, 200001)
    dip = np.maximum(x, 0) - gelu(x, approximate)
    assert dip.min() >= 0
    assert 0.169 < dip.max() <= bounds.GELU_DIP


@pytest.mark.parametrize("seed", SEEDS)
def test_relu_and_tanh(seed: int):
    norm = normalised(*random_norm(seed))
    w1, b1 = random_linear(seed)
    w2, b2 = random_linear(seed + 50, 6, 10)
    linear = of_linear(bounds.of_layer_norm(*random_norm(seed)), w1, b1)
    for function, of, tight in (
        (lambda t: np.maximum(t, 0), bounds.of_relu, 4.0),
        (np.tanh, bounds.of_tanh, 2.0),
    ):
        check(lambda x, f=function: f(norm(x) @ w1.T + b1), of(linear), seed, 1.3)
        bound = of_linear(of(linear), w2, b2)
        check(lambda x, f=function: f(norm(x) @ w1.T + b1) @ w2.T + b2, bound, seed, tight)


def test_sum():
    x, y = Bound(np.array([1.0, 2.0])), Bound(np.array([0.5, 3.0]))
    assert bounds.of_sum(x, y).peak.tolist() == [1.5, 5.0]


def attention(x: Reals, q: Reals, k: Reals, v: Reals, heads: int) -> tuple[Reals, Reals]:
    """Scores (heads, L, L) and weighted values (L, width) of one sequence."""
    parts = [(x @ w.T).reshape(len(x), heads, -1).transpose(1, 0, 2) for w in (q, k, v)]
    scores = parts[0] @ parts[1].transpose(0, 2, 1)
    out = softmax(scores) @ parts[2]
    return scores, out.transpose(1, 0, 2).reshape(len(x), -1)


@pytest.mark.parametrize("seed", SEEDS)
def test_attention(seed: int):
    norm, heads = normalised(*random_norm(seed)), 2
    q, k, v, o = (random_linear(seed + 10 * i, WIDTH)[0] for i in range(4))
    x = bounds.of_layer_norm(*random_norm(seed))
    of_q, of_k, of_v = (of_linear(x, w, None) for w in (q, k, v))
    reach = bounds.of_scores(of_q, of_k, heads)
    out = bounds.of_attention(of_v, heads, 4)
    last = of_linear(out, o, None)
    rng = np.random.default_rng(seed)
    # Each sequence stands along the directions in which q and k of one head stretch most.
    best = 0.0
    for trial in range(200):
        rows = norm(rng.normal(size=(4, WIDTH)) * 10 ** rng.uniform(-2, 2))
        if trial < 2 * heads:
            group = slice(trial // 2 * 6, trial // 2 * 6 + 6)
            product = q[group].T @ k[group]
            left, _, right = np.linalg.svd(product)
            rows[0], rows[1] = norm(np.stack([left[:, 0], right[0] * (-1) ** trial]))
        scores, values = attention(rows, q, k, v, heads)
        best = max(best, float(np.abs(scores).max()))
        assert (np.abs(values).max(0) <= out.peak).all()
        assert np.linalg.norm(values[:, :6], axis=1).max() <= out.group_norm(slice(0, 6))
        assert (np.abs(values @ o.T).max(0) <= last.peak).all()
    assert best <= reach
    assert reach <= 8 * best


@pytest.mark.parametrize("point", [2, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_rounding_is_covered(seed: int, point: int):
    """Activations and weights as coarse codes: still inside, through two linears and a GELU."""
    norm = normalised(*random_norm(seed))
    (w1, b1), (w2, b2) = random_linear(seed), random_linear(seed + 50, 6, 10)
    half = 2.0 ** -(point + 1)

    def coarse(x: Reals) -> Reals:
        return np.rint(x * 2.0**point) / 2.0**point

    x = bounds.of_layer_norm(*random_norm(seed)).rounded(point)
    y = of_linear(x, w1, b1, half).rounded(point)
    z = bounds.of_gelu(y).rounded(point)
    last = of_linear(z, w2, b2, half)

    def codes(rows: Reals) -> list[Reals]:
        a = coarse(norm(rows))
        b = coarse(a @ coarse(w1).T + b1)
        c = coarse(gelu(b, "none"))
        return [a, b, c, c @ coarse(w2).T + b2]

    for i, bound in enumerate((x, y, z, last)):
        check(lambda rows, i=i: codes(rows)[i], bound, seed, 8.0)


def test_a_masked_token_is_zero():
    """The row of a masked token, 0, is not in the ellipsoid of a norm: the bias alone is left."""
    gamma, beta = np.full(4, 0.01), np.full(4, 2.0)
    weight = np.eye(4)
    bias = -weight @ beta
    x = bounds.of_layer_norm(gamma, beta)
    assert of_linear(x, weight, bias).largest < 0.1
    assert of_linear(replace(x, may_be_zero=True), weight, bias).largest >= 2.0


def test_rounding_twice_adds_up():
    x = bounds.of_layer_norm(np.ones(4), np.zeros(4)).rounded(3).rounded(2)
    assert x.rounding == 2**-4 + 2**-3


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 40), (40, 3), (64, 64)])
@pytest.mark.parametrize("seed", SEEDS)
def test_spectral_bound(shape: tuple[int, int], seed: int):
    matrix = np.random.default_rng(seed).normal(size=shape)
    exact = float(np.linalg.norm(matrix, 2))
    found = bounds.spectral_bound(matrix.astype(np.float32))
    assert exact <= found <= exact * min(shape) ** (1 / 64) * 1.0025


def test_spectral_bound_of_special_matrices():
    eye = np.eye(16, dtype=np.float32)
    assert 1.0 <= bounds.spectral_bound(eye) <= 16 ** (1 / 64) * 1.0025
    assert bounds.spectral_bound(0 * eye) == 0.0
    assert bounds.spectral_bound(1e-12 * eye) >= 1e-12
    assert bounds.spectral_bound(1e12 * eye) >= 1e12


# ---- rows of another width ---------------------------------------------------------------------


@pytest.mark.parametrize("channels", [WIDTH // 4, WIDTH // 2, WIDTH, 2 * WIDTH, 5, 7])
@pytest.mark.parametrize("zeros", [False, True])
def test_rows_of_another_width(channels: int, zeros: bool):
    """The same values cut into other rows, a row here and there being 0: still inside."""
    gamma, beta = random_norm(0)
    values = normalised(gamma, beta)(np.random.default_rng(0).normal(size=(5 * 7 * WIDTH, WIDTH)))
    bound = bounds.of_layer_norm(gamma, beta)
    if zeros:
        values[::3] = 0.0
        bound = bound.with_zeros()
    rows, over = values.reshape(-1, channels), bound.over(channels)
    assert (np.abs(rows).max(axis=0) <= over.peak).all()
    half = slice(0, max(1, channels // 2))
    check_norms(rows, over, [half, slice(0, channels)])
    weight, bias = random_linear(0, inputs=channels)
    y = of_linear(over, weight, bias)
    assert (np.abs(rows @ weight.T + bias).max(axis=0) <= y.peak).all()
    assert y.group_norm(slice(0, 10)) >= np.linalg.norm(rows @ weight.T + bias, axis=1).max()


def test_two_rows_in_one_are_known_by_more_than_their_magnitudes():
    x = bounds.of_layer_norm(np.ones(WIDTH), np.zeros(WIDTH))
    weight = np.ones((1, 2 * WIDTH))
    assert of_linear(x.over(2 * WIDTH), weight, None).largest <= 2 * WIDTH * 1.01
    plain = Bound(x.over(2 * WIDTH).peak)
    assert of_linear(plain, weight, None).largest >= 2 * WIDTH * np.sqrt(WIDTH - 1)


def test_a_masked_token_of_a_chain_is_zero():
    """The bias of a product of what was a product is left where a row is 0."""
    gamma, beta = np.full(4, 0.01), np.full(4, 2.0)
    eye = np.eye(4, dtype=np.float32)
    linear = Product(1, 4, 4, 1)
    first = bounds.of_product(bounds.of_layer_norm(gamma, beta), linear, eye, None, 0.0)
    bias = -2.0 * np.ones(4)
    assert bounds.of_product(first, linear, eye, bias, 0.0).largest < 0.1
    assert bounds.of_product(first.with_zeros(), linear, eye, bias, 0.0).largest >= 2.0


@pytest.mark.parametrize(
    "product", [Product(3, 4, 2, 1), Product(1, 6, 2, 2), Product(1, 12, 2, 1)]
)
@pytest.mark.parametrize("width", [4, 6, 12, 5])
@pytest.mark.parametrize("with_bias", [False, True])
def test_products_of_rows_of_another_width(product: Product, width: int, with_bias: bool):
    rng = np.random.default_rng(width)
    values = rng.uniform(-1, 1, (60, 12))
    peak = np.abs(values.reshape(-1, width)).max(axis=0)
    weight = rng.normal(size=(product.new, product.gone)).astype(np.float32)
    size = product.new if product.post == 1 else product.size_out
    bias = rng.normal(size=size) if with_bias else None
    bound = bounds.of_product(Bound(peak), product, weight, bias, 0.0)
    shaped = values.reshape(60, product.pre, product.gone, product.post)
    result = np.einsum("og,tpgq->tpoq", weight, shaped).reshape(-1, len(bound.peak))
    if bias is not None:
        result = result + np.tile(bias, len(bound.peak) // size)
    assert (np.abs(result).max(axis=0) <= bound.peak).all()
