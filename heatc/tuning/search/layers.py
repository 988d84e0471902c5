"""The layers that a search may change, and what their inputs are like on the data."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp
from heatc.errors import HeatcError
from heatc.heat.calibrate import MOST_TOKENS, Calibration
from heatc.heat.norm import Norm
from heatc.heat.statistics import Statistics, statistics_key
from heatc.passes.factorising.targets import Target, find_targets
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.search.candidates import Extent
from heatc.weights import WeightStore

Array = NDArray[Any]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A linear by its module path; `targets` has more than one where a weight is used again."""

    path: str
    targets: tuple[Target, ...]
    extent: Extent

    @property
    def count(self) -> int:
        """How often it runs."""
        return len(self.targets)

    @property
    def ops(self) -> tuple[ContractOp, ...]:
        """Its contractions."""
        return tuple(t.op for t in self.targets if isinstance(t.op, ContractOp))


def layers_of(module: ModuleOp, layers: str, tokens: int) -> tuple[Layer, ...]:
    """
    The linears that match globs, in order; `tokens` is what `?` counts as.

    Raises `HeatcError` where there are none, or two weights of one module path.
    """
    grouped: dict[str, list[Target]] = {}
    for target in find_targets(module, layers, tables=False):
        grouped.setdefault(target.path, []).append(target)
    if not grouped:
        raise _no_layers(module, layers)
    for path, targets in grouped.items():
        if len({t.weight.keys for t in targets}) > 1:
            raise HeatcError(f"two weights belong to the layer {path!r}: a plan cannot name them")
    return tuple(
        Layer(path, tuple(targets), _extent(targets[0], tokens))
        for path, targets in grouped.items()
    )


def _no_layers(module: ModuleOp, layers: str) -> HeatcError:
    names = [t.path for t in find_targets(module, "*", tables=False)]
    near = difflib.get_close_matches(layers, names, n=3) or names[:3]
    listed = f"there are {len(names)}: {', '.join(near)}, ..." if names else "there is none"
    return HeatcError(f"no linear layer is named by {layers!r}", place="--layers", notes=[listed])


def _extent(target: Target, tokens: int) -> Extent:
    lead = nn.shape_of(target.x)[:-1]
    rows = math.prod(tokens if n == nn.TOKENS else n for n in lead)
    return Extent(target.inputs, target.outputs, rows)


# ---- inputs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """
    Of a layer's input x over real tokens: `mean` (I,), and `covariance` (I, I) float32.

    The error of a layer counts in the norm of the covariance, since its bias makes up for the mean.
    """

    mean: Reals
    covariance: NDArray[np.float32]

    @property
    def norm(self) -> Norm:
        """The norm in which errors count."""
        return Norm.of(self.covariance)


def inputs_of(
    module: ModuleOp,
    weights: WeightStore,
    layers: Sequence[Layer],
    data: Mapping[str, Array],
    root: Path,
    progress: ProgressCallback,
) -> dict[str, Inputs]:
    """
    What each layer's input is like in the model as it is, by module path; kept below `root`.

    Raises `HeatcError` for inputs that the model does not take.
    """
    first: dict[SSAValue, str] = {}
    names = {layer.path: first.setdefault(layer.targets[0].x, layer.path) for layer in layers}
    known = Statistics(statistics_key(module, weights, data, MOST_TOKENS), root)
    if not known.complete or any(name not in known for name in names.values()):
        _measure(module, weights, layers, names, data, known, progress)
    moments = {name: known.load(name) for name in dict.fromkeys(names.values())}
    progress("moments", len(moments), len(moments))
    return {path: Inputs(moments[n].mean, moments[n].covariance) for path, n in names.items()}


def _measure(
    module: ModuleOp,
    weights: WeightStore,
    layers: Sequence[Layer],
    names: Mapping[str, str],
    data: Mapping[str, Array],
    known: Statistics,
    progress: ProgressCallback,
) -> None:
    run = Calibration(module, data, weights, MOST_TOKENS)
    wanted: dict[Operation, Layer] = {layer.targets[0].op: layer for layer in layers}
    total, done = len(set(names.values())), set[str]()
    for op in list(run.block.ops):
        layer = wanted.pop(op, None)
        name = "" if layer is None else names[layer.path]
        if layer is not None and name not in done:
            known.save(name, run.moments(layer.targets[0].x))
            done.add(name)
            progress("moments", len(done), total)
        if not wanted:
            break
        run.evaluate(op)
    known.finish()
