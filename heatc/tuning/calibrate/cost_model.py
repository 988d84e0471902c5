"""What a plan costs on a machine (modelled): the program of `heatc --plan`, run as `hdp-run` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from heatc.api import Compilation
from heatc.files import together
from heatc.hardware import load_hardware
from heatc.heat.options import plan_options
from heatc.kinds import PLAN
from heatc.plan import hardware_sha256, read_plan
from heatc.rules import Rule
from heatc.targets import Hdp, Options
from heatc.temporary import scratch_folder
from heatc.tuning.calibrate.store import Arrays, Store
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.factorised import FactorisedLayers
from heatc.tuning.common.plan_data import plan_data
from heatc.tuning.common.samples import Samples
from heatc.weights import WeightStore

TIMED = 16
"""Samples that costs are counted on, of all lengths."""


class ProgramCost(NamedTuple):
    """Modelled, of one pass in the mean: cycles, joules, energy x latency in joule seconds."""

    cycles: float
    joules: float
    edp: float


@dataclass(frozen=True)
class CostModel:
    """
    Counts what one pass of the program costs, in the mean over the timed samples.

    `module` is at the captured level, its batch is the program's; `samples` are those that
    calibration works on, `hw` a preset or a file, `factorised` the layers that get factors.
    """

    module: ModuleOp
    weights: WeightStore
    hw: str
    samples: Samples
    batch: int
    store: Store
    factorised: FactorisedLayers | None = None

    def cost(self, rules: Mapping[str, Rule]) -> ProgramCost:
        """Under rules by module path; layers without one are not pruned."""
        pruning = {path: rule for path, rule in rules.items() if rule.name != "none"}
        texts = {
            "hw": hardware_sha256(load_hardware(self.hw)),
            **{p: repr(r) for p, r in pruning.items()},
        }
        key = content_key({**texts, "batch": str(self.batch)}, {})
        found = self.store.get(f"cost-{key}", lambda: self._run(pruning))
        return ProgramCost(*(float(found[name].mean()) for name in ProgramCost._fields))

    def _run(self, rules: Mapping[str, Rule]) -> Arrays:
        """What every pass costs."""
        # Imported late: most calibrations count no costs.
        from heatc.backends.hdp import open_program, simulate
        from heatc.machine.energy import energy_report

        with scratch_folder() as folder:
            plan, program = folder / "plan.json", folder / "timed.hdp"
            factorised = self.factorised
            with together() as files:
                factorised = None if factorised is None else factorised.beside(plan, files)
                files.open(plan, "w").write(PLAN.json_text(plan_data(rules, factorised=factorised)))
            heat = None if factorised is None else plan_options(None)
            options = Options(Hdp(self.hw), plan=read_plan(plan), heat=heat)
            compilation = Compilation(options, quiet=True)
            # Factors are added to the store: each compilation has its own.
            weights = self.weights if heat is None else self.weights.copy()
            compilation.adopt(self.module.clone(), weights, "timed")
            compilation.run()
            compilation.write(program, "hdp")
            loaded = open_program(program)
            hardware = loaded.manifest.hardware
            costs: list[ProgramCost] = []
            for batch in self.samples.batches(self.batch, self._timed()):
                run = simulate(loaded, batch.inputs)
                energy = energy_report(run.results, hardware)
                costs.append(ProgramCost(run.result.cycles, energy.joules, energy.delay_product))
        columns = zip(ProgramCost._fields, zip(*costs))
        return {name: np.asarray(values, np.float64) for name, values in columns}

    def _timed(self) -> NDArray[np.bool_]:
        """(N,): as many samples as fill some passes, whole ones where there are enough."""
        lengths = self.samples.lengths
        order = np.flatnonzero(lengths > 0)[lengths[lengths > 0].argsort(kind="stable")]
        count = min(len(order), max(TIMED, self.batch))
        if count > self.batch:
            count -= count % self.batch
        chosen = np.zeros(len(lengths), np.bool_)
        chosen[order[np.linspace(0, len(order) - 1, count).round().astype(int)]] = True
        return chosen
