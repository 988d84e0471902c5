"""Modelled cycles of a plan: the program that `heatc --plan` makes, run as `hdp-run` runs it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from heatc.api import Compilation
from heatc.heat.options import plan_options
from heatc.passes.rewriting import without_remarks
from heatc.pipeline import Options
from heatc.plan import hardware_sha256
from heatc.rules import Rule
from heatc.tuning.factorised import Factorised
from heatc.tuning.plan_data import plan_data
from heatc.tuning.samples import Samples
from heatc.tuning.store import Arrays, Store, content_key
from heatc.weights import WeightStore

TIMED = 16
"""Samples that cycles are counted on, of all lengths."""


@dataclass(frozen=True)
class Machine:
    """
    Counts the cycles of one pass of the program, in the mean over the timed samples.

    `module` is at the captured level, its batch is the program's; `samples` are those that
    calibration works on, `hw` a preset or a file, `factorised` the layers that get factors.
    """

    module: ModuleOp
    weights: WeightStore
    hw: str
    samples: Samples
    batch: int
    store: Store
    factorised: Factorised | None = None

    def cycles(self, rules: Mapping[str, Rule]) -> float:
        """Under rules by module path; layers without one are not pruned."""
        texts = {"hw": hardware_sha256(self.hw), **{p: repr(r) for p, r in rules.items()}}
        key = content_key({**texts, "batch": str(self.batch)}, {})
        return float(self.store.get(f"cycles-{key}", lambda: self._run(rules))["cycles"].mean())

    def _run(self, rules: Mapping[str, Rule]) -> Arrays:
        """The cycles of every pass."""
        # Imported late: most calibrations count no cycles.
        from heatc.backends.hdp import open_program, simulate

        with tempfile.TemporaryDirectory() as folder, without_remarks():
            plan, program = Path(folder) / "plan.json", Path(folder) / "timed.hdp"
            factorised = None if self.factorised is None else self.factorised.beside(plan)
            plan.write_text(json.dumps(plan_data(rules, factorised=factorised)))
            heat = None if factorised is None else plan_options(plan, None)
            compilation = Compilation(Options(hw=self.hw, plan=str(plan), heat=heat))
            # Factors are added to the store: each compilation has its own.
            weights = self.weights if heat is None else WeightStore(dict(self.weights))
            compilation.adopt(self.module.clone(), weights, "timed")
            compilation.run()
            compilation.write(program, "hdp")
            loaded = open_program(program)
            passes = self.samples.batches(self.batch, self._timed())
            results = [simulate(loaded, batch.inputs).result for batch in passes]
        return {"cycles": np.asarray([result.cycles for result in results], np.float64)}

    def _timed(self) -> NDArray[np.bool_]:
        """(N,): as many samples as fill some passes, of all lengths."""
        lengths = self.samples.lengths
        order = np.flatnonzero(lengths > 0)[lengths[lengths > 0].argsort(kind="stable")]
        count = min(len(order), max(TIMED, self.batch))
        chosen = np.zeros(len(lengths), np.bool_)
        chosen[order[np.linspace(0, len(order) - 1, count).round().astype(int)]] = True
        return chosen
