"""layers.csv: what each module of the model did and cost, a row per module path."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heatc.backends.hdp.container import Program
from heatc.backends.hdp.debug import Locations
from heatc.backends.hdp.simulation import Simulation
from heatc.isa.table import Engine
from heatc.tools.quantities import Kind, Quantity, Value, percent

if TYPE_CHECKING:
    from heatc.machine.machine import RunResult

PATH = "module_path"
NO_PATH = "(no module)"
"""The row of instructions that debug.json gives no module."""

ENGINES = tuple(engine.value for engine in Engine if engine is not Engine.CONTROL)


@dataclass(frozen=True)
class Layer:
    """The instructions of a module and the passes that executed them."""

    path: str
    pcs: Sequence[int]
    results: Sequence[RunResult]
    computed: bool
    pc_joules: Sequence[float]
    pc_time: Sequence[int] = ()
    leakage: float = 0.0
    """Leakage of the whole run, in joules."""

    def sum(self, lists: Callable[[RunResult], Sequence[int] | Mapping[int, int]]) -> int:
        """The sum over passes and the module's instructions."""
        total = 0
        for result in self.results:
            values = lists(result)
            if isinstance(values, Mapping):
                total += sum(values.get(pc, 0) for pc in self.pcs)
            else:
                total += sum(values[pc] for pc in self.pcs)
        return total

    def busy(self, engine: str) -> int:
        """Busy cycles of an engine's units together."""
        return self.sum(lambda r: r.pc_busy[engine])

    @property
    def joules(self) -> float:
        """Dynamic energy."""
        return math.fsum(self.pc_joules[pc] for pc in self.pcs)

    @property
    def time(self) -> int | None:
        """Cycles by which the module moved the end of the run on; None where nobody watched."""
        return sum(self.pc_time[pc] for pc in self.pcs) if self.pc_time else None

    @property
    def leaked(self) -> float | None:
        """The module's share of the leakage, by its time."""
        if self.time is None:
            return None
        return self.leakage * self.time / max(sum(self.pc_time), 1)

    @property
    def energy(self) -> float | None:
        """Dynamic energy, and the share of the leakage."""
        return None if self.leaked is None else self.joules + self.leaked

    @property
    def share(self) -> float | None:
        """Percent of all busy cycles."""
        whole = sum(sum(r.pc_cycles) for r in self.results)
        return percent(self.sum(lambda r: r.pc_cycles), whole)


def _counted(name: str, meaning: str, lists: Callable[[RunResult], Sequence[int]]):
    return Quantity[Layer](name, "count", Kind.COUNTED, meaning, lambda layer: layer.sum(lists))


def _busy(engine: str) -> Quantity[Layer]:
    return Quantity(
        f"{engine}_busy_cycles",
        "cycles",
        Kind.MODELLED,
        f"busy cycles of {_UNITS.get(engine, 'the one unit')}",
        lambda layer: layer.busy(engine),
    )


_UNITS = {
    "pe": "the PE arrays of all cores together",
    "se": "the sparsity engines of all cores together",
    "adder": "the adders of all cores together",
    "softmax": "the softmax units of all cores together",
    "vector": "the vector units, which work as one",
    "dma": "the DMA engine",
    "host": "the host",
}

COLUMNS: tuple[Quantity[Layer], ...] = (
    _counted("instructions", "instructions retired", lambda r: r.pc_counts),
    _counted("macs", "multiply-accumulates of the PE arrays", lambda r: r.pc_macs),
    _counted("ranked_blocks", "blocks of scores that were ranked", lambda r: r.pc_blocks),
    Quantity(
        "kept_blocks",
        "count",
        Kind.FUNCTIONAL,
        "blocks of scores that were kept",
        lambda layer: layer.sum(lambda r: r.pc_blocks_kept),
    ),
    _counted("entered_heads", "heads that were begun, for each sequence", lambda r: r.pc_heads),
    Quantity(
        "pruned_heads",
        "count",
        Kind.FUNCTIONAL,
        "heads that did not pass their gate",
        lambda layer: layer.sum(lambda r: r.pc_heads_pruned),
    ),
    Quantity(
        "saturated_values",
        "count",
        Kind.FUNCTIONAL,
        "values clipped when they were rounded; empty if no values were computed",
        lambda layer: layer.sum(lambda r: r.saturations) if layer.computed else None,
    ),
    *map(_busy, ENGINES),
    Quantity(
        "busy_cycles",
        "cycles",
        Kind.MODELLED,
        "sum of the engines' busy cycles; engines work at the same time, so this is no time",
        lambda layer: layer.sum(lambda r: r.pc_cycles),
    ),
    Quantity(
        "share_of_total_percent",
        "%",
        Kind.MODELLED,
        "busy_cycles of the module of those of the whole run",
        lambda layer: layer.share,
    ),
    Quantity(
        "dram_read_bytes",
        "bytes",
        Kind.MODELLED,
        "read from DRAM, by the DMA engine, the vector units and the host",
        lambda layer: layer.sum(lambda r: r.pc_bytes_read),
    ),
    Quantity(
        "dram_written_bytes",
        "bytes",
        Kind.MODELLED,
        "written to DRAM, by the DMA engine, the vector units and the host",
        lambda layer: layer.sum(lambda r: r.pc_bytes_written),
    ),
    Quantity(
        "dynamic_energy_joules",
        "J",
        Kind.MODELLED,
        "energy of what the module did; leakage belongs to the run as a whole",
        lambda layer: layer.joules,
    ),
    Quantity(
        "time_cycles",
        "cycles",
        Kind.MODELLED,
        "cycles by which the module's instructions moved the end of the run on: an instruction that "
        "ends before an earlier one adds none; these sum to total_cycles",
        lambda layer: layer.time,
    ),
    Quantity(
        "leakage_energy_joules",
        "J",
        Kind.MODELLED,
        "leakage of the run, shared out by time_cycles",
        lambda layer: layer.leaked,
    ),
    Quantity(
        "energy_joules",
        "J",
        Kind.MODELLED,
        "dynamic energy, and the module's share of the leakage",
        lambda layer: layer.energy,
    ),
)
"""The columns after the module path; each but the share sums to the run's figure."""


def layers_of(
    simulation: Simulation,
    program: Program,
    pc_joules: Sequence[float] = (),
    pc_time: Sequence[int] = (),
    leakage: float = 0.0,
) -> list[Layer]:
    """
    The modules in the order of their first instruction.

    The columns of energy need the dynamic energy by instruction (`pc_joules`), and those of time
    need `pc_time` (`heatc.backends.hdp.timeline`) and the run's `leakage`, in joules.
    """
    locations = Locations(program.debug)
    pcs: dict[str, list[int]] = {}
    for pc in range(len(program.instructions)):
        pcs.setdefault(locations.at(pc).path or NO_PATH, []).append(pc)
    results, computed = simulation.results, simulation.computed
    more = (pc_joules, pc_time, leakage)
    return [Layer(path, part, results, computed, *more) for path, part in pcs.items()]


def layers_csv(layers: Sequence[Layer], columns: Sequence[Quantity[Layer]]) -> str:
    """The text of layers.csv."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([PATH, *(column.name for column in columns)])
    for layer in layers:
        writer.writerow([layer.path, *(_text(column.value(layer)) for column in columns)])
    return stream.getvalue()


def _text(value: Value) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.10g}"
