"""
The figures of a run: counted from its values (functional) or modelled (time, bytes, energy).

The two are never mixed: each figure belongs to one of two groups, and its name ends in its unit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heatc.backends.hdp.container import Program
from heatc.backends.hdp.debug import Locations
from heatc.backends.hdp.simulation import Simulation
from heatc.hardware import Hardware
from heatc.isa.table import CORE_ENGINES
from heatc.kinds import PROGRAM_JSON, STATS_JSON, STATS_TEXT
from heatc.tools.layer_stats import ENGINES
from heatc.tools.quantities import FUNCTIONAL, MODELLED, Kind, Quantity, Value, percent

if TYPE_CHECKING:
    from heatc.machine.energy import EnergyReport
    from heatc.machine.machine import RunResult

SCHEMA = 1
"""The version of stats.json."""

MODES = (FUNCTIONAL, "timing", "both")
"""What may be simulated: values, their cost on given masks, or both."""


@dataclass(frozen=True)
class Run:
    """What the figures are computed from."""

    results: Sequence[RunResult]
    hardware: Hardware
    computed: bool = True

    def sum(self, value: Callable[[RunResult], int]) -> int:
        """A sum over passes."""
        return sum(map(value, self.results))

    @property
    def cycles(self) -> int:
        """Cycles of all passes."""
        return self.sum(lambda r: r.cycles)

    @cached_property
    def macs_by_width(self) -> dict[str, int]:
        """Multiply-accumulates of all passes by the widths of their operands."""
        from heatc.machine.energy import mac_counts

        total: dict[str, int] = {}
        for result in self.results:
            for width, count in mac_counts(result, self.hardware).items():
                total[width] = total.get(width, 0) + count
        return total

    @cached_property
    def energies(self) -> list[EnergyReport]:
        """The energy of each pass."""
        from heatc.machine.energy import energy_report

        return [energy_report(result, self.hardware) for result in self.results]

    def energy(self, value: Callable[[EnergyReport], float]) -> float:
        """A sum over passes."""
        return sum(map(value, self.energies))

    @property
    def pc_joules(self) -> list[float]:
        """Dynamic energy by instruction, over all passes."""
        return np.sum([report.pc_joules for report in self.energies], axis=0).tolist()

    def busy(self, engine: str) -> int:
        """Busy cycles of an engine's units together."""
        return self.sum(lambda r: int(r.busy[engine].sum()))

    def units(self, engine: str) -> int:
        """How many units of an engine there are."""
        return self.hardware.cores if engine in CORE_ENGINES else 1


# --- Declarations -----------------------------------------------------------------------------


def _count(name: str, kind: Kind, meaning: str, value: Callable[[RunResult], int]) -> Quantity[Run]:
    return Quantity(f"{name}_count", "count", kind, meaning, lambda run: run.sum(value))


def _widths() -> Iterator[Quantity[Run]]:
    """MACs of the operand dtypes that there are."""
    for width in ("16x16", "8x16", "8x8"):
        yield Quantity(
            f"multiply_accumulates_{width}_count",
            "count",
            Kind.COUNTED,
            f"those of {width.replace('x', ' and ')} bit operands",
            lambda run, width=width: run.macs_by_width.get(width, 0),
        )


def _engines() -> Iterator[Quantity[Run]]:
    for engine in ENGINES:
        core = engine in CORE_ENGINES
        what = "of the units of all cores together" if core else "of the one unit"
        yield Quantity(
            f"{engine}_busy_cycles",
            "cycles",
            Kind.MODELLED,
            f"busy cycles {what}",
            lambda run, e=engine: run.busy(e),
        )
        yield Quantity(
            f"{engine}_utilisation_percent",
            "%",
            Kind.MODELLED,
            f"{engine}_busy_cycles of total_cycles{' times cores' if core else ''}",
            lambda run, e=engine: percent(run.busy(e), run.cycles * run.units(e)),
        )


def _energies() -> Iterator[Quantity[Run]]:
    yield Quantity(
        "energy_joules",
        "J",
        Kind.MODELLED,
        "dynamic energy and leakage of everything, host and DRAM included",
        lambda run: run.energy(lambda e: e.joules),
    )
    yield Quantity(
        "dynamic_energy_joules",
        "J",
        Kind.MODELLED,
        "energy of what was done: actions times the hardware file's costs",
        lambda run: run.energy(lambda e: sum(e.dynamic_joules.values())),
    )
    yield Quantity(
        "leakage_energy_joules",
        "J",
        Kind.MODELLED,
        "leakage of the whole machine during time_seconds",
        lambda run: run.energy(lambda e: sum(e.leakage_joules.values())),
    )
    yield Quantity(
        "energy_delay_product_joule_seconds",
        "J s",
        Kind.MODELLED,
        "energy times time of each pass, summed over passes",
        lambda run: run.energy(lambda e: e.delay_product),
    )
    for unit, what in ENERGY_UNITS.items():
        yield Quantity(
            f"{unit}_energy_joules",
            "J",
            Kind.MODELLED,
            f"dynamic energy and leakage of {what}",
            lambda run, u=unit: run.energy(lambda e: e.unit_joules(u)),
        )


ENERGY_UNITS = {
    "pe": "the PE arrays",
    "se": "the sparsity engines",
    "adder": "the adders",
    "softmax": "the softmax units",
    "vector": "the vector units",
    "local": "the local buffers",
    "shared": "the shared buffer",
    "dram": "DRAM",
    "dma": "the DMA engine",
    "host": "the host",
    "sequencer": "the sequencer",
}
"""The units of `heatc.machine.energy`."""


Each = Callable[[Run, int], float]

PASS_FIGURES: Mapping[str, tuple[str, Kind, str, Each]] = {
    "cycles": ("cycles", Kind.MODELLED, "cycles", lambda run, i: run.results[i].cycles),
    "seconds": (
        "s",
        Kind.MODELLED,
        "time",
        lambda run, i: run.results[i].cycles / run.hardware.clock_hz,
    ),
    "joules": ("J", Kind.MODELLED, "energy", lambda run, i: run.energies[i].joules),
    "dram_bytes": (
        "bytes",
        Kind.MODELLED,
        "bytes read from and written to DRAM",
        lambda run, i: run.results[i].dram_bytes_read + run.results[i].dram_bytes_written,
    ),
    "kept_blocks_count": (
        "count",
        Kind.FUNCTIONAL,
        "blocks of scores that were kept",
        lambda run, i: run.results[i].blocks_kept,
    ),
}
"""What is given for each pass: unit, kind, meaning, value."""

Statistic = Callable[[Sequence[float]], float]

STATISTICS: Mapping[str, tuple[str, Statistic]] = {
    "p50": ("median", lambda values: float(np.percentile(values, 50))),
    "p95": ("95th percentile", lambda values: float(np.percentile(values, 95))),
    "max": ("greatest", lambda values: float(max(values))),
    "mean": ("mean", lambda values: float(np.mean(values))),
}


def _passes() -> Iterator[Quantity[Run]]:
    for name, (unit, kind, what, each) in PASS_FIGURES.items():
        for short, (long, statistic) in STATISTICS.items():
            yield Quantity(
                f"pass_{short}_{name}",
                unit,
                kind,
                f"{what}: {long} over passes (one a batch; the last one may be partly empty)",
                lambda run, f=each, s=statistic: s([f(run, i) for i in range(len(run.results))]),
            )


FIGURES: tuple[Quantity[Run], ...] = (
    _count("passes", Kind.COUNTED, "runs of the program, one a batch", lambda r: 1),
    _count("executed_instructions", Kind.COUNTED, "instructions retired", lambda r: r.steps),
    _count(
        "multiply_accumulates", Kind.COUNTED, "MACs that the PE arrays executed", lambda r: r.macs
    ),
    *_widths(),
    _count(
        "ranked_blocks",
        Kind.COUNTED,
        "blocks of scores that were ranked",
        lambda r: r.blocks_total,
    ),
    _count(
        "kept_blocks", Kind.FUNCTIONAL, "blocks of scores that were kept", lambda r: r.blocks_kept
    ),
    Quantity(
        "kept_blocks_percent",
        "%",
        Kind.FUNCTIONAL,
        "kept of ranked blocks",
        lambda run: percent(run.sum(lambda r: r.blocks_kept), run.sum(lambda r: r.blocks_total)),
    ),
    _count(
        "entered_heads",
        Kind.COUNTED,
        "heads that were begun, for each sequence",
        lambda r: r.heads_total,
    ),
    _count("kept_heads", Kind.FUNCTIONAL, "heads that passed their gate", lambda r: r.heads_kept),
    Quantity(
        "kept_heads_percent",
        "%",
        Kind.FUNCTIONAL,
        "kept of entered heads",
        lambda run: percent(run.sum(lambda r: r.heads_kept), run.sum(lambda r: r.heads_total)),
    ),
    Quantity(
        "saturated_values_count",
        "count",
        Kind.FUNCTIONAL,
        "values clipped when they were rounded; none if no values were computed",
        lambda run: run.sum(lambda r: sum(r.saturations.values())) if run.computed else None,
    ),
    Quantity(
        "total_cycles",
        "cycles",
        Kind.MODELLED,
        "cycles of the machine's clock, passes one after the other",
        lambda run: run.cycles,
    ),
    Quantity(
        "time_seconds",
        "s",
        Kind.MODELLED,
        "total_cycles at the clock of the hardware file",
        lambda run: run.cycles / run.hardware.clock_hz,
    ),
    Quantity(
        "dram_read_bytes",
        "bytes",
        Kind.MODELLED,
        "read from DRAM, by the DMA engine, the vector units and the host",
        lambda run: run.sum(lambda r: r.dram_bytes_read),
    ),
    Quantity(
        "dram_written_bytes",
        "bytes",
        Kind.MODELLED,
        "written to DRAM, by the DMA engine, the vector units and the host",
        lambda run: run.sum(lambda r: r.dram_bytes_written),
    ),
    *_engines(),
    *_energies(),
    *_passes(),
)
"""Every figure of a run; of several passes sums where nothing else is said."""

OTHER_KEYS = {
    "schema": ("text", "version of this file's form"),
    "producer": ("text", "program and version that wrote the file"),
    "model": ("text", "what was simulated: functional, timing (on stored masks) or both"),
    "functional": ("object", "figures of kinds functional and counted"),
    "modelled": ("object", "figures of kind modelled; absent from a functional run"),
    "instructions_by_mnemonic_count": ("count", "instructions retired, by mnemonic"),
    "saturated_values_by_path_count": ("count", "values clipped, by module path"),
    "program": ("object", "the program's file and SHA-256, its producer, options and source"),
    "files": (
        "object",
        "SHA-256 of the files of the same run: layers.csv, timeline.json, masks.npz",
    ),
    "inputs": ("object", "file and SHA-256 of --inputs; absent where no values were computed"),
    "agreement": ("object", "with --reference: by output, error and cosines over all real tokens"),
    "hardware": ("object", "every parameter of the hardware, defaults too"),
}
"""The keys of stats.json that are no figures: unit and meaning."""


# --- Figures of a run -------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A quantity with its value."""

    quantity: Quantity[Run]
    value: Value

    @property
    def name(self) -> str:
        """The quantity's name."""
        return self.quantity.name

    @property
    def group(self) -> str:
        """The quantity's group."""
        return self.quantity.group


def figures(simulation: Simulation, hardware: Hardware, *, modelled: bool = True) -> list[Figure]:
    """The figures of a run, without the modelled ones unless they are wanted."""
    return figures_of(run_of(simulation, hardware), modelled=modelled)


def run_of(simulation: Simulation, hardware: Hardware) -> Run:
    """What figures are computed from."""
    return Run(simulation.results, hardware, simulation.computed)


def figures_of(run: Run, *, modelled: bool = True) -> list[Figure]:
    """The figures of a run, see `figures`."""
    return [Figure(q, q.value(run)) for q in FIGURES if modelled or q.group == FUNCTIONAL]


def stats_json(
    rows: Sequence[Figure],
    simulation: Simulation,
    program: Program,
    hardware: Hardware,
    model: str = "both",
    more: Mapping[str, Any] | None = None,
) -> str:
    """
    stats.json: the figures by group, saturations by module path, the configuration.

    `more` has what is known beside the run: `files`, `inputs` and `agreement` of `OTHER_KEYS`.
    """
    data: dict[str, Any] = {"producer": STATS_JSON.mark, "schema": SCHEMA, "model": model}
    for group in (FUNCTIONAL, MODELLED):
        if any(f.group == group for f in rows):
            data[group] = {f.name: f.value for f in rows if f.group == group}
    data["instructions_by_mnemonic_count"] = _by_mnemonic(simulation)
    if simulation.computed:
        data["saturated_values_by_path_count"] = saturations_by_path(simulation, program)
    data["program"] = _program(program)
    data |= more or {}
    data["hardware"] = hardware.to_json()
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def program_json(program: Program) -> str:
    """program.json: where the program comes from, and with which options."""
    data = {"written_by": PROGRAM_JSON.mark, **_program(program)}
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _program(program: Program) -> dict[str, Any]:
    return {
        "file": program.path.name,
        "sha256": file_sha256(program.path),
        "producer": program.manifest.producer,
        "options": dict(program.manifest.options),
        "source": dict(program.manifest.source),
    }


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stats_text(rows: Sequence[Figure]) -> str:
    """stats.txt in gem5's shape: `name value # description (unit)`."""
    lines = [f"{STATS_TEXT.line()}---------- Begin Simulation Statistics ----------"]
    for figure in rows:
        value = "-" if figure.value is None else f"{figure.value:.10g}"
        if isinstance(figure.value, int):
            value = str(figure.value)
        name = f"{figure.group}.{figure.name}"
        quantity = figure.quantity
        lines.append(f"{name:44} {value:>20} # {quantity.meaning} ({quantity.unit})")
    lines.append("---------- End Simulation Statistics ----------")
    return "\n".join(lines) + "\n"


def _by_mnemonic(simulation: Simulation) -> dict[str, int]:
    counts: dict[str, int] = {}
    for result in simulation.results:
        for mnemonic, count in result.counts.items():
            counts[mnemonic] = counts.get(mnemonic, 0) + count
    return dict(sorted(counts.items()))


def saturations_by_path(simulation: Simulation, program: Program) -> dict[str, int]:
    """How many values saturated, by module path (`pc <n>` where none is known)."""
    counts: dict[str, int] = {}
    locations = Locations(program.debug)
    for result in simulation.results:
        for pc, count in sorted(result.saturations.items()):
            path = locations.at(pc).path or f"pc {pc}"
            counts[path] = counts.get(path, 0) + count
    return counts
