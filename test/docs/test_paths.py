"""Files and folders that pages name exist, and so do pages that pages link to or sources name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OF_THEIR_COMMIT = {"CHANGELOG.md", "mutation.md"}
"""Pages that tell of earlier trees."""
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if page.name not in OF_THEIR_COMMIT
)
PATH = re.compile(
    r"(?<![\w./-])(?:heatc|dialects|passes|backends|test|bench|docs|oracle)/[\w./-]*\w"
)
LINK = re.compile(r"\]\((?!http)([^)#]+)")


SOURCES = ["heatc", "passes", "dialects", "backends", "bench", "oracle"]


def missing(page: Path, text: str) -> list[str]:
    """The paths, from the root, and the links, from the page, that lead nowhere."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    paths = [path for path in PATH.findall(text) if "some_name" not in path]
    return [path for path in paths if not (ROOT / path).exists()] + [
        link for link in LINK.findall(prose) if not (page.parent / link).exists()
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_a_page_names_exist(page: Path):
    assert missing(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("folder", SOURCES)
def test_pages_that_sources_name_exist(folder: str):
    for source in sorted((ROOT / folder).rglob("*.py")):
        for page in re.findall(r"docs/[\w/]+\.md", source.read_text(encoding="utf-8")):
            assert (ROOT / page).exists(), f"{source.relative_to(ROOT)}: {page}"


def test_a_path_that_is_gone_is_found():
    text = "See `passes/gone.py`, bench/results/heat.jsonl and [it](gone.md), not passes/effect.py."
    assert missing(ROOT / "README.md", text) == [
        "passes/gone.py",
        "bench/results/heat.jsonl",
        "gone.md",
    ]
