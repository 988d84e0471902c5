"""What bench/house.py counts, compares and times."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import house
from bench.support.house import lines, times
from bench.support.house.times import Compared

RUN = [f"x{number} = {number}" for number in range(6)]


def _tree(root: Path, files: dict[str, list[str]]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*text, ""]))
    return root


def test_six_equal_lines_are_a_pair():
    """Blank lines and comments between them do not part them; five equal lines are none."""
    other = ["# why", "", *RUN[:3], "", "# how", *RUN[3:], "y = 1"]
    assert lines.pairs({"a": [*RUN, "z = 1"], "b": other}) == [(("a", 1), ("b", 3), 6)]
    assert lines.pairs({"a": RUN[:5], "b": RUN[:5]}) == []


def test_a_longer_run_is_one_pair():
    longer = [*RUN, "x6 = 6", "x7 = 7"]
    assert lines.pairs({"a": longer, "b": ["start()", *longer]}) == [(("a", 1), ("b", 2), 8)]


def test_what_stands_three_times_is_three_pairs():
    assert len(lines.pairs({"a": RUN, "b": RUN, "c": RUN})) == 3


def test_imports_and_brackets_are_no_lines_of_their_own():
    names = [f"    name{number}," for number in range(8)]
    text = ["from heatc.errors import (", *names, ")", "import os", ")", "]", "}", ")"]
    assert lines.pairs({"a": text, "b": text}) == []


def test_linked_folders_count_once(tmp_path: Path):
    root = _tree(tmp_path, {"passes/a.py": RUN, "heatc/b.py": ["y = 1"] * 601})
    (root / "heatc" / "passes").symlink_to(root / "passes")
    files = lines.sources(root)
    assert [lines.lines_of(files, folder) for folder in ("heatc", "passes")] == [601, 6]
    assert lines.large(files) == {"heatc/b.py": 601}


def test_joules_may_differ_in_the_last_digits_alone():
    known = {"case": {"words": "abc", "joules": 1.0}}
    assert list(house.differences(known, {"case": {"words": "abc", "joules": 1.0 + 1e-15}})) == []
    found = {"case": {"words": "abd", "joules": 1.0 + 1e-9}, "new": {}}
    assert len(list(house.differences(known, found))) == 3


def test_enough_programs_are_compared():
    names = [case.name for case in house.cases()]
    assert len(set(names)) == len(names) >= house.CASES


def test_two_take_turns():
    """Each is once first and once second, so that a drift of the machine costs both the same."""
    calls: list[str] = []
    found = times.in_turns(2, lambda: calls.append("before"), lambda: calls.append("after"))
    rounds = [calls[at : at + 2] for at in range(2, 6, 2)]
    assert sorted(rounds) == [["after", "before"], ["before", "after"]]
    assert len(found.before) == len(found.after) == 2


def test_ratio_of_medians_and_its_interval():
    found = Compared((1.0, 2.0, 3.0, 4.0, 50.0), (2.0, 4.0, 6.0, 8.0, 100.0))
    assert found.ratio == 2.0
    assert found.interval == (2.0, 2.0)
    low, high = Compared((1.0, 1.0, 1.0), (0.9, 1.0, 1.3)).interval
    assert low < 1.0 < high


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        house.main(["all", "--before", ".", "--parts", "sources,weather"])
    assert "'weather' is none of programs, sources" in capsys.readouterr().err
