"""
What the fronts of bench/heat_front.py compare: plans of the encoder's linears, by family.

- uniform: low-rank, one share of the multiply-accumulates for every layer;
- hand-tuned: tensor trains of one tensorization and one rank for every layer;
- heuristic: TT-matrices of the shapes that TensorLy-Torch chooses by itself and of the ranks that
  TensorLy finds for one share of the parameters.

Search's own plans come from `heatc-tune search` (`bench/support/heat/runs.py`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from heatc.heat.formats import Spec
from heatc.heat.plan import entry

Layers = dict[str, dict[str, Any]]
"""The `layers` of a plan.json."""

POINTS: Mapping[str, tuple[float, ...]] = {
    "uniform": (0.4, 0.3, 0.2, 0.12),
    "hand-tuned": (192, 128, 96, 64, 32),
    "heuristic": (0.5, 0.25, 0.1, 0.05),
}
"""The points of each family: share of the MACs, rank, share of the parameters; from little lost to much."""

TRAINS = {384: (8, 6, 8), 1536: (16, 12, 8)}
"""The one tensorization of the hand-tuned trains: three indices a side."""
ORDER = 3
"""Indices a side that TensorLy-Torch makes of a layer unless it is told otherwise."""


def linears(model: Path) -> dict[str, tuple[int, int]]:
    """Module path to (outputs, inputs) of the encoder's linears of a Hugging Face folder."""
    with (model / "model.safetensors").open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = cast("dict[str, Any]", json.loads(stream.read(size)))
    return {
        name.removesuffix(".weight"): (value["shape"][0], value["shape"][1])
        for name, value in sorted(header.items())
        if ".encoder." in f".{name}" and name.endswith(".weight") and len(value["shape"]) == 2
    }


def layers(family: str, point: float, model: Path) -> Layers:
    """A point of a family as the layers of a plan."""
    return {
        path: {"heat": entry(spec(family, inputs, outputs, point))}
        for path, (outputs, inputs) in linears(model).items()
    }


def spec(family: str, inputs: int, outputs: int, point: float) -> Spec:
    """What a point of a family makes of a layer."""
    return _SPECS[family](inputs, outputs, point)


def _uniform(inputs: int, outputs: int, share: float) -> Spec:
    rank = max(1, int(share * inputs * outputs / (inputs + outputs)))
    return Spec("low-rank", (inputs,), (outputs,), (rank,))


def _hand_tuned(inputs: int, outputs: int, rank: float) -> Spec:
    ins, outs = TRAINS[inputs], TRAINS[outputs]
    modes = (*ins, *outs)
    ranks: list[int] = []
    left, whole = 1, inputs * outputs
    for mode in modes[:-1]:
        left *= mode
        # No rank is above that of the unfolding.
        ranks.append(min(int(rank), left, whole // left))
    return Spec("tt", ins, outs, tuple(ranks))


def _heuristic(inputs: int, outputs: int, share: float) -> Spec:
    from tensorly.tt_matrix import validate_tt_matrix_rank
    from tltorch.utils import get_tensorized_shape

    ins, outs = get_tensorized_shape(inputs, outputs, order=ORDER, verbose=False)
    ranks = cast("tuple[int, ...]", validate_tt_matrix_rank((*outs, *ins), rank=cast("Any", share)))
    return Spec("ttm", tuple(ins), tuple(outs), tuple(ranks[1:-1]))


_SPECS: Mapping[str, Callable[[int, int, float], Spec]] = {
    "uniform": _uniform,
    "hand-tuned": _hand_tuned,
    "heuristic": _heuristic,
}
