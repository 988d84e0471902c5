"""What each module of the model costs: bars for a quantity, and a table that can be sorted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from heatc.report.chart import Block, Chart, Control, Panels, key, plot_text, series_colour
from heatc.report.html import Cell, Html, Title, table, tag
from heatc.report.material import Material, Module, SimulatedRun
from heatc.report.numbers import Number, Scale
from heatc.report.places import place_of

Json = Any

LARGEST = 15
"""Bars of the largest modules."""

BAR, MARGIN = 9, 90
"""Pixels of a bar, and of what is around them."""


class Quantity(NamedTuple):
    """
    What modules are compared by: a sum of columns of layers.csv.

    `whole` is the column that it is a part of, empty for most: of nothing there is no part.
    """

    title: str
    short: str
    columns: tuple[str, ...]
    whole: str = ""

    def value(self, module: Module) -> Number:
        """The sum, None where a column has nothing."""
        if self.whole and not module.figures.get(self.whole):
            return None
        parts = [module.figures.get(column) for column in self.columns]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


QUANTITIES = (
    Quantity("Time", "Time", ("time_cycles",)),
    Quantity("Energy, leakage shared out by time", "Energy", ("energy_joules",)),
    Quantity("Dynamic energy", "Dynamic", ("dynamic_energy_joules",)),
    Quantity("Leakage, shared out by time", "Leakage", ("leakage_energy_joules",)),
    Quantity("Bytes to and from DRAM", "DRAM", ("dram_read_bytes", "dram_written_bytes")),
    Quantity("Multiply-accumulates", "MACs", ("macs",)),
    Quantity("Busy cycles of all engines", "Busy cycles", ("busy_cycles",)),
    Quantity("Instructions", "Instructions", ("instructions",)),
    Quantity("Kept blocks", "Kept blocks", ("kept_blocks",), "ranked_blocks"),
    Quantity("Saturated values", "Saturated", ("saturated_values",)),
)
COLUMNS = (0, 1, 2, 3, 4, 5, 8)
"""Quantities of the table."""

View = Callable[[Sequence[Module]], list[Module]]


def draw(material: Material) -> Sequence[Block]:
    """Bars of every run beside each other, and a table for each run."""
    runs = [run for run in material.simulated if run.modules]
    if not runs:
        return []
    quantities = [q for q in QUANTITIES if _is_known(q, runs)]
    lead = tag(
        "p",
        "The time of a module is the number of cycles by which its instructions moved the end of the "
        "run on: work that is hidden behind other work adds none, so that times sum to the time of "
        "the run. Leakage of the machine is shared out by that time.",
        class_="lead",
    )
    return [lead, _chart(runs, quantities, material), _tables(runs, quantities, material)]


def _is_known(quantity: Quantity, runs: Sequence[SimulatedRun]) -> bool:
    return any(quantity.value(module) for run in runs for module in run.modules)


def unit(quantity: Quantity, material: Material) -> tuple[str, str]:
    """Unit and kind of a quantity, of the page's own dictionary."""
    info = material.columns.get(quantity.columns[0])
    return ("count", "") if info is None else (info.unit, info.kind)


# --- Views ------------------------------------------------------------------------------------


def by_place(modules: Sequence[Module]) -> list[Module]:
    """Sums over the modules that differ in numbers alone, such as those of all blocks."""
    sums: dict[str, dict[str, Number]] = {}
    for module in modules:
        total = sums.setdefault(place_of(module.path), {})
        for name, value in module.figures.items():
            before = total.get(name)
            total[name] = value if before is None else before + (value or 0)
    return [Module(path, figures) for path, figures in sums.items()]


def _same(modules: Sequence[Module]) -> list[Module]:
    return list(modules)


VIEWS: Mapping[str, tuple[View, int | None]] = {
    "the same place in every block": (by_place, None),
    f"the {LARGEST} largest modules": (_same, LARGEST),
    "all modules": (_same, None),
}
"""Which modules have a bar, and how many of them."""


# --- Bars -------------------------------------------------------------------------------------


def _chart(
    runs: Sequence[SimulatedRun], quantities: Sequence[Quantity], material: Material
) -> Chart:
    figures = {
        key(n, m): _bars(runs, quantity, view, unit(quantity, material))
        for n, quantity in enumerate(quantities)
        for m, view in enumerate(VIEWS.values())
    }
    return Chart(
        id="modules-chart",
        label="Cost of each module of the model, as bars",
        figures=figures,
        table=None,
        layout={"barmode": "group", "showlegend": len(runs) > 1, "bargap": 0.25},
        controls=[
            Control("Quantity", [q.title for q in quantities]),
            Control("Modules", list(VIEWS)),
        ],
        height=420,
    )


def _bars(
    runs: Sequence[SimulatedRun],
    quantity: Quantity,
    view: tuple[View, int | None],
    of: tuple[str, str],
) -> Json:
    group, most = view
    values = [{m.path: quantity.value(m) for m in group(run.modules)} for run in runs]
    paths = dict.fromkeys(path for own in values for path in own)
    ranked = sorted(paths, key=lambda path: -max(own.get(path) or 0 for own in values))[:most]
    if most is None and group is _same:
        ranked = list(paths)
    scale = Scale(of[0], [own.get(path) for own in values for path in ranked])
    traces = [_trace(n, run, values[n], ranked, scale) for n, run in enumerate(runs)]
    axis = {"tickvals": list(range(len(ranked))), "ticktext": [plot_text(p) for p in ranked]}
    title = f"{quantity.title.lower()} ({scale.unit or 'count'}, {of[1]})"
    return {
        "data": traces,
        "layout": {
            "height": MARGIN + len(ranked) * (BAR * len(runs) + 8),
            "yaxis": {**axis, "autorange": "reversed"},
            "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
        },
    }


def _trace(
    number: int,
    run: SimulatedRun,
    values: Mapping[str, Number],
    paths: Sequence[str],
    scale: Scale,
) -> Json:
    found = [values.get(path) for path in paths]
    return {
        "type": "bar",
        "orientation": "h",
        "name": plot_text(run.name),
        "x": [scale.number(value) for value in found],
        "y": list(range(len(paths))),
        # Texts of all bars would be most of the page: page.js makes them.
        "meta": {"unit": scale.unit},
        "marker": {"color": series_colour(number)},
    }


# --- Tables -----------------------------------------------------------------------------------


def _tables(
    runs: Sequence[SimulatedRun], quantities: Sequence[Quantity], material: Material
) -> Panels:
    wanted = [QUANTITIES[n] for n in COLUMNS if QUANTITIES[n] in quantities]
    parts = {key(n): _table(n, run, wanted, material) for n, run in enumerate(runs)}
    return Panels("modules-tables", [Control("Table of", [run.name for run in runs])], parts)


def _table(
    number: int, run: SimulatedRun, quantities: Sequence[Quantity], material: Material
) -> Html:
    columns = [[q.value(module) for module in run.modules] for q in quantities]
    scales = [Scale(unit(q, material)[0], values) for q, values in zip(quantities, columns)]
    head = [Title("Module")]
    head += [Title(q.short, scale.unit or "count") for q, scale in zip(quantities, scales)]
    rows: list[list[Cell]] = []
    for place, module in enumerate(run.modules):
        cells = [Cell(module.path)]
        for values, scale in zip(columns, scales):
            cells.append(_cell(values[place], values, scale))
        rows.append(cells)
    caption = f"Modules of {run.name}, in the order of the program"
    return table(head, rows, caption=caption, is_sortable=True, id_=f"modules-table-{number}")


def _cell(value: Number, values: Sequence[Number], scale: Scale) -> Cell:
    """A figure with its share of the greatest one as a bar below it."""
    greatest = max((abs(v) for v in values if v is not None), default=0)
    share = 100 * abs(value) / greatest if value and greatest else 0
    bar = tag("span", class_="bar", style=f"width:{share:.1f}%")
    key_ = float("-inf") if value is None else value
    return Cell(tag("span", scale.text(value), bar, class_="barred"), key_, "number")
