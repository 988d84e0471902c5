"""
The table of ATen ops: one converter function a family, and what a converter works with.

Converters are registered by target, see `converter`; the families live in `aten_*.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects.builtin import (
    IntegerType,
    NameLoc,
    Signedness,
    TensorType,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue

from heatc.capture.graph import (
    SUPPORTED_DTYPES,
    Arg,
    AtenCall,
    AtenGraph,
    AtenTensor,
    Dtype,
    Ref,
)
from heatc.dialects import nn
from heatc.errors import HeatcError

Tensors = SSAValue | Sequence[SSAValue]
ConvertFn = Callable[["Call"], Tensors | None]

CONVERTERS: dict[str, ConvertFn] = {}

ELEMENTS: Mapping[str, Attribute] = {
    "i1": i1,
    "u8": IntegerType(8, Signedness.UNSIGNED),
    "i8": i8,
    "i16": i16,
    "i32": i32,
    "i64": i64,
    "f32": f32,
    "f64": f64,
}
"""The xDSL type of each dtype, in the order in which PyTorch promotes them."""

_MAX_RANK = 32


class Unsupported(Exception):
    """A call that no `nn` op can say; the message is the reason."""


def converter(*targets: str) -> Callable[[ConvertFn], ConvertFn]:
    """Register a converter for ATen targets, written without the leading `aten.`."""

    def register(fn: ConvertFn) -> ConvertFn:
        for target in targets:
            CONVERTERS[f"aten.{target}"] = fn
        return fn

    return register


def element_type(dtype: str) -> Attribute:
    """The xDSL type of a dtype of the graph; raises `Unsupported`."""
    if dtype not in ELEMENTS:
        raise Unsupported(f"element type {dtype}, supported are {', '.join(SUPPORTED_DTYPES)}")
    return ELEMENTS[dtype]


def promoted(first: Attribute, second: Attribute) -> Attribute:
    """The element type in which PyTorch computes with tensors of two types."""
    ranks = list(ELEMENTS.values())
    low, high = sorted((first, second), key=ranks.index)
    # Neither holds the numbers of the other.
    return i16 if (low, high) == (ELEMENTS["u8"], i8) else high


def tensor_type(tensor: AtenTensor) -> TensorType[Attribute]:
    """The xDSL type of a tensor of the graph; raises `Unsupported`."""
    if 0 in tensor.shape:
        raise Unsupported(f"a tensor without elements ({tensor})")
    if len(tensor.shape) > _MAX_RANK:
        raise Unsupported(f"a tensor of rank {len(tensor.shape)}")
    if tensor.dtype == "f64" and tensor.size != 1:
        raise Unsupported(f"a float64 tensor ({tensor}), convert the model with .float()")
    return TensorType(element_type(tensor.dtype), tensor.shape)


@dataclass
class Call:
    """One ATen call while it is converted: typed access to its arguments, and ops to insert."""

    call: AtenCall
    graph: AtenGraph
    values: Mapping[str, SSAValue]
    builder: Builder
    location: NameLoc

    # Arguments.

    def arg(self, name: str, default: Arg = None) -> Arg:
        """The argument, or `default` where it was not passed."""
        return self.call.args.get(name, default)

    def has(self, name: str) -> bool:
        """Whether the argument was passed and is not None."""
        return self.arg(name) is not None

    def value(self, name: str) -> SSAValue:
        """A tensor argument."""
        return self.resolve(self.arg(name), name)

    def values_of(self, name: str) -> list[SSAValue]:
        """An argument that is a list of tensors."""
        items = self.arg(name)
        if not isinstance(items, list) or not items:
            raise HeatcError(f"expected a list of tensors for argument {name!r} of {self}")
        return [self.resolve(item, name) for item in items]

    def optional(self, name: str) -> SSAValue | None:
        """A tensor argument that may be absent."""
        return self.value(name) if self.has(name) else None

    def resolve(self, arg: Arg, name: str) -> SSAValue:
        """The value that a tensor argument names."""
        if not isinstance(arg, Ref):
            raise HeatcError(f"expected a tensor for argument {name!r} of {self}, got {arg!r}")
        if arg.name not in self.values:
            raise HeatcError(f"argument {name!r} of {self} is {arg.name!r}, defined nowhere before")
        return self.values[arg.name]

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer argument."""
        number = self.arg(name, default)
        if not isinstance(number, int):
            raise HeatcError(f"expected an integer for argument {name!r} of {self}, got {number!r}")
        return int(number)

    def integers(self, name: str) -> list[int]:
        """An argument that is a list of integers, or one integer."""
        items = self.arg(name)
        items = items if isinstance(items, list) else [items]
        numbers = [item for item in items if isinstance(item, int)]
        if len(numbers) != len(items):
            raise HeatcError(f"expected integers for argument {name!r} of {self}, got {items!r}")
        return [int(number) for number in numbers]

    def number(self, name: str, default: float | None = None) -> int | float:
        """An argument that is a number (a bool counts as 0 or 1)."""
        number = self.arg(name, default)
        if not isinstance(number, int | float):
            raise HeatcError(f"expected a number for argument {name!r} of {self}, got {number!r}")
        return number

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean argument."""
        return bool(self.arg(name, default))

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """An axis argument, counted from the front; raises `HeatcError` if out of range."""
        return self.wrap(self.integer(name, default), rank)

    def wrap(self, axis: int, rank: int) -> int:
        """An axis counted from the front; raises `HeatcError` if out of range."""
        if not -max(rank, 1) <= axis < max(rank, 1):
            raise HeatcError(f"axis {axis} of {self} is out of range for rank {rank}")
        return axis % max(rank, 1)

    # Results.

    @property
    def out(self) -> AtenTensor:
        """Shape and dtype of the first result."""
        return self.graph.tensor(self.call.outputs[0])

    @property
    def outs(self) -> list[AtenTensor]:
        """Shapes and dtypes of all results."""
        return [self.graph.tensor(name) for name in self.call.outputs]

    @property
    def out_type(self) -> TensorType[Attribute]:
        """The type of the first result."""
        return tensor_type(self.out)

    @property
    def out_element(self) -> Attribute:
        """The element type of the first result."""
        return element_type(self.out.dtype)

    # Ops.

    def add(self, op: Operation) -> SSAValue:
        """Insert an op with this call's location; returns its first result."""
        op.location = self.location
        self.builder.insert(op)
        return op.results[0]

    def full(self, number: float, element: Attribute, shape: Sequence[int] = ()) -> SSAValue:
        """A constant of one value."""
        if isinstance(number, int) and int(float(number)) != number:
            raise Unsupported(f"the integer {number}, float64 does not hold it exactly")
        return self.add(nn.FullOp(float(number), TensorType(element, shape)))

    def cast(self, value: SSAValue, element: Attribute) -> SSAValue:
        """`value` with another element type."""
        if nn.element_of(value) == element:
            return value
        return self.add(nn.CastOp(value, TensorType(element, nn.shape_of(value))))

    def reshape(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """`value` with another shape."""
        if nn.shape_of(value) == tuple(shape):
            return value
        return self.add(nn.ReshapeOp(value, shape))

    def drop(self, value: SSAValue, axis: int) -> SSAValue:
        """`value` without an axis of extent 1; which one it was is said where extents do not tell."""
        shape = nn.shape_of(value)
        rest = (*shape[:axis], *shape[axis + 1 :])
        return self.add(nn.ReshapeOp(value, rest, axis if shape.count(1) > 1 else None))

    def permute(self, value: SSAValue, permutation: Sequence[int]) -> SSAValue:
        """`value` with its axes permuted."""
        if list(permutation) == list(range(len(permutation))):
            return value
        return self.add(nn.TransposeOp(value, permutation))

    def expand(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """`value` broadcast to a shape."""
        if nn.shape_of(value) == tuple(shape):
            return value
        return self.add(nn.ExpandOp(value, shape))

    def cut(self, value: SSAValue, axis: int, start: int, size: int, step: int = 1) -> SSAValue:
        """`size` elements of one axis from `start` on, every `step`-th."""
        sizes = list(nn.shape_of(value))
        if (start, size, step) == (0, sizes[axis], 1):
            return value
        starts, steps = [0] * len(sizes), [1] * len(sizes)
        sizes[axis], starts[axis], steps[axis] = size, start, step
        return self.add(nn.SliceOp(value, starts, sizes, steps))

    def map(self, value: SSAValue, function: str) -> SSAValue:
        """A function of `heatc.functions` of each element."""
        return self.add(nn.MapOp(value, function))

    def scaled(self, value: SSAValue, factor: float) -> SSAValue:
        """`value` times a number."""
        if factor == 1:
            return value
        return self.add(nn.MulOp(value, self.full(factor, nn.element_of(value))))

    def shifted(self, value: SSAValue, number: float) -> SSAValue:
        """`value` plus a number."""
        if number == 0:
            return value
        return self.add(nn.AddOp(value, self.full(number, nn.element_of(value))))

    def compare(self, lhs: SSAValue, rhs: SSAValue, predicate: str) -> SSAValue:
        """A comparison, as booleans."""
        shape = nn.broadcast_shapes(nn.shape_of(lhs), nn.shape_of(rhs))
        return self.add(nn.CompareOp(lhs, rhs, predicate, TensorType(i1, shape)))

    def where(self, condition: SSAValue, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
        """`lhs` where the condition holds, `rhs` elsewhere; of one element type."""
        shape = nn.broadcast_shapes(*(nn.shape_of(v) for v in (condition, lhs, rhs)))
        return self.add(nn.WhereOp(condition, lhs, rhs, TensorType(nn.element_of(lhs), shape)))

    def iota(self, count: int, start: int = 0, step: int = 1) -> SSAValue:
        """`count` integers from `start` on, every `step`-th."""
        return self.add(nn.IotaOp(start, step, TensorType(i64, [count])))

    def reduce(
        self, value: SSAValue, kind: str, axes: Sequence[int], *, keep: bool = False
    ) -> SSAValue:
        """One number for the elements along axes, which stay with extent 1 where `keep` says so."""
        if not axes:
            return value
        shape = nn.shape_of(value)
        result = self.add(nn.ReduceOp(value, kind, sorted(axes)))
        if not keep:
            return result
        return self.reshape(result, [1 if a in axes else n for a, n in enumerate(shape)])

    def concat(self, values: Sequence[SSAValue], axis: int) -> SSAValue:
        """Values of one element type, one behind the other along an axis."""
        if len(values) == 1:
            return values[0]
        shape = list(nn.shape_of(values[0]))
        shape[axis] = sum(nn.shape_of(value)[axis] for value in values)
        return self.add(nn.ConcatOp(values, axis, TensorType(nn.element_of(values[0]), shape)))

    def padded(
        self, value: SSAValue, axis: int, before: int, after: int, number: float = 0
    ) -> SSAValue:
        """`value` with so many elements of a number before and after along an axis."""
        shape = list(nn.shape_of(value))
        parts: list[SSAValue] = []
        for count in (before, None, after):
            if count is None:
                parts.append(value)
            elif count > 0:
                shape[axis] = count
                parts.append(self.full(number, nn.element_of(value), shape))
        return self.concat(parts, axis)

    def operand(self, name: str, element: Attribute) -> SSAValue:
        """A tensor or number argument as a value of the given element type."""
        arg = self.arg(name)
        if isinstance(arg, Ref):
            return self.cast(self.value(name), element)
        return self.full(self.number(name), element)

    def dtype(self, name: str) -> str | None:
        """A dtype argument, None where it was not passed."""
        arg = self.arg(name)
        return arg.name if isinstance(arg, Dtype) else None

    def __str__(self) -> str:
        return f"{self.call.target} in {self.call.place}"
