"""
What whole programs take: plans compiled as `heatc --plan` does, and timed at full length.

A search adds up layers that are each timed from a standing start. In a program one layer's weights
are fetched while another computes, so that it is faster, the dense one more than others.
"""

from __future__ import annotations

from pathlib import Path

from heatc.api import Compilation
from heatc.heat.options import plan_options
from heatc.passes.tiling.timing import time_module
from heatc.rules import make_rule
from heatc.targets import Hdp, Options
from heatc.weights import WeightStore


def program_cost(timed: Compilation, plan: Path | None, hw: str) -> dict[str, float]:
    """
    Modelled cycles, seconds, joules and edp of the program of a plan, of the model without one.

    `timed` ran without target; factors are those of the weights alone, on which no figure depends.
    Raises `HeatcError` for what does not compile.
    """
    heat = None if plan is None else {**plan_options(plan, None), "refinements": (0,)}
    name = None if plan is None else str(plan)
    options = Options(Hdp(hw), rule=make_rule("none", {}), plan=name, heat=heat)
    compilation = Compilation(options, quiet=True)
    weights = WeightStore(dict(timed.weights))
    compilation.adopt(timed.module.clone(), weights, timed.source)
    compilation.run()
    assert compilation.hardware is not None
    found = time_module(compilation.module, compilation.hardware)
    product = found.seconds * found.joules
    figures = {"cycles": found.cycles, "seconds": found.seconds, "joules": found.joules}
    return {**figures, "edp": product}
