"""A Chromium of the system without a window, and what it says of a page of heatc-report."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu")
MOST_SECONDS = 60
"""Until a page has been drawn: the computer may be busy."""


def executable() -> str | None:
    """The browser of the system, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Generator[Any]:
    """A browser of playwright; `RuntimeError` where the system has none."""
    from playwright.sync_api import sync_playwright

    path = executable()
    if path is None:
        raise RuntimeError(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """
    A page that has been drawn.

    Attributes:
        page: of playwright.
        complaints: errors and warnings of the console, and exceptions that nobody caught.
        requests: addresses that were asked for, besides the page's own.
        seen_ms: from the start of loading until what a reader sees first was drawn.
        drawn_ms: the same until the last picture was drawn.
    """

    page: Any
    complaints: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])
    seen_ms: int = 0
    drawn_ms: int = 0


@contextmanager
def opened(
    browser: Any, path: Path, width: int = 1400, *, script: str = "", **context: Any
) -> Generator[Opened]:
    """The page of a file, `width` pixels wide; `script` runs in it before its own."""
    own = browser.new_context(viewport={"width": width, "height": 900}, **context)
    try:
        page = own.new_page()
        found, address = Opened(page), path.resolve().as_uri()
        page.on("console", lambda message: _note(found, message))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("request", lambda r: r.url != address and found.requests.append(r.url))
        if script:
            page.add_init_script(script)
        page.goto(address)
        marks = "document.documentElement.dataset"
        # Functions that are waited for are evaluated from text, which the page's policy forbids.
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=1000 * MOST_SECONDS)
        found.drawn_ms = int(page.evaluate(f"{marks}.drawn"))
        found.seen_ms = int(page.evaluate(f"{marks}.seen ?? {marks}.drawn"))
        yield found
    finally:
        own.close()


def _note(found: Opened, message: Any) -> None:
    if message.type in ("error", "warning"):
        found.complaints.append(message.text)


def measured(browser: Any, path: Path) -> dict[str, int]:
    """
    Figures of a page: bytes; milliseconds until what is seen first is drawn, and until all is drawn,
    the better of two visits; complaints of the console; requests that left it.
    """
    visits: list[Opened] = []
    for _ in range(2):
        with opened(browser, path) as found:
            visits.append(found)
    return {
        "bytes": path.stat().st_size,
        "seen_ms": min(visit.seen_ms for visit in visits),
        "drawn_ms": min(visit.drawn_ms for visit in visits),
        "complaints": sum(len(visit.complaints) for visit in visits),
        "requests": sum(len(visit.requests) for visit in visits),
    }
