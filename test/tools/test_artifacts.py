"""
What a command reads and writes: no output is an input, another output, or somebody else's file.

Every pair comes from the registry (`heatc.commands`) and goes through the command itself: refused
with exit code 1 before any work, all files as they were.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts_kit import CASES, HEAT, KINDS, Case, sample, write_inputs

from heatc import commands, kinds
from heatc.artifacts import Command, Output
from heatc.errors import HeatcError
from heatc.kinds import Kind
from heatc.plan import model_sha256
from heatc.tools import (
    assemble,
    export,
    main,
    objdump,
    report,
    run,
    tune_calibrate,
    tune_compress,
    tune_data,
    tune_distill,
    tune_eval,
    tune_search,
)
from heatc.tools.diagnostics import ToolParser

Capture = pytest.CaptureFixture[str]
Monkey = pytest.MonkeyPatch

PATH = re.compile(r"MODEL|RUN$|FILE|DIR|FOLDER|\w+\.\w+")
"""What an option that takes a path says it takes."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which every command runs."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each command line in turn."""
    return CASES[request.param]


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file with its bytes, every link with its target."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def refused(case: Case, capsys: Capture, *messages: str) -> None:
    """The command ends with exit code 1 and these words, and changes nothing."""
    before = contents(Path())
    code = case.run()
    error = capsys.readouterr().err
    assert code == 1, error
    for message in messages:
        assert message in error
    assert "Traceback" not in error
    assert contents(Path()) == before


def outputs_of(case: Case) -> list[Output]:
    """The outputs of a case, their folders made."""
    found = case.command.outputs(case.values)
    for output in found:
        output.path.parent.mkdir(exist_ok=True)
    return found


# --- The registry is whole --------------------------------------------------------------------


def test_every_path_of_the_registry_is_in_a_case():
    for command in commands.COMMANDS:
        given = {key for case in CASES.values() if case.command is command for key in case.paths}
        keys = {x.key for x in (*command.reads, *command.writes)}
        assert keys == given or not command.writes, command.name


@pytest.mark.parametrize(
    ("command", "parser"),
    [
        (commands.HEATC, main.make_parser),
        (commands.CALIBRATE, tune_calibrate.make_parser),
        (commands.SEARCH, tune_search.make_parser),
        (commands.DISTILL, tune_distill.make_parser),
        (commands.COMPRESS, tune_compress.make_parser),
        (commands.EVAL, tune_eval.make_parser),
        (commands.DATA, tune_data.make_parser),
        (commands.EXPORT, export.make_parser),
        (commands.HDP_RUN, run.make_parser),
        (commands.REPORT_PAGE, report.make_parser),
        (commands.HDP_AS, assemble.make_parser),
        (commands.HDP_OBJDUMP, objdump.make_parser),
    ],
)
def test_every_option_that_names_a_file_is_in_the_registry(
    command: Command, parser: Callable[[], ToolParser]
):
    actions = parser()._actions
    paths = {a.dest for a in actions if isinstance(a.metavar, str) and PATH.search(a.metavar)}
    assert paths == {x.key for x in (*command.reads, *command.writes)}


# --- Pairs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["link", "hard link", "path", "relative path"])
def test_an_output_that_is_an_input(case: Case, way: str, capsys: Capture):
    tried = 0
    for output, found in itertools.product(outputs_of(case), case.command.inputs(case.values)):
        wrong: Case | None = case
        if way == "link":
            output.path.symlink_to(found.path.absolute())
        elif way == "hard link":
            output.path.hardlink_to(found.path)
        else:
            shutil.copy(found.path, output.path)
            other = Path("phases/..") if way == "relative path" else Path()
            Path("phases").mkdir(exist_ok=True)
            wrong = case.moved(found, other / output.path)
        if wrong is not None:
            refused(wrong, capsys, f"{output.path}: ", "would overwrite an input")
            tried += 1
        output.path.unlink()
    assert tried


def test_two_outputs_that_are_one(case: Case, capsys: Capture):
    for first, second in itertools.combinations(outputs_of(case), 2):
        second.path.symlink_to(first.path.absolute())
        refused(case, capsys, f"{second.path}: ", "are one file")
        second.path.unlink()


def test_an_output_that_somebody_else_wrote(case: Case, capsys: Capture):
    for output in outputs_of(case):
        for content in (b"mine\n", b"PK\x03\x04", b'{"producer": "me"}', b"\0" * 64):
            output.path.write_bytes(content)
            refused(case, capsys, f"{output.path}: ", "that heatc did not write as")
        output.path.unlink()


def test_an_output_that_is_of_another_kind(case: Case, capsys: Capture):
    for output in outputs_of(case):
        other = next(k for k in KINDS if k is not output.kind and k.name != output.kind.name)
        output.path.write_bytes(sample(other))
        refused(case, capsys, f"{output.path}: ", "that heatc did not write as")
        output.path.unlink()


def test_an_output_that_is_a_folder(case: Case, capsys: Capture):
    for output in outputs_of(case):
        output.path.mkdir()
        (output.path / "mine").write_text("mine")
        refused(case, capsys, f"{output.path}: cannot write")
        shutil.rmtree(output.path)


def test_a_folder_that_is_a_file(case: Case, capsys: Capture):
    for folder in case.command.folders(case.values):
        folder.path.write_text("mine")
        refused(case, capsys, f"{folder.path}: cannot create")
        folder.path.unlink()


def test_what_heatc_wrote_is_replaced(case: Case):
    for output in outputs_of(case):
        output.path.write_bytes(sample(output.kind))
    case.command.check(case.values)
    for output in outputs_of(case):
        output.path.write_bytes(b"")
    case.command.check(case.values)


def test_a_folder_that_is_not_there_is_not_made(case: Case):
    before = sorted(Path().rglob("*"))
    case.command.check(case.values)
    assert sorted(Path().rglob("*")) == before


# --- What users met ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["folder", "."])
def test_a_program_in_the_folder_of_its_model(place: str, monkeypatch: Monkey, capsys: Capture):
    """`heatc . -o model.py` once replaced model.safetensors."""
    if place == ".":
        monkeypatch.chdir("folder")
    before = contents(Path())
    assert main.main([place, "-o", f"{place}/model.py"]) == 1
    message = capsys.readouterr().err
    assert "the program weights of -o would overwrite an input" in message
    assert "MODEL reads it" in message
    assert contents(Path()) == before


def test_weights_of_an_ir_model(capsys: Capture):
    before = contents(Path())
    assert main.main(["m.mlir", "--weights", "w.safetensors", "-o", "w.py"]) == 1
    assert "--weights reads it" in capsys.readouterr().err
    assert contents(Path()) == before


def test_programs_plans_and_texts_of_one_name_lie_side_by_side():
    """`-o small.py` once replaced the factors of the plan small.json."""
    options = ["m.mlir", "--weights", "w.safetensors"]
    Path("small.json").write_bytes(sample(kinds.PLAN))
    Path("small.factors.safetensors").write_bytes(sample(kinds.PLAN_FACTORS))
    assert main.main([*options, "-o", "small.py"]) == 0
    assert main.main([*options, "-o", "small.mlir", "--target=numpy", "--heat", HEAT]) == 0
    assert Path("small.factors.safetensors").read_bytes() == sample(kinds.PLAN_FACTORS)
    assert {path.name for path in Path().glob("small*")} == {
        "small.factors.safetensors",
        "small.json",
        "small.mlir",
        "small.mlir.safetensors",
        "small.py",
        "small.safetensors",
    }


def test_what_heatc_wrote_is_no_part_of_a_model_folder():
    folder = Path("folder")
    before = model_sha256(folder), commands.model_files(folder)
    written = (kinds.WEIGHTS, kinds.IR_FACTORS, kinds.IR_WEIGHTS, kinds.PLAN_FACTORS)
    for number, kind in enumerate(written):
        (folder / f"{number}.safetensors").write_bytes(sample(kind))
    assert (model_sha256(folder), commands.model_files(folder)) == before
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert model_sha256(folder) != before[0]


# --- Kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_is_of_its_own_kind_alone(kind: Kind, tmp_path: Path):
    path = tmp_path / "sample"
    path.write_bytes(sample(kind))
    assert {k.name for k in KINDS if k.is_kind_of(path)} == {kind.name}


def test_devices_keep_nothing():
    commands.HDP_RUN.check(
        {**CASES["hdp-run"].values, "output": "/dev/null", "layers": "/dev/null"}
    )


def test_names_that_are_none():
    with pytest.raises(HeatcError, match="not a name of a file"):
        commands.HDP_AS.check({"input": "p.s", "output": "a\0b"})
