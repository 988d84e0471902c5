"""
Attention written any way becomes one `attn.sdpa`.

Assumes the captured level. Finds `softmax(scale * Q K^T + masks) V` by dataflow: PyTorch's fused op,
or two products with a softmax between them (`passes/analysis/attention.py`). The axes of the scores
say what are sequences, heads, queries and keys (`passes/analysis/heads.py`). Operands become
(B, S, heads * dim): the value that a head split starts from where they are one, else rearranged.
Heads that share keys and values get columns of their own. Slices of a rearranged packed projection
become slices of its columns (`passes/analysis/columns.py`).

Masks stay as the model spells them: added, or filled in where they are false, in the model's order;
a scale that comes after a mask scales it. The result of a query without any key stays too. What a
mask means is left to `pack-tokens`. Leaves what is no attention of as many queries as keys; a
remark names the op that breaks the pattern. Leaves the layout ops that became dead.

Example: test/passes/raise_attention.mlir.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, i1, i64
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.dialects import attn, nn
from heatc.passes.analysis.attention import (
    Found,
    Group,
    Mask,
    NotAttention,
    match_products,
    match_sdpa,
)
from heatc.passes.analysis.columns import columns_of
from heatc.passes.analysis.heads import Rows, extent, roles_of
from heatc.passes.analysis.layout import Digit, Layout, Move, counted, joined, layout_of
from heatc.passes.effect import Effect
from heatc.passes.rewriting import erase_dead, insert_before, remark, replace_value

_LARGEST = float(np.finfo(np.float32).max)


class RaiseAttention:
    """Rewrites one attention that was found."""

    def __init__(self, found: Found):
        self.found, self.anchor = found, found.last
        self.roles = roles = roles_of(found)
        self.scale = found.scale * roles.q.scale * roles.k.scale
        if self.scale <= 0.0:
            raise NotAttention(found.last, f"its scores are scaled by {self.scale:g}")
        self.batch, self.heads = extent(roles.batch), extent(roles.heads)
        self.length = extent(roles.keys)

    def rewrite(self) -> None:
        """Replace the attention."""
        found, roles, anchor = self.found, self.roles, self.anchor
        dim, v_dim = extent(roles.q.dim), extent(roles.v.dim)
        q, k = self._tokens(roles.q, dim), self._tokens(roles.k, dim)
        v = self._tokens(roles.v, v_dim)
        masks = self._masks()
        # A fill of 0 is one too: the score of a hidden key, which has a part in the softmax.
        fills = any(nn.element_of(mask) == i1 for mask, _ in masks)
        element = nn.element_of(found.result)
        sdpa = attn.SdpaOp(
            q,
            k,
            v,
            self.heads,
            self.scale,
            masks=[mask for mask, _ in masks],
            fills=[fill for _, fill in masks] if fills else (),
            keyless=found.keyless,
            result_type=TensorType(element, (self.batch, self.length, self.heads * v_dim)),
        )
        insert_before(anchor, sdpa)
        replace_value(found.result, self._result(sdpa.result))

    # -- operands --------------------------------------------------------------------------

    def _tokens(self, rows: Rows, dim: int) -> SSAValue:
        """An operand as (B, S, heads * dim)."""
        own = extent(d for d in rows.heads if d[1])
        value = arranged(
            rows.root,
            joined([*rows.batch, *rows.length, *(d for d in rows.heads if d[1]), *rows.dim]),
            (self.batch, self.length, own * dim),
            self.anchor,
        )
        return value if own == self.heads else self._repeated(value, rows.heads, dim)

    def _repeated(self, value: SSAValue, heads: Group, dim: int) -> SSAValue:
        """Columns of (B, S, heads * dim) for every head that shares them, in order."""
        counts = [0]
        inner = extent(d for d in heads if d[1])
        for n, stride in heads:
            step = 0
            if stride:
                inner //= n
                step = inner
            counts = [c + i * step for c in counts for i in range(n)]
        batch, length = nn.shape_of(value)[:2]
        columns: dict[int, SSAValue] = {}
        for head in dict.fromkeys(counts):
            if nn.shape_of(value)[-1] == dim:
                columns[head] = value
                continue
            part = nn.SliceOp(value, (0, 0, head * dim), (batch, length, dim))
            insert_before(self.anchor, part)
            columns[head] = part.result
        type_ = TensorType(nn.element_of(value), (batch, length, len(counts) * dim))
        whole = nn.ConcatOp([columns[head] for head in counts], 2, type_)
        insert_before(self.anchor, whole)
        return whole.result

    def _result(self, value: SSAValue) -> SSAValue:
        """(B, S, heads * dim) in the shape of what it replaces."""
        found, roles = self.found, self.roles
        names = [axis for axis in found.v.axes if isinstance(axis, str)]
        sizes = dict(zip(found.v.axes, nn.shape_of(found.v.value)))
        order: list[Digit | str] = [*roles.batch, *roles.queries, *roles.heads, *names]
        extents = [sizes[a] if isinstance(a, str) else a[0] for a in order]
        wanted = [
            part
            for axis in found.result_axes
            for part in ([axis] if isinstance(axis, str) else roles.cut(axis))
        ]
        value = reshaped(value, extents, self.anchor)
        value = transposed(value, [order.index(part) for part in wanted], self.anchor)
        return reshaped(value, nn.shape_of(found.result), self.anchor)

    # -- masks -----------------------------------------------------------------------------

    def _masks(self) -> list[tuple[SSAValue, float]]:
        """Masks that broadcast to (B, heads, S, S), each with its fill; 0 for one that is added."""
        masks: list[tuple[SSAValue, float]] = []
        for mask in self.found.masks:
            fill = 0.0 if mask.added else _in_single(mask.fill)
            masks.append((self._of_scores(self._valued(mask), mask), fill))
        if self.found.causal:
            masks.append((_causal(self.length, self.anchor), -math.inf))
        return masks

    def _valued(self, mask: Mask) -> SSAValue:
        """What a mask adds, or where it lets scores be."""
        value, anchor = mask.value, self.anchor
        if not mask.added:
            if mask.factor > 0:
                return value
            inverse = nn.NotOp(value)
            insert_before(anchor, inverse)
            return inverse.result
        element = nn.element_of(self.found.q.value)
        if nn.element_of(value) != element:
            cast = nn.CastOp(value, TensorType(element, nn.shape_of(value)))
            insert_before(anchor, cast)
            value = cast.result
        if mask.factor == 1.0:
            return value
        factor = nn.FullOp(mask.factor, TensorType(element, ()))
        product = nn.MulOp(value, factor.result, value.type)
        insert_before(anchor, factor, product)
        return product.result

    def _of_scores(self, value: SSAValue, mask: Mask) -> SSAValue:
        """A mask of scores of some shape as one that broadcasts to (B, heads, S, S)."""
        roles, shape = self.roles, nn.shape_of(value)
        parts = [roles.batch, roles.heads, roles.queries, roles.keys]
        axes = mask.axes[len(mask.axes) - len(shape) :]
        own = [roles.cut(axis) if n > 1 else () for axis, n in zip(axes, shape)]
        tail = parts[len(parts) - len(own) :]
        if len(own) <= 4 and all(a in ((), b) for a, b in zip(own, tail)):
            return value
        have = {atom for atoms in own for atom in atoms}
        ordered = [atom for atoms in own for atom in atoms]
        value = reshaped(value, [n for n, _ in ordered], self.anchor)
        order = [atom for part in parts for atom in part if atom in have]
        value = transposed(value, [ordered.index(atom) for atom in order], self.anchor)
        # Of the heads in an axis of sequences and heads a mask has all or none; else it is spread.
        kept = [part if have & set(part) else () for part in parts]
        atoms = [atom for part in kept for atom in part]
        value = reshaped(value, [a[0] if a in have else 1 for a in atoms], self.anchor)
        value = expanded(value, [n for n, _ in atoms], self.anchor)
        return reshaped(value, [extent(part) for part in kept], self.anchor)


def _in_single(fill: float) -> float:
    """A fill that a factor made too large is infinite, as it is in the model."""
    return fill if abs(fill) <= _LARGEST else math.copysign(math.inf, fill)


def arranged(root: SSAValue, digits: Group, shape: tuple[int, ...], anchor: Operation) -> SSAValue:
    """
    The elements of `root` that `digits` count, in `shape`; inserted before `anchor`.

    Raises `NotAttention` where an element is counted twice, or not at all.
    """
    own = sorted((d for d in digits if d[1]), key=lambda d: -d[1])
    if joined(own) != counted(nn.shape_of(root)):
        raise NotAttention(anchor, "an operand is parts of a value")
    if tuple(own) == digits:
        return reshaped(root, shape, anchor)
    value = reshaped(root, [n for n, _ in own], anchor)
    value = transposed(value, [own.index(d) for d in digits if d[1]], anchor)
    value = reshaped(value, [n if stride else 1 for n, stride in digits], anchor)
    value = expanded(value, [n for n, _ in digits], anchor)
    return reshaped(value, shape, anchor)


def reshaped(value: SSAValue, shape: Sequence[int], anchor: Operation) -> SSAValue:
    """A value in another shape; itself where it has that shape."""
    if nn.shape_of(value) == tuple(shape):
        return value
    op = nn.ReshapeOp(value, shape)
    insert_before(anchor, op)
    return op.result


def transposed(value: SSAValue, order: Sequence[int], anchor: Operation) -> SSAValue:
    """A value with its axes in another order; itself where they are in that order."""
    if list(order) == sorted(order):
        return value
    op = nn.TransposeOp(value, order)
    insert_before(anchor, op)
    return op.result


def expanded(value: SSAValue, shape: Sequence[int], anchor: Operation) -> SSAValue:
    """A value spread to a shape; itself where it has that shape."""
    if nn.shape_of(value) == tuple(shape):
        return value
    op = nn.ExpandOp(value, shape)
    insert_before(anchor, op)
    return op.result


def _causal(length: int, anchor: Operation) -> SSAValue:
    iota = nn.IotaOp(0, 1, TensorType(i64, (length,)))
    rows = nn.ReshapeOp(iota.result, (length, 1))
    keep = nn.CompareOp(rows.result, iota.result, "ge", TensorType(i1, (length, length)))
    insert_before(anchor, iota, rows, keep)
    return keep.result


class FoldLayouts:
    """A chain of reshapes and transposes is its root, or one transpose of it between reshapes."""

    def fold(self, op: Operation) -> None:
        """Replace the result of a layout op by what is the same in fewer steps."""
        if not isinstance(op, nn.ReshapeOp | nn.TransposeOp):
            return
        if nn.TOKENS in nn.shape_of(op.x):
            return
        layout = layout_of(op.result, scaled=False)
        root, shape = layout.root, nn.shape_of(op.result)
        if any(not stride for _, stride in layout.digits) or _steps(op, root) <= _least(layout):
            return
        replace_value(op.result, arranged(root, layout.digits, shape, op))


def _steps(op: Operation, root: SSAValue) -> int:
    """How many moves lead from a value to an op's result."""
    count = 0
    value = op.results[0]
    while value is not root and isinstance(value.owner, Move):
        value = value.owner.x
        count += 1
    return count


def _least(layout: Layout) -> int:
    """How many moves give the same, see `arranged`."""
    own = sorted(layout.digits, key=lambda digit: -digit[1])
    root, apart = nn.shape_of(layout.root), tuple(n for n, _ in own)
    if tuple(own) == layout.digits:
        return int(root != layout.shape)
    turned = tuple(n for n, _ in layout.digits)
    return 1 + (root != apart) + (turned != layout.shape)


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


def _raise(ctx: Context, op: Operation) -> None:
    """Replace an attention that ends in this op; where it only looks like one say why."""
    try:
        found = match_sdpa(op) if isinstance(op, nn.SdpaOp) else match_products(op)
        if found is not None:
            RaiseAttention(found).rewrite()
    except NotAttention as error:
        remark(ctx, error.op, f"no attention that heatc knows: {error.text}")


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
        for inner in list(op.walk()):
            _raise(ctx, inner)
        erase_dead(op)
        folder = FoldLayouts()
        for inner in list(op.walk()):
            folder.fold(inner)
        erase_dead(op)
