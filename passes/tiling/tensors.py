"""Tensors of a function that is tiled: inputs, weights, constants, results, and views of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    UnitAttr,
    f64,
    i1,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, hdp, nn
from heatc.dialects.attn import ValuesAttr
from heatc.dialects.einsum import WeightOp
from heatc.dialects.fixed import QType
from heatc.interpreter import input_names, output_names
from heatc.passes.analysis.constants import evaluate, ops_behind
from heatc.passes.analysis.host_work import is_view
from heatc.passes.analysis.ports import hiding_limit, input_ranges
from heatc.passes.rewriting import at
from heatc.passes.tiling.emitter import MOST_TOKENS, Emitter
from heatc.passes.tiling.shapes import Shapes
from heatc.passes.tiling.values import fixed_type, is_integer, isa_dtype
from heatc.weights import WeightStore

T = TypeVar("T", bound=Operation)


def dtype_of(tensor: SSAValue) -> str:
    owner = tensor.owner
    assert isinstance(owner, hdp.TensorOp | hdp.AliasOp)
    return (owner.tensor if isinstance(owner, hdp.AliasOp) else owner).dtype.data


class Tensors:
    """
    The tensors of a function that is tiled, described where they are first asked for.

    `known` maps values of the fixed level to `hdp.tensor` values, `on_chip` are the tensors that are
    never whole: results between the steps of a fused group.
    """

    def __init__(self, function: FuncOp, store: Callable[[], WeightStore]):
        self.function = function
        self.store = store
        self.input_names = input_names(function)
        self.output_names = output_names(function)
        self.body = Block()
        self.e = Emitter(self.body)
        self.known: dict[SSAValue, SSAValue] = {}
        self.on_chip: set[SSAValue] = set()
        self.weights: dict[tuple[Attribute | Block | None, ...], SSAValue] = {}
        self.outputs: dict[SSAValue, list[str]] = {}
        self.tokens: SSAValue | None = None
        self.shapes = Shapes(function)
        self.capacity = self.shapes.capacity
        self._indices: dict[bytes, SSAValue] = {}

    def ops(self, kind: type[Operation]) -> list[Any]:
        """The ops of a kind, in order."""
        return [op for op in self.function.body.block.ops if isinstance(op, kind)]

    def extents(self, value: SSAValue) -> tuple[int, int]:
        """Rows and columns of a value at most; a vector is one row, integers and tokens one column."""
        shape = [self.capacity if n == nn.TOKENS else n for n in nn.shape_of(value)]
        if self.capacity == 0 and nn.TOKENS in nn.shape_of(value):
            raise PassFailedException("packed tokens without an attn.packing")
        if nn.TOKENS in nn.shape_of(value):
            return shape[0], math.prod(shape[1:])
        if isinstance(nn.element_of(value), IntegerType) and not _is_score_mask(value):
            return math.prod(shape), 1
        return (1, math.prod(shape)) if len(shape) < 2 else (math.prod(shape[:-1]), shape[-1])

    def rows(self, value: SSAValue) -> SSAValue | None:
        """The run-time rows of a packed value."""
        return self.token_count() if nn.TOKENS in nn.shape_of(value) else None

    def token_count(self) -> SSAValue:
        """The packed tokens at run time."""
        if self.tokens is None:
            self.tokens = self.e.special("tokens")
        return self.tokens

    def tensor(self, value: SSAValue) -> SSAValue:
        """The tensor of a value, described where it is first asked for."""
        if value not in self.known:
            self.known[value] = self._describe(value)
        return self.known[value]

    def _describe(self, value: SSAValue) -> SSAValue:
        owner = value.owner
        if isinstance(value, BlockArgument):
            return self._input(value)
        if isinstance(owner, WeightOp):
            return self._weight(owner)
        assert isinstance(owner, Operation)
        if is_integer(owner) and self._is_constant(value):
            return self._constant(owner, value)
        if is_view(owner):
            base = self.tensor(owner.operands[0])
            if self.whole(base) in self.on_chip:
                return base
            rows, columns = self.extents(value)
            return self.view(base, rows, columns, self.rows(value))
        if is_integer(owner):
            raise PassFailedException(
                f"{at(owner)}{owner.name} of an input is no part of a task of the host; run "
                "partition-host first"
            )
        return self._result(value, self.e.symbol_of(owner, value))

    def _result(self, value: SSAValue, symbol: str) -> SSAValue:
        """A tensor that the program writes."""
        element = nn.element_of(value)
        properties: dict[str, Attribute] = {}
        if value in self.outputs:
            properties["ports"] = ArrayAttr(StringAttr(n) for n in self.outputs[value])
            properties["shape"] = DenseArrayBase.from_list(i64, list(self._port_shape(value)))
            if element == i1:
                properties["truth"] = UnitAttr()
        return self.e.tensor(
            symbol,
            "output" if value in self.outputs else "activation",
            isa_dtype(element),
            self.extents(value),
            rows_value=self.rows(value),
            point=element.point.data if isinstance(element, QType) else None,
            properties=properties,
        )

    def view(
        self, tensor: SSAValue, rows: int, columns: int, rows_value: SSAValue | None
    ) -> SSAValue:
        """A tensor with other extents, itself where they are its own."""
        owner = tensor.owner
        assert isinstance(owner, hdp.TensorOp | hdp.AliasOp)
        if (owner.rows.value.data, owner.cols.value.data) == (rows, columns):
            return tensor
        return self.e.emit(hdp.AliasOp(tensor, (rows, columns), rows_value))

    def whole(self, tensor: SSAValue) -> SSAValue:
        """What a tensor is a view of, or itself."""
        owner = tensor.owner
        return owner.tensor.result if isinstance(owner, hdp.AliasOp) else tensor

    def _port_shape(self, value: SSAValue) -> tuple[int, ...]:
        return tuple(self.capacity if n == nn.TOKENS else n for n in nn.shape_of(value))

    def _input(self, value: BlockArgument) -> SSAValue:
        name, element = self.input_names[value.index], nn.element_of(value)
        if value in self.outputs:
            raise PassFailedException(
                f"input {name!r} is returned as it is, which no instruction of the co-processor "
                "does: leave that output out, or use --target numpy for this model"
            )
        properties: dict[str, Attribute] = {
            "ports": ArrayAttr([StringAttr(name)]),
            "shape": DenseArrayBase.from_list(i64, list(self._port_shape(value))),
        }
        within = input_ranges(self.function).get(name)
        if within is not None:
            properties["within"] = ValuesAttr([within])
            limit = hiding_limit(self.function, value)
            if limit is not None:
                properties["hides"] = FloatAttr(limit, f64)
        if element == i1:
            properties["truth"] = UnitAttr()
        return self.e.tensor(
            self.e.symbol(name),
            "input",
            isa_dtype(element),
            self.extents(value),
            rows_value=self.rows(value),
            point=element.point.data if isinstance(element, QType) else None,
            properties=properties,
        )

    def _weight(self, op: WeightOp) -> SSAValue:
        key = (op.names, op.permutation, nn.element_of(op.result))
        if key not in self.weights:
            element = nn.element_of(op.result)
            properties: dict[str, Attribute] = {
                "names": op.names,
                "shape": DenseArrayBase.from_list(i64, list(nn.shape_of(op.result))),
            }
            if op.permutation is not None:
                properties["permutation"] = op.permutation
            self.weights[key] = self.e.tensor(
                self.e.symbol("+".join(op.keys)),
                "weight",
                isa_dtype(element),
                self.extents(op.result),
                point=element.point.data if isinstance(element, QType) else None,
                properties=properties,
            )
        return self.weights[key]

    def transposed(self, op: WeightOp) -> SSAValue:
        """The transpose of a weight matrix."""
        keep = (0, 1) if op.permutation is None else tuple(op.permutation.get_values())
        rows, columns = nn.shape_of(op.result)
        permutation = [int(keep[1]), int(keep[0])]
        order = DenseArrayBase.from_list(i64, permutation)
        key = (op.names, order, nn.element_of(op.result), self.e.block)
        if key not in self.weights:
            element = fixed_type(op.result)
            properties: dict[str, Attribute] = {
                "names": op.names,
                "shape": DenseArrayBase.from_list(i64, [columns, rows]),
            }
            if permutation != [0, 1]:
                properties["permutation"] = order
            self.weights[key] = self.e.tensor(
                self.e.symbol("+".join(op.keys)),
                "weight",
                isa_dtype(element),
                (columns, rows),
                point=element.point.data,
                properties=properties,
            )
        return self.weights[key]

    def _constant(self, op: Operation, value: SSAValue) -> SSAValue:
        """Integers that depend on no input."""
        array = np.asarray(self.evaluate(value)).reshape(-1)
        return self.integers(self.e.symbol_of(op, value), [int(x) for x in array])

    def integers(self, symbol: str, values: list[int]) -> SSAValue:
        """A constant column of integers; more columns where a tensor has not so many rows."""
        array = DenseArrayBase.from_list(i64, values)
        count = len(values)
        columns = next(
            n for n in range(1, count + 1) if count % n == 0 and count // n <= MOST_TOKENS
        )
        extents = (count // columns, columns)
        return self.e.tensor(symbol, "constant", "i64", extents, properties={"values": array})

    def index(self, indices: NDArray[np.int64]) -> SSAValue:
        """The tensor of an index, one for all that read the same."""
        key = indices.tobytes()
        if key not in self._indices:
            self._indices[key] = self.integers(self.e.symbol("index"), indices.tolist())
        return self._indices[key]

    def limit(self, tensor: SSAValue, rows: int) -> None:
        """Tell an input that indexes a table how many rows that has."""
        owner = self.whole(tensor).owner
        if not isinstance(owner, hdp.TensorOp) or owner.role.data != "input":
            return
        limits = [rows] if owner.limit is None else [rows, owner.limit.value.data]
        owner.limit = IntegerAttr(min(limits), i64)

    def _is_constant(self, value: SSAValue) -> bool:
        """Whether no input decides a value."""
        behind = ops_behind(value, lambda op: isinstance(op, WeightOp))
        arguments = (v for op in behind for v in op.operands)
        made = all(isinstance(op, WeightOp | nn.NnOp) for op in behind)
        return made and not any(isinstance(v, BlockArgument) for v in arguments)

    def evaluate(self, value: SSAValue) -> Any:
        """The array of a value that no input decides."""
        made_of = ops_behind(value, lambda op: isinstance(op, WeightOp))
        reads_weights = any(isinstance(op, WeightOp) for op in made_of)
        return evaluate(value, self.store() if reads_weights else WeightStore({}))


def width_of(tensor: SSAValue) -> int:
    """The columns of a tensor."""
    owner = tensor.owner
    assert isinstance(owner, hdp.TensorOp | hdp.AliasOp)
    return owner.cols.value.data


def _is_score_mask(value: SSAValue) -> bool:
    """Whether truth values say which scores of an attention are visible."""
    read = any(isinstance(use.operation, attn.PrunedOp) for use in value.uses)
    return read and nn.element_of(value) == i1
