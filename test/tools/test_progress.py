"""Progress on stderr: lines where nobody looks at a terminal, bars where somebody does."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from heatc.errors import UsageError
from heatc.progress import ProgressCallback
from heatc.tools import progress as shown
from heatc.tools.progress import LINES, OFF, VARIABLE, Lines, progress_bars

_START = """
import os, signal, sys, time
sys.argv = ["heatc-tune"]
import heatc.tools
from heatc.tools import progress as shown
from heatc.tools.diagnostics import run_tool
shown.FIRST, shown.SPACING, shown.BEAT = 0.3, 0.2, 0.6

def run(work):
    def tool(argv):
        with shown.progress_bars() as progress:
            work(progress)
        print("table")
    sys.exit(run_tool(tool, None, "heatc-tune"))

"""


def lines_of(work: str) -> tuple[int, str, list[str]]:
    """Exit code, stdout and lines of stderr of a command that does `work`, stderr being a pipe."""
    done = subprocess.run(
        [sys.executable, "-c", _START + work],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, VARIABLE: ""},
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_lines_say_what_is_done_and_how_long_it_takes():
    code, out, lines = lines_of("""
def work(progress):
    for number in range(20):
        progress("errors of layers", number, 20)
        time.sleep(0.15)
run(work)
""")
    assert (code, out) == (0, "table\n")
    counts = [
        re.fullmatch(r"heatc-tune: errors of layers (\d+) of 20(, 0:\d\d left)?", line)
        for line in lines
    ]
    assert all(counts), lines
    numbers = [int(count[1]) for count in counts if count is not None]
    assert len(numbers) >= 3
    assert numbers == sorted(numbers)
    assert counts[1] is not None
    assert counts[1][2] is not None


def test_long_steps_that_tell_nothing_are_shown():
    """Also those of C code and those that were told of once."""
    code, _, lines = lines_of("""
def work(progress):
    time.sleep(0.7)
    progress("capture", 0, 0)
    time.sleep(1.7)
run(work)
""")
    assert code == 0
    assert re.fullmatch(r"heatc-tune: at work(, 0:0\d so far)?", lines[0])
    assert [line for line in lines if re.fullmatch(r"heatc-tune: capture(, 0:0\d so far)?", line)][
        2:
    ]


def test_quick_work_shows_nothing():
    assert lines_of("run(lambda progress: progress('capture', 0, 0))") == (0, "table\n", [])


def test_other_work_is_told_of_at_once():
    _, _, lines = lines_of("""
shown.BEAT = 60
def work(progress):
    for what in ("one", "two", "three"):
        progress(what, 0, 0)
        time.sleep(1.2)
run(work)
""")
    assert [re.split(r"\W+", line)[2] for line in lines] == ["one", "two", "three"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_still_says_one_line(number: int):
    code, out, lines = lines_of(f"""
def work(progress):
    progress("capture", 0, 0)
    os.kill(os.getpid(), {int(number)})
    time.sleep(60)
run(work)
""")
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[signal.Signals(number)]
    assert (code, out, lines) == (128 + number, "", [f"heatc-tune: error: {word}"])


def on_a_terminal(work: str) -> tuple[str, str]:
    """What a command writes to stdout, a pipe, and to stderr, a terminal."""
    main, side = pty.openpty()
    environment = {**os.environ, VARIABLE: "", "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", _START + work],
        stdout=subprocess.PIPE,
        stderr=side,
        text=True,
        env=environment,
    )
    os.close(side)
    text = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:
            break
        if not part:
            break
        text += part
    os.close(main)
    out, _ = process.communicate(timeout=60)
    return out, text.decode()


def test_bars_on_a_terminal_and_the_table_on_stdout():
    out, text = on_a_terminal("""
def work(progress):
    for number in range(11):
        progress("errors of layers", number, 10)
        print("heatc: remark: seen", file=sys.stderr)
        print("program")
        time.sleep(0.1)
run(work)
""")
    assert out == "program\n" * 11 + "table\n"
    assert "errors of layers" in text
    assert re.search(r"\d+/10", text)
    assert text.count("remark: seen") == 11
    # The cursor is hidden and comes back.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_the_cursor_comes_back_after_a_signal():
    _, text = on_a_terminal("""
def work(progress):
    progress("capture", 0, 0)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
run(work)
""")
    assert "heatc-tune: error: terminated" in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def told(
    display: Lines, told: Sequence[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tell of 10 steps at given times."""
    for now, done in told:
        monkeypatch.setattr(shown.time, "monotonic", lambda now=now: now)
        display.tell("steps", done, 10)


def test_the_time_left_is_that_of_the_pace_since_it_began(monkeypatch: pytest.MonkeyPatch):
    """What an earlier run had done took no time of this one."""
    display = Lines()
    told(display, [(100.0, 4), (103.0, 5), (106.0, 6)], monkeypatch)
    assert display.line(106.0).endswith("steps 6 of 10, 0:12 left")
    assert display.line(108.0).endswith("steps 6 of 10, 0:10 left")
    told(display, [(118.0, 10)], monkeypatch)
    assert display.line(118.0).startswith("at work")


def test_no_pace_no_time_left(monkeypatch: pytest.MonkeyPatch):
    display = Lines()
    told(display, [(100.0, 4)], monkeypatch)
    assert display.line(130.0) == "steps 4 of 10"


def test_what_the_variable_says(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setattr(shown, "FIRST", 0.0)
    for value, lines in ((OFF, False), (LINES, True)):
        monkeypatch.setenv(VARIABLE, value)
        with progress_bars() as progress:
            work(progress)
        assert ("steps" in capfd.readouterr().err) == lines
    with progress_bars(quiet=True) as progress:
        work(progress)
    assert capfd.readouterr().err == ""
    monkeypatch.setenv(VARIABLE, "linse")
    with pytest.raises(UsageError, match="unknown value 'linse'"), progress_bars():
        pass


def work(progress: ProgressCallback) -> None:
    """Half a second of steps."""
    for number in range(5):
        progress("steps", number, 5)
        time.sleep(0.1)


def test_telling_costs_next_to_nothing():
    """A microsecond or two a call: less than what any step takes that is worth telling of."""
    display = Lines()
    start = time.perf_counter()
    for number in range(20_000):
        display.tell("steps", number, 20_000)
    assert (time.perf_counter() - start) / 20_000 < 2e-5
