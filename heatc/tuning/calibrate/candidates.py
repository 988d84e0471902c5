"""What calibration chooses among: settings and thresholds of rule `ours`, or some of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from heatc.rules import Rule, make_rule

FINER = (1, 2, 3)
IMPORTANCES = ("abs", "positive")
CALIBRATED_SCORES = ("mean", "zero", "neginf")
"""Contributions that spare the fetch of V; the integer score (`int`) spares none of it."""

GATED = ("col", "mean", "zero")
RHO_B = (-0.5, -0.2, 0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)

Block = tuple[int, int]


class LayerSettings(NamedTuple):
    """What all heads of one attention share, by its places in the lists above."""

    finer: int
    importance: int
    pruned: int
    gated: int

    def options(self) -> dict[str, object]:
        """As options of rule `ours`."""
        return {
            "finer": FINER[self.finer],
            "importance": IMPORTANCES[self.importance],
            "pruned_score": CALIBRATED_SCORES[self.pruned],
            "gated": GATED[self.gated],
        }


DEFAULT_SETTINGS = LayerSettings(
    FINER.index(2),
    IMPORTANCES.index("positive"),
    CALIBRATED_SCORES.index("mean"),
    GATED.index("col"),
)
"""The defaults of rule `ours`."""


@dataclass(frozen=True)
class Candidates:
    """
    What a plan may say.

    Attributes:
        block: rows and columns of a block, the same in all layers.
        pruned_scores: what a pruned score may become, some of `CALIBRATED_SCORES`.
        gates: whether heads may be pruned too.
    """

    block: Block = (2, 2)
    pruned_scores: tuple[str, ...] = CALIBRATED_SCORES
    gates: bool = True

    @cached_property
    def layer_settings(self) -> tuple[LayerSettings, ...]:
        """All settings that a layer may have."""
        pruned = [CALIBRATED_SCORES.index(name) for name in self.pruned_scores]
        places = (range(len(FINER)), range(len(IMPORTANCES)), pruned, range(len(GATED)))
        gated = DEFAULT_SETTINGS.gated
        return tuple(
            settings
            for settings in itertools.starmap(LayerSettings, itertools.product(*places))
            if self.gates or settings.gated == gated
        )

    @cached_property
    def default(self) -> LayerSettings:
        """The rule's defaults, or what is nearest to them here."""
        if DEFAULT_SETTINGS in self.layer_settings:
            return DEFAULT_SETTINGS
        return DEFAULT_SETTINGS._replace(pruned=CALIBRATED_SCORES.index(self.pruned_scores[0]))

    def rule(self, settings: LayerSettings, **thresholds: object) -> Rule:
        """Rule `ours` with these settings and thresholds."""
        return make_rule("ours", {**settings.options(), "block": self.block, **thresholds})


ALL_CANDIDATES = Candidates()
"""All that there is, in blocks of 2 x 2."""
