"""
The one registry of dialects and passes.

`heatc`, `heatc-opt`, plain `xdsl-opt` (through the `xdsl.universe` entry point) and the tests
all read it. Every entry is a function that imports its module when it is called, so nothing
here costs start-up time. A pass `raise-einsum` lives in `heatc/passes/raise_einsum.py` as
`RaiseEinsumPass`.

Other packages bring dialects and passes by universes of their own. Those are loaded when a name is
asked for that neither heatc nor xDSL has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from xdsl.dialects import get_all_dialects
from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.targets import get_all_targets
from xdsl.transforms import get_all_passes
from xdsl.universe import Universe

from heatc.errors import HeatcError
from heatc.extensions import OWN, Row, broken, installed, load, origin_of, package_of, twice

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Sort: TypeAlias = Literal["dialect", "pass", "target"]

GROUP = "xdsl.universe"
UPSTREAM = "xdsl"


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
        "raise-activations",
        "apply-plan",
        "heat-decompose",
        "order-contractions",
        "lower-contractions",
        "fuse-einsums",
        "shape-products",
        "fold-constants",
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


# ---- other packages ---------------------------------------------------------------------------


@cache
def foreign_universes() -> Mapping[str, Universe]:
    """
    The universes of other packages, by their package and version.

    Raises `HeatcError` where a package is broken, or brings a name that another one has.
    """
    found = {origin_of(entry): _loaded(entry) for entry in _foreign_entries()}
    for sort in ("dialect", "pass", "target"):
        _check_names(sort, found)
    return found


def _foreign_entries() -> list[EntryPoint]:
    return [entry for entry in installed(GROUP) if package_of(entry) != UPSTREAM]


def _loaded(entry: EntryPoint) -> Universe:
    found = load(entry, "the universe")
    if not isinstance(found, Universe):
        raise broken(entry, "the universe", f"is no Universe, but {found!r:.80}")
    return found


def _check_names(sort: Sort, universes: Mapping[str, Universe]) -> None:
    origins = {name: [OWN] if name in _heatc(sort) else [UPSTREAM] for name in _own(sort)}
    for origin, universe in universes.items():
        for name in _entries(universe, sort):
            origins.setdefault(name, []).append(origin)
    for name, several in origins.items():
        if len(several) > 1:
            raise twice(f"the {sort}", name, several)


def _entries(universe: Universe, sort: Sort) -> dict[str, Callable[[], Any]]:
    found = {
        "dialect": universe.all_dialects,
        "pass": universe.all_passes,
        "target": universe.all_targets,
    }
    return found[sort]


def _heatc(sort: Sort) -> dict[str, Callable[[], Any]]:
    return _entries(HEATC_UNIVERSE, sort)


def _own(sort: Sort) -> dict[str, Callable[[], Any]]:
    """The entries of xDSL and of heatc."""
    upstream = {"dialect": get_all_dialects, "pass": get_all_passes, "target": get_all_targets}
    return {**upstream[sort](), **_heatc(sort)}


class Known(dict[str, Any]):
    """
    The dialects, passes or targets of xDSL and heatc by name.

    A name that is none of them is looked for in the universes of other packages.
    """

    def __init__(self, sort: Sort, entries: Mapping[str, Any]):
        super().__init__(entries)
        self._sort: Sort = sort

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._foreign()

    def __missing__(self, name: str) -> Any:
        return self._foreign()[name]

    def copy(self) -> Known:
        """The same, for the copy of a context."""
        return Known(self._sort, self)

    def with_foreign(self) -> list[str]:
        """All names, those of other packages last."""
        return [*self, *self._foreign()]

    def _foreign(self) -> dict[str, Any]:
        universes = foreign_universes().values()
        return {k: v for u in universes for k, v in _entries(u, self._sort).items()}


def known_dialects() -> Known:
    """Every dialect, for a context."""
    return Known("dialect", _own("dialect"))


def known_passes() -> Known:
    """Every pass."""
    return Known("pass", _own("pass"))


def known_targets() -> Known:
    """Every output format of `heatc-opt`."""
    return Known("target", _own("target"))


def pass_rows() -> list[Row]:
    """The passes of heatc and of other packages for a list; of a package that is broken, why."""
    rows = [Row(name, summary_of(make()), OWN) for name, make in PASSES.items()]
    for entry in _foreign_entries():
        try:
            universe = _loaded(entry)
            found = [(name, summary_of(make())) for name, make in universe.all_passes.items()]
        except HeatcError as error:
            found = [(entry.name, f"error: {error.message}")]
        rows += [Row(name, summary, origin_of(entry)) for name, summary in found]
    return rows


def summary_of(pass_type: type[ModulePass]) -> str:
    """The first line of a pass's docstring."""
    return (pass_type.__doc__ or "").strip().partition("\n")[0].rstrip(".")
