"""
Padding disappears: every token tensor (B, S, width) becomes (tokens, width).

Assumes the raised level. Where all attentions are of one stream of tokens to itself, and their
masks are proven to be the same key padding (`passes/analysis/padding.py`), inserts one
`attn.packing` of it (or of all tokens, where none has a mask). Rewrites row-wise ops
(contractions and reductions over the last axis, sums, norms, activations, embeddings, attention) on
values whose axes are that batch and these tokens (`passes/analysis/axes.py`) to work on packed rows.

A masked position that some other op reads is computed as the model computes it: it is a query, and
no key. Which positions these are is a static set (`passes/analysis/reads.py`). An output that has
the token axis is 0 at masked positions, and its attribute `heatc.padding` says so; with
`padding=compute` every position is computed.

Where the masks are not proven, or not the same, every position is a token, the masks stay, and a
remark says so. So it is where a masked position may see nothing but scores of -inf beside real tokens
and a product with 0 would carry its NaN on. Leaves functions without attention, and those whose
attentions are of several streams.

Example: test/passes/pack_tokens.mlir.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xdsl.context import Context
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    DictionaryAttr,
    ModuleOp,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from heatc.context import known_weights_of
from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.passes.analysis.axes import Axes
from heatc.passes.analysis.masks import Part, Reading, read_masks, with_masks
from heatc.passes.analysis.padding import DOUBTED, POINTWISE, KeyPadding, MaskTracker
from heatc.passes.analysis.reads import Reads, TokenAxes, is_summed, is_zero_where_masked
from heatc.passes.effect import Effect
from heatc.passes.packing.maxima import bound_maximum
from heatc.passes.packing.rows import PackedRows
from heatc.passes.rewriting import erase_dead, insert_before, remark, replace_value

PADDINGS = ("skip", "compute")
"""What becomes of masked positions of outputs that have the token axis: 0, or computed."""

_POINTWISE = (
    *POINTWISE,
    nn.GeluOp,
    nn.TanhOp,
    nn.ReluOp,
    nn.LayerNormOp,
    nn.RmsNormOp,
    nn.SoftmaxOp,
)


class Masks(NamedTuple):
    """
    The key padding of a function, and the masks that each attention keeps beside it.

    Without `every_row` masked positions must not be read. With `needs_token` a sequence without a real
    token has to be refused. With `has_nan` rows of a sequence without a real token are NaN in the model;
    with `nan_at_masked` masked positions of others may be, too.
    """

    padding: KeyPadding
    kept: dict[attn.SdpaOp, list[Part]]
    every_row: bool = True
    needs_token: bool = False
    has_nan: bool = False
    nan_at_masked: bool = False


class _Packer:
    """
    Packs one function.

    `packed` maps padded values to the packed form that replaces them, `rows` makes packed rows of
    those that stay (inputs, what all sequences share).
    """

    def __init__(self, function: FuncOp, tokens: TokenAxes, masks: Masks, compute: bool):
        self.function = function
        self.tokens = tokens
        self.batch, self.length = tokens.batch, tokens.length
        self.compute = compute
        self.masks = masks
        self.padding, self.kept = masks.padding, masks.kept
        self.packing = self._packing_op(())
        self.packed: dict[SSAValue, SSAValue] = {}
        self.rows = PackedRows(tokens, self.packed, self.packing.result)
        self.converted: set[Operation] = set()
        self.pooled: set[SSAValue] = set()

    def run(self) -> bool:
        """
        Pack every op that can be packed, then put padded values back where they are read.

        False where masked positions are read that must not be; then nothing has changed but that
        there are ops that nobody uses.
        """
        block = self.function.body.block
        ops = list(block.ops)
        self._insert_packing(ops[0])
        for op in ops:
            new = self._convert(op)
            if new is None:
                self._note_pooled(op)
                continue
            insert_before(op, new)
            new.location = op.location
            new.results[0].name_hint = op.results[0].name_hint
            self.packed[op.results[0]] = new.results[0]
            self.converted.add(op)
        last = block.last_op
        assert isinstance(last, ReturnOp)
        outputs = list(last.operands)
        reads = Reads(self.tokens, self.converted, compute=self.compute, padding=self.padding)
        if self.padding.mask is not None:
            positions = self._positions(reads)
            # NaN times 0 is NaN: a weight of 0 does not keep it out of a sum over tokens.
            sums_nan = self.masks.has_nan and reads.relies_on_zero
            if self.masks.nan_at_masked and (sums_nan or len(self.kept) > 1):
                return False
            # A row of its own for the first position refuses a sequence without a real token.
            if self.masks.needs_token or sums_nan:
                positions |= {0}
            if positions and not self.masks.every_row:
                return False
            self._keep(positions)
            reads.rows = positions
        for padded, packed in self.packed.items():
            self._put_back(padded, packed, reads)
        if self.padding.mask is not None and not self.compute:
            self._clear(last, outputs)
        return True

    # -- the packing -----------------------------------------------------------------------

    def _packing_op(self, reads: tuple[int, ...]) -> attn.PackingOp:
        padding = self.padding
        if padding.mask is None:
            return attn.PackingOp(None, self.batch, self.length)
        real, masked = attn.ValuesAttr(padding.real), attn.ValuesAttr(padding.masked)
        return attn.PackingOp(padding.mask, self.batch, self.length, reads, real, masked)

    def _insert_packing(self, first: Operation) -> None:
        mask = self.padding.mask
        if mask is not None and nn.shape_of(mask) != (self.batch, self.length):
            reshape = nn.ReshapeOp(mask, (self.batch, self.length))
            Rewriter.insert_op(reshape, InsertPoint.before(first))
            self.packing.operands[0] = reshape.result
        Rewriter.insert_op(self.packing, InsertPoint.before(first))

    def _positions(self, reads: Reads) -> frozenset[int]:
        """The masked positions that are read."""
        positions: frozenset[int] = reads.everything if self.compute else frozenset()
        for padded in self.packed:
            positions |= reads.of(padded)
        return positions

    def _keep(self, positions: frozenset[int]) -> None:
        """Give masked positions that are read a row of their own."""
        if not positions:
            return
        old, new = self.packing, self._packing_op(tuple(sorted(positions)))
        if old.mask is not None:
            new.operands[0] = old.mask
        Rewriter.insert_op(new, InsertPoint.before(old))
        replace_value(old.result, new.result)
        old.detach()
        old.erase()
        self.packing = new

    # -- ops -------------------------------------------------------------------------------

    def _convert(self, op: Operation) -> Operation | None:
        if len(op.results) != 1 or not isinstance(op.results[0].type, TensorType):
            return None
        if self.tokens.is_numbers(op.results[0]):
            return self._number(op)
        if not self.tokens.is_stream(op.results[0]):
            return None
        if isinstance(op, attn.SdpaOp):
            return self._attention(op)
        if isinstance(op, nn.ReshapeOp | nn.TransposeOp):
            return self._same_rows(op)
        if isinstance(op, ContractOp):
            return self._contraction(op)
        if isinstance(op, nn.EmbeddingOp):
            ids = self.rows.of(op.ids, op)
            return None if ids is None else nn.EmbeddingOp(op.table, ids)
        if isinstance(op, nn.SliceOp):
            return self._columns(op)
        if isinstance(op, nn.ExpandOp):
            return self._repeated(op)
        if isinstance(op, nn.ConcatOp):
            return self._side_by_side(op)
        last = len(nn.shape_of(op.results[0])) - 1
        if isinstance(op, nn.SoftmaxOp) and op.dim.value.data not in (-1, last):
            return None
        if isinstance(op, _POINTWISE):
            return self._pointwise(op)
        return None

    def _same_rows(self, op: nn.ReshapeOp | nn.TransposeOp) -> None:
        """(B, S, width) as (B * S, width), tokens first as they are, or the other way."""
        if op.x not in self.packed:
            return
        turns = self.tokens.is_turned(op.x) != self.tokens.is_turned(op.result)
        if isinstance(op, nn.TransposeOp):
            order = [int(axis) for axis in op.permutation.get_values()]
            if not _moves_no_row(op) and not (turns and order == [1, 0, 2]):
                return
        elif turns and 1 not in (self.batch, self.length):
            return
        self.packed[op.result] = self.packed[op.x]
        self.converted.add(op)

    def _number(self, op: Operation) -> Operation | None:
        """An op that gives a number a token: rows of one column."""
        if isinstance(op, nn.ReduceOp):
            return self._reduction(op)
        if isinstance(op, nn.ReshapeOp | nn.TransposeOp) and self.tokens.is_numbers(op.x):
            return self._same_rows(op)
        return self._pointwise(op) if isinstance(op, POINTWISE) else None

    def _reduction(self, op: nn.ReduceOp) -> Operation | None:
        """A reduction of a stream over its last axis."""
        last = len(nn.shape_of(op.x)) - 1
        if op.x not in self.packed or op.reduced != (last,) or not self.tokens.is_stream(op.x):
            return None
        if not isinstance(nn.element_of(op.result), AnyFloat):
            return None
        reduced = nn.ReduceOp(self.packed[op.x], op.kind.data, (1,), nn.element_of(op.result))
        insert_before(op, reduced)
        reduced.location = op.location
        return nn.ReshapeOp(reduced.result, (nn.TOKENS, 1))

    def _repeated(self, op: nn.ExpandOp) -> Operation | None:
        """A column of each token as several."""
        own, shape = nn.shape_of(op.x), nn.shape_of(op.result)
        if op.x not in self.packed or not self.tokens.is_stream(op.x) or own[:-1] != shape[:-1]:
            return None
        return nn.ExpandOp(self.packed[op.x], (nn.TOKENS, shape[-1]))

    def _note_pooled(self, op: Operation) -> None:
        """Remember what is computed of tokens and has none."""
        if op not in self.converted and any(
            v in self.packed or v in self.pooled for v in op.operands
        ):
            self.pooled.update(op.results)

    def _pointwise(self, op: Operation) -> Operation | None:
        if not any(v in self.packed for v in op.operands):
            return None
        if any(v in self.pooled for v in op.operands) and is_summed(op.results[0], self.tokens):
            # Packed and back again it would be rounded on both ways.
            return None
        rows = [self.rows.of(v, op) for v in op.operands]
        operands = [r for r in rows if r is not None]
        if len(operands) < len(rows):
            return None
        result = op.results[0]
        width = 1 if self.tokens.is_numbers(result) else nn.shape_of(result)[-1]
        type_ = TensorType(nn.element_of(result), (nn.TOKENS, width))
        properties = dict(op.properties)
        if isinstance(op, nn.SoftmaxOp):
            return nn.SoftmaxOp(operands[0], -1, type_, safe=op.safe is not None)
        return op.create(operands=operands, result_types=[type_], properties=properties)

    def _contraction(self, op: ContractOp) -> Operation | None:
        terms, result = parse_equation(op.equation.data)
        lead = len(nn.shape_of(op.result)) - 1
        tokens = result[:lead]
        x, rest = op.inputs[0], terms[1:]
        if not self.tokens.is_stream(x) or terms[0][:-1] != tokens:
            return None
        if any(letter in term for letter in tokens for term in rest):
            return None
        rows = self.rows.of(x, op)
        if rows is None:
            return None
        used = set("".join(terms))
        row = next(c for c in "tabcdefghijklmnopqrsuvwxyz" if c not in used)
        equation = ",".join((row + terms[0][lead:], *rest)) + f"->{row}{result[lead:]}"
        type_ = TensorType(nn.element_of(op.result), (nn.TOKENS, nn.shape_of(op.result)[-1]))
        return ContractOp(equation, [rows, *op.inputs[1:]], type_)

    def _attention(self, op: attn.SdpaOp) -> Operation | None:
        rows = [self.rows.of(v, op) for v in (op.q, op.k, op.v)]
        q, k, v = rows
        if q is None or k is None or v is None:
            return None
        masks, fills = with_masks(self.kept[op])
        packed = attn.SdpaOp(
            q,
            k,
            v,
            op.heads.value.data,
            op.scale.value.data,
            packing=self.packing.result,
            masks=masks,
            fills=fills,
            keyless=op.keyless,
            result_type=TensorType(
                nn.element_of(op.result), (nn.TOKENS, nn.shape_of(op.result)[-1])
            ),
        )
        packed.rule = op.rule
        return packed

    def _columns(self, op: nn.SliceOp) -> Operation | None:
        """A slice of a stream that is a stream itself: it has all sequences and tokens."""
        if op.x not in self.packed:
            return None
        starts, steps = ([int(i) for i in a.get_values()] for a in (op.starts, op.steps))
        width = nn.shape_of(op.result)[-1]
        return nn.SliceOp(self.packed[op.x], (0, starts[-1]), (nn.TOKENS, width), (1, steps[-1]))

    def _side_by_side(self, op: nn.ConcatOp) -> Operation | None:
        """Streams put together along their last axis."""
        lead = len(nn.shape_of(op.result)) - 1
        streams = all(v in self.packed and self.tokens.is_stream(v) for v in op.inputs)
        if op.dim.value.data != lead or not streams:
            return None
        type_ = TensorType(nn.element_of(op.result), (nn.TOKENS, nn.shape_of(op.result)[-1]))
        return nn.ConcatOp([self.packed[v] for v in op.inputs], 1, type_)

    # -- back ------------------------------------------------------------------------------

    @property
    def _reads(self) -> tuple[int, ...]:
        """The masked positions that have rows."""
        return attn.packing_of(self.packing.result).reads

    def _put_back(self, padded: SSAValue, packed: SSAValue, reads: Reads) -> None:
        for use in list(padded.uses):
            self._select(use.operation, padded, packed)
        uses = [u for u in padded.uses if u.operation not in self.converted]
        read = [u for u in uses if reads.of_use(u.operation, padded)]
        rest = [u for u in uses if u not in read]
        for chosen, kept in ((rest, False), (read, True)):
            if not chosen:
                continue
            kept = kept and bool(self._reads)
            unpack = attn.UnpackOp(packed, self.packing.result, read=kept)
            unpack.result.name_hint = padded.name_hint
            owner = packed.owner
            assert isinstance(owner, Operation)
            unpack.location = owner.location
            Rewriter.insert_op(unpack, InsertPoint.after(owner))
            found = self._in_shape(unpack, padded)
            for use in chosen:
                use.operation.operands[use.index] = found

    def _in_shape(self, unpack: attn.UnpackOp, padded: SSAValue) -> SSAValue:
        """What was unpacked, (B, S, width), in the shape and order of a padded value."""
        found, last = unpack.result, unpack
        moves: list[nn.TransposeOp | nn.ReshapeOp] = []
        if self.tokens.is_turned(padded):
            moves.append(nn.TransposeOp(found, (1, 0, 2)))
            found = moves[-1].result
        if nn.shape_of(padded) != nn.shape_of(found):
            moves.append(nn.ReshapeOp(found, nn.shape_of(padded)))
            found = moves[-1].result
        for move in moves:
            move.location = unpack.location
        Rewriter.insert_op(moves, InsertPoint.after(last))
        return found

    def _select(self, op: Operation, padded: SSAValue, packed: SSAValue) -> None:
        """`x[:, i]`, a slice of one position that is reshaped to (B, width), is `attn.token`."""
        if isinstance(op, nn.ReshapeOp) and self.length == 1:
            self._take(op, packed, 0)
            return
        if not isinstance(op, nn.SliceOp):
            return
        shape, starts = nn.shape_of(op.result), [int(s) for s in op.starts.get_values()]
        token = 0 if self.tokens.is_turned(padded) else 1
        wanted = [self.batch, nn.shape_of(padded)[-1]]
        wanted.insert(token, 1)
        if shape != tuple(wanted) or any(starts[:token] + starts[token + 1 :]):
            return
        for use in list(op.result.uses):
            if isinstance(use.operation, nn.ReshapeOp):
                self._take(use.operation, packed, starts[token], token)

    def _take(self, reshape: nn.ReshapeOp, packed: SSAValue, position: int, axis: int = 1) -> None:
        if nn.shape_of(reshape.result) != (self.batch, nn.shape_of(packed)[-1]):
            return
        if reshape.dropped_axis not in (None, axis):
            # Another axis of extent 1: the tokens are still there.
            return
        if self.packing.mask is not None and position not in self._reads:
            return
        token = attn.TokenOp(packed, self.packing.result, position)
        insert_before(reshape, token)
        replace_value(reshape.result, token.result)

    # -- outputs ---------------------------------------------------------------------------

    def _clear(self, last: ReturnOp, outputs: list[SSAValue]) -> None:
        """Of the padded outputs those with the token axis are 0 at masked positions, and say so."""
        zero = {i for i, padded in enumerate(outputs) if self.tokens.has_tokens(padded)}
        for i in zero:
            value = last.operands[i]
            if not is_zero_where_masked(value):
                last.operands[i] = self._cleared(value, outputs[i], last)
        _declare(self.function, zero)

    def _cleared(self, value: SSAValue, padded: SSAValue, anchor: Operation) -> SSAValue:
        """An output, 0 at masked positions; `padded` is what it was before anything was packed."""
        real = attn.RealOp(self.packing.result)
        insert_before(anchor, real)
        kept: SSAValue | None = None
        for shape, turned in self.tokens.spreads(padded):
            keep = self._spread(real.result, shape, turned, anchor)
            if kept is not None:
                # Tokens by tokens, as similarities are: both have to be real.
                both = nn.AndOp(kept, keep)
                insert_before(anchor, both)
                keep = both.result
            kept = keep
        assert kept is not None
        zero = nn.FullOp(0.0, TensorType(nn.element_of(value), ()))
        where = nn.WhereOp(kept, value, zero.result, value.type)
        insert_before(anchor, zero, where)
        return where.result

    def _spread(
        self, real: SSAValue, shape: tuple[int, ...], turned: bool, anchor: Operation
    ) -> SSAValue:
        """Which tokens are real, in a shape that broadcasts to an output."""
        if turned:
            transpose = nn.TransposeOp(real, (1, 0))
            insert_before(anchor, transpose)
            real = transpose.result
        flat = nn.ReshapeOp(real, shape)
        insert_before(anchor, flat)
        return flat.result


def _moves_no_row(op: nn.TransposeOp) -> bool:
    """Whether a transpose leaves the rows of a stream where they are: only ones change places."""
    extents = nn.shape_of(op.x)
    order = [axis for axis in op.permutation.get_values() if extents[axis] > 1]
    return order == sorted(order)


def _declare(function: FuncOp, zero: set[int]) -> None:
    """Say in the results' attributes which outputs are 0 at masked positions."""
    count = len(function.function_type.outputs)
    known = function.res_attrs.data if function.res_attrs is not None else ()
    attributes = [*known] or [DictionaryAttr({})] * count
    for i in zero:
        data: dict[str, Attribute] = {**attributes[i].data, "heatc.padding": StringAttr("zero")}
        attributes[i] = DictionaryAttr(data)
    function.res_attrs = ArrayAttr(attributes)


def _attentions(function: FuncOp) -> list[attn.SdpaOp]:
    return [op for op in function.body.block.ops if isinstance(op, attn.SdpaOp)]


def _token_axes(ctx: Context, function: FuncOp, attentions: list[attn.SdpaOp]) -> TokenAxes | None:
    """The one stream of tokens that all attentions attend to, None with a remark."""
    axes, first = Axes(function), attentions[0]
    tokens = TokenAxes(axes, first.k)
    for op in attentions:
        if not all(tokens.is_stream(v) for v in (op.q, op.k, op.v)):
            remark(ctx, op, "attentions are of other streams of tokens: padding is not packed away")
            return None
    if tokens.is_ambiguous():
        remark(ctx, first, "the batch is an axis of tokens too: padding is not packed away")
        return None
    return tokens


def _common_masks(ctx: Context, attentions: list[attn.SdpaOp]) -> Masks:
    """The key padding that all masks are proven to have; none, with a remark, if they have not."""
    tracker = MaskTracker(known_weights_of(ctx))
    found = {op: read_masks(op, tracker) for op in attentions}
    unproven = [op for op, reading in found.items() if reading is None]
    if unproven:
        remark(ctx, unproven[0], "the mask is not provably key padding: every position is computed")
        return _whole(attentions, found)
    readings = {op: reading for op, reading in found.items() if reading is not None}
    together = {p for r in readings.values() for p in r.paddings or {KeyPadding(None)}}
    if len(together) > 1:
        # One without a mask is more likely to be a mistake than those with one.
        bare = (op for op in attentions if not op.masks)
        odd = next(bare, attentions[0])
        remark(ctx, odd, "attentions disagree about the mask: every position is computed")
        return _whole(attentions, found)
    padding = together.pop()
    if padding.weakest > DOUBTED:
        remark(
            ctx,
            attentions[0],
            f"a key with a score of {padding.weakest:g} is taken to be hidden: scores of thousands "
            "would need a lower fill",
        )
    kept = {op: reading.kept for op, reading in readings.items()}
    every_row = all(reading.every_row for reading in readings.values())
    nan = [r for op, r in readings.items() if op.keyless == "nan" and r.infinite]
    at_masked = any(reading.blinds for reading in nan)
    return Masks(padding, kept, every_row, has_nan=bool(nan), nan_at_masked=at_masked)


def _with_maxima(function: FuncOp, tokens: TokenAxes, masks: Masks, compute: bool) -> Masks:
    """Bound maxima over real tokens by them, which narrows what the masks may hold."""
    if masks.padding.mask is None or not masks.every_row:
        return masks
    for op in [op for op in function.body.block.ops if isinstance(op, nn.ReduceOp)]:
        reads = Reads(tokens, (), compute=compute, padding=masks.padding)
        padding = bound_maximum(op, reads)
        if padding is not None:
            masks = masks._replace(padding=padding, needs_token=True)
    return masks


def _whole(attentions: list[attn.SdpaOp], found: dict[attn.SdpaOp, Reading | None]) -> Masks:
    """Every position has a row, and all masks stay but those that hide nothing."""
    kept: dict[attn.SdpaOp, list[Part]] = {}
    for op in attentions:
        reading = found[op]
        nothing = reading is not None and not reading.paddings and not reading.kept
        kept[op] = [] if nothing else [Part(m, fill) for m, fill in zip(op.masks, op.fills)]
    return Masks(KeyPadding(None), kept)


def pack_function(ctx: Context, function: FuncOp, padding: str = "skip") -> None:
    """Pack one function in place, or leave it with a remark."""
    attentions = [op for op in _attentions(function) if op.packing is None]
    if not attentions:
        return
    tokens = _token_axes(ctx, function, attentions)
    if tokens is None:
        return
    masks = _with_maxima(function, tokens, _common_masks(ctx, attentions), padding == "compute")
    if _Packer(function, tokens, masks, padding == "compute").run():
        return
    erase_dead(function)
    text = "masked positions matter, and may see no key that is real: every position is computed"
    remark(ctx, attentions[0], text)
    whole = _whole(attentions, dict.fromkeys(attentions))
    _Packer(function, tokens, whole, padding == "compute").run()


@dataclass(frozen=True)
class PackTokensPass(ModulePass):
    """
    Token tensors keep the rows that something depends on; exact.

    `padding` is `skip` (outputs are 0 at masked positions) or `compute`.
    """

    name = "pack-tokens"
    effect: ClassVar[Effect] = Effect.EXACT

    padding: str = "skip"

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ValueError(f"unknown padding {self.padding!r}, expected one of {PADDINGS}")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite every function of the module in place."""
        for inner in list(op.ops):
            if isinstance(inner, FuncOp) and inner.body.blocks:
                pack_function(ctx, inner, self.padding)
        erase_dead(op)
