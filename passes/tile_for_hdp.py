"""
From values to instructions on tiles.

Assumes the fixed level: products as `einsum.contract`, bias and `fixed.requantize`, HDP attention,
`host.task`, packed tokens. `main` becomes a function without arguments whose body is `hdp`
instructions in `scf.for` loops: tensors and tiles are symbolic values, inputs, weights and
outputs are `hdp.tensor` ops that say what they are. Tile sizes come from
`heatc.passes.tiling.plan`, for the largest run; loops run to registers, so that shorter inputs
take fewer iterations. Integer constants (position ids) are evaluated here. Leaves registers to
lower-to-hdp, addresses to allocate-buffers.

Example: test/passes/tile_for_hdp.mlir.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    Float32Type,
    IntegerAttr,
    IntegerType,
    ModuleOp,
    StringAttr,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.context import weights_of
from heatc.dialects import attn, hdp, nn
from heatc.dialects.einsum import ContractOp, WeightOp, only_reader
from heatc.dialects.fixed import DequantizeOp, QType, QuantizeOp, RequantizeOp
from heatc.dialects.host import TaskOp, YieldOp
from heatc.errors import InfeasibleError
from heatc.hardware import Hardware, load_hardware
from heatc.isa.table import BLOCK, DTYPES, split_dtypes
from heatc.isa.units import probability_code
from heatc.passes.analysis.normal_form import Product, product_of
from heatc.passes.effect import Effect
from heatc.passes.rewriting import describe_location, remark
from heatc.passes.tiling.attention import Attention, Prediction, Pruning, emit_attention
from heatc.passes.tiling.cascade import (
    Cascade,
    importance_of,
    ranking_of,
    sum_point,
    sum_shift,
)
from heatc.passes.tiling.emitter import Emitter, Tiles
from heatc.passes.tiling.host import HostTask
from heatc.passes.tiling.left import Left, LeftPlan, LeftShape, emit_left, hold_left, plan_left
from heatc.passes.tiling.linear import Linear, emit_linear, hold_weights
from heatc.passes.tiling.linear_plan import LinearPlan, LinearShape, panel_count, plan_token_linear
from heatc.passes.tiling.packing import PAGE, TILE_ALIGNMENT, Range, align, first_fit
from heatc.passes.tiling.plan import AttentionShape
from heatc.weights import WeightStore

T = TypeVar("T", bound=Operation)

_PART_OF_A_LARGER_OP = (
    WeightOp,
    ContractOp,
    nn.AddOp,
    nn.ReshapeOp,
    attn.SplitOp,
    attn.ScoresOp,
    attn.IntegerScoresOp,
    attn.BlockImportanceOp,
    attn.BlockMaskOp,
    attn.TopkMaskOp,
    attn.LowBitsOp,
    attn.ScaleScoresOp,
    attn.ProbabilityMaskOp,
    attn.ExcludeScoresOp,
    attn.HeadGateOp,
    attn.MergeScoresOp,
    attn.MeanQueryOp,
    attn.SoftmaxOp,
    attn.HeadImportanceOp,
    attn.HeadRankingOp,
)


_ELEMENTWISE = (DequantizeOp, nn.GeluOp, nn.ReluOp, nn.TanhOp, QuantizeOp, YieldOp)
"""What a task may consist of whose operand is cut into columns."""


def _only_user(value: SSAValue, kind: type[T]) -> T | None:
    """The op that uses a value, if it is the only one and of a kind."""
    users = {use.operation for use in value.uses}
    user = users.pop() if len(users) == 1 else None
    return user if isinstance(user, kind) else None


def _is_integer(op: Operation) -> bool:
    """Whether an op computes integers (or truth values), at compile time if at all."""
    if not isinstance(op, nn.NnOp):
        return False
    return all(isinstance(nn.element_of(r), IntegerType) for r in op.results)


def _fixed(value: SSAValue) -> QType:
    element = nn.element_of(value)
    if not isinstance(element, QType):
        raise PassFailedException(f"{value.type} has no binary point: run assign-fixed-point first")
    return element


def _isa_dtype(element: Attribute) -> str:
    if isinstance(element, QType):
        return f"i{element.width.data}"
    if isinstance(element, Float32Type):
        return "f32"
    if isinstance(element, IntegerType):
        return {1: "i8", 8: "i8", 16: "i16", 32: "i32"}.get(element.bitwidth, "i64")
    raise PassFailedException(f"a tensor of {element} cannot lie in the machine's memory")


def _dtype(tensor: SSAValue) -> str:
    owner = tensor.owner
    assert isinstance(owner, hdp.TensorOp | hdp.AliasOp)
    return (owner.tensor if isinstance(owner, hdp.AliasOp) else owner).dtype.data


def _owner(value: SSAValue, *kinds: type[Operation]) -> Any:
    """The op that computes a value, which must be of one of some kinds."""
    owner = value.owner
    if not isinstance(owner, kinds):
        what = owner.name if isinstance(owner, Operation) else "an argument"
        names = ", ".join(k.name for k in kinds)
        raise PassFailedException(f"expected {names} as operand of an hdp op, got {what}")
    return owner


def _is_linear(op: Operation) -> bool:
    product = product_of(op)
    return product is not None and product.is_linear


@dataclass
class _Packing:
    """The tensors of an `attn.packing`: positions of tokens, their inverse, and its extent."""

    positions: SSAValue
    inverse: SSAValue
    batch: int
    length: int
    token_positions: SSAValue | None = None
    tokens: dict[int, SSAValue] = field(default_factory=dict[int, SSAValue])


@dataclass(frozen=True)
class _Step:
    """A product and what rounds it."""

    op: RequantizeOp
    contract: ContractOp
    bias: SSAValue | None
    product: Product


@dataclass(eq=False)
class _Frame:
    """
    A fused group being emitted: `tile` tokens at most, `count` of them from `first` on.

    `sizes` are the bytes in the shared buffer that a step's operand and result take; `inner` are the
    tensors there; `held` are the weights of steps that stay on the chip for all tiles.
    """

    tile: int
    sizes: dict[Operation, int]
    first: SSAValue | None = None
    count: SSAValue | None = None
    inner: set[SSAValue] = field(default_factory=set[SSAValue])
    held: dict[Operation, Tiles] = field(default_factory=dict[Operation, Tiles])

    def taken(self, op: Operation) -> int:
        """Bytes of the shared buffer that are not there for a step's tiles."""
        return self.sizes[op]


def _held_steps(
    plans: Sequence[LinearPlan | LeftPlan], taken: Sequence[int], hardware: Hardware
) -> list[int]:
    """
    The steps of a group whose weights stay on the chip, so that they are loaded once.

    All that have room for their weights, but for the largest that do not fit beside the rest.
    """
    found = [i for i, p in enumerate(plans) if isinstance(p, LeftPlan) or p.resident]
    found.sort(key=lambda i: sum(t.nbytes for t in plans[i].weight_tiles()))
    while found and not _holds(plans, taken, found, hardware):
        found.pop()
    return sorted(found)


def _holds(
    plans: Sequence[LinearPlan | LeftPlan],
    taken: Sequence[int],
    held: Sequence[int],
    hardware: Hardware,
) -> bool:
    """Whether held weights fit beside what each step takes."""
    limits = {"local": hardware.local_buffer_bytes, "shared": hardware.shared_buffer_bytes}
    for space, limit in limits.items():
        ranges: list[Range] = []
        for i, plan in enumerate(plans):
            own = plan.local_bytes if space == "local" else plan.shared_bytes + taken[i]
            shared = isinstance(plan, LeftPlan) or plan.weights_shared
            kept = i in held and shared == (space == "shared")
            weights = sum(align(t.nbytes, TILE_ALIGNMENT) for t in plan.weight_tiles())
            if kept:
                ranges.append(Range(weights, 0, len(plans)))
            ranges.append(Range(own - weights * kept, i, i))
        if first_fit(ranges, TILE_ALIGNMENT).peak > limit:
            return False
    return True


class _Tiler:
    """Tiles one function; `tensors` maps values of the fixed level to `hdp.tensor` values."""

    def __init__(self, function: FuncOp, hardware: Hardware, store: Callable[[], WeightStore]):
        from heatc.interpreter import input_names, output_names

        self.function = function
        self.hardware = hardware
        self.store = store
        self.input_names = input_names(function)
        self.output_names = output_names(function)
        self.body = Block()
        self.e = Emitter(self.body)
        self.tensors: dict[SSAValue, SSAValue] = {}
        self.panels: dict[SSAValue, tuple[SSAValue, ...]] = {}
        self.weights: dict[tuple[Attribute | Block | None, ...], SSAValue] = {}
        self.packings: dict[SSAValue, _Packing] = {}
        self.outputs: dict[SSAValue, list[str]] = {}
        self.tokens: SSAValue | None = None
        self.fused: set[Operation] = set()
        self.results: dict[Operation, tuple[tuple[SSAValue, ...], int, int]] = {}
        self.frame: _Frame | None = None
        self.capacity = max(
            (math.prod(attn.packing_of(op.result).shape) for op in self._ops(attn.PackingOp)),
            default=0,
        )

    def _ops(self, kind: type[Operation]) -> list[Any]:
        return [op for op in self.function.body.block.ops if isinstance(op, kind)]

    def run(self) -> FuncOp:
        """The tiled function."""
        for op in self._ops(ReturnOp):
            for value, name in zip(op.operands, self.output_names):
                self.outputs.setdefault(value, []).append(name)
        for op in self.function.body.block.ops:
            self.e.source = op
            self._tile(op)
        return self._finish()

    def _tile(self, op: Operation) -> None:
        if isinstance(op, RequantizeOp):
            self._product(op)
        elif isinstance(op, attn.WeightedValuesOp):
            self._attention(op)
        elif isinstance(op, TaskOp):
            self._task(op)
        elif isinstance(op, attn.PackingOp):
            self._packing(op)
        elif isinstance(op, attn.PackOp):
            self._pack(op)
        elif not isinstance(op, (*_PART_OF_A_LARGER_OP, ReturnOp)) and not _is_integer(op):
            raise PassFailedException(
                f"{describe_location(op)}: {op.name} is not part of the fixed level; run "
                "partition-host and assign-fixed-point first"
            )

    def _finish(self) -> FuncOp:
        for argument in self.function.body.block.args:
            self.tensor(argument)
        missing = [n for v, names in self.outputs.items() if v not in self.tensors for n in names]
        if missing:
            raise PassFailedException(f"output {missing[0]!r} is not computed by any instruction")
        self.e.do("halt")
        self.e.emit(ReturnOp())
        new = FuncOp(self.function.sym_name.data, ((), ()), Region(self.body))
        new.location = self.function.location
        for key, names in (("inputs", self.input_names), ("outputs", self.output_names)):
            new.attributes[f"heatc.{key}"] = ArrayAttr(StringAttr(n) for n in names)
        return new

    # -- tensors ---------------------------------------------------------------------------

    def extents(self, value: SSAValue) -> tuple[int, int]:
        """Rows and columns of a value at most; a vector is one row, integers are one column."""
        shape = [self.capacity if n == nn.TOKENS else n for n in nn.shape_of(value)]
        if self.capacity == 0 and nn.TOKENS in nn.shape_of(value):
            raise PassFailedException("packed tokens without an attn.packing")
        if nn.TOKENS in nn.shape_of(value) and len(shape) > 1:
            return shape[0], math.prod(shape[1:])
        if isinstance(nn.element_of(value), IntegerType):
            return math.prod(shape), 1
        return (1, shape[0]) if len(shape) == 1 else (math.prod(shape[:-1]), shape[-1])

    def _rows(self, value: SSAValue) -> SSAValue | None:
        """The run-time rows of a packed value."""
        return self._token_count() if nn.TOKENS in nn.shape_of(value) else None

    def _token_count(self) -> SSAValue:
        if self.tokens is None:
            self.tokens = self.e.special("tokens")
        return self.tokens

    def tensor(self, value: SSAValue) -> SSAValue:
        """The tensor of a value, described where it is first asked for."""
        if value not in self.tensors:
            self.tensors[value] = self._describe(value)
        return self.tensors[value]

    def _describe(self, value: SSAValue) -> SSAValue:
        owner = value.owner
        if isinstance(value, BlockArgument):
            return self._input(value)
        if isinstance(owner, WeightOp):
            return self._weight(owner)
        if isinstance(owner, nn.ReshapeOp) and isinstance(nn.element_of(value), QType):
            base = self.tensor(owner.x)
            if self.frame is not None and self._whole(base) in self.frame.inner:
                return base
            rows, columns = self.extents(value)
            return self._as(base, rows, columns, self._rows(value))
        assert isinstance(owner, Operation)
        if _is_integer(owner):
            return self._constant(owner, value)
        return self._result(value, self.e.symbol_of(owner, value))

    def _result(self, value: SSAValue, symbol: str) -> SSAValue:
        """A tensor that the program writes."""
        element = nn.element_of(value)
        properties: dict[str, Attribute] = {}
        if value in self.outputs:
            properties["ports"] = ArrayAttr(StringAttr(n) for n in self.outputs[value])
            properties["shape"] = DenseArrayBase.from_list(i64, list(self._port_shape(value)))
        return self.e.tensor(
            symbol,
            "output" if value in self.outputs else "activation",
            _isa_dtype(element),
            self.extents(value),
            rows_value=self._rows(value),
            point=element.point.data if isinstance(element, QType) else None,
            properties=properties,
        )

    def _as(
        self, tensor: SSAValue, rows: int, columns: int, rows_value: SSAValue | None
    ) -> SSAValue:
        """A tensor with other extents, itself where they are its own."""
        owner = tensor.owner
        assert isinstance(owner, hdp.TensorOp | hdp.AliasOp)
        if (owner.rows.value.data, owner.cols.value.data) == (rows, columns):
            return tensor
        return self.e.emit(hdp.AliasOp(tensor, (rows, columns), rows_value))

    def _port_shape(self, value: SSAValue) -> tuple[int, ...]:
        return tuple(self.capacity if n == nn.TOKENS else n for n in nn.shape_of(value))

    def _input(self, value: BlockArgument) -> SSAValue:
        name, element = self.input_names[value.index], nn.element_of(value)
        if value in self.outputs:
            raise PassFailedException(f"input {name!r} is returned as it is")
        return self.e.tensor(
            self.e.symbol(name),
            "input",
            _isa_dtype(element),
            self.extents(value),
            rows_value=self._rows(value),
            point=element.point.data if isinstance(element, QType) else None,
            properties={
                "ports": ArrayAttr([StringAttr(name)]),
                "shape": DenseArrayBase.from_list(i64, list(self._port_shape(value))),
            },
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
                _isa_dtype(element),
                self.extents(op.result),
                point=element.point.data if isinstance(element, QType) else None,
                properties=properties,
            )
        return self.weights[key]

    def _transposed(self, op: WeightOp) -> SSAValue:
        """The transpose of a weight matrix."""
        keep = (0, 1) if op.permutation is None else tuple(op.permutation.get_values())
        rows, columns = nn.shape_of(op.result)
        permutation = [int(keep[1]), int(keep[0])]
        order = DenseArrayBase.from_list(i64, permutation)
        key = (op.names, order, nn.element_of(op.result), self.e.block)
        if key not in self.weights:
            element = _fixed(op.result)
            properties: dict[str, Attribute] = {
                "names": op.names,
                "shape": DenseArrayBase.from_list(i64, [columns, rows]),
            }
            if permutation != [0, 1]:
                properties["permutation"] = order
            self.weights[key] = self.e.tensor(
                self.e.symbol("+".join(op.keys)),
                "weight",
                _isa_dtype(element),
                (columns, rows),
                point=element.point.data,
                properties=properties,
            )
        return self.weights[key]

    def _constant(self, op: Operation, value: SSAValue) -> SSAValue:
        """Integers that depend on no input."""
        array = np.asarray(self._evaluate(value)).reshape(-1)
        return self._integers(self.e.symbol_of(op, value), [int(x) for x in array])

    def _integers(self, symbol: str, values: list[int]) -> SSAValue:
        array = DenseArrayBase.from_list(i64, values)
        extents = (len(values), 1)
        return self.e.tensor(symbol, "constant", "i64", extents, properties={"values": array})

    def _evaluate(self, value: SSAValue) -> Any:
        from heatc.interpreter import make_interpreter

        owner = value.owner
        if not isinstance(owner, Operation):
            raise PassFailedException(
                "integers computed from an input index a table: the machine has no unit for them"
            )
        arguments = tuple(self._evaluate(v) for v in owner.operands)
        store = self.store() if isinstance(owner, WeightOp) else WeightStore({})
        return make_interpreter(ModuleOp([]), store).run_op(owner, arguments)[0]

    # -- tokens ----------------------------------------------------------------------------

    def _packing(self, op: attn.PackingOp) -> None:
        batch, length = attn.packing_of(op.result).shape
        count = batch * length
        positions, inverse = (
            self.e.tensor(self.e.symbol(f"packing.{name}"), "activation", "i64", (count, 1))
            for name in ("positions", "inverse")
        )
        mask = positions
        if op.mask is not None:
            mask = self.tensor(op.mask)
            owner = mask.owner
            assert isinstance(owner, hdp.TensorOp)
            if owner.role.data != "input":
                raise PassFailedException("attn.packing of a mask that is no input of the model")
            owner.port_role = StringAttr("mask")
        self.e.do(
            "hpack",
            dpos=positions,
            dinv=inverse,
            dmask=mask,
            batch=batch,
            length=length,
            has_mask=op.mask is not None,
        )
        self.packings[op.result] = _Packing(positions, inverse, batch, length)

    def _pack(self, op: attn.PackOp) -> None:
        if not isinstance(nn.element_of(op.x), IntegerType):
            raise PassFailedException(
                f"{describe_location(op)}: attn.pack of {op.x.type}: only integers are packed"
            )
        packing, source = self.packings[op.packing], self.tensor(op.x)
        result = self.tensor(op.result)
        if packing.token_positions is None:
            window = hdp.WindowOp(packing.positions, self.e.constant(0), self._token_count())
            packing.token_positions = self.e.emit(window)
        self.e.do("hidx", dst=result, src=source, idx=packing.token_positions)
        self._limit(op)

    def _limit(self, op: attn.PackOp) -> None:
        """Tell the input how many rows the table has that it indexes."""
        source = self.tensor(op.x).owner
        assert isinstance(source, hdp.TensorOp)
        if source.role.data != "input":
            return
        limits: list[int] = []
        for use in op.result.uses:
            if not isinstance(use.operation, TaskOp):
                continue
            argument = use.operation.body.block.args[use.index]
            limits += [
                nn.shape_of(u.operation.table)[0]
                for u in argument.uses
                if isinstance(u.operation, nn.EmbeddingOp) and u.index == 1
            ]
        if limits:
            source.limit = IntegerAttr(min(limits), i64)

    def _index(self, op: Operation) -> SSAValue:
        """The index tensor that puts tokens back (`attn.unpack`) or picks one of each sequence."""
        assert isinstance(op, attn.UnpackOp | attn.TokenOp)
        task = op.parent_op()
        assert isinstance(task, TaskOp)
        arguments: list[SSAValue] = list(task.body.block.args)
        outer = dict(zip(arguments, task.inputs))
        packing = self.packings[outer[op.packing]]
        if isinstance(op, attn.UnpackOp):
            return packing.inverse
        position = op.position.value.data
        if position not in packing.tokens:
            places = [b * packing.length + position for b in range(packing.batch)]
            symbol = f"packing.position{position}"
            source = self._integers(self.e.symbol(f"{symbol}.places"), places)
            index = self.e.tensor(self.e.symbol(symbol), "activation", "i64", (packing.batch, 1))
            self.e.do("hidx", dst=index, src=packing.inverse, idx=source)
            packing.tokens[position] = index
        return packing.tokens[position]

    # -- the co-processor ------------------------------------------------------------------

    def _product(self, op: RequantizeOp) -> None:
        if op in self.fused:
            return
        steps = self._group(op)
        if len(steps) > 1 and self._fits_together(steps):
            self._emit_group(steps)
        else:
            for step in steps:
                self._emit_product(step)

    def _step(self, op: RequantizeOp) -> _Step:
        contract, bias = self._contraction(op)
        product = product_of(contract)
        if product is None:
            raise PassFailedException(
                f"{describe_location(op)}: the machine has no product for the contraction "
                f"{contract.equation.data!r}; choose a path for the machine (order-contractions hw=...)"
            )
        return _Step(op, contract, bias, product)

    def _group(self, op: RequantizeOp) -> list[_Step]:
        """The steps from this one to the first whose result leaves the chip."""
        steps = [self._step(op)]
        while steps[-1].contract.fuse is not None:
            reader = only_reader(steps[-1].op.result)
            if reader is None:
                break
            user: Any = reader.result.get_user_of_unique_use()
            while not isinstance(user, RequantizeOp):
                user = user.results[0].get_user_of_unique_use()
            steps.append(self._step(user))
        self.fused |= {step.op for step in steps}
        return steps

    def _emit_product(self, step: _Step) -> None:
        held = None if self.frame is None else self.frame.held.get(step.op)
        if step.product.post > 1:
            emit_left(self.e, self._left(step), self._hardware(step), held)
        else:
            emit_linear(self.e, self._linear(step), self._hardware(step), held)

    def _linear(self, step: _Step) -> Linear:
        op, product, bias = step.op, step.product, step.bias
        shape = self._linear_shape(op)
        in_tiles = self.frame is not None and self.frame.first is not None
        outputs, point, fraction = self._results(op, None if in_tiles else shape)
        x = step.contract.inputs[0]
        panels = self.panels.get(x)
        activations = panels or (self._cut(self.tensor(x), x, product.pre, product.gone),)
        if panels:
            shape = replace(shape, panel=shape.depth // len(panels))
            activations = tuple(self._cut(t, x, 1, shape.panel) for t in panels)
        if op.result not in self.panels:
            shape = replace(shape, planes=tuple(map(_dtype, outputs)))
            outputs = tuple(self._cut(t, op.result, product.pre, product.new) for t in outputs)
        rows = self._row_count(op.result)
        return Linear(
            shape,
            None if rows is None else self.e.scaled(rows, product.pre),
            activations,
            self._weight_of(step),
            None if bias is None else self._as(self.tensor(bias), product.pre, product.new, None),
            outputs,
            *self._shifts(step.contract, bias, point),
            fraction,
        )

    def _weight_of(self, step: _Step) -> Callable[[bool], SSAValue]:
        """The weight's tensor, or that of its transpose."""
        op = step.contract.inputs[1].owner
        assert isinstance(op, WeightOp)

        def tensor(transposed: bool) -> SSAValue:
            return self._transposed(op) if transposed else self.tensor(op.result)

        return tensor

    def _left(self, step: _Step) -> Left:
        """A product with the weight on the left, one item a core."""
        op, product, bias = step.op, step.product, step.bias
        outputs, point, fraction = self._results(op, None)
        rows, _ = self._token_rows(op.result)
        count = self._row_count(op.result) or self.e.constant(rows)
        x = step.contract.inputs[0]
        return Left(
            self._left_shape(step, tuple(map(_dtype, outputs))),
            self.e.scaled(count, product.pre),
            self._cut(self.tensor(x), x, product.pre * product.gone, product.post),
            self.tensor(step.contract.inputs[1]),
            None if bias is None else self._as(self.tensor(bias), product.new, product.post, None),
            tuple(
                self._cut(t, op.result, product.pre * product.new, product.post) for t in outputs
            ),
            *self._shifts(step.contract, bias, point),
            fraction,
        )

    def _left_shape(self, step: _Step, planes: tuple[str, ...]) -> LeftShape:
        rows, _ = self._token_rows(step.op.result)
        product = step.product
        axes = product.gone, product.new, product.post
        return LeftShape(rows * product.pre, *axes, planes, step.bias is not None)

    # -- fused groups ----------------------------------------------------------------------

    def _tile_of(self, steps: Sequence[_Step]) -> int:
        """Tokens of a tile of a group."""
        fuse = steps[0].contract.fuse
        assert fuse is not None
        return min(fuse.data, self.capacity)

    def _hardware(self, step: _Step) -> Hardware:
        """The machine without the room that results of the step's group take in the shared buffer."""
        if self.frame is None:
            return self.hardware
        room = self.hardware.shared_buffer_bytes - self.frame.taken(step.op)
        return replace(self.hardware, shared_buffer_bytes=max(room, 1))

    def _fits_together(self, steps: Sequence[_Step]) -> bool:
        """Whether all steps of a group have tiles beside its results; says so where not."""
        self.frame = self._frame(steps)
        try:
            for step in steps:
                # Planes of a split result take no more than one of 16 bits.
                if step.product.post > 1:
                    plan_left(self._left_shape(step, ("i16",)), self._hardware(step))
                else:
                    plan_token_linear(self._linear_shape(step.op), self._hardware(step))
        except InfeasibleError as error:
            remark(steps[-1].op, f"results between steps go through DRAM: {error.message}")
            return False
        finally:
            self.frame = None
        return True

    def _frame(self, steps: Sequence[_Step]) -> _Frame:
        tile = self._tile_of(steps)
        sizes: dict[Operation, int] = {}
        for before, step in zip([None, *steps], steps):
            ends = [s for s in (before, step) if s is not None and s is not steps[-1]]
            sizes[step.op] = sum(
                align(tile * math.prod(nn.shape_of(s.op.result)[1:]) * DTYPES["i16"], PAGE)
                for s in ends
            )
        return _Frame(tile, sizes)

    def _emit_group(self, steps: Sequence[_Step]) -> None:
        """A loop over tiles of tokens, its results but the last in the shared buffer."""
        frame = self._frame(steps)
        tokens = self._token_count()
        if frame.tile >= self.capacity:
            frame.count = tokens
            self.frame = frame
            self._emit_steps(steps)
        else:
            self._in_tiles(steps, frame, tokens)
        self.frame = None

    def _in_tiles(self, steps: Sequence[_Step], frame: _Frame, tokens: SSAValue) -> None:
        # What is seen outside of the loop is described there.
        self._results(steps[-1].op, None)
        self.tensor(steps[0].contract.inputs[0])
        for step in steps:
            self.tensor(step.contract.inputs[1])
            if step.bias is not None:
                self.tensor(step.bias)
        self.frame = frame
        plans = [self._plan(step) for step in steps]
        for i in _held_steps(plans, [frame.taken(s.op) for s in steps], self.hardware):
            self.e.source = steps[i].op
            frame.held[steps[i].op] = self._hold(steps[i], plans[i])
        with self.e.loop(tokens, frame.tile) as first:
            frame.first = first
            frame.count = self.e.span(tokens, first, frame.tile)
            self._emit_steps(steps)

    def _plan(self, step: _Step) -> LinearPlan | LeftPlan:
        """The tiles of a step of a group that goes tile by tile."""
        last = step.contract.fuse is None
        planes = tuple(map(_dtype, self._results(step.op, None)[0])) if last else ("i16",)
        if step.product.post > 1:
            return plan_left(self._left_shape(step, planes), self._hardware(step))
        shape = replace(self._linear_shape(step.op), planes=planes)
        return plan_token_linear(shape, self._hardware(step))

    def _hold(self, step: _Step, plan: LinearPlan | LeftPlan) -> Tiles:
        if isinstance(plan, LeftPlan):
            return hold_left(self.e, self.tensor(step.contract.inputs[1]), plan)
        return hold_weights(self.e, self._weight_of(step), plan)

    def _emit_steps(self, steps: Sequence[_Step]) -> None:
        frame = self.frame
        assert frame is not None
        for step in steps:
            self.e.source = step.op
            if step is not steps[-1]:
                self._intermediate(step.op, frame)
            self._emit_product(step)

    def _intermediate(self, op: RequantizeOp, frame: _Frame) -> None:
        """The tensor of a result that stays on the chip."""
        element = _fixed(op.result)
        tensor = self.e.tensor(
            self.e.symbol_of(op, op.result),
            "activation",
            _isa_dtype(element),
            (frame.tile, math.prod(nn.shape_of(op.result)[1:])),
            rows_value=frame.count,
            point=element.point.data,
            properties={"space": StringAttr("shared")},
        )
        self.tensors[op.result] = tensor
        frame.inner.add(tensor)

    def _contraction(self, op: RequantizeOp) -> tuple[ContractOp, SSAValue | None]:
        """The contraction that is rounded, and its bias."""
        total, bias = op.x.owner, None
        if isinstance(total, nn.AddOp):
            bias = total.rhs
            _owner(bias, WeightOp)
            total = total.lhs.owner
        if isinstance(total, nn.ReshapeOp):
            total = total.x.owner
        if not isinstance(total, ContractOp):
            raise PassFailedException(
                f"{describe_location(op)}: expected {ContractOp.name} before {op.name}"
            )
        return total, bias

    def _shifts(self, contract: ContractOp, bias: SSAValue | None, point: int) -> tuple[int, int]:
        """The shifts of the bias and of the sum."""
        accumulator = _fixed(contract.result).point.data
        return 0 if bias is None else accumulator - _fixed(bias).point.data, accumulator - point

    def _token_rows(self, value: SSAValue) -> tuple[int, int]:
        """Rows of a value at most (of a tile, in a group), a token or a sequence one; their width."""
        most = self.capacity if self.frame is None else self.frame.tile
        rows, *rest = (most if n == nn.TOKENS else n for n in nn.shape_of(value))
        return rows, math.prod(rest)

    def _row_count(self, value: SSAValue) -> SSAValue | None:
        """The rows of a packed value, or of the tile of a group, at run time."""
        if self.frame is not None:
            return self.frame.count
        return self._rows(value)

    def _cut(self, tensor: SSAValue, value: SSAValue, factor: int, columns: int) -> SSAValue:
        """A tensor of the rows of `value`, or the tile's, each cut into `factor` rows."""
        frame = self.frame
        if frame is not None and self._whole(tensor) in frame.inner:
            assert frame.count is not None
            return self._as(
                tensor, frame.tile * factor, columns, self.e.scaled(frame.count, factor)
            )
        rows = self._rows(value)
        most = self.capacity if rows is not None else self._token_rows(value)[0]
        if rows is not None:
            rows = self.e.scaled(rows, factor)
        whole = self._as(tensor, most * factor, columns, rows)
        if frame is None or frame.first is None or frame.count is None:
            return whole
        start, count = (self.e.scaled(v, factor) for v in (frame.first, frame.count))
        return self.e.emit(hdp.WindowOp(whole, start, count))

    def _whole(self, tensor: SSAValue) -> SSAValue:
        owner = tensor.owner
        return owner.tensor.result if isinstance(owner, hdp.AliasOp) else tensor

    def _linear_shape(self, op: RequantizeOp) -> LinearShape:
        """The shape of a linear with one plane."""
        contract, bias = self._contraction(op)
        product = product_of(contract)
        assert product is not None
        rows, _ = self._token_rows(op.result)
        return LinearShape(
            rows * product.pre, product.gone, product.new, bias=bias is not None, pre=product.pre
        )

    def _task_between(self, op: RequantizeOp) -> tuple[TaskOp, RequantizeOp] | None:
        """The element-wise task and the linear behind it, if a linear's result has no other use."""
        task = _only_user(op.result, TaskOp)
        if task is None or len(task.inputs) != 1 or len(task.outputs) != 1:
            return None
        if not all(isinstance(inner, _ELEMENTWISE) for inner in task.body.block.ops):
            return None
        contract = _only_user(task.outputs[0], ContractOp)
        if contract is None or not _is_linear(contract) or task.outputs[0] in self.outputs:
            return None
        user: Any = _only_user(contract.result, nn.AddOp) or contract
        second = _only_user(user.results[0], RequantizeOp)
        return None if second is None or self._rows(op.result) is None else (task, second)

    def _panels(self, op: RequantizeOp, shape: LinearShape) -> tuple[SSAValue, ...]:
        """The tensors of a linear's result and of the task behind it, if cut into panels."""
        behind = self._task_between(op) if _is_linear(self._contraction(op)[0]) else None
        if behind is None:
            return ()
        task, second = behind
        count = panel_count(shape, self._linear_shape(second), self.hardware)
        if count == 1:
            return ()
        for value, owner in ((op.result, op), (task.outputs[0], task)):
            symbol, element = self.e.symbol_of(owner, value), _fixed(value)
            self.panels[value] = tuple(
                self.e.tensor(
                    f"{symbol}.panel{i}",
                    "activation",
                    _isa_dtype(element),
                    (shape.rows, shape.columns // count),
                    rows_value=self._rows(value),
                    point=element.point.data,
                    properties={"plane_of": StringAttr(symbol)},
                )
                for i in range(count)
            )
        return self.panels[op.result]

    def _task(self, task: TaskOp) -> None:
        """A task of the host, once a panel where what it works on lies in panels."""
        count = max((len(self.panels.get(v, ())) for v in task.inputs), default=0)
        if not count:
            HostTask(self.e, self.tensor, self._index, self.extents).emit(task)
        for i in range(count):

            def panel(value: SSAValue, i: int = i) -> SSAValue:
                return self.panels[value][i]

            HostTask(self.e, panel, self._index, self.extents).emit(task)

    def _results(
        self, op: RequantizeOp, shape: LinearShape | None
    ) -> tuple[tuple[SSAValue, ...], int, int]:
        """
        The tensors that a product writes, its point, and the bits of a fraction plane.

        They are one, or two planes if it is only split, or panels of a linear (with a `shape`).
        """
        if op in self.results:
            return self.results[op]
        self.results[op] = self._make_results(op, shape)
        return self.results[op]

    def _make_results(
        self, op: RequantizeOp, shape: LinearShape | None
    ) -> tuple[tuple[SSAValue, ...], int, int]:
        point = _fixed(op.result).point.data
        if shape is not None and (panels := self._panels(op, shape)):
            return panels, point, 0
        splits = [use.operation for use in op.result.uses]
        if not splits or not all(isinstance(s, attn.SplitOp) for s in splits):
            return (self.tensor(op.result),), point, 0
        integers = {_fixed(cast("attn.SplitOp", split).integer).point.data for split in splits}
        if len(integers) != 1:
            raise PassFailedException(
                f"{describe_location(op)}: integer parts at points {sorted(integers)} of one value"
            )
        (integer,) = integers
        if point < 0:
            raise PassFailedException(
                f"{describe_location(op)}: a binary point of {point} leaves no room for the "
                "integer part that hdp decides on"
            )
        symbol = self.e.symbol_of(op, op.result)
        planes = [
            self.e.tensor(
                f"{symbol}.{name}",
                "activation",
                dtype,
                self.extents(op.result),
                rows_value=self._rows(op.result),
                point=plane_point,
                properties={"plane_of": StringAttr(symbol)},
            )
            for name, plane_point, dtype in zip(
                ("integer", "fraction"), (integer, point), split_dtypes(point - integer)
            )
        ]
        for split in splits:
            assert isinstance(split, attn.SplitOp)
            self.tensors[split.integer], self.tensors[split.fraction] = planes
        return tuple(planes), point, point - integer

    def _attention(self, op: attn.WeightedValuesOp) -> None:
        softmax: attn.SoftmaxOp = _owner(op.probabilities, attn.SoftmaxOp)
        kinds = (attn.ScoresOp, attn.MergeScoresOp, attn.MeanQueryOp, attn.ExcludeScoresOp)
        scores, prediction = _owner(softmax.scores, *kinds), None
        gate, gated = op.gate, "zero" if op.gated is None else op.gated.data
        if isinstance(scores, attn.MeanQueryOp):
            gate, gated = scores.gate, "col"
            scores = _owner(scores.scores, attn.MergeScoresOp)
        if isinstance(scores, attn.ExcludeScoresOp):
            prediction = self._prediction(op, scores, softmax)
            scores = _owner(scores.scores, attn.ScoresOp)
        pruning, planes, points = None, dict[str, SSAValue](), dict[str, int]()
        cascade = None
        if isinstance(scores, attn.MergeScoresOp):
            pruning = self._pruning(op, scores, gate)
            values = {
                "q": scores.q_integer,
                "q.fraction": scores.q_fraction,
                "k": scores.k_integer,
                "k.fraction": scores.k_fraction,
            }
            integer = {k: _fixed(values[k]).point.data for k in ("q", "k")}
            points = {k: _fixed(values[f"{k}.fraction"]).point.data - integer[k] for k in integer}
        else:
            values = {"q": scores.q, "k": scores.k}
            points = {k: _fixed(v).point.data for k, v in values.items()}
            cascade = self._cascade(op)
        values["v"] = op.v
        points |= {"v": _fixed(op.v).point.data, "s": _fixed(softmax.scores).point.data}
        points["o"] = _fixed(op.result).point.data
        for name, value in values.items():
            if value not in self.tensors and isinstance(value.owner, attn.SplitOp):
                raise PassFailedException(
                    f"{describe_location(op)}: attn.split of a value that no linear computes"
                )
            planes[name] = self.tensor(value)
        heads = op.heads.value.data
        _, length = attn.packing_of(op.packing).shape
        dim = nn.shape_of(op.v)[1] // heads
        output = self.tensor(op.result)
        owner = output.owner
        assert isinstance(owner, hdp.TensorOp)
        shape = AttentionShape(
            length,
            heads if cascade is None else cascade.keep,
            dim,
            pruning is not None,
            pruning is not None and pruning.gate is not None,
            tuple((name, dtype) for name, t in planes.items() if (dtype := _dtype(t)) != "i16"),
            "zero" if pruning is None else pruning.pruned,
            pruning is not None and pruning.positive,
            gated,
            0 if cascade is None or cascade.before is None else cascade.heads,
            cascade is not None and cascade.after is not None,
            BLOCK if pruning is None else pruning.block,
            0.0 if pruning is None else pruning.density,
        )
        if prediction is not None:
            likely = not prediction.ratios
            shape = replace(shape, block=SINGLE, bits=prediction.bits, likely=likely)
        scale = softmax.scale.value.data
        emit_attention(
            self.e,
            Attention(
                owner.symbol.data,
                shape,
                planes,
                output,
                scale,
                points,
                pruning,
                cascade,
                prediction,
            ),
            self.hardware,
        )

    def _cascade(self, op: attn.WeightedValuesOp) -> Cascade | None:
        """What dense attention has to do with the importance of heads, None if nothing."""
        ranking, importance = ranking_of(op), importance_of(op)
        if ranking is None and importance is None:
            return None
        heads = op.heads.value.data
        sums = [op.before for op in (importance,) if op is not None]
        sums += [op.importance for op in (ranking,) if op is not None]
        before = sums[-1]
        if before is not sums[0]:
            raise PassFailedException(
                f"{describe_location(op)}: heads are ranked by other sums than these they add to"
            )
        if before is not None and before not in self.tensors:
            raise PassFailedException(
                f"{describe_location(op)}: importance of heads of what no dense attention puts out"
            )
        after, shift = None, 0
        if importance is not None:
            after, shift = self._sums(importance), sum_shift(importance)
        return Cascade(
            heads,
            heads if ranking is None else ranking.keep.value.data,
            None if before is None else self.tensors[before],
            after,
            shift,
            ranking,
        )

    def _sums(self, op: attn.HeadImportanceOp) -> SSAValue:
        """The tensor of sums of heads that an attention leaves, a row a sequence."""
        owner = self.tensor(op.x).owner
        assert isinstance(owner, hdp.TensorOp)
        self.tensors[op.result] = self.e.tensor(
            self.e.symbol(f"{owner.symbol.data}.importance"),
            "activation",
            "i64",
            (attn.packing_of(op.packing).shape[0], op.heads.value.data),
            point=sum_point(op),
        )
        return self.tensors[op.result]

    def _pruning(
        self, op: attn.WeightedValuesOp, scores: attn.MergeScoresOp, gated: SSAValue | None
    ) -> Pruning:
        mask = _owner(scores.mask, attn.BlockMaskOp, attn.TopkMaskOp)
        topk = isinstance(mask, attn.TopkMaskOp)
        gate: attn.HeadGateOp | None = None
        if gated is not None:
            gate = _owner(gated, attn.HeadGateOp)
        block = self._block(op, _block_of(scores))
        theta: attn.BlockImportanceOp = _owner(mask.theta, attn.BlockImportanceOp)
        return Pruning(
            () if topk else mask.ratios,
            () if gate is None else gate.thresholds,
            scores.pruned.data,
            mask,
            gate,
            theta.importance.data,
            _fixed(scores.integer).point.data,
            block,
            mask.density.value.data if topk else 0.0,
        )

    def _prediction(
        self, op: attn.WeightedValuesOp, excluded: attn.ExcludeScoresOp, softmax: attn.SoftmaxOp
    ) -> Prediction:
        """What low-bit scores decide on, of the operands of the scores that are left."""
        scores: attn.ScoresOp = _owner(excluded.scores, attn.ScoresOp)
        mask = _owner(excluded.mask, attn.BlockMaskOp, attn.ProbabilityMaskOp)
        self._block(op, SINGLE)
        if isinstance(mask, attn.ProbabilityMaskOp):
            predicted: attn.SoftmaxOp = _owner(mask.probabilities, attn.SoftmaxOp)
            scaled: attn.ScaleScoresOp = _owner(predicted.scores, attn.ScaleScoresOp)
            _expect(op, predicted.scale == softmax.scale, "a prediction at another scale")
            bits = _low_bits(op, scaled.scores, scores)
            code = probability_code(mask.threshold.value.data)
            return Prediction((bits,), (), (mask,), _fixed(scaled.result).point.data, code)
        first = mask if mask.among is None else _owner(mask.among, attn.BlockMaskOp)
        _expect(op, first.among is None, "more than two rounds of low-bit scores")
        rounds = (mask,) if mask is first else (first, mask)
        for one in rounds:
            _expect(op, _block_of(one) == SINGLE, "low-bit scores in blocks")
            _expect(op, len(one.ratios) == 1, "ratios of low-bit scores that differ by head")
        bits = tuple(_low_bits(op, one.theta, scores) for one in rounds)
        return Prediction(bits, tuple(one.ratios[0] for one in rounds), rounds)

    def _block(self, op: attn.WeightedValuesOp, block: tuple[int, int]) -> tuple[int, int]:
        """The size of a block, which the sparsity engine must have."""
        rows, columns = block
        known = self.hardware.blocks
        if (rows, columns) not in known:
            sizes = ", ".join(f"{r}x{c}" for r, c in known)
            raise InfeasibleError(
                f"the sparsity engine of {self.hardware.name} has no blocks of {rows}x{columns}",
                place=describe_location(op),
                notes=[f"it has {sizes}: sparsity_engine.blocks in the hardware file says so"],
            )
        return rows, columns


SINGLE = (1, 1)
"""The block of rules that decide on single scores."""


def _block_of(op: attn.MergeScoresOp | attn.BlockMaskOp) -> tuple[int, int]:
    rows, columns = (int(b) for b in op.block.get_values())
    return rows, columns


def _expect(op: Operation, holds: bool, what: str) -> None:
    """Refuse what the machine has no unit for."""
    if not holds:
        raise PassFailedException(f"{describe_location(op)}: the machine has no unit for {what}")


def _low_bits(op: Operation, scores: SSAValue, full: attn.ScoresOp) -> int:
    """The bits of low-bit scores, whose codes must be those of the operands of all scores."""
    low: attn.IntegerScoresOp = _owner(scores, attn.IntegerScoresOp)
    q, k = (_owner(value, attn.LowBitsOp) for value in (low.q, low.k))
    alike = (q.x, k.x, q.bits) == (full.q, full.k, k.bits)
    _expect(op, alike, "low-bit scores of other operands than the scores")
    return q.bits.value.data


@dataclass(frozen=True)
class TileForHdpPass(ModulePass):
    """
    Instructions on tiles; exact.

    `hw` is a preset or a YAML file, `weights` a safetensors file for integer constants.
    """

    name = "tile-for-hdp"
    effect: ClassVar[Effect] = Effect.EXACT

    hw: str = "hdp-edge"
    weights: str | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """
        Replace every function; `InfeasibleError` where tiles do not fit the hardware.

        Raises `PassFailedException` for what is not of the fixed level.
        """
        hardware = load_hardware(self.hw)

        def store() -> WeightStore:
            return weights_of(ctx, self.weights)

        for function in list(op.ops):
            if isinstance(function, FuncOp) and function.body.blocks:
                new = _Tiler(function, hardware, store).run()
                op.body.block.insert_op_before(new, function)
                function.detach()
                function.erase()
