"""What a plan loses on the samples held back, by the factorised model as PyTorch runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from heatc.api import Compilation
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.progress import ProgressCallback
from heatc.tuning.common.evaluation import Evaluator, compared_output, reduce_output
from heatc.tuning.common.samples import Batch, Samples
from heatc.tuning.common.torch_model import TorchModel
from heatc.tuning.evaluate.figures import Estimate
from heatc.tuning.evaluate.intervals import matched_points, share_percent
from heatc.weights import WeightStore

Array = NDArray[Any]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """
    Compares plans with the dense model on some samples.

    Attributes:
        batches: of the samples, each of the model's batch.
        exact: the compared output of the dense model, by batch.
        evaluator: in the order of the batches.
    """

    batches: Sequence[Batch]
    exact: Sequence[Array]
    evaluator: Evaluator
    device: str
    progress: ProgressCallback

    @classmethod
    def of(
        cls,
        module: ModuleOp,
        weights: WeightStore,
        samples: Samples,
        batch: int,
        device: str,
        progress: ProgressCallback,
    ) -> Judge:
        """Runs the dense model, at the packed level; raises `HeatcError` for labels that do not fit it."""
        batches = list(samples.batches(batch))
        model = TorchModel(module, weights, device=device)
        outputs = list(_outputs(model, batches, "the dense model on dev samples", progress))
        is_labelled = samples.labels is not None
        name, classes = compared_output(outputs[0], batch, is_labelled)
        exact = [found[name] for found in outputs]
        dense = [reduce_output(a, a, len(b.samples), classes) for a, b in zip(exact, batches)]
        order = np.concatenate([b.samples for b in batches])
        labels = None if samples.labels is None else samples.labels[order]
        evaluator = Evaluator.of(name, np.concatenate(dense), labels)
        return cls(batches, exact, evaluator, device, progress)

    @property
    def dense_accuracy(self) -> float | None:
        """Percent of the samples that the dense model has right, None without labels."""
        return self._accuracy(self.evaluator.dense)

    def measure(self, student: Compilation, name: str) -> dict[str, Any]:
        """
        What a compilation that has run loses, as figures of `heatc.tuning.compress.figures`.

        Attention is pruned as its plan says; `name` is what progress calls the plan.
        """
        rules = {
            o: r
            for o, r in InsertHdpPass(rule="none").rules(student.module).items()
            if r.name != "none"
        }
        model = TorchModel(student.module, student.weights, (), self.device, rules)
        evaluator, parts = self.evaluator, list[Reals]()
        found = _outputs(model, self.batches, f"{name} on dev samples", self.progress)
        for batch, exact, outputs in zip(self.batches, self.exact, found):
            classes = evaluator.dense.shape[1] > 1
            array = outputs[evaluator.output]
            parts.append(reduce_output(array, exact, len(batch.samples), classes))
        reduced = np.concatenate(parts)
        lost = _points_lost(evaluator, reduced)
        changed = evaluator.changed(reduced)
        return {
            "accuracy_drop": lost.value,
            "accuracy_drop_low": lost.low,
            "accuracy_drop_high": lost.high,
            "accuracy": self._accuracy(reduced),
            "changed": None if changed is None else 100.0 * float(changed.mean()),
            "divergence": float(evaluator.divergence(reduced).mean()),
        }

    def _accuracy(self, reduced: Reals) -> float | None:
        labels = self.evaluator.labels
        return None if labels is None else 100.0 * float((reduced.argmax(axis=1) == labels).mean())


def _points_lost(evaluator: Evaluator, reduced: Reals) -> Estimate:
    """
    Points lost, with the ends of their 95 % interval.

    With labels: accuracy lost, paired. Without: percent of predictions that changed, or 100 times
    one minus the mean cosine.
    """
    changed, count = evaluator.changed(reduced), len(reduced)
    if changed is None:
        lost = evaluator.counted_loss(reduced, np.ones(count, np.bool_))
        return Estimate(lost.points, lost.low, lost.high)
    if evaluator.labels is None:
        return share_percent(int(changed.sum()), count)
    before, after = (x.argmax(axis=1) == evaluator.labels for x in (evaluator.dense, reduced))
    return matched_points(int((before & ~after).sum()), int((after & ~before).sum()), count)


def _outputs(
    model: TorchModel, batches: Sequence[Batch], what: str, progress: ProgressCallback
) -> Iterator[dict[str, Array]]:
    """The outputs of every batch by name."""
    for number, batch in enumerate(batches):
        with torch.no_grad():
            outputs = model(batch.inputs).outputs
        yield {name: value.cpu().numpy() for name, value in outputs.items()}
        progress(what, number + 1, len(batches))
