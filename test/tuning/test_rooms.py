"""The rooms of tuning say what is in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import heatc.tuning

ROOT = Path(heatc.tuning.__file__).parent
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def table(file: Path) -> set[str]:
    """The names in the first column of the table of a package's docstring."""
    return set(re.findall(r"^\| `(\w+)` \|", file.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_package_lists_its_rooms():
    assert table(ROOT / "__init__.py") == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_lists_its_files(room: str):
    files = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    assert table(ROOT / room / "__init__.py") == files
