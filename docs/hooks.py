"""What the site adds to the pages: the README as its first page, and the notebooks of the tutorials."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent

_LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """
    Add index.md, the README, and a page for each notebook.

    Notebooks are not shown by a plugin: those that there are load a library for formulas from the network.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=at_docs(text)))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=of_notebook(notebook.content_string)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to notebooks lead to their pages; links to sources, which are no pages, become their paths."""
    markdown = re.sub(r"(\]\([\w/.]+)\.ipynb\)", r"\1.md)", markdown)
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)[^)]*\)", r"\1", markdown)


def of_notebook(text: str) -> str:
    """A notebook as Markdown: its texts, and its code in blocks."""
    cells = json.loads(text)["cells"]
    return "\n\n".join(_of_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells)


def _of_cell(kind: str, source: str) -> str:
    if kind == "markdown":
        return source
    magic, _, rest = source.partition("\n")
    if magic.startswith("%%bash"):
        return f"```sh\n{rest}\n```"
    if not magic.startswith("%%writefile"):
        return f"```python\n{source}\n```"
    name = magic.split()[-1]
    return f"`{name}`:\n\n```{_LANGUAGES[Path(name).suffix]}\n{rest}\n```"


def at_docs(text: str) -> str:
    """A page at the root with its links as seen from docs/; a link to no page becomes its text."""
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([^\]]+)\]\((?:CONTRIBUTING\.md|LICENSE|design/?)\)", r"\1", text)
