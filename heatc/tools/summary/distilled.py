"""The summary of `heatc-tune distill`: the losses before and after training."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from heatc.tools.summary.keys import COMPARED, COUNTED, MEASURED, TOLD, Key, Section
from heatc.tools.summary.next_steps import Step, option, step
from heatc.tools.summary.output import Summary
from heatc.tools.summary.texts import table

COMMAND = "heatc-tune distill"

Report = Mapping[str, Any]


class Loss(NamedTuple):
    """A figure of samples held back, before training and after."""

    name: str
    before: float
    after: float


LOSSES: Section[Loss] = Section(
    "losses",
    "on samples held back of each set of text",
    (
        Key(
            "name",
            "text",
            TOLD,
            "the set, then features, outputs (losses) or pruned (share of blocks)",
            lambda x: x.name,
        ),
        Key("before", "0 or more", COMPARED, "before training", lambda x: x.before),
        Key("after", "0 or more", COMPARED, "after it", lambda x: x.after),
    ),
    is_list=True,
)

TRAINING: Section[Report] = Section(
    "training",
    "what was done",
    (
        Key(
            "trained_samples_count",
            "count",
            COUNTED,
            "samples trained on",
            lambda r: r["samples"]["train"],
        ),
        Key("device", "text", TOLD, "PyTorch's name of it", lambda r: r["device"]),
        Key("training_seconds", "s", MEASURED, "of all runs together", lambda r: r["seconds"]),
    ),
)

SECTIONS = (LOSSES, TRAINING)


def summarize(arguments: argparse.Namespace, report: Report) -> Summary:
    """The summary of a report."""
    before, after = report["before"], report["after"]
    losses = [Loss(name, before[name], after[name]) for name in after]
    rows = [(x.name, f"{x.before:.4g}", f"{x.after:.4g}") for x in losses]
    text = table([("on samples held back", "before", "after"), *rows])
    sections = {LOSSES.name: LOSSES.of_all(losses), TRAINING.name: TRAINING.of(report)}
    return Summary(COMMAND, sections, text, next_steps(arguments))


def next_steps(arguments: argparse.Namespace) -> list[Step]:
    """Compile the plan, or choose pruning on top of it."""
    plan = arguments.output
    model = [arguments.model, *option("--inputs", arguments.inputs)]
    program = str(Path(plan).with_suffix(".hdp"))
    both = str(Path(plan).with_name("both.json"))
    pruned = ["heatc-tune", "calibrate", *model, "--plan", plan, "--data", arguments.data]
    return [
        step(
            "compile the model with the trained factors",
            "heatc",
            *model,
            "--plan",
            plan,
            "-o",
            program,
        ),
        step(
            "choose attention pruning beside them",
            *pruned,
            "--goal",
            "accuracy-drop<=1",
            "-o",
            both,
        ),
    ]
