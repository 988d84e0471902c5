"""Host instructions along axes: reductions, running sums, softmax, norms, products of activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.passes.tiling.host_moves import permuted
from heatc.passes.tiling.host_registers import Held, Registers, columns_of, refuse


def emit_reduce(regs: Registers, op: nn.ReduceOp) -> None:
    """`hred` of the last axes, `hredr` of others; neighbouring axes at once."""
    shape = list(nn.shape_of(op.x))
    kind = op.kind.data
    held = regs.take(op.x)
    for first, last in reversed(_runs(op.reduced)):
        gone = math.prod(shape[first:last])
        if nn.TOKENS in shape[first:]:
            refuse(op, f"over axes {op.reduced} of {nn.shape_of(op.x)} reduces packed tokens")
        if last == len(shape):
            regs.shape(held, gone)
            regs.e.do("hred", h=held.register, kind=kind)
            held.columns = 1
        else:
            regs.shape(held, math.prod(shape[last:]))
            regs.e.do("hredr", h=held.register, group=gone, kind=kind)
        del shape[first:last]
    regs.set(op.result, held)


def _runs(axes: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring axes as (first, one behind the last)."""
    found: list[tuple[int, int]] = []
    for axis in axes:
        if found and found[-1][1] == axis:
            found[-1] = (found[-1][0], axis + 1)
        else:
            found.append((axis, axis + 1))
    return found


def _along(regs: Registers, op: Operation, x: SSAValue, axis: int) -> tuple[Held, list[int]]:
    """A register with an axis as columns, and the order of axes that puts it last."""
    shape = nn.shape_of(x)
    order = [i for i in range(len(shape)) if i != axis] + [axis]
    held = regs.take(x, columns_of(x))
    if axis != len(shape) - 1:
        if nn.TOKENS in shape[axis:]:
            refuse(op, f"along axis {axis} of {shape} moves rows of packed tokens")
        permuted(regs, held, shape, order)
    regs.shape(held, shape[axis])
    return held, order


def _along_and_back(
    regs: Registers, op: Operation, x: SSAValue, axis: int, emit: Callable[[Held], None]
) -> None:
    """Rows of an axis in the hands of `emit`, then the axis where it was."""
    shape = nn.shape_of(x)
    axis %= len(shape)
    held, order = _along(regs, op, x, axis)
    emit(held)
    if axis != len(shape) - 1:
        back = [order.index(i) for i in range(len(shape))]
        permuted(regs, held, [shape[i] for i in order], back)
    regs.set(op.results[0], held)


def emit_argmax(regs: Registers, op: nn.ArgmaxOp) -> None:
    """`hred` with `argmax`."""
    held, _ = _along(regs, op, op.x, op.axis.value.data)
    regs.e.do("hred", h=held.register, kind="argmax")
    held.columns = 1
    regs.set(op.result, held)


def emit_cumsum(regs: Registers, op: nn.CumsumOp) -> None:
    """`hscan`."""
    _along_and_back(regs, op, op.x, op.axis.value.data, lambda held: _do(regs, "hscan", held))


def emit_softmax(regs: Registers, op: nn.SoftmaxOp) -> None:
    """`hsoft`; where `safe`, what is no number becomes 0."""

    def emit(held: Held) -> None:
        _do(regs, "hsoft", held)
        if op.safe is None:
            return
        copy = Held(regs.new(), held.columns)
        regs.e.do("hcopy", g=copy.register, h=held.register)
        regs.e.do("hop", h=copy.register, g=held.register, operation="eq")
        zero = regs.number(0.0)
        regs.e.do("hsel", h=copy.register, g=held.register, f=zero.register)
        regs.release(zero.register)
        regs.e.do("hcopy", g=held.register, h=copy.register)
        regs.release(copy.register)

    _along_and_back(regs, op, op.x, op.dim.value.data, emit)


def _do(regs: Registers, mnemonic: str, held: Held) -> None:
    regs.e.do(mnemonic, h=held.register)


@dataclass
class _Term:
    """A register and the letters of its axes."""

    held: Held
    letters: str


def emit_contract(regs: Registers, op: ContractOp) -> None:
    """
    Sums of what one operand has alone; of two, `hdot`.

    Axes of both and the result are batches, axes of both alone are summed.
    """
    terms, result = parse_equation(op.equation.data)
    extents: dict[str, int] = {}
    for value, letters in zip(op.inputs, terms):
        extents |= dict(zip(letters, nn.shape_of(value)))
    made = [
        _summed(regs, op, value, letters, "".join((*terms[:i], *terms[i + 1 :], result)), extents)
        for i, (value, letters) in enumerate(zip(op.inputs, terms))
    ]
    last = made[0] if len(made) == 1 else _product(regs, op, made, result, extents)
    shape = [extents[c] for c in last.letters]
    order = [last.letters.index(c) for c in result]
    if order != sorted(order):
        if nn.TOKENS in shape[1:] or (nn.TOKENS in shape and order[0] != 0):
            refuse(op, f"{op.equation.data!r} moves rows of packed tokens")
        permuted(regs, last.held, shape, order)
    regs.set(op.result, last.held)


def _summed(
    regs: Registers,
    op: ContractOp,
    value: SSAValue,
    letters: str,
    others: str,
    extents: Mapping[str, int],
) -> _Term:
    """An operand without the axes that nothing else has."""
    held = regs.take(value, columns_of(value))
    alone = "".join(c for c in letters if c not in others)
    if not alone:
        return _Term(held, letters)
    if nn.TOKENS in [extents[c] for c in alone]:
        refuse(op, f"{op.equation.data!r} sums rows of packed tokens")
    kept = "".join(c for c in letters if c in others)
    _ordered(regs, held, letters, kept + alone, extents)
    regs.shape(held, math.prod(extents[c] for c in alone))
    regs.e.do("hred", h=held.register, kind="sum")
    held.columns = 1
    return _Term(held, kept)


def _product(
    regs: Registers, op: ContractOp, terms: Sequence[_Term], result: str, extents: Mapping[str, int]
) -> _Term:
    left, right = terms
    shared = [c for c in left.letters if c in right.letters]
    batch = "".join(c for c in shared if c in result)
    gone = "".join(c for c in shared if c not in result)
    own = ["".join(c for c in t.letters if c not in shared) for t in terms]
    if nn.TOKENS in [extents[c] for c in batch + gone + own[1]]:
        refuse(op, f"{op.equation.data!r} multiplies rows of packed tokens with each other")
    for term, letters in zip(terms, own):
        _ordered(regs, term.held, term.letters, batch + letters + gone, extents)
        regs.shape(term.held, math.prod(extents[c] for c in gone))
    batches = math.prod(extents[c] for c in batch)
    h, g = left.held, right.held
    regs.e.do("hdot", h=h.register, g=g.register, transposed=True, batches=batches)
    regs.release(g.register)
    h.columns = math.prod(extents[c] for c in own[1])
    return _Term(h, batch + own[0] + own[1])


def _ordered(
    regs: Registers, held: Held, letters: str, wanted: str, extents: Mapping[str, int]
) -> None:
    """The axes of a register in another order."""
    order = [letters.index(c) for c in wanted]
    if order != sorted(order):
        permuted(regs, held, [extents[c] for c in letters], order)
