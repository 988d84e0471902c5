"""Rule `sanger`: scores whose predicted probability is high enough (Sanger, MICRO 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from heatc.rules.definition import Attention, Head, Mask, PruningRule, Reals, Rule
from heatc.rules.reference import low_bits, of_kept, softmax

BITS = 4
"""Bits of the codes that predict."""


class Sanger(PruningRule):
    """A softmax of low-bit scores predicts; the likeliest score of a row is always kept."""

    name = "sanger"
    summary = "single scores, kept where codes of 4 bits predict a probability above a threshold"
    defaults: ClassVar[Mapping[str, Any]] = {"threshold": 0.002}

    def insert(self, attention: Attention, rule: Rule) -> None:
        """Scores with all bits, then the prediction, then the scores that are left."""
        scores = attention.scores()
        low = attention.low_bits(BITS)
        predicted = attention.probabilities(attention.scaled(attention.low_scores(low), low))
        mask = attention.likely(predicted, rule.threshold)
        attention.finish(attention.excluded(scores, mask))

    def attend(self, q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
        """Excluded scores have no part in the softmax."""
        return of_kept(q, k, v, scale, _predicted(q, k, scale, head.rule.threshold))


def _predicted(q: Reals, k: Reals, scale: float, threshold: float) -> Mask:
    """What probabilities of low-bit scores predict."""
    (low_q, exponent_q), (low_k, exponent_k) = (low_bits(x, len(k), BITS) for x in (q, k))
    weights = softmax(low_q @ low_k.T * 2.0 ** (exponent_q + exponent_k - 6) * scale)
    kept = weights > threshold
    kept[np.arange(len(kept)), weights.argmax(axis=1)] = True
    return kept


RULE = Sanger()
