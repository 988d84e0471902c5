"""Classes of labels: numbers as they are, names by an order that is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.json_text import read_json
from heatc.readers.model_folder import CONFIG
from heatc.tuning.evaluate.text_table import Row

_LARGEST = 1 << 24
_MOST_CLASSES = 1 << 16


class Classes(NamedTuple):
    """
    `labels` (N,) are classes from 0; `names` says what each is called.

    `source` says where their order comes from, in words.
    """

    labels: NDArray[np.int64]
    names: tuple[str, ...]
    source: str


def read_labels(
    rows: Sequence[Row], column: str, model: Path, given: Sequence[str], place: str
) -> Classes:
    """
    The classes of a column.

    Whole numbers from 0 are classes. Names are counted from 0 in the order of `given`, else by
    `label2id` of the model's config.json where that has them all, else sorted. Raises `HeatcError` for
    a name that is not among those given.
    """
    texts = [row.values[column].strip() for row in rows]
    if given:
        return _named(rows, texts, given, "--label-names", place)
    if all(text.isascii() and text.isdigit() and int(text) < _MOST_CLASSES for text in texts):
        labels = np.array([int(text) for text in texts], np.int64)
        return Classes(labels, tuple(map(str, range(int(labels.max()) + 1))), "numbers")
    known = _model_names(model)
    if known and set(texts) <= set(known):
        return _named(rows, texts, known, f"label2id of {model / CONFIG}", place)
    return _named(rows, texts, sorted(set(texts)), "sorted names", place)


def _named(
    rows: Sequence[Row], texts: Sequence[str], names: Sequence[str], source: str, place: str
) -> Classes:
    numbers = {name: number for number, name in enumerate(names)}
    for row, text in zip(rows, texts):
        if text not in numbers:
            raise HeatcError(
                f"label {text[:80]!r} is none of {', '.join(names)[:200]}",
                place=f"{place}:{row.line}",
                notes=["name every label: --label-names A,B"],
            )
    return Classes(np.array([numbers[t] for t in texts], np.int64), tuple(names), source)


def _model_names(model: Path) -> list[str]:
    """The names of `label2id` by their class; none where it is absent, or is no numbering from 0."""
    path = model / CONFIG
    if not path.is_file():
        return []
    found: Any = read_json(path, "a configuration", _LARGEST, finite=False).get("label2id")
    if not isinstance(found, dict):
        return []
    pairs: list[tuple[Any, str]] = [(v, str(k)) for k, v in found.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if sorted(v for v, _ in pairs if type(v) is int) != list(range(len(pairs))):
        return []
    return [name for _, name in sorted(pairs)]
