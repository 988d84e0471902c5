"""How far a student is from its teacher on one batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from heatc.errors import HeatcError
from heatc.tuning.common.torch_model import Run


def feature_loss(student: Run, teacher: Run) -> Tensor:
    """The mean squared error of what each layer norm leaves, of real tokens, averaged over them."""
    if len(student.features) != len(teacher.features) or not teacher.features:
        raise HeatcError("features are compared behind layer norms, and the model has none")
    pairs = zip(student.features, teacher.features)
    return torch.stack([functional.mse_loss(a, b) for a, b in pairs]).mean()


def output_loss(student: Run, teacher: Run, temperature: float = 1.0) -> Tensor:
    """
    Of a classifier, the Kullback-Leibler divergence of the teacher's classes from the student's.

    Both at a temperature T, times T^2, averaged over samples. A classifier is recognised by an
    output (samples, classes); of any other model it is the mean squared error of all outputs.
    """
    classes = [name for name, value in teacher.outputs.items() if _is_classes(value)]
    if not classes:
        pairs = ((student.outputs[name], value) for name, value in teacher.outputs.items())
        return torch.stack([functional.mse_loss(a, b) for a, b in pairs]).mean()
    parts = [
        functional.kl_div(
            functional.log_softmax(student.outputs[name] / temperature, dim=-1),
            functional.log_softmax(teacher.outputs[name] / temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        for name in classes
    ]
    return torch.stack(parts).mean() * temperature**2


def _is_classes(value: Tensor) -> bool:
    return value.ndim == 2 and value.shape[1] > 1
