"""The option `--hw`, the same in every command."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from heatc.tools.completion import suggest_values


def add_hardware_argument(add: Callable[..., argparse.Action]) -> None:
    """`--hw`; `add` is `add_argument` of a parser or a group."""
    action = add(
        "--hw",
        metavar="NAME|FILE.yaml",
        help="the machine: a preset (heatc --list-targets), or a hardware description",
    )
    suggest_values(action, _presets)


def _presets() -> tuple[str, ...]:
    from heatc.hardware import preset_names

    return tuple(preset_names())
