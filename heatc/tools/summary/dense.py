"""
The dense model beside a program: compiled for the same target, as far as that is cheap.

Only its passes run, which are a part of any compilation, and its cost is modelled without values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heatc.errors import HeatcError
from heatc.progress import ProgressCallback
from heatc.tools.summary.figures import Figures, figures_of

if TYPE_CHECKING:
    from heatc.api import Compilation
    from heatc.tools.summary.changes import Changes

SHARE = 0.25
"""Of the seconds of a compilation that the dense model may take unless it is asked for."""

FEWEST_SECONDS = 5.0
"""Even of a compilation that took no time."""

_NOT_PASSES = ("capture", "verify", "heat-decompose", "order-contractions")
"""Steps that the dense model does not take again."""


@dataclass(frozen=True)
class Dense:
    """The dense model's figures, None for a program that is dense; and what is to be said of them."""

    figures: Figures | None = None
    note: str = ""


def dense_beside(
    compilation: Compilation, changes: Changes, *, asked: bool, progress: ProgressCallback
) -> Dense:
    """
    What stands beside a program that was compiled; `asked` compiles the dense model at any price.

    A model that cannot be compiled dense leaves a note.
    """
    if changes.is_dense:
        return Dense()
    if changes.captured is None or changes.dense is None:
        return Dense(note="no dense model beside it: the text begins behind what was decided")
    if compilation.hardware is None:
        return Dense(Figures(changes.dense, changes.dense.bytes))
    if compilation.options.pipeline is not None or compilation.options.inserted:
        return Dense(Figures(changes.dense), "the dense model has no passes of your own: not timed")
    expected = expected_seconds(compilation)
    if not asked and expected > _bound(compilation):
        note = f"--compare-dense models the dense model's cost too, some {expected:.0f} s more"
        return Dense(Figures(changes.dense), note)
    progress("the dense model, to compare", 0, 0)
    try:
        return Dense(_compiled(compilation, changes))
    except HeatcError as error:
        note = f"the dense model does not compile for this target: {error.message}"
        return Dense(Figures(changes.dense), note)


def expected_seconds(compilation: Compilation) -> float:
    """What the passes of the dense model will take: as much as they took."""
    return sum(
        seconds
        for name, seconds in compilation.seconds
        if name not in _NOT_PASSES and not name.startswith("write ")
    )


def _bound(compilation: Compilation) -> float:
    return max(FEWEST_SECONDS, SHARE * sum(seconds for _, seconds in compilation.seconds))


def _compiled(compilation: Compilation, changes: Changes) -> Figures:
    from heatc.api import Compilation
    from heatc.rules import Rule

    assert changes.captured is not None
    options = replace(compilation.options, rule=Rule(), plan=None, heat=None, calibrate=None)
    dense = Compilation(options, quiet=True)
    dense.adopt(changes.captured.clone(), compilation.weights.copy(), compilation.source)
    dense.run()
    return figures_of(dense, changes.dense)
