"""Fixtures of the end-to-end tests: the real model, and a tiny random one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # helpers of all tests

from bench.support.data import texts as data


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real model."""
    try:
        return data.model_folder()
    except data.MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A Hugging Face folder with a random BERT: 2 layers, 4 heads of 8, at most 32 tokens.

    Its weights are larger than an untrained model's, so that attention has something to prune.
    """
    torch = pytest.importorskip("torch", reason="capture needs torch")
    transformers = pytest.importorskip("transformers", reason="capture needs transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.35,
    )
    folder = tmp_path_factory.mktemp("tiny")
    transformers.BertModel(config).eval().save_pretrained(folder)
    return folder
