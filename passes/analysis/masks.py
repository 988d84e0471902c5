"""
What the masks of an attention are: key padding, and what stays when padding is packed away.

A mask is taken apart where it is a sum or a conjunction. Each part is one of five.

* Key padding (`passes/analysis/padding.py`): its keys have no rows, and it goes. One that is added and
  made of floats weighs keys by the numbers between: it stays as well.
* Static: it depends on positions alone, as a causal mask or a sliding window does. It stays.
* Key padding and static parts in one that cannot be taken apart. It stays whole.
* A mask of queries: it hides everything from masked tokens and nothing from others. It goes, and
  masked positions must not be read.
* A bias: numbers that are made of weights and of what a model computes, as scores are. It stays.

A row must see a key that has a row, or padding would have a part in its softmax. So static parts
must let every token see itself. A masked position that is read sees itself no more: where a part
hides keys, `every_row` is false, and masked positions must not be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import IntegerType, TensorType, i1
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
    prove_query_padding,
    softened,
)
from heatc.passes.rewriting import insert_before

_DEEPEST = 40
"""Ops that a bias is made of, one behind the other, that are followed."""

_WEAKEST_BIAS = -BLOCKED / 2
"""Static numbers up to this are too small to bring a hidden key back."""


class Part(NamedTuple):
    """
    A mask as `attn.sdpa` has it, and what it fills in; 0 for one that is added.

    It is what it says for inputs up to `most`, if that is not infinite.
    """

    value: SSAValue
    fill: float
    most: float = math.inf

    def of(self, padding: KeyPadding) -> KeyPadding:
        """A key padding of this part alone, which refuses larger inputs."""
        most = self.most
        pairs = ((max(low, -most), min(high, most)) for low, high in padding.real)
        return replace(padding, real=tuple(pair for pair in pairs if pair[0] <= pair[1]))


@dataclass
class Reading:
    """
    What the masks of one attention are.

    Attributes:
        paddings: the key paddings that it has.
        kept: what is left of its masks once padding has no rows.
        hides: whether what is kept hides keys.
        every_row: whether a masked position sees what it sees in the model, too.
        infinite: whether masked keys are left a score of -inf.
        blinds: whether a masked position may see nothing but those where another token is real.
    """

    paddings: set[KeyPadding] = field(default_factory=set[KeyPadding])
    kept: list[Part] = field(default_factory=list[Part])
    hides: bool = False
    every_row: bool = True
    infinite: bool = False
    blinds: bool = False


def read_masks(op: attn.SdpaOp, tracker: MaskTracker) -> Reading | None:
    """What the masks of an attention of padded rows are, None where a part is none of them."""
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
    value, fill, _ = part
    truth = nn.element_of(value) == i1
    traced = tracker.trace(value)
    if traced is None:
        if truth or not is_bias(value, lambda weight: _is_small(weight, tracker)):
            return False
        reading.kept.append(part)
        return True
    proof = prove_key_padding(tracker, value, fill, batch, heads, length)
    if proof is not None:
        weighs = None if truth else softened(tracker, value, proof)
        if weighs is not None:
            proof = weighs
            reading.kept.append(part)
        if proof.mask is not None:
            reading.paddings.add(part.of(proof))
            reading.infinite |= math.isinf(proof.weakest)
        return True
    if truth and fill > BLOCKED:
        return False
    of_queries = prove_query_padding(tracker, value, fill, batch, heads, length)
    if of_queries is not None:
        reading.paddings.add(part.of(of_queries))
        reading.every_row = False
        reading.infinite |= math.isinf(of_queries.weakest)
        reading.blinds |= math.isinf(of_queries.weakest)
        return True
    if traced.input is None:
        return _read_static(part, length, tracker, reading)
    masking = prove_masking(tracker, value, fill, batch, heads, length)
    if masking is None:
        return False
    reading.paddings.add(part.of(masking))
    reading.kept.append(part)
    reading.every_row = False
    reading.infinite |= math.isinf(masking.weakest)
    reading.blinds |= math.isinf(masking.weakest)
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
        scores = np.where(values, 0.0, part.fill) if values.dtype == np.bool_ else values
        reading.blinds |= bool(np.isneginf(scores).any())
    return True


# -- parts ----------------------------------------------------------------------------------


def _parts(part: Part, anchor: Operation, depth: int) -> Iterator[Part]:
    """
    The masks that one mask is, applied after each other; inserted before `anchor`.

    Each broadcasts to the shape of the whole.
    """
    value, fill, _ = part
    owner = value.owner
    truth = nn.element_of(value) == i1
    inner: list[Part] = []
    if depth < _DEEPEST:
        if isinstance(owner, nn.ExpandOp):
            inner = list(_parts(Part(owner.x, fill), anchor, depth + 1))
        elif isinstance(owner, nn.ReshapeOp):
            below = list(_parts(Part(owner.x, fill), anchor, depth + 1))
            split = len(below) > 1 or below[0].value is not owner.x
            inner = _reshaped(owner, below, anchor) if split else []
        elif isinstance(owner, nn.AddOp) and not truth:
            inner = [p for v in owner.operands for p in _parts(Part(v, 0.0), anchor, depth + 1)]
        elif isinstance(owner, nn.AndOp) and truth:
            inner = [p for v in owner.operands for p in _parts(Part(v, fill), anchor, depth + 1)]
        elif isinstance(owner, nn.NotOp) and truth:
            inner = _inverted(owner, fill, anchor, depth)
        elif isinstance(owner, nn.WhereOp) and not truth:
            inner = _chosen(owner, anchor, depth)
        elif isinstance(owner, nn.CastOp) and truth:
            inner = _product(owner.x, fill, anchor, depth)
        elif isinstance(owner, nn.CompareOp) and _is_to_zero(owner, "ne"):
            inner = _product(owner.lhs, fill, anchor, depth)
    yield from inner or [part]


def _inverted(op: nn.NotOp, fill: float, anchor: Operation, depth: int) -> list[Part]:
    """`not (a or b)` hides what either is true for."""
    owner = op.x.owner
    if isinstance(owner, nn.CompareOp) and _is_to_zero(owner, "eq"):
        return _product(owner.lhs, fill, anchor, depth)
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
    """`where(keep, x, low)` that is added adds x, and hides what the truth values hide."""
    if nn.element_of(op.condition) != i1:
        return []
    for chosen, other, inverted in ((op.lhs, op.rhs, False), (op.rhs, op.lhs, True)):
        low = constant_scalar(other)
        if low is None or low > BLOCKED:
            continue
        keep = op.condition
        if inverted:
            inverse = nn.NotOp(keep)
            insert_before(anchor, inverse)
            keep = inverse.result
        hiding = list(_parts(Part(keep, low), anchor, depth + 1))
        if constant_scalar(chosen) == 0.0:
            return hiding
        return [*_parts(Part(chosen, 0.0), anchor, depth + 1), *hiding]
    return []


def _is_to_zero(op: nn.CompareOp, predicate: str) -> bool:
    return op.predicate.data == predicate and constant_scalar(op.rhs) == 0.0


def _product(x: SSAValue, fill: float, anchor: Operation, depth: int) -> list[Part]:
    """Whether a product of integers is not 0: whether neither is, if both are small."""
    product = x.owner
    if not isinstance(product, nn.MulOp) or _most(x) < 1.0:
        return []
    most = math.inf if any(map(_is_truth, product.operands)) else _most(x)
    found: list[Part] = []
    for value in product.operands:
        cast = nn.CastOp(value, TensorType(i1, nn.shape_of(value)))
        insert_before(anchor, cast)
        for part in _parts(Part(cast.result, fill), anchor, depth + 1):
            found.append(part._replace(most=min(part.most, most)))
    return found


def _is_truth(value: SSAValue) -> bool:
    """Whether a value is 0 or 1: truth values as numbers."""
    while isinstance(value.owner, nn.ReshapeOp | nn.ExpandOp | nn.TransposeOp | nn.CastOp):
        value = value.owner.x
        if nn.element_of(value) == i1:
            return True
    return False


def _most(value: SSAValue) -> float:
    """The largest integers of which two have a product that is not 0 by wrapping around."""
    element = nn.element_of(value)
    return float((1 << element.bitwidth // 2) - 1) if isinstance(element, IntegerType) else 0.0


def _reshaped(op: nn.ReshapeOp, parts: Sequence[Part], anchor: Operation) -> list[Part]:
    """Parts of a value in the shape of its reshape, if that only adds or drops axes of extent 1."""
    own, new = nn.shape_of(op.x), nn.shape_of(op.result)
    long = [axis for axis, n in enumerate(own) if n > 1]
    if [own[axis] for axis in long] != [n for n in new if n > 1]:
        return []
    found: list[Part] = []
    for value, fill, most in parts:
        shape = (1,) * (len(own) - len(nn.shape_of(value))) + nn.shape_of(value)
        source = iter(long)
        target = tuple(shape[next(source)] if n > 1 else 1 for n in new)
        reshape = nn.ReshapeOp(value, target)
        insert_before(anchor, reshape)
        found.append(Part(reshape.result, fill, most))
    return found


# -- biases ---------------------------------------------------------------------------------


def is_bias(value: SSAValue, admits: Callable[[WeightOp], bool], depth: int = 0) -> bool:
    """
    Whether numbers are of the size of scores: made of weights and products, and not of a mask.

    An input may say anything, -1e9 included, and so may a constant: neither may be a part. `admits`
    says which weights may be; those that products read do not matter.
    """
    owner = value.owner
    if not isinstance(owner, Operation) or depth > _DEEPEST:
        return False
    if isinstance(owner, nn.FullOp):
        return abs(owner.value.value.data) < _WEAKEST_BIAS
    if isinstance(owner, nn.EmbeddingOp | nn.IndexOp):
        parts = (owner.operands[0],)
    elif isinstance(owner, nn.WhereOp):
        parts = (owner.lhs, owner.rhs)
    elif isinstance(owner, (*POINTWISE, nn.ShapeOp, nn.ConcatOp)):
        parts = tuple(owner.operands)
    elif isinstance(owner, WeightOp):
        return admits(owner)
    else:
        return isinstance(owner, _SCORES)
    return all(is_bias(part, admits, depth + 1) for part in parts)


def _is_small(weight: WeightOp, tracker: MaskTracker) -> bool:
    """Whether a weight hides nothing, if its numbers are known."""
    if tracker.trace(weight.result) is None:
        return True
    return bool((np.abs(tracker.run(weight.result, 0.0)) < _WEAKEST_BIAS).all())


_SCORES = (
    ContractOp,
    attn.SdpaOp,
    nn.IotaOp,
    nn.LayerNormOp,
    nn.LinearOp,
    nn.MatmulOp,
    nn.RmsNormOp,
    nn.SoftmaxOp,
)
"""What makes values that weights have a part in."""


def with_masks(parts: Sequence[Part]) -> tuple[list[SSAValue], list[float]]:
    """Masks and fills as `attn.sdpa` takes them: no fills where all are added."""
    truth = any(nn.element_of(part.value) == i1 for part in parts)
    return [p.value for p in parts], [p.fill for p in parts] if truth else []
