"""HDP programs: their values, modelled time and energy, by the simulator."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from heatc.backends.hdp.container import Program as Container
from heatc.backends.hdp.container import open_program
from heatc.backends.hdp.simulation import simulate
from heatc.hardware import Hardware
from heatc.machine.energy import energy_report
from heatc.tuning.evaluate.program import Array, Arrays, Port, Ran, Run


@dataclass(frozen=True)
class HdpProgram:
    """A `.hdp` file, on the machine that it was compiled for."""

    path: Path
    runs: str = "HDP simulator"
    is_parallel: bool = True

    @cached_property
    def _container(self) -> Container:
        return open_program(self.path)

    def __getstate__(self) -> dict[str, object]:
        # What was opened stays in its process; another one may work in another folder.
        state = {k: v for k, v in self.__dict__.items() if k != "_container"}
        return {**state, "path": self.path.absolute()}

    @property
    def files(self) -> list[Path]:
        """The one file."""
        return [self.path]

    @property
    def ports(self) -> Mapping[str, Port]:
        """The inputs by name."""
        inputs = self._container.manifest.inputs
        return {p.name: Port(p.shape, np.dtype(p.dtype)) for p in inputs}

    @property
    def hardware(self) -> Hardware:
        """The machine that is modelled."""
        return self._container.manifest.hardware

    @contextmanager
    def opened(self) -> Generator[Run]:
        """See `Program`."""
        yield self.run

    def run(self, inputs: Arrays) -> Ran:
        """Simulate a batch: its values are exact, its costs modelled."""
        begun = time.perf_counter()
        simulation = simulate(self._container, inputs)
        seconds = time.perf_counter() - begun
        energy = energy_report(simulation.results, self.hardware)
        costs = {
            "cycles": float(sum(result.cycles for result in simulation.results)),
            "seconds": energy.seconds,
            "joules": energy.joules,
            "energy_delay_product_joule_seconds": energy.delay_product,
            "simulator_seconds": seconds,
        }
        return Ran(cast("dict[str, Array]", dict(simulation.outputs)), costs)
