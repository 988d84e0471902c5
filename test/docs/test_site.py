"""The documentation builds as a site, without a warning, and asks nothing of the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"(https?://[^\"]+)\"[^>]*>")


def test_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    for page in pages:
        elsewhere = LOADED.findall(page.read_text(encoding="utf-8"))
        assert [link for link in elsewhere if 'rel="canonical"' not in link] == [], page
