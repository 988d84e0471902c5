"""
Which axes of a function's values are the same axis.

An axis is known by where it comes from, never by its extent: two axes are one class where some op
makes position i of one meet position i of the other and nothing else (sums, products, attention,
a linear layer, a reshape that leaves the axis whole). Batch and tokens are then the classes that
attention says, and a transposed value, a second stream of as many tokens, or a batch as large as
a sequence are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation

Axis = tuple[SSAValue, int]

_UNARY = (nn.UnaryOp, nn.LayerNormOp, nn.RmsNormOp)
_BROADCAST = (nn.BinaryOp, nn.WhereOp, nn.ExpandOp)


Parts = list[Axis]


def runs(own: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """
    The axes of two shapes of one array in the shortest runs that hold the same elements.

    Axes of extent 1 are in no run.
    """
    left = [a for a, n in enumerate(own) if n > 1][::-1]
    right = [a for a, n in enumerate(new) if n > 1][::-1]
    runs: list[tuple[list[int], list[int]]] = []
    while left and right:
        old, result = [left.pop()], [right.pop()]
        size, wanted = own[old[0]], new[result[0]]
        while size != wanted:
            if size < wanted:
                old.append(left.pop())
                size *= own[old[-1]]
            else:
                result.append(right.pop())
                wanted *= new[result[-1]]
        runs.append((old, result))
    return runs


class Axes:
    """The classes of the axes of one function's values."""

    def __init__(self, function: FuncOp):
        self._parent: dict[Axis, Axis] = {}
        self._parts: dict[Axis, tuple[Axis, ...]] = {}
        """Of the class of an axis that a reshape made of several: these."""
        for op in function.body.block.ops:
            self._visit(op)

    def find(self, value: SSAValue, axis: int) -> Axis:
        """The class of an axis, by one of its members."""
        root = (value, axis % len(nn.shape_of(value)))
        path: list[Axis] = []
        while (above := self._parent.get(root, root)) != root:
            path.append(root)
            root = above
        for member in path:
            self._parent[member] = root
        return root

    def parts(self, value: SSAValue, axis: int) -> tuple[Axis, ...]:
        """The axes that one axis was made of by a reshape, in order; none if it was not."""
        return self._parts.get(self.find(value, axis), ())

    def same(self, first: Axis, second: Axis) -> bool:
        """Whether two axes are one class."""
        return self.find(*first) == self.find(*second)

    def _join(self, first: Axis, second: Axis) -> None:
        if nn.shape_of(first[0])[first[1]] == 1:
            # One position is aligned with everything, and says nothing.
            return
        a, b = self.find(*first), self.find(*second)
        if a == b:
            return
        self._parent[b] = a
        # What is known of one is known of both.
        parts = self._parts.pop(b, None)
        known = self._parts.setdefault(a, parts) if parts is not None else None
        if known is not None and known is not parts and parts is not None:
            self._join_parts(known, parts)

    def _align(self, value: SSAValue, result: SSAValue) -> None:
        """Axes that broadcasting puts on each other, where neither is spread."""
        own, whole = nn.shape_of(value), nn.shape_of(result)
        for back in range(1, len(own) + 1):
            if own[-back] == whole[-back]:
                self._join((result, len(whole) - back), (value, len(own) - back))

    def _visit(self, op: Operation) -> None:
        if isinstance(op, _UNARY):
            self._align(op.operands[0], op.results[0])
        elif isinstance(op, _BROADCAST):
            for value in op.operands:
                self._align(value, op.results[0])
        elif isinstance(op, nn.EmbeddingOp):
            self._lead(op.ids, op.result, len(nn.shape_of(op.ids)))
        elif isinstance(op, nn.LinearOp):
            self._lead(op.x, op.result, len(nn.shape_of(op.x)) - 1)
        elif isinstance(op, nn.MatmulOp):
            self._matmul(op)
        elif isinstance(op, ContractOp):
            self._contract(op)
        elif isinstance(op, nn.SdpaOp):
            self._nn_sdpa(op)
        elif isinstance(op, attn.SdpaOp):
            self._attn_sdpa(op)
        elif isinstance(op, nn.ReshapeOp):
            self._reshape(op)
        elif isinstance(op, nn.TransposeOp):
            for axis, source in enumerate(op.permutation.get_values()):
                self._join((op.x, int(source)), (op.result, axis))
        elif isinstance(op, nn.SliceOp):
            self._slice(op)
        elif isinstance(op, nn.ConcatOp):
            self._concat(op)
        elif isinstance(op, nn.ReduceOp):
            self._reduce(op, op.reduced)
        elif isinstance(op, nn.ArgmaxOp):
            self._reduce(op, (op.axis.value.data,))

    def _lead(self, value: SSAValue, result: SSAValue, count: int) -> None:
        for axis in range(count):
            self._join((value, axis), (result, axis))

    def _matmul(self, op: nn.MatmulOp) -> None:
        a, b, rank = nn.shape_of(op.lhs), nn.shape_of(op.rhs), len(nn.shape_of(op.result))
        self._join((op.lhs, -1), (op.rhs, -2))
        self._join((op.lhs, -2), (op.result, -2))
        self._join((op.rhs, -1), (op.result, -1))
        for value, shape in ((op.lhs, a), (op.rhs, b)):
            for axis in range(len(shape) - 2):
                at = rank - len(shape) + axis
                if shape[axis] == nn.shape_of(op.result)[at]:
                    self._join((value, axis), (op.result, at))

    def _contract(self, op: ContractOp) -> None:
        terms, result = parse_equation(op.equation.data)
        first: dict[str, Axis] = {}
        for value, term in zip((*op.inputs, op.result), (*terms, result)):
            for axis, letter in enumerate(term):
                self._join(first.setdefault(letter, (value, axis)), (value, axis))

    def _nn_sdpa(self, op: nn.SdpaOp) -> None:
        rank = len(nn.shape_of(op.q))
        for value in (op.k, op.v, op.result):
            for axis in range(rank - 2):
                self._join((op.q, axis), (value, axis))
        self._join((op.q, -1), (op.k, -1))
        self._attend(op.q, op.k, op.v, op.result, -2)
        self._join((op.v, -1), (op.result, -1))
        if op.mask is not None:
            self._align_mask(op.mask, [(op.q, a) for a in range(rank - 1)] + [(op.k, -2)])

    def _attn_sdpa(self, op: attn.SdpaOp) -> None:
        if op.packing is not None:
            return
        for value in (op.k, op.v, op.result):
            self._join((op.q, 0), (value, 0))
        self._attend(op.q, op.k, op.v, op.result, 1)
        for mask in op.masks:
            self._align_mask(mask, [(op.q, 0), None, (op.q, 1), (op.k, 1)])

    def _attend(self, q: SSAValue, k: SSAValue, v: SSAValue, result: SSAValue, axis: int) -> None:
        """Queries are rows of the result, keys those of the values; they need not be the same."""
        self._join((q, axis), (result, axis))
        self._join((k, axis), (v, axis))

    def _align_mask(self, mask: SSAValue, scores: Sequence[Axis | None]) -> None:
        shape = nn.shape_of(mask)
        for back in range(1, len(shape) + 1):
            axis = scores[-back]
            if axis is not None and shape[-back] == nn.shape_of(axis[0])[axis[1]]:
                self._join(axis, (mask, len(shape) - back))

    def _reshape(self, op: nn.ReshapeOp) -> None:
        """Axes that stay whole, those that become one, and those that an axis was made of."""
        if nn.TOKENS in nn.shape_of(op.x):
            return
        for old, new in runs(nn.shape_of(op.x), nn.shape_of(op.result)):
            before: Parts = [(op.x, a) for a in old]
            after: Parts = [(op.result, a) for a in new]
            if len(old) == len(new) == 1:
                self._join(before[0], after[0])
            elif len(new) == 1:
                self._set_parts(after[0], before)
            elif len(old) == 1:
                self._set_parts(before[0], after)

    def _set_parts(self, axis: Axis, parts: Sequence[Axis]) -> None:
        """Say what an axis is made of; the axes of an earlier reshape are the same if alike."""
        known = self._parts.setdefault(self.find(*axis), tuple(parts))
        self._join_parts(known, parts)

    def _join_parts(self, known: Sequence[Axis], parts: Sequence[Axis]) -> None:
        extents = [[nn.shape_of(value)[axis] for value, axis in some] for some in (known, parts)]
        if extents[0] == extents[1]:
            for first, second in zip(known, parts):
                self._join(first, second)

    def _slice(self, op: nn.SliceOp) -> None:
        for axis, (extent, size) in enumerate(zip(nn.shape_of(op.x), nn.shape_of(op.result))):
            if extent == size:
                self._join((op.x, axis), (op.result, axis))

    def _concat(self, op: nn.ConcatOp) -> None:
        for value in op.inputs:
            for axis in range(len(nn.shape_of(value))):
                if axis != op.dim.value.data or len(op.inputs) == 1:
                    self._join((value, axis), (op.result, axis))

    def _reduce(self, op: nn.ReduceOp | nn.ArgmaxOp, gone: Sequence[int]) -> None:
        kept = [a for a in range(len(nn.shape_of(op.x))) if a not in gone]
        for axis, source in enumerate(kept):
            self._join((op.x, source), (op.result, axis))
