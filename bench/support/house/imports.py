"""
How a checkout's modules import each other: circles, and what no layer of the contract has.

    python bench/support/house/imports.py CHECKOUT      both, as JSON

An import inside a function or under TYPE_CHECKING counts like any other. The contract is the one of
pyproject.toml on the layers of package heatc.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeAlias

import grimp

PACKAGE = "heatc"
Imports: TypeAlias = Mapping[str, set[str]]
"""What each module imports of the package."""


def imports_of(root: Path) -> Imports:
    """The imports of a checkout's package; its folder must be the first on the path."""
    assert Path(sys.path[0]).resolve() == root.resolve()
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circles(imports: Imports) -> Iterator[list[str]]:
    """Circles, each with an import that no circle before it has."""
    left = {module: set(imported) for module, imported in imports.items()}
    while circle := _circle(left):
        yield circle
        # A circle begins and ends with the same module, and each is imported by the next one.
        left[circle[1]].discard(circle[0])


def _circle(imports: Imports) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def outside(imports: Imports, layered: set[str]) -> list[str]:
    """The modules below the package's folder that no layer has."""
    parts = (module.split(".") for module in imports)
    return sorted(".".join(part) for part in parts if len(part) > 1 and part[1] not in layered)


def layered_names(root: Path) -> set[str]:
    """The modules and folders right below the package that the contract on it names."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[Any] = project["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c.get("containers", [PACKAGE]) == [PACKAGE])
    names = (name for layer in layers for name in re.split("[|:]", layer))
    return {name.strip(" ()").removeprefix(f"{PACKAGE}.") for name in names}


def main() -> None:
    """Prints a checkout's circles and modules outside the contract."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n")[0])
    parser.add_argument("root", type=Path)
    root: Path = parser.parse_args().root
    sys.path.insert(0, str(root.resolve()))
    imports = imports_of(root)
    found = {
        "modules": len(imports),
        "circles": list(circles(imports)),
        "outside": outside(imports, layered_names(root)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
