"""
The check after compiling: the program that was written against the model that was captured.

docs/design/verification.md has the bounds and why they are what they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from xdsl.utils.exceptions import InterpretationError

from heatc.dialects import nn
from heatc.errors import HeatcError
from heatc.interpreter import main_function
from heatc.samples import KINDS, MOST_INTEGER, sample_inputs
from heatc.verify.judge import Judge
from heatc.verify.programs import CheckedProgram
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
) -> Verification:
    """
    Compare on as many inputs as the budget allows, on one at least.

    `compiling` are the seconds that went before, `place` is what errors are about. Raises
    `VerificationError` where a bound is broken or the program fails.
    """
    start = time.perf_counter()
    deadline = start + settings.budget(compiling)
    try:
        # The matrices of one input are small: threads would wait for each other, on a busy
        # machine for seconds.
        with threadpool_limits(1, user_api="blas"), open_program() as program:
            found = _on_inputs(stages, program, settings, deadline, place)
            parts = (*found.parts, *stages.parts, *program.parts)
    except NotVerified as reason:
        return Verification(reason=str(reason))
    return replace(found, seconds=time.perf_counter() - start, parts=parts)


def _on_inputs(
    stages: Stages, program: CheckedProgram, settings: Settings, deadline: float, place: str
) -> Verification:
    rounds = list(_rounds(stages))
    found = Verification()
    for number, kinds in enumerate(rounds):
        before = time.perf_counter()
        inputs, model = _model(stages, kinds, number)
        name = ", ".join(kinds)
        judge = Judge(stages, program, settings, place, inputs, name, {"model": model})
        for step in stages.steps:
            judge.hold(step)
        largest, cosine = judge.distance()
        found = replace(
            found,
            largest=max(found.largest, largest),
            cosine=min(found.cosine, cosine),
            inputs=(*found.inputs, name),
            left_out=len(rounds) - number - 1,
            parts=tuple(dict.fromkeys((*found.parts, *judge.notes))),
        )
        now = time.perf_counter()
        if now + (now - before) > deadline:
            break
    return found


def _rounds(stages: Stages) -> Iterator[tuple[str, ...]]:
    """How the samples of each run are padded: few runs see every kind."""
    if not stages.masks:
        # Two: a program keeps buffers from one call to the next.
        yield ("no padding",)
        yield ("no padding",)
        return
    arguments = main_function(stages.captured).body.block.args
    batch = max((nn.shape_of(a)[0] for a in arguments if nn.shape_of(a)), default=1)
    width = max(1, min(len(KINDS), batch))
    for first in range(0, len(KINDS), width):
        yield KINDS[first : first + width]


def _model(
    stages: Stages, kinds: Sequence[str], seed: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs that the model takes, and its outputs."""
    reason = ""
    for most in (MOST_INTEGER, 0):
        try:
            inputs = sample_inputs(
                stages.captured, kinds, masks=stages.masks, seed=seed, most_integer=most
            )
            return inputs, stages.run("model", inputs)
        except (IndexError, FloatingPointError) as error:
            reason = f"the model fails on inputs that were made up: {error}"
        except (HeatcError, InterpretationError) as error:
            raise NotVerified(f"the model cannot be interpreted: {error}") from error
    raise NotVerified(reason)
