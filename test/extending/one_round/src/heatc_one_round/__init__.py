"""The pruning rule `one-round`: one round of mean filtering on codes of few bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from heatc.rules import Attention, Option, PruningRule, Rule
from heatc.rules.definition import Head, Reals
from heatc.rules.options import within
from heatc.rules.reference import kept_of_row, low_bits, of_kept

SINGLE = (1, 1)


class OneRound(PruningRule):
    """A score is kept where its low-bit estimate reaches a threshold of its row."""

    name = "one-round"
    summary = "single scores, by one round of mean filtering on codes of few bits"
    defaults: ClassVar[Mapping[str, Any]] = {"bits": 3, "level": 0.0}
    own: ClassVar[Mapping[str, Option]] = {
        "bits": Option(int, 1, lambda v: "" if 2 <= v <= 8 else "is outside 2..8", "bits of codes"),
        "level": Option(float, 1, within(-1.0, 1.0, "(-1, 1)"), "ratio of the threshold"),
    }

    def insert(self, attention: Attention, rule: Rule) -> None:
        """Scores with all bits, then the estimates, then the scores that are left."""
        scores = attention.scores()
        estimates = attention.low_scores(attention.low_bits(rule["bits"]))
        mask = attention.mean_filter(estimates, (rule["level"],), SINGLE)
        attention.finish(attention.excluded(scores, mask))

    def attend(self, q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
        """The same from the definition, for one head of one sequence."""
        bits, level = head.rule["bits"], head.rule["level"]
        estimates = low_bits(q, len(k), bits)[0] @ low_bits(k, len(k), bits)[0].T
        kept = np.array([kept_of_row(row, level) for row in estimates])
        return of_kept(q, k, v, scale, kept)


RULE = OneRound()
