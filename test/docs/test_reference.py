"""The reference pages are what the code says, and lack nothing that a user can name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from heatc.isa.table import ISA
from heatc.rules import RULES
from heatc.tools.reference import PAGES, page
from heatc.tools.reference.options import TOOLS, parser_of
from heatc.tools.run_stats import FIGURES
from heatc.universe import DIALECTS, PASSES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMON = {"-h", "--help", "-v", "--version", "--debug"}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str):
    text = page(name).read_text(encoding="utf-8")
    assert text == PAGES[name](), "run python -m heatc.tools.reference"


def test_every_installed_command_has_a_section():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    sections = {tool.partition(" ")[0] for tool in TOOLS}
    assert sections == set(scripts)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_option_of_a_help_is_on_the_page(tool: str):
    section = PAGES["options"]().partition(f"## {tool}\n")[2].partition("\n## ")[0]
    for action in parser_of(tool)._actions:
        for option in action.option_strings:
            assert f"`{option}`" in section or option in COMMON


def test_every_pass_op_instruction_and_figure_is_on_its_page():
    passes, ops = PAGES["passes"](), PAGES["ops"]()
    assert [name for name in PASSES if f"## {name}\n" not in passes] == []
    for make in DIALECTS.values():
        dialect = make()
        assert [op.name for op in dialect.operations if f"### {op.name}\n" not in ops] == []
        assert [a.name for a in dialect.attributes if f"{a.name}\n" not in ops] == []
    isa = (DOCS / "isa.md").read_text()
    assert [row.mnemonic for row in ISA.values() if f"### `{row.mnemonic}`" not in isa] == []
    stats = (DOCS / "stats.md").read_text()
    assert [figure.name for figure in FIGURES if f"`{figure.name}`" not in stats] == []
    registries = PAGES["registries"]()
    assert [name for name in RULES.own if f"`{name}`" not in registries] == []


def test_a_page_that_is_not_current_is_told(tmp_path: Path):
    """The check that CI relies on: a page with another text is exit code 1."""
    script = (
        "import heatc.tools.reference as r, pathlib, sys\n"
        f"r.FOLDER = pathlib.Path({str(tmp_path)!r})\n"
        "from heatc.tools.reference.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    run = [sys.executable, "-c", script]
    assert subprocess.run([*run, "--check"], capture_output=True).returncode == 1
    assert subprocess.run(run).returncode == 0
    assert subprocess.run([*run, "--check"]).returncode == 0
