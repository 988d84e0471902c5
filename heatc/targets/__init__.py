"""
The targets: the HDP presets, `numpy`, and what other packages bring.

A package brings a target by an entry point of the group `heatc.targets` that names an object of
`heatc.targets.base.Target`; nothing is imported before it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from xdsl.utils.arg_spec import ArgSpec

from heatc.errors import HeatcError
from heatc.extensions import Registry, Row, twice
from heatc.hardware import PRESETS
from heatc.pass_text import inserted
from heatc.pipeline import spelled
from heatc.targets.base import PATHS, RAISE, Form, Options, Target, shared_passes
from heatc.targets.hdp import DEFAULT, Hdp
from heatc.targets.numpy import NAME, Numpy
from heatc.targets.text import IR

__all__ = [
    "DEFAULT",
    "PATHS",
    "RAISE",
    "TARGETS",
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
    "target_rows",
]

TARGETS = Registry(
    "heatc.targets",
    "the target",
    Target,
    {**{name: partial(Hdp, name) for name in PRESETS.own}, NAME: Numpy},
    lambda target: target.summary,
)


def target_names() -> tuple[str, ...]:
    """What `--target` takes; a preset of another package is a target too."""
    return tuple(dict.fromkeys((*TARGETS.names, *PRESETS.foreign)))


def find_target(name: str) -> Target | None:
    """
    The target of a name, None where there is none.

    Raises `HeatcError` for a name that several packages use, and for a package that is broken.
    """
    if name not in PRESETS.foreign:
        return TARGETS.find(name)
    if name in TARGETS.names:
        raise twice(TARGETS.what, name, [*TARGETS.origins(name), *PRESETS.origins(name)])
    return Hdp(name) if PRESETS.find(name) is not None else None


def target_rows() -> list[Row]:
    """Every target for a list."""
    presets = [(name, " and ".join(PRESETS.origins(name))) for name in PRESETS.foreign]
    return [*TARGETS.rows(), *(Row(name, _summary(name), origin) for name, origin in presets)]


def _summary(preset: str) -> str:
    try:
        found = find_target(preset)
    except HeatcError as error:
        return f"error: {error.message}"
    return "" if found is None else found.summary


def all_forms(targets: Sequence[Target] = (Hdp(), Numpy())) -> tuple[Form, ...]:
    """The forms of some targets, and `ir`."""
    return (IR, *(form for target in targets for form in target.forms))


def form_of(target: Target, name: str) -> Form | None:
    """A form of a target by name, None where it has no such form."""
    return next((form for form in all_forms((target,)) if form.name == name), None)


def pipeline(options: Options) -> tuple[ArgSpec, ...]:
    """The passes with what each is told: values as they are, whatever they hold."""
    if options.pipeline is None:
        specs = (*shared_passes(options), *options.target.passes(options))
    else:
        specs = tuple(options.pipeline)
    for insertion in options.inserted:
        specs = inserted(specs, insertion)
    return specs


def pipeline_text(options: Options) -> str:
    """The pipeline as `heatc-opt -p` takes it."""
    return spelled(pipeline(options))
