"""What stands in a layer's place when a candidate is tried: unrefined factors, bias corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heatc.heat.decompose import decompose
from heatc.heat.formats import Spec
from heatc.heat.norm import spectrum
from heatc.tuning.search.layers import Inputs, Layer
from heatc.weights import WeightStore

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Replacement:
    """
    What a linear computes instead: y = W' x + shift, shift (O,).

    `factors` are W' (O, I) alone, or A (r, I) and B (O, r).
    """

    factors: tuple[Tensor, ...]
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        *before, last = self.factors
        for factor in before:
            x = torch.nn.functional.linear(x, factor)
        return torch.nn.functional.linear(x, last, self.shift)


@dataclass
class Replacements:
    """Makes replacements of the layers of a model; of a layer's low ranks from one spectrum."""

    layers: Mapping[str, Layer]
    weights: WeightStore
    inputs: Mapping[str, Inputs]
    seed: int
    _low_rank: dict[str, tuple[Reals, Reals]] = field(
        default_factory=dict[str, "tuple[Reals, Reals]"]
    )

    def truncated(self, path: str, rank: int) -> Replacement:
        """The nearest matrix of a rank."""
        a, b = self._factors(path)
        return self._replacement(path, a[:rank], b[:, :rank])

    def of(self, path: str, spec: Spec) -> Replacement:
        """A layer with a candidate's factors."""
        if spec.format == "low-rank":
            return self.truncated(path, spec.ranks[0])
        return self._replacement(path, self._matrix(path, spec))

    def weight_error(self, path: str, spec: Spec) -> float:
        """||W - W'|| / ||W||, whatever the inputs are."""
        weight = self._weight(path)
        if spec.format == "low-rank":
            a, b = (part.astype(np.float64) for part in self._factors(path))
            near = b[:, : spec.ranks[0]] @ a[: spec.ranks[0]]
        else:
            near = self._matrix(path, spec)
        return float(np.linalg.norm(weight - near) / (np.linalg.norm(weight) or 1.0))

    def _weight(self, path: str) -> Reals:
        return self.layers[path].targets[0].matrix(self.weights)

    def _matrix(self, path: str, spec: Spec) -> Reals:
        norm = self.inputs[path].norm
        return decompose(self._weight(path), spec, norm, refinements=0, seed=self.seed).matrix()

    def _factors(self, path: str) -> tuple[Reals, Reals]:
        """A and B of full rank."""
        if path not in self._low_rank:
            weight = self._weight(path)
            self._low_rank[path] = spectrum(weight, self.inputs[path].norm).factors(
                min(weight.shape)
            )
        return self._low_rank[path]

    def _replacement(self, path: str, *factors: Reals) -> Replacement:
        mean = np.asarray(self.inputs[path].mean)
        near = mean
        for factor in factors:
            near = factor @ near
        shift = self._weight(path) @ mean - near
        return Replacement(tuple(map(_tensor, factors)), _tensor(shift))


def _tensor(array: Reals) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)
