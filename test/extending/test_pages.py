"""The pages of docs/extending/ show the files of the packages, all of them and as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from extending_kit import PACKAGES, ROOT
from pages_kit import PAGES, rendered, shown


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_is_up_to_date(page: Path):
    text = page.read_text(encoding="utf-8")
    assert text == rendered(text), "run python test/extending/pages_kit.py"


def test_every_file_of_a_package_is_shown():
    found = {path for page in PAGES for path in shown(page.read_text(encoding="utf-8"))}
    folders = [*PACKAGES, "instruction"]
    every = {
        str(path.relative_to(ROOT))
        for name in folders
        for path in (ROOT / "test" / "extending" / name).rglob("*")
        if path.suffix in (".py", ".toml", ".yaml", ".mlir", ".txt")
    }
    assert every == found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_paths_that_a_page_names_exist(page: Path):
    """Of the map: a stay that was moved is noticed."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:heatc|dialects|passes|backends|test|bench|docs)/[\w/.]+)`", text):
        assert "some_name" in name or (ROOT / name).exists(), name
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for link in re.findall(r"\]\((?!http)([^)#]+)", prose):
        assert (page.parent / link).exists(), link
