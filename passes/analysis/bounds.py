"""
Sound bounds of what a value can be, without calibration data.

A tensor is seen as rows of d values, one after the other in memory. One bound holds for all rows.
A bound does not say which axes of the tensor make a row: a reader asks for rows of the width that
it reads (`Bound.over`). Three things are known of a row x for every input:

- the largest magnitude of each channel;
- Euclidean norms of groups of channels;
- right after a layer norm: x lies in an ellipsoid `x = gamma * u + beta` with `|u| <= sqrt(d)`. The
  result of a linear layer is then bounded by `sqrt(d) |gamma * w| + |w . beta + b|`, far below the
  sum of magnitudes.

Bounds include the rounding of activations and weights into codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heatc.passes.analysis.normal_form import Product

Vector = NDArray[np.float64]
Matrix = NDArray[np.float32]

MARGIN = 1.0 + 1e-3
"""Covers the float32 rounding of the bounds themselves: sums of up to 2**14 products."""

GELU_DIP = 0.1701
"""The least value of GELU, in its exact and its tanh form, is above minus this."""


def row_norms(matrix: Matrix) -> Vector:
    """The Euclidean norm of every row, summed in float32 within the margin."""
    return np.sqrt(np.einsum("oi,oi->o", matrix, matrix)).astype(np.float64)


def spectral_bound(matrix: Matrix) -> float:
    """
    An upper bound of the largest singular value: `|G^16|_F^(1/32)` with G the Gram matrix.

    At most `n^(1/64)` too large for rank n; five small products instead of an eigensolver.
    """
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    # Powers of what is near 1 leave the range of float32 nowhere.
    matrix = matrix / largest
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    bound = MARGIN * largest
    for power in (1, 2, 4, 8, 16):
        scale = float(np.linalg.norm(gram))
        if scale == 0.0:
            return 0.0
        bound *= scale ** (0.5 / power)
        gram = gram / scale
        if power < 16:
            gram = gram @ gram
    return bound


@dataclass(frozen=True)
class Ellipsoid:
    """
    `x = weight (gamma * u) + centre`, `|u| <= radius`, each channel off by at most `slack`.

    Holds the weight as it is mapped from its file, so that keeping an ellipsoid costs nothing.
    """

    weight: Matrix
    gamma: NDArray[np.float32]
    centre: Vector
    radius: float
    slack: Vector
    _norms: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])

    def norm(self, channels: slice) -> float:
        """A bound of the Euclidean norm of some channels."""
        key = (channels.start, channels.stop)
        if key not in self._norms:
            self._norms[key] = spectral_bound(self.weight[channels] * self.gamma)
        reach = self.radius * self._norms[key]
        return float(
            reach + np.linalg.norm(self.centre[channels]) + np.linalg.norm(self.slack[channels])
        )


@dataclass(frozen=True)
class Chain:
    """
    `x = matrix s`, each channel off by at most `slack`: products of what `source` bounds.

    A chain of factors is bounded by the product of its matrices, far below what it is step by step.
    """

    source: Bound
    matrix: Matrix
    slack: Vector


MOST_IN_CHAIN = 1 << 23
"""Elements that the matrix of a chain has at most; longer chains are bounded step by step."""


@dataclass
class Bound:
    """
    What is known of each row of d values of a tensor.

    Attributes:
        peak: (d,) largest magnitude of each channel.
        norms: Euclidean norm of groups of channels that together are all channels.
        gamma, beta: set right after a layer norm: `x = gamma u + beta`, `|u|^2 <= d`.
        image: set after a linear of a layer norm: the ellipsoid it maps to.
        activated: set after a GELU of such a linear: the ellipsoid of its argument.
        rounding: the half codes by which each channel may be off (already in `peak`).
        may_be_zero: set where a masked token's row, which is 0, may stand among the rows, or be a
            part of one.
        chain: set after products without a bias, see `Chain`.
    """

    peak: Vector
    norms: list[tuple[slice, float]] = field(default_factory=list[tuple[slice, float]])
    gamma: Vector | None = None
    beta: Vector | None = None
    image: Ellipsoid | None = None
    activated: Ellipsoid | None = None
    rounding: float = 0.0
    may_be_zero: bool = False
    chain: Chain | None = None

    @cached_property
    def largest(self) -> float:
        """The largest magnitude of any channel."""
        return float(self.peak.max(initial=0.0))

    def group_norm(self, channels: slice) -> float:
        """A bound of the Euclidean norm of some channels."""
        bounds = [float(np.linalg.norm(self.peak[channels]))]
        if self.gamma is not None and self.beta is not None:
            d = len(self.gamma)
            stretch = float(np.abs(self.gamma[channels]).max(initial=0.0))
            half = self.rounding * np.sqrt(channels.stop - channels.start)
            reach = stretch * np.sqrt(d) + np.linalg.norm(self.beta[channels]) + half
            bounds.append(float(reach))
        if self.image is not None:
            bounds.append(self.image.norm(channels))
        bounds += [
            n for s, n in self.norms if s.start <= channels.start and channels.stop <= s.stop
        ]
        return min(bounds)

    def rounded(self, point: int) -> Bound:
        """The bound of the value's codes: everything may be half a code further out."""
        half = 2.0 ** -(point + 1)
        image = self.image
        if image is not None:
            image = replace(image, slack=image.slack + half)
        norms = [(s, n + half * float(np.sqrt(s.stop - s.start))) for s, n in self.norms]
        chain = self.chain
        if chain is not None:
            chain = replace(chain, slack=chain.slack + half)
        return replace(
            self,
            peak=self.peak + half,
            norms=norms,
            image=image,
            rounding=self.rounding + half,
            chain=chain,
        )

    def over(self, channels: int) -> Bound:
        """
        What is known of rows of another width, of the same values in the same order.

        Several rows in one keep all but what products of them were known by; of parts of a row, and
        where rows do not fit into each other, magnitudes are left.
        """
        own = len(self.peak)
        if channels == own:
            return self
        if channels % own == 0:
            return self._repeated(channels // own)
        if own % channels == 0:
            peak = self.peak.reshape(-1, channels).max(axis=0)
            norms = [(slice(0, channels), self.group_norm(slice(0, own)))]
            return Bound(peak, norms, rounding=self.rounding, may_be_zero=self.may_be_zero)
        peak = np.full(channels, self.largest)
        return Bound(peak, rounding=self.rounding, may_be_zero=self.may_be_zero)

    def _repeated(self, times: int) -> Bound:
        """So many rows as one: `|u|^2 <= d` holds for all of them together."""
        own = len(self.peak)
        whole = self.group_norm(slice(0, own))
        norms = [(slice(k * own, (k + 1) * own), whole) for k in range(times)]
        # A row of which a part is 0 lies in no ellipsoid.
        keep = not self.may_be_zero and self.gamma is not None and self.beta is not None
        return Bound(
            np.tile(self.peak, times),
            norms,
            np.tile(self.gamma, times) if keep and self.gamma is not None else None,
            np.tile(self.beta, times) if keep and self.beta is not None else None,
            rounding=self.rounding,
            may_be_zero=self.may_be_zero,
        )

    def with_zeros(self) -> Bound:
        """Rows that are 0 stand among the others; they are no products."""
        return replace(self, may_be_zero=True, chain=None)


def of_layer_norm(gamma: Vector, beta: Vector) -> Bound:
    """Normalised rows have norm at most sqrt(d), and no channel beyond sqrt(d - 1)."""
    d = len(gamma)
    peak = np.abs(gamma) * np.sqrt(max(d - 1, 0)) + np.abs(beta)
    return Bound(peak * MARGIN, [], gamma, beta)


def of_rms_norm(gamma: Vector) -> Bound:
    """Rows over their root mean square have norm at most sqrt(d), and so has any channel."""
    peak = np.abs(gamma) * np.sqrt(len(gamma))
    return Bound(peak * MARGIN, [], gamma, np.zeros(len(gamma)))


def of_linear(x: Bound, weight: Matrix, bias: Vector | None, weight_rounding: float) -> Bound:
    """
    `x W^T + b` for a weight (O, I) whose codes are off by at most `weight_rounding`.

    The bias is taken as given: its own rounding is far inside the margin.
    """
    offset = np.zeros(weight.shape[0]) if bias is None else bias
    absolute = np.abs(weight)
    reach = min(float(x.peak.sum()), np.sqrt(len(x.peak)) * x.group_norm(slice(0, len(x.peak))))
    slack = absolute.sum(axis=1).astype(np.float64) * x.rounding + reach * weight_rounding
    if x.gamma is not None and x.beta is not None:
        gamma = x.gamma.astype(np.float32)
        centre = weight @ x.beta.astype(np.float32) + offset
        radius = float(np.sqrt(len(x.gamma)))
        image = Ellipsoid(weight, gamma, centre, radius, slack)
        peak = radius * row_norms(weight * gamma) + np.abs(centre) + slack
        if x.may_be_zero:
            return Bound(np.maximum(peak, np.abs(offset)) * MARGIN)
        return Bound(peak * MARGIN, [], image=image)
    candidates: list[Vector] = [(absolute @ x.peak.astype(np.float32)).astype(np.float64)]
    if x.norms:
        parts = [row_norms(weight[:, s]) * n for s, n in x.norms]
        candidates.append(np.sum(parts, axis=0))
    if x.activated is not None:
        candidates.append(_of_activated(weight, x.activated) + slack)
    peak = np.minimum.reduce(candidates) + np.abs(offset) + reach * weight_rounding
    return Bound(peak * MARGIN)


def of_product(
    x: Bound, product: Product, weight: Matrix, bias: Vector | None, weight_rounding: float
) -> Bound:
    """
    The result of a product (see `normal_form`), a token's axes one after the other.

    As `of_linear`; without a bias the result is the next link of a chain. Of more than one row a
    token, a bound that holds for each gives one that holds for each.
    """
    each = product.post == 1 and (bias is None or len(bias) == product.new)
    if each and len(x.peak) != product.size_in:
        product = replace(product, pre=1)
    x = x.over(product.size_in)
    if product.is_linear and x.chain is None and bias is not None:
        return of_linear(x, weight, bias, weight_rounding)
    d = len(x.peak)
    absolute = np.abs(weight)
    whole = x.group_norm(slice(0, d))
    reach = min(float(x.peak.sum()), np.sqrt(d) * whole)
    offset = np.zeros(1) if bias is None else bias
    offset = np.tile(offset, product.size_out // len(offset))
    step = _applied(product, absolute, x.peak.astype(np.float32)).astype(np.float64)
    norms = np.tile(np.repeat(row_norms(weight), product.post), product.pre) * whole
    peak = np.minimum(step, norms) + np.abs(offset) + reach * weight_rounding
    source, before = (x, None) if x.chain is None else (x.chain.source, x.chain)
    if product.size_out * len(source.peak) > MOST_IN_CHAIN:
        return Bound(peak * MARGIN)
    slack = np.full(product.size_out, reach * weight_rounding)
    if before is not None:
        slack += _applied(product, absolute, before.slack.astype(np.float32))
    matrix = _matrix(product, weight, before, d)
    composed = of_linear(source, matrix, None if bias is None else offset, 0.0)
    image = composed.image
    if image is not None:
        image = replace(image, slack=image.slack + slack)
    chain = Chain(source, matrix, slack) if bias is None else None
    return Bound(
        np.minimum(peak * MARGIN, composed.peak + slack * MARGIN), image=image, chain=chain
    )


def _applied(product: Product, weight: Matrix, x: Matrix) -> Matrix:
    """A product on (pre gone post, ...) channels."""
    axes = (product.pre, product.gone, product.post, -1)
    result = np.einsum("og,pgqi->poqi", weight, x.reshape(axes), optimize=True)
    return result.reshape(product.size_out, *x.shape[1:])


def _matrix(product: Product, weight: Matrix, before: Chain | None, channels: int) -> Matrix:
    """The matrix of a chain and one more product."""
    if before is not None:
        return _applied(product, weight, before.matrix)
    if product.is_linear:
        return weight
    return _applied(product, weight, np.eye(channels, dtype=np.float32))


def _of_activated(weight: Matrix, t: Ellipsoid) -> Vector:
    """
    `|W gelu(t)|` for t in an ellipsoid.

    With `gelu(t) = t / 2 + |t| / 2 - e`, `0 <= e <= GELU_DIP`: the first part is linear in the
    ellipsoid's u, the second is at most half of |W+| or |W-| times |t|.
    """
    linear = t.radius * row_norms((weight @ t.weight) * t.gamma)
    linear += np.abs(weight @ t.centre.astype(np.float32))
    linear += np.abs(weight) @ t.slack.astype(np.float32)
    positive, negative = np.maximum(weight, 0.0), np.maximum(-weight, 0.0)
    size = t.norm(slice(0, len(t.centre)))
    steepest = np.maximum(row_norms(positive), row_norms(negative))
    tail = np.maximum(positive.sum(axis=1), negative.sum(axis=1))
    return 0.5 * linear + 0.5 * steepest * size + GELU_DIP * tail


def of_gelu(x: Bound) -> Bound:
    """`|gelu(t)| <= |t|`, in both forms."""
    whole = slice(0, len(x.peak))
    return Bound(x.peak, [(whole, x.group_norm(whole))], activated=x.image)


def of_tanh(x: Bound) -> Bound:
    """`|tanh(t)| <= min(1, |t|)`."""
    return Bound(np.minimum(x.peak, 1.0))


def of_relu(x: Bound) -> Bound:
    """`|relu(t)| <= |t|`."""
    whole = slice(0, len(x.peak))
    return Bound(x.peak, [(whole, x.group_norm(whole))])


def of_sum(x: Bound, y: Bound) -> Bound:
    """Magnitudes add, of the wider rows."""
    channels = max(len(x.peak), len(y.peak))
    return Bound(x.over(channels).peak + y.over(channels).peak)


def of_attention(v: Bound, heads: int, length: int) -> Bound:
    """
    Weighted values: a row of each head is a combination of value rows with weights >= 0.

    `v` is over a token's channels.
    The weights sum to at most 1 plus the softmax unit's error (the reciprocal's 2**-11) and the
    rounding of `length` probabilities of 14 fraction bits.
    """
    excess = 1.0 + 2.0**-11 + length * 2.0**-15
    dim = len(v.peak) // heads
    groups = [slice(h * dim, (h + 1) * dim) for h in range(heads)]
    return Bound(v.peak * excess, [(g, v.group_norm(g) * excess) for g in groups])


def of_scores(q: Bound, k: Bound, heads: int) -> float:
    """The largest magnitude of `q . k` of any head, over a token's channels."""
    dim = len(q.peak) // heads
    groups: Sequence[slice] = [slice(h * dim, (h + 1) * dim) for h in range(heads)]
    return max(min(float(q.peak[g] @ k.peak[g]), q.group_norm(g) * k.group_norm(g)) for g in groups)
