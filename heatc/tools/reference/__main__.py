"""Writes the reference pages, or checks that they are current: see `heatc.tools.reference`."""

from __future__ import annotations

import sys

from heatc.files import atomic_write
from heatc.tools.reference import PAGES, page


def main(argv: list[str]) -> int:
    """Exit code 1 where a page is checked and is not current."""
    stale = [name for name, render in PAGES.items() if not _is_current(name, render())]
    if argv == ["--check"]:
        for name in stale:
            print(f"{page(name)}: not current, run python -m heatc.tools.reference")
        return int(bool(stale))
    for name in stale:
        page(name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(page(name), "w") as stream:
            stream.write(PAGES[name]())
    return 0


def _is_current(name: str, text: str) -> bool:
    return page(name).is_file() and page(name).read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
