"""
What the tools share: how they end and how they report.

A tool is two lines around its own work:

    def main(argv: Sequence[str] | None = None) -> int:
        return run_tool(compile_model, argv, "heatc")

Whatever happens inside, the user sees one message, `heatc: error: place: text`, and an exit code:

    0 ok, 1 bad input or compile error, 2 usage, 3 verification failed, 4 infeasible on this
    hardware, 70 internal error, 130 interrupted, 143 terminated, 129 the terminal was closed
    (and 141 when the reader of stdout left)
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import IO, NoReturn

from heatc import messages, stopping, temporary
from heatc.errors import HeatcError, UsageError, missing_package, suggest
from heatc.files import from_os_error
from heatc.tools.completion import complete
from heatc.tools.config import with_config
from heatc.version import VERSION

OK = 0
INTERNAL_ERROR = 70
DIAGNOSTICS = "--diagnostics"
BROKEN_PIPE = 141
"""What the shell reports for a program that SIGPIPE ended."""

_BOLD, _RED, _MAGENTA, _CYAN, _BLUE, _RESET = (
    f"\x1b[{code}m" for code in ("1", "1;31", "1;35", "1;36", "1;34", "0")
)
_COLOURS = {"error": _RED, "warning": _MAGENTA, "remark": _BLUE, "note": _CYAN}


# --- Running a tool ---------------------------------------------------------------------------


def run_tool(
    main_function: Callable[[Sequence[str]], int | None],
    argv: Sequence[str] | None = None,
    prog: str = "heatc",
) -> int:
    """
    Runs `main_function` on the arguments and returns the exit code of the process.

    `argv` is without the program's name; None stands for `sys.argv[1:]`. A `HeatcError` ends
    with its own code, an exception of xDSL's about the IR and an `OSError` with 1, anything
    else is an internal error. `--debug` (or HEATC_DEBUG=1) adds the traceback. A signal ends it as
    `heatc.stopping` says.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("HEATC_DEBUG") == "1"
    messages.set_form(_asked_form(arguments))
    try:
        temporary.forget_swept()
        stopping.work_begins(prog)
        code = _run(main_function, arguments, debug)
        stopping.work_ends()
        return code
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        _emit("error", stopping.last_line(number), "", (), code=stopping.exit_code(number))
        stopping.work_ends()
        return stopping.exit_code(number)


def _run(
    main_function: Callable[[Sequence[str]], int | None],
    arguments: Sequence[str],
    debug: bool,
) -> int:
    """The exit code of a tool that is not stopped by a signal."""
    try:
        code = _call(main_function, arguments)
        _flush_stdout()
        return code
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # Not `Exception`: xDSL's parser of pipelines and panics of Rust libraries are outside it.
        if number := stopping.stopped_by():
            # A library made an error of its own of the signal's exception.
            raise stopping.Stopped(number) from error
        if isinstance(error, OSError) and error.filename is None:
            _discard_stdout()
        if debug:
            traceback.print_exc()
        return _report_error(error, debug)


def _call(main_function: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    try:
        return main_function(arguments) or OK
    except SystemExit as end:
        # `--help` and `--version` end this way.
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _report_error(error: BaseException, debug: bool) -> int:
    known = as_heatc_error(error)
    if known is not None:
        _emit("error", known.message, known.place, known.notes, known.snippet, known.exit_code)
        return known.exit_code
    what = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    text = str(error).strip()
    notes = [note for note in getattr(error, "__notes__", ()) if "\n" not in note]
    notes.append("this is a bug in heatc, not in your input; please report it with the input")
    if not debug:
        notes.append("run again with --debug (or HEATC_DEBUG=1) for the traceback to send along")
    message = f"internal error: {what}{': ' if text else ''}{text}"
    _emit("error", message, "", notes, code=INTERNAL_ERROR)
    return INTERNAL_ERROR


def as_heatc_error(error: BaseException) -> HeatcError | None:
    """What the user did wrong, if `error` says so; None for an internal error."""
    if isinstance(error, HeatcError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    if missing := missing_package(error):
        return missing
    if "xdsl" in sys.modules:
        # Imported late: most tools do not need xDSL.
        from heatc.ir_errors import explain

        return explain(error)
    return None


def _flush_stdout() -> None:
    """Writes out what is buffered while an error can still be reported."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_stdout()
        raise from_os_error(error, "<stdout>", "write") from error


def _discard_stdout() -> None:
    """Keeps the interpreter from flushing into a dead pipe, and complaining, when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- Messages ---------------------------------------------------------------------------------


def warn(message: str, *, place: str = "", notes: Sequence[str] = ()) -> None:
    """Prints `heatc: warning: place: message` to stderr."""
    _emit("warning", message, place, notes)


def remark(message: str, *, place: str = "", notes: Sequence[str] = ()) -> None:
    """Prints `heatc: remark: place: message`: a decision the user may want to know of."""
    _emit("remark", message, place, notes)


def _asked_form(arguments: Sequence[str]) -> str:
    """What `--diagnostics` says, read before options are: they may be wrong."""
    asked = messages.TEXT
    for word, following in itertools.pairwise([*arguments, ""]):
        if word == DIAGNOSTICS:
            asked = following
        elif word.startswith(f"{DIAGNOSTICS}="):
            asked = word.partition("=")[2]
    return asked if asked in messages.FORMS else messages.TEXT


def _emit(
    kind: str,
    message: str,
    place: str,
    notes: Sequence[str],
    snippet: str = "",
    code: int | None = None,
) -> None:
    prog = stopping.command()
    # The tool's name comes first, whatever the place.
    place = "" if place == prog else place
    # A closed or broken stderr is no reason to fail.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
        if messages.is_json():
            more = {"snippet": snippet, "exit_code": code}
            text = messages.line(kind, message, place, notes, prog, **more)
        else:
            text = _format(kind, message, place, notes, snippet, _wants_colour(sys.stderr), prog)
        print(text, file=sys.stderr, flush=True)


def _wants_colour(stream: IO[str]) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def _format(
    kind: str,
    message: str,
    place: str,
    notes: Sequence[str],
    snippet: str,
    colour: bool,
    prog: str,
) -> str:
    def paint(code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if colour and text else text

    def label(kind: str) -> str:
        return paint(_COLOURS[kind], f"{kind}:")

    where = f"{place}: " if place else ""
    lines = [f"{paint(_BOLD, f'{prog}: ')}{label(kind)} {paint(_BOLD, f'{where}{message}')}"]
    if snippet:
        lines.append(snippet.rstrip("\n"))
    lines.extend(f"{label('note')} {note}" for note in notes)
    return "\n".join(lines)


# --- Arguments --------------------------------------------------------------------------------


class ToolParser(argparse.ArgumentParser):
    """
    An argument parser whose errors are `UsageError`s (exit code 2) that suggest near names.

    Options are never abbreviated, so that a new option can't change what a script means.
    `--version`, `--debug` and `--diagnostics` are there already. When a shell asks what may follow
    (`_ARGCOMPLETE`), it is answered instead.
    """

    def __init__(self, prog: str, description: str = "", epilog: str | None = None):
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"{prog} {VERSION}")
        add_common_arguments(self)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        complete(self)
        words = with_config(self, sys.argv[1:] if args is None else args)
        for word in itertools.takewhile(lambda word: word != "--", words):
            # argparse takes the value away and leaves an empty list in its place.
            if option := re.fullmatch(r"(--[\w-]+)=--|(-\w)--", word):
                self.error(f"argument {option[1] or option[2]}: expected a value, got '--'")
        return super().parse_known_args(words, namespace or argparse.Namespace())

    def error(self, message: str) -> NoReturn:
        raise_usage_error(self, message)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--debug` and `--diagnostics`, which `run_tool` reads."""
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error (also HEATC_DEBUG=1)"
    )
    parser.add_argument(
        DIAGNOSTICS,
        choices=messages.FORMS,
        default=messages.TEXT,
        help="form of errors, warnings, remarks and progress on stderr: text, or a JSON object a line",
    )


def add_quiet_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--quiet`."""
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress, no table")


def raise_usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Turns argparse's message into a `UsageError` with a suggestion, if a name is near."""
    notes: list[str] = []
    if unknown := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
        options = [o for a in parser._actions for o in a.option_strings]  # pyright: ignore[reportPrivateUsage]
        # An argument may be empty, or of blanks alone.
        name = unknown[1].strip().partition(" ")[0].partition("=")[0]
        kind = "option" if name.startswith("-") else "argument"
        message = f"unknown {kind} {name!r}"
        notes += suggest(name, options) if kind == "option" else []
    elif wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message, re.DOTALL):
        choices = [choice.strip().strip("'\"") for choice in wrong[2].split(",")]
        notes += suggest(wrong[1], choices)
    notes.append(f"see {parser.prog} --help")
    raise UsageError(message, notes=notes)
