"""
What whole programs take: plans compiled as `heatc --plan` does, and timed at full length.

A search adds up layers that are each timed from a standing start. In a program one layer's weights
are fetched while another computes, so that it is faster, the dense one more than others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from heatc.api import Compilation
from heatc.heat.options import plan_options
from heatc.passes.tiling.timing import time_module
from heatc.plan import read_plan
from heatc.rules import make_rule
from heatc.targets import Hdp, Options


def program_cost(timed: Compilation, plan: Path | None, hw: str) -> dict[str, float]:
    """
    Modelled cycles, seconds, joules and edp of the program of a plan, of the model without one.

    `timed` ran without target; factors are those of the weights alone, on which no figure depends.
    Raises `HeatcError` for what does not compile.
    """
    heat = None if plan is None else {**plan_options(None), "refinements": (0,)}
    # It is for this model: the digest is not computed again.
    found = None if plan is None else replace(read_plan(plan), model_sha256=None)
    options = Options(Hdp(hw), rule=make_rule("none", {}), plan=found, heat=heat)
    compilation = Compilation(options, quiet=True)
    weights = timed.weights.copy()
    compilation.adopt(timed.module.clone(), weights, timed.source)
    compilation.run()
    assert compilation.hardware is not None
    timing = time_module(compilation.module, compilation.hardware)
    product = timing.seconds * timing.joules
    figures = {"cycles": timing.cycles, "seconds": timing.seconds, "joules": timing.joules}
    return {**figures, "edp": product}
