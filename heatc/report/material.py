"""What was read, as sections draw it: runs, plans, fronts, evaluations, and the files themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.hardware import Hardware
from heatc.plan import Plan
from heatc.report.numbers import Number

Json = Any


@dataclass(frozen=True)
class SourceFile:
    """A file that a figure of the page comes from; `modified` in seconds since 1970."""

    path: Path
    sha256: str
    size: int
    modified: float


@dataclass(frozen=True)
class FigureInfo:
    """What a figure is: see `heatc.tools.quantities.Quantity`."""

    name: str
    unit: str
    kind: str
    meaning: str


@dataclass(frozen=True)
class Module:
    """A row of layers.csv: figures by the names of its columns."""

    path: str
    figures: Mapping[str, Number]


@dataclass(frozen=True)
class Masks:
    """
    Kept masks of one attention.

    Attributes:
        blocks: bool (inputs, heads, block rows, block columns), kept blocks; None where the rule
            decides about none.
        heads: bool (inputs, heads), kept heads; None where no gate decides.
        lengths: tokens of each input.
        block: query rows and key columns of a block.
    """

    blocks: NDArray[np.bool_] | None
    heads: NDArray[np.bool_] | None
    lengths: Sequence[int]
    block: tuple[int, int] | None


@dataclass(frozen=True)
class Strip:
    """
    When the engines worked for a module.

    Attributes:
        first_cycle: where the first bin begins.
        bin_cycles: width of a bin.
        busy_cycles: of all units of an engine in each bin, by engine.
    """

    first_cycle: int
    bin_cycles: int
    busy_cycles: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Timeline:
    """A timeline.json: cycles of the pass, units of each engine, and strips by module path."""

    total_cycles: int
    units: Mapping[str, int]
    whole_run: Strip
    modules: Mapping[str, Strip]


@dataclass(frozen=True)
class SimulatedRun:
    """A folder of `hdp-run --stats`."""

    name: str
    folder: Path
    stats: Json
    modules: Sequence[Module]
    timeline: Timeline | None
    masks: Mapping[str, Masks]
    hardware: Hardware
    hardware_text: str
    files: Sequence[SourceFile]

    def figure(self, name: str) -> Number:
        """A figure of stats.json, None where it has none."""
        for group in ("functional", "modelled"):
            value = self.stats.get(group, {}).get(name)
            if value is not None:
                return value
        return None

    @property
    def model(self) -> str:
        """What the program was compiled from."""
        return str(self.stats["program"]["source"].get("model", "unknown"))


@dataclass(frozen=True)
class PlanLayer:
    """What a plan says of a layer; None where it says nothing, or nobody can know."""

    path: str
    format: str | None
    shape: str | None
    ranks: Sequence[int] | None
    parameters: int | None
    dense_parameters: int | None
    rule: str | None

    @property
    def kept_percent(self) -> float | None:
        """Parameters of the factors, of those of the dense weight."""
        if self.parameters is None or not self.dense_parameters:
            return None
        return 100 * self.parameters / self.dense_parameters


@dataclass(frozen=True)
class PlanRun:
    """A plan.json."""

    name: str
    plan: Plan
    layers: Sequence[PlanLayer]
    files: Sequence[SourceFile]


@dataclass(frozen=True)
class FrontPoint:
    """
    A plan of a front.

    Attributes:
        formats: how many layers have each format, empty where nobody knows.
        link: its file, None where it is not there.
        note: that it was chosen, and for which goal; empty for the others.
    """

    name: str
    figures: Mapping[str, Number]
    formats: Mapping[str, int]
    link: Path | None
    hardware: str
    note: str = ""


@dataclass(frozen=True)
class FrontRun:
    """
    A front.json.

    Attributes:
        conditions: what costs and losses are of, in words.
        loss: what plans lose, which is drawn over their energy × delay.
        columns: what the figures are, `edp` among them.
        dense: figures of the model as it is.
        uniform: figures of plans of one format and share for all layers.
    """

    name: str
    conditions: str
    loss: FigureInfo
    columns: Sequence[FigureInfo]
    dense: Mapping[str, Number]
    uniform: Sequence[Mapping[str, Number]]
    points: Sequence[FrontPoint]
    files: Sequence[SourceFile]


@dataclass(frozen=True)
class EvaluationRun:
    """An eval.json."""

    name: str
    data: Json
    files: Sequence[SourceFile]


@dataclass(frozen=True)
class SweepPoint:
    """A machine: what is changed by key, figures by name, and why the program does not fit on it."""

    changes: Mapping[str, str]
    figures: Mapping[str, Number]
    problem: str


@dataclass(frozen=True)
class SweepRun:
    """A sweep.json; `keys` are values by key of the hardware file, `columns` what the figures are."""

    name: str
    program: str
    program_sha256: str
    planned_for: str
    is_recompiled: bool
    keys: Mapping[str, Sequence[str]]
    columns: Mapping[str, FigureInfo]
    points: Sequence[SweepPoint]
    files: Sequence[SourceFile]


Run = SimulatedRun | PlanRun | FrontRun | EvaluationRun | SweepRun


@dataclass(frozen=True)
class Material:
    """
    Everything that the page is made of.

    Attributes:
        runs: in the order of the command line.
        figures: what each figure of stats.json is, by name; `columns` the same of layers.csv.
        kinds: what it means that a figure is modelled, counted or functional.
        output: where the page will be, which links are relative to.
    """

    runs: Sequence[Run]
    figures: Mapping[str, FigureInfo]
    columns: Mapping[str, FigureInfo]
    kinds: Mapping[str, str]
    output: Path
    remarks: list[str] = field(default_factory=list[str])
    """What the page leaves out, for the command to tell."""

    @property
    def simulated(self) -> list[SimulatedRun]:
        """The runs of programs; the others are compared with the first one."""
        return [run for run in self.runs if isinstance(run, SimulatedRun)]

    @property
    def plans(self) -> list[PlanRun]:
        """The plans."""
        return [run for run in self.runs if isinstance(run, PlanRun)]

    @property
    def fronts(self) -> list[FrontRun]:
        """The fronts."""
        return [run for run in self.runs if isinstance(run, FrontRun)]

    @property
    def evaluations(self) -> list[EvaluationRun]:
        """The evaluations."""
        return [run for run in self.runs if isinstance(run, EvaluationRun)]

    @property
    def sweeps(self) -> list[SweepRun]:
        """The sweeps."""
        return [run for run in self.runs if isinstance(run, SweepRun)]
