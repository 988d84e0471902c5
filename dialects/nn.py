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

from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    TensorType,
    f64,
    i64,
)
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    var_operand_def,
)
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.einsum_format import FormatAttr
from heatc.dialects.nn_arith import (
    APPROXIMATIONS,
    PREDICATES,
    AddOp,
    AndOp,
    CastOp,
    CompareOp,
    DivOp,
    FloorDivOp,
    GeluOp,
    MapOp,
    MaximumOp,
    MinimumOp,
    MulOp,
    NotOp,
    OrOp,
    PowOp,
    ReluOp,
    RemainderOp,
    SubOp,
    TanhOp,
    WhereOp,
)
from heatc.dialects.nn_base import (
    TOKENS,
    AnyTensor,
    BinaryOp,
    NnOp,
    UnaryOp,
    Value,
    broadcast_shapes,
    element_of,
    expect,
    expect_axes,
    int_array,
    is_unsigned,
    shape_of,
)
from heatc.dialects.nn_norms import LayerNormOp, RmsNormOp, SoftmaxOp
from heatc.dialects.nn_reduce import REDUCTIONS, ArgmaxOp, CumsumOp, ReduceOp

__all__ = [
    "APPROXIMATIONS",
    "NN",
    "PREDICATES",
    "REDUCTIONS",
    "TOKENS",
    "AddOp",
    "AndOp",
    "AnyTensor",
    "ArgmaxOp",
    "BinaryOp",
    "CastOp",
    "CompareOp",
    "ConcatOp",
    "CumsumOp",
    "DivOp",
    "EmbeddingOp",
    "ExpandOp",
    "FloorDivOp",
    "FullOp",
    "GeluOp",
    "IndexOp",
    "IotaOp",
    "LayerNormOp",
    "LinearOp",
    "MapOp",
    "MatmulOp",
    "MaximumOp",
    "MinimumOp",
    "MulOp",
    "NnOp",
    "NotOp",
    "OrOp",
    "PowOp",
    "ReduceOp",
    "ReluOp",
    "RemainderOp",
    "ReshapeOp",
    "RmsNormOp",
    "SdpaOp",
    "ShapeOp",
    "SliceOp",
    "SoftmaxOp",
    "SubOp",
    "TanhOp",
    "TransposeOp",
    "UnaryOp",
    "Value",
    "WhereOp",
    "broadcast_shapes",
    "element_of",
    "int_array",
    "is_unsigned",
    "shape_of",
]


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
        expect("table rank", 2, len(shape_of(self.table)))
        expected = (*shape_of(self.ids), shape_of(self.table)[-1])
        expect("result shape", expected, shape_of(self.result))


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
        expect("weight rank", 2, len(w))
        expect_axes(1, x)
        expect("input extent", w[1], x[-1])
        if self.bias is not None:
            expect("bias shape", (w[0],), shape_of(self.bias))
        expect("result shape", (*x[:-1], w[0]), shape_of(self.result))


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
        expect_axes(2, a, b)
        expect("contracted extent", a[-1], b[-2])
        batch = broadcast_shapes(a[:-2], b[:-2])
        expect("result shape", (*batch, a[-2], b[-1]), shape_of(self.result))


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
        expect_axes(2, q, k, v)
        expect("leading extents of the keys", q[:-2], k[:-2])
        expect("leading extents of the values", q[:-2], v[:-2])
        expect("key extent", q[-1], k[-1])
        expect("number of values", k[-2], v[-2])
        expect("result shape", (*q[:-1], v[-1]), shape_of(self.result))
        if self.mask is not None:
            broadcast_shapes(shape_of(self.mask), (*q[:-1], k[-2]))


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
            expect("result shape", (*a[:axis], *a[axis + 1 :]), b)
        expect("number of unknown extents", a.count(TOKENS), b.count(TOKENS))
        known_a, known_b = (math.prod(n for n in s if n != TOKENS) for s in (a, b))
        expect("number of elements", known_a, known_b)


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
        expect("result shape", expected, shape_of(self.result))


@irdl_op_definition
class ExpandOp(ShapeOp):
    """`nn.expand %x : (tensor<1x4xf32>) -> tensor<3x4xf32>`: NumPy broadcast to the result shape."""

    name = "nn.expand"

    def __init__(self, x: Value, shape: Sequence[int]):
        x = SSAValue.get(x)
        super().__init__(operands=[x], result_types=[TensorType(element_of(x), shape)])

    def verify_(self) -> None:
        expected = broadcast_shapes(shape_of(self.x), shape_of(self.result))
        expect("result shape", expected, shape_of(self.result))


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
        expect("result shape", expected, shape_of(self.result))


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
            expect("rank", len(expected), len(shape))
        expected[dim] = sum(s[dim] for s in shapes)
        expect("result shape", tuple(expected), shape_of(self.result))


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
        expect("rank", 1, len(shape_of(self.result)))


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
        MaximumOp,
        MinimumOp,
        PowOp,
        FloorDivOp,
        RemainderOp,
        AndOp,
        OrOp,
        CompareOp,
        NotOp,
        TanhOp,
        ReluOp,
        MapOp,
        CastOp,
        GeluOp,
        SoftmaxOp,
        WhereOp,
        EmbeddingOp,
        LinearOp,
        MatmulOp,
        SdpaOp,
        LayerNormOp,
        RmsNormOp,
        ReduceOp,
        ArgmaxOp,
        CumsumOp,
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
