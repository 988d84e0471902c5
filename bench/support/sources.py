"""
The sources that decide what a module of heatc does: a digest of them is part of every cache key.

They are found by following import statements, those inside of functions too, so that no list of
files has to be kept up to date.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.support import report

# The registry imports its entries by name.
_BY_NAME = {"heatc.universe": ("dialects", "passes")}


def digest(*modules: str) -> str:
    """A digest of some modules of heatc and of all of heatc that they import, with its presets."""
    return of_files(files(*modules))


def of_files(paths: Iterable[Path]) -> str:
    """A digest of some files of the project, their names included."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.relative_to(report.ROOT).as_posix().encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def files(*modules: str) -> list[Path]:
    """The files that some modules of heatc consist of, with all of heatc that they import."""
    seen: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in seen and _file(module) is not None:
            seen.add(module)
            pending += _imports(module)
    presets = (report.ROOT / "heatc" / "hardware" / "presets").glob("*.yaml")
    return sorted({*(path for m in seen if (path := _file(m)) is not None), *presets})


def _file(module: str) -> Path | None:
    """The file of a module or package of heatc, None for any other name."""
    if module.partition(".")[0] != "heatc":
        return None
    base = report.ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(module: str) -> tuple[str, ...]:
    """What a module may import, names that are no modules included."""
    path = _file(module)
    assert path is not None
    named = [
        f"heatc.{folder}.{entry.stem}"
        for folder in _BY_NAME.get(module, ())
        for entry in (report.ROOT / "heatc" / folder).glob("*.py")
    ]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # What a package imports only when it is asked for is no part of its modules.
    nodes = tree.body if path.name == "__init__.py" else ast.walk(tree)
    found = [*named, *_statements(nodes)]
    # A package is imported before its modules.
    return tuple(dict.fromkeys(p for name in (module, *found) for p in _packages(name)))


def _statements(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
