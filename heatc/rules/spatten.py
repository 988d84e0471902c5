"""Rule `spatten`: heads by what they put out in the layers before (SpAtten, HPCA 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from heatc.rules.definition import Attention, Cascade, Head, Layer, PruningRule, Reals, Rule
from heatc.rules.reference import dense

_GATE, _IMPORTANCE = "gate", "importance"
"""What a layer leaves for the next one."""


class SpAtten(PruningRule):
    """A head that is pruned in a layer is pruned in all later ones; attention itself is dense."""

    name = "spatten"
    summary = "whole heads, by what they put out in the layers before"
    defaults: ClassVar[Mapping[str, Any]] = {"ratio": 0.2}
    ranks_heads = True

    def insert(self, attention: Attention, rule: Rule) -> None:
        """Rank the heads, compute those that are left, and add up what they put out."""
        memory, layer, layers = attention.memory, attention.layer, attention.layers
        keep = heads_kept(attention.heads, rule.ratio, layer, layers)
        if keep < attention.heads:
            memory[_GATE] = attention.head_ranking(memory[_IMPORTANCE], keep, memory.get(_GATE))
        output = attention.finish(attention.scores(), memory.get(_GATE))
        if layer + 1 < layers:
            memory[_IMPORTANCE] = attention.head_importance(output, memory.get(_IMPORTANCE))

    def attend(self, q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
        """A head that is not left out is as the model has it."""
        return dense(q, k, v, scale, head)

    def prunes(self, layers: Sequence[Layer]) -> bool:
        """Whether a head is left out anywhere: never in the first of the layers."""
        return any(
            heads_kept(heads, rule.ratio, number, len(layers)) < heads
            for number, (rule, heads) in enumerate(layers)
        )

    def left_out(self, rule: Rule, cascade: Cascade) -> Sequence[int]:
        """The heads that put out the least so far, a growing number of them."""
        heads = len(cascade.put_out)
        steps = max(cascade.layers - 1, 1)
        share = min(2 * rule.ratio * cascade.layer / steps, (heads - 1) / heads)
        # What was pruned before put out nothing since, but may have put out much before that.
        left = [h for h in range(heads) if h not in cascade.gone]
        left.sort(key=lambda h: (cascade.put_out[h], -h))
        return [*cascade.gone, *left[: math.floor(heads * share) - len(cascade.gone)]]


def heads_kept(heads: int, ratio: float, layer: int, layers: int) -> int:
    """How many heads are kept in a layer (from 0): a linear schedule of mean `ratio`."""
    if layers == 1:
        return heads
    share = min(2 * ratio * layer / (layers - 1), (heads - 1) / heads)
    return heads - math.floor(heads * share)


RULE = SpAtten()
