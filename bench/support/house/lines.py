"""How large the sources of a checkout are, and where they repeat themselves."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, TypeAlias

FOLDERS = ("heatc", "passes", "backends", "dialects")
LARGE = 600
"""Lines of a file, above which it is a large one."""
SHARED = 6
"""Equal lines one after the other that make two places a pair."""

Code: TypeAlias = Sequence[str]
_IMPORT = re.compile(r"(from [\w.]+ )?import ")
_NAME = re.compile(r"\w")


class Pair(NamedTuple):
    """Two places that share lines: where each begins, and how many lines they share."""

    one: tuple[str, int]
    other: tuple[str, int]
    lines: int


def sources(root: Path) -> dict[str, list[str]]:
    """The lines of all Python files of the compiler, by path; linked folders count once."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for place, _, names in os.walk(root / folder):
            for path in (Path(place, name) for name in names if name.endswith(".py")):
                text = path.read_text(encoding="utf-8")
                found[path.relative_to(root).as_posix()] = text.splitlines()
    return dict(sorted(found.items()))


def lines_of(files: Mapping[str, Sequence[str]], folder: str) -> int:
    """The lines of a folder."""
    return sum(len(lines) for path, lines in files.items() if path.startswith(f"{folder}/"))


def large(files: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The files of more lines than a file should have."""
    return {path: len(lines) for path, lines in files.items() if len(lines) > LARGE}


def pairs(files: Mapping[str, Sequence[str]]) -> list[Pair]:
    """
    The pairs of places that share lines, the longest run of each first.

    What says nothing of its own does not count: blank lines, comments, imports, lone brackets.
    """
    counted = {path: list(_counted(lines)) for path, lines in files.items()}
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path, code in counted.items():
        for start in range(len(code) - SHARED + 1):
            places[tuple(text for _, text in code[start : start + SHARED])].append((path, start))
    alike = {pair for found in places.values() for pair in combinations(found, 2)}
    runs: list[Pair] = []
    for one, other in alike:
        if (_before(one), _before(other)) in alike:
            continue
        more = 0
        while (_after(one, more + 1), _after(other, more + 1)) in alike:
            more += 1
        begins = [(path, counted[path][start][0]) for path, start in (one, other)]
        runs.append(Pair(begins[0], begins[1], SHARED + more))
    return sorted(runs, key=lambda pair: (-pair.lines, pair))


def _before(place: tuple[str, int]) -> tuple[str, int]:
    return place[0], place[1] - 1


def _after(place: tuple[str, int], count: int) -> tuple[str, int]:
    return place[0], place[1] + count


def _counted(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that count, white space folded."""
    imports = False
    for number, line in enumerate(lines, 1):
        text = " ".join(line.split())
        if imports or _IMPORT.match(text):
            # The names of an import may stand on lines of their own.
            imports = "(" in text or (imports and ")" not in text)
            continue
        if _NAME.search(text) and not text.startswith("#"):
            yield number, text
