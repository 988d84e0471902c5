"""Runs one attention with tiles of a given plan on the machine, without arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.dialects.test import TestOp
from xdsl.ir import Operation

from heatc.backends.hdp.encode import encode_module
from heatc.context import HeatcContext
from heatc.dialects.hdp import TensorOp
from heatc.hardware import Hardware
from heatc.isa.table import BLOCK
from heatc.isa.units import Mask
from heatc.machine.machine import Machine, MachineState, Memory, RunResult
from heatc.machine.state import Extent
from heatc.machine.values import Shapes
from heatc.passes.allocate_buffers import AllocateBuffersPass
from heatc.passes.lower_to_hdp import LowerToHdpPass
from heatc.passes.tiling.attention import emit_attention
from heatc.passes.tiling.attention_parts import Prediction, Pruning
from heatc.passes.tiling.attention_plan import AttentionPlan, AttentionShape
from heatc.passes.tiling.attention_stages import Attention
from heatc.passes.tiling.emitter import Emitter
from heatc.passes.tiling.head_sums import Cascade


@dataclass(frozen=True)
class Kept:
    """Every head is kept, and a share of the blocks of every head, the same in every plan."""

    share: float
    length: int
    heads: int
    block: tuple[int, int] = BLOCK

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        """Random blocks by head and place; rows beyond the sequence are pruned."""
        high, wide = (-(-self.length // extent) for extent in self.block)
        size = (self.heads, high, wide)
        every = np.random.default_rng(0).random(size, np.float32) < self.share
        assert state.round is not None
        heads = state.round[0] + state.round[1] * state.core_items
        wanted = first[:, None] + np.arange(rows)
        here = np.minimum(wanted, high - 1)
        kept = every[heads[:, None], here][:, :, :columns]
        return kept & (wanted == here)[:, :, None]

    def gate(self, pc: int, state: MachineState) -> Mask:
        """All heads."""
        return np.ones(state.active, np.bool_)

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        """The first heads."""
        return np.arange(heads) < keep


def run_attention(
    shape: AttentionShape, plan: AttentionPlan, hw: Hardware, length: int, kept: float = 0.5
) -> RunResult:
    """
    One sequence of `length` tokens, `kept` of its blocks kept.

    The host's part is that of `hpack`; the rest of the cycles are those of the attention.
    """
    module = _module(shape, plan, hw)
    context = HeatcContext(hardware=hw)
    LowerToHdpPass().apply(context, module)
    AllocateBuffersPass().apply(context, module)
    encoded = encode_module(module)
    memory = Memory(np.zeros(0, np.uint8), encoded.dram_bytes)
    mask = np.arange(shape.length) < length
    memory.write(_address(module, "mask"), mask.astype(np.int64), "i64")
    decisions = Kept(kept, length, shape.heads, shape.block)
    return Machine(hw, memory).run(encoded.program, values=Shapes(decisions))


def _address(module: ModuleOp, symbol: str) -> int:
    tensors = [op for op in module.walk() if isinstance(op, TensorOp)]
    bases = [op.base for op in tensors if op.symbol.data == symbol]
    assert bases[0] is not None
    return bases[0].value.data


def _module(shape: AttentionShape, plan: AttentionPlan, hw: Hardware) -> ModuleOp:
    function = FuncOp("main", ((), ()))
    e, tokens = Emitter(function.body.block), shape.length
    source = TestOp()
    source.verify_ = lambda: None
    mask = e.tensor("mask", "activation", "i64", (1, tokens))
    positions, inverse = (e.tensor(n, "activation", "i64", (tokens, 1)) for n in ("p", "i"))
    e.do("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=tokens, has_mask=1)
    names = ("q", "q.fraction", "k", "k.fraction", "v") if shape.pruned else ("q", "k", "v")
    heads = shape.ranked or shape.heads
    extents, rows = (tokens, heads * shape.dim), e.special("tokens")
    planes = {
        name: e.tensor(name, "activation", shape.dtype(name), extents, rows_value=rows)
        for name in names
    }
    output = e.tensor("o", "activation", "i16", extents, rows_value=rows)
    points = {"q": 11, "k": 11, "v": 11, "s": 8, "o": 11}
    decisions = (_pruning(shape, source), _prediction(shape, source))
    attention = Attention(shape, 0.2, points, *decisions)
    tensors, cascade = {**planes, "o": output}, _cascade(e, shape, source)
    emit_attention(e, "attention", attention, tensors, plan, hw.cores, cascade)
    e.do("halt")
    e.emit(ReturnOp())
    return ModuleOp([function])


def _pruning(shape: AttentionShape, source: Operation) -> Pruning | None:
    """What rules `paper`, `ours` and `topk` decide with."""
    if not shape.pruned:
        return None
    return Pruning(
        () if shape.density else (0.25,),
        (1.0,) if shape.gate else (),
        shape.score,
        source,
        source if shape.gate else None,
        importance="positive" if shape.row_sums else "abs",
        block=shape.block,
        density=shape.density,
    )


def _prediction(shape: AttentionShape, source: Operation) -> Prediction | None:
    """What rules `energon` (a ratio a round) and `sanger` (probabilities) decide with."""
    if not shape.bits:
        return None
    ratios = () if shape.likely else tuple(0.25 for _ in shape.bits)
    return Prediction(shape.bits, ratios, tuple(source for _ in shape.bits), point=2, code=8)


def _cascade(e: Emitter, shape: AttentionShape, source: Operation) -> Cascade | None:
    """The sums of heads of rule `spatten`."""
    if not shape.ranked and not shape.counted:
        return None
    heads = shape.ranked or shape.heads
    before, after = (
        e.tensor(name, "activation", "i64", (1, heads)) if wanted else None
        for name, wanted in (("before", shape.ranked), ("after", shape.counted))
    )
    return Cascade(heads, shape.heads, before, after, 0, source if shape.ranked else None)
