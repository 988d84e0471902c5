"""The entry points: each tool's `main(argv)` and `heatc.compile`, called in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from bench.support.fuzz.case import Case
from bench.support.fuzz.judge import Run

MODULES = {
    "heatc": "heatc.tools.main",
    "heatc-opt": "heatc.tools.opt",
    "heatc-tune": "heatc.tools.tune",
    "hdp-run": "heatc.tools.run",
    "hdp-objdump": "heatc.tools.objdump",
    "hdp-as": "heatc.tools.assemble",
}

COMPILE = "heatc.compile"

WORK = {
    "heatc-tune calibrate": "heatc.tuning.calibrate.session.Store",
    "heatc-tune search": "heatc.tuning.search.session.ResultCache",
    "heatc-tune distill": "heatc.tuning.distill.session.TorchModel",
}
"""
What the commands of heatc-tune make first once their inputs are checked: the work begins there, and
a case ends.
"""


def run(entry: str, case: Case, folder: Path, *, debug: bool = False) -> Run:
    """
    Runs a case in a folder that has its files.

    With `debug` the tool prints the traceback of whatever ends it, which becomes the run's.
    """
    call = _compile if entry == COMPILE else _main(entry)
    trace = ""
    code: int | None = None
    with _surroundings(folder, case.stdin, debug) as stderr, _cut(entry):
        start, cpu = time.perf_counter(), time.process_time()
        try:
            code = call(case)
        # Whatever escapes from a tool is what is looked for.
        except BaseException:
            trace = traceback.format_exc()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    text = stderr.getvalue().decode(errors="replace")
    # Where a traceback was asked for, it is none of the tool's doing.
    asked = "--debug" in case.argv and not debug
    if "Traceback (most recent call last)" in text and not asked:
        trace = trace or text
    return Run(code, text, trace, folder, seconds, cpu)


def _main(entry: str) -> Callable[[Case], int]:
    main = importlib.import_module(MODULES[entry.split()[0]]).main
    return lambda case: main(list(case.argv))


def _compile(case: Case) -> int:
    """`heatc.compile(...)` as a Python expression; its exit code is that of the tool."""
    import numpy

    import heatc
    from heatc.capture import InputSpec
    from heatc.errors import HeatcError

    names: Mapping[str, Any] = {
        "heatc": heatc,
        "np": numpy,
        "Path": Path,
        "InputSpec": InputSpec,
        "torch": sys.modules.get("torch"),
    }
    try:
        eval(case.argv[0], dict(names))
    except HeatcError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


def _work_begins(*_arguments: object, **_options: object) -> NoReturn:
    raise SystemExit(0)


@contextlib.contextmanager
def _cut(entry: str) -> Generator[None]:
    """Ends a command of heatc-tune where its work begins."""
    if entry not in WORK:
        yield
        return
    with mock.patch(WORK[entry], _work_begins):
        yield


@contextlib.contextmanager
def _surroundings(folder: Path, stdin: bytes, debug: bool) -> Generator[io.BytesIO]:
    """The streams, folder and environment of a tool; gives what it writes to stderr."""
    streams = sys.stdin, sys.stdout, sys.stderr
    before, environment = os.getcwd(), dict(os.environ)
    stderr = io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(stderr, encoding="utf-8", errors="replace", write_through=True)
    os.chdir(folder)
    if debug:
        os.environ["HEATC_DEBUG"] = "1"
    try:
        yield stderr
    finally:
        sys.stderr.flush()
        # A wrapper that is collected closes what it wraps.
        sys.stderr.detach()
        sys.stdin, sys.stdout, sys.stderr = streams
        os.chdir(before)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
