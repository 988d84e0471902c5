"""What the demo prints: two tables, and what they mean in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.support.demo.steps import LONG, MACHINE, SHORT, TEST, Made

Subject = Mapping[str, Any]

NAMES = {"dense": "dense", "heat": "HEAT", "hdp": "HDP", "both": "HEAT + HDP"}
EDP = "batch_p50_energy_delay_product_joule_seconds"

LEGEND = f"""\
Accuracy is of {TEST} labelled test sentences, with its 95 % interval; changed: predictions other than those of dense.
EDP is energy times time. Cycles, joules and EDP are modelled, for {MACHINE}; CPU is measured on this computer.
HEAT: low-rank factors near the weights on 128 training sentences, at .6 of the products; no training after it."""


class Column(NamedTuple):
    """A column of a table: its title, and the text of a program's cell."""

    title: str
    cell: Callable[[Subject, Subject], str]
    """Of the program and of the dense one."""


def show(made: Made, console: Console) -> None:
    """Print both tables, the legend and the findings."""
    short, long = (_subjects(file) for file in (made.short, made.long))
    console.print(_table(f"film reviews, up to {SHORT} tokens, 8 at once", short, _short(short)))
    console.print(_table(f"text of {LONG} tokens, one at once", long, LONG_COLUMNS))
    console.print(LEGEND, markup=False)
    for line in findings(short, long):
        console.print(f"• {line}", markup=False)


def _subjects(file: Mapping[str, Any]) -> dict[str, Subject]:
    """The HDP programs by their names in `NAMES`, and NumPy programs as `<name>.py`."""
    found: dict[str, Subject] = {}
    for subject in file["subjects"]:
        name = subject["name"].removeprefix("long-")
        found[name.removesuffix(".hdp")] = subject
    return found


def _table(title: str, subjects: Mapping[str, Subject], columns: tuple[Column, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("", *(column.title for column in columns)):
        table.add_column(heading, justify="right" if heading else "left")
    for name, text in NAMES.items():
        cells = [column.cell(subjects[name], subjects["dense"]) for column in columns]
        table.add_row(text, *cells)
    return table


def _compared(name: str) -> Callable[[Subject, Subject], str]:
    return lambda subject, dense: f"{subject['compared'][name]['value']:.1f} %"


def _accuracy(subject: Subject, dense: Subject) -> str:
    figure = subject["compared"]["accuracy_percent"]
    return f"{figure['value']:.1f} % ({figure['low']:.0f} to {figure['high']:.0f})"


def _modelled(name: str, form: str, scale: float = 1.0) -> Callable[[Subject, Subject], str]:
    return lambda subject, dense: form.format(subject["modelled"][name] * scale)


def _less(subject: Subject, dense: Subject) -> str:
    return f"{dense['modelled'][EDP] / subject['modelled'][EDP]:.2f}x"


COSTS = (
    Column("EDP, times less", _less),
    Column("cycles", _modelled("batch_p50_cycles", "{:,.0f}")),
    Column("energy", _modelled("batch_p50_joules", "{:.2f} mJ", 1e3)),
)

LONG_COLUMNS = (
    *COSTS,
    Column("cosine with dense", lambda s, dense: f"{s['compared']['cosine_mean']['value']:.4f}"),
)


def _short(subjects: Mapping[str, Subject]) -> tuple[Column, ...]:
    """The columns of the first table; the time of a NumPy program is found by the program's name."""

    def cpu(subject: Subject, dense: Subject) -> str:
        program = subjects.get(f"{subject['name'].removesuffix('.hdp')}.py")
        if program is None:
            return "-"
        return f"{program['measured']['batch_p50_cpu_seconds'] * 1e3:.0f} ms"

    return (
        Column("accuracy", _accuracy),
        Column("changed", _compared("changed_predictions_percent")),
        *COSTS,
        Column("size", lambda s, dense: f"{s['measured']['program_bytes'] / 1e6:.1f} MB"),
        Column("time, modelled", _modelled("batch_p50_seconds", "{:.1f} ms", 1e3)),
        Column("NumPy program, CPU", cpu),
    )


def findings(short: Mapping[str, Subject], long: Mapping[str, Subject]) -> Iterator[str]:
    """What the figures say, good or bad."""
    for tokens, subjects in ((SHORT, short), (LONG, long)):
        factor = _edp(subjects, "dense", "heat")
        yield f"HEAT at {tokens} tokens: {_worth(factor)} than dense."
        factor, more = _edp(subjects, "dense", "hdp"), _edp(subjects, "heat", "both")
        yield f"HDP at {tokens} tokens: {_worth(factor)} than dense, {_worth(more)} on top of HEAT."
        if factor < 1:
            yield (
                f"At {tokens} tokens deciding what to prune costs more than pruning spares: "
                "heatc-tune calibrate leaves pruning out there."
            )


def _edp(subjects: Mapping[str, Subject], before: str, after: str) -> float:
    return subjects[before]["modelled"][EDP] / subjects[after]["modelled"][EDP]


def _worth(factor: float) -> str:
    return f"{factor:.2f}x less EDP" if factor >= 1 else f"{1 / factor:.2f}x more EDP"
