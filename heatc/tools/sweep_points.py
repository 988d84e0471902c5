"""The points of a sweep: machines, and what one program costs on each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp.container import Program
from heatc.backends.hdp.simulation import check_hardware, simulate_timing
from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.progress import ProgressCallback
from heatc.tools.quantities import Value
from heatc.tools.run_stats import figures_of, run_of

Masks = Mapping[str, NDArray[np.generic]]

POINTS = "machines"
"""What progress calls them."""


@dataclass(frozen=True)
class Point:
    """
    A machine, and what the program costs on it.

    Attributes:
        changes: what differs from the program's machine, as texts by key.
        figures: of `FIGURES` by name; empty where the program does not fit.
        problem: why it does not.
    """

    changes: Mapping[str, str]
    hardware: Hardware
    figures: Mapping[str, Value]
    problem: str = ""


def check_fits(program: Program, hardware: Hardware, changes: Mapping[str, str]) -> None:
    """Raise `InfeasibleError` for a machine that cannot run the program as it is."""
    try:
        check_hardware(program, hardware)
    except InfeasibleError as error:
        text = ", ".join(f"{key}={value}" for key, value in changes.items())
        notes = ["--recompile MODEL compiles the model for each machine"]
        raise InfeasibleError(f"{text}: {error.message}", place="--sweep", notes=notes) from None


def timed(
    program: Program,
    machines: Sequence[tuple[Mapping[str, str], Hardware]],
    masks: Masks,
    max_seconds: float,
    progress: ProgressCallback,
) -> list[Point]:
    """The cost on each machine with the masks of one run; nothing is compiled or computed."""
    points: list[Point] = []
    for number, (changes, hardware) in enumerate(machines):
        progress(POINTS, number, len(machines))
        simulation = simulate_timing(program, masks, hardware, max_seconds=max_seconds)
        rows = figures_of(run_of(simulation, hardware))
        points.append(Point(changes, hardware, {row.name: row.value for row in rows}))
    progress(POINTS, len(machines), len(machines))
    return points
