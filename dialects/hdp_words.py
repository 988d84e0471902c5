"""
The instruction words of a function at the machine level, in program order.

Every op of `hdp` is one word, but for those that only name a register (`hdp.special`); a loop is two
words around those of its body.
"""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from heatc.dialects import hdp
from heatc.errors import HeatcError
from heatc.isa.table import ISA, Field, FieldKind
from heatc.isa.words import Inst, Operand, inst

_NUMBERED = hdp.TensorOp | hdp.WindowOp | hdp.AliasOp | hdp.TileOp


class Words:
    """
    The words of a function.

    `program` are the words, `ops` the op of each word, `pcs` the first word of each op.

    Raises `HeatcError` for an op that is not of the machine level, or has no address yet.
    """

    def __init__(self, function: FuncOp):
        self.program: list[Inst] = []
        self.ops: list[Operation] = []
        self.pcs: dict[Operation, int] = {}
        self._block(function.body.block)

    def _block(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, hdp.LoopOp):
                self._loop(op)
            elif isinstance(op, hdp.SpecialOp | ReturnOp):
                continue
            else:
                self._append(op, _word(op))

    def _append(self, op: Operation, word: Inst) -> None:
        self.pcs.setdefault(op, len(self.program))
        self.program.append(word)
        self.ops.append(op)

    def _loop(self, op: hdp.LoopOp) -> None:
        begin = len(self.program)
        self._append(op, inst("halt"))
        self._block(op.body.block)
        length = len(self.program) - begin
        self._append(op, inst("end", back=length))
        self.program[begin] = inst(
            "loop", r=op.register, bound=_number(op.bound), step=op.step.value.data, skip=length + 1
        )


def operand_of(op: hdp.InstructionOp, entry: Field) -> Operand:
    """What the word of an op has in a field."""
    if entry.name == op.instruction.defines:
        return _number(op.results[0])
    if entry.kind in (FieldKind.REG, FieldKind.TILE, FieldKind.DESC):
        return _number(op.operand_of(entry.name))
    value = op.immediate(entry)
    return entry.choices.index(value) if isinstance(value, str) else value


def base_of(op: hdp.TensorOp) -> int:
    """The first byte of a tensor."""
    return _assigned(op, op.base)


def _number(value: SSAValue) -> int:
    """The number of a register, tensor or tile."""
    if isinstance(value.type, hdp.RegType):
        return hdp.register_of(value)
    owner = value.owner
    number = getattr(owner, "number", None)
    if not isinstance(owner, _NUMBERED) or number is None:
        raise HeatcError(f"{value.type} has no number yet", notes=["run allocate-buffers first"])
    return owner.number.value.data if owner.number is not None else 0


def _assigned(op: Operation, attribute: IntegerAttr | None) -> int:
    if attribute is None:
        raise HeatcError(f"{op.name} has no address yet", notes=["run allocate-buffers first"])
    return attribute.value.data


def _word(op: Operation) -> Inst:
    if isinstance(op, hdp.TensorOp):
        return _tensor(op, op)
    if isinstance(op, hdp.AliasOp):
        return _tensor(op, op.tensor)
    if isinstance(op, hdp.WindowOp):
        return inst(
            "window",
            d=_number(op.result),
            src=_number(op.src),
            start_reg=_number(op.start_reg),
            rows_reg=_number(op.rows_reg),
        )
    if isinstance(op, hdp.TileOp):
        return inst(
            "tile",
            t=_number(op.result),
            space=op.space.data,
            dtype=op.dtype.data,
            address=_assigned(op, op.address),
            bytes=op.bytes.value.data,
        )
    if isinstance(op, hdp.InstructionOp):
        return Inst(op.mnemonic, tuple(operand_of(op, f) for f in ISA[op.mnemonic].fields))
    raise HeatcError(f"{op.name} has no instruction", notes=["run lower-to-hdp first"])


def _tensor(op: hdp.TensorOp | hdp.AliasOp, tensor: hdp.TensorOp) -> Inst:
    """The extents of an op on the bytes of a tensor."""
    rows = op.rows_value
    return inst(
        "tensor",
        d=_number(op.result),
        space=tensor.space.data,
        dtype=tensor.dtype.data,
        base=base_of(tensor),
        rows_imm=op.rows.value.data if rows is None else 0,
        rows_reg=0 if rows is None else _number(rows),
        cols=op.cols.value.data,
    )
