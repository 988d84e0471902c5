"""
The targets: `numpy`, the HDP presets, and what other packages bring.

A package brings a target by an entry point of the group `heatc.targets` that names an object of
`heatc.targets.base.Target`; nothing is imported before it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from xdsl.utils.arg_spec import ArgSpec

from heatc.errors import HeatcError
from heatc.hardware import preset_names
from heatc.pipeline import spelled
from heatc.targets.base import PATHS, RAISE, Form, Options, Target, shared_passes
from heatc.targets.hdp import DEFAULT, Hdp
from heatc.targets.numpy import NAME, Numpy
from heatc.targets.text import IR

__all__ = [
    "DEFAULT",
    "PATHS",
    "RAISE",
    "Hdp",
    "Numpy",
    "Options",
    "Target",
    "all_forms",
    "find_target",
    "form_of",
    "pipeline",
    "pipeline_text",
    "target_names",
]

GROUP = "heatc.targets"


def _foreign() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def target_names() -> tuple[str, ...]:
    """What `--target` takes."""
    return (*preset_names(), NAME, *sorted(_foreign()))


def find_target(name: str) -> Target | None:
    """The target of a name, None where there is none."""
    if name == NAME:
        return Numpy()
    if name in preset_names():
        return Hdp(name)
    entry = _foreign().get(name)
    return None if entry is None else _load(entry)


def _load(entry: EntryPoint) -> Target:
    try:
        return cast(Target, entry.load())
    except Exception as error:
        raise HeatcError(
            f"target {entry.name!r} cannot be loaded: {error}", place=entry.value
        ) from error


def all_forms(targets: Sequence[Target] = (Hdp(), Numpy())) -> tuple[Form, ...]:
    """The forms of some targets, and `ir`."""
    return (IR, *(form for target in targets for form in target.forms))


def form_of(target: Target, name: str) -> Form | None:
    """A form of a target by name, None where it has no such form."""
    return next((form for form in all_forms((target,)) if form.name == name), None)


def pipeline(options: Options) -> tuple[ArgSpec, ...]:
    """The passes with what each is told: values as they are, whatever they hold."""
    return (*shared_passes(options), *options.target.passes(options))


def pipeline_text(options: Options) -> str:
    """The pipeline as `heatc-opt -p` takes it."""
    return spelled(pipeline(options))
