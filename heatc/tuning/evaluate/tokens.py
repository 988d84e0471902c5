"""Text as the inputs of a model, by the tokenizer of its folder; nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heatc.capture.hf_model import import_transformers, quiet_transformers
from heatc.errors import HeatcError, UsageError
from heatc.progress import ProgressCallback
from heatc.readers.npz import LABELS
from heatc.tuning.evaluate.data import SEGMENTS
from heatc.tuning.evaluate.labels import Classes, read_labels
from heatc.tuning.evaluate.text_table import Row, read_rows

Padding = Literal["max", "longest"]

_AT_ONCE = 1000
"""Texts between two reports of progress."""


@dataclass(frozen=True)
class TextRequest:
    """
    Text to tokenize: the columns of a file.

    `columns` are one, or two for pairs of sentences. `label` is None for data without labels.
    `limit` takes the first samples, of a random order where `shuffle` is its seed.
    """

    file: Path
    tokenizer: Path
    columns: Sequence[str]
    label: str | None
    label_names: Sequence[str]
    length: int
    padding: Padding
    limit: int | None
    shuffle: int | None


@dataclass(frozen=True)
class Tokenized:
    """
    Arrays (N, tokens) by the names of inputs, and `labels` (N,) where there are labels.

    `cut` samples lost tokens at the end.
    """

    arrays: Mapping[str, NDArray[np.int64]]
    classes: Classes | None
    cut: int


def tokenized(request: TextRequest, progress: ProgressCallback) -> Tokenized:
    """
    The samples of a file.

    Token types are left out where all are 0, which is what models take without them. Raises
    `HeatcError` for a file or a folder that cannot be read, and for rows without text or label.
    """
    wanted = [*request.columns, *([request.label] if request.label else [])]
    rows = read_rows(request.file, wanted)
    classes = None
    if request.label is not None:
        classes = read_labels(
            rows, request.label, request.tokenizer, request.label_names, str(request.file)
        )
    chosen = _chosen(len(rows), request)
    with quiet_transformers():
        tokenizer = _tokenizer(request)
        encoded, cut = _encoded(tokenizer, [rows[int(i)] for i in chosen], request, progress)
    arrays = {name: np.asarray(value, np.int64) for name, value in encoded.items()}
    if SEGMENTS in arrays and not arrays[SEGMENTS].any():
        del arrays[SEGMENTS]
    if classes is not None:
        classes = classes._replace(labels=classes.labels[chosen])
        arrays[LABELS] = classes.labels
    return Tokenized(arrays, classes, cut)


def _chosen(count: int, request: TextRequest) -> NDArray[np.int64]:
    """The rows that are taken, in order."""
    order: NDArray[np.int64] = np.arange(count)
    if request.shuffle is not None:
        order = np.random.default_rng(request.shuffle).permutation(count)
    return order[: request.limit]


def _tokenizer(request: TextRequest) -> Any:
    folder = request.tokenizer
    place = str(folder)
    if not folder.is_dir():
        raise HeatcError("no such folder", place=place, notes=["give a model folder"])
    try:
        found = import_transformers().AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        )
    # What does not fit together in a folder fails anywhere.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise HeatcError(
            f"transformers finds no tokenizer: {reason}",
            place=place,
            notes=["a model folder has one in tokenizer.json or vocab.txt"],
        ) from None
    if found.pad_token is None:
        raise HeatcError("the tokenizer has no token for padding", place=place)
    if request.length > found.model_max_length:
        raise UsageError(
            f"{request.length} tokens, the model takes {found.model_max_length}", place="--length"
        )
    return found


def _encoded(
    tokenizer: Any, rows: Sequence[Row], request: TextRequest, progress: ProgressCallback
) -> tuple[dict[str, Any], int]:
    """Ids, mask and token types of all rows, padded; and how many rows were cut."""
    whole: dict[str, list[Any]] = {}
    cut = 0
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        texts = [[row.values[column] for row in part] for column in request.columns]
        found = tokenizer(*texts, truncation=True, max_length=request.length)
        cut += sum(bool(e.overflowing) for e in found.encodings or ())
        for name, values in found.items():
            whole.setdefault(name, []).extend(values)
        progress("tokenizing", start + len(part), len(rows))
    padding = {"max": "max_length", "longest": "longest"}[request.padding]
    padded = tokenizer.pad(
        whole, padding=padding, max_length=request.length, return_attention_mask=True
    )
    return dict(padded), cut
