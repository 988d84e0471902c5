"""docs/isa.md is what the table says."""

from __future__ import annotations

from pathlib import Path

from heatc.isa import doc
from heatc.isa.table import ISA, WORD_BITS


def test_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "isa.md"
    assert page.read_text(encoding="utf-8") == doc.render(), "run python -m heatc.isa.doc"


def test_every_instruction_is_described():
    text = doc.render()
    for entry in ISA.values():
        assert f"### `{entry.mnemonic}`" in text
        assert entry.bits <= WORD_BITS
        assert entry.summary.endswith(".")
