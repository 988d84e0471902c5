"""
Attention written any way becomes one `attn.sdpa`.

Assumes the captured level. Finds `softmax(scale * Q K^T + mask) V` by dataflow: PyTorch's fused
op, the eager form, or a form written by hand. Operands are followed through any chain of reshapes,
transposes and constant factors. What a chain does is compared with a head split
(`passes/analysis/layout.py`). Slices of a rearranged packed projection become slices of its columns
(`passes/analysis/columns.py`).

Masks stay as the model spells them: added, or filled in where they are false, in the model's order.
The result of a query without any key stays too. What a mask means is left to `pack-tokens`. Leaves
a computation that it cannot prove to be attention, and the layout ops that became dead.

Example: test/passes/raise_attention.mlir.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, i1, i64
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.dialects import attn, nn
from heatc.passes.analysis.columns import columns_of
from heatc.passes.analysis.layout import (
    Layout,
    constant_scalar,
    head_digits,
    is_same_order,
    layout_of,
    scaled_operand,
)
from heatc.passes.effect import Effect
from heatc.passes.rewriting import erase_dead, insert_before, replace_value


class Mask(NamedTuple):
    """A mask, the shape of the scores it is applied to, and what it fills in where it is false."""

    value: SSAValue
    applied_to: tuple[int, ...]
    fill: float = -math.inf


@dataclass
class Found:
    """
    An attention found in the graph: its last op, operands, scale, and masks in order.

    `keyless` is what a query without a key gives, see `attn.sdpa`.
    """

    last: Operation
    result: SSAValue
    q: Layout
    k: Layout
    v: Layout
    scale: float
    masks: list[Mask] = field(default_factory=list[Mask])
    causal: bool = False
    k_transposed: bool = False
    keyless: str = "zero"


def _peel_layout(value: SSAValue) -> SSAValue | None:
    """The value below reshapes that keep the element order; None if the order changes."""
    layout = layout_of(value)
    return layout.root if layout.scale == 1.0 and is_same_order(layout) else None


def match_sdpa(op: nn.SdpaOp) -> Found:
    """PyTorch's fused op."""
    shape = (*nn.shape_of(op.q)[:-1], nn.shape_of(op.k)[-2])
    masks = [] if op.mask is None else [Mask(op.mask, shape)]
    q, k, v = (layout_of(x) for x in (op.q, op.k, op.v))
    scale = op.scale.value.data * q.scale * k.scale
    causal = bool(op.is_causal.value.data)
    return Found(op, op.result, q, k, v, scale, masks, causal)


def match_eager(op: nn.MatmulOp) -> Found | None:
    """`matmul(softmax(...), v)` in any spelling."""
    probabilities = _peel_layout(op.lhs)
    if probabilities is None or not isinstance(probabilities.owner, nn.SoftmaxOp):
        return None
    softmax = probabilities.owner
    rank = len(nn.shape_of(softmax.x))
    if softmax.dim.value.data not in (-1, rank - 1):
        return None
    scale, masks, current = 1.0, list[Mask](), softmax.x
    while True:
        owner = current.owner
        if isinstance(owner, nn.MatmulOp):
            break
        scaled = scaled_operand(owner)
        if scaled is not None:
            current, factor = scaled
            scale *= factor
            continue
        masked = _masked_operand(owner)
        if masked is not None:
            if scale != 1.0:
                return None
            current, mask = masked
            masks.insert(0, mask)
            continue
        if isinstance(owner, nn.ReshapeOp):
            current = owner.x
            continue
        return None
    if nn.shape_of(current)[-1] != nn.shape_of(softmax.x)[-1]:
        return None
    q, k, v = layout_of(owner.lhs), layout_of(owner.rhs), layout_of(op.rhs)
    scale *= q.scale * k.scale
    keyless = "nan" if softmax.safe is None else "zero"
    return Found(op, op.result, q, k, v, scale, masks, k_transposed=True, keyless=keyless)


def _masked_operand(op: object) -> tuple[SSAValue, Mask] | None:
    """Scores and mask of `scores + mask` or `where(mask, scores, constant)`."""
    if isinstance(op, nn.AddOp):
        shape = nn.shape_of(op.result)
        for scores, mask in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            if nn.shape_of(scores) == shape and _leads_to_matmul(scores):
                return scores, Mask(mask, shape)
        return None
    if not isinstance(op, nn.WhereOp) or nn.element_of(op.condition) != i1:
        return None
    shape = nn.shape_of(op.result)
    fill = constant_scalar(op.rhs)
    if fill is not None and nn.shape_of(op.lhs) == shape:
        return op.lhs, Mask(op.condition, shape, fill)
    fill = constant_scalar(op.lhs)
    if fill is not None and nn.shape_of(op.rhs) == shape:
        inverse = nn.NotOp(op.condition)
        insert_before(op, inverse)
        return op.rhs, Mask(inverse.result, shape, fill)
    return None


def _leads_to_matmul(value: SSAValue) -> bool:
    owner = value.owner
    while True:
        if isinstance(owner, nn.MatmulOp):
            return True
        scaled = scaled_operand(owner)
        if scaled is not None:
            owner = scaled[0].owner
        elif isinstance(owner, nn.ReshapeOp):
            owner = owner.x.owner
        elif isinstance(owner, nn.AddOp | nn.WhereOp):
            owner = (owner.lhs if _leads_to_matmul(owner.lhs) else owner.rhs).owner
        else:
            return False


@dataclass(frozen=True)
class Heads:
    """Extents of an attention: batch, tokens, heads, width of a head of q/k and of v."""

    batch: int
    length: int
    heads: int
    dim: int
    v_dim: int


def heads_of(found: Found) -> Heads | None:
    """The extents, if every operand is a head split of a (B, S, width) tensor; else None."""
    q, v = found.q.shape, found.v.shape
    if len(q) not in (3, 4) or q[-2] != v[-2]:
        return None
    length, dim = q[-2:]
    outer, width = math.prod(q[:-2]), nn.shape_of(found.q.root)[-1]
    heads = width // dim
    if width % dim or outer % heads:
        return None
    extents = Heads(outer // heads, length, heads, dim, v[-1])
    keys = head_digits(extents.batch, length, heads, dim, flipped=found.k_transposed)
    expected = (
        (found.q, head_digits(extents.batch, length, heads, dim)),
        (found.k, keys),
        (found.v, head_digits(extents.batch, length, heads, v[-1])),
    )
    return extents if all(layout.digits == digits for layout, digits in expected) else None


def _as_tokens(value: SSAValue, extents: Heads, width: int, anchor: Operation) -> SSAValue:
    shape = (extents.batch, extents.length, width)
    if nn.shape_of(value) == shape:
        return value
    reshape = nn.ReshapeOp(value, shape)
    insert_before(anchor, reshape)
    return reshape.result


class RaiseAttention:
    """Rewrites the attentions of one function."""

    def rewrite(self, found: Found) -> bool:
        """Replace one attention; False where it is not provably one."""
        extents = heads_of(found)
        if extents is None or found.v.scale != 1.0 or found.scale <= 0.0:
            return False
        anchor = found.last
        width, v_width = extents.heads * extents.dim, extents.heads * extents.v_dim
        q = _as_tokens(found.q.root, extents, width, anchor)
        k = _as_tokens(found.k.root, extents, width, anchor)
        v = _as_tokens(found.v.root, extents, v_width, anchor)
        masks = self._masks(found, extents)
        # A fill of 0 is one too: the score of a hidden key, which has a part in the softmax.
        fills = any(nn.element_of(mask) == i1 for mask, _ in masks)
        element = nn.element_of(found.result)
        sdpa = attn.SdpaOp(
            q,
            k,
            v,
            extents.heads,
            found.scale,
            masks=[mask for mask, _ in masks],
            fills=[fill for _, fill in masks] if fills else (),
            keyless=found.keyless,
            result_type=TensorType(element, (extents.batch, extents.length, v_width)),
        )
        split = nn.ReshapeOp(
            sdpa.result, (extents.batch, extents.length, extents.heads, extents.v_dim)
        )
        heads_first = nn.TransposeOp(split.result, (0, 2, 1, 3))
        shaped = nn.ReshapeOp(heads_first.result, nn.shape_of(found.result))
        insert_before(anchor, sdpa, split, heads_first, shaped)
        replace_value(found.result, shaped.result)
        return True

    def _masks(self, found: Found, extents: Heads) -> list[tuple[SSAValue, float]]:
        """Masks that broadcast to (B, heads, S, S), each with its fill; 0 for one that is added."""
        masks: list[tuple[SSAValue, float]] = []
        for mask in found.masks:
            value = self._of_scores(mask.value, mask.applied_to, extents, found.last)
            masks.append((value, mask.fill if nn.element_of(value) == i1 else 0.0))
        if found.causal:
            masks.append((_causal(extents.length, found.last), -math.inf))
        return masks

    def _of_scores(
        self, mask: SSAValue, applied_to: tuple[int, ...], extents: Heads, anchor: Operation
    ) -> SSAValue:
        """A mask of scores of some shape as one that broadcasts to (B, heads, S, S)."""
        full = (extents.batch, extents.heads, extents.length, extents.length)
        shape = nn.shape_of(mask)
        rows = (1,) * (len(applied_to) - len(shape)) + shape
        square = applied_to[-2:] == full[-2:]
        if applied_to == full or (square and set(rows[:-2]) <= {1}):
            return mask
        spread = (*applied_to[:-2], *rows[-2:]) if square else applied_to
        if shape != spread:
            expand = nn.ExpandOp(mask, spread)
            insert_before(anchor, expand)
            mask = expand.result
        tail = rows[-2:] if square else full[-2:]
        apart = nn.ReshapeOp(mask, (extents.batch, extents.heads, *tail))
        insert_before(anchor, apart)
        return apart.result


def _causal(length: int, anchor: Operation) -> SSAValue:
    iota = nn.IotaOp(0, 1, TensorType(i64, (length,)))
    rows = nn.ReshapeOp(iota.result, (length, 1))
    keep = nn.CompareOp(rows.result, iota.result, "ge", TensorType(i1, (length, length)))
    insert_before(anchor, iota, rows, keep)
    return keep.result


class FoldLayouts:
    """A chain of reshapes and transposes that changes nothing is its root."""

    def fold(self, op: Operation) -> None:
        """Replace the result of a layout op by its root, or by one reshape of it."""
        if not isinstance(op, nn.ReshapeOp | nn.TransposeOp):
            return
        if nn.TOKENS in nn.shape_of(op.x):
            return
        layout = layout_of(op.result)
        if layout.scale != 1.0 or not is_same_order(layout):
            return
        if nn.shape_of(layout.root) == nn.shape_of(op.result):
            replace_value(op.result, layout.root)
            return
        if layout.root is op.x:
            return
        reshape = nn.ReshapeOp(layout.root, nn.shape_of(op.result))
        insert_before(op, reshape)
        replace_value(op.result, reshape.result)


def slice_columns(op: nn.SliceOp) -> None:
    """A slice of a rearranged value becomes a slice of its columns, rearranged."""
    found = columns_of(op)
    if found is None:
        return
    shape = nn.shape_of(found.root)
    starts = (*(0 for _ in shape[:-1]), found.start)
    new: nn.SliceOp | nn.ReshapeOp | nn.TransposeOp
    new = nn.SliceOp(found.root, starts, (*shape[:-1], found.width))
    insert_before(op, new)
    for step, target in found.steps:
        kind = nn.TransposeOp if isinstance(step, nn.TransposeOp) else nn.ReshapeOp
        new = kind(new.result, target)
        insert_before(op, new)
    replace_value(op.result, new.result)


@dataclass(frozen=True)
class RaiseAttentionPass(ModulePass):
    """Eager, fused and hand-written attention become `attn.sdpa`; exact."""

    name = "raise-attention"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        for inner in list(op.walk()):
            if isinstance(inner, nn.SliceOp):
                slice_columns(inner)
        raiser = RaiseAttention()
        for inner in list(op.walk()):
            if isinstance(inner, nn.SdpaOp):
                raiser.rewrite(match_sdpa(inner))
            elif isinstance(inner, nn.MatmulOp):
                found = match_eager(inner)
                if found is not None:
                    raiser.rewrite(found)
        erase_dead(op)
        folder = FoldLayouts()
        for inner in list(op.walk()):
            folder.fold(inner)
        erase_dead(op)
