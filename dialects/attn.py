"""
The `attn` dialect: packed tokens, attention, and attention pruned by HDP.

Padding disappears once: `attn.packing` lists the real tokens of a batch, `attn.pack` keeps their
rows, `attn.unpack` puts rows back and zeros elsewhere. In between every tensor is (tokens, width)
and no op needs a mask. Scores are (batch, heads, S, S), zero outside each sequence's own L x L.

HDP attention (rule `paper`) is the chain
`split -> integer_scores -> block_importance -> block_mask, head_gate -> merge_scores ->
softmax -> weighted_values`; without pruning it is `scores -> softmax -> weighted_values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    DenseArrayBase,
    FloatAttr,
    IntAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    f64,
    i1,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

AnyTensor = TensorType[Attribute]
Value = SSAValue | Operation

PRUNED_SCORES = ("zero", "neginf", "int", "mean")
_FORMAT = "operands attr-dict `:` functional-type(operands, results)"


@irdl_attr_definition
class PackingType(ParametrizedAttribute, TypeAttribute):
    """`!attn.packing<8, 128>`: which of 8 x 128 token positions are real, known at run time."""

    name = "attn.packing"
    batch: IntAttr
    length: IntAttr

    def __init__(self, batch: int | IntAttr, length: int | IntAttr):
        super().__init__(
            IntAttr(batch) if isinstance(batch, int) else batch,
            IntAttr(length) if isinstance(length, int) else length,
        )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            batch = parser.parse_integer()
            parser.parse_punctuation(",")
            length = parser.parse_integer()
        return (IntAttr(batch), IntAttr(length))

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<{self.batch.data}, {self.length.data}>")

    def verify(self) -> None:
        if self.batch.data < 1 or self.length.data < 1:
            raise VerifyException(
                f"batch {self.batch.data} and length {self.length.data} must be positive"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, length)."""
        return self.batch.data, self.length.data


def tensor_of(value: SSAValue) -> AnyTensor:
    """The tensor type of a value."""
    if not isinstance(value.type, TensorType):
        raise VerifyException(f"expected a tensor, got {value.type}")
    return cast(AnyTensor, value.type)


def packing_of(value: SSAValue) -> PackingType:
    """The packing type of a value."""
    if not isinstance(value.type, PackingType):
        raise VerifyException(f"expected a packing, got {value.type}")
    return value.type


def _text(shape: Sequence[int]) -> str:
    """`(?, 4)`: a shape in a message."""
    extents = ["?" if n == DYNAMIC_INDEX else str(n) for n in shape]
    return f"({', '.join(extents)})" if len(extents) != 1 else f"({extents[0]},)"


def _expect_shape(what: str, value: SSAValue, shape: Sequence[int]) -> None:
    if tensor_of(value).get_shape() != tuple(shape):
        raise VerifyException(
            f"expected {what} of shape {_text(shape)}, got {_text(tensor_of(value).get_shape())}"
        )


def _expect_divides(heads: int, width: int) -> None:
    if heads < 1 or width % heads:
        raise VerifyException(f"{heads} heads do not divide width {width}")


class AttnOp(IRDLOperation):
    """Base of the ops: pure, properties in the attribute dictionary."""

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = _FORMAT


@irdl_op_definition
class PackingOp(AttnOp):
    """
    `attn.packing %mask : (tensor<8x128xi64>) -> !attn.packing<8, 128>`.

    Real tokens are where the mask is not 0, in row-major order; without a mask all are.
    """

    name = "attn.packing"
    mask = opt_operand_def(AnyTensor)
    result = result_def(PackingType)
    assembly_format = "($mask^)? attr-dict `:` functional-type(operands, results)"

    def __init__(self, mask: Value | None, batch: int, length: int):
        super().__init__(operands=[mask], result_types=[PackingType(batch, length)])

    def verify_(self) -> None:
        if self.mask is not None:
            _expect_shape("mask", self.mask, packing_of(self.result).shape)


@irdl_op_definition
class PackOp(AttnOp):
    """`attn.pack %x, %p`: (B, S, ...) -> (tokens, ...), the rows of real tokens in order."""

    name = "attn.pack"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, x: Value, packing: Value):
        x = SSAValue.get(x)
        type_ = TensorType(
            tensor_of(x).get_element_type(), (DYNAMIC_INDEX, *tensor_of(x).get_shape()[2:])
        )
        super().__init__(operands=[x, packing], result_types=[type_])

    def verify_(self) -> None:
        shape = tensor_of(self.x).get_shape()
        if shape[:2] != packing_of(self.packing).shape:
            raise VerifyException(f"shape {_text(shape)} is not packed by {self.packing.type}")
        _expect_shape("result", self.result, (DYNAMIC_INDEX, *shape[2:]))


@irdl_op_definition
class UnpackOp(AttnOp):
    """`attn.unpack %x, %p`: (tokens, ...) -> (B, S, ...), zeros where a token is masked."""

    name = "attn.unpack"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, x: Value, packing: Value):
        x, packing = SSAValue.get(x), SSAValue.get(packing)
        shape = (*packing_of(packing).shape, *tensor_of(x).get_shape()[1:])
        type_ = TensorType(tensor_of(x).get_element_type(), shape)
        super().__init__(operands=[x, packing], result_types=[type_])

    def verify_(self) -> None:
        shape = tensor_of(self.x).get_shape()
        if shape[:1] != (DYNAMIC_INDEX,):
            raise VerifyException(f"expected packed rows (?, ...), got shape {_text(shape)}")
        _expect_shape("result", self.result, (*packing_of(self.packing).shape, *shape[1:]))


@irdl_op_definition
class TokenOp(AttnOp):
    """
    `attn.token %x, %p {position = 0 : i64}`: (tokens, ...) -> (B, ...), one row of each sequence.

    `position` counts padded positions, as in `x[:, position]`; the row is 0 where that token is
    masked.
    """

    name = "attn.token"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    position = prop_def(IntegerAttr)

    def __init__(
        self, x: Value, packing: Value, position: int, result_type: Attribute | None = None
    ):
        x, packing = SSAValue.get(x), SSAValue.get(packing)
        shape = (packing_of(packing).batch.data, *tensor_of(x).get_shape()[1:])
        type_ = result_type or TensorType(tensor_of(x).get_element_type(), shape)
        super().__init__(
            operands=[x, packing],
            result_types=[type_],
            properties={"position": IntegerAttr(position, i64)},
        )

    def verify_(self) -> None:
        batch, length = packing_of(self.packing).shape
        if not 0 <= self.position.value.data < length:
            raise VerifyException(f"position {self.position.value.data} is outside 0..{length - 1}")
        _expect_shape("result", self.result, (batch, *tensor_of(self.x).get_shape()[1:]))


@irdl_op_definition
class SdpaOp(AttnOp):
    """
    `attn.sdpa %q, %k, %v ...`: multi-head attention, heads side by side in the last axis.

    q, k, v and the result are (B, S, heads * dim), or (tokens, heads * dim) with a packing.
    `key_padding` (B, S): keys where it is 0 are skipped; result rows where it is 0 are 0.
    `bias` (broadcast to B, heads, S, S) is added to the scaled scores.
    """

    name = "attn.sdpa"
    q = operand_def(AnyTensor)
    k = operand_def(AnyTensor)
    v = operand_def(AnyTensor)
    packing = opt_operand_def(PackingType)
    key_padding = opt_operand_def(AnyTensor)
    bias = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    scale = prop_def(FloatAttr)
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "$q `,` $k `,` $v (`packed` $packing^ `:` type($packing))? "
        "(`key_padding` $key_padding^ `:` type($key_padding))? "
        "(`bias` $bias^ `:` type($bias))? attr-dict "
        "`:` type($q) `,` type($k) `,` type($v) `->` type($result)"
    )

    def __init__(
        self,
        q: Value,
        k: Value,
        v: Value,
        heads: int,
        scale: float,
        *,
        packing: Value | None = None,
        key_padding: Value | None = None,
        bias: Value | None = None,
        result_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(q).type if result_type is None else result_type
        super().__init__(
            operands=[q, k, v, packing, key_padding, bias],
            result_types=[type_],
            properties={"heads": IntegerAttr(heads, i64), "scale": FloatAttr(scale, f64)},
        )

    def verify_(self) -> None:
        q, k, v = (tensor_of(x).get_shape() for x in (self.q, self.k, self.v))
        shapes = ", ".join(_text(shape) for shape in (q, k, v))
        rank = 3 if self.packing is None else 2
        if not len(q) == len(k) == len(v) == rank:
            raise VerifyException(f"expected rank {rank}, got shapes {shapes}")
        if q[-1] != k[-1] or k[:-1] != v[:-1] or q[:-1] != k[:-1]:
            raise VerifyException(f"shapes {shapes} do not attend to each other")
        _expect_divides(self.heads.value.data, q[-1])
        _expect_divides(self.heads.value.data, v[-1])
        _expect_shape("result", self.result, (*q[:-1], v[-1]))
        if self.key_padding is not None:
            _expect_shape("key padding", self.key_padding, q[:2])
        if self.packing is not None and self.key_padding is not None:
            raise VerifyException("packed attention has no padding left to skip")
        if self.bias is not None:
            self._verify_bias(tensor_of(self.bias).get_shape())

    def _verify_bias(self, shape: Sequence[int]) -> None:
        if self.packing is not None:
            batch, length = packing_of(self.packing).shape
        else:
            batch, length, _ = tensor_of(self.q).get_shape()
        full = (batch, self.heads.value.data, length, length)
        fits = (a in (1, b) for a, b in zip(reversed(shape), reversed(full)))
        if len(shape) > 4 or not all(fits):
            raise VerifyException(f"bias of shape {_text(shape)} does not broadcast to {full}")


@irdl_op_definition
class SplitOp(AttnOp):
    """`attn.split %x`: integer part (truncated toward zero) and fraction part, same shape."""

    name = "attn.split"
    x = operand_def(AnyTensor)
    integer = result_def(AnyTensor)
    fraction = result_def(AnyTensor)

    def __init__(
        self,
        x: Value,
        integer_type: Attribute | None = None,
        fraction_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(x).type
        super().__init__(operands=[x], result_types=[integer_type or type_, fraction_type or type_])

    def verify_(self) -> None:
        shape = tensor_of(self.x).get_shape()
        _expect_shape("integer part", self.integer, shape)
        _expect_shape("fraction part", self.fraction, shape)


def scores_shape(packing: PackingType, heads: int) -> tuple[int, int, int, int]:
    """(B, heads, S, S)."""
    batch, length = packing.shape
    return batch, heads, length, length


class ScoresBase(AttnOp):
    """Q K^T of every head of every sequence: (tokens, heads * dim) twice -> (B, heads, S, S)."""

    q = operand_def(AnyTensor)
    k = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)

    def __init__(self, q: Value, k: Value, packing: Value, heads: int, result_type: Attribute):
        super().__init__(
            operands=[q, k, packing],
            result_types=[result_type],
            properties={"heads": IntegerAttr(heads, i64)},
        )

    def verify_(self) -> None:
        q, k = tensor_of(self.q).get_shape(), tensor_of(self.k).get_shape()
        if len(q) != 2 or q != k:
            raise VerifyException(
                f"expected equal shapes (tokens, width), got {_text(q)} and {_text(k)}"
            )
        _expect_divides(self.heads.value.data, q[1])
        shape = scores_shape(packing_of(self.packing), self.heads.value.data)
        _expect_shape("result", self.result, shape)


@irdl_op_definition
class ScoresOp(ScoresBase):
    """`attn.scores %q, %k, %p {heads}`: all bits, no pruning."""

    name = "attn.scores"


@irdl_op_definition
class IntegerScoresOp(ScoresBase):
    """`attn.integer_scores %iq, %ik, %p {heads}`: I_Q I_K^T, what HDP decides on."""

    name = "attn.integer_scores"


@irdl_op_definition
class BlockImportanceOp(AttnOp):
    """
    `attn.block_importance %a, %p {block = array<i64: 2, 2>}`: theta per block.

    (B, H, S, S) -> (B, H, ceil(S / rows), ceil(S / columns)): the sum of |score| over the real
    tokens of each block; blocks start at the first real token of each sequence.
    """

    name = "attn.block_importance"
    scores = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    block = prop_def(DenseArrayBase.constr(i64))

    def __init__(
        self, scores: Value, packing: Value, block: tuple[int, int], result_type: Attribute
    ):
        super().__init__(
            operands=[scores, packing],
            result_types=[result_type],
            properties={"block": DenseArrayBase.from_list(i64, list(block))},
        )

    def verify_(self) -> None:
        batch, heads, rows, columns = tensor_of(self.scores).get_shape()
        block = tuple(int(b) for b in self.block.get_values())
        if len(block) != 2 or min(block) < 1:
            raise VerifyException(f"expected a block of two positive extents, got {block}")
        shape = (batch, heads, -(-rows // block[0]), -(-columns // block[1]))
        _expect_shape("result", self.result, shape)


@irdl_op_definition
class BlockMaskOp(AttnOp):
    """
    `attn.block_mask %theta, %p {rho_b, block}`: i1, 1 where a block is kept.

    The threshold of each row of blocks is rho_b * max + (1 - rho_b) * mean for rho_b >= 0, else
    -rho_b * min + (1 + rho_b) * mean, over the row's real blocks, in float64.
    """

    name = "attn.block_mask"
    theta = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    rho_b = prop_def(FloatAttr)
    block = prop_def(DenseArrayBase.constr(i64))

    def __init__(self, theta: Value, packing: Value, rho_b: float, block: tuple[int, int]):
        theta = SSAValue.get(theta)
        super().__init__(
            operands=[theta, packing],
            result_types=[TensorType(i1, tensor_of(theta).get_shape())],
            properties={
                "rho_b": FloatAttr(rho_b, f64),
                "block": DenseArrayBase.from_list(i64, list(block)),
            },
        )

    def verify_(self) -> None:
        rho_b = self.rho_b.value.data
        if not -1.0 < rho_b < 1.0:
            raise VerifyException(f"rho_b {rho_b} is outside (-1, 1)")
        _expect_shape("result", self.result, tensor_of(self.theta).get_shape())


@irdl_op_definition
class HeadGateOp(AttnOp):
    """
    `attn.head_gate %theta, %p {tau_h}`: i1 (B, heads), 1 where a head is kept.

    A head is pruned when the sum of its theta over the number of its real scores (L * L) is
    below tau_h.
    """

    name = "attn.head_gate"
    theta = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    tau_h = prop_def(FloatAttr)

    def __init__(self, theta: Value, packing: Value, tau_h: float):
        theta = SSAValue.get(theta)
        super().__init__(
            operands=[theta, packing],
            result_types=[TensorType(i1, tensor_of(theta).get_shape()[:2])],
            properties={"tau_h": FloatAttr(tau_h, f64)},
        )

    def verify_(self) -> None:
        _expect_shape("result", self.result, tensor_of(self.theta).get_shape()[:2])


@irdl_op_definition
class MergeScoresOp(AttnOp):
    """
    `attn.merge_scores %a, %iq, %fq, %ik, %fk, %mask, %p {heads, block, pruned = "zero"}`.

    Kept blocks: a + F_Q I_K^T + I_Q F_K^T (F_Q F_K^T is never computed). Pruned blocks: 0
    (`zero`), no part in the softmax (`neginf`), the integer score (`int`), or the mean integer
    score of the row's pruned entries (`mean`).
    """

    name = "attn.merge_scores"
    integer = operand_def(AnyTensor)
    q_integer = operand_def(AnyTensor)
    q_fraction = operand_def(AnyTensor)
    k_integer = operand_def(AnyTensor)
    k_fraction = operand_def(AnyTensor)
    mask = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    block = prop_def(DenseArrayBase.constr(i64))
    pruned = prop_def(StringAttr)

    def __init__(
        self,
        integer: Value,
        q: tuple[Value, Value],
        k: tuple[Value, Value],
        mask: Value,
        packing: Value,
        heads: int,
        block: tuple[int, int],
        pruned: str,
        result_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(integer).type if result_type is None else result_type
        super().__init__(
            operands=[integer, *q, *k, mask, packing],
            result_types=[type_],
            properties={
                "heads": IntegerAttr(heads, i64),
                "block": DenseArrayBase.from_list(i64, list(block)),
                "pruned": StringAttr(pruned),
            },
        )

    def verify_(self) -> None:
        if self.pruned.data not in PRUNED_SCORES:
            raise VerifyException(
                f"unknown pruned score {self.pruned.data!r}, expected one of {PRUNED_SCORES}"
            )
        _expect_shape("result", self.result, tensor_of(self.integer).get_shape())


@irdl_op_definition
class SoftmaxOp(AttnOp):
    """`attn.softmax %s, %p {scale}`: softmax of scale * s over each sequence's real keys."""

    name = "attn.softmax"
    scores = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    scale = prop_def(FloatAttr)

    def __init__(
        self, scores: Value, packing: Value, scale: float, result_type: Attribute | None = None
    ):
        type_ = SSAValue.get(scores).type if result_type is None else result_type
        super().__init__(
            operands=[scores, packing],
            result_types=[type_],
            properties={"scale": FloatAttr(scale, f64)},
        )

    def verify_(self) -> None:
        _expect_shape("result", self.result, tensor_of(self.scores).get_shape())


@irdl_op_definition
class WeightedValuesOp(AttnOp):
    """`attn.weighted_values %probs, %v, %p[, %gate] {heads}`: P V per head; pruned heads give 0."""

    name = "attn.weighted_values"
    probabilities = operand_def(AnyTensor)
    v = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    gate = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)

    def __init__(
        self,
        probabilities: Value,
        v: Value,
        packing: Value,
        gate: Value | None,
        heads: int,
        result_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(v).type if result_type is None else result_type
        super().__init__(
            operands=[probabilities, v, packing, gate],
            result_types=[type_],
            properties={"heads": IntegerAttr(heads, i64)},
        )

    def verify_(self) -> None:
        v = tensor_of(self.v).get_shape()
        _expect_divides(self.heads.value.data, v[-1])
        _expect_shape("result", self.result, v)
        if self.gate is not None:
            _expect_shape("gate", self.gate, tensor_of(self.probabilities).get_shape()[:2])


ATTN = Dialect(
    "attn",
    [
        PackingOp,
        PackOp,
        UnpackOp,
        TokenOp,
        SdpaOp,
        SplitOp,
        ScoresOp,
        IntegerScoresOp,
        BlockImportanceOp,
        BlockMaskOp,
        HeadGateOp,
        MergeScoresOp,
        SoftmaxOp,
        WeightedValuesOp,
    ],
    [PackingType],
)
