"""Rule `none`: all attention is computed."""

from __future__ import annotations

from collections.abc import Sequence

from heatc.rules.definition import Attention, Head, Layer, PruningRule, Reals, Rule
from heatc.rules.reference import dense


class NoPruning(PruningRule):
    """`scores -> softmax -> weighted values`."""

    name = "none"
    summary = "all attention is computed"

    def insert(self, attention: Attention, rule: Rule) -> None:
        """Nothing decides."""
        attention.finish(attention.scores())

    def attend(self, q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
        """As the model has it."""
        return dense(q, k, v, scale, head)

    def prunes(self, layers: Sequence[Layer]) -> bool:
        """It leaves out nothing."""
        return False


RULE = NoPruning()
