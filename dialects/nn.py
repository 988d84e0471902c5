"""
The `nn` dialect: what upstream xDSL lacks for a transformer, on values, with PyTorch's semantics.

Capture writes this dialect and nothing else (beside `func` and `einsum.weight`), one op for
one ATen op family. `raise-attention` and `raise-einsum` replace the heavy ops; the light ones
(norms, activations, residual sums, embeddings) stay until `partition-host`.

Element types: `f32`, `f64`, `i1`, integers (`i64`, `i32`, `i16`, `i8` with a sign, `ui8` without),
and `!fixed.q` from `assign-fixed-point` on. Integers wrap around at their width, as in PyTorch. An
op on fixed-point operands computes in float64 and rounds once, half to even, into its result type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    I64,
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    Signedness,
    StringAttr,
    TensorType,
    UnitAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.einsum_format import FormatAttr

AnyTensor = TensorType[Attribute]
Value = SSAValue | Operation

TOKENS = DYNAMIC_INDEX
"""The extent `?`: the number of packed tokens, known at run time."""

PREDICATES = ("eq", "ne", "lt", "le", "gt", "ge")

_FORMAT = "operands attr-dict `:` functional-type(operands, results)"


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor value; `TOKENS` stands for the number of packed tokens."""
    type_ = value.type
    if not isinstance(type_, TensorType):
        raise VerifyException(f"expected a tensor, got {type_}")
    return cast(AnyTensor, type_).get_shape()


def element_of(value: SSAValue) -> Attribute:
    """The element type of a tensor value."""
    type_ = value.type
    if not isinstance(type_, TensorType):
        raise VerifyException(f"expected a tensor, got {type_}")
    return cast(AnyTensor, type_).get_element_type()


def is_unsigned(element: Attribute) -> bool:
    """Whether a type is of integers without a sign."""
    if not isinstance(element, IntegerType):
        return False
    return cast(IntegerType, element).signedness.data == Signedness.UNSIGNED


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """
    NumPy's broadcast of shapes in which `TOKENS` is one unknown extent that is not 1.

    Raises `VerifyException` where the shapes do not broadcast.
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[int] = []
    for axis in range(rank):
        extents = {s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0}
        extents.discard(1)
        if len(extents) > 1:
            raise VerifyException(f"shapes {[tuple(s) for s in shapes]} do not broadcast")
        result.append(extents.pop() if extents else 1)
    return tuple(result)


def int_array(values: Sequence[int]) -> DenseArrayBase[I64]:
    """`array<i64: ...>` of the given integers."""
    return DenseArrayBase.from_list(i64, list(values))


def _expect_axes(least: int, *shapes: Sequence[int]) -> None:
    if any(len(shape) < least for shape in shapes):
        given = " and ".join(str(tuple(shape)) for shape in shapes)
        raise VerifyException(f"expected operands of rank {least} or more, got {given}")


def _expect(what: str, expected: object, got: object) -> None:
    if expected != got:
        raise VerifyException(f"expected {what} {expected}, got {got}")


class NnOp(IRDLOperation):
    """Base of the ops: pure, generic assembly with properties in the attribute dictionary."""

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = _FORMAT


class UnaryOp(NnOp):
    """Elementwise, one operand; the result has the operand's shape."""

    x = operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, x: Value, result_type: Attribute | None = None):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        super().__init__(operands=[x], result_types=[type_])

    def verify_(self) -> None:
        _expect("result shape", shape_of(self.x), shape_of(self.result))


class BinaryOp(NnOp):
    """Elementwise, two operands, NumPy broadcasting."""

    lhs = operand_def(AnyTensor)
    rhs = operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, lhs: Value, rhs: Value, result_type: Attribute | None = None):
        lhs, rhs = SSAValue.get(lhs), SSAValue.get(rhs)
        if result_type is None:
            shape = broadcast_shapes(shape_of(lhs), shape_of(rhs))
            result_type = TensorType(self.result_element(lhs), shape)
        super().__init__(operands=[lhs, rhs], result_types=[result_type])

    @classmethod
    def result_element(cls, lhs: SSAValue) -> Attribute:
        """The element type of the result when none is given."""
        return element_of(lhs)

    def verify_(self) -> None:
        expected = broadcast_shapes(shape_of(self.lhs), shape_of(self.rhs))
        _expect("result shape", expected, shape_of(self.result))


@irdl_op_definition
class AddOp(BinaryOp):
    """`nn.add %a, %b`: sum."""

    name = "nn.add"


@irdl_op_definition
class SubOp(BinaryOp):
    """`nn.sub %a, %b`: difference."""

    name = "nn.sub"


@irdl_op_definition
class MulOp(BinaryOp):
    """`nn.mul %a, %b`: product."""

    name = "nn.mul"


@irdl_op_definition
class DivOp(BinaryOp):
    """`nn.div %a, %b`: true quotient."""

    name = "nn.div"


@irdl_op_definition
class AndOp(BinaryOp):
    """`nn.and %a, %b`: bitwise (logical on i1) and."""

    name = "nn.and"


@irdl_op_definition
class OrOp(BinaryOp):
    """`nn.or %a, %b`: bitwise (logical on i1) or."""

    name = "nn.or"


@irdl_op_definition
class CompareOp(BinaryOp):
    """`nn.compare %a, %b {predicate = "ge"}`: elementwise comparison to i1."""

    name = "nn.compare"

    predicate = prop_def(StringAttr)

    def __init__(self, lhs: Value, rhs: Value, predicate: str, result_type: Attribute):
        IRDLOperation.__init__(
            self,
            operands=[lhs, rhs],
            result_types=[result_type],
            properties={"predicate": StringAttr(predicate)},
        )

    def verify_(self) -> None:
        super().verify_()
        if self.predicate.data not in PREDICATES:
            raise VerifyException(
                f"unknown predicate {self.predicate.data!r}, expected one of {PREDICATES}"
            )


@irdl_op_definition
class NotOp(UnaryOp):
    """`nn.not %a`: logical not of i1, bitwise not of integers."""

    name = "nn.not"


@irdl_op_definition
class TanhOp(UnaryOp):
    """`nn.tanh %x`."""

    name = "nn.tanh"


@irdl_op_definition
class ReluOp(UnaryOp):
    """`nn.relu %x`."""

    name = "nn.relu"


@irdl_op_definition
class CastOp(UnaryOp):
    """`nn.cast %x : (tensor<4xi64>) -> tensor<4xi1>`: PyTorch's `.to(dtype)` (nonzero is true)."""

    name = "nn.cast"


@irdl_op_definition
class GeluOp(UnaryOp):
    """`nn.gelu %x {approximate = "none"}`: exact (erf) or `tanh` form."""

    name = "nn.gelu"
    approximate = prop_def(StringAttr)

    def __init__(self, x: Value, approximate: str = "none", result_type: Attribute | None = None):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        IRDLOperation.__init__(
            self,
            operands=[x],
            result_types=[type_],
            properties={"approximate": StringAttr(approximate)},
        )

    def verify_(self) -> None:
        super().verify_()
        if self.approximate.data not in ("none", "tanh"):
            raise VerifyException(
                f"unknown approximation {self.approximate.data!r}, expected 'none' or 'tanh'"
            )


@irdl_op_definition
class SoftmaxOp(UnaryOp):
    """
    `nn.softmax %x {dim = -1 : i64}`: nothing but -inf along the axis gives NaN, as in PyTorch.

    With `safe` it gives 0, as in PyTorch's `_safe_softmax`, which fused attention is made of.
    """

    name = "nn.softmax"
    dim = prop_def(IntegerAttr)
    safe = opt_prop_def(UnitAttr)

    def __init__(
        self, x: Value, dim: int, result_type: Attribute | None = None, *, safe: bool = False
    ):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        IRDLOperation.__init__(
            self,
            operands=[x],
            result_types=[type_],
            properties={"dim": IntegerAttr(dim, i64), "safe": UnitAttr() if safe else None},
        )

    def verify_(self) -> None:
        super().verify_()
        rank, dim = len(shape_of(self.x)), self.dim.value.data
        if not -rank <= dim < rank:
            raise VerifyException(f"dim {dim} is out of range for rank {rank}")


@irdl_op_definition
class WhereOp(NnOp):
    """`nn.where %condition, %a, %b`: elementwise choice, NumPy broadcasting."""

    name = "nn.where"
    condition = operand_def(AnyTensor)
    lhs = operand_def(AnyTensor)
    rhs = operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, condition: Value, lhs: Value, rhs: Value, result_type: Attribute):
        super().__init__(operands=[condition, lhs, rhs], result_types=[result_type])

    def verify_(self) -> None:
        expected = broadcast_shapes(*(shape_of(v) for v in self.operands))
        _expect("result shape", expected, shape_of(self.result))


@irdl_op_definition
class EmbeddingOp(NnOp):
    """
    `nn.embedding %table, %ids`: rows of `table` (V, D) by integer `ids` of any shape.

    `format` says how the table is to be factorised.
    """

    name = "nn.embedding"
    table = operand_def(AnyTensor)
    ids = operand_def(AnyTensor)
    result = result_def(AnyTensor)
    planned = opt_prop_def(FormatAttr, prop_name="format")

    def __init__(self, table: Value, ids: Value, result_type: Attribute | None = None):
        table, ids = SSAValue.get(table), SSAValue.get(ids)
        if result_type is None:
            shape = (*shape_of(ids), shape_of(table)[-1])
            result_type = TensorType(element_of(table), shape)
        super().__init__(operands=[table, ids], result_types=[result_type])

    def verify_(self) -> None:
        _expect("table rank", 2, len(shape_of(self.table)))
        expected = (*shape_of(self.ids), shape_of(self.table)[-1])
        _expect("result shape", expected, shape_of(self.result))


@irdl_op_definition
class LinearOp(NnOp):
    """`nn.linear %x, %w[, %b]`: `x @ w.T + b`, x (..., I), w (O, I), b (O)."""

    name = "nn.linear"
    x = operand_def(AnyTensor)
    weight = operand_def(AnyTensor)
    bias = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, x: Value, weight: Value, bias: Value | None, result_type: Attribute):
        super().__init__(operands=[x, weight, bias], result_types=[result_type])

    def verify_(self) -> None:
        x, w = shape_of(self.x), shape_of(self.weight)
        _expect("weight rank", 2, len(w))
        _expect_axes(1, x)
        _expect("input extent", w[1], x[-1])
        if self.bias is not None:
            _expect("bias shape", (w[0],), shape_of(self.bias))
        _expect("result shape", (*x[:-1], w[0]), shape_of(self.result))


@irdl_op_definition
class MatmulOp(NnOp):
    """`nn.matmul %a, %b`: matrix product over the last two axes, leading axes broadcast."""

    name = "nn.matmul"
    lhs = operand_def(AnyTensor)
    rhs = operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, lhs: Value, rhs: Value, result_type: Attribute):
        super().__init__(operands=[lhs, rhs], result_types=[result_type])

    def verify_(self) -> None:
        a, b = shape_of(self.lhs), shape_of(self.rhs)
        _expect_axes(2, a, b)
        _expect("contracted extent", a[-1], b[-2])
        batch = broadcast_shapes(a[:-2], b[:-2])
        _expect("result shape", (*batch, a[-2], b[-1]), shape_of(self.result))


@irdl_op_definition
class SdpaOp(NnOp):
    """
    `nn.sdpa %q, %k, %v[, %mask] {scale, is_causal}`: PyTorch's scaled_dot_product_attention.

    q (..., Sq, E), k (..., Sk, E), v (..., Sk, Ev); mask broadcasts to (..., Sq, Sk), boolean
    (true = attend) or additive. A query that sees no key (all its scores are -inf) gives 0.
    """

    name = "nn.sdpa"
    q = operand_def(AnyTensor)
    k = operand_def(AnyTensor)
    v = operand_def(AnyTensor)
    mask = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    scale = prop_def(FloatAttr)
    is_causal = prop_def(BoolAttr)

    def __init__(
        self,
        q: Value,
        k: Value,
        v: Value,
        mask: Value | None,
        scale: float,
        is_causal: bool,
        result_type: Attribute,
    ):
        super().__init__(
            operands=[q, k, v, mask],
            result_types=[result_type],
            properties={
                "scale": FloatAttr(scale, f64),
                "is_causal": BoolAttr.from_bool(is_causal),
            },
        )

    def verify_(self) -> None:
        q, k, v = shape_of(self.q), shape_of(self.k), shape_of(self.v)
        _expect_axes(2, q, k, v)
        _expect("leading extents of the keys", q[:-2], k[:-2])
        _expect("leading extents of the values", q[:-2], v[:-2])
        _expect("key extent", q[-1], k[-1])
        _expect("number of values", k[-2], v[-2])
        _expect("result shape", (*q[:-1], v[-1]), shape_of(self.result))
        if self.mask is not None:
            broadcast_shapes(shape_of(self.mask), (*q[:-1], k[-2]))


@irdl_op_definition
class LayerNormOp(NnOp):
    """`nn.layer_norm %x, %weight, %bias {eps}`: over the last axis, biased variance."""

    name = "nn.layer_norm"
    x = operand_def(AnyTensor)
    weight = operand_def(AnyTensor)
    bias = operand_def(AnyTensor)
    result = result_def(AnyTensor)
    eps = prop_def(FloatAttr)

    def __init__(
        self,
        x: Value,
        weight: Value,
        bias: Value,
        eps: float,
        result_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        super().__init__(
            operands=[x, weight, bias],
            result_types=[type_],
            properties={"eps": FloatAttr(eps, f64)},
        )

    def verify_(self) -> None:
        _expect_axes(1, shape_of(self.x))
        extent = shape_of(self.x)[-1]
        _expect("weight shape", (extent,), shape_of(self.weight))
        _expect("bias shape", (extent,), shape_of(self.bias))
        _expect("result shape", shape_of(self.x), shape_of(self.result))


class ShapeOp(NnOp):
    """Base of the ops that move elements and change none."""

    x = operand_def(AnyTensor)
    result = result_def(AnyTensor)


@irdl_op_definition
class ReshapeOp(ShapeOp):
    """
    `nn.reshape %x : (tensor<1x16x384xf32>) -> tensor<1x16x12x32xf32>`: row-major reshape.

    `dropped` is the axis of extent 1 that the result does not have, where the extents leave open
    which one it is: `x[:, 0]` and `x[..., 0]` of a 2x1x1 tensor.
    """

    name = "nn.reshape"
    dropped = opt_prop_def(IntegerAttr)

    def __init__(self, x: Value, shape: Sequence[int], dropped: int | None = None):
        x = SSAValue.get(x)
        super().__init__(
            operands=[x],
            result_types=[TensorType(element_of(x), shape)],
            properties={"dropped": None if dropped is None else IntegerAttr(dropped, i64)},
        )

    @property
    def dropped_axis(self) -> int | None:
        """The axis that the result does not have, None where nobody says."""
        return None if self.dropped is None else self.dropped.value.data

    def verify_(self) -> None:
        a, b = shape_of(self.x), shape_of(self.result)
        axis = self.dropped_axis
        if axis is not None and (not 0 <= axis < len(a) or a[axis] != 1):
            raise VerifyException(f"dropped axis {axis} is none of extent 1 of {a}")
        if axis is not None:
            _expect("result shape", (*a[:axis], *a[axis + 1 :]), b)
        _expect("number of unknown extents", a.count(TOKENS), b.count(TOKENS))
        known_a, known_b = (math.prod(n for n in s if n != TOKENS) for s in (a, b))
        _expect("number of elements", known_a, known_b)


@irdl_op_definition
class TransposeOp(ShapeOp):
    """`nn.transpose %x {permutation = array<i64: 0, 2, 1, 3>}`: result axis i is axis permutation[i]."""

    name = "nn.transpose"
    permutation = prop_def(DenseArrayBase.constr(i64))

    def __init__(self, x: Value, permutation: Sequence[int]):
        x = SSAValue.get(x)
        shape = [shape_of(x)[axis] for axis in permutation]
        super().__init__(
            operands=[x],
            result_types=[TensorType(element_of(x), shape)],
            properties={"permutation": int_array(permutation)},
        )

    def verify_(self) -> None:
        permutation = self.permutation.get_values()
        shape = shape_of(self.x)
        if sorted(permutation) != list(range(len(shape))):
            raise VerifyException(f"{permutation} is not a permutation of rank {len(shape)}")
        expected = tuple(shape[int(axis)] for axis in permutation)
        _expect("result shape", expected, shape_of(self.result))


@irdl_op_definition
class ExpandOp(ShapeOp):
    """`nn.expand %x : (tensor<1x4xf32>) -> tensor<3x4xf32>`: NumPy broadcast to the result shape."""

    name = "nn.expand"

    def __init__(self, x: Value, shape: Sequence[int]):
        x = SSAValue.get(x)
        super().__init__(operands=[x], result_types=[TensorType(element_of(x), shape)])

    def verify_(self) -> None:
        expected = broadcast_shapes(shape_of(self.x), shape_of(self.result))
        _expect("result shape", expected, shape_of(self.result))


@irdl_op_definition
class SliceOp(ShapeOp):
    """`nn.slice %x {starts, steps}`: `x[start : start + size * step : step]` with the result's sizes."""

    name = "nn.slice"
    starts = prop_def(DenseArrayBase.constr(i64))
    steps = prop_def(DenseArrayBase.constr(i64))

    def __init__(
        self, x: Value, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int] = ()
    ):
        x = SSAValue.get(x)
        steps = steps or [1] * len(starts)
        super().__init__(
            operands=[x],
            result_types=[TensorType(element_of(x), sizes)],
            properties={"starts": int_array(starts), "steps": int_array(steps)},
        )

    def verify_(self) -> None:
        shape, sizes = shape_of(self.x), shape_of(self.result)
        starts, steps = self.starts.get_values(), self.steps.get_values()
        if not len(shape) == len(sizes) == len(starts) == len(steps):
            raise VerifyException(f"starts, steps and result do not have rank {len(shape)}")
        for axis, (extent, size) in enumerate(zip(shape, sizes)):
            start, step = int(starts[axis]), int(steps[axis])
            if start < 0 or step < 1 or start + (size - 1) * step >= extent:
                raise VerifyException(
                    f"slice start {start}, size {size}, step {step} leaves axis {axis} of extent {extent}"
                )


@irdl_op_definition
class IndexOp(NnOp):
    """`nn.index %x, %i, %j`: NumPy integer indexing of the leading axes, indices broadcast together."""

    name = "nn.index"
    x = operand_def(AnyTensor)
    indices = var_operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, x: Value, indices: Sequence[Value], result_type: Attribute):
        super().__init__(operands=[x, list(indices)], result_types=[result_type])

    def verify_(self) -> None:
        shape = shape_of(self.x)
        if not 0 < len(self.indices) <= len(shape):
            raise VerifyException(f"got {len(self.indices)} indices for rank {len(shape)}")
        lead = broadcast_shapes(*(shape_of(i) for i in self.indices))
        expected = (*lead, *shape[len(self.indices) :])
        _expect("result shape", expected, shape_of(self.result))


@irdl_op_definition
class ConcatOp(NnOp):
    """`nn.concat %a, %b {dim = 1 : i64}`: along one axis."""

    name = "nn.concat"
    inputs = var_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    dim = prop_def(IntegerAttr)

    def __init__(self, inputs: Sequence[Value], dim: int, result_type: Attribute):
        super().__init__(
            operands=[list(inputs)],
            result_types=[result_type],
            properties={"dim": IntegerAttr(dim, i64)},
        )

    def verify_(self) -> None:
        if not self.inputs:
            raise VerifyException("expected at least one operand")
        dim = self.dim.value.data
        shapes = [shape_of(i) for i in self.inputs]
        expected = list(shapes[0])
        if not 0 <= dim < len(expected):
            raise VerifyException(f"dim {dim} is out of range for rank {len(expected)}")
        for shape in shapes:
            _expect("rank", len(expected), len(shape))
        expected[dim] = sum(s[dim] for s in shapes)
        _expect("result shape", tuple(expected), shape_of(self.result))


@irdl_op_definition
class IotaOp(NnOp):
    """`nn.iota {start = 0 : i64, step = 1 : i64} : tensor<16xi64>`: start, start + step, ..."""

    name = "nn.iota"
    assembly_format = "attr-dict `:` type($result)"
    result = result_def(AnyTensor)
    start = prop_def(IntegerAttr)
    step = prop_def(IntegerAttr)

    def __init__(self, start: int, step: int, result_type: Attribute):
        super().__init__(
            result_types=[result_type],
            properties={"start": IntegerAttr(start, i64), "step": IntegerAttr(step, i64)},
        )

    def verify_(self) -> None:
        _expect("rank", 1, len(shape_of(self.result)))


@irdl_op_definition
class FullOp(NnOp):
    """`nn.full {value = 0.0 : f64} : tensor<f32>`: one value everywhere."""

    name = "nn.full"
    assembly_format = "attr-dict `:` type($result)"
    result = result_def(AnyTensor)
    value = prop_def(FloatAttr)

    def __init__(self, value: float, result_type: Attribute):
        super().__init__(
            result_types=[result_type], properties={"value": FloatAttr(float(value), f64)}
        )


NN = Dialect(
    "nn",
    [
        AddOp,
        SubOp,
        MulOp,
        DivOp,
        AndOp,
        OrOp,
        CompareOp,
        NotOp,
        TanhOp,
        ReluOp,
        CastOp,
        GeluOp,
        SoftmaxOp,
        WhereOp,
        EmbeddingOp,
        LinearOp,
        MatmulOp,
        SdpaOp,
        LayerNormOp,
        ReshapeOp,
        TransposeOp,
        ExpandOp,
        SliceOp,
        IndexOp,
        ConcatOp,
        IotaOp,
        FullOp,
    ],
)
