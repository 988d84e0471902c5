"""docs/eval.md is what the declarations say."""

from __future__ import annotations

from heatc.tuning.evaluate.figures import FIGURES
from heatc.tuning.evaluate.page import DEFAULT, render


def test_the_page_is_up_to_date():
    assert DEFAULT.read_text(encoding="utf-8") == render()


def test_names_are_unique():
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names)
