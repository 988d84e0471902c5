"""The summary of `heatc`: dense beside compiled, agreement, what was changed, what to try next."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.progress import ProgressCallback
from heatc.tools.summary.changes import FACTORISED, NARROWED, PRUNED, Changes, change_rows
from heatc.tools.summary.dense import Dense, dense_beside
from heatc.tools.summary.figures import COMPILED, DENSE, Figures, figure_rows, figures_of
from heatc.tools.summary.keys import COMPARED, COUNTED, MEASURED, TOLD, Key, Section
from heatc.tools.summary.next_steps import DATA, Step, option, step
from heatc.tools.summary.output import Summary
from heatc.tools.summary.texts import table
from heatc.tools.tune_commands import COMMANDS

if TYPE_CHECKING:
    from heatc.api import Compilation
    from heatc.verify import Verification

COMMAND = "heatc"


@dataclass(frozen=True)
class Compiled:
    """A compilation that was written, with what was said on the command line."""

    arguments: argparse.Namespace
    compilation: Compilation
    changes: Changes
    form: str

    @property
    def output(self) -> str:
        """The program's path, or `-`."""
        return self.arguments.output or "-"

    @property
    def machine(self) -> str | None:
        """The machine's name, None where the target has none."""
        hardware = self.compilation.hardware
        return None if hardware is None else hardware.name


PROGRAM: Section[Compiled] = Section(
    "program",
    "what was written, and of what",
    (
        Key("file", "text", TOLD, "path of the program, - for stdout", lambda c: c.output),
        Key("form", "text", TOLD, "hdp, numpy, asm, ir, ...", lambda c: c.form),
        Key(
            "target",
            "text",
            TOLD,
            "see --list-targets",
            lambda c: c.compilation.options.target.name,
        ),
        Key("hardware", "text", TOLD, "the machine's name; null without one", lambda c: c.machine),
        Key("model", "text", TOLD, "path of the model, - for stdin", lambda c: c.arguments.model),
        Key(
            "compile_seconds",
            "s",
            MEASURED,
            "capture, passes, writing and the check",
            lambda c: sum(seconds for _, seconds in c.compilation.seconds),
        ),
    ),
)

AGREEMENT: Section[Verification] = Section(
    "agreement",
    "the check of the program against the model on inputs that are made up; null where there was none",
    (
        Key(
            "not_checked_because",
            "text",
            TOLD,
            "why nothing was compared; null where something was",
            lambda v: v.reason or None,
        ),
        Key(
            "inputs_count", "count", COUNTED, "batches that were compared", lambda v: len(v.inputs)
        ),
        Key(
            "largest_difference",
            "of the output",
            COMPARED,
            "largest absolute difference of an output's element; null without inputs",
            lambda v: None if v.reason else v.largest,
        ),
        Key(
            "least_cosine",
            "-1 to 1",
            COMPARED,
            "least cosine of an output's row with the model's; null without inputs",
            lambda v: None if v.reason else v.cosine,
        ),
        Key("input_kinds", "list", TOLD, "how the inputs were padded", lambda v: list(v.inputs)),
        Key(
            "left_out_inputs_count",
            "count",
            COUNTED,
            "batches that --verify-seconds left no time for",
            lambda v: v.left_out,
        ),
        Key(
            "parts",
            "list",
            TOLD,
            "what is approximated, and what the host does",
            lambda v: list(v.parts),
        ),
        Key("check_seconds", "s", MEASURED, "what the check took", lambda v: v.seconds),
    ),
)

SECTIONS = (PROGRAM, DENSE, COMPILED, AGREEMENT, FACTORISED, PRUNED, NARROWED)


def summarize(made: Compiled, progress: ProgressCallback) -> Summary:
    """The summary of a compilation; the dense model may be compiled for it."""
    progress("the summary", 0, 0)
    compilation, changes = made.compilation, made.changes
    own = figures_of(compilation, changes.compiled)
    dense = dense_beside(
        compilation, changes, asked=made.arguments.compare_dense, progress=progress
    )
    sections = {
        PROGRAM.name: PROGRAM.of(made),
        DENSE.name: DENSE.of(dense.figures),
        COMPILED.name: COMPILED.of(own),
        AGREEMENT.name: AGREEMENT.of(compilation.verification),
        FACTORISED.name: FACTORISED.of_all(changes.layers),
        PRUNED.name: PRUNED.of_all(changes.attentions),
        NARROWED.name: NARROWED.of(changes if changes.widths else None),
    }
    return Summary(COMMAND, sections, _text(made, own, dense), next_steps(made))


def _text(made: Compiled, own: Figures, dense: Dense) -> str:
    on = f" on {made.machine}" if made.machine else ""
    title = f"{made.output}: {made.form} program of {made.arguments.model}{on}"
    notes = [("", dense.note)] if dense.note else []
    if own.timed is not None:
        notes.append(("", "cost is of one run at full length, nothing pruned; no input was timed"))
    rows = [_agreement(made.compilation.verification), *change_rows(made.changes), *notes]
    return "\n".join([title, "", table(figure_rows(own, dense.figures)), "", table(rows)])


def _agreement(found: Verification | None) -> tuple[str, str]:
    if found is None:
        return ("agreement", "not checked (--no-verify)")
    if found.reason:
        return ("agreement", f"not checked: {found.reason}")
    many = f"{len(found.inputs)} input{'s' if len(found.inputs) != 1 else ''} made up"
    figures = f"largest difference {found.largest:.3g}, least cosine {found.cosine:.6f}"
    return ("agreement", f"{figures} with the model, on {many}")


def next_steps(made: Compiled) -> list[Step]:
    """One or two commands that follow from what was compiled."""
    if made.output == "-" or made.form not in ("hdp", "numpy"):
        return []
    given = made.arguments
    data = given.calibrate or DATA
    model = [given.model, *option("--inputs", given.inputs)]
    steps: list[Step] = []
    if made.form == "hdp":
        stats = str(Path(made.output).with_suffix(".stats"))
        words = ("hdp-run", made.output, "--inputs", data, "--stats", stats)
        steps.append(step("cycles, joules and kept blocks on your inputs", *words))
    is_changed = made.changes.layers or made.changes.attentions
    if "eval" in COMMANDS and (is_changed or made.form == "numpy"):
        words = ("heatc-tune", "eval", made.output, *_reference(given.model), "--data", data)
        steps.append(step("accuracy and changed predictions on your labels", *words))
    if made.changes.is_dense and not _is_text(given.model):
        machine = option("--hw", given.hw) or ["--target", made.machine or "hdp-edge"]
        words = ("heatc-tune", "search", *model, *machine, "--data", data, "-o", "front")
        steps.append(step("plans of factorised layers for this machine", *words))
    return steps


def _reference(model: str) -> list[str]:
    return [] if _is_text(model) else ["--model", model]


def _is_text(model: str) -> bool:
    return model == "-" or model.endswith(".mlir")
