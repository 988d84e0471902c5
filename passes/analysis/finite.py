"""
Weights that hold an infinity or a NaN.

Floating-point programs compute with them as PyTorch does. Where a weight must be a number, in fixed
point and in factors, it is refused, by one text: which weight of which layer holds how many, where,
and what to do. Rows of a table that no input can look up do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn
from heatc.dialects.einsum import WeightOp
from heatc.errors import HeatcError
from heatc.passes.analysis.constants import evaluate
from heatc.passes.rewriting import describe_location, module_path
from heatc.weights import WeightStore, joined_name

_SHOWN = 3
"""Places of a weight that a message names."""


def check_finite(
    op: WeightOp,
    array: NDArray[np.generic],
    reader: Operation,
    reason: str,
    notes: Sequence[str] = (),
) -> None:
    """
    Raise `HeatcError` where the values of a weight that `reader` reads are not all finite.

    `reason` says why they must be: `16-bit codes stand for finite numbers`.
    """
    # Sums of magnitudes are finite unless a number is not, or they are huge.
    if np.isfinite(array.min(initial=0)) and np.isfinite(array.max(initial=0)):
        return
    found = ~np.isfinite(array)
    name, layer = joined_name(op.keys), module_path(reader)
    of = f" of {layer!r}" if layer and not name.startswith(f"{layer}.") else ""
    raise HeatcError(
        f"weight {name!r}{of} holds {_counted(array)} at {_places(found)}: {reason}",
        place=describe_location(reader),
        notes=[*notes, "or put finite numbers there, if nothing depends on them"],
    )


def _counted(array: NDArray[np.generic]) -> str:
    """`2 infinities and 1 NaN`."""
    infinite, nan = int(np.isinf(array).sum()), int(np.isnan(array).sum())
    parts = [f"{infinite} {'infinity' if infinite == 1 else 'infinities'}"] if infinite else []
    return " and ".join([*parts, *([f"{nan} NaN"] if nan else [])])


def _places(found: NDArray[np.bool_]) -> str:
    """The first places, `[4], [7], ...`; rows of a table where whole rows are meant."""
    if found.ndim == 2 and (rows := np.flatnonzero(found.all(axis=1))).size * found.shape[1] == (
        found.sum()
    ):
        listed = [f"row {row}" for row in rows[:_SHOWN]]
        return ", ".join([*listed, *(["..."] if len(rows) > _SHOWN else [])])
    places = np.argwhere(found)
    listed = [str([int(n) for n in place]) for place in places[:_SHOWN]]
    return ", ".join([*listed, *(["..."] if len(places) > _SHOWN else [])])


def possible_rows(ids: SSAValue, weights: WeightStore) -> NDArray[np.int64] | None:
    """
    The rows that ids can name, ascending, where the inputs of the model do not decide it.

    None where they do. Packing drops ids and makes none.
    """
    while isinstance(ids.owner, attn.PackOp):
        ids = ids.owner.x
    try:
        return np.unique(np.asarray(evaluate(ids, weights), np.int64))
    except KeyError:
        return None
