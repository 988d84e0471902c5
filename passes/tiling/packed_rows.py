"""The rows of a batch on the machine: `attn.packing`, what is packed, and how rows come back."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import IntegerType, StringAttr, i64
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, hdp, nn
from heatc.dialects.host import TaskOp
from heatc.intervals import Interval, described
from heatc.passes.rewriting import at
from heatc.passes.tiling.tensors import Tensors

_TESTS: dict[str, Callable[[float, float], bool]] = {
    "ne": operator.ne,
    "eq": operator.eq,
    "ge": operator.ge,
    "le": operator.le,
}


def separating_test(
    real: Sequence[Interval], masked: Sequence[Interval]
) -> tuple[str, float] | None:
    """A comparison with a number that all of `real` passes, and nothing of `masked`; if there is one."""
    ends = [end for pair in (*masked, *real) for end in pair if abs(end) != float("inf")]
    for number in (0.0, *ends):
        for name, compare in _TESTS.items():
            passes = all(_all_pass(name, pair, number) for pair in real)
            if passes and not any(_any_passes(compare, pair, number) for pair in masked):
                return name, number
    return None


def _all_pass(name: str, interval: Interval, number: float) -> bool:
    low, high = interval
    if name == "ne":
        return not low <= number <= high
    return all(_TESTS[name](end, number) for end in (low, high))


def _any_passes(compare: Callable[[float, float], bool], interval: Interval, number: float) -> bool:
    low, high = interval
    inside = low <= number <= high and compare(number, number)
    return compare(low, number) or compare(high, number) or inside


def input_behind(value: SSAValue) -> SSAValue:
    """A value's elements as the model is given them: below reshapes and casts that change none."""
    while True:
        owner = value.owner
        if isinstance(owner, nn.ReshapeOp) or (isinstance(owner, nn.CastOp) and _widens(owner)):
            value = owner.x
        else:
            return value


def _widens(op: nn.CastOp) -> bool:
    """Whether a cast gives every integer a type that holds it."""
    source, target = nn.element_of(op.x), nn.element_of(op.result)
    return isinstance(source, IntegerType) and target == i64


@dataclass
class Packing:
    """
    The tensors of an `attn.packing`, and its extent.

    `positions` of rows, their `inverse`, and that of real tokens alone.
    """

    positions: SSAValue
    inverse: SSAValue
    real: SSAValue
    batch: int
    length: int
    token_positions: SSAValue | None = None
    tokens: dict[int, SSAValue] = field(default_factory=dict[int, SSAValue])


class PackedRows:
    """Tiles the ops that list rows, take rows of inputs, and say where rows are."""

    def __init__(self, tensors: Tensors):
        self.tensors = tensors
        self.e = tensors.e
        self._packings: dict[SSAValue, Packing] = {}

    def tile_packing(self, op: attn.PackingOp) -> None:
        """List the rows of a batch."""
        type_ = attn.packing_of(op.result)
        batch, length = type_.shape
        names = ("positions", "inverse", *(("real",) if type_.reads else ()))
        tensors = [self._places(name, batch * length) for name in names]
        fields: dict[str, hdp.Operand] = {"batch": batch, "length": length}
        fields |= {"dpos": tensors[0], "dinv": tensors[1], "dmask": tensors[0]}
        if op.mask is not None:
            fields["dmask"] = self._tested_mask(op, op.mask)
        if type_.reads:
            read = self.tensors.integers(self.e.symbol("packing.read"), list(type_.reads))
            self.e.do("hrows", **fields, dreal=tensors[2], dread=read)
        else:
            self.e.do("hpack", **fields, has_mask=op.mask is not None)
        self._packings[op.result] = Packing(
            tensors[0], tensors[1], tensors[-1] if type_.reads else tensors[1], batch, length
        )

    def _places(self, name: str, count: int) -> SSAValue:
        return self.e.tensor(self.e.symbol(f"packing.{name}"), "activation", "i64", (count, 1))

    def _tested_mask(self, op: attn.PackingOp, mask: SSAValue) -> SSAValue:
        """A tensor that is not 0 where a token is real: the input, or what a comparison gives."""
        tensor = self.tensors.tensor(input_behind(mask))
        owner = tensor.owner
        assert isinstance(owner, hdp.TensorOp)
        if owner.role.data != "input":
            raise PassFailedException("attn.packing of a mask that is no input of the model")
        owner.port_role = StringAttr("mask")
        if op.real is None or op.masked is None:
            return tensor
        owner.real, owner.masked = op.real, op.masked
        test = separating_test(op.real.intervals, op.masked.intervals)
        if test is None:
            name = owner.ports.data[0].data if owner.ports else "mask"
            raise PassFailedException(
                f"{at(op)}the machine compares input {name!r} with one number, which does "
                f"not tell real values ({described(op.real.intervals)}) from padding "
                f"({described(op.masked.intervals)}): use --target numpy for this model, or a mask "
                "that one comparison tells, such as mask > 0"
            )
        if test == ("ne", 0.0) and owner.dtype.data != "f32":
            return tensor
        rows, columns = owner.rows.value.data, owner.cols.value.data
        tested = self.e.tensor(self.e.symbol("packing.mask"), "activation", "i8", (rows, columns))
        self.e.do("htest", dst=tested, src=tensor, compare=test[0], value=test[1])
        return tested

    def tile_pack(self, op: attn.PackOp) -> None:
        """The rows of integers: of an input, of constants, or what the host computed."""
        if not isinstance(nn.element_of(op.x), IntegerType):
            raise PassFailedException(f"{at(op)}attn.pack of {op.x.type}: only integers are packed")
        behind = input_behind(op.x)
        source = behind if isinstance(behind, BlockArgument) else op.x
        tensor = self.tensors.tensor(source)
        result = self.tensors.tensor(op.result)
        index = self._token_positions(self._packings[op.packing])
        self.e.do("hidx", dst=result, src=tensor, idx=index)
        self._limit(op, tensor)

    def _token_positions(self, packing: Packing) -> SSAValue:
        """The flat position of each row."""
        if packing.token_positions is None:
            window = hdp.WindowOp(packing.positions, self.e.constant(0), self.tensors.token_count())
            packing.token_positions = self.e.emit(window)
        return packing.token_positions

    def _limit(self, op: attn.PackOp, tensor: SSAValue) -> None:
        """Tell the input how many rows the table has that it indexes."""
        for use in op.result.uses:
            if not isinstance(use.operation, TaskOp):
                continue
            argument = use.operation.body.block.args[use.index]
            for inner in argument.uses:
                if isinstance(inner.operation, nn.EmbeddingOp) and inner.index == 1:
                    self.tensors.limit(tensor, nn.shape_of(inner.operation.table)[0])

    def positions_of(self, packing: SSAValue) -> SSAValue:
        """The flat positions of all rows of a packing."""
        return self._packings[packing].positions

    def index_of(self, op: Operation) -> SSAValue:
        """
        The index tensor that puts rows back (`attn.unpack`), picks one of each sequence or all, or
        says which are real.
        """
        assert isinstance(op, attn.UnpackOp | attn.TokenOp | attn.PackOp | attn.RealOp)
        task = op.parent_op()
        assert isinstance(task, TaskOp)
        arguments: list[SSAValue] = list(task.body.block.args)
        outer = dict(zip(arguments, task.inputs))
        packing = self._packings[outer[op.packing]]
        if isinstance(op, attn.RealOp):
            return packing.real
        if isinstance(op, attn.PackOp):
            return self._token_positions(packing)
        if isinstance(op, attn.UnpackOp):
            return packing.real if op.read is None else packing.inverse
        position = op.position.value.data
        if position not in packing.tokens:
            places = [b * packing.length + position for b in range(packing.batch)]
            symbol = f"packing.position{position}"
            source = self.tensors.integers(self.e.symbol(f"{symbol}.places"), places)
            index = self.e.tensor(self.e.symbol(symbol), "activation", "i64", (packing.batch, 1))
            self.e.do("hidx", dst=index, src=packing.inverse, idx=source)
            packing.tokens[position] = index
        return packing.tokens[position]
