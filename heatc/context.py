"""
The xDSL context of a compilation: what passes need that the IR does not hold.

The driver reads files once and puts into the context what they say. Passes take nothing from files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from xdsl.context import Context

from heatc.errors import HeatcError
from heatc.remarks import RemarkSink, print_remark

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heatc.hardware import Hardware
    from heatc.plan import Plan
    from heatc.weights import WeightStore


@dataclass
class HeatcContext(Context):
    """
    A context of a compilation.

    Attributes:
        weights: those that the IR names.
        hardware: the machine that is compiled for, None where none is named.
        plan: what is to be done to each layer, None where no plan says it.
        calibration: inputs on which factors are to be near the weights, by name.
        remarks: takes what passes remark.
    """

    weights: WeightStore | None = None
    hardware: Hardware | None = None
    plan: Plan | None = None
    calibration: Mapping[str, NDArray[Any]] | None = None
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
        copy.hardware = self.hardware
        copy.plan = self.plan
        copy.calibration = self.calibration
        copy.remarks = self.remarks
        return copy


def weights_of(ctx: Context) -> WeightStore:
    """The weights a pass works on; `HeatcError` where the context carries none."""
    if isinstance(ctx, HeatcContext) and ctx.weights is not None:
        return ctx.weights
    raise HeatcError(
        "this pass reads weights and has none",
        notes=["give --weights file.safetensors"],
    )


def known_weights_of(ctx: Context) -> WeightStore | None:
    """The weights, None where the context carries none."""
    return ctx.weights if isinstance(ctx, HeatcContext) else None


def machine_of(ctx: Context) -> Hardware | None:
    """The machine that is compiled for, None where none is named."""
    return ctx.hardware if isinstance(ctx, HeatcContext) else None


def hardware_of(ctx: Context) -> Hardware:
    """The machine that is compiled for; where none is named, the default preset."""
    from heatc.hardware import DEFAULT_PRESET, load_hardware

    return machine_of(ctx) or load_hardware(DEFAULT_PRESET)


def plan_of(ctx: Context) -> Plan | None:
    """The plan, None where there is none."""
    return ctx.plan if isinstance(ctx, HeatcContext) else None


def calibration_of(ctx: Context) -> Mapping[str, NDArray[Any]] | None:
    """The calibration inputs, None where there are none."""
    return ctx.calibration if isinstance(ctx, HeatcContext) else None


def remarks_of(ctx: Context) -> RemarkSink:
    """What takes the remarks of passes; a context of xDSL's own has them printed."""
    return ctx.remarks if isinstance(ctx, HeatcContext) else print_remark
