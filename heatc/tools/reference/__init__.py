"""
The reference pages of docs/reference/, written from the code that they describe.

    python -m heatc.tools.reference          writes every page
    python -m heatc.tools.reference --check  exit code 1 if a page is not what would be written

A new page is one module with `render() -> str`, and one line in `PAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from heatc.tools.reference import (
    evaluation,
    files,
    hardware,
    ops,
    options,
    passes,
    registries,
    summary,
)

FOLDER = Path(__file__).parents[3] / "docs" / "reference"

PAGES: Mapping[str, Callable[[], str]] = {
    "options": options.render,
    "passes": passes.render,
    "ops": ops.render,
    "registries": registries.render,
    "files": files.render,
    "hardware": hardware.render,
    "evaluation": evaluation.render,
    "summary": summary.render,
}
"""What writes each page, by the name of the page."""


def page(name: str) -> Path:
    """Where a page lies."""
    return FOLDER / f"{name}.md"
