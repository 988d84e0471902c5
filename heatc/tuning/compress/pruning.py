"""
Pruning of attention on top of a plan, where it pays on the machine.

Deciding what to prune costs something too. A program whose attentions all prune as much as calibration
ever does is therefore timed first. Where even this one takes more energy x latency than the program
without pruning, nothing is calibrated.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from heatc.hardware import load_hardware
from heatc.plan import SCHEMA, read_plan
from heatc.rules import Rule
from heatc.tuning.calibrate.candidates import RHO_B, Candidates
from heatc.tuning.calibrate.cost_model import TIMED as CALIBRATED
from heatc.tuning.calibrate.layer_costs import MEASURED_RHO_B
from heatc.tuning.common.plan_data import rule_data
from heatc.tuning.compress.costs import CostModel
from heatc.tuning.compress.model import plan_text, write_plan

PROBED = 4
"""Samples that the probe is timed on."""


def candidates_of(hw: str) -> Candidates:
    """
    What is calibrated: the largest blocks that the machine has, pruned scores that become 0, no heads.

    Of all settings this one saves the most of a program's cycles (docs/design/end_to_end.md).
    """
    block = max(load_hardware(hw).blocks, key=lambda extents: extents[0] * extents[1])
    return Candidates(block=block, pruned_scores=("zero",), gates=False)


class Probe(NamedTuple):
    """
    What pruning as much as calibration ever does would bring, modelled.

    `times_less` is the energy x latency without pruning through that with it. `seconds` is what
    calibration will take to time a program, wall-clock.
    """

    times_less: float
    seconds: float

    @property
    def pays(self) -> bool:
        """Whether pruning can win anything."""
        return self.times_less > 1.0


def probe(cost_model: CostModel, plan: Path | None, paths: list[str], folder: Path) -> Probe:
    """A plan, or the dense model, with all attentions of `paths` pruned against itself without."""
    candidates = candidates_of(cost_model.hw)
    most = max(RHO_B[place] for place in MEASURED_RHO_B)
    rule = candidates.rule(candidates.default, rho_b=most)
    pruned = folder / "probe.json"
    write_pruned(plan, dict.fromkeys(paths, rule), pruned)
    before = cost_model.cost(plan, PROBED)["edp"]
    began = time.monotonic()
    after = cost_model.cost(pruned, PROBED)["edp"]
    return Probe(before / after, (time.monotonic() - began) * CALIBRATED / PROBED)


def write_pruned(plan: Path | None, rules: dict[str, Rule], output: Path) -> None:
    """A plan with pruning rules by module path beside what it says."""
    text: dict[str, Any] = {"schema": SCHEMA, "layers": {}} if plan is None else plan_text(plan)
    layers = dict(text["layers"])
    for path, rule in rules.items():
        layers[path] = {**layers.get(path, {}), "hdp": rule_data(rule)}
    found = None if plan is None else read_plan(plan).factors
    factors = None if found is None else found.open()
    write_plan(output, {**text, "layers": layers}, factors, tuple(factors or ()))
