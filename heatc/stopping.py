"""
SIGINT, SIGTERM and SIGHUP: one line, no file left behind, exit code 128 + the signal's number.

A signal can strike three times of a command's life. While its modules are imported and after its
work is done nothing has to be unwound, and an exception would become Python's traceback: the
process ends at once. While it works `Stopped` is raised, so that whatever was begun is closed; a
second signal, or five seconds, end what does not unwind. Files that are whole or not at all need
none of this: their temporaries are removed whichever way the process ends.

A process that merely calls a tool's `main` is not ended: it gets the exit code, and its own handlers
back. Signals that are ignored when the process starts (`nohup`, background jobs of a script) stay so.

Imported before all else, hence without `typing` and `contextlib`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "the terminal was closed",
}
"""The signals that end a command, and what its last line says."""

GRACE = 5.0
"""Seconds that unwinding may take."""

_IMPORTING = "<frozen importlib._bootstrap>"
"""Where frames of a running import are."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the command; `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _State:
    """What this process is doing, as far as a signal has to know."""

    prog = "heatc"
    owned = False  # the process is a command, and ends with it
    working = False
    stopping = 0  # the number of the signal that is being unwound
    told = False  # the last line is out
    shielded = 0
    pending = 0
    brisk = 0
    previous: dict[int, Any] = {}  # noqa: RUF012  # one state a process


_last_acts: list[Callable[[], object]] = []


def at_the_end(act: Callable[[], object]) -> None:
    """Have `act` done when a signal ends the process at once; an `OSError` of it is let go."""
    _last_acts.append(act)


def not_at_the_end(act: Callable[[], object]) -> None:
    """Forget what `at_the_end` was told, once."""
    if act in _last_acts:
        _last_acts.remove(act)


def command() -> str:
    """What the command at work is called."""
    return _State.prog


def exit_code(number: int) -> int:
    """What the shell reports for a process that a signal ended."""
    return 128 + number


def own_process(prog: str, mask: set[signal.Signals] | set[int]) -> None:
    """This process is the command `prog`: a signal ends it, from now on, when `mask` lets it in."""
    _State.prog, _State.owned = prog, True
    _install()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    atexit.register(_deaf)  # the first one runs last
    inherited = sys.unraisablehook

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        # Raised in a destructor or a callback of C code, where nobody would ever see it.
        if isinstance(unraisable.exc_value, Stopped):
            _end(unraisable.exc_value.number)
        inherited(unraisable)

    sys.unraisablehook = lost


def work_begins(prog: str) -> None:
    """From now on a signal raises `Stopped`."""
    _State.prog, _State.stopping, _State.told = prog, 0, False
    if not _State.owned:
        _install()
    _State.working = True


def work_ends() -> None:
    """From now on there is nothing to unwind; a command that was stopped, and said so, ends."""
    _State.working = False
    if _State.owned:
        if _State.told:
            _end(_State.stopping or signal.SIGINT)
        return
    while _State.previous:
        signal.signal(*_State.previous.popitem())


def stopped_by() -> int:
    """The number of the signal that is being unwound, 0 without one."""
    return _State.stopping


def last_line(number: int) -> str:
    """What is said of a signal, asked for by whoever says it: it is said once."""
    _State.told = True
    return WORDS[signal.Signals(number)]


class deferred:
    """Inside, signals wait: for the few steps that belong together."""

    def __enter__(self) -> None:
        _State.shielded += 1

    def __exit__(self, *_: object) -> None:
        _State.shielded -= 1
        if _State.pending and not _State.shielded:
            number, _State.pending = _State.pending, 0
            _stop(number, sys._getframe())  # pyright: ignore[reportPrivateUsage]


class at_once:
    """Inside, a signal ends the process: what is begun there takes long to unwind, or fails to."""

    def __enter__(self) -> None:
        _State.brisk += 1

    def __exit__(self, *_: object) -> None:
        _State.brisk -= 1


def _install() -> None:
    """Handle the signals that nobody else handles and nobody ignores."""
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    for number in WORDS:
        if signal.getsignal(number) not in defaults:
            continue
        try:
            _State.previous[number] = signal.signal(number, _stop)
        except ValueError:
            return  # not the main thread, which alone is told of signals


def _deaf() -> None:
    """All is done and said: the interpreter is taken down, and would have a signal kill it."""
    for number in _State.previous:
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    if _State.shielded:
        _State.pending = number
        return
    if not _State.owned:
        _State.stopping = number
        raise Stopped(number)
    if not _State.working or _State.stopping or _State.brisk or _is_importing(frame):
        _end(_State.stopping or number)
    _State.stopping = number
    signal.signal(signal.SIGALRM, _out_of_patience)
    signal.setitimer(signal.ITIMER_REAL, GRACE)
    raise Stopped(number)


def _out_of_patience(number: int, frame: FrameType | None) -> None:
    _end(_State.stopping)


def _is_importing(frame: FrameType | None) -> bool:
    """Modules of C code turn an exception during their import into another one, or lose it."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _end(number: int) -> NoReturn:
    """The last line, and the end, whatever else is going on."""
    acts = _last_acts if _State.told else [*_last_acts, lambda: _say(number)]
    for act in acts:
        try:  # noqa: SIM105  # without contextlib
            act()
        except OSError:
            pass
    os._exit(exit_code(number))


def _say(number: int) -> None:
    word = last_line(number)
    text = f"{_State.prog}: error: {word}"
    messages = sys.modules.get("heatc.messages")
    if messages is not None and messages.is_json():
        text = messages.line("error", word, "", (), _State.prog, exit_code=exit_code(number))
    os.write(2, f"{text}\n".encode())
