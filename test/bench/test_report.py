"""bench/support/report.py: which commit a result names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.support import report


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    run = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return run.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with a source, a result and a page, all committed."""
    git(tmp_path, "init", "-q")
    for name in ("bench/source.py", "bench/results/found.json", "docs/page.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_what_a_benchmark_writes_does_not_make_a_commit_dirty(folder: Path):
    clean = git(folder, "rev-parse", "HEAD")[:12]
    assert report.commit(folder) == clean
    for name in ("bench/results/found.json", "docs/page.md"):
        (folder / name).write_text("2\n")
    assert report.commit(folder) == clean


def test_another_source_does(folder: Path):
    clean = report.commit(folder)
    (folder / "bench" / "source.py").write_text("2\n")
    assert report.commit(folder) == f"{clean}-dirty"


def test_no_repository_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert report.commit(tmp_path) == "unknown"
