"""
The table of the host's ops: by op, what emits its instructions.

An op that is not here has none, which `partition-host` refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from xdsl.dialects.builtin import i1
from xdsl.ir import Operation

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.passes.tiling import host_axes, host_elementwise, host_moves, host_rows
from heatc.passes.tiling.host_registers import Registers
from heatc.passes.tiling.host_rows import Memory

Emit = Callable[[Registers, Memory, Any], None]


def _alone(emit: Callable[[Registers, Any], None]) -> Emit:
    """The emission of an op that sees registers alone."""
    return partial(_without_memory, emit)


def _without_memory(
    emit: Callable[[Registers, Any], None], regs: Registers, memory: Memory, op: Operation
) -> None:
    emit(regs, op)


def _emit_index(regs: Registers, memory: Memory, op: nn.IndexOp) -> None:
    indices = [np.asarray(memory.evaluate(i), np.int64) for i in op.indices]
    for value in op.indices:
        regs.done(value)
    host_moves.move_by(regs, op, indices)


EMIT: Mapping[type[Operation], Emit] = {
    **dict.fromkeys(
        (*host_elementwise.OPERATIONS, nn.CompareOp), _alone(host_elementwise.emit_binary)
    ),
    **dict.fromkeys((nn.GeluOp, nn.TanhOp, nn.ReluOp), _alone(host_elementwise.emit_activation)),
    nn.MapOp: _alone(host_elementwise.emit_function),
    nn.NotOp: _alone(host_elementwise.emit_not),
    nn.WhereOp: _alone(host_elementwise.emit_where),
    nn.CastOp: _alone(host_elementwise.emit_cast),
    nn.FullOp: _alone(host_elementwise.emit_full),
    nn.ReshapeOp: _alone(host_moves.emit_reshape),
    nn.TransposeOp: _alone(host_moves.emit_transpose),
    nn.ExpandOp: _alone(host_moves.emit_expand),
    nn.SliceOp: _alone(host_moves.emit_slice),
    nn.ConcatOp: _alone(host_moves.emit_concat),
    nn.IndexOp: _emit_index,
    nn.ReduceOp: _alone(host_axes.emit_reduce),
    nn.ArgmaxOp: _alone(host_axes.emit_argmax),
    nn.CumsumOp: _alone(host_axes.emit_cumsum),
    nn.SoftmaxOp: _alone(host_axes.emit_softmax),
    ContractOp: _alone(host_axes.emit_contract),
    nn.LayerNormOp: host_rows.emit_norm,
    nn.RmsNormOp: host_rows.emit_norm,
    nn.EmbeddingOp: host_rows.emit_embedding,
    attn.UnpackOp: host_rows.emit_selected,
    attn.TokenOp: host_rows.emit_selected,
    attn.PackOp: host_rows.emit_selected,
    attn.RealOp: host_rows.emit_real,
}
"""By op."""


def _why_no_product(op: ContractOp) -> str | None:
    terms, _ = parse_equation(op.equation.data)
    if len(terms) > 2:
        return "the host multiplies two at a time"
    if any(len(set(letters)) < len(letters) for letters in terms):
        return "it reads a diagonal"
    return None


def why_not(op: Operation) -> str | None:
    """Why the host has no instruction for an op, None where it has one."""
    if type(op) not in EMIT:
        return "the host has no instruction for it"
    if isinstance(op, nn.AndOp | nn.OrOp) and nn.element_of(op.result) != i1:
        return "the host has it for truth values alone"
    if isinstance(op, ContractOp):
        return _why_no_product(op)
    moves = isinstance(op, nn.TransposeOp | nn.ConcatOp | nn.ExpandOp | nn.IndexOp)
    if moves and nn.TOKENS in nn.shape_of(op.results[0])[1:]:
        return "it moves rows whose number is known at run time"
    return None
