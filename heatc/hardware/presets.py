"""
The presets by name: files that ship with heatc, and those that other packages bring.

A package brings a preset by an entry point of the group `heatc.hardware` that names a
`pathlib.Path` of a hardware description.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heatc.extensions import Registry

_FOLDER = Path(__file__).parent / "presets"


def _stem(path: Path) -> str:
    return path.stem


DEFAULT_PRESET = "hdp-edge"
"""The machine where none is named."""


def _own(path: Path) -> Callable[[], Path]:
    return lambda: path


PRESETS: Registry[Path] = Registry(
    "heatc.hardware",
    "the hardware preset",
    Path,
    {path.stem: _own(path) for path in sorted(_FOLDER.glob("*.yaml"), key=_stem)},
    str,
    is_named=False,
    problem=lambda path: "" if path.is_file() else f"is no file: {path}",
)


def preset_names() -> tuple[str, ...]:
    """The presets that ship with heatc, sorted, then those of other packages."""
    return PRESETS.names
