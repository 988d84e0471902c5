"""How a student is trained."""

from __future__ import annotations

from dataclasses import dataclass

RULES = ("none", "ours", "paper")
"""The pruning rules that a student can be trained under."""

ROUNDS = 4
"""Parts of a training of so many seconds, each of as many steps; the student is evaluated after each."""


@dataclass(frozen=True)
class Recipe:
    """
    Two stages of AdamW with a linear warm-up and decay each.

    Attributes:
        epochs: of the first stage (features) and of the second (outputs); 0 leaves a stage out.
        rates: the greatest learning rate of each stage; one that is too great is made smaller.
        batch: samples of a step, of like lengths.
        warm_up: share of a stage's steps in which the rate rises.
        decay: weight decay.
        temperature: of the class distributions that the second stage compares.
        share: weight of the features' loss in the second stage.
        patience: a stage ends after so many epochs, the first not counted, that bring nothing on
            the samples held back.
        seed: of the order of the samples.
        seconds: how long the training may take; the first of `epochs` that is not 0 then says its
            stage, which takes as many steps as fit, in `ROUNDS` rounds instead of epochs.
    """

    epochs: tuple[int, int] = (2, 2)
    rates: tuple[float, float] = (2e-3, 1e-4)
    batch: int = 32
    warm_up: float = 0.1
    decay: float = 0.01
    temperature: float = 2.0
    share: float = 1.0
    patience: int = 2
    seed: int = 0
    seconds: float | None = None
