"""
Padding disappears: every token tensor (B, S, width) becomes (tokens, width).

Assumes the raised level. Inserts one `attn.packing` of the key-padding mask that all attentions
share (or of all tokens, where none has a mask), and rewrites row-wise ops (contractions over the
last axis, sums, norms, activations, embeddings, attention) to work on the rows of real tokens.
Where a padded value is still needed it is put back by `attn.unpack`, zero at masked positions;
`x[:, i]` becomes `attn.token`. Leaves functions without attention, and functions whose
attentions disagree about the mask, as they are, with a remark.

Example: test/passes/pack_tokens.mlir.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.passes.effect import Effect
from heatc.passes.rewriting import erase_dead, insert_before, remark, replace_value

_POINTWISE = (
    nn.AddOp,
    nn.SubOp,
    nn.MulOp,
    nn.DivOp,
    nn.GeluOp,
    nn.TanhOp,
    nn.ReluOp,
    nn.LayerNormOp,
)


class _Packer:
    """
    Packs one function.

    `packed` maps padded values to the packed form that replaces them, `rows` those that stay
    (inputs, what all sequences share) to their rows of real tokens.
    """

    def __init__(self, block: Block, packing: attn.PackingOp):
        self.block = block
        self.packing = packing
        self.batch, self.length = attn.packing_of(packing.result).shape
        self.packed: dict[SSAValue, SSAValue] = {}
        self.rows: dict[SSAValue, SSAValue] = {}
        self.origin: dict[SSAValue, Operation] = {}

    def run(self) -> None:
        """Pack every op that can be packed, then put padded values back where they are read."""
        for op in list(self.block.ops):
            new = self._convert(op)
            if new is None:
                continue
            insert_before(op, new)
            new.location = op.location
            new.results[0].name_hint = op.results[0].name_hint
            self.packed[op.results[0]] = new.results[0]
            self.origin[op.results[0]] = op
        for padded, packed in self.packed.items():
            self._put_back(padded, packed)

    def _is_token_tensor(self, value: SSAValue) -> bool:
        shape = nn.shape_of(value)
        return len(shape) == 3 and shape[:2] == (self.batch, self.length)

    def _convert(self, op: Operation) -> Operation | None:
        if len(op.results) != 1 or not isinstance(op.results[0].type, TensorType):
            return None
        if not self._is_token_tensor(op.results[0]):
            return None
        if isinstance(op, attn.SdpaOp):
            return self._attention(op)
        if isinstance(op, ContractOp):
            return self._contraction(op)
        if isinstance(op, nn.EmbeddingOp):
            ids = self._rows(op.ids, op)
            return None if ids is None else nn.EmbeddingOp(op.table, ids)
        if isinstance(op, nn.SliceOp):
            return self._columns(op)
        if isinstance(op, _POINTWISE):
            return self._pointwise(op)
        return None

    def _pointwise(self, op: Operation) -> Operation | None:
        if not any(v in self.packed for v in op.operands):
            return None
        rows = [self._rows(v, op) for v in op.operands]
        operands = [r for r in rows if r is not None]
        if len(operands) < len(rows):
            return None
        type_ = TensorType(
            nn.element_of(op.results[0]), (nn.TOKENS, nn.shape_of(op.results[0])[-1])
        )
        return op.create(operands=operands, result_types=[type_], properties=dict(op.properties))

    def _contraction(self, op: ContractOp) -> Operation | None:
        terms, result = parse_equation(op.equation.data)
        tokens = result[:2]
        x, rest = op.inputs[0], terms[1:]
        if not self._is_token_tensor(x) or terms[0][:2] != tokens:
            return None
        if any(letter in term for letter in tokens for term in rest):
            return None
        rows = self._rows(x, op)
        if rows is None:
            return None
        used = set("".join(terms))
        row = next(c for c in "tabcdefghijklmnopqrsuvwxyz" if c not in used)
        equation = ",".join((row + terms[0][2:], *rest)) + f"->{row}{result[2:]}"
        type_ = TensorType(nn.element_of(op.result), (nn.TOKENS, *nn.shape_of(op.result)[2:]))
        return ContractOp(equation, [rows, *op.inputs[1:]], type_)

    def _attention(self, op: attn.SdpaOp) -> Operation | None:
        rows = [self._rows(v, op) for v in (op.q, op.k, op.v)]
        q, k, v = rows
        if q is None or k is None or v is None:
            return None
        type_ = TensorType(nn.element_of(op.result), (nn.TOKENS, nn.shape_of(op.result)[-1]))
        return attn.SdpaOp(
            q,
            k,
            v,
            op.heads.value.data,
            op.scale.value.data,
            packing=self.packing.result,
            bias=op.bias,
            result_type=type_,
        )

    def _columns(self, op: nn.SliceOp) -> Operation | None:
        starts, steps = op.starts.get_values(), op.steps.get_values()
        if op.x not in self.packed or tuple(starts[:2]) != (0, 0) or tuple(steps[:2]) != (1, 1):
            return None
        if nn.shape_of(op.x)[:2] != (self.batch, self.length):
            return None
        width = nn.shape_of(op.result)[-1]
        return nn.SliceOp(
            self.packed[op.x], (0, int(starts[2])), (nn.TOKENS, width), (1, int(steps[2]))
        )

    def _rows(self, value: SSAValue, anchor: Operation) -> SSAValue | None:
        """
        The packed form of an operand.

        Vectors over the last axis and scalars are the same for all tokens and stay.
        """
        if value in self.packed:
            return self.packed[value]
        if value not in self.rows:
            rows = self._new_rows(value, anchor)
            if rows is None or rows is value:
                return rows
            self.rows[value] = rows
        return self.rows[value]

    def _new_rows(self, value: SSAValue, anchor: Operation) -> SSAValue | None:
        shape = nn.shape_of(value)
        is_ids = isinstance(anchor, nn.EmbeddingOp)
        if not is_ids and len(shape) < 2:
            return value
        if not is_ids and len(shape) == 3 and shape[:2] == (1, 1):
            flat = nn.ReshapeOp(value, shape[2:])
            insert_before(anchor, flat)
            return flat.result
        rank = 2 if is_ids else 3
        shape = (1,) * (rank - len(shape)) + shape
        if len(shape) != rank or any(
            a not in (1, b) for a, b in zip(shape, (self.batch, self.length))
        ):
            return None
        if isinstance(value.owner, nn.EmbeddingOp):
            # Ids are packed, not the rows of a table that all sequences share.
            embedding = value.owner
            ids = self._rows(embedding.ids, embedding)
            if ids is None:
                return None
            again = nn.EmbeddingOp(embedding.table, ids)
            insert_before(embedding, again)
            again.result.name_hint = value.name_hint
            return again.result
        full = (self.batch, self.length, *shape[2:])
        if nn.shape_of(value) != full:
            expand = nn.ExpandOp(value, full)
            insert_before(anchor, expand)
            value = expand.result
        pack = attn.PackOp(value, self.packing.result)
        insert_before(anchor, pack)
        return pack.result

    def _put_back(self, padded: SSAValue, packed: SSAValue) -> None:
        for use in list(padded.uses):
            self._select(use.operation, padded, packed)
        readers = [u for u in padded.uses if u.operation not in self.origin.values()]
        if not readers:
            return
        unpack = attn.UnpackOp(packed, self.packing.result)
        owner = packed.owner
        assert isinstance(owner, Operation)
        unpack.location = owner.location
        Rewriter.insert_op(unpack, InsertPoint.after(owner))
        replace_value(padded, unpack.result)

    def _select(self, op: Operation, padded: SSAValue, packed: SSAValue) -> None:
        """`x[:, i]`, a slice of one position that is reshaped to (B, width), is `attn.token`."""
        if isinstance(op, nn.ReshapeOp) and self.length == 1:
            self._take(op, packed, 0)
            return
        if not isinstance(op, nn.SliceOp):
            return
        width = nn.shape_of(padded)[-1]
        starts = [int(s) for s in op.starts.get_values()]
        if nn.shape_of(op.result) != (self.batch, 1, width) or starts[0] != 0 or starts[2] != 0:
            return
        for use in list(op.result.uses):
            if isinstance(use.operation, nn.ReshapeOp):
                self._take(use.operation, packed, starts[1])

    def _take(self, reshape: nn.ReshapeOp, packed: SSAValue, position: int) -> None:
        if nn.shape_of(reshape.result) != (self.batch, nn.shape_of(packed)[-1]):
            return
        token = attn.TokenOp(packed, self.packing.result, position)
        insert_before(reshape, token)
        replace_value(reshape.result, token.result)


def _attentions(function: FuncOp) -> list[attn.SdpaOp]:
    return [op for op in function.body.block.ops if isinstance(op, attn.SdpaOp)]


def pack_function(function: FuncOp) -> None:
    """Pack one function in place, or leave it with a remark."""
    attentions = [op for op in _attentions(function) if op.packing is None]
    if not attentions:
        return
    masks = {op.key_padding for op in attentions}
    shapes = {nn.shape_of(op.q)[:2] for op in attentions}
    if len(masks) > 1 or len(shapes) > 1:
        remark(attentions[0], "attentions disagree about the mask: padding is not packed away")
        return
    mask = masks.pop()
    if mask is not None and any(op.bias is not None for op in attentions):
        remark(attentions[0], "a mask beside the key padding: padding is not packed away")
        return
    if isinstance(mask, SSAValue) and not isinstance(mask, BlockArgument):
        remark(attentions[0], "the key padding is computed: padding is not packed away")
        return
    batch, length = shapes.pop()
    block = function.body.block
    packing = attn.PackingOp(mask, batch, length)
    first = block.first_op
    assert first is not None
    Rewriter.insert_op(packing, InsertPoint.before(first))
    _Packer(block, packing).run()


@dataclass(frozen=True)
class PackTokensPass(ModulePass):
    """Token tensors keep the rows of real tokens only; exact there, 0 at masked positions."""

    name = "pack-tokens"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite every function of the module in place."""
        for inner in list(op.ops):
            if isinstance(inner, FuncOp) and inner.body.blocks:
                pack_function(inner)
        erase_dead(op)
