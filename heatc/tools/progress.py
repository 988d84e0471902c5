"""
How far a command is, on stderr: bars on a terminal, elsewhere a line every few seconds.

    with progress_bars(arguments.quiet) as progress:
        progress("reading the model", 0, 0)          a step of unknown length
        ...
        progress("errors of layers", 12, 48)

What is told costs next to nothing: it is noted, and shown by a thread of its own. So long steps that
tell nothing show how long they take. A command that ends within a second shows nothing.

HEATC_PROGRESS=off, lines or bars says what is shown, whatever stderr is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from heatc import messages, stopping
from heatc.errors import UsageError, suggest
from heatc.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

VARIABLE = "HEATC_PROGRESS"
"""Environment variable that says what is shown."""

READING = "reading the model"
"""What work is called that imports PyTorch, opens a model and exports it."""

OFF, LINES, BARS = "off", "lines", "bars"

FIRST = 0.8
"""Seconds before the first line: imports and options have taken some tenths by then."""

SPACING = 1.0
"""Seconds between two lines at least: of work that is shorter no line tells."""

BEAT = 5.0
"""Seconds between two lines at most."""

_TICK = 0.2
"""Seconds after which it is looked whether a line is due."""

_PATIENCE = 1.0
"""Seconds that a terminal which takes no text may hold up the end."""

_SHOW_CURSOR = b"\x1b[?25h\n"


@contextmanager
def progress_bars(quiet: bool = False, *, plain: bool = False) -> Generator[ProgressCallback]:
    """
    What work tells how far it is, shown as this stderr allows.

    `quiet` shows nothing. `plain` shows no bars: text that others read goes to the terminal.

    Raises `UsageError` where HEATC_PROGRESS has another value than it may have.
    """
    shown = OFF if quiet else _shown()
    if shown == OFF:
        yield no_progress
        return
    is_plain = plain or shown == LINES or messages.is_json()
    display = Lines() if is_plain else Bars()
    display.start()
    try:
        yield display.tell
    finally:
        display.stop()


def _shown() -> str:
    """What HEATC_PROGRESS says, or what suits stderr."""
    asked = os.environ.get(VARIABLE, "")
    if asked in (OFF, LINES, BARS):
        return asked
    if asked:
        notes = [*suggest(asked, (OFF, LINES, BARS)), f"it may be {OFF}, {LINES} or {BARS}"]
        raise UsageError(f"unknown value {asked!r}", place=VARIABLE, notes=notes)
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        return OFF
    return BARS if is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb" else LINES


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody looks at a stream; a closed one is none."""
    with suppress(ValueError):
        return stream is not None and stream.isatty()
    return False


# --- What is told -----------------------------------------------------------------------------


@dataclass
class Work:
    """
    One kind of work: how much of it is done, and of how much.

    `first` of it were done when it was first told of, at `began`; `changed` is when it was last
    told of. Times are those of `time.monotonic`, in seconds.
    """

    what: str
    done: int
    total: int
    first: int
    began: float
    changed: float

    @property
    def is_done(self) -> bool:
        """Whether all of it is done; never of work whose length nobody knows."""
        return 0 < self.total <= self.done

    def seconds_left(self, now: float) -> float | None:
        """At the pace so far; None where there was no pace yet, or the length is unknown."""
        made = self.done - self.first
        if made <= 0 or self.done >= self.total:
            return None
        pace = (self.changed - self.began) / made
        return max(0.0, pace * (self.total - self.done) - (now - self.changed))


class _Display(ABC):
    """What both displays share: the work that was told of, and a thread that shows it."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.works: dict[str, Work] = {}
        self.current: Work | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def start(self) -> None:
        """Begin to show."""
        with _deaf_threads():
            self._thread.start()

    def stop(self) -> None:
        """End; nothing is shown afterwards."""
        self._over.set()
        self._thread.join(_PATIENCE)

    def tell(self, what: str, done: int, total: int) -> None:
        """Note how far work is."""
        now = time.monotonic()
        work = self.works.get(what)
        if work is None or (not total and work is not self.current):
            work = self.works[what] = Work(what, done, total, done, now, now)
        if work.done != done:
            work.done, work.changed = done, now
        work.total = total
        self.current = work

    @abstractmethod
    def _show(self) -> None:
        """Show what was told of, until `_over` is set: the body of the thread."""


@contextmanager
def _deaf_threads() -> Generator[None]:
    """Threads that start inside are told of no signal: it is the main thread that unwinds."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.WORDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _clock(seconds: float) -> str:
    """Minutes and seconds, hours too where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# --- Lines ------------------------------------------------------------------------------------


class Lines(_Display):
    """A line at once where other work begins, and every few seconds while it lasts."""

    def __init__(self) -> None:
        super().__init__()
        self._command = stopping.command()
        self._told: set[str] = set()
        self._last = self.began + FIRST - BEAT

    def _show(self) -> None:
        while not self._over.wait(_TICK):
            now = time.monotonic()
            what = "" if self.current is None else self.current.what
            wait = BEAT if what in self._told else SPACING
            if now - self.began >= FIRST and now - self._last >= wait:
                self._told.add(what)
                self._last = now
                _write(f"{self._told_line(now)}\n")

    def _told_line(self, now: float) -> str:
        if not messages.is_json():
            return f"{self._command}: {self.line(now)}"
        work = self.current or Work("", 0, 0, 0, now, now)
        counts = {"done_count": work.done, "total_count": work.total}
        return messages.line("progress", self.line(now), work.what, (), self._command, **counts)

    def line(self, now: float) -> str:
        """What is being done."""
        work = self.current
        if work is None or work.is_done:
            return f"at work{_so_far(now - self.began)}"
        if not work.total:
            return f"{work.what}{_so_far(now - work.began)}"
        left = work.seconds_left(now)
        text = f"{work.what} {work.done} of {work.total}"
        return f"{text}, {_clock(left)} left" if left is not None else text


def _so_far(seconds: float) -> str:
    """How long something has taken, nothing where it has just begun."""
    return f", {_clock(seconds)} so far" if seconds >= 1 else ""


def _write(line: str) -> None:
    """
    Write a whole line to stderr.

    Past Python's stream where it can be: half a line of another thread may wait there.
    """
    with suppress(OSError, ValueError, AttributeError):
        try:
            os.write(sys.stderr.fileno(), line.encode())
        except OSError:
            sys.stderr.write(line)


# --- Bars -------------------------------------------------------------------------------------


class Bars(_Display):
    """A bar for each kind of work, and one that runs to and fro for work of unknown length."""

    def __init__(self) -> None:
        super().__init__()
        self._bars = _rich_bars()
        self._tasks: dict[str, TaskID] = {}

    def start(self) -> None:
        """Begin to show; what others write to stderr appears above the bars."""
        # The cursor comes back even where a signal ends the process at once.
        stopping.at_the_end(_show_cursor)
        self._bars.start()
        super().start()

    def stop(self) -> None:
        """End: the bars vanish."""
        super().stop()
        self._bars.stop()
        stopping.not_at_the_end(_show_cursor)

    def _show(self) -> None:
        while not self._over.wait(_TICK):
            now = time.monotonic()
            # A terminal that is gone is no reason to fail.
            with suppress(OSError, ValueError):
                for work in [*self.works.values()]:
                    self._update(work, now)
                self._bars.refresh()

    def _update(self, work: Work, now: float) -> None:
        is_shown = bool(work.total) or work is self.current
        if work.what not in self._tasks:
            if not is_shown:
                return
            self._tasks[work.what] = self._bars.add_task(work.what, total=None, count="", clock="")
        left = work.seconds_left(now)
        clock = f"{_clock(left)} left" if left is not None else _clock(now - work.began)
        if work.is_done:
            clock = _clock(work.changed - work.began)
        self._bars.update(
            self._tasks[work.what],
            completed=work.done,
            total=work.total or None,
            visible=is_shown,
            clock=clock,
            count=f"{work.done}/{work.total}" if work.total else "",
        )


def _rich_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = ("{task.description}", BarColumn(), "{task.fields[count]}", "{task.fields[clock]}")
    made = [TextColumn(c) if isinstance(c, str) else c for c in columns]
    # What goes to stdout stays there. The thread of the display refreshes.
    return Progress(
        *made,
        console=Console(stderr=True, force_terminal=True),
        redirect_stdout=False,
        auto_refresh=False,
        transient=True,
    )


def _show_cursor() -> None:
    os.write(2, _SHOW_CURSOR)
