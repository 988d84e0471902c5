"""
Index values become registers, `scf.for` becomes `hdp.loop`.

Assumes the tiled level: indices come from `arith.constant`, `arith.addi` of a constant,
`hdp.span`, `hdp.special` and `scf.for` from 0 by a constant step, whose one optional carried value moves by
a constant. Registers are given in program order, lowest free one first; a value that is used in
a loop it is not defined in is kept until the loop's end. Constants that are only steps and
addends need none. Leaves tensors and tiles symbolic.

Example: test/passes/lower_to_hdp.mlir.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IndexType, IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import hdp
from heatc.isa.table import R_EXTRA
from heatc.passes.effect import Effect
from heatc.passes.rewriting import at

FIRST, LAST = 1, R_EXTRA - 1
"""The registers that a program may use: the others are 0 or set by instructions."""


def _constant(value: SSAValue) -> int | None:
    """The value of an index constant, None for anything else."""
    owner = value.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return owner.value.value.data
    return None


def _expect_constant(op: Operation, value: SSAValue, what: str) -> int:
    constant = _constant(value)
    if constant is None:
        raise PassFailedException(f"{at(op)}{what} of {op.name} is no constant")
    return constant


def _is_span(op: Operation) -> bool:
    return isinstance(op, hdp.InstructionOp) and op.mnemonic == "span"


def _carried(loop: scf.ForOp) -> arith.AddiOp | None:
    """The addition that moves a loop's carried value."""
    if not loop.iter_args:
        return None
    yielded = loop.body.block.last_op
    assert isinstance(yielded, scf.YieldOp)
    move = yielded.arguments[0].owner
    carried = loop.body.block.args[1]
    if len(loop.iter_args) != 1 or not isinstance(move, arith.AddiOp) or move.lhs is not carried:
        raise PassFailedException(f"{at(loop)}expected one carried value that moves by a constant")
    return move


# --- Liveness -----------------------------------------------------------------------------------


class _Order:
    """Places of ops in program order; a loop has a first and a last place."""

    def __init__(self, function: FuncOp):
        self.first: dict[Operation, int] = {}
        self.last: dict[Operation, int] = {}
        self._next = 0
        self._number(function.body.block)

    def _number(self, block: Block) -> None:
        for op in block.ops:
            self.first[op] = self._place()
            for region in op.regions:
                self._number(region.block)
            self.last[op] = self._place()

    def _place(self) -> int:
        self._next += 1
        return self._next

    def end_of_use(self, block: Block | None, user: Operation) -> int:
        """When a use by `user` of a value of `block` ends: with the outermost loop between."""
        op = user
        while op.parent is not block:
            parent = op.parent_op()
            assert parent is not None
            op = parent
        return self.last[op]


@dataclass(frozen=True)
class _Live:
    value: SSAValue
    start: int
    end: int


def _needs_register(use_operation: Operation, index: int) -> bool:
    """Whether an operand is read from a register (and is not an immediate of the result)."""
    if isinstance(use_operation, scf.ForOp):
        # The bound, and where a carried value starts.
        return index == 1 or index > 2
    if isinstance(use_operation, arith.AddiOp):
        return index == 0
    return not isinstance(use_operation, scf.YieldOp)


def _live(order: _Order, value: SSAValue, start: int, block: Block | None) -> _Live | None:
    ends = [
        order.end_of_use(block, use.operation)
        for use in value.uses
        if _needs_register(use.operation, use.index)
    ]
    return _Live(value, start, max(ends)) if ends else None


def _intervals(function: FuncOp, order: _Order) -> Iterator[_Live]:
    moves = {_carried(op) for op in function.walk() if isinstance(op, scf.ForOp)}
    for op in function.walk():
        if isinstance(op, scf.ForOp):
            for argument in op.body.block.args:
                yield _Live(argument, order.first[op], order.last[op])
        elif _is_span(op) or (isinstance(op, arith.ConstantOp | arith.AddiOp) and op not in moves):
            if _constant(op.results[0]) == 0:
                continue
            live = _live(order, op.results[0], order.first[op], op.parent)
            if live is not None:
                yield live


def allocate_registers(function: FuncOp) -> dict[SSAValue, int]:
    """
    A register for each index value that needs one.

    Raises `PassFailedException` when there are more values at a time than registers.
    """
    order = _Order(function)
    free = list(range(FIRST, LAST + 1))
    active: list[tuple[int, int]] = []
    registers: dict[SSAValue, int] = {}
    for live in sorted(_intervals(function, order), key=lambda i: i.start):
        for end, register in [a for a in active if a[0] < live.start]:
            active.remove((end, register))
            free.append(register)
        if not free:
            raise PassFailedException(
                f"more than {LAST - FIRST + 1} index values at a time: out of registers; larger "
                "tiles (hardware with larger buffers) need fewer"
            )
        register = min(free)
        free.remove(register)
        active.append((live.end, register))
        registers[live.value] = register
    return registers


# --- Rewriting ----------------------------------------------------------------------------------


class _Lowering:
    """Rewrites one function; `values` maps index values to register values."""

    def __init__(self, function: FuncOp):
        self.function = function
        self.registers = allocate_registers(function)
        self.values: dict[SSAValue, SSAValue] = {}
        block = function.body.block
        zero = hdp.SpecialOp("zero", hdp.RegType(0))
        assert block.first_op is not None
        Rewriter.insert_op(zero, _before(block.first_op))
        zero.result.name_hint = "zero"
        self.zero = zero.result
        self.block(block)

    def of(self, value: SSAValue) -> SSAValue:
        """The register value of an index."""
        if _constant(value) == 0:
            return self.zero
        return self.values.get(value, value)

    def block(self, block: Block) -> None:
        """Lower the ops of a block in order."""
        for op in list(block.ops):
            if isinstance(op, arith.ConstantOp):
                self.constant(op)
            elif isinstance(op, arith.AddiOp):
                self.addi(op)
            elif isinstance(op, hdp.InstructionOp) and _is_span(op):
                self.span(op)
            elif isinstance(op, hdp.SpecialOp):
                self.special(op)
            elif isinstance(op, scf.ForOp):
                self.loop(op)
            elif isinstance(op, scf.YieldOp):
                _erase(op)
            else:
                for i, operand in enumerate(op.operands):
                    if isinstance(operand.type, IndexType):
                        op.operands[i] = self.of(operand)

    def define(self, old: Operation, new: Operation) -> None:
        """Put `new` beside `old`, whose value it takes over."""
        new.location = old.location
        Rewriter.insert_op(new, _before(old))
        new.results[0].name_hint = old.results[0].name_hint
        self.values[old.results[0]] = new.results[0]

    def constant(self, op: arith.ConstantOp) -> None:
        """`li`, unless nothing reads the constant from a register."""
        if op.result in self.registers:
            type_ = hdp.RegType(self.registers[op.result])
            value = _constant(op.result)
            assert value is not None
            self.define(op, hdp.instruction("li", type_, imm=value))

    def addi(self, op: arith.AddiOp) -> None:
        """`addi`; one that moves a carried value writes that value's register."""
        amount = _expect_constant(op, op.rhs, "the second operand")
        source = self.of(op.lhs)
        if op.result in self.registers:
            number = self.registers[op.result]
        elif any(isinstance(use.operation, scf.YieldOp) for use in op.result.uses):
            number = hdp.register_of(source)
        else:
            return
        type_ = hdp.RegType(number)
        self.define(op, hdp.instruction("addi", type_, ra=source, imm=amount))

    def span(self, op: hdp.InstructionOp) -> None:
        """`span` of registers, unless nothing reads it."""
        if op.results[0] not in self.registers:
            return
        ra, rb = (self.of(value) for value in op.operands)
        fields = {f.name: op.immediate(f) for f in op.immediate_fields}
        type_ = hdp.RegType(self.registers[op.results[0]])
        self.define(op, hdp.instruction("span", type_, ra=ra, rb=rb, **fields))

    def special(self, op: hdp.SpecialOp) -> None:
        """The register's own value."""
        name = op.register.data
        self.define(op, hdp.SpecialOp(name, hdp.RegType(hdp.SPECIAL[name])))

    def loop(self, op: scf.ForOp) -> None:
        """`hdp.loop`; a carried value is a register that is set before and moved in the body."""
        if _constant(op.lb) != 0:
            raise PassFailedException(f"{at(op)}a loop that does not begin at 0")
        step = _expect_constant(op, op.step, "the step")
        old = op.body.block
        arguments = list(old.args)
        if len(arguments) > 1:
            type_ = hdp.RegType(self.registers[arguments[1]])
            start = hdp.instruction("addi", type_, ra=self.of(op.iter_args[0]), imm=0)
            start.location = op.location
            Rewriter.insert_op(start, _before(op))
            self.values[arguments[1]] = start.results[0]
        block = Block(arg_types=[hdp.RegType(self.registers[arguments[0]])])
        block.args[0].name_hint = arguments[0].name_hint
        self.values[arguments[0]] = block.args[0]
        for inner in list(old.ops):
            inner.detach()
            block.add_op(inner)
        new = hdp.LoopOp(self.of(op.ub), step, Region(block))
        new.location = op.location
        Rewriter.insert_op(new, _before(op))
        self.block(block)

    def clean(self) -> None:
        """Erase the index ops, which nothing reads any more."""
        for op in reversed(list(self.function.walk())):
            index = any(isinstance(r.type, IndexType) for r in op.results)
            if (
                isinstance(op, arith.ConstantOp | arith.AddiOp | scf.ForOp)
                or (isinstance(op, hdp.SpecialOp) and (index or not op.result.uses))
                or (_is_span(op) and index)
            ):
                _erase(op)


def _before(op: Operation) -> InsertPoint:
    return InsertPoint.before(op)


def _erase(op: Operation) -> None:
    op.detach()
    op.erase(safe_erase=False)


@dataclass(frozen=True)
class LowerToHdpPass(ModulePass):
    """Loops and registers of the machine; exact."""

    name = "lower-to-hdp"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite every function in place; `PassFailedException` when out of registers."""
        for function in list(op.ops):
            if isinstance(function, FuncOp) and function.body.blocks:
                _Lowering(function).clean()
