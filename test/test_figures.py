"""bench/figures.py: the table, and files that claim what their numbers deny."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "figures.py"


def figures(path: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    """The script's result on a file with one row."""
    row = {"what": "w", "measured": 0.5, "unit": "s", "goal": 1, "sense": "<=", "holds": True}
    path.write_text(json.dumps({"rows": [row | changes]}))
    command = [sys.executable, str(SCRIPT), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_table(tmp_path: Path):
    result = figures(tmp_path / "job.json")
    assert result.returncode == 0
    assert "| job   | w    | 0.5      | <= 1 | s    | yes   |" in result.stdout
    assert result.stdout.endswith("1 of 1 figures hold\n")


def test_missed_goal_is_shown(tmp_path: Path):
    result = figures(tmp_path / "job.json", measured=2, holds=False)
    assert result.returncode == 0
    assert result.stdout.endswith("0 of 1 figures hold\n")


@pytest.mark.parametrize(
    "changes", [{"holds": False}, {"sense": "<"}, {"measured": "fast"}, {"goal": None}]
)
def test_malformed_row(changes: dict[str, object], tmp_path: Path):
    result = figures(tmp_path / "job.json", **changes)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_pages_show_the_results():
    """README and manual hold the tables of bench/results; `--update` makes them anew."""
    sys.path.insert(0, str(SCRIPT.parent.parent))
    from bench import figures as module

    for page in module.PAGES:
        text = page.read_text(encoding="utf-8")
        assert "<!-- figures: " in text
        assert module.updated(text) == text, f"run python bench/figures.py --update: {page.name}"
