"""
The check after compiling: the program that was written against the model that was captured.

docs/design/verification.md has the bounds and why they are what they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from xdsl.utils.exceptions import InterpretationError

from heatc.dialects import nn
from heatc.errors import HeatcError, VerificationError
from heatc.garbage import without_old_garbage
from heatc.interpreter import main_function
from heatc.progress import ProgressCallback, no_progress
from heatc.samples import KINDS, MOST_INTEGER, sample_inputs
from heatc.verify.judge import Judge
from heatc.verify.programs import CheckedProgram
from heatc.verify.rounding import DOUBTED_RUNS, Rounding
from heatc.verify.settings import Settings, Verification
from heatc.verify.stages import Stages

Array = NDArray[Any]


class NotVerified(Exception):
    """The model itself cannot be run on inputs that are made up; the text says why."""


def verify(
    stages: Stages,
    open_program: Callable[[], CheckedProgram],
    settings: Settings,
    compiling: float,
    place: str,
    progress: ProgressCallback = no_progress,
) -> Verification:
    """
    Compare on as many inputs as the budget allows, on one at least.

    `compiling` are the seconds that went before, `place` is what errors are about. Raises
    `VerificationError` where a bound is broken or the program fails.
    """
    start = time.perf_counter()
    deadline = start + settings.budget(compiling)
    try:
        # The modules took the collector a third of the simulator's time on BERT-Base.
        with threadpool_limits(_idle_cores(), user_api="blas"), without_old_garbage():
            found = _on_inputs(stages, open_program, settings, deadline, place, progress)
    except NotVerified as reason:
        return Verification(reason=str(reason))
    return replace(found, seconds=time.perf_counter() - start)


def _idle_cores() -> int:
    """
    The threads that products may take, this one included.

    Those of one product wait for each other: on a busy machine for seconds.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(cores, cores + 1 - round(busy)))


def _on_inputs(
    stages: Stages,
    open_program: Callable[[], CheckedProgram],
    settings: Settings,
    deadline: float,
    place: str,
    progress: ProgressCallback,
) -> Verification:
    rounds = _rounds(stages)
    found, rounding = Verification(), Rounding()
    with _opened(open_program, place) as program:
        for number in range(max(len(rounds), DOUBTED_RUNS)):
            if number >= len(rounds) and not rounding.is_noticeable:
                break
            before = time.perf_counter()
            progress("inputs of the check", number, max(len(rounds), number + 1))
            kinds = rounds[number % len(rounds)]
            inputs, model = made_up(stages, kinds, number, far=number % 2 == 1)
            name = ", ".join(kinds)
            judge = Judge(stages, program, settings, place, inputs, name, {"model": model})
            if judge.has_reference:
                found = _judged(judge, found, rounding)
            else:
                judge.hold_nan()
            now = time.perf_counter()
            found = replace(found, left_out=max(len(rounds) - number - 1, 0))
            late = now + (now - before) > deadline
            if found.inputs and late and not rounding.is_doubtful:
                break
        if not found.inputs:
            raise NotVerified("the model gives no finite numbers on inputs that were made up")
        return replace(found, parts=(*found.parts, *stages.parts, *program.parts))


def _opened(open_program: Callable[[], CheckedProgram], place: str) -> CheckedProgram:
    try:
        return open_program()
    except HeatcError as error:
        raise VerificationError(
            f"the program cannot be opened: {error}", place=place, notes=error.notes
        ) from error


def _judged(judge: Judge, found: Verification, rounding: Rounding) -> Verification:
    """What was found before, and on this input."""
    for step in judge.stages.steps:
        judge.hold(step)
    judge.hold_rounding(rounding)
    largest, cosine = judge.distance()
    return replace(
        found,
        largest=max(found.largest, largest),
        cosine=min(found.cosine, cosine),
        inputs=(*found.inputs, judge.kinds),
        parts=tuple(dict.fromkeys((*found.parts, *judge.notes))),
    )


def _rounds(stages: Stages) -> Sequence[Sequence[str]]:
    """How the samples of each run are padded: few runs see every kind, two at least are made."""
    if not stages.masks:
        # A program keeps buffers from one call to the next.
        return [("no padding",)] * 2
    arguments = main_function(stages.captured).body.block.args
    batch = max((nn.shape_of(a)[0] for a in arguments if nn.shape_of(a)), default=1)
    width = max(1, min(len(KINDS), batch))
    found = [KINDS[first : first + width] for first in range(0, len(KINDS), width)]
    return found if len(found) > 1 else found * 2


def made_up(
    stages: Stages, kinds: Sequence[str], seed: int, *, far: bool
) -> tuple[dict[str, Array], dict[str, Array]]:
    """
    Inputs that the model takes, and its outputs; they are tamer where it does not take others.

    So they are where masks far from the usual ones make float32 overflow on the way: a program that
    computes in wider numbers is right to give something else.

    Raises `NotVerified` where it takes none.
    """
    reason = ""
    for most, is_far in ((MOST_INTEGER, far), (MOST_INTEGER, False), (0, False)):
        try:
            inputs = sample_inputs(
                stages.captured,
                kinds,
                masks=stages.masks,
                seed=seed,
                most_integer=most,
                far=is_far,
                ranges=stages.ranges,
            )
            outputs, overflows = stages.run_model(inputs)
            if not (is_far and overflows):
                return inputs, outputs
            reason = "the model overflows on inputs that were made up"
        except (IndexError, FloatingPointError) as error:
            reason = f"the model fails on inputs that were made up: {error}"
        except (HeatcError, InterpretationError) as error:
            raise NotVerified(f"the model cannot be interpreted: {error}") from error
    raise NotVerified(reason)
