"""What a compression is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from heatc.api import Compilation
from heatc.hardware import Hardware
from heatc.heat.formats import Format
from heatc.tuning.compress.budget import Budget
from heatc.tuning.compress.goals import Goals

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Request:
    """
    What the user asked for.

    Attributes:
        compilation: a compilation (`Options(Numpy(), level=0)`) that captured the model and has not
            run; runs on the data.
        timed: the same for the batch that the program will have.
        data: inputs by file and name; `dev` what judges, None for a quarter of `data`; `extra`
            unlabelled text of other domains.
        hardware: the machine that costs are modelled for.
        is_numpy: the program is a NumPy program.
        budget: the time, which runs already.
        layers: globs of module paths; formats: to choose from, None for what the time allows.
        points: plans on the front.
        folder: where an interrupted run goes on, None for the user's cache.
    """

    model: str
    weights: str | None
    compilation: Compilation
    timed: Compilation
    data: tuple[str, Arrays]
    dev: tuple[str, Arrays] | None
    extra: Mapping[str, Arrays]
    hardware: Hardware
    is_numpy: bool
    goals: Goals
    budget: Budget
    layers: str
    formats: tuple[Format, ...] | None
    points: int
    seed: int
    jobs: int
    folder: Path | None
