"""What commands are told of passes in words: whole pipelines, insertions, and the files of both."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from heatc.errors import UsageError, suggest
from heatc.ir_errors import explain_spec_error
from heatc.universe import known_passes

Place = Literal["after", "before"]

_INSERTION = re.compile(r"(?P<passes>.*):(?P<place>after|before)=(?P<other>[\w-]+)", re.DOTALL)


@dataclass(frozen=True)
class Insertion:
    """Passes that are put beside another one of a pipeline."""

    passes: tuple[ArgSpec, ...]
    place: Place
    other: str


def read_passes(text: str) -> tuple[ArgSpec, ...]:
    """
    The passes of a text such as `cse,heat-decompose{rank=3}`.

    Raises `UsageError` for a malformed text, an unknown pass, and an option or a value that a pass
    does not take.
    """
    try:
        specs = tuple(parse_pipeline(text))
    except ArgSpecParseError as error:
        raise explain_spec_error("pass pipeline", error) from error
    for spec in specs:
        _check(spec)
    return specs


def check_name(name: str) -> None:
    """Raise `UsageError` where there is no pass of this name."""
    known = known_passes()
    if name not in known:
        notes = [*suggest(name, known.with_foreign()), "see heatc --list-passes"]
        raise UsageError(f"unknown pass '{name}'", notes=notes)


def _check(spec: ArgSpec) -> None:
    check_name(spec.name)
    pass_type = known_passes()[spec.name]()
    fields = {f.name.replace("_", "-") for f in dataclasses.fields(pass_type)} - {"name"}
    for option in spec.parameters:
        if option.replace("_", "-") not in fields:
            options = ", ".join(sorted(fields)) or "none"
            notes = [*suggest(option, fields), f"the options of '{spec.name}': {options}"]
            raise UsageError(f"pass '{spec.name}' has no option '{option}'", notes=notes)
    try:
        pass_type.from_pass_spec(spec)
    except (ValueError, TypeError) as error:
        raise UsageError(f"pass '{spec.name}': {error}") from error


def read_insertion(text: str) -> Insertion:
    """
    What `NAME{options}:after=OTHER`, or `...:before=OTHER`, says.

    Raises `UsageError` as `read_passes` does, and for a text of another form.
    """
    found = _INSERTION.fullmatch(text)
    passes = () if found is None else read_passes(found["passes"])
    if found is None or not passes:
        raise UsageError(
            f"malformed insertion {text!r}",
            notes=["expected NAME:after=OTHER or NAME{options}:before=OTHER"],
        )
    check_name(found["other"])
    return Insertion(passes, cast(Place, found["place"]), found["other"])


def inserted(specs: Sequence[ArgSpec], insertion: Insertion) -> tuple[ArgSpec, ...]:
    """
    A pipeline with an insertion.

    Raises `UsageError` where the pipeline does not have the other pass exactly once.
    """
    names = [spec.name for spec in specs]
    count = names.count(insertion.other)
    if count != 1:
        how = "has no pass" if count == 0 else f"has {count} passes"
        notes = suggest(insertion.other, names) if count == 0 else []
        raise UsageError(
            f"the pipeline {how} '{insertion.other}'",
            place="--insert-pass",
            notes=[*notes, f"the pipeline: {','.join(names)}"],
        )
    where = names.index(insertion.other) + (insertion.place == "after")
    return (*specs[:where], *insertion.passes, *specs[where:])
