"""Fixtures of the tests of capture."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The tests are no package: what they share is imported from their own folder.
sys.path.insert(0, str(Path(__file__).parent))

from capture_support import SMALL, MakeBert, bert_inputs, save


@pytest.fixture(scope="session")
def make_bert() -> MakeBert:
    """Builds a small random BERT of the given class in evaluation mode."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")

    def make(kind: str = "BertModel", attention: str = "sdpa", **settings: Any) -> Any:
        import torch
        import transformers

        torch.manual_seed(0)
        make_config: Any = transformers.BertConfig
        config = make_config(**{**SMALL, **settings})
        build = getattr(transformers, kind)._from_config
        return build(config, attn_implementation=attention).eval()

    return make


@pytest.fixture(scope="session")
def archive(make_bert: MakeBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch.export archive of the small BERT with SDPA attention, 1x8."""
    from heatc.capture.exported import export

    return save(export(make_bert(), bert_inputs()), tmp_path_factory.mktemp("archive") / "a.pt2")
