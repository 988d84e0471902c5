"""Every command that a page shows runs, in the order of the page, on a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands_kit import ROOT, Command, blocks_of, commands_of, make_folder, run, shorter

PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [
        ROOT / "README.md",
        ROOT / "docs" / "manual.md",
        *ROOT.glob("docs/howto/*.md"),
        *ROOT.glob("docs/extending/*.md"),
        *ROOT.glob("docs/tutorials/*.md"),
    ]
    if blocks_of(page)
)

_PACKAGES = (
    "test/extending/test_packages.py installs the page's package and uses it as the page does"
)
NOT_RUN: Mapping[str, Mapping[str, str]] = {
    "": {
        "pip install": "an installation needs a network",
        "make ": "targets of the Makefile take minutes, and are checks of their own",
    },
    "docs/extending/format.md": {"heatc": _PACKAGES},
    "docs/extending/hardware.md": {"heatc": _PACKAGES},
    "docs/extending/op.md": {"heatc": _PACKAGES},
    "docs/extending/pass.md": {"heatc": _PACKAGES},
    "docs/extending/rule.md": {"heatc": _PACKAGES},
    "docs/extending/target.md": {"heatc": _PACKAGES},
    "docs/tutorials/index.md": {"jupyter": "test_tutorials.py runs the notebooks"},
    "docs/howto/commands.md": {"eval": "it sets up an interactive shell"},
}
"""How commands begin that no test runs, and why: on a page, or on all ("")."""


def commands(page: str) -> list[Command]:
    """The commands of a page in order."""
    return [c for block in blocks_of(ROOT / page) for c in commands_of(shorter(block))]


def is_run(page: str, command: Command) -> bool:
    """Whether nothing in `NOT_RUN` names the command."""
    beginnings = [*NOT_RUN[""], *NOT_RUN.get(page, {})]
    return not command.text.startswith(tuple(beginnings))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the commands of each page begin with."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("shown")
    make_folder(folder)
    return folder


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(is_run(p, c) for c in commands(p))])
def test_commands_of_a_page_run(
    page: str, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = shutil.copytree(shown, tmp_path / "here")
    monkeypatch.chdir(folder)
    # What one page searched on the same model and data another one finds.
    monkeypatch.setenv("XDG_CACHE_HOME", str(shown.with_name("cache")))
    for command in commands(page):
        if is_run(page, command):
            print(f"$ {command.text}")
            assert run(command, folder) == 0, command.text


def test_what_is_not_run_is_on_its_page():
    for page, beginnings in NOT_RUN.items():
        texts = [c.text for p in ([page] if page else PAGES) for c in commands(p)]
        for beginning in beginnings:
            assert any(text.startswith(beginning) for text in texts), (page, beginning)


def test_commands_are_read_from_blocks(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        'text\n\n```sh\nheatc a --goal "x<=1" \\\n  -o b   # why\nmake demo\n```\n\n```\nno\n```\n'
        "```sh\npython - <<'PY'\nprint(1)\nPY\nheatc c\n```\n"
    )
    first, second = blocks_of(page)
    assert [c.words for c in commands_of(first)] == [
        ["heatc", "a", "--goal", "x<=1", "-o", "b"],
        None,
    ]
    assert [c.text for c in commands_of(second)] == ["python - <<'PY'\nprint(1)\nPY\n", "heatc c\n"]
