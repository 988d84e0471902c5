"""The summary of `heatc-tune calibrate`: what is pruned, and what it costs and loses on the data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heatc.tools.summary.keys import COMPARED, COUNTED, MODELLED, TOLD, Key, Section
from heatc.tools.summary.next_steps import Step, option, step
from heatc.tools.summary.output import Summary

COMMAND = "heatc-tune calibrate"

Part = Mapping[str, Any]


def _of(name: str) -> Callable[[Part], Any]:
    return lambda part: part.get(name)


def _percent(name: str) -> Callable[[Part], Any]:
    return lambda part: None if part[name] is None else 100.0 * part[name]


SAMPLES: Section[Part] = Section(
    "samples",
    "the plan on parts of the data: fitted, held back, all",
    (
        Key("part", "text", TOLD, "which samples", _of("part")),
        Key("samples_count", "count", COUNTED, "how many", _of("samples")),
        Key(
            "pruned_blocks_percent",
            "%",
            COMPARED,
            "blocks of scores that are left out, those of pruned heads too",
            _percent("net_sparsity"),
        ),
        Key(
            "pruned_heads_percent",
            "%",
            COMPARED,
            "heads that the gate prunes",
            _percent("heads_pruned"),
        ),
        Key("loss_points", "points", COMPARED, "what the report calls loss", _of("goal_loss")),
        Key(
            "changed_predictions_percent",
            "%",
            COMPARED,
            "of the dense model's; null where there are no classes",
            _percent("changed_predictions"),
        ),
    ),
    is_list=True,
)

LAYERS: Section[Part] = Section(
    "layers",
    "each attention",
    (
        Key("path", "text", TOLD, "module path", _of("path")),
        Key("pruned_blocks_percent", "%", COMPARED, "see above", _percent("net_sparsity")),
        Key("pruned_heads_percent", "%", COMPARED, "see above", _percent("heads_pruned")),
        Key("rho_b", "list", TOLD, "of each head, or one of all", _of("rho_b")),
        Key("tau_h", "list", TOLD, "of each head, or one of all", _of("tau_h")),
    ),
    is_list=True,
)

COST: Section[Part] = Section(
    "cost",
    "a pass of the program, in the mean over samples, with the plan and without pruning; null for a "
    "goal that is no cost",
    tuple(
        Key(f"{name}_{ending}", unit, MODELLED, meaning, lambda c, n=name, k=key: c[n][k])
        for name in ("plan", "unpruned")
        for key, ending, unit, meaning in (
            ("cycles", "cycles", "cycles", "cycles of a pass"),
            ("joules", "joules", "J", "energy of a pass"),
            ("edp", "joule_seconds", "J s", "EDP: energy times time of a pass"),
        )
    ),
)

SECTIONS = (SAMPLES, LAYERS, COST)


def summarize(arguments: argparse.Namespace, report: Part, text: str) -> Summary:
    """The summary of a report; `text` is its table."""
    parts = [
        {"part": part, "samples": report["samples"][part], **measured}
        for part, measured in report["result"].items()
    ]
    sections = {
        SAMPLES.name: SAMPLES.of_all(parts),
        LAYERS.name: LAYERS.of_all(report["layers"]),
        COST.name: COST.of(report["cost"]),
    }
    return Summary(COMMAND, sections, text, next_steps(arguments))


def next_steps(arguments: argparse.Namespace) -> list[Step]:
    """Compile the plan."""
    plan = arguments.output
    model = [arguments.model, *option("--inputs", arguments.inputs)]
    machine = [*option("--hw", arguments.hw), *option("--target", arguments.target)]
    program = str(Path(plan).with_suffix(".hdp"))
    words = ["heatc", *model, "--plan", plan, *machine, "-o", program]
    return [step("compile the model with this plan", *words)]
