"""
`heatc-tune`: chooses what a plan says, on your own data.

    heatc-tune compress MODEL --data train.npz --goal "accuracy-drop<=1" -o small
    heatc-tune calibrate MODEL --data calib.npz --goal "sparsity>=0.85" -o plan.json
    heatc-tune search MODEL --target hdp-edge --data train.npz -o front
    heatc-tune distill MODEL --plan front/03.json --data train.npz -o small.json
    heatc-tune calibrate MODEL --plan small.json --data calib.npz --goal ... -o both.json
    heatc MODEL --plan both.json -o prog.hdp
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from heatc.errors import UsageError
from heatc.tools import completion
from heatc.tools.diagnostics import ToolParser, run_tool, suggest
from heatc.tools.tune_commands import COMMANDS

PROG = "heatc-tune"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `heatc-tune`."""
    return run_tool(_run, argv, PROG)


def _run(argv: Sequence[str]) -> int:
    if completion.is_asked() and (name := completion.asked_command()) in COMMANDS:
        completion.begin_at_command()
        return _function(name)([])
    if argv and not argv[0].startswith("-"):
        return _function(argv[0])(argv[1:])
    parser = ToolParser(PROG, _description())
    action = parser.add_argument("command", metavar="COMMAND", help=" or ".join(COMMANDS))
    completion.suggest_values(action, lambda: COMMANDS)
    parser.parse_args(argv)
    raise UsageError("no COMMAND given", notes=[f"see {PROG} --help"])


def _description() -> str:
    """The module's text, and one line a command."""
    lines = [f"    {name:11} {command.meaning}" for name, command in COMMANDS.items()]
    return "\n".join([(__doc__ or "").strip(), "", *lines])


def _function(name: str) -> Callable[[Sequence[str]], int]:
    """What runs a command."""
    if name not in COMMANDS:
        notes = [*suggest(name, COMMANDS), f"commands: {', '.join(COMMANDS)}"]
        raise UsageError(f"unknown command {name!r}", notes=notes)
    return getattr(importlib.import_module(COMMANDS[name].module), f"{name}_command")


if __name__ == "__main__":
    sys.exit(main())
