"""
The files that pages of docs/extending/ show: `python test/extending/pages_kit.py` writes them there.

A page marks the place by `<!-- file: PATH -->`; the block of code below is the file.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))

_BLOCK = re.compile(r"<!-- file: (?P<path>\S+) -->\n```\w*\n.*?\n?```\n", re.DOTALL)
_LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}


def rendered(page: str) -> str:
    """A page with the files as they are."""
    return _BLOCK.sub(_block, page)


def shown(page: str) -> list[str]:
    """The files that a page shows."""
    return [found["path"] for found in _BLOCK.finditer(page)]


def _block(found: re.Match[str]) -> str:
    path = found["path"]
    language = _LANGUAGES.get(Path(path).suffix, "")
    text = (ROOT / path).read_text(encoding="utf-8").strip("\n")
    return f"<!-- file: {path} -->\n```{language}\n{text}\n```\n"


if __name__ == "__main__":
    for page_path in PAGES:
        page_path.write_text(rendered(page_path.read_text(encoding="utf-8")), encoding="utf-8")
