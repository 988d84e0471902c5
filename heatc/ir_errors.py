"""
xDSL's exceptions as messages: one place, one sentence, one op, never the whole module.

xDSL attaches the top-level module to an error and drops the op's location. Both are put right
here, from the op that was being verified or rewritten when the exception was raised. Some of xDSL's
verifiers, passes and printers assume more than its parser checks, and fail in Python's own words on
IR that lacks it: that is about the IR, too.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from traceback import walk_tb

from xdsl.dialects.builtin import ArrayAttr, CallSiteLoc, FileLineColLoc, FusedLoc, NameLoc
from xdsl.ir import Attribute, Operation
from xdsl.printer import Printer
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    InterpretationError,
    ParseError,
    PassFailedException,
    UnregisteredConstructException,
    VerifyException,
)
from xdsl.utils.hints import isa
from xdsl.utils.lexer import Span

from heatc.errors import HeatcError, SourceError, UsageError, missing_package
from heatc.files import from_os_error

_LONGEST_LINE = 240

_IN_PASS = "in the pass "

_DRIVERS = (
    *("heatc.tools", "heatc.pipeline", "heatc.api", "heatc.ir_errors"),
    *("xdsl.xdsl_opt_main", "xdsl.passes"),
)
"""Modules that only call others: an exception that passed through them is not theirs."""


def explain(
    error: BaseException, *, place: str = "", notes: tuple[str, ...] = ()
) -> HeatcError | None:
    """
    The user's view of an exception about the IR; None if it is not one.

    `place` serves where the error itself has none, `notes` are added below.
    """
    if isinstance(error, HeatcError):
        return _with_notes(error, place, notes)
    if isinstance(error, ParseError):
        return _explain_parse_error(error, notes)
    if isinstance(error, ArgSpecParseError):
        return explain_spec_error("pass pipeline", error)
    if isinstance(error, UnregisteredConstructException | InterpretationError):
        return HeatcError(_sentence(str(error)), place=place, notes=notes)
    if not isinstance(error, DiagnosticException):
        return _explain_upstream(error, place, notes)
    message, op = str(error), failing_op(error)
    notes = (*_pass_notes(error), *notes)
    if isinstance(error, PassFailedException):
        # What a pass has to say may take several lines: a list of ops, what to do.
        notes = (*(line.strip() for line in message.strip().splitlines()[1:]), *notes)
    if op is None:
        return HeatcError(_sentence(message), place=place, notes=notes)
    if isinstance(error, VerifyException):
        message = f"'{op.name}' op {message}"
    where, module_path = describe_location(op.location)
    if module_path:
        notes = (f"in {module_path}", *notes)
    return SourceError(_sentence(message), place=where or place, snippet=print_op(op), notes=notes)


def explain_spec_error(what: str, error: ArgSpecParseError) -> UsageError:
    """The view of a text of passes and options that does not parse."""
    # Lines: a fixed header, the location, the text, carets, the reason.
    _, _, text, _, reason, *_ = str(error).splitlines()
    reason = reason.strip()
    notes = ["options are separated by blanks, values by commas, other text is quoted"]
    return UsageError(f"malformed {what} {text!r}: {reason.lower()}", notes=notes)


@contextmanager
def translated() -> Generator[None]:
    """
    The boundary of the Python API: what the user did wrong leaves it as a `HeatcError`.

    Exceptions of xDSL about the IR and of the operating system are translated; whatever else is a
    bug and passes.
    """
    try:
        yield
    except OSError as error:
        raise from_os_error(error) from error
    except Exception as error:
        explained = explain(error) or missing_package(error)
        if explained is None or explained is error:
            raise
        raise explained from error


@contextmanager
def naming_pass(name: str) -> Generator[None]:
    """Exceptions about the IR that leave the block say which pass was at work."""
    try:
        yield
    except DiagnosticException as error:
        error.add_note(f"{_IN_PASS}{name}")
        raise


def _pass_notes(error: BaseException) -> list[str]:
    """What `naming_pass` said; xDSL's own notes are whole modules."""
    notes: list[str] = getattr(error, "__notes__", [])
    return [note for note in notes if note.startswith(_IN_PASS)]


def _explain_upstream(
    error: BaseException, place: str, notes: tuple[str, ...]
) -> HeatcError | None:
    """The view of an exception that xDSL itself failed with, None where heatc's code is involved."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    called = [name for name in modules if not name.startswith(_DRIVERS)]
    is_upstream = bool(called) and called[0].startswith("xdsl.")
    if not is_upstream or any(name.startswith("heatc.") for name in called):
        return None
    reason = (str(error).strip() or "no reason given").splitlines()[0][:120]
    message = f"xDSL cannot process this IR: {type(error).__name__}: {reason}"
    op = failing_op(error)
    if op is None:
        return HeatcError(message, place=place, notes=notes)
    where, _ = describe_location(op.location)
    return SourceError(message, place=where or place, snippet=print_op(op), notes=notes)


def failing_op(error: BaseException) -> Operation | None:
    """The innermost op whose `verify` or `emit_error` the exception passed through."""
    codes = (Operation.verify.__code__, Operation.emit_error.__code__)
    found: Operation | None = None
    for frame, _ in walk_tb(error.__traceback__):
        op = frame.f_locals.get("self")
        if frame.f_code in codes and isinstance(op, Operation):
            found = op
    return found


def describe_location(location: Attribute) -> tuple[str, str]:
    """`file:line:col` and the name (a module path) of a location; `""` for what it lacks."""
    match location:
        case FileLineColLoc():
            return f"{location.filename.data}:{location.line.data}:{location.column.data}", ""
        case NameLoc():
            place, inner = describe_location(location.location)
            return place, inner or location.desc.data
        case CallSiteLoc():
            return describe_location(location.callee)
        case FusedLoc():
            assert isa(location.locations, ArrayAttr[Attribute])
            described = (describe_location(part) for part in location.locations)
            return next(filter(any, described), ("", ""))
        case _:
            return "", ""


def print_op(op: Operation) -> str:
    """The op in generic form without its regions' bodies, cut where it gets long."""
    stream = StringIO()
    try:
        Printer(stream, print_generic_format=True).print_op(op)
    except Exception:
        # An op that does not verify may not print either.
        return f"  {op.name}"
    first, *rest = stream.getvalue().splitlines()
    if len(first) > _LONGEST_LINE:
        first = first[:_LONGEST_LINE] + " ..."
    return f"  {first}{' ...' if rest else ''}"


def _explain_parse_error(error: ParseError, notes: tuple[str, ...]) -> HeatcError:
    return SourceError(
        _sentence(error.msg),
        place=str(error.span.get_location()),
        snippet=_point_at(error.span),
        notes=notes,
    )


def _point_at(span: Span[str] | Span[bytes]) -> str:
    """The line the span starts on, with carets below it; nothing for a line too long to help."""
    # The context is location, line, carets, and pairs of lines and carets for longer spans.
    _, line, carets, *_ = span.print_with_context().split("\n")
    if len(line) > _LONGEST_LINE:
        return ""
    return f"  {line}\n  {carets}"


def _with_notes(error: HeatcError, place: str, notes: tuple[str, ...]) -> HeatcError:
    error.place = error.place or place
    error.notes = (*error.notes, *notes)
    return error


def _sentence(text: str) -> str:
    """The first line of a message, starting in lower case unless it starts with a name."""
    line = (text.strip() or "invalid").splitlines()[0].rstrip(".!")
    if line[:1].isupper() and line[1:2].islower():
        return line[0].lower() + line[1:]
    return line
