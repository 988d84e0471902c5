"""Rule `energon`: two rounds of mean filtering on scores of few bits (Energon, arXiv 2110.09310)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from heatc.rules.definition import Attention, Head, Mask, PruningRule, Reals, Rule
from heatc.rules.reference import kept_of_row, low_bits, of_kept

BITS = (2, 4)
"""Bits of the codes that decide, a round each."""

SINGLE = (1, 1)
"""The block of a rule that decides on single scores."""


class Energon(PruningRule):
    """The second round looks at what the first one keeps; all bits are used for what is left."""

    name = "energon"
    summary = "single scores, by two rounds of mean filtering on codes of 2 and 4 bits"
    defaults: ClassVar[Mapping[str, Any]] = {"alpha": (0.0, 0.0)}

    def insert(self, attention: Attention, rule: Rule) -> None:
        """Scores with all bits, then the rounds, then the scores that are left."""
        scores, mask = attention.scores(), None
        for bits, alpha in zip(BITS, rule.alpha):
            low = attention.low_scores(attention.low_bits(bits))
            mask = attention.mean_filter(low, (alpha,), SINGLE, mask)
        assert mask is not None
        attention.finish(attention.excluded(scores, mask))

    def attend(self, q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
        """Excluded scores have no part in the softmax."""
        return of_kept(q, k, v, scale, _filtered(q, k, head.rule.alpha))


def _filtered(q: Reals, k: Reals, alpha: tuple[float, ...]) -> Mask:
    """The scores that both rounds keep."""
    kept = np.ones((len(q), len(k)), np.bool_)
    for bits, ratio in zip(BITS, alpha):
        scores = low_bits(q, len(k), bits)[0] @ low_bits(k, len(k), bits)[0].T
        for row, values in zip(kept, scores):
            if row.any():
                row[row] = kept_of_row(values[row], ratio)
    return kept


RULE = Energon()
