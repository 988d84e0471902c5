"""The commands of `heatc-tune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Subcommand:
    """One command of heatc-tune."""

    module: str
    """Has the function `<name>_command(argv)`; imported when the command is asked for."""
    meaning: str


COMMANDS: Mapping[str, Subcommand] = {
    "compress": Subcommand(
        "heatc.tools.tune_compress", "all of it in one run: search, train, prune, compile"
    ),
    "calibrate": Subcommand(
        "heatc.tools.tune_calibrate",
        "the parameters of attention pruning (rule `ours`) per layer and head",
    ),
    "search": Subcommand(
        "heatc.tools.tune_search", "format, shape and ranks of every layer, for a machine"
    ),
    "distill": Subcommand(
        "heatc.tools.tune_distill", "the factors of a plan, trained to do what the model does"
    ),
    "eval": Subcommand(
        "heatc.tools.tune_eval", "accuracy and cost of programs, models and plans, side by side"
    ),
    "data": Subcommand("heatc.tools.tune_data", "a data set from labelled text"),
}
"""Every command by name. A new one is a line here and a module."""
