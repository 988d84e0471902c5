"""
Messages as lines of JSON, for programs that read stderr (`--diagnostics json`).

The form is one of this process: errors of the tools, remarks of passes, progress and the last line
of a signal all ask for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

TEXT, JSON = FORMS = ("text", "json")

KEYS = {
    "tool": "the command that says it",
    "kind": "error, warning, remark or progress",
    "place": "what it is about: a file and line, an option, a module path; may be empty",
    "message": "one sentence",
    "notes": "what was expected, and what to do about it",
    "snippet": "of an error in a text: the line that is wrong; absent elsewhere",
    "exit_code": "of an error: what the command ends with; absent elsewhere",
    "done_count": "of progress: how much is done; absent elsewhere",
    "total_count": "of progress: of how much, 0 where nobody knows; absent elsewhere",
}
"""The keys of a line."""


class _State:
    """The form of this process."""

    form = TEXT


def set_form(form: str) -> None:
    """From now on messages have this form."""
    _State.form = form


def is_json() -> bool:
    """Whether messages are lines of JSON."""
    return _State.form == JSON


def line(kind: str, message: str, place: str, notes: Sequence[str], tool: str, **more: Any) -> str:
    """A message as a line of JSON, without its end; what is None or empty of `more` is left out."""
    head = {"tool": tool, "kind": kind, "place": place, "message": message, "notes": list(notes)}
    told = {key: value for key, value in more.items() if value not in (None, "")}
    return json.dumps({**head, **told}, ensure_ascii=False)
