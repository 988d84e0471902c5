"""
The xDSL context of a compilation: what passes need that the IR does not hold.

The driver reads files once and puts into the context what they say. Passes take nothing from files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from xdsl.context import Context

from heatc.errors import HeatcError
from heatc.remarks import RemarkSink, print_remark
from heatc.weights import WeightStore


@dataclass
class HeatcContext(Context):
    """
    A context of a compilation.

    Attributes:
        weights: those that the IR names.
        remarks: takes what passes remark.
    """

    weights: WeightStore | None = None
    remarks: RemarkSink = print_remark

    def clone(self) -> Self:
        """A copy that carries the same."""
        copy = type(self)(
            self.allow_unregistered,
            self._loaded_dialects.copy(),
            self._loaded_ops.copy(),
            self._loaded_attrs.copy(),
            self._loaded_types.copy(),
            self._registered_dialects.copy(),
        )
        copy.weights = self.weights
        copy.remarks = self.remarks
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


def remarks_of(ctx: Context) -> RemarkSink:
    """What takes the remarks of passes; a context of xDSL's own has them printed."""
    return ctx.remarks if isinstance(ctx, HeatcContext) else print_remark
