"""The HDP machine: its container, the functional machine with its clock, and how to run both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heatc.backends.hdp.container import open_program

if TYPE_CHECKING:
    from heatc.backends.hdp.simulation import Simulation, simulate

__all__ = ["Simulation", "open_program", "simulate"]


def __getattr__(name: str) -> Any:
    # The machine is loaded by those who run something.
    if name in ("Simulation", "simulate"):
        from heatc.backends.hdp import simulation

        return getattr(simulation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
