"""Rows of packed tokens of what is no packed value: inputs, constants, what all sequences share."""

from __future__ import annotations

import math
from collections.abc import Mapping

from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.passes.analysis.reads import TokenAxes
from heatc.passes.rewriting import insert_before


class PackedRows:
    """
    Makes rows of operands of packed ops, once each.

    `packed` maps padded values to the packed form that replaces them.
    """

    def __init__(self, tokens: TokenAxes, packed: Mapping[SSAValue, SSAValue], packing: SSAValue):
        self.tokens = tokens
        self.batch, self.length = tokens.batch, tokens.length
        self.packed = packed
        self.packing = packing
        self.known: dict[tuple[SSAValue, bool, bool], SSAValue] = {}

    def of(self, value: SSAValue, anchor: Operation) -> SSAValue | None:
        """
        The packed form of an operand.

        Vectors over the last axis and scalars are the same for all tokens and stay.
        """
        result = anchor.results[0]
        is_number = self.tokens.is_numbers(result)
        if value in self.packed:
            # Numbers that meet the last axis of a stream are no columns of it.
            return self.packed[value] if self.tokens.is_numbers(value) == is_number else None
        turned = self.tokens.is_turned(result)
        key = (value, turned, is_number)
        if key not in self.known:
            make = self._turned_rows if turned else self._new_rows
            rows = self._number_rows(value, anchor) if is_number else make(value, anchor)
            if rows is None or rows is value:
                return rows
            self.known[key] = rows
        return self.known[key]

    def _number_rows(self, value: SSAValue, anchor: Operation) -> SSAValue | None:
        """The packed form of an operand of an op whose result is one number a token."""
        own, shape = nn.shape_of(value), nn.shape_of(anchor.results[0])
        if not own:
            return value
        if own != shape:
            wide = nn.ExpandOp(value, shape)
            insert_before(anchor, wide)
            value = wide.result
        order = (self.batch, self.length)
        if self.tokens.is_turned(anchor.results[0]):
            apart = nn.ReshapeOp(value, order[::-1])
            turned = nn.TransposeOp(apart.result, (1, 0))
            insert_before(anchor, apart, turned)
            value = turned.result
        return self._packed_rows(value, (*order, 1), anchor)

    def _turned_rows(self, value: SSAValue, anchor: Operation) -> SSAValue | None:
        """The packed form of an operand of an op whose result has its tokens first."""
        is_ids = isinstance(anchor, nn.EmbeddingOp)
        rank, shape = len(nn.shape_of(anchor.results[0])) - is_ids, nn.shape_of(value)
        if len(shape) < 2 and not is_ids:
            return value
        shape = (1,) * (rank - len(shape)) + shape
        full = (self.length, self.batch)
        if rank == 2 and not is_ids:
            # (S * B, width)
            if shape[0] != self.length * self.batch:
                return None
            shape = (*full, shape[-1])
        if len(shape) < 2 or any(a not in (1, b) for a, b in zip(shape, full)):
            return None
        order = (1, 0, *range(2, len(shape)))
        apart = nn.ReshapeOp(value, shape)
        turned = nn.TransposeOp(apart.result, order)
        insert_before(anchor, apart, turned)
        return self._packed_rows(turned.result, (*full[::-1], *shape[2:]), anchor)

    def _new_rows(self, value: SSAValue, anchor: Operation) -> SSAValue | None:
        shape = nn.shape_of(value)
        is_ids = isinstance(anchor, nn.EmbeddingOp)
        if isinstance(anchor, attn.SdpaOp):
            return self._packed_rows(value, shape, anchor)
        if not is_ids and len(shape) < 2:
            return value
        if not is_ids and len(shape) == 3 and shape[:2] == (1, 1):
            flat = nn.ReshapeOp(value, shape[2:])
            insert_before(anchor, flat)
            return flat.result
        if not is_ids and len(shape) == 2 and self.batch > 1 and self.tokens.is_stream(value):
            return self._packed_rows(value, (self.batch, self.length, shape[-1]), anchor)
        rank = 2 if is_ids else 3
        shape = (1,) * (rank - len(shape)) + shape
        if len(shape) != rank or any(
            a not in (1, b) for a, b in zip(shape, (self.batch, self.length))
        ):
            return None
        if isinstance(value.owner, nn.EmbeddingOp):
            # Ids are packed, not the rows of a table that all sequences share.
            embedding = value.owner
            ids = self.of(embedding.ids, embedding)
            if ids is None:
                return None
            again = nn.EmbeddingOp(embedding.table, ids)
            insert_before(embedding, again)
            again.result.name_hint = value.name_hint
            return again.result
        return self._packed_rows(value, (self.batch, self.length, *shape[2:]), anchor)

    def _packed_rows(self, value: SSAValue, full: tuple[int, ...], anchor: Operation) -> SSAValue:
        """The rows of a value that has, or is spread to, one for each position."""
        shape = nn.shape_of(value)
        if shape != full:
            flat = math.prod(shape) == math.prod(full)
            whole = nn.ReshapeOp(value, full) if flat else nn.ExpandOp(value, full)
            insert_before(anchor, whole)
            value = whole.result
        pack = attn.PackOp(value, self.packing)
        insert_before(anchor, pack)
        return pack.result
