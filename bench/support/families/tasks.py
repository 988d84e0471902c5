"""Runs a bench's tasks in several processes, and keeps what is done in a state file."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console

Json: TypeAlias = Any
Work: TypeAlias = Callable[[str], list[dict[str, Json]]]

WORKER_TASKS = 40
"""Tasks of one process: PyTorch keeps something of every export"""


class State:
    """
    What is done of a run: entries for each task, in a file that is replaced as a whole.

    `key` says what the run is; a file of another run begins anew.
    """

    def __init__(self, path: Path | None, key: str):
        self.path, self.key = path, key
        self.done: dict[str, list[dict[str, Json]]] = {}
        if path is None or not path.exists():
            return
        content = json.loads(path.read_text(encoding="utf-8"))
        self.done = content["done"] if content["key"] == key else {}

    def add(self, task: str, entries: list[dict[str, Json]]) -> None:
        """A task is done."""
        self.done[task] = entries
        if self.path is None:
            return
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps({"key": self.key, "done": self.done}), encoding="utf-8")
        os.replace(part, self.path)


def run(tasks: Sequence[str], work: Work, state: State, jobs: int) -> None:
    """Do the tasks that the state has not, in `jobs` processes, or in this one if 0."""
    left = [task for task in tasks if task not in state.done]
    console = Console(stderr=True)

    def finished(number: int, task: str, entries: list[dict[str, Json]]) -> None:
        state.add(task, entries)
        console.print(f"{number} of {len(left)}: {task}: {_counts(entries)}", highlight=False)

    if jobs == 0:
        for number, task in enumerate(left, 1):
            finished(number, task, work(task))
        return
    # Forked from one process that has imported everything: a new worker costs nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__"])
    number = 0
    for first in range(0, len(left), jobs * WORKER_TASKS):
        with ProcessPoolExecutor(jobs, context, prepare) as pool:
            some = left[first : first + jobs * WORKER_TASKS]
            futures: dict[Future[list[dict[str, Json]]], str] = {
                pool.submit(work, task): task for task in some
            }
            for future in as_completed(futures):
                number += 1
                finished(number, futures[future], future.result())


def prepare() -> None:
    """A worker says nothing, since remarks and warnings are no verdicts, and ends with the run."""
    import torch

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _counts(entries: Sequence[Mapping[str, Json]]) -> str:
    kinds = [str(entry.get("kind", "done")) for entry in entries]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
