"""When the engines worked for a module: a strip for each engine, over the cycles of one pass."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from heatc.report.chart import Block, Chart, Control, key, plot_text
from heatc.report.html import Cell, Html, table, tag
from heatc.report.material import Material, SimulatedRun, Strip, Timeline
from heatc.report.numbers import NOTHING

Json = Any

NAMES = {
    "dma_loads": "DMA loads",
    "dma_stores": "DMA stores",
    "pe": "PE arrays",
    "se": "sparsity engines",
    "adder": "adders",
    "softmax": "softmax units",
    "vector": "vector units",
    "host": "host",
}
"""Engines as people call them."""

WHOLE = "the whole run"

BUDGET = 1_000_000
"""Characters of all strips of the page."""

ROW, MARGIN = 30, 110
"""Pixels of an engine, and of what is around them."""


Watched = Sequence[tuple[SimulatedRun, Timeline]]
"""Runs whose engines were watched."""


def draw(material: Material) -> Sequence[Block]:
    """A picture with a choice of run and module."""
    runs = [(run, run.timeline) for run in material.simulated if run.timeline is not None]
    if not runs:
        return []
    kept = [_kept(run, timeline, BUDGET // len(runs)) for run, timeline in runs]
    _tell(runs, kept, material)
    modules = list(dict.fromkeys(path for paths in kept for path in paths))
    figures: dict[str, Json] = {}
    for n, (_, timeline) in enumerate(runs):
        figures[key(n, 0)] = _figure(timeline, timeline.whole_run)
        for m, path in enumerate(modules, 1):
            if path in kept[n]:
                figures[key(n, m)] = _figure(timeline, timeline.modules[path])
    lead = tag(
        "p",
        "The stronger the colour, the busier: the share of an engine's units that work in a bin of "
        "cycles, modelled, in the first pass. Loads for a module may begin long before it computes.",
        class_="lead",
    )
    chart = Chart(
        id="timeline-chart",
        label="Busy engines over the cycles of a pass",
        figures=figures,
        table=_table(runs),
        layout={"yaxis": {"autorange": "reversed"}, "showlegend": False},
        controls=[
            Control("Run", [run.name for run, _ in runs]),
            Control("Module", [WHOLE, *modules]),
        ],
        height=MARGIN + 5 * ROW,
    )
    return [lead, chart]


def _kept(run: SimulatedRun, timeline: Timeline, budget: int) -> list[str]:
    """The modules that are drawn, in their order: those of most time where not all have room."""
    times = {module.path: module.figures.get("time_cycles") or 0 for module in run.modules}
    chosen: set[str] = set()
    for path in sorted(timeline.modules, key=lambda path: -times.get(path, 0)):
        budget -= len(json.dumps(_figure(timeline, timeline.modules[path])))
        if budget < 0:
            break
        chosen.add(path)
    return [path for path in timeline.modules if path in chosen]


def _tell(runs: Watched, kept: Sequence[Sequence[str]], material: Material) -> None:
    for (run, timeline), paths in zip(runs, kept):
        missing = len(timeline.modules) - len(paths)
        if missing:
            material.remarks.append(
                f"timeline of {run.name}: {missing} modules of least time are left out, "
                "which the page has no room for"
            )


def _figure(timeline: Timeline, strip: Strip) -> Json:
    width, units = strip.bin_cycles, timeline.units
    tracks = [track for track in units if track in strip.busy_cycles]
    shares = [
        [round(100 * busy / (width * units[track])) for busy in strip.busy_cycles[track]]
        for track in tracks
    ]
    heatmap = {
        "type": "heatmap",
        "z": shares,
        "x0": strip.first_cycle + width / 2,
        "dx": width,
        "y": [_name(track, units[track]) for track in tracks],
        "zmin": 0,
        "zmax": 100,
        "ygap": 4,
        "colorscale": [[0, "var(--strip-0)"], [1, "var(--strip-1)"]],
        "colorbar": {"title": {"text": "busy %", "side": "right"}, "thickness": 8, "len": 1},
        "hovertemplate": "%{y}<br>around cycle %{x:,.0f}: %{z} % busy<br>"
        f"bins of {width:,} cycles<extra></extra>",
    }
    return {
        "data": [heatmap],
        "layout": {
            "height": MARGIN + len(tracks) * ROW,
            "xaxis": {"title": {"text": "cycles (modelled)"}, "tickformat": ",d"},
        },
    }


def _name(track: str, units: int) -> str:
    name = plot_text(NAMES.get(track, track))
    return f"{units} {name}" if units > 1 else name


def _table(runs: Watched) -> Html:
    """How busy each engine is in the whole pass."""
    tracks = list(dict.fromkeys(track for _, timeline in runs for track in timeline.units))
    rows: list[list[Cell]] = []
    for track in tracks:
        cells = [Cell(NAMES.get(track, track))]
        for _, timeline in runs:
            busy = sum(timeline.whole_run.busy_cycles.get(track, []))
            whole = timeline.total_cycles * timeline.units.get(track, 1)
            cells.append(Cell(f"{100 * busy / whole:.1f} %" if whole else NOTHING, busy, "number"))
        rows.append(cells)
    head = ["Engine", *(run.name for run, _ in runs)]
    return table(head, rows, caption="Busy share of each engine in the first pass, modelled")
