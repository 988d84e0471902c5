"""
The figures of a run: counted from its values (functional) or modelled (cycles, time, bytes).

The two are never mixed: each figure belongs to one of two groups, and its name ends in its unit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatc.backends.hdp.container import Program
from heatc.backends.hdp.debug import Locations
from heatc.backends.hdp.simulation import Simulation
from heatc.hardware import Hardware
from heatc.isa.table import CORE_ENGINES
from heatc.version import VERSION

SCHEMA = 1
"""The version of stats.json."""

FUNCTIONAL, MODELLED = "functional", "modelled"

Value = int | float | None


@dataclass(frozen=True)
class Figure:
    """One figure: `name` ends in its unit, `group` is functional or modelled."""

    name: str
    value: Value
    description: str
    group: str


def figures(simulation: Simulation, hardware: Hardware) -> list[Figure]:
    """Every figure of a run; those of several passes are sums where nothing else is said."""
    return [
        *(Figure(*row, FUNCTIONAL) for row in _functional(simulation)),
        *(Figure(*row, MODELLED) for row in _modelled(simulation, hardware)),
    ]


def _functional(simulation: Simulation) -> Iterator[tuple[str, Value, str]]:
    results = simulation.results
    kept, ranked = (sum(getattr(r, n) for r in results) for n in ("blocks_kept", "blocks_total"))
    heads, entered = (sum(getattr(r, n) for r in results) for n in ("heads_kept", "heads_total"))
    yield "passes_count", len(results), "runs of the program, one a batch"
    yield "executed_instructions_count", sum(r.steps for r in results), "instructions retired"
    yield "multiply_accumulates_count", sum(r.macs for r in results), "MACs of the PE arrays"
    yield "ranked_blocks_count", ranked, "blocks of scores that were ranked"
    yield "kept_blocks_count", kept, "blocks of scores that were kept"
    yield "kept_blocks_percent", percent(kept, ranked), "kept of ranked blocks"
    yield "entered_heads_count", entered, "heads that were computed, for each sequence"
    yield "kept_heads_count", heads, "heads that passed their gate"
    yield "kept_heads_percent", percent(heads, entered), "kept of entered heads"
    saturated = sum(sum(r.saturations.values()) for r in results)
    yield "saturated_values_count", saturated, "values clipped when they were rounded"


def _modelled(simulation: Simulation, hardware: Hardware) -> Iterator[tuple[str, Value, str]]:
    results = simulation.results
    total = sum(r.cycles for r in results)
    each = [r.cycles for r in results]
    yield "total_cycles", total, "cycles of the machine's clock, passes one after the other"
    yield "time_seconds", total / hardware.clock_hz, f"at {hardware.clock_hz} Hz"
    yield "pass_p50_cycles", float(np.percentile(each, 50)), "median over passes"
    yield "pass_p95_cycles", float(np.percentile(each, 95)), "95th percentile over passes"
    yield "pass_max_cycles", max(each), "slowest pass"
    yield "dram_read_bytes", sum(r.dram_bytes_read for r in results), "read from DRAM"
    yield "dram_written_bytes", sum(r.dram_bytes_written for r in results), "written to DRAM"
    for engine in results[0].busy:
        busy = int(sum(r.busy[engine].sum() for r in results))
        units = hardware.cores if engine in CORE_ENGINES else 1
        what = f"of {units} units together" if units > 1 else "of the one unit"
        yield f"{engine}_busy_cycles", busy, f"busy cycles {what}"
        yield f"{engine}_utilisation_percent", percent(busy, total * units), "busy of all cycles"


def percent(part: int, whole: int) -> float | None:
    """`part` of `whole` in percent, None of nothing."""
    return 100.0 * part / whole if whole else None


def stats_json(
    rows: Sequence[Figure], simulation: Simulation, program: Program, hardware: Hardware
) -> str:
    """stats.json: the figures by group, saturations by module path, the configuration."""
    data: dict[str, Any] = {"schema": SCHEMA, "producer": f"hdp-run {VERSION}"}
    for group in (FUNCTIONAL, MODELLED):
        data[group] = {f.name: f.value for f in rows if f.group == group}
    data["instructions_by_mnemonic_count"] = _by_mnemonic(simulation)
    data["saturated_values_by_path_count"] = saturations_by_path(simulation, program)
    data["program"] = {
        "file": program.path.name,
        "producer": program.manifest.producer,
        "options": dict(program.manifest.options),
        "source": dict(program.manifest.source),
    }
    data["hardware"] = hardware.to_json()
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def stats_text(rows: Sequence[Figure]) -> str:
    """stats.txt in gem5's shape: `name value # description`."""
    lines = ["---------- Begin Simulation Statistics ----------"]
    for figure in rows:
        value = "-" if figure.value is None else f"{figure.value:.10g}"
        if isinstance(figure.value, int):
            value = str(figure.value)
        name = f"{figure.group}.{figure.name}"
        lines.append(f"{name:44} {value:>20} # {figure.description}")
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
