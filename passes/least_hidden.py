"""
Rows of an attention that see no key, where different numbers hide: what the model makes of them.

A finite number does not exclude a score. Where all scores of a row are hidden, those that are hidden by
the greatest number have the softmax to themselves: the row's *least hidden* scores. Which they are may
depend on inputs, so the host computes it, for every row alike:

    T = what the masks make of a score of 0, and M = the greatest T of a row
    X = T, or T - M in a row that sees no key: a softmax does not change by what all its scores have
    least hidden = X > FAR, visible scores in a row that sees a key

A row sees no key where M <= FAR, which is half of HIDDEN: a bias may stand beside numbers that hide.

A number of `SWALLOWED` or less leaves nothing of a score in float32, and a fill leaves nothing of any:
such a row has scores of 0 (`keyless = "mean"`) and X. Another one has its scores and X.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import TensorType, f32, i1
from xdsl.ir import Attribute, Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.padding import BLOCKED
from heatc.passes.rewriting import insert_before

HIDDEN = BLOCKED
"""Scores that a mask lowers this far are hidden."""

SWALLOWED = -1e8
"""Numbers so low leave nothing of a score in float32: added to a whole row they make it constant."""

FAR = HIDDEN / 2
"""Scores that are this much below others of their row have no part in its softmax."""

_LOWEST = float(np.finfo(np.float32).min)
"""What is lower is minus infinity to the model."""


class LeastHidden(NamedTuple):
    """
    What is left of scores, each (B, heads, S, S) with axes of extent 1.

    `visible` (i1) is what a row sees, and also the least hidden scores of one that keeps its scores.
    `bias` is X in units of the model's scaled scores where `least` (i1), the least hidden, is true.
    `total` is T.
    """

    visible: SSAValue
    bias: SSAValue
    least: SSAValue
    total: SSAValue


def least_hidden(
    op: Operation, masks: Sequence[tuple[SSAValue, float]], fills_alone: bool
) -> LeastHidden:
    """
    Emit before `op` what masks with their fills, in the model's order, leave of scores.

    Masks have four axes, and are those that hide. `fills_alone`: a row that sees no key is one of fills,
    or of numbers that swallow scores.
    """
    write = _Writer(op)
    total, possible = write.totals(masks)
    kept = write.where(possible, total, write.number(_LOWEST))
    most = write.greatest(kept)
    blind = write.compare(most, FAR, "le")
    none = write.number(0.0)
    # The difference is at most 0, which its bound does not know.
    above = write.binary(nn.MinimumOp, write.binary(nn.SubOp, kept, most), none)
    level = write.where(blind, above, kept)
    shown = write.compare(level, FAR, "gt")
    least = write.both(shown, possible)
    limit = FAR if fills_alone else SWALLOWED
    visible = write.both(least, write.compare(most, limit, "gt"))
    return LeastHidden(visible, write.where(shown, level, none), least, total)


class _Writer:
    """Emits ops of the host before an attention."""

    def __init__(self, anchor: Operation):
        self.anchor = anchor
        self._numbers: dict[float, SSAValue] = {}

    def totals(self, masks: Sequence[tuple[SSAValue, float]]) -> tuple[SSAValue, SSAValue]:
        """What masks make of a score of 0, and where that is finite."""
        total, seen = None, list[SSAValue]()
        for mask, fill in masks:
            if nn.element_of(mask) != i1:
                total = mask if total is None else self.binary(nn.AddOp, total, mask)
            elif fill == -math.inf:
                seen.append(mask)
            else:
                before = self.number(0.0) if total is None else total
                total = self.where(mask, before, self.number(fill))
        assert total is not None, "there is a finite number that hides"
        possible = self.compare(total, _LOWEST, "ge")
        for mask in seen:
            possible = self.both(possible, mask)
        return total, possible

    def number(self, value: float) -> SSAValue:
        if value not in self._numbers:
            self._numbers[value] = self._placed(nn.FullOp(value, TensorType(f32, ())))
        return self._numbers[value]

    def where(self, condition: SSAValue, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
        type_ = self._typed(f32, condition, lhs, rhs)
        return self._placed(nn.WhereOp(condition, lhs, rhs, type_))

    def compare(self, value: SSAValue, limit: float, predicate: str) -> SSAValue:
        type_ = self._typed(i1, value)
        return self._placed(nn.CompareOp(value, self.number(limit), predicate, type_))

    def binary(
        self, kind: Callable[..., Operation], lhs: SSAValue, rhs: SSAValue, element: Attribute = f32
    ) -> SSAValue:
        return self._placed(kind(lhs, rhs, self._typed(element, lhs, rhs)))

    def both(self, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
        return self.binary(nn.AndOp, lhs, rhs, i1)

    def greatest(self, value: SSAValue) -> SSAValue:
        """Of each row, with an axis of extent 1 for its keys."""
        shape = nn.shape_of(value)
        most = self._placed(nn.ReduceOp(value, "max", (len(shape) - 1,)))
        return self._placed(nn.ReshapeOp(most, (*shape[:-1], 1)))

    def _typed(self, element: Attribute, *values: SSAValue) -> TensorType[Attribute]:
        shapes = [nn.shape_of(value) for value in values]
        return TensorType(element, np.broadcast_shapes(*shapes))

    def _placed(self, op: Operation) -> SSAValue:
        op.location = self.anchor.location
        insert_before(self.anchor, op)
        return op.results[0]
