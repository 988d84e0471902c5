"""The summary of `heatc-tune compress`: the dense model, the plans of the front, the program."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from heatc.names import FRONT_PLAN, compressed_program
from heatc.tools.summary.keys import COMPARED, TOLD, Key, Section
from heatc.tools.summary.next_steps import Step, option, step
from heatc.tools.summary.output import Summary
from heatc.tuning.compress.figures import FIGURES, Figure

COMMAND = "heatc-tune compress"

Front = Mapping[str, Any]

_NAMES: Mapping[str, str] = {
    "accuracy_drop": "accuracy_drop_points",
    "accuracy_drop_low": "accuracy_drop_low_points",
    "accuracy_drop_high": "accuracy_drop_high_points",
    "accuracy": "accuracy_percent",
    "changed": "changed_predictions_percent",
    "edp": "energy_delay_product_joule_seconds",
    "joules": "energy_joules",
    "seconds": "time_seconds",
    "cycles": "total_cycles",
    "weight_bytes": "weights_bytes",
    "macs": "multiply_accumulates_count",
}
"""What a summary calls a figure of front.json where the names are not the same."""


class Compressed(NamedTuple):
    """
    What a run came to.

    `inputs` are the shapes of a folder's inputs as `--inputs` takes them, `checked` is what the check of the
    program said.
    """

    arguments: argparse.Namespace
    data: Front
    inputs: str
    checked: str

    @property
    def folder(self) -> Path:
        """Where all of it was written."""
        return Path(self.arguments.output)

    @property
    def program(self) -> Path:
        """The compiled plan.json."""
        return self.folder / compressed_program(self.arguments.target == "numpy")


def _of(name: str) -> Callable[[Front], Any]:
    return lambda point: point.get(name)


def _key(figure: Figure) -> Key[Front]:
    name = _NAMES.get(figure.name, figure.name)
    return Key(name, figure.unit, figure.source, figure.meaning, _of(figure.name))


_FIGURES = tuple(map(_key, FIGURES))

DENSE: Section[Front] = Section("dense", "the model as it is", _FIGURES)
POINTS: Section[Front] = Section(
    "points",
    "the plans that were written, those that take least EDP first",
    (
        Key("file", "text", TOLD, "plan.json of the point, in the folder of -o", _of("file")),
        Key("made_by", "text", TOLD, "what was done to the model", _of("made_by")),
        *_FIGURES,
    ),
    is_list=True,
)
CHOSEN: Section[Front] = Section(
    "chosen",
    "the point that is plan.json",
    (
        Key("goals", "list of text", TOLD, "as they were given", _of("goals")),
        Key(
            "is_met", "true, false", COMPARED, "whether the point holds them all", _of("goals_met")
        ),
        Key(
            "file",
            "text",
            TOLD,
            "the point; where none holds the goals, the one that comes nearest",
            lambda data: data["chosen"] or data["nearest"],
        ),
    ),
)
PROGRAM: Section[Compressed] = Section(
    "program",
    "the compiled plan.json",
    (
        Key("file", "text", TOLD, "path of the program", lambda c: str(c.program)),
        Key(
            "hardware",
            "text",
            TOLD,
            "the machine that costs are modelled for",
            lambda c: c.data["hw"],
        ),
        Key(
            "checked",
            "text",
            COMPARED,
            "what the check against the model said",
            lambda c: c.checked,
        ),
    ),
)

SECTIONS: Sequence[Section[Any]] = (DENSE, POINTS, CHOSEN, PROGRAM)


def summarize(made: Compressed, text: str) -> Summary:
    """The summary of front.json's data; `text` is the table of it."""
    sections = {
        DENSE.name: DENSE.of(made.data["dense"]),
        POINTS.name: POINTS.of_all(made.data["points"]),
        CHOSEN.name: CHOSEN.of(made.data),
        PROGRAM.name: PROGRAM.of(made),
    }
    return Summary(COMMAND, sections, text, next_steps(made))


def next_steps(made: Compressed) -> list[Step]:
    """Judge the program, compile another plan, train longer."""
    given, folder = made.arguments, made.folder
    model = [given.model, *option("--weights", given.weights)]
    inputs = option("--inputs", made.inputs) if Path(given.model).is_dir() else []
    target = [*option("--target", given.target), *option("--hw", given.hw)]
    other = folder / f"other{made.program.suffix}"
    plan = folder / made.data["points"][min(2, len(made.data["points"])) - 1]["file"]
    longer = folder.with_name(f"{folder.name}-longer.json")
    judged = ["--data", given.dev or given.data]
    trained = ["--plan", str(folder / FRONT_PLAN), "--data", given.data, "-o", str(longer)]
    return [
        step(
            "accuracy and time of the program",
            *("heatc-tune", "eval", str(made.program), *model, *judged),
        ),
        step(
            "another plan of the front",
            *("heatc", *model, "--plan", str(plan), *inputs, *target, "-o", str(other)),
        ),
        step("longer training", "heatc-tune", "distill", *model, *trained),
    ]
