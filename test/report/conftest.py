"""Real runs of a tiny classifier, and a page of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # helpers of all tests

import report_kit
from report_kit import Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Programs, runs, an evaluation, a front, plans, and the page of all of them."""
    return report_kit.make(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def hostile(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a run whose modules have names that mean harm."""
    return report_kit.make_hostile(made, tmp_path_factory.mktemp("hostile"))
