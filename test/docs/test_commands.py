"""Every command that a page shows runs, in the order of the page, on a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from commands_kit import ROOT, blocks_of, commands_of, make_folder, run, shorter

pytestmark = [pytest.mark.torch, pytest.mark.slow]

PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [
        ROOT / "README.md",
        ROOT / "docs" / "manual.md",
        *ROOT.glob("docs/howto/*.md"),
        *ROOT.glob("docs/extending/*.md"),
    ]
    if blocks_of(page)
)

OWN_TEST = "its packages are installed and used by test/extending/test_pages.py"
NOT_RUN: Mapping[str, str] = {
    "make demo": "the demo and the whole test suite take minutes, and are commands of their own",
}
"""The first words of a block that no test can run, and why."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the pages' commands begin with."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("shown")
    make_folder(folder)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(
    page: str, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = shutil.copytree(shown, tmp_path / "here")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for block in blocks_of(ROOT / page):
        if any(block.startswith(words) for words in NOT_RUN):
            continue
        for command in commands_of(shorter(block)):
            print(f"$ {command.text}")
            assert run(command, folder) == 0, command.text
