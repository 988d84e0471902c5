"""
Tasks that do not depend on each other, run through joblib.

A task is a function of this package and plain arguments, so that it runs in another process or on
a Dask cluster alike. Each runs on one thread of BLAS: its result is the same wherever it runs on
the same kind of CPU.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from heatc import stopping
from heatc.errors import HeatcError

Json = Any

_AHEAD = 4
"""Tasks that wait for each worker."""


@dataclass(frozen=True)
class Workers:
    """
    Where tasks run: in this process where one process is enough, in others, or on a Dask cluster.

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

        Raises `HeatcError` without joblib, where the cluster cannot be reached, and where somebody
        ends a worker.
        """
        if not tasks:
            return
        if self.dask is None and min(self._processes(), len(tasks)) == 1:
            for number, task in enumerate(tasks):
                done(number, single_threaded(function, *task))
            return
        joblib = _joblib("joblib")
        with self._backend(joblib):
            parallel = joblib.Parallel(return_as="generator", pre_dispatch=f"{_AHEAD}*n_jobs")
            calls = (joblib.delayed(single_threaded)(function, *task) for task in tasks)
            # The call starts the workers, and returns. They end with this process, by themselves.
            with stopping.at_once(), _interrupts_held_back():
                results = parallel(calls)
            try:
                with stopping.at_once(), closing(results):
                    for number, result in enumerate(results):
                        done(number, result)
            except BrokenProcessPool as error:
                notes = ["a process that takes too much memory is ended: fewer --jobs take less"]
                raise HeatcError("a worker process was ended from outside", notes=notes) from error

    def _processes(self) -> int:
        """How many there may be; joblib counts the cores that this process may use."""
        return self.jobs if self.jobs > 0 else _joblib("joblib").cpu_count()

    @contextmanager
    def _backend(self, joblib: Any) -> Generator[None]:
        """The backend of joblib."""
        if self.dask is None:
            options = {"initializer": _end_with, "initargs": (os.getpid(),)}
            with joblib.parallel_config(backend="loky", n_jobs=self.jobs, **options):
                yield
            return
        with _interrupts_held_back():
            client = _client(self.dask)
        try:
            with joblib.parallel_config(backend="dask"):
                yield
        finally:
            client.close()


_TRACKERS = ("multiprocessing.resource_tracker", "joblib.externals.loky.backend.resource_tracker")
"""Their processes clear away what this one leaves; starting them lets Ctrl-C through."""


def _start_trackers() -> None:
    """Start what would be started with the workers, and tell it to clear away without a word."""
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "ignore"
    try:
        for module in _TRACKERS:
            with suppress(ImportError):
                import_module(module).ensure_running()
    finally:
        del os.environ[name]
        os.environ |= {} if before is None else {name: before}


@contextmanager
def _interrupts_held_back() -> Generator[None]:
    """Processes and threads that start inside never see Ctrl-C; this process sees it afterwards."""
    _start_trackers()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: int) -> None:
    """Have this worker end soon after its parent, which may be killed without a word."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
        notes = ["pip install 'heatc[search]'"]
        raise HeatcError(f"tasks in several processes need {name}", notes=notes) from None
