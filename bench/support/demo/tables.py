"""What the demo prints: two tables, and what they mean in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.support.demo.steps import CALIBRATION, LONG, MACHINE, SCORED, SHORT, SIMULATED, Made

Subject = Mapping[str, Any]

NAMES = {"dense": "dense", "heat": "HEAT", "hdp": "HDP", "both": "HEAT + HDP"}
EDP = "batch_p50_energy_delay_product_joule_seconds"

LEGEND = f"""\
Accuracy is of labelled test sentences, with its 95 % interval: of {SCORED} for
NumPy programs, of the first {SIMULATED} for HDP programs. Changed: predictions other
than those of the dense program. Cycles, energy and EDP (energy times time) are
modelled, of {MACHINE}; CPU time is measured on this computer.
HEAT: low-rank factors of .6 of the products, near the weights on {CALIBRATION} training
sentences, not trained after it."""


class Column(NamedTuple):
    """A column of a table: its title, and the text of a program's cell."""

    title: str
    cell: Callable[[Subject, Subject], str]
    """Of the program and of the dense one."""


def show(made: Made, console: Console) -> None:
    """Print the tables, the legend and the findings."""
    numpy, short, long = (_subjects(file) for file in (made.numpy, made.short, made.long))
    batch = f"{SHORT} tokens at most, 8 sentences at once"
    console.print(_table(f"NumPy programs, {batch}", numpy, (*SCORES, CPU, SIZE)))
    console.print(_table(f"HDP programs, {batch}", short, (*SCORES, *COSTS)))
    console.print(_table(f"HDP programs, {LONG} tokens, one text", long, COSTS))
    console.print(LEGEND, markup=False)
    for line in findings(short, long):
        console.print(f"* {line}", markup=False)


def _subjects(file: Mapping[str, Any]) -> dict[str, Subject]:
    """The programs of an evaluation by their names in `NAMES`."""
    named = {subject["name"].removeprefix("long-"): subject for subject in file["subjects"]}
    return {name.partition(".")[0]: subject for name, subject in named.items()}


def _table(title: str, subjects: Mapping[str, Subject], columns: tuple[Column, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("", *(column.title for column in columns)):
        table.add_column(heading, justify="right" if heading else "left")
    for name in subjects:
        cells = [column.cell(subjects[name], subjects["dense"]) for column in columns]
        table.add_row(NAMES[name], *cells)
    return table


def _changed(subject: Subject, dense: Subject) -> str:
    figure = subject["compared"]["changed_predictions_percent"]
    return "-" if figure is None else f"{figure['value']:.1f} %"


def _accuracy(subject: Subject, dense: Subject) -> str:
    figure = subject["compared"]["accuracy_percent"]
    return f"{figure['value']:.1f} % ({figure['low']:.0f} to {figure['high']:.0f})"


def _modelled(name: str, form: str, scale: float = 1.0) -> Callable[[Subject, Subject], str]:
    return lambda subject, dense: form.format(subject["modelled"][name] * scale)


def _less(subject: Subject, dense: Subject) -> str:
    return f"{dense['modelled'][EDP] / subject['modelled'][EDP]:.2f}x"


SCORES = (
    Column("accuracy", _accuracy),
    Column("changed", _changed),
)
COSTS = (
    Column("less EDP", _less),
    Column("cycles", _modelled("batch_p50_cycles", "{:,.0f}")),
    Column("energy", _modelled("batch_p50_joules", "{:.2f} mJ", 1e3)),
)
CPU = Column("CPU", lambda s, dense: f"{s['measured']['batch_p50_cpu_seconds'] * 1e3:.0f} ms")
SIZE = Column("size", lambda s, dense: f"{s['measured']['program_bytes'] / 1e6:.1f} MB")


def findings(short: Mapping[str, Subject], long: Mapping[str, Subject]) -> Iterator[str]:
    """What the figures say, good or bad."""
    for tokens, subjects in ((SHORT, short), (LONG, long)):
        factor = _edp(subjects, "dense", "heat")
        yield f"HEAT at {tokens} tokens: {_worth(factor)} than dense."
        factor, more = _edp(subjects, "dense", "hdp"), _edp(subjects, "heat", "both")
        yield f"HDP at {tokens} tokens: {_worth(factor)} than dense, {_worth(more)} on top of HEAT."
        if factor < 1:
            yield f"At {tokens} tokens deciding what to prune costs more than pruning spares."


def _edp(subjects: Mapping[str, Subject], before: str, after: str) -> float:
    return subjects[before]["modelled"][EDP] / subjects[after]["modelled"][EDP]


def _worth(factor: float) -> str:
    return f"{factor:.2f}x less EDP" if factor >= 1 else f"{1 / factor:.2f}x more EDP"
