"""The notebooks of docs/tutorials/ run from their first cell to their last, and are committed without outputs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from commands_kit import TOOLS, commands_of, shorter

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))

LAUNCHER = """\
#!/bin/sh
exec {python} -m {module} "$@"
"""

CALLS = """\
from commands_kit import Command, run

for command in {commands}:
    assert run(Command(*command), None) == 0, command
"""


def in_the_kernel(source: str) -> str:
    """A cell of commands runs those of heatc in the kernel, which has imported torch already."""
    first, _, rest = shorter(source).partition("\n")
    if first != "%%bash -e" or "for " in rest:
        return source
    return CALLS.format(commands=[tuple(command) for command in commands_of(f"{rest}\n")])


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs(notebook: Path):
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert code
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import nbformat
    from nbclient import NotebookClient

    tools, folder = tmp_path / "bin", tmp_path / "here"
    tools.mkdir()
    folder.mkdir()
    for name, module in TOOLS.items():
        (tools / name).write_text(LAUNCHER.format(python=sys.executable, module=module))
        (tools / name).chmod(0o755)
    path = [str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read: Any = nbformat.read(notebook, as_version=4)
    # What a notebook puts into its environment is for commands in processes of their own.
    if not any("os.environ" in cell["source"] for cell in read["cells"]):
        for cell in read["cells"]:
            cell["source"] = in_the_kernel(cell["source"])
    client = NotebookClient(read, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute()
