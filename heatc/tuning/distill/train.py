"""
The training of a student in two stages, with checkpoints.

Stage one brings what every layer norm leaves near the teacher's, stage two the outputs. After each
epoch the student is evaluated on the samples held back. A stage leaves the best weights that it had.
A stage whose first epoch leaves it much worse than it began was too fast: it begins again with a
smaller rate. Where seconds are what is given, the steps that fit are counted by the pace of the first
few, and fewer are taken where the pace slows down. The order of the samples depends on seed, stage and epoch alone, so that an interrupted
run goes on to the same factors.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heatc.errors import HeatcError
from heatc.files import atomic_write
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.torch_model import Run, TorchModel
from heatc.tuning.distill.losses import feature_loss, output_loss
from heatc.tuning.distill.recipe import ROUNDS, Recipe
from heatc.tuning.distill.texts import Texts, in_order, shuffled

Teacher = Callable[[Texts, Sequence[int]], Run]
"""What the model itself makes of some samples of a set."""

STAGES = ("features", "outputs")
KEEP_EVERY = 100  # steps between checkpoints
WORSE = 1.25  # times the loss that a stage began with: more after an epoch, and it begins again
SLOWER = 0.3  # times the rate, where a stage begins again
MOST_SLOWED = 3


@dataclass
class State:
    """
    Where a training stands.

    `slowed` is how often the stage began again, `seconds` are those of all runs that checkpoints
    were kept of. Where seconds are given, `round_steps` are the steps of a round, and `before` those
    of the rounds before it; `evaluating` are the seconds of an evaluation. `taken` are the steps of
    all stages.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    idle: int = 0
    slowed: int = 0
    best: float = math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    round_steps: int = 0
    before: int = 0
    evaluating: float = 0.0
    taken: int = 0


class Training:
    """
    A student, its teacher, and where the training of one by the other stands.

    `held` are sets of samples to evaluate on, by name; `folder` is where checkpoints are kept.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: TorchModel,
        train: Texts,
        held: Mapping[str, Texts],
        recipe: Recipe,
        folder: Path,
        progress: ProgressCallback,
    ):
        self.teacher, self.student = teacher, student
        self.train, self.held = train, held
        self.recipe, self.progress = recipe, progress
        self.state = State()
        self.resumed = False
        self._since = time.monotonic()
        self._file = folder / "state.pt"
        self._best = self._weights()
        self._optimizer, self._schedule = self._begin_stage()
        self._restore()

    def run(self) -> None:
        """Train to the end; the student then has the best weights of the last stage."""
        while self.state.stage < len(STAGES):
            self._run_stage()
            self._load(self._best)
            state = self.state
            self.state = State(
                state.stage + 1, seconds=state.seconds, history=state.history, taken=state.taken
            )
            if self.state.stage < len(STAGES):
                self._optimizer, self._schedule = self._begin_stage()
            self._keep()

    def evaluate(self) -> dict[str, float]:
        """
        Both losses on every held set: `<set> features`, `<set> outputs`.

        Of a student whose attention is pruned also the share of its blocks: `<set> pruned`.
        """
        found: dict[str, float] = {}
        for name, texts in self.held.items():
            features = outputs = 0.0
            kept = total = 0
            batches = list(in_order(texts.lengths.tolist(), self.recipe.batch))
            for batch in batches:
                with torch.no_grad():
                    ours, theirs = self.student(texts.take(batch)), self.teacher(texts, batch)
                    features += feature_loss(ours, theirs).item()
                    outputs += output_loss(ours, theirs).item()
                kept += sum(int(d.kept()) for d in ours.decisions)
                total += sum(int(d.total()) for d in ours.decisions)
            found[f"{name} features"] = features / len(batches)
            found[f"{name} outputs"] = outputs / len(batches)
            if total:
                found[f"{name} pruned"] = 1.0 - kept / total
        return found

    # --- One stage ----------------------------------------------------------------------------

    def _run_stage(self) -> None:
        state, recipe = self.state, self.recipe
        if all(entry["stage"] != state.stage + 1 for entry in state.history):
            began = time.monotonic()
            self._evaluate_epoch()
            state.evaluating = time.monotonic() - began
            self._set_pace(self.step_seconds)
        while state.epoch < self._epochs and state.idle < recipe.patience:
            self._run_epoch()
            state.epoch, state.step = state.epoch + 1, 0
            self._slow_down()
            value = self._evaluate_epoch()
            if state.epoch == 1:
                # At its greatest rate a stage may well lose for a while what the decay wins back.
                state.idle = 0
                if value > WORSE * state.best and state.slowed < MOST_SLOWED:
                    self._begin_again()
            self._keep()

    def _begin_again(self) -> None:
        """From where the stage began, with a smaller rate."""
        self._load(self._best)
        self.state.slowed += 1
        pace = self._pace
        self.state.epoch = self.state.before = 0
        self._optimizer, self._schedule = self._begin_stage()
        # What is left of the time is for all rounds again.
        self._set_pace(lambda: pace or self.step_seconds())

    def _run_epoch(self) -> None:
        state = self.state
        batches = self._batches(state.stage, state.epoch)
        what = f"{STAGES[state.stage]}, epoch {state.epoch + 1} of {self._epochs}"
        for batch in batches[state.step :]:
            self._step(batch)
            state.step += 1
            state.taken += 1
            self.progress(what, state.step, len(batches))
            if state.step % KEEP_EVERY == 0:
                self._keep()

    def _step(self, batch: Sequence[int]) -> None:
        with torch.no_grad():
            theirs = self.teacher(self.train, batch)
        loss = self._loss(self.student(self.train.take(batch)), theirs)
        if not math.isfinite(loss.item()):
            raise HeatcError(
                f"the loss is {loss.item()} in stage {STAGES[self.state.stage]!r}",
                notes=["a smaller learning rate may help (--rates)"],
            )
        self._optimizer.zero_grad()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self._optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        self._schedule.step()

    def _loss(self, ours: Run, theirs: Run) -> Tensor:
        if self.state.stage == 0:
            return feature_loss(ours, theirs)
        outputs = output_loss(ours, theirs, self.recipe.temperature)
        return outputs + self.recipe.share * feature_loss(ours, theirs)

    def _evaluate_epoch(self) -> float:
        """
        The stage's loss on the samples held back, averaged over their sets.

        The weights are kept if these are the best of the stage.
        """
        state = self.state
        found = self.evaluate()
        kind = STAGES[state.stage]
        value = sum(v for k, v in found.items() if k.endswith(kind)) / len(self.held)
        state.history.append(
            {"stage": state.stage + 1, "epoch": state.epoch, "rate": self._rate, **found}
        )
        if value < state.best:
            state.best, state.idle = value, 0
            self._best = self._weights()
        else:
            state.idle += 1
        return value

    # --- Steps and rates ----------------------------------------------------------------------

    @property
    def _rate(self) -> float:
        """The stage's greatest rate."""
        return self.recipe.rates[self.state.stage] * SLOWER**self.state.slowed

    @property
    def _epochs(self) -> int:
        if self.recipe.seconds is None or not self.recipe.epochs[self.state.stage]:
            return self.recipe.epochs[self.state.stage]
        return ROUNDS if self.state.round_steps else self.state.epoch

    @property
    def _epoch_steps(self) -> int:
        return math.ceil(len(self.train) / self.recipe.batch)

    @property
    def _stage_steps(self) -> int:
        """Steps of the stage, as far as it is known how many will be taken."""
        state = self.state
        if self.recipe.seconds is None:
            return max(1, self.recipe.epochs[state.stage] * self._epoch_steps)
        return max(1, state.before + (ROUNDS - state.epoch) * state.round_steps)

    def _batches(self, stage: int, epoch: int) -> list[list[int]]:
        """Those of an epoch, or of a round of the stage that runs."""
        if self.recipe.seconds is None:
            return self._shuffled(stage, epoch)
        first, per = self.state.before, self._epoch_steps
        last = first + self.state.round_steps
        found: list[list[int]] = []
        for whole in range(first // per, math.ceil(last / per)):
            found += self._shuffled(stage, whole)
        start = first // per * per
        return found[first - start : last - start]

    def _shuffled(self, stage: int, epoch: int) -> list[list[int]]:
        order = random.Random(f"{self.recipe.seed} {stage} {epoch}")
        return shuffled(self.train.lengths.tolist(), self.recipe.batch, order)

    def _set_pace(self, step_seconds: Callable[[], float]) -> None:
        """As many steps a round as fit into the seconds that are left, at so many a step."""
        recipe, state = self.recipe, self.state
        if recipe.seconds is None or not recipe.epochs[state.stage]:
            return
        left = recipe.seconds - self._spent - ROUNDS * state.evaluating
        state.round_steps = max(0, int(left / step_seconds() / ROUNDS)) if left > 0 else 0
        # Measured again, an interrupted run would take another number of steps.
        self._keep()

    def _slow_down(self) -> None:
        """After a round: fewer steps for the others where they would take too long."""
        state, recipe = self.state, self.recipe
        if recipe.seconds is None:
            return
        state.before += state.round_steps
        rounds = ROUNDS - state.epoch
        if rounds and (pace := self._pace) > 0:
            left = recipe.seconds - self._spent - (rounds + 1) * state.evaluating
            state.round_steps = min(state.round_steps, max(0, int(left / pace / rounds)))

    @property
    def _pace(self) -> float:
        """Seconds of a step so far, evaluations apart."""
        evaluations = sum(
            1 for entry in self.state.history if entry["stage"] == self.state.stage + 1
        )
        return max(0.0, self._spent - evaluations * self.state.evaluating) / max(
            1, self.state.taken
        )

    @property
    def _spent(self) -> float:
        """Seconds of this training so far."""
        return self.state.seconds + time.monotonic() - self._since

    def step_seconds(self) -> float:
        """Measured, of a step on short, middle and long samples, of which nothing is learnt."""
        batches = list(in_order(self.train.lengths.tolist(), self.recipe.batch))
        places = [round(share * (len(batches) - 1)) for share in (0.5, 0.1, 0.5, 0.9)]
        times: list[float] = []
        for place in places:
            began = time.monotonic()
            with torch.no_grad():
                theirs = self.teacher(self.train, batches[place])
            loss = self._loss(self.student(self.train.take(batches[place])), theirs)
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            times.append(time.monotonic() - began)
        self._optimizer.zero_grad()
        # The first warms up.
        return max(1e-4, sum(times[1:]) / len(times[1:]))

    def _begin_stage(self) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=self._rate, weight_decay=recipe.decay, fused=True
        )

        def factor(step: int) -> float:
            total = self._stage_steps
            warm = max(1, round(recipe.warm_up * total))
            return min((step + 1) / warm, max(0.0, (total - step) / max(1, total - warm)))

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    # --- Checkpoints --------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        named = self.student.parameters_by_name.items()
        return {name: value.detach().clone() for name, value in named}

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self.student.parameters_by_name.items():
                value.copy_(weights[name])

    def _keep(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._since
        self._since = now
        content = {
            "state": copy.deepcopy(vars(self.state)),
            "weights": self._weights(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        with atomic_write(self._file) as stream:
            torch.save(content, stream)

    def _restore(self) -> None:
        """Go on where an interrupted run stopped; a checkpoint that cannot be read is left."""
        if not self._file.is_file():
            return
        try:
            content: dict[str, Any] = torch.load(self._file, weights_only=True)
        except Exception:  # torch raises many kinds for a torn file
            return
        self.state = State(**content["state"])
        self._load(content["weights"])
        self._best = content["best"]
        if self.state.stage < len(STAGES):
            self._optimizer, self._schedule = self._begin_stage()
            self._optimizer.load_state_dict(content["optimizer"])
            self._schedule.load_state_dict(content["schedule"])
        self.resumed = True
