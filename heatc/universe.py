"""
The one registry of dialects and passes.

`heatc`, `heatc-opt`, plain `xdsl-opt` (through the `xdsl.universe` entry point) and the tests
all read it. Every entry is a function that imports its module when it is called, so nothing
here costs start-up time. A pass `raise-einsum` lives in `heatc/passes/raise_einsum.py` as
`RaiseEinsumPass`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe


def _dialect(name: str) -> Callable[[], Dialect]:
    """The dialect `name`: the constant `NAME` of `heatc.dialects.<name>`."""

    def load() -> Dialect:
        return getattr(import_module(f"heatc.dialects.{name}"), name.upper())

    return load


def _pass(name: str) -> Callable[[], type[ModulePass]]:
    """The pass `some-name`: the class `SomeNamePass` of `heatc.passes.some_name`."""

    def load() -> type[ModulePass]:
        module = import_module(f"heatc.passes.{name.replace('-', '_')}")
        return getattr(module, "".join(word.capitalize() for word in name.split("-")) + "Pass")

    return load


DIALECTS: dict[str, Callable[[], Dialect]] = {
    name: _dialect(name)
    for name in (
        "attn",
        "einsum",
        "fixed",
        "hdp",
        "host",
        "nn",
    )
}

PASSES: dict[str, Callable[[], type[ModulePass]]] = {
    name: _pass(name)
    for name in (
        "raise-attention",
        "raise-einsum",
        "pack-tokens",
        "heat-decompose",
        "order-contractions",
        "lower-contractions",
        "fuse-einsums",
        "shape-products",
        "fold-weights",
        "fuse-projections",
        "insert-hdp",
        "partition-host",
        "assign-fixed-point",
        "plan-tiles",
        "tile-for-hdp",
        "lower-to-hdp",
        "allocate-buffers",
    )
}

HEATC_UNIVERSE = Universe(all_dialects=DIALECTS, all_passes=PASSES)
