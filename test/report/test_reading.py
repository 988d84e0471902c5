"""What a RUN is is told by its content, and a wrong one gets one message."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_kit import Made

from heatc import kinds
from heatc.errors import HeatcError
from heatc.report.material import EvaluationRun, FrontRun, PlanRun, SimulatedRun, SweepRun
from heatc.report.reading import read_run
from heatc.tools import report
from heatc.tools.report import run_names

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dense", SimulatedRun),
        ("dense/stats.json", SimulatedRun),
        ("front", FrontRun),
        ("sweep", SweepRun),
        ("front/front.json", FrontRun),
        ("front/plan.json", PlanRun),
        ("heat.json", PlanRun),
        ("eval.json", EvaluationRun),
    ],
)
def test_a_run_is_what_its_content_says(made: Made, name: str, kind: type, tmp_path: Path):
    path = made.folder / name
    assert isinstance(read_run(path, "x"), kind)
    if path.is_file() and path.parent == made.folder:
        other = tmp_path / "renamed"
        shutil.copy(path, other)
        assert isinstance(read_run(other, "x"), kind)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """A copy of a run that may be damaged."""
    return shutil.copytree(made.folder / "pruned", tmp_path / "run")


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "layers of another run": (
        lambda run: (run / "layers.csv").write_text("module_path,instructions\na,1\n"),
        "layers.csv: the file is not of the run that stats.json tells of",
    ),
    "masks of another run": (
        lambda run: (run / "masks.npz").write_bytes(b"PK"),
        "masks.npz: the file is not of the run that stats.json tells of",
    ),
    "another schema": (
        lambda run: changed(run / "stats.json", lambda data: data.update(schema=9)),
        "stats.json: schema 9, this heatc reads 1",
    ),
    "no program": (
        lambda run: changed(run / "stats.json", lambda data: data.pop("program")),
        "stats.json: the key 'program' is missing",
    ),
    "a text for a number": (
        lambda run: changed(
            run / "stats.json", lambda data: data["modelled"].update(total_cycles="many")
        ),
        "modelled.total_cycles: expected a number or null, found 'many'",
    ),
    "no JSON": (
        lambda run: (run / "stats.json").write_text(kinds.STATS_JSON.json_text({"schema": 1})[:-5]),
        "stats.json:",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_one_message(copied: Path, name: str, capsys: Capture, tmp_path: Path):
    damage, message = DAMAGES[name]
    damage(copied)
    assert report.main([str(copied), "-o", str(tmp_path / "p.html")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert "internal" not in error
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (",many", "expected a number, found 'many"),
        (",,,", "columns, found"),
        ("," + "x" * (1 << 18), "no CSV: field larger than field limit"),
    ],
)
def test_figures_of_layers_are_numbers(copied: Path, word: str, message: str):
    text = (copied / "layers.csv").read_text().splitlines()
    text[2] = text[2].replace(",", word, 1)
    (copied / "layers.csv").write_text("\n".join(text))
    changed(copied / "stats.json", lambda data: data.pop("files"))
    with pytest.raises(HeatcError, match=message) as caught:
        read_run(copied, "x")
    assert caught.value.place.endswith("layers.csv:3")


@pytest.mark.parametrize("content", ["", "{}", "PK\x03\x04", '{"schema": 1}', "a,b\n"])
def test_what_is_no_run(content: str, tmp_path: Path, capsys: Capture):
    path = tmp_path / "x.json"
    path.write_text(content)
    assert report.main([str(path), "-o", str(tmp_path / "p.html")]) == 1
    error = capsys.readouterr().err
    assert "x.json: nothing that a report shows" in error
    assert "a folder of hdp-run --stats" in error


def test_what_is_not_there(tmp_path: Path, capsys: Capture):
    assert report.main([str(tmp_path / "none"), "-o", str(tmp_path / "p.html")]) == 1
    assert "no such file" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert report.main([str(empty), "-o", str(tmp_path / "p.html")]) == 1
    assert "nothing that a report shows" in capsys.readouterr().err


def test_a_folder_of_two_kinds_has_to_be_told_apart(made: Made, copied: Path, capsys: Capture):
    shutil.copy(made.folder / "front/front.json", copied / "front.json")
    assert report.main([str(copied), "-o", str(copied.parent / "p.html")]) == 1
    assert "the folder holds stats.json and front.json" in capsys.readouterr().err


def test_a_run_of_values_alone(made: Made, tmp_path: Path):
    from report_kit import call, parsed

    from heatc.tools import run

    stats = ("--stats", tmp_path / "values", "--model=functional", "-q")
    call(run, made.folder / "dense.hdp", "--inputs", made.folder / "in.npz", *stats)
    call(report, tmp_path / "values", "-o", tmp_path / "p.html", "-q")
    ids = [section.attributes["id"] for section in parsed(tmp_path / "p.html").all("section")]
    assert ids == ["headline", "modules", "provenance", "terms"]


def test_the_name_of_the_page(made: Made, capsys: Capture):
    assert report.main([str(made.folder / "dense"), "-o", "page.txt"]) == 2
    assert "expected a name that ends in .html" in capsys.readouterr().err


def test_without_plotly_a_message_says_what_to_install(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert report.main([str(made.folder / "dense"), "-o", str(tmp_path / "p.html")]) == 1
    assert "pip install 'heatc[report]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x", "b/x"], ["a/x", "b/x"]),
        (["x", "y/plan.json"], ["x", "plan.json"]),
        (["a/b/x", "c/b/x", "z"], ["a/b/x", "c/b/x", "z"]),
    ],
)
def test_runs_have_names_of_their_own(paths: list[str], names: list[str]):
    assert run_names([Path(path) for path in paths]) == names
