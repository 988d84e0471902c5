"""
The roofline of the machine with a point for each module.

S. Williams, A. Waterman, D. Patterson, Roofline: an insightful visual performance model, CACM 2009.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from heatc.hardware import Hardware
from heatc.isa.table import CORE_ENGINES, Engine
from heatc.report.chart import Block, Chart, Control, hover, key, plot_text, series_colour
from heatc.report.html import Cell, Html, table, tag
from heatc.report.material import Material, Module, SimulatedRun
from heatc.report.numbers import full

Json = Any

ENGINES = tuple(engine for engine in Engine if engine is not Engine.CONTROL)


class Point(NamedTuple):
    """A module: MACs for each byte of DRAM, and MACs a second."""

    path: str
    intensity: float
    rate: float


def draw(material: Material) -> Sequence[Block]:
    """A picture with a choice of the machine, where the runs had several."""
    runs = [run for run in material.simulated if any(points(run))]
    if not runs:
        return []
    machines = list(dict.fromkeys(run.hardware for run in runs))
    figures = {
        key(n): _figure(hardware, [(i, r) for i, r in enumerate(runs) if r.hardware == hardware])
        for n, hardware in enumerate(machines)
    }
    lead = tag(
        "p",
        "A point is a module: its multiply-accumulates for each byte to or from DRAM, and those of a "
        "second. Below the slope DRAM holds it up, below the flat roof the PE arrays. A point far "
        "below both waits for something else, such as the host. The time of a module is its share of "
        "the run's time, or that of its busiest engine where that is more. Modules without "
        "multiply-accumulates have no point.",
        class_="lead",
    )
    chart = Chart(
        id="roofline-chart",
        label="Roofline of the machine, with a point for each module",
        figures=figures,
        table=_table(runs),
        layout={
            "xaxis": {
                "type": "log",
                "dtick": 1,
                "title": {"text": "multiply-accumulates a byte of DRAM (modelled)"},
            },
            "yaxis": {
                "type": "log",
                "dtick": 1,
                "title": {"text": "MAC/s (modelled)"},
                "exponentformat": "SI",
            },
            "showlegend": True,
        },
        controls=[Control("Machine", [hardware.name for hardware in machines])],
        height=420,
    )
    return [lead, chart]


def peak_rate(hardware: Hardware) -> float:
    """Multiply-accumulates a second of all PEs, operands of 16 bits."""
    return float(hardware.macs_per_cycle * hardware.clock_hz)


def points(run: SimulatedRun) -> Iterator[Point]:
    """The modules that multiply, and whose time and bytes are known."""
    for module in run.modules:
        macs, cycles = module.figures.get("macs"), _cycles(module, run.hardware)
        parts = [module.figures.get(f"dram_{way}_bytes") for way in ("read", "written")]
        moved = sum(part or 0 for part in parts)
        if macs and cycles and moved:
            yield Point(module.path, macs / moved, macs * run.hardware.clock_hz / cycles)


def _cycles(module: Module, hardware: Hardware) -> float | None:
    """The module's share of the time, at least that of its busiest engine."""
    own = module.figures.get("time_cycles")
    if own is None:
        return None
    busy = [
        (module.figures.get(f"{e.value}_busy_cycles") or 0)
        / (hardware.cores if e in CORE_ENGINES else 1)
        for e in ENGINES
    ]
    return max(own, *busy)


def _figure(hardware: Hardware, runs: Sequence[tuple[int, SimulatedRun]]) -> Json:
    found = [(number, run, list(points(run))) for number, run in runs]
    intensities = [point.intensity for _, _, own in found for point in own]
    peak, bandwidth = peak_rate(hardware), float(hardware.dram_bytes_per_second)
    ridge = peak / bandwidth
    low, high = min(*intensities, ridge) / 3, max(*intensities, ridge) * 3
    roof = {
        "type": "scatter",
        "mode": "lines",
        "name": f"roof of {plot_text(hardware.name)}",
        "x": [low, ridge, high],
        "y": [low * bandwidth, peak, peak],
        "hovertext": [
            f"DRAM: {full(bandwidth, 'bytes/s')}",
            f"ridge: {ridge:.3g} MACs a byte",
            f"PE arrays: {full(peak, 'MAC/s')}",
        ],
        "hoverinfo": "text",
        "line": {"color": "var(--text)", "width": 2},
    }
    return {"data": [roof, *(_trace(*one) for one in found)]}


def _trace(number: int, run: SimulatedRun, found: Sequence[Point]) -> Json:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plot_text(run.name),
        "x": [p.intensity for p in found],
        "y": [p.rate for p in found],
        "hovertext": [
            hover(p.path, run.name, f"{p.intensity:.3g} MACs a byte", full(p.rate, "MAC/s"))
            for p in found
        ],
        "hoverinfo": "text",
        "marker": {"size": 9, "opacity": 0.75, "color": series_colour(number)},
    }


def _table(runs: Sequence[SimulatedRun]) -> Html:
    rows: list[list[Cell]] = []
    for run in runs:
        peak, bandwidth = peak_rate(run.hardware), run.hardware.dram_bytes_per_second
        for p in points(run):
            roof = min(peak, p.intensity * bandwidth)
            rows.append(
                [
                    Cell(p.path),
                    Cell(run.name),
                    Cell(f"{p.intensity:.3g}", p.intensity, "number"),
                    Cell(full(p.rate, "MAC/s"), p.rate, "number"),
                    Cell(f"{100 * p.rate / roof:.1f} %", p.rate / roof, "number"),
                ]
            )
    head = ["Module", "Run", "MACs a byte", "MAC/s", "Of its roof"]
    return table(head, rows, caption="Modules under the roofline, modelled", is_sortable=True)
