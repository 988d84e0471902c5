"""
The errors that a user can cause, each with its exit code.

Every tool prints one message (`heatc: error: place: text`, then `note:` lines) and
exits with `HeatcError.exit_code`; a traceback is shown under `--debug` only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HeatcError(Exception):
    """
    Bad input or a compile error (exit code 1).

    `place` says where (a file, an option, a module path with its source line), `notes`
    what was expected and what to do about it.
    """

    exit_code = 1
    snippet = ""

    def __init__(self, message: str, *, place: str = "", notes: Sequence[str] = ()):
        super().__init__(message)
        self.message = message
        self.place = place
        self.notes = tuple(notes)

    def __str__(self) -> str:
        """Place, message and notes: whoever shows the exception shows the remedy too."""
        return self._with_details(f"{self.place}: " if self.place else "")

    def render(self) -> str:
        """The message as the tools print it behind their name, without colour and final newline."""
        return self._with_details(f"error: {self.place}: " if self.place else "error: ")

    def _with_details(self, head: str) -> str:
        snippet = [self.snippet.rstrip("\n")] if self.snippet else []
        return "\n".join((head + self.message, *snippet, *(f"note: {n}" for n in self.notes)))


class SourceError(HeatcError):
    """Bad input with the piece of text that it is about, shown below the message."""

    def __init__(
        self, message: str, *, place: str = "", snippet: str = "", notes: Sequence[str] = ()
    ):
        super().__init__(message, place=place, notes=notes)
        self.snippet = snippet


class UsageError(HeatcError):
    """A wrong option, target or combination of options (exit code 2)."""

    exit_code = 2


class VerificationError(HeatcError):
    """A result differs from its reference by more than its bound (exit code 3)."""

    exit_code = 3


class InfeasibleError(HeatcError):
    """
    The program does not fit on this hardware (exit code 4).

    `notes` carry the demand, the bound and the levers that would make it fit.
    """

    exit_code = 4


NEAR, AS_NEAR = 0.6, 0.02
"""Likeness (0 to 1) that a name has at least, and by how much less another one counts as near."""


def suggest(name: str, known: Iterable[str]) -> list[str]:
    """`["did you mean 'a'?"]` for the known name nearest to `name`, more where several are as near."""
    matcher = difflib.SequenceMatcher(None, "", name)
    likeness: dict[str, float] = {}
    for one in dict.fromkeys(known):
        matcher.set_seq1(one)
        likeness[one] = matcher.ratio()
    most = max(likeness.values(), default=0.0)
    if most < NEAR:
        return []
    near = [one for one, like in likeness.items() if like >= most - AS_NEAR]
    return [f"did you mean {' or '.join(map(repr, near[:3]))}?"]


def missing_package(error: BaseException) -> HeatcError | None:
    """The message about a package that an extra of heatc brings, None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    name = error.name.partition(".")[0]
    if name not in EXTRAS:
        return None
    note = f"pip install 'heatc[{EXTRAS[name]}]'"
    return HeatcError(f"this needs {name}, which is not installed", notes=[note])


EXTRAS = {
    "dask": "dask",
    "distributed": "dask",
    "joblib": "search",
    "onnx": "export",
    "onnxscript": "export",
    "opt_einsum": "heat",
    "perfetto": "trace",
    "plotly": "report",
    "pymoo": "search",
    "tensorly": "heat",
    "torch": "torch",
    "transformers": "torch",
}
"""The extra of heatc that brings each package which heatc itself does without."""
