"""Signals: one line, no file left behind, 128 + the number, whenever they strike."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from heatc import stopping
from heatc.files import atomic_write
from heatc.tools.diagnostics import run_tool

SIGNALS = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "terminated"),
    (signal.SIGHUP, 129, "the terminal was closed"),
]

# A command: `sys.argv` says so before `heatc.tools` is imported, as in its script.
_START = """
import os, signal, sys, time
sys.argv = ["hdp-run", *sys.argv[1:]]
import heatc.tools
from heatc import stopping
from heatc.files import atomic_write
from heatc.temporary import scratch_folder
from heatc.tools.diagnostics import run_tool

def me(number=signal.SIGINT):
    os.kill(os.getpid(), number)
"""


def command(code: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A process that is the command `hdp-run` and does what the code says."""
    return subprocess.run(
        [sys.executable, "-c", _START + code, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,  # pyright: ignore[reportArgumentType, reportCallIssue]
    )


def ended(result: subprocess.CompletedProcess[str], code: int = 130, word: str = "interrupted"):
    """The process ended with one line."""
    assert re.fullmatch(rf"(heatc|heatc-\w+|hdp-\w+): error: {word}\n", result.stderr), (
        result.stderr
    )
    assert result.returncode == code


# --- At work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_nothing_is_left_of_what_was_being_written(
    number: int, code: int, word: str, tmp_path: Path
):
    work = f"""
def work(argv):
    with atomic_write(argv[0] + "/out") as stream, scratch_folder() as folder:
        stream.write(bytes(100_000))
        me({int(number)})
        time.sleep(60)
sys.exit(run_tool(work, None, "hdp-run"))
"""
    (tmp_path / "out").write_text("old")
    ended(command(work, str(tmp_path), env={**os.environ, "TMPDIR": str(tmp_path)}), code, word)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out": "old"}


@pytest.mark.parametrize(
    "work",
    [
        # Swallowed by a library: what does not unwind is ended.
        """
stopping.GRACE = 0.2
def work(argv):
    while True:
        try:
            me()
            time.sleep(60)
        except BaseException:
            pass
""",
        # Made another error by a library.
        """
def work(argv):
    try:
        me()
        time.sleep(60)
    except BaseException:
        raise ValueError("x") from None
""",
        # Where an exception is lost: in a destructor.
        """
class Lost:
    def __del__(self):
        me()
        for _ in range(1000): pass
def work(argv):
    Lost()
    time.sleep(60)
""",
        # Where there is no time to unwind.
        """
def work(argv):
    with stopping.at_once():
        try:
            me()
        finally:
            time.sleep(60)
""",
        # A second signal, while the first is unwound.
        """
def work(argv):
    try:
        me()
    finally:
        me(signal.SIGTERM)
        time.sleep(60)
""",
    ],
)
def test_a_signal_ends_whatever_is_going_on(work: str, tmp_path: Path):
    start = time.monotonic()
    code = "with atomic_write(sys.argv[1] + '/out'):\n    sys.exit(run_tool(work, [], 'hdp-run'))"
    ended(command(work + code, str(tmp_path)))
    assert time.monotonic() - start < 30
    assert not os.listdir(tmp_path)


def test_what_belongs_together_is_finished_first(tmp_path: Path):
    work = """
def work(argv):
    with stopping.deferred():
        me()
        with atomic_write(argv[0] + "/first"): pass
        with atomic_write(argv[0] + "/second"): pass
    with atomic_write(argv[0] + "/third"): pass
sys.exit(run_tool(work, None, "hdp-run"))
"""
    ended(command(work, str(tmp_path)))
    assert sorted(os.listdir(tmp_path)) == ["first", "second"]


# --- Before and after -------------------------------------------------------------------------

_AT_IMPORT = """
class At:
    left = int(sys.argv[1])
    def find_spec(self, name, path=None, target=None):
        At.left -= 1
        if At.left == 0:
            me()
sys.meta_path.insert(0, At())
from heatc.tools.{tool} import main
sys.exit(main({words}))
"""
TOOLS = {
    "main": ["--list-passes"],
    "opt": ["--version"],
    "tune": ["calibrate", "--help"],
    "run": ["--version"],
    "objdump": ["--version"],
    "assemble": ["--version"],
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("number", [1, 2, 5, 10, 30, 100])
def test_an_import(tool: str, number: int):
    """The signal strikes when a module is about to be imported, the tool's own ones included."""
    result = command(_AT_IMPORT.format(tool=tool, words=TOOLS[tool]), str(number))
    if result.returncode == 0:
        assert number > 10, "so many modules every tool imports"
        return
    ended(result)


def test_before_signals_are_handled():
    """The signal comes while the module that handles it is imported."""
    start = """
import os, signal, sys
sys.argv = ["hdp-run"]
class At:
    def find_spec(self, name, path=None, target=None):
        if name == "heatc.stopping":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, At())
import heatc.tools
"""
    ended(
        subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    )


def test_after_the_work():
    ended(command("run_tool(lambda argv: 0, [], 'hdp-run'); me(); time.sleep(60)"))


def test_the_interpreter_is_not_killed_when_it_is_taken_down():
    code = """
class Last:
    def __del__(self, me=me, sleep=time.sleep):
        me()
        sleep(0.01)
sys.modules["last"] = Last()
sys.exit(run_tool(lambda argv: 3, [], "hdp-run"))
"""
    result = command(code)
    assert (result.returncode, result.stderr) == (3, "")


def test_the_trackers_of_resources_start_before_workers_do():
    """Else the workers would see Ctrl-C, and print a traceback each."""
    code = """
from heatc.tuning.common.workers import _interrupts_held_back
import joblib
with _interrupts_held_back():
    results = joblib.Parallel(n_jobs=2, return_as="generator")(
        joblib.delayed(signal.pthread_sigmask)(signal.SIG_BLOCK, []) for _ in range(2)
    )
masks = list(results)
print(all(signal.SIGINT in mask for mask in masks), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    assert command(code).stdout == "True set()\n"


# --- A process that merely calls a tool -------------------------------------------------------


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_the_handlers_of_a_caller_come_back(
    number: int, code: int, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def work(argv: Sequence[str]) -> None:
        with atomic_write(tmp_path / "out"):
            os.kill(os.getpid(), number)
            time.sleep(60)

    before = [signal.getsignal(n) for n in stopping.WORDS]
    assert run_tool(work, [], "tool") == code
    assert capsys.readouterr().err == f"tool: error: {word}\n"
    assert [signal.getsignal(n) for n in stopping.WORDS] == before
    assert not os.listdir(tmp_path)


def test_a_handler_of_the_caller_is_left_alone():
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        assert run_tool(lambda argv: os.kill(os.getpid(), signal.SIGTERM), [], "tool") == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def ignore_hangups() -> None:
    """As nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_what_is_ignored_stays_ignored():
    code = "sys.exit(run_tool(lambda argv: me(signal.SIGHUP), [], 'hdp-run'))"
    act: Callable[[], None] = ignore_hangups
    result = command(code, preexec_fn=act)
    assert (result.returncode, result.stderr) == (0, "")
