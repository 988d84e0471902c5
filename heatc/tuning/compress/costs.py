"""What the program of a plan takes on a machine (modelled), and what it weighs (counted)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.container import Program
from heatc.backends.hdp.debug import attentions
from heatc.backends.hdp.masks import LENGTHS, REAL
from heatc.backends.hdp.simulation import simulate_timing
from heatc.dialects.einsum import WeightOp
from heatc.machine.energy import energy_report
from heatc.targets import Hdp, Numpy
from heatc.temporary import scratch_folder
from heatc.tuning.common.samples import Samples
from heatc.tuning.compress.model import CapturedModel

TIMED = 8
"""Samples that costs are counted on, spread over all lengths."""

_MASK = "attention_mask"


@dataclass(frozen=True)
class CostModel:
    """
    Compiles plans and runs their programs on a machine.

    Attributes:
        model: captured for the batch that the program will have.
        hw: the machine: a preset or a file.
        samples: those whose lengths count, and whose values where attention is pruned.
        is_numpy: the weights that count are those of the NumPy program.
    """

    model: CapturedModel
    hw: str
    samples: Samples
    is_numpy: bool

    def cost(self, plan: Path | None, count: int = TIMED) -> dict[str, float]:
        """
        Figures of one pass in the mean over `count` samples: see `heatc.tuning.compress.figures`.

        Raises `HeatcError` for what does not compile.
        """
        made = self.model.planned(plan, Hdp(self.hw))
        made.run()
        with scratch_folder() as folder:
            path = folder / "timed.hdp"
            made.write(path, "hdp")
            program = open_program(path)
            passes = self._passes(program, count)
            weight_bytes = len(program.weights)
        names = ("edp", "joules", "seconds", "cycles", "macs")
        found = {name: float(np.mean([one[name] for one in passes])) for name in names}
        own = self._numpy_bytes(plan) if self.is_numpy else weight_bytes
        return {**found, "weight_bytes": float(own)}

    def _passes(self, program: Program, count: int) -> list[dict[str, float]]:
        hardware = program.manifest.hardware
        batch = program.manifest.inputs[0].shape[0]
        found: list[dict[str, float]] = []
        for one in self.samples.batches(batch, self._timed(max(count, batch))):
            if any(a.mask_pcs or a.gate_pcs for a in attentions(program.debug).values()):
                run = simulate(program, one.inputs)
            else:
                run = simulate_timing(program, _lengths(program, one.inputs))
            energy, result = energy_report(run.results, hardware), run.result
            found.append({
                "edp": energy.delay_product,
                "joules": energy.joules,
                "seconds": energy.seconds,
                "cycles": float(result.cycles),
                "macs": float(result.macs),
            })  # fmt: skip
        return found

    def _timed(self, count: int) -> NDArray[np.bool_]:
        """(N,): so many samples, spread over the order of their lengths."""
        order = self.samples.lengths.argsort(kind="stable")
        middles = (np.arange(count) + 0.5) / count * len(order)
        chosen = np.zeros(len(order), np.bool_)
        chosen[order[middles.astype(int)]] = True
        return chosen

    def _numpy_bytes(self, plan: Path | None) -> int:
        made = self.model.planned(plan, Numpy())
        made.run()
        ops = (op for op in made.module.walk() if isinstance(op, WeightOp))
        names = {key for op in ops for key in op.keys}
        return sum(
            int(np.prod(made.weights.shape(n))) * made.weights.dtype(n).itemsize for n in names
        )


def _lengths(program: Program, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What timing needs to know of a batch: real tokens, and which they are where padding is read."""
    first = next(iter(inputs.values()))
    mask = inputs.get(_MASK)
    real = np.ones(first.shape[:2], np.bool_) if mask is None else mask.astype(np.bool_)
    reads = any(port.mask is not None and port.mask.reads for port in program.manifest.inputs)
    return {LENGTHS: real.sum(axis=1), **({REAL: real} if reads else {})}
