"""What the tools share: exit codes, messages, arguments, files written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from xdsl.utils.arg_spec import parse_pipeline

from heatc import messages, stopping
from heatc.errors import EXTRAS, HeatcError, SourceError, UsageError, VerificationError
from heatc.remarks import Remark, print_remark
from heatc.tools.diagnostics import ToolParser, remark, run_tool, suggest, warn

ROOT = Path(__file__).resolve().parents[2]


def run(error: BaseException | None, *argv: str) -> int:
    """The exit code of a tool that raises `error`."""

    def tool(argv: Sequence[str]) -> None:
        if error is not None:
            raise error

    return run_tool(tool, argv, "tool")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (HeatcError("x"), 1),
        (UsageError("x"), 2),
        (VerificationError("x"), 3),
        (SystemExit(0), 0),
        (SystemExit(None), 0),
        (FileNotFoundError(2, "No such file", "a.npz"), 1),
        (ValueError("x"), 70),
        (MemoryError(), 70),
        (RecursionError(), 70),
        (KeyboardInterrupt(), 130),
        (type("PanicException", (BaseException,), {})("x"), 70),
    ],
)
def test_exit_codes(error: BaseException | None, code: int, capsys: pytest.CaptureFixture[str]):
    assert run(error) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert text.count("error: ") - text.count("internal error: ") == int(code != 0)


def test_a_malformed_pipeline_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    """xDSL's error of it is no `Exception`."""

    def tool(argv: Sequence[str]) -> None:
        list(parse_pipeline("cse{"))

    assert run_tool(tool, [], "tool") == 2
    assert "malformed pass pipeline 'cse{'" in capsys.readouterr().err


def test_message(capsys: pytest.CaptureFixture[str]):
    assert run(HeatcError("it is bad", place="a.py:3", notes=["do better"])) == 1
    assert capsys.readouterr().err == "tool: error: a.py:3: it is bad\nnote: do better\n"
    assert run(HeatcError("it is bad")) == 1
    assert capsys.readouterr().err == "tool: error: it is bad\n"
    assert run(FileNotFoundError(2, "No such file", "a.npz")) == 1
    assert capsys.readouterr().err == "tool: error: a.npz: cannot open: no such file\n"


def test_internal_error_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(ValueError("x")) == 70
    text = capsys.readouterr().err
    assert text.startswith("tool: error: internal error: ValueError: x\n")
    assert "note: this is a bug in heatc" in text
    assert run(ValueError("x"), "--debug") == 70
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("HEATC_DEBUG", "1")
    assert run(ValueError("x")) == 70
    assert "Traceback" in capsys.readouterr().err


def test_warning_and_remark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(stopping, "command", lambda: "tool")
    warn("w", place="a", notes=["n"])
    remark("r")
    assert capsys.readouterr().err == "tool: warning: a: w\nnote: n\ntool: remark: r\n"


def test_colour_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(HeatcError("x"))
    assert "\x1b[" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    run(HeatcError("x"))
    assert "\x1b[" not in capsys.readouterr().err


def test_parser_suggests():
    parser = ToolParser("tool")
    parser.add_argument("--target", choices=["hdp-edge", "hdp-server"])
    parser.add_argument("model")
    with pytest.raises(UsageError, match="unknown option '--tarket'") as raised:
        parser.parse_args(["m", "--tarket=x"])
    assert "did you mean '--target'?" in raised.value.notes
    with pytest.raises(UsageError, match="invalid choice: 'hdp-egde'") as raised:
        parser.parse_args(["m", "--target", "hdp-egde"])
    assert "did you mean 'hdp-edge'?" in raised.value.notes
    with pytest.raises(UsageError, match="required: model"):
        parser.parse_args([])
    with pytest.raises(UsageError, match="unknown option '--targ'"):
        parser.parse_args(["m", "--targ", "hdp-edge"])


@pytest.mark.parametrize("word", ["--start=--", "-s--"])
def test_two_dashes_are_no_value(word: str):
    """argparse made an empty list of them."""
    parser = ToolParser("tool")
    parser.add_argument("-s", "--start", type=int)
    with pytest.raises(UsageError, match=r"argument -+s(tart)?: expected a value"):
        parser.parse_args([word])
    parser.add_argument("rest", nargs="*")
    assert parser.parse_args(["--start=1", "--", "--start=--"]).rest == ["--start=--"]


def test_parser_version(capsys: pytest.CaptureFixture[str]):
    assert run_tool(lambda argv: ToolParser("tool").parse_args(argv) and 0, ["--version"]) == 0
    assert capsys.readouterr().out.startswith("tool ")


def test_suggest():
    assert suggest("papr", ["paper", "none"]) == ["did you mean 'paper'?"]
    assert suggest("xyz", ["paper", "none"]) == []


def test_suggests_the_nearest_and_what_is_as_near():
    """Not whatever begins alike: a wrong target is no other machine."""
    assert suggest("hdp-egde", ["hdp-edge", "hdp-server"]) == ["did you mean 'hdp-edge'?"]
    assert suggest("serach", ["search", "sweep"]) == ["did you mean 'search'?"]
    assert suggest("heaf", ["head", "heat"]) == ["did you mean 'head' or 'heat'?"]


def messages_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Lines of JSON on stderr, whose keys are known."""
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(set(one) <= set(messages.KEYS) for one in found)
    return found


def test_messages_as_json(capsys: pytest.CaptureFixture[str]):
    def tool(argv: Sequence[str]) -> None:
        ToolParser("tool").parse_args(argv)
        warn("w", place="a", notes=["n"])
        print_remark(Remark("layer", "m.py:3", "chosen", {}, (), shown=True))
        raise SourceError("bad", place="x.s:2", snippet="  hlat")

    assert run_tool(tool, ["--diagnostics", "json"], "tool") == 1
    warning, remark, error = messages_of(capsys)
    head = {"tool": "tool", "kind": "warning", "place": "a", "message": "w", "notes": ["n"]}
    assert warning == head
    assert (remark["kind"], remark["place"], remark["message"]) == ("remark", "m.py:3", "chosen")
    assert (error["kind"], error["snippet"], error["exit_code"]) == ("error", "  hlat", 1)
    assert run_tool(tool, ["--diagnostics=json", "--nonsense"], "tool") == 2
    assert [one["exit_code"] for one in messages_of(capsys)] == [2]
    assert run_tool(tool, [], "tool") == 1
    assert capsys.readouterr().err.endswith("tool: error: x.s:2: bad\n  hlat\n")


def test_a_package_that_is_missing_is_named_with_its_remedy(capsys: pytest.CaptureFixture[str]):
    def tool(argv: Sequence[str]) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.export")

    assert run_tool(tool, [], "tool") == 1
    assert capsys.readouterr().err == (
        "tool: error: this needs torch, which is not installed\nnote: pip install 'heatc[torch]'\n"
    )


def test_every_optional_package_has_its_extra():
    """The table follows pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        names = [re.split(r"[<>=]", text)[0] for text in extras[extra]]
        assert package.replace("_", "-") in names


def test_broken_pipe_is_quiet():
    code = (
        "import sys; from heatc.tools.diagnostics import run_tool\n"
        "def main(argv):\n"
        "    for i in range(100000): print(i)\n"
        "sys.exit(run_tool(main, [], 'tool'))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_message():
    code = "import sys; from heatc.tools.opt import main; sys.exit(main(['--version']))"
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("write: no space left on device\n")
