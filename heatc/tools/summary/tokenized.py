"""The summary of `heatc-tune data`: the arrays that were written, and how many samples a class has."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from heatc.tools.summary.keys import COUNTED, TOLD, Key, Section
from heatc.tools.summary.next_steps import Step, step
from heatc.tools.summary.output import Summary

if TYPE_CHECKING:
    from heatc.tuning.evaluate.tokens import Tokenized

COMMAND = "heatc-tune data"

MOST_SHOWN = 400
"""Characters of the classes in the line that is printed."""


class Set(NamedTuple):
    """A data set by its file."""

    file: str
    found: Tokenized


class Named(NamedTuple):
    """An array of the set."""

    name: str
    shape: tuple[int, ...]


class Class(NamedTuple):
    """A class of the labels."""

    name: str
    number: int
    samples: int


DATA: Section[Set] = Section(
    "data",
    "the data set",
    (
        Key("file", "text", TOLD, "path of the .npz file", lambda s: s.file),
        Key(
            "samples_count",
            "count",
            COUNTED,
            "samples in it",
            lambda s: len(next(iter(s.found.arrays.values()))),
        ),
        Key(
            "cut_count",
            "count",
            COUNTED,
            "samples that lost tokens at the end",
            lambda s: s.found.cut,
        ),
    ),
)
ARRAYS: Section[Named] = Section(
    "arrays",
    "the arrays of 64-bit integers in it",
    (
        Key("name", "text", TOLD, "of the model's input, or labels", lambda a: a.name),
        Key("shape", "list of counts", COUNTED, "samples first", lambda a: list(a.shape)),
    ),
    is_list=True,
)
CLASSES: Section[Class] = Section(
    "classes",
    "what labels stand for; empty without labels",
    (
        Key("name", "text", TOLD, "of the label in the text", lambda c: c.name),
        Key("number", "class", TOLD, "the label in the data set", lambda c: c.number),
        Key("samples_count", "count", COUNTED, "samples of the class", lambda c: c.samples),
    ),
    is_list=True,
)

SECTIONS: tuple[Section[Any], ...] = (DATA, ARRAYS, CLASSES)


def summarize(arguments: argparse.Namespace, found: Tokenized) -> Summary:
    """The summary of a data set."""
    arrays = [Named(name, array.shape) for name, array in found.arrays.items()]
    classes = _classes(found)
    sections = {
        DATA.name: DATA.of(Set(arguments.output, found)),
        ARRAYS.name: ARRAYS.of_all(arrays),
        CLASSES.name: CLASSES.of_all(classes),
    }
    steps = next_steps(arguments) if classes else []
    return Summary(COMMAND, sections, _text(arguments.output, arrays, classes), steps)


def _classes(found: Tokenized) -> list[Class]:
    if found.classes is None:
        return []
    labels = found.classes.labels
    return [Class(name, n, int((labels == n).sum())) for n, name in enumerate(found.classes.names)]


def _text(output: str, arrays: list[Named], classes: list[Class]) -> str:
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in arrays)
    if not classes:
        return f"{output}: {shapes}; no labels"
    each = ", ".join(f"{c.name} {c.samples}" for c in classes)
    return f"{output}: {shapes}; samples by class: {each[:MOST_SHOWN]}"


def next_steps(arguments: argparse.Namespace) -> list[Step]:
    """Judge the model on the data."""
    model = [arguments.tokenizer, "--data", arguments.output]
    return [step("how often the model is right on them", "heatc-tune", "eval", *model)]
