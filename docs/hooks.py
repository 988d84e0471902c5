"""What the site adds to the pages: the README as its first page."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add index.md: the README, whose links begin at the root of the repository."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=at_docs(text)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to sources, which are no pages, become their paths."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)[^)]*\)", r"\1", markdown)


def at_docs(text: str) -> str:
    """A page at the root with its links as seen from docs/; a link to no page becomes its text."""
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([^\]]+)\]\((?:CONTRIBUTING\.md|LICENSE|design/?)\)", r"\1", text)
