"""Host instructions of single elements: arithmetic, comparisons, functions, choices, casts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import IntegerType, i1
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.broadcasts import padded, rows_of
from heatc.passes.tiling.host_registers import Held, Registers, refuse

OPERATIONS: Mapping[type[Operation], str] = {
    nn.AddOp: "add",
    nn.SubOp: "sub",
    nn.MulOp: "mul",
    nn.DivOp: "div",
    nn.MaximumOp: "max",
    nn.MinimumOp: "min",
    nn.PowOp: "pow",
    nn.FloorDivOp: "floor_div",
    nn.RemainderOp: "remainder",
    nn.AndOp: "min",
    nn.OrOp: "max",
}
"""The operation of two registers that an op is; `and` and `or` of truth values, which are 0 and 1."""

REVERSED: Mapping[str, str] = {
    "add": "add",
    "mul": "mul",
    "max": "max",
    "min": "min",
    "sub": "rsub",
    "div": "rdiv",
    "pow": "rpow",
    "floor_div": "rfloor_div",
    "remainder": "rremainder",
    "eq": "eq",
    "ne": "ne",
    "lt": "gt",
    "le": "ge",
    "gt": "lt",
    "ge": "le",
}
"""The operation with the operands in the other order."""

GELUS: Mapping[str, str] = {"tanh": "gelu_tanh", "quick": "gelu_quick"}


def operands(op: Operation) -> list[int]:
    """The columns in which each operand of an op is read."""
    result = nn.shape_of(op.results[0])
    shapes = [nn.shape_of(v) for v in op.operands]
    rows = rows_of(shapes, result)
    if rows is None:
        refuse(op, f"of {shapes} has no host instruction: run partition-host first")
    return [math.prod(padded(s, len(result))[rows:]) for s in shapes]


def emit_binary(regs: Registers, op: Operation) -> None:
    """`hop`, or `hadd` where a sum adds all or one row."""
    assert isinstance(op, nn.BinaryOp)
    name = op.predicate.data if isinstance(op, nn.CompareOp) else OPERATIONS[type(op)]
    if isinstance(op, (nn.AndOp, nn.OrOp)):
        _expect_truth(op)
    columns = operands(op)
    whole = [_is_whole(v, op.result) for v in (op.lhs, op.rhs)]
    order = _order(regs, op, whole)
    name = name if order[0] == 0 else REVERSED[name]
    first, second = (op.operands[i] for i in order)
    held = regs.take(first, columns[order[0]])
    other = regs.read(second, columns[order[1]])
    is_row = columns[order[1]] == columns[order[0]] and whole[order[0]]
    if name == "add" and is_row:
        regs.e.do("hadd", h=held.register, g=other)
    else:
        regs.e.do("hop", h=held.register, g=other, operation=name)
    regs.done(second)
    held.columns = max(columns)
    wrapped(regs, held, op.result)
    regs.set(op.result, held)


def _order(regs: Registers, op: nn.BinaryOp, whole: Sequence[bool]) -> tuple[int, int]:
    """Which operand the result replaces: one that is all of it, and that nothing else reads."""
    pairs = ((op.lhs, op.rhs), (op.rhs, op.lhs))
    for i, (x, _) in enumerate(pairs):
        if whole[i] and regs.reads[x] == 1 and x not in regs.arguments:
            return (i, 1 - i)
    return (0, 1) if whole[0] or not whole[1] else (1, 0)


def _is_whole(value: SSAValue, result: SSAValue) -> bool:
    a, b = ([n for n in nn.shape_of(v) if n != 1] for v in (value, result))
    return a == b


def _expect_truth(op: Operation) -> None:
    assert nn.element_of(op.results[0]) == i1


def wrapped(regs: Registers, held: Held, value: SSAValue) -> None:
    """Integers of fewer than 64 bits wrap around, as in PyTorch."""
    element = nn.element_of(value)
    unsigned = nn.is_unsigned(element)
    if not isinstance(element, IntegerType) or element.bitwidth in (1, 64):
        return
    span = 2.0**element.bitwidth
    low = 0.0 if unsigned else -span / 2
    for operation, number in (("sub", low), ("remainder", span), ("add", low)):
        if number:
            with_number(regs, held, operation, number)


def with_number(regs: Registers, held: Held, operation: str, number: float) -> None:
    """An operation of a register and a number."""
    other = regs.number(number)
    regs.e.do("hop", h=held.register, g=other.register, operation=operation)
    regs.release(other.register)


def emit_function(regs: Registers, op: nn.MapOp) -> None:
    """`hfun`."""
    held = regs.take(op.x)
    regs.e.do("hfun", h=held.register, function=op.function.data)
    wrapped(regs, held, op.result)
    regs.set(op.result, held)


def emit_activation(regs: Registers, op: nn.GeluOp | nn.TanhOp | nn.ReluOp) -> None:
    """An instruction of its own, or `hfun` for the other forms of GELU."""
    held = regs.take(op.x)
    form = op.approximate.data if isinstance(op, nn.GeluOp) else "none"
    if form == "none":
        regs.e.do(f"h{op.name.removeprefix('nn.')}", h=held.register)
    else:
        regs.e.do("hfun", h=held.register, function=GELUS[form])
    regs.set(op.results[0], held)


def emit_not(regs: Registers, op: nn.NotOp) -> None:
    """Whether a truth value is 0; of integers `-x - 1`."""
    held = regs.take(op.x)
    if nn.element_of(op.x) == i1:
        with_number(regs, held, "eq", 0.0)
    else:
        with_number(regs, held, "rsub", -1.0)
        wrapped(regs, held, op.result)
    regs.set(op.result, held)


def emit_where(regs: Registers, op: nn.WhereOp) -> None:
    """`hsel`."""
    columns = operands(op)
    held = regs.take(op.condition, columns[0])
    a, b = (regs.read(v, c) for v, c in zip((op.lhs, op.rhs), columns[1:]))
    regs.e.do("hsel", h=held.register, g=a, f=b)
    regs.done(op.lhs)
    regs.done(op.rhs)
    held.columns = max(columns)
    regs.set(op.result, held)


def emit_cast(regs: Registers, op: nn.CastOp) -> None:
    """Nothing between numbers that hold each other; cut off for integers, `!= 0` for truth."""
    held = regs.take(op.x)
    source, target = nn.element_of(op.x), nn.element_of(op.result)
    if isinstance(target, IntegerType) and source != i1 and source != target:
        if target == i1:
            with_number(regs, held, "ne", 0.0)
        elif not isinstance(source, IntegerType):
            regs.e.do("hfun", h=held.register, function="trunc")
        wrapped(regs, held, op.result)
    regs.set(op.result, held)


def emit_full(regs: Registers, op: nn.FullOp) -> None:
    """`hnum`, where it is read."""
    regs.numbers[op.result] = op.value.value.data
