"""Helpers of the passes."""

import pytest

from heatc.passes.rewriting import name_hint


@pytest.mark.parametrize(
    ("symbol", "hint"),
    [("encoder.layer.0", "encoder_layer"), ("0.weight", None), ("größe", "gr__e"), ("", None)],
)
def test_hints_are_valid_names(symbol: str, hint: str | None):
    """State dicts of plain sequences name their weights by numbers."""
    assert name_hint(symbol) == hint
