"""What the package brings: one pass, which is imported when it is asked for."""

from __future__ import annotations

from xdsl.passes import ModulePass
from xdsl.universe import Universe


def _tanh_gelu() -> type[ModulePass]:
    from heatc_tanh_gelu.tanh_gelu import TanhGeluPass

    return TanhGeluPass


UNIVERSE = Universe(all_passes={"tanh-gelu": _tanh_gelu})
