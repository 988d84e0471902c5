"""
What a module takes on the machine, before it is a program.

`time_module` runs the words of a function on the machine (`heatc.machine`), on shapes alone: tiles
have sizes but no contents. Cycles, bytes and action counts are those of `hdp-run`, since the same
code counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as field_of

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IndexType, ModuleOp
from xdsl.dialects.func import FuncOp

from heatc.dialects import hdp
from heatc.dialects.hdp_words import Words, base_of
from heatc.errors import HeatcError
from heatc.hardware import Hardware
from heatc.machine.assumed import NoMasks
from heatc.machine.energy import energy_report
from heatc.machine.machine import Machine, Memory
from heatc.machine.values import Decisions, Shapes
from heatc.passes.allocate_buffers import allocate, weight_tensors
from heatc.passes.lower_to_hdp import LowerToHdpPass


@dataclass(frozen=True)
class Timed:
    """
    What a run takes: `cycles`, `busy` cycles by engine summed over cores, bytes of DRAM traffic.

    `actions` are counts by the rows of the hardware file's section `energy`; `joules` has leakage
    too. All of it is modelled.
    """

    cycles: int
    seconds: float
    busy: dict[str, int]
    dram_bytes_read: int
    dram_bytes_written: int
    macs: int
    steps: int
    joules: float
    actions: dict[str, float] = field_of(repr=False)

    @property
    def dram_bytes(self) -> int:
        """Bytes read from DRAM and written to it."""
        return self.dram_bytes_read + self.dram_bytes_written

    @property
    def shared_bytes(self) -> float:
        """Bytes that the shared buffer gives and takes."""
        return self.actions["shared_read"] + self.actions["shared_write"]


def time_module(
    module: ModuleOp,
    hardware: Hardware,
    lengths: Sequence[int] | None = None,
    masks: Decisions | None = None,
) -> Timed:
    """
    Times the first function of a module at the tiled or machine level; the module is not changed.

    `lengths` are the real tokens of each sequence. A program that packs its inputs (`hpack`)
    needs none: its sequences are full then. `masks` are what a pruning rule keeps.

    Raises `HeatcError` for a program that prunes and no masks, for `lengths` that the program has
    no room for, and where a program without `hpack` reads the number of tokens and none is given;
    `InfeasibleError` where tiles do not fit the hardware.
    """
    function = _function(module)
    symbolic = any(isinstance(r.type, IndexType) for op in function.walk() for r in op.results)
    if symbolic or not _is_allocated(function):
        module = module.clone()
        if symbolic:
            LowerToHdpPass().apply(Context(), module)
        function = _function(module)
        allocate(module, function, hardware)
    values = Shapes(NoMasks() if masks is None else masks, _lengths(function, lengths))
    program = Words(function).program
    result = Machine(hardware, _memory(module, function)).run(program, values=values)
    energy = energy_report(result, hardware)
    return Timed(
        cycles=result.cycles,
        seconds=energy.seconds,
        busy={engine: int(cycles.sum()) for engine, cycles in result.busy.items()},
        dram_bytes_read=result.dram_bytes_read,
        dram_bytes_written=result.dram_bytes_written,
        macs=result.macs,
        steps=result.steps,
        joules=energy.joules,
        actions=dict(energy.actions),
    )


def _function(module: ModuleOp) -> FuncOp:
    return next(op for op in module.ops if isinstance(op, FuncOp))


def _is_allocated(function: FuncOp) -> bool:
    return all(op.base is not None for op in function.walk() if isinstance(op, hdp.TensorOp))


def _lengths(function: FuncOp, lengths: Sequence[int] | None) -> Sequence[int]:
    """The lengths of all sequences: those given, or full ones where the program packs."""
    if lengths is not None:
        return lengths
    for op in function.walk():
        if isinstance(op, hdp.InstructionOp) and op.mnemonic in ("hpack", "hrows"):
            fields = {f.name: op.immediate(f) for f in op.immediate_fields}
            return [int(fields["length"])] * int(fields["batch"])
    read = {op.register.data for op in function.walk() if isinstance(op, hdp.SpecialOp)}
    if read - {"zero"}:
        raise HeatcError("a program without hpack needs the lengths of its sequences")
    return ()


def _memory(module: ModuleOp, function: FuncOp) -> Memory:
    """DRAM of the program's size; nobody reads its weights."""
    weights = sum(op.nbytes for op in weight_tensors(module))
    tensors = [op for op in function.walk() if isinstance(op, hdp.TensorOp)]
    ends = [base_of(op) + op.nbytes for op in tensors if op.space.data == "dram"]
    return Memory(np.zeros(weights, np.uint8), max(ends, default=0))
