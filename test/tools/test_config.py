"""--config: options from a file, of which the command line wins; what is unknown is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from heatc.errors import UsageError
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import ToolParser
from heatc.tools.main import main as heatc


def parser(prog: str = "heatc-tune search") -> ToolParser:
    made = ToolParser(prog)
    made.add_argument("model")
    made.add_argument("--points", type=int, default=8)
    made.add_argument("--programs", action="store_true")
    made.add_argument("--rho-b")
    made.add_argument("-o", dest="output", required=True)
    made.add_argument("--jobs", "-j", type=int)
    made.add_argument("--extra", action="append", default=[])
    add_config_argument(made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "heatc.toml"
    path.write_text("""
o = "front"
points = 4

[heatc]
nonsense-of-another-command = 1

[heatc-tune]
programs = true

[heatc-tune.search]
points = 5
extra = ["a.npz", "-b.npz"]
rho-b = [0.1, 0.2]
""")
    return path


def test_options_come_from_the_file(file: Path):
    found = parser().parse_args(["m", "--config", str(file)])
    assert (found.output, found.points, found.programs) == ("front", 5, True)
    assert (found.extra, found.rho_b) == (["a.npz", "-b.npz"], "0.1,0.2")


def test_the_command_line_wins(file: Path):
    """Also over lists, which it does not add to, and in every spelling."""
    words = ["m", f"--config={file}", "-oother", "--points=9", "--extra", "c.npz"]
    found = parser().parse_args(words)
    assert (found.output, found.points, found.extra) == ("other", 9, ["c.npz"])


def test_other_commands_read_their_sections(file: Path):
    found = parser("heatc-tune distill").parse_args(["m", "--config", str(file)])
    assert (found.points, found.programs, found.extra) == (4, True, [])


@pytest.mark.parametrize(
    ("text", "line", "message", "note"),
    [
        ("\npoitns = 3", 2, "no option 'poitns'", "did you mean 'points'?"),
        ("[heatc-tune.search]\nponts = 3", 2, "no option 'ponts'", "did you mean 'points'?"),
        ("[heatc-tune.serach]\npoints = 3", 1, "no command 'serach'", "did you mean 'search'?"),
        ("[hdp-rnu]\nx = 1", 1, "no command is called 'hdp-rnu'", "did you mean 'hdp-run'?"),
        ("help = true", 1, "no option 'help'", "see heatc-tune search --help"),
        ("programs = 3", 1, "takes true or false", None),
        ("points = true", 1, "takes a text, a number", None),
        ("\nx = ]", 2, "no TOML", None),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, message: str, note: str | None
):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        parser().parse_args(["m", "-o", "x", "--config", str(path)])
    assert raised.value.place == f"{path}:{line}"
    assert note is None or note in raised.value.notes


def test_a_command_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "c.toml"
    path.write_text("list-rules = true\n")
    assert heatc(["--config", str(path)]) == 0
    assert "paper" in capsys.readouterr().out
    path.write_text("targte = 'numpy'\n")
    assert heatc(["m.pt2", "--config", str(path)]) == 2
    assert f"heatc: error: {path}:1: heatc has no option 'targte'" in capsys.readouterr().err
    assert heatc(["m.pt2", "--config", str(tmp_path / "none.toml")]) == 1
