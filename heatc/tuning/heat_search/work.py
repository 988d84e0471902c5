"""
Tasks that do not depend on each other, run through joblib, and results kept as they come.

A task is a function of this package and plain arguments, so that it runs in another process or on
a Dask cluster alike. Each runs on one thread of BLAS: its result is the same wherever it runs on
the same kind of CPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from heatc.errors import HeatcError
from heatc.files import atomic_write, make_folder
from heatc.tuning.calibrate import Step

Json = Any

_AHEAD = 4
"""Tasks for each worker between two looks at what is done."""


@dataclass(frozen=True)
class Workers:
    """
    Where tasks run: in this process with one job, in others, or on a Dask cluster.

    Attributes:
        jobs: processes; -1 for all cores.
        dask: address of a scheduler, None for this machine.
    """

    jobs: int = -1
    dask: str | None = None

    def run(
        self,
        function: Callable[..., Json],
        tasks: Sequence[tuple[Any, ...]],
        done: Callable[[int, Json], None],
    ) -> None:
        """
        Run a function on every task; `done(number, result)` is told in order.

        Raises `HeatcError` without joblib, or where the cluster cannot be reached.
        """
        if not tasks:
            return
        if self.jobs == 1 and self.dask is None:
            for number, task in enumerate(tasks):
                done(number, single_threaded(function, *task))
            return
        joblib = _joblib("joblib")
        with self._backend(joblib) as workers, joblib.Parallel() as parallel:
            ahead = _AHEAD * workers
            for first in range(0, len(tasks), ahead):
                part = tasks[first : first + ahead]
                calls = (joblib.delayed(single_threaded)(function, *task) for task in part)
                for number, result in enumerate(parallel(calls), first):
                    done(number, result)

    @contextmanager
    def _backend(self, joblib: Any) -> Generator[int]:
        """The backend of joblib, and how many work."""
        if self.dask is None:
            with joblib.parallel_config(backend="loky", n_jobs=self.jobs):
                yield max(1, os.cpu_count() or 1) if self.jobs < 0 else self.jobs
            return
        client = _client(self.dask)
        try:
            with joblib.parallel_config(backend="dask"):
                yield max(1, len(client.ncores()))
        finally:
            client.close()


def single_threaded(function: Callable[..., Json], *arguments: Any) -> Json:
    """The function's result, BLAS on one thread."""
    with _joblib("threadpoolctl").threadpool_limits(1, user_api="blas"):
        return function(*arguments)


def _client(address: str) -> Any:
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise HeatcError(
            "tasks on a Dask cluster need dask", notes=["pip install 'heatc[dask]'"]
        ) from None
    try:
        return distributed.Client(address, timeout="5s", set_as_default=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HeatcError(f"cannot reach a Dask scheduler: {reason}", place=address) from None


def _joblib(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise HeatcError(f"a search needs {name}", notes=["pip install 'heatc[search]'"]) from None


# ---- results ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Results as JSON files of one folder, whole or not at all; what cannot be read is not there."""

    folder: Path

    def read(self, name: str) -> Json | None:
        """What was kept under a name, None if nothing."""
        try:
            return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, name: str, value: Json) -> None:
        """Keep a value under a name."""
        make_folder(self.folder)
        with atomic_write(self.folder / f"{name}.json", "w") as stream:
            json.dump(value, stream)

    def results(
        self,
        workers: Workers,
        function: Callable[..., Json],
        tasks: Mapping[str, tuple[Any, ...]],
        what: str,
        step: Step,
    ) -> dict[str, Json]:
        """The result of every task by its name, those that are kept already without running it."""
        found = {name: self.read(name) for name in tasks}
        missing = [name for name in tasks if found[name] is None]
        step(what, len(tasks) - len(missing), len(tasks))

        def done(number: int, result: Json) -> None:
            name = missing[number]
            self.write(name, result)
            found[name] = result
            step(what, len(tasks) - len(missing) + number + 1, len(tasks))

        workers.run(function, [tasks[name] for name in missing], done)
        return found


@cache
def code_digest(*parts: str) -> str:
    """Of heatc's own source, or of some of its folders: what other code computed is not used."""
    digest, root = sha256(), Path(__file__).resolve().parents[2]
    # `rglob` does not walk into the links that dialects, passes and backends may be.
    folders = [root / part for part in parts or sorted(p.name for p in root.iterdir())]
    for folder in folders:
        for file in sorted(folder.resolve().rglob("*.py")):
            digest.update(f"{folder.name}/{file.name}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:24]
