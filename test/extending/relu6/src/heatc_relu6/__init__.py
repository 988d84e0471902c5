"""What the package brings: the dialect `act`, and the pass that lowers it."""

from __future__ import annotations

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe


def _act() -> Dialect:
    from heatc_relu6.dialect import ACT

    return ACT


def _lower_act() -> type[ModulePass]:
    from heatc_relu6.lower_act import LowerActPass

    return LowerActPass


UNIVERSE = Universe(all_dialects={"act": _act}, all_passes={"lower-act": _lower_act})
