"""What all stages of a compression share: model, samples, machine, what is kept, and the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.dialects.attn import SdpaOp
from heatc.files import atomic_write, make_folder
from heatc.heat.formats import FORMATS, Format
from heatc.heat.statistics import cache_root
from heatc.kinds import DATA
from heatc.passes.rewriting import module_path
from heatc.progress import ProgressCallback
from heatc.readers.npz import LABELS, write_npz
from heatc.targets import Numpy
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.packed_model import PackedModel
from heatc.tuning.common.samples import Samples, check_samples
from heatc.tuning.common.torch_model import best_device
from heatc.tuning.compress.accuracy import Judge
from heatc.tuning.compress.costs import CostModel
from heatc.tuning.compress.model import CapturedModel
from heatc.tuning.compress.request import Arrays, Request
from heatc.tuning.search.candidate_costs import Machine
from heatc.tuning.search.result_cache import ResultCache, code_digest


@dataclass
class Run:
    """
    One compression on its way through the stages.

    Attributes:
        tell: takes what is decided on the way.
        seconds: of every stage; `remarks` are those of the report.
        has_resumed: whether results of an earlier run were found.
        running: the stage, and when it began.
        fitted, dev: samples that are trained on, and those that judge; `train` are the inputs of
            the former.
        kept, decided: results, and what was decided by the time that was left.
    """

    request: Request
    progress: ProgressCallback
    tell: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    remarks: list[str] = field(default_factory=list[str])
    has_resumed: bool = False
    running: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        request, self.budget = self.request, self.request.budget
        self.model = CapturedModel.of(request.compilation)
        self.single = CapturedModel.of(request.timed)
        self.digest = request.compilation.weights_sha256()
        self.machine = Machine.of(request.hardware)
        self.device = best_device()
        self.packed = self.model.planned(None, Numpy())
        self.packed.run()
        self.fitted, self.dev = self._samples()
        self.train = self.fitted.inputs
        self.folder = make_folder((request.folder or cache_root() / "compress") / self._key())
        self.kept = ResultCache(self.folder / "results")
        goals = content_key(
            {"goals": str(request.goals), "minutes": str(request.budget.minutes)}, {}
        )
        self.decided = ResultCache(self.folder / f"run-{goals}")
        self.budget.earlier = float(self.decided.read("spent") or 0.0)

    # --- What it works on ---------------------------------------------------------------------

    def _samples(self) -> tuple[Samples, Samples]:
        """The samples that are fitted on, and those that judge."""
        request, model = self.request, PackedModel(self.packed.module, self.packed.weights)
        self.batch = model.batch

        def checked(name: str, arrays: Arrays) -> Samples:
            return check_samples(arrays, model.shapes, model.limits, request.seed, name)

        own = checked(*request.data)
        real = own.lengths > 0
        if request.dev is not None:
            return _part(own, real), checked(*request.dev)
        return _part(own, real & ~own.held), _part(own, real & own.held)

    def _key(self) -> str:
        """What results depend on, whatever the goals and the time."""
        request = self.request
        texts = {
            "code": code_digest(),
            "model": self.digest,
            "module": str(self.model.module),
            "single": str(self.single.module),
            "machine": self.machine.sha256,
            "numpy": str(request.is_numpy),
            "layers": request.layers,
            "formats": repr(self.formats),
            "points": str(request.points),
            "seed": str(request.seed),
        }
        dev = {name: array for name, array in self.dev.inputs.items()}
        dev |= {} if self.dev.labels is None else {LABELS: self.dev.labels}
        arrays = {f"train {name}": array for name, array in self.train.items()}
        arrays |= {f"dev {name}": array for name, array in dev.items()}
        for number, own in enumerate(request.extra.values()):
            arrays |= {f"extra {number} {name}": array for name, array in own.items()}
        return content_key(texts, arrays)

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats that are searched."""
        if self.request.formats is not None:
            return self.request.formats
        return FORMATS if self.budget.is_long else ("low-rank",)

    @property
    def named_dev(self) -> tuple[str, Arrays]:
        """What judges, by the file that it came from, without labels."""
        data, dev = self.request.data, self.request.dev
        return (f"a quarter of {data[0]}" if dev is None else dev[0]), self.dev.inputs

    @cached_property
    def judge(self) -> Judge:
        """Runs the dense model on the samples that judge."""
        module, weights = self.packed.module, self.packed.weights
        return Judge.of(module, weights, self.dev, self.batch, self.device, self.progress)

    @cached_property
    def cost_model(self) -> CostModel:
        """Costs on the machine."""
        return CostModel(self.single, self.machine.file, self.dev, self.request.is_numpy)

    @cached_property
    def text(self) -> Path:
        """The file of inputs that factors are made near on."""
        path = self.folder / "train.npz"
        with atomic_write(path) as stream:
            write_npz(stream, self.train, DATA)
        return path

    @cached_property
    def attentions(self) -> list[str]:
        """The module paths of attentions."""
        ops = (op for op in self.packed.module.walk() if isinstance(op, SdpaOp))
        return list(dict.fromkeys(path for op in ops if (path := module_path(op))))

    # --- Figures ------------------------------------------------------------------------------

    @cached_property
    def dense(self) -> dict[str, Any]:
        """Figures of the model as it is."""
        accuracy = self.judge.dense_accuracy
        lost = ("accuracy_drop", "accuracy_drop_low", "accuracy_drop_high", "divergence")
        return {
            **dict.fromkeys(lost, 0.0),
            "accuracy": accuracy,
            "edp_times_less": 1.0,
            **self._dense_cost,
        }

    @cached_property
    def _dense_cost(self) -> dict[str, float]:
        def run() -> dict[str, float]:
            began = time.monotonic()
            self.progress("compiling and timing the dense model", 0, 0)
            cost = self.cost_model.cost(None)
            return {**cost, "compiling": time.monotonic() - began}

        return self.step("dense", run)

    @property
    def compiling(self) -> float:
        """Seconds that a program takes to be compiled and timed."""
        return self._dense_cost["compiling"]

    def cost(self, plan: Path) -> dict[str, float]:
        """Figures of a plan's program on the machine."""
        self.progress(f"compiling and timing {plan.stem}", 0, 0)
        cost = self.cost_model.cost(plan)
        return {"edp_times_less": self.dense["edp"] / cost["edp"], **cost}

    def measured(self, plan: Path) -> dict[str, Any]:
        """Figures of what a plan loses."""
        made = self.model.planned(plan, Numpy())
        made.run()
        return self.judge.measure(made, plan.stem)

    # --- Stages and steps ---------------------------------------------------------------------

    def stage(self, name: str, what: str) -> None:
        """Say what begins, and how much of the time is gone."""
        self.end_stage()
        self.running = name, time.monotonic()
        self.tell(f"{self.budget.told()}: {what}")

    def end_stage(self) -> None:
        """Note what a stage took; an interrupted run goes on with the time that is left."""
        if self.running is not None:
            name, began = self.running
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
        self.running = None
        self.decided.write("spent", self.budget.spent)

    def remark(self, text: str) -> None:
        """What is told at once, and again in the report."""
        self.remarks.append(text)
        self.tell(text)

    def step(self, name: str, compute: Callable[[], Any], *, decided: bool = False) -> Any:
        """The result of a step: that of an earlier run, or computed and kept."""
        kept = self.decided if decided else self.kept
        found = kept.read(name)
        if found is not None:
            if not self.has_resumed:
                self.tell("going on with the results of an earlier run")
            self.has_resumed = True
            return found
        found = compute()
        kept.write(name, found)
        self.decided.write("spent", self.budget.spent)
        return found


def _part(samples: Samples, chosen: NDArray[np.bool_]) -> Samples:
    """Some of the samples."""
    labels = None if samples.labels is None else samples.labels[chosen]
    inputs = {name: array[chosen] for name, array in samples.inputs.items()}
    return replace(
        samples,
        inputs=inputs,
        lengths=samples.lengths[chosen],
        held=samples.held[chosen],
        labels=labels,
    )
