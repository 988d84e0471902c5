"""The xDSL context of a compilation: it also carries the weights that the IR only names."""

from __future__ import annotations

from typing import Self

from xdsl.context import Context

from heatc.errors import HeatcError
from heatc.weights import WeightStore


class HeatcContext(Context):
    """A context with a weight store."""

    weights: WeightStore | None = None

    def clone(self) -> Self:
        """A copy with the same weights."""
        copy = type(self)(
            self.allow_unregistered,
            self._loaded_dialects.copy(),
            self._loaded_ops.copy(),
            self._loaded_attrs.copy(),
            self._loaded_types.copy(),
            self._registered_dialects.copy(),
        )
        copy.weights = self.weights
        return copy


def weights_of(ctx: Context, path: str | None) -> WeightStore:
    """
    The weights a pass works on: the file named by its `weights` option, or the context's.

    Raises `HeatcError` where there are neither.
    """
    if path is not None:
        return WeightStore.open(path)
    if isinstance(ctx, HeatcContext) and ctx.weights is not None:
        return ctx.weights
    raise HeatcError(
        "this pass reads weights and has none",
        notes=['give the pass option weights="file.safetensors"'],
    )
