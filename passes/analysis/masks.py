"""
What the masks of an attention are: key padding, and what stays when padding is packed away.

A mask is taken apart where it is a sum or a conjunction. Each part is one of four.

* Key padding (`passes/analysis/padding.py`): its keys have no rows, and it goes.
* Static: it depends on positions alone, as a causal mask or a sliding window does. It stays.
* Key padding and static parts in one that cannot be taken apart. It stays whole.
* A bias: numbers that are made of weights and of what a model computes, as scores are. It stays.

A row must see a key that has a row, or padding would have a part in its softmax. So static parts
must let every token see itself. A masked position that is read sees itself no more: where a part
hides keys, `every_row` is false, and masked positions must not be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import i1
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.passes.analysis.layout import constant_scalar
from heatc.passes.analysis.padding import (
    BLOCKED,
    POINTWISE,
    KeyPadding,
    MaskTracker,
    hidden,
    prove_key_padding,
    prove_masking,
)
from heatc.passes.rewriting import insert_before

_DEEPEST = 40
"""Ops that a bias is made of, one behind the other, that are followed."""

_WEAKEST_BIAS = -BLOCKED / 2
"""Static numbers up to this are too small to bring a hidden key back."""


class Part(NamedTuple):
    """A mask as `attn.sdpa` has it, and what it fills in; 0 for one that is added."""

    value: SSAValue
    fill: float


@dataclass
class Reading:
    """
    What the masks of one attention are.

    Attributes:
        paddings: the key paddings that it has.
        kept: what is left of its masks once padding has no rows.
        hides: whether what is kept hides keys.
        every_row: whether a masked position sees what it sees in the model, too.
    """

    paddings: set[KeyPadding] = field(default_factory=set[KeyPadding])
    kept: list[Part] = field(default_factory=list[Part])
    hides: bool = False
    every_row: bool = True


def read_masks(op: attn.SdpaOp, tracker: MaskTracker) -> Reading | None:
    """What the masks of an attention of padded rows are, None where a part is none of the four."""
    reading = Reading()
    for mask, fill in zip(op.masks, op.fills):
        for part in _parts(Part(mask, fill), op, 0):
            if not _read(part, op, tracker, reading):
                return None
    # Where all that hides is -inf, a row without a key is one in the model as well.
    if reading.hides and any(not math.isinf(p.weakest) for p in reading.paddings):
        reading.every_row = False
    return reading


def _read(part: Part, op: attn.SdpaOp, tracker: MaskTracker, reading: Reading) -> bool:
    """Put a part where it belongs; False where it belongs nowhere."""
    batch, length, _ = nn.shape_of(op.q)
    heads = op.heads.value.data
    value, fill = part
    truth = nn.element_of(value) == i1
    traced = tracker.trace(value)
    if traced is None:
        if truth or not _is_bias(value, 0):
            return False
        reading.kept.append(part)
        return True
    proof = prove_key_padding(tracker, value, fill, batch, heads, length)
    if proof is not None:
        reading.paddings |= {proof} if proof.mask is not None else set()
        return True
    if truth and fill > BLOCKED:
        return False
    if traced.input is None:
        return _read_static(part, length, tracker, reading)
    masking = prove_masking(tracker, value, fill, batch, heads, length)
    if masking is None:
        return False
    reading.paddings.add(masking)
    reading.kept.append(part)
    reading.every_row = False
    return True


def _read_static(part: Part, length: int, tracker: MaskTracker, reading: Reading) -> bool:
    """A part that depends on positions alone: every token must see itself."""
    values = tracker.run(part.value, 0.0)
    hides = hidden(values, part.fill, length)
    if hides.diagonal(axis1=-2, axis2=-1).any():
        return False
    if values.dtype != np.bool_ and not bool((values < _WEAKEST_BIAS).all()):
        return False
    reading.kept.append(part)
    if hides.any():
        reading.hides = True
        reading.every_row &= math.isinf(part.fill)
    return True


# -- parts ----------------------------------------------------------------------------------


def _parts(part: Part, anchor: Operation, depth: int) -> Iterator[Part]:
    """
    The masks that one mask is, applied after each other; inserted before `anchor`.

    Each broadcasts to the shape of the whole.
    """
    value, fill = part
    owner = value.owner
    truth = nn.element_of(value) == i1
    inner: list[Part] = []
    if depth < _DEEPEST:
        if isinstance(owner, nn.ExpandOp):
            inner = list(_parts(Part(owner.x, fill), anchor, depth + 1))
        elif isinstance(owner, nn.ReshapeOp):
            below = list(_parts(Part(owner.x, fill), anchor, depth + 1))
            inner = _reshaped(owner, below, anchor) if len(below) > 1 else []
        elif isinstance(owner, nn.AddOp) and not truth:
            inner = [p for v in owner.operands for p in _parts(Part(v, 0.0), anchor, depth + 1)]
        elif isinstance(owner, nn.AndOp) and truth:
            inner = [p for v in owner.operands for p in _parts(Part(v, fill), anchor, depth + 1)]
        elif isinstance(owner, nn.NotOp) and truth:
            inner = _inverted(owner, fill, anchor, depth)
        elif isinstance(owner, nn.WhereOp) and not truth:
            inner = _chosen(owner, anchor, depth)
    yield from inner or [part]


def _inverted(op: nn.NotOp, fill: float, anchor: Operation, depth: int) -> list[Part]:
    """`not (a or b)` hides what either is true for."""
    owner = op.x.owner
    if isinstance(owner, nn.NotOp):
        return list(_parts(Part(owner.x, fill), anchor, depth + 1))
    if isinstance(owner, nn.ExpandOp):
        inverse = nn.NotOp(owner.x)
        insert_before(anchor, inverse)
        return list(_parts(Part(inverse.result, fill), anchor, depth + 1))
    if not isinstance(owner, nn.OrOp):
        return []
    found: list[Part] = []
    for value in owner.operands:
        inverse = nn.NotOp(value)
        insert_before(anchor, inverse)
        found += _parts(Part(inverse.result, fill), anchor, depth + 1)
    return found


def _chosen(op: nn.WhereOp, anchor: Operation, depth: int) -> list[Part]:
    """`where(keep, 0, low)` that is added hides what the truth values hide, if low is low enough."""
    if nn.element_of(op.condition) != i1:
        return []
    lhs, rhs = constant_scalar(op.lhs), constant_scalar(op.rhs)
    if lhs == 0.0 and rhs is not None and rhs <= BLOCKED:
        return list(_parts(Part(op.condition, rhs), anchor, depth + 1))
    if rhs == 0.0 and lhs is not None and lhs <= BLOCKED:
        inverse = nn.NotOp(op.condition)
        insert_before(anchor, inverse)
        return list(_parts(Part(inverse.result, lhs), anchor, depth + 1))
    return []


def _reshaped(op: nn.ReshapeOp, parts: Sequence[Part], anchor: Operation) -> list[Part]:
    """Parts of a value in the shape of its reshape, if that only adds or drops axes of extent 1."""
    own, new = nn.shape_of(op.x), nn.shape_of(op.result)
    long = [axis for axis, n in enumerate(own) if n > 1]
    if [own[axis] for axis in long] != [n for n in new if n > 1]:
        return []
    found: list[Part] = []
    for value, fill in parts:
        shape = (1,) * (len(own) - len(nn.shape_of(value))) + nn.shape_of(value)
        source = iter(long)
        target = tuple(shape[next(source)] if n > 1 else 1 for n in new)
        reshape = nn.ReshapeOp(value, target)
        insert_before(anchor, reshape)
        found.append(Part(reshape.result, fill))
    return found


# -- biases ---------------------------------------------------------------------------------


def _is_bias(value: SSAValue, depth: int) -> bool:
    """
    Whether numbers are of the size of scores: made of weights and products, and not of a mask.

    An input may say anything, -1e9 included, and so may a constant: neither may be a part.
    """
    owner = value.owner
    if not isinstance(owner, Operation) or depth > _DEEPEST:
        return False
    if isinstance(owner, nn.FullOp):
        return abs(owner.value.value.data) < _WEAKEST_BIAS
    if isinstance(owner, nn.EmbeddingOp | nn.IndexOp):
        return _is_bias(owner.operands[0], depth + 1)
    if isinstance(owner, nn.WhereOp):
        return all(_is_bias(v, depth + 1) for v in (owner.lhs, owner.rhs))
    if isinstance(owner, (*POINTWISE, nn.ShapeOp, nn.ConcatOp)):
        return all(_is_bias(v, depth + 1) for v in owner.operands)
    return isinstance(owner, _SCORES)


_SCORES = (
    WeightOp,
    ContractOp,
    attn.SdpaOp,
    nn.IotaOp,
    nn.LayerNormOp,
    nn.LinearOp,
    nn.MatmulOp,
    nn.RmsNormOp,
    nn.SoftmaxOp,
)
"""What makes weights, or values that weights have a part in."""


def with_masks(parts: Sequence[Part]) -> tuple[list[SSAValue], list[float]]:
    """Masks and fills as `attn.sdpa` takes them: no fills where all are added."""
    truth = any(nn.element_of(part.value) == i1 for part in parts)
    return [p.value for p in parts], [p.fill for p in parts] if truth else []
