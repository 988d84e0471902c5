"""One run of a program with its attentions watched: cycles, bytes, joules, and what was pruned."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from bench.support.programs import Array
from bench.support.report import Json
from heatc.backends.hdp.container import Program
from heatc.backends.hdp.debug import Locations, attentions
from heatc.hardware import Hardware
from heatc.isa import units
from heatc.isa.table import Engine
from heatc.isa.words import Inst
from heatc.machine.assumed import NoMasks
from heatc.machine.energy import EnergyReport, energy_report, leakage_watts
from heatc.machine.machine import Machine, MachineState, Memory, RunResult
from heatc.machine.values import Shapes, Values


class Watch:
    """
    What the attentions of a run did: a recorder of the machine, and an `on_retire` of it.

    Busy cycles are by engine and core, `spans` are the first start and the last end by layer.
    """

    def __init__(self, program: Program, cores: int):
        known = attentions(program.debug)
        names = {name: index for index, name in enumerate(known)}
        paths = Locations(program.debug)
        self.layer = [names.get(paths.at(pc).path) for pc in range(len(program.instructions))]
        self.busy = {engine: np.zeros(cores, np.int64) for engine in Engine}
        self.spans = {index: (math.inf, 0.0) for index in names.values()}
        self.bytes = 0
        self.columns_unused: list[float] = []
        self.cores = cores

    def _span(self, layer: int, start: float, end: float) -> None:
        first, last = self.spans[layer]
        self.spans[layer] = (min(first, start), max(last, end))

    def core(self, pc: int, engine: Engine, start: Any, end: Any, live: Any) -> None:
        """Work of a core engine."""
        layer = self.layer[pc]
        if layer is None:
            return
        cycles = np.broadcast_to(np.asarray(end) - np.asarray(start), (self.cores,))
        active = np.ones(self.cores, np.bool_) if live is None else live
        self.busy[engine] += np.where(active, cycles, 0)
        works = np.broadcast_to(active & (cycles > 0), (self.cores,))
        if works.any():
            starts, ends = (
                np.broadcast_to(np.asarray(t), (self.cores,))[works] for t in (start, end)
            )
            self._span(layer, float(starts.min()), float(ends.max()))

    def transfer(self, pc: int, space: str, loads: bool, start: int, end: int, nbytes: int) -> None:
        """Bytes that moved."""
        layer = self.layer[pc]
        if layer is not None:
            self._span(layer, start, end)
            self.bytes += nbytes * (space == "dram")

    def host(self, pc: int, engine: Engine, start: int, end: int) -> None:
        """The host has no part in attention."""

    def written(self, tile: Any, start: int) -> None:
        """Buffers are not watched."""

    def retired(self, pc: int, instruction: Inst, state: MachineState) -> None:
        """Looks at masks when their last row is written: columns of K that no row needs."""
        if instruction.mnemonic != "mask":
            return
        contents = state.tile(int(instruction["m"])).read()
        if state.parts * state.block[0] * contents.filled < state.registers[60]:
            return
        kept = state.of_group(np.asarray(contents.array, np.bool_)).any(axis=(1, 2))
        self.columns_unused += [float(x) for x in 1 - kept.mean(axis=-1)]

    @property
    def cycles(self) -> float:
        """Cycles from the first to the last work of each attention, over all layers."""
        return sum(end - start for start, end in self.spans.values() if end)


class Deciding(Values):
    """Bit-exact arithmetic that keeps what it prunes, in the order of the run."""

    def __init__(self):
        self.masks: list[units.Mask] = []
        self.gates: list[units.Mask] = []

    def mask(
        self,
        pc: int,
        state: MachineState,
        importance: Any,
        rho: Any,
        first: Any,
        among: units.Mask | None = None,
    ) -> Any:
        kept, sums = super().mask(pc, state, importance, rho, first, among)
        self.masks.append(kept)
        return kept, sums

    def gate(
        self,
        pc: int,
        state: MachineState,
        tau: Any,
        importance: str = "abs",
        number: Any = None,
    ) -> units.Mask:
        self.gates.append(super().gate(pc, state, tau, importance, number))
        return self.gates[-1]


class Decided(Shapes):
    """No arithmetic: prunes what an earlier run of the same program pruned."""

    def __init__(self, before: Deciding):
        super().__init__(NoMasks())
        self.masks, self.gates = iter(before.masks), iter(before.gates)

    def mask(
        self,
        pc: int,
        state: MachineState,
        importance: Any,
        rho: Any,
        first: Any,
        among: units.Mask | None = None,
    ) -> Any:
        return next(self.masks), np.zeros(1, np.int64)

    def gate(
        self,
        pc: int,
        state: MachineState,
        tau: Any,
        importance: str = "abs",
        number: Any = None,
    ) -> units.Mask:
        return next(self.gates)


@dataclass
class Measured:
    """One run of a program on one sample; `values` has what it pruned."""

    result: RunResult
    watch: Watch
    hardware: Hardware
    debug: Mapping[str, Any]
    values: Values

    @property
    def energy(self) -> EnergyReport:
        """The energy of the whole run."""
        return energy_report([self.result], self.hardware)

    def attention(self) -> dict[str, Json]:
        """The figures of the attention alone, a layer."""
        watch, result = self.watch, self.result
        layers = max(1, len(watch.spans))
        pe = watch.busy[Engine.PE]
        cycles = watch.cycles
        ranked = result.blocks_total
        macs = sum(m for m, layer in zip(result.pc_macs, watch.layer) if layer is not None)
        unused = watch.columns_unused
        return {
            "cycles a layer": round(cycles / layers),
            "DRAM bytes a layer": watch.bytes // layers,
            "PE utilisation, %": 100 * float(pe.sum()) / max(1.0, cycles * self.hardware.cores),
            "load balance (mean / max of PE busy over cores), %": 100 * float(pe.mean()) / max(1, int(pe.max())),
            "MACs a DRAM byte": macs / max(1, watch.bytes),
            "blocks pruned, %": 100 * (1 - result.blocks_kept / ranked) if ranked else 0.0,
            "K columns that no row needs, %": 100 * statistics.mean(unused) if unused else 0.0,
            "energy a layer, uJ": 1e6 * attention_joules(self) / layers,
        }  # fmt: skip


def attention_joules(measured: Measured) -> float:
    """Modelled energy of the attentions: their instructions', and leakage while they run."""
    report = measured.energy
    dynamic = sum(
        float(joules)
        for joules, layer in zip(report.pc_joules, measured.watch.layer)
        if layer is not None
    )
    seconds = measured.watch.cycles / measured.hardware.clock_hz
    return dynamic + seconds * sum(leakage_watts(measured.hardware).values())


def measure(
    program: Program,
    inputs: Mapping[str, Array],
    hardware: Hardware | None = None,
    values: Values | None = None,
) -> Measured:
    """Runs one pass of a program and watches its attentions; bit-exact unless `values` are given."""
    hardware = hardware or program.manifest.hardware
    memory = Memory(program.weights, program.manifest.dram_bytes)
    for port in program.manifest.inputs:
        memory.write(port.address, inputs[port.name], "i64")
    watch = Watch(program, hardware.cores)
    machine = Machine(hardware, memory)
    values = values or Deciding()
    result = machine.run(program.instructions, watch.retired, values=values, recorder=watch)
    return Measured(result, watch, hardware, program.debug, values)


def on_split_pes(
    program: Program, inputs: Mapping[str, Array], found: Measured, split: int
) -> Measured:
    """The same pass, with the same masks, on PEs that split down to `split` bits."""
    if split == found.hardware.split_bits:
        return found
    hardware = dataclasses.replace(found.hardware, split_bits=split)
    return measure(program, inputs, hardware, Decided(cast(Deciding, found.values)))


def with_ratio(program: Program, rho_b: float) -> Program:
    """The program with another rho_B, which is an operand of `mask` and nothing else."""
    place = next((i for i in program.instructions if i.mnemonic == "mask"), None)
    if place is None:
        return program
    at = place.instruction.field_index("rho")
    changed = [
        Inst(i.mnemonic, (*i.operands[:at], rho_b, *i.operands[at + 1 :])) if i.mnemonic == "mask" else i
        for i in program.instructions
    ]  # fmt: skip
    return dataclasses.replace(program, instructions=changed)
