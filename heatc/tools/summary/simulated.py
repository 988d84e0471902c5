"""The summary of `hdp-run`: what is modelled, what is functional, how far from the reference."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heatc.backends.hdp.container import Program
from heatc.backends.hdp.simulation import Simulation
from heatc.hardware import Hardware
from heatc.tools.comparison import Difference
from heatc.tools.quantities import FUNCTIONAL, MODELLED, Quantity, Value
from heatc.tools.run_stats import FIGURES, STATISTICS, Figure, Run
from heatc.tools.summary.keys import COMPARED, COUNTED, TOLD, Key, Section
from heatc.tools.summary.next_steps import Step, option, step
from heatc.tools.summary.output import Summary
from heatc.tools.summary.texts import table, value_text

COMMAND = "hdp-run"

Line = tuple[str, str, str]


@dataclass(frozen=True)
class Simulated:
    """A program that was run: on what, what it gave, and how that differs from the reference."""

    arguments: argparse.Namespace
    program: Program
    hardware: Hardware
    simulation: Simulation
    rows: Sequence[Figure]
    differences: Sequence[Difference] | None

    @property
    def values(self) -> dict[str, Value]:
        """The figures by name."""
        return {figure.name: figure.value for figure in self.rows}

    @property
    def is_modelled(self) -> bool:
        """Whether time and energy were modelled."""
        return any(figure.group == MODELLED for figure in self.rows)


PROGRAM: Section[Simulated] = Section(
    "program",
    "what was run",
    (
        Key("file", "text", TOLD, "path of the program", lambda s: s.arguments.program),
        Key("hardware", "text", TOLD, "the machine's name", lambda s: s.hardware.name),
        Key(
            "instructions_count",
            "count",
            COUNTED,
            "of the program, executed or not",
            lambda s: len(s.program.instructions),
        ),
        Key(
            "simulated",
            "text",
            TOLD,
            "--model: functional, timing (on stored masks) or both",
            lambda s: s.arguments.model,
        ),
    ),
)


def _key(quantity: Quantity[Run]) -> Key[Mapping[str, Value]]:
    name, unit, kind = quantity.name, quantity.unit, quantity.kind.value
    return Key(name, unit, kind, quantity.meaning, lambda values: values.get(name))


RUN_FUNCTIONAL: Section[Mapping[str, Value]] = Section(
    FUNCTIONAL,
    "what follows from the values that were computed, and counts",
    [_key(quantity) for quantity in FIGURES if quantity.group == FUNCTIONAL],
)
RUN_MODELLED: Section[Mapping[str, Value]] = Section(
    MODELLED,
    "what comes from the model of time and energy; null from --model=functional",
    [_key(quantity) for quantity in FIGURES if quantity.group == MODELLED],
)

RUN_AGREEMENT: Section[Difference] = Section(
    "agreement",
    "each output beside --reference, over all real tokens; null without one",
    (
        Key("output", "text", TOLD, "name of the output", lambda d: d.name),
        Key("rows_count", "count", COUNTED, "rows that were compared", lambda d: d.rows),
        Key(
            "largest_difference",
            "of the output",
            COMPARED,
            "largest absolute difference of an element",
            lambda d: d.max_abs_error,
        ),
        Key("cosine", "-1 to 1", COMPARED, "of all rows as one vector", lambda d: d.cosine),
        Key("least_cosine", "-1 to 1", COMPARED, "least of a row", lambda d: d.min_cosine),
        Key("is_within_bounds", "boolean", COMPARED, "see --atol", lambda d: d.holds),
    ),
    is_list=True,
)

SECTIONS = (PROGRAM, RUN_FUNCTIONAL, RUN_MODELLED, RUN_AGREEMENT)


def summarize(made: Simulated) -> Summary:
    """The summary of a run."""
    values = made.values
    agreement = None if made.differences is None else RUN_AGREEMENT.of_all(made.differences)
    sections = {
        PROGRAM.name: PROGRAM.of(made),
        RUN_FUNCTIONAL.name: RUN_FUNCTIONAL.of(values),
        RUN_MODELLED.name: RUN_MODELLED.of(values if made.is_modelled else None),
        RUN_AGREEMENT.name: agreement,
    }
    return Summary(COMMAND, sections, _text(made), next_steps(made))


def next_steps(made: Simulated) -> list[Step]:
    """Where the cost lies, or what it would be on another machine."""
    given = made.arguments
    again = [COMMAND, given.program, *option("--inputs", given.inputs), *option("--hw", given.hw)]
    if given.stats is None and given.inputs is not None:
        stats = str(made.program.path.with_suffix(".stats"))
        return [step("cycles, bytes and joules of every layer", *again, "--stats", stats)]
    if given.stats is not None:
        words = ["heatc-report", given.stats, "-o", "report.html"]
        return [step("a page with the run's pictures", *words)]
    if given.save_masks is not None:
        words = [COMMAND, given.program, "--model=timing", "--masks", given.save_masks]
        return [step("the same decisions on another machine", *words, "--hw", "machine.yaml")]
    return []


# --- The table --------------------------------------------------------------------------------


def _text(made: Simulated) -> str:
    name = f"{made.program.path.name}, {len(made.program.instructions)} instructions"
    groups: list[list[Line]] = [
        [("program", name, ""), ("hardware", made.hardware.name, "")],
        _modelled(made) if made.is_modelled else [],
        [*_functional(made), *_agreement(made.differences or ())],
        _passes(made) if len(made.simulation.results) > 1 else [],
    ]
    # One table, so that columns are as wide in every group; a row without cells parts them.
    rows: list[Sequence[str]] = []
    for group in filter(None, groups):
        rows += [("",), *group] if rows else group
    return table(rows)


def _modelled(made: Simulated) -> list[Line]:
    values = made.values
    moved = (values["dram_read_bytes"] or 0) + (values["dram_written_bytes"] or 0)
    time = value_text(values["time_seconds"], "s")
    many = len(made.simulation.results) > 1
    return [
        ("cycles", value_text(values["total_cycles"], "cycles"), MODELLED),
        ("time", f"{time} at {made.hardware.clock_hz / 1e6:g} MHz", MODELLED),
        ("DRAM traffic", value_text(moved, "bytes"), MODELLED),
        ("energy", value_text(values["energy_joules"], "J"), MODELLED),
        (
            "EDP, summed over passes" if many else "EDP (energy x time)",
            value_text(values["energy_delay_product_joule_seconds"], "J s"),
            MODELLED,
        ),
        ("host share", value_text(values["host_utilisation_percent"], "%"), MODELLED),
        ("PE utilisation", value_text(values["pe_utilisation_percent"], "%"), MODELLED),
    ]


def _functional(made: Simulated) -> list[Line]:
    values, source = made.values, _source(made)
    lines = [
        ("kept blocks", value_text(values["kept_blocks_percent"], "%"), source),
        ("kept heads", value_text(values["kept_heads_percent"], "%"), source),
    ]
    if made.simulation.computed:
        lines.append(
            ("saturated values", value_text(values["saturated_values_count"], "count"), source)
        )
    return lines


def _source(made: Simulated) -> str:
    """Where masks come from: a run without values takes those of an earlier one."""
    return FUNCTIONAL if made.simulation.computed else "stored masks"


def _agreement(differences: Sequence[Difference]) -> list[Line]:
    lines: list[Line] = []
    for d in differences:
        text = f"largest difference {d.max_abs_error:.3g}, cosine {d.cosine:.6f}"
        verdict = "ok" if d.holds else "OUT OF BOUNDS"
        lines.append((d.name, f"{text}, least {d.min_cosine:.6f} ({verdict})", FUNCTIONAL))
    return lines


def _passes(made: Simulated) -> list[Line]:
    """The spread over the passes of a data set."""
    values = made.values
    wanted = (
        ("cycles", "cycles", "cycles", MODELLED),
        ("time", "s", "seconds", MODELLED),
        ("DRAM traffic", "bytes", "dram_bytes", MODELLED),
        ("energy", "J", "joules", MODELLED),
        ("kept blocks", "count", "kept_blocks_count", _source(made)),
    )
    lines = [(f"of {len(made.simulation.results)} passes", "p50 / p95 / max / mean", "")]
    for what, unit, name, kind in wanted:
        each = [values.get(f"pass_{short}_{name}") for short in STATISTICS]
        if None not in each:
            text = " / ".join(value_text(_whole(value), unit) for value in each)
            lines.append((f"  {what}", text, kind))
    return lines


def _whole(value: Value) -> Value:
    """A count that is a whole number, as one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
