"""
Which ranks fit a budget of multiply-accumulates.

A factorised layer is counted along its own cheapest path for a number of tokens, so that a format
whose best path rebuilds the weight is charged for it. A budget over many layers is spread by
marginal error: ranks grow where the next multiply-accumulate lowers the sum of squared relative
errors most, on the lower convex hull of each layer's error over its cost.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from heatc.heat.formats import Format, Modes, Spec, scaled, top_level
from heatc.passes.analysis.paths import Network, best_path

Point: TypeAlias = tuple[int, float, Spec]
"""Multiply-accumulates, squared relative error, and the spec that has them."""


def layer_network(spec: Spec, tokens: int) -> Network:
    """The contraction of a layer's input with its factors, for a number of tokens."""
    terms = ("t" + spec.input_letters, *spec.terms)
    extents = {**spec.extents, "t": tokens}
    return Network.of(terms, "t" + spec.output_letters, extents, range(1, len(terms)))


@cache
def layer_macs(spec: Spec, tokens: int) -> int:
    """Multiply-accumulates of a factorised layer along its best path."""
    return best_path(layer_network(spec, tokens), "macs").cost.macs


def dense_macs(inputs: int, outputs: int, tokens: int) -> int:
    """Multiply-accumulates of the layer as it is."""
    return inputs * outputs * tokens


def largest_within(
    format_: Format, inputs: Modes, outputs: Modes, ratio: float, tokens: int
) -> Spec | None:
    """
    The largest spec of a format that costs at most `ratio` of the dense layer; None if none does.

    Its cost grows with the level, so that bisection finds it.
    """
    budget = ratio * dense_macs(math.prod(inputs), math.prod(outputs), tokens)
    low, high = 0, top_level(format_, inputs, outputs)
    while low < high:
        level = (low + high + 1) // 2
        if layer_macs(scaled(format_, inputs, outputs, level), tokens) <= budget:
            low = level
        else:
            high = level - 1
    return scaled(format_, inputs, outputs, low) if low else None


@dataclass(frozen=True)
class Curve:
    """The specs that one layer may get: cost rises, error falls; the first is the least."""

    points: tuple[Point, ...]

    @classmethod
    def of(cls, points: Sequence[Point]) -> Curve:
        """The lower convex hull of some points."""
        hull: list[Point] = []
        for point in sorted(points, key=lambda p: (p[0], p[1])):
            if hull and point[1] >= hull[-1][1]:
                continue
            while len(hull) > 1 and _slope(hull[-1], point) >= _slope(hull[-2], hull[-1]):
                hull.pop()
            hull.append(point)
        return cls(tuple(hull))

    def times(self, uses: int) -> Curve:
        """The same for a weight that is used so often."""
        return Curve(tuple((macs * uses, error * uses, spec) for macs, error, spec in self.points))


def _slope(a: Point, b: Point) -> float:
    """Error won for each multiply-accumulate."""
    return (a[1] - b[1]) / (b[0] - a[0])


def spread(curves: Mapping[str, Curve], budget: int) -> dict[str, Spec]:
    """
    A spec for every layer, so that all together cost at most `budget` multiply-accumulates.

    Every layer starts at its least spec, whatever that costs; a step that no longer fits ends its
    layer's growth.
    """
    place = dict.fromkeys(curves, 0)
    spent = sum(curve.points[0][0] for curve in curves.values())
    queue: list[tuple[float, str]] = []

    def offer(name: str) -> None:
        points, k = curves[name].points, place[name]
        if k + 1 < len(points):
            heapq.heappush(queue, (-_slope(points[k], points[k + 1]), name))

    for name in curves:
        offer(name)
    while queue:
        _, name = heapq.heappop(queue)
        points, k = curves[name].points, place[name]
        more = points[k + 1][0] - points[k][0]
        if spent + more <= budget:
            spent, place[name] = spent + more, k + 1
            offer(name)
    return {name: curve.points[place[name]][2] for name, curve in curves.items()}


def sample_levels(format_: Format, inputs: Modes, outputs: Modes, most: int = 8) -> list[Spec]:
    """Some specs of a format from small to large, in equal steps of the logarithm of the level."""
    top = top_level(format_, inputs, outputs)
    levels = {max(1, round(top ** (k / (most - 1)))) for k in range(most)} if top > 1 else {1}
    return [scaled(format_, inputs, outputs, level) for level in sorted(levels)]
