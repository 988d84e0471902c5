"""The minutes of a run: how many where none are given, how they are shared out, what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

LEAST_MINUTES, MOST_MINUTES = 2.0, 120.0

MINUTES_A_MILLION = 0.5
"""Minutes for a million weights, beside the least: 13 for MiniLM, 57 for BERT-Base."""

LONG = 20.0
"""
Minutes of a long run. A shorter one searches low-rank alone, because other formats take minutes to
decompose, weighs errors on fewer samples, and trains fewer plans.
"""

PROBED = (64, 128)
"""Samples that the search weighs errors on, in a short and in a long run."""

TRAINED = (2, 3)
"""Plans that are trained at most, in a short and in a long run."""

SLACK = 0.9
"""Share of what is left that a training plans with: others use the machine too."""

LEAST_TRAINING = 3.0
"""Seconds in which nothing is learnt."""


def default_minutes(weights: int) -> float:
    """The minutes for a model of so many weights."""
    return min(MOST_MINUTES, round(LEAST_MINUTES + MINUTES_A_MILLION * weights / 1e6))


@dataclass
class Budget:
    """
    The time of a run; `earlier` are the seconds that interrupted runs of it took.
    """

    minutes: float
    earlier: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return 60.0 * self.minutes

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self.earlier + time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds left, 0 when the time is over."""
        return max(0.0, self.seconds - self.spent)

    @property
    def is_long(self) -> bool:
        """Whether there is time for a wide search."""
        return self.minutes >= LONG

    @property
    def probed(self) -> int:
        """Samples that the search weighs errors on."""
        return PROBED[self.is_long]

    @property
    def trainings(self) -> int:
        """Plans that are trained at most."""
        return TRAINED[self.is_long]

    def training_seconds(self, reserved: float, trainings_left: int) -> float:
        """What the next training may take, with so many seconds kept for what follows."""
        return SLACK * max(0.0, self.left - reserved) / max(1, trainings_left)

    def told(self) -> str:
        """`at 1.5 of 10 min`."""
        return f"at {self.spent / 60:.1f} of {self.minutes:g} min"
