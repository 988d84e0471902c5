"""docs/extending/instruction.md, done in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from extending_kit import HERE, ROOT

TREE = ("heatc", "dialects", "passes", "backends")


def _insert(path: Path, before: str, addition: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    added = addition.read_text(encoding="utf-8") + before
    path.write_text(text.replace(before, added), encoding="utf-8")


def test_an_instruction_is_a_row_and_a_function(tmp_path: Path):
    for name in TREE:
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    additions = HERE / "instruction"
    hput = '    Instruction(\n        "hput",'
    _insert(tmp_path / "heatc/isa/table/host.py", hput, additions / "row.txt")
    executes = '@executes("hput")\n'
    _insert(tmp_path / "heatc/machine/execute_host.py", executes, additions / "executes.txt")
    result = subprocess.run(
        [sys.executable, str(additions / "try_it.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "test")])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
