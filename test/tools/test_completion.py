"""Completion in the shell: what argcomplete is told when it asks, and that nobody else imports it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def offered(module: str, line: str) -> list[str]:
    """What a shell offers at the end of a line, as it asks: on file descriptor 8."""
    code = f"""
import os, runpy, sys
os.dup2(1, 8)
sys.argv = [{line.split()[0]!r}]
runpy.run_module("heatc.tools.{module}", run_name="__main__")
"""
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "IFS": "\v"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked, "_ARGCOMPLETE_IFS": "\v", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return [word.strip() for word in done.stdout.split("\v")]


@pytest.mark.parametrize(
    ("module", "line", "expected"),
    [
        ("main", "heatc --hdp-r", ["--hdp-rule"]),
        ("main", "heatc m --hw hdp-server-", ["hdp-server-vector"]),
        ("main", "heatc m --hdp-rule pap", ["paper"]),
        ("main", "heatc m --target nu", ["numpy"]),
        ("run", "hdp-run p.hdp --save", ["--save-masks"]),
        ("tune", "heatc-tune sea", ["search"]),
        ("tune", "heatc-tune search --poi", ["--points"]),
    ],
)
def test_words_are_completed(module: str, line: str, expected: list[str]):
    assert offered(module, line) == expected


def test_it_is_imported_for_a_shell_alone():
    code = (
        "import sys; from heatc.tools.main import main; main(['--list-rules']); "
        "sys.exit('argcomplete' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0
