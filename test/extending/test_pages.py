"""The pages of docs/extending/ show the files of the packages, all of them and as they are."""

from __future__ import annotations

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
