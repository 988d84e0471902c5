"""
What a model takes on an HDP machine beside its linears: attention, and the host's part.

A choice between energy and latency of linears depends on how much of both the rest of the model
takes. Attention is taken to be dense, tiled, and timed as the compiler would (`time_attention`).
The host's work is counted op by op, before tasks are formed. An op costs what its instruction of
the table costs; each normalisation and activation reads one register and writes one.

This is an estimate: pruning makes attention shorter, and a program overlaps work whose times are
added up here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from xdsl.dialects.builtin import Float32Type, ModuleOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.hardware import Hardware
from heatc.hardware.costs import ACTIONS, action_joules, leakage_watts
from heatc.isa.table import DTYPES, FUNCTION_COSTS, OPERATION_COSTS, ElementCost
from heatc.machine.clocks import HostWork
from heatc.machine.work import Work, charged
from heatc.passes.analysis.costs import Cost

_CODE = DTYPES["i16"]

_INSTRUCTIONS: dict[type[Operation], str] = {
    nn.AddOp: "hadd",
    nn.LayerNormOp: "hln",
    nn.GeluOp: "hgelu",
    nn.TanhOp: "htanh",
    nn.ReluOp: "hrelu",
    nn.RmsNormOp: "hrms",
    nn.SoftmaxOp: "hsoft",
    nn.ReduceOp: "hred",
    nn.CumsumOp: "hscan",
    nn.WhereOp: "hsel",
}
_OPERATIONS: dict[type[Operation], str] = {
    nn.SubOp: "sub",
    nn.MulOp: "mul",
    nn.DivOp: "div",
    nn.MaximumOp: "max",
    nn.MinimumOp: "min",
    nn.PowOp: "pow",
}
_ROUNDED = (nn.LayerNormOp, nn.GeluOp, nn.TanhOp, nn.ReluOp)
"""Ops that end a task as a rule: what they take is read, what they give is written."""


class _Work(NamedTuple):
    """An instruction of the host on some elements, and the bytes that it reads and writes."""

    mnemonic: str
    elements: int
    read: int = 0
    written: int = 0
    each: ElementCost | None = None


def rest_of_model(module: ModuleOp, tokens: int, hw: Hardware) -> Cost:
    """
    The cost of attention and host work of a module at the raised or packed level.

    `tokens` is what `?` counts as. Attention without a packing and with a mask of its own counts as
    if it were full.
    """
    work = [w for op in module.walk() for w in _host_work(op, tokens)]
    cost = _of_host(work, hw)
    for op in module.walk():
        if isinstance(op, attn.SdpaOp):
            cost = cost + _of_attention(op, tokens, hw)
    return cost


def _of_attention(op: attn.SdpaOp, tokens: int, hw: Hardware) -> Cost:
    # Whoever only counts needs no tiler.
    from heatc.passes.tiling.scratch import time_attention

    batch, length = _sequences(op, tokens)
    heads = op.heads.value.data
    dim = nn.shape_of(op.v)[-1] // heads
    return Cost.of(time_attention(batch, length, heads, dim, hw))


def _sequences(op: attn.SdpaOp, tokens: int) -> tuple[int, int]:
    if op.packing is not None:
        return attn.packing_of(op.packing).shape
    shape = nn.shape_of(op.q)
    return (shape[0], shape[1]) if len(shape) == 3 else (1, tokens)


def _host_work(op: Operation, tokens: int) -> Iterator[_Work]:
    if isinstance(op, nn.EmbeddingOp) and _is_float(op.result):
        size = _size(op.result, tokens)
        yield _Work("hgeti", size, size * DTYPES["f32"])
    if isinstance(op, attn.UnpackOp) and _is_float(op.result):
        size = _size(op.result, tokens)
        yield _Work("hgeti", size, size * _CODE)
        yield _Work("hput", size, 0, size * DTYPES["f32"])
    chosen = _chosen(op)
    if chosen is not None and _is_float(op.results[0]):
        yield chosen._replace(elements=_size(op.results[0], tokens))
    mnemonic = _INSTRUCTIONS.get(type(op))
    if mnemonic is None or not _is_float(op.results[0]) or _is_bias(op):
        return
    # What a reduction reads is what it costs.
    size = _size(op.operands[0] if isinstance(op, nn.ReduceOp) else op.results[0], tokens)
    if isinstance(op, (nn.AddOp, *_ROUNDED)):
        yield _Work("hget", size, size * _CODE)
    yield _Work(mnemonic, size)
    if isinstance(op, _ROUNDED):
        yield _Work("hput", size, 0, size * _CODE)


def _chosen(op: Operation) -> _Work | None:
    """An instruction whose cost a field decides."""
    if isinstance(op, nn.MapOp):
        return _Work("hfun", 0, each=FUNCTION_COSTS[op.function.data])
    name = _OPERATIONS.get(type(op))
    return None if name is None else _Work("hop", 0, each=OPERATION_COSTS[name])


def _is_float(value: SSAValue) -> bool:
    return isinstance(nn.element_of(value), Float32Type)


def _is_bias(op: Operation) -> bool:
    """Whether a sum adds a row, which leaves the PE array with the product."""
    return isinstance(op, nn.AddOp) and any(len(nn.shape_of(v)) == 1 for v in op.operands)


def _size(value: SSAValue, tokens: int) -> int:
    return math.prod(tokens if n == nn.TOKENS else n for n in nn.shape_of(value))


def _of_host(work: list[_Work], hardware: Hardware) -> Cost:
    times, cycles = HostWork(hardware), 0
    counted = Work()
    counted.mnemonics = [w.mnemonic for w in work]
    for i, (mnemonic, elements, read, written, each) in enumerate(work):
        moved = read + written
        cycles += times.cycles(mnemonic, elements, moved, "dram", reads=read > 0, each=each)
        counts = {"elements": elements, "nbytes": moved, "written": written, "from_dram": 1}
        if each is not None:
            counts |= each._asdict()
        counted.add(i, counts)
    prices = action_joules(hardware)
    joules = sum(count * prices[row] for _, row, count in charged(counted, hardware))
    joules += len(work) * prices[ACTIONS.index("instruction")]
    seconds = cycles / hardware.clock_hz
    joules += seconds * sum(leakage_watts(hardware).values())
    moved = sum(w.read + w.written for w in work)
    return Cost(cycles, seconds, joules, moved, 0.0)
