"""
The HDP machine model, validated and measured: every figure of it, by one command.

    python bench/machine.py                    all parts; writes bench/results/machine.json
    python bench/machine.py --parts speed,...  some parts, merged into that file
    python bench/machine.py --only softmax     one part (see --help); writes nothing
    python bench/machine.py --quick            small shapes; writes nothing
    python bench/machine.py --page             only writes docs/machine_figures.md anew

Cycles and bytes are those of the modelled machine; seconds are those of this computer. Whoever
writes the results also writes docs/machine_figures.md, which shows them as tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import transformers

from bench import (
    data,
    figures,
    main_job,
    oracle,
    parts,
    programs,
    report,
    scalesim_gemm,
    scalesim_peer,
)
from bench.parts import Part
from bench.programs import Array, Arrays, NumpyProgram
from bench.report import Json, Row
from bench.scalesim_peer import Case
from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.container import Program
from heatc.backends.hdp.debug import Locations, attentions
from heatc.backends.hdp.energy import EnergyReport, energy_report, leakage_watts
from heatc.backends.hdp.machine import Machine, MachineState, Memory, RunResult
from heatc.backends.hdp.values import Shapes, Values
from heatc.errors import HeatcError
from heatc.hardware import SCHEMA, Hardware, load_hardware
from heatc.isa import units
from heatc.isa.table import DTYPES, Engine
from heatc.isa.words import Inst

RESULT = report.RESULTS / "machine.json"
PAGE = report.ROOT / "docs" / "machine_figures.md"
PRESETS = ("hdp-edge", "hdp-server")
RHO_B = (-0.5, 0.0, 0.25, 0.5)
SWEEP = (-0.9, *RHO_B, 0.9)
"""The issue's ratios, and both ends, so that the break-even is inside of what is measured"""
SPLITS = (16, 8, 4)
"""`pe_array.split`: PEs of one 16-bit multiplier, and of ones that split"""
SEED = 0
TAU_H = main_job.TAU_H[1]
HIDDEN = main_job.HIDDEN

Table = list[dict[str, Json]]


HEADS = ("scores of a head", "probabilities times values of a head")
SMALL = ("query, key, value, attention output", *HEADS)


@dataclass(frozen=True)
class Sizes:
    """How much of each part is run."""

    lengths: tuple[int, ...] = (128, 384, 512)
    layers: int = 2
    """Layers of the BERT-Base whose attention is measured: with random weights all are alike"""
    depth: int = 12
    """Layers of BERT-Base where the whole model is run"""
    texts: int = 4
    sentences: int = 64
    repeats: int = 5
    gemms: Mapping[int, tuple[str, ...]] = field(
        default_factory=lambda: {32: tuple(scalesim_gemm.SHAPES), 16: SMALL}
    )
    """By the rows of a square array; SCALE-Sim needs minutes for the others on 16x16"""
    finite: bool = True


FULL = Sizes()
QUICK = Sizes((64,), 1, 1, 1, 4, 2, {32: HEADS}, False)


@dataclass(frozen=True)
class Bench:
    """What the parts share: sizes, and a folder for models and programs."""

    sizes: Sizes
    folder: Path

    def bert(self, name: str, **config: int) -> Path:
        """A BERT with random weights, saved as a Hugging Face folder."""
        path = self.folder / name
        if not path.exists():
            cast(Any, torch).manual_seed(SEED)
            model: Any = cast(Any, transformers.BertModel)(
                cast(Any, transformers.BertConfig)(**config)
            )
            with main_job.quiet():
                model.save_pretrained(path)
        return path

    def compiled(
        self, model: Path, inputs: Mapping[str, Array], target: str, *options: str
    ) -> Program:
        """`heatc MODEL --target TARGET ...`, opened."""
        length = inputs["input_ids"].shape[1]
        name = (
            "_".join((model.name, str(length), target, *options)).replace("-", "").replace("=", "")
        )
        path = self.folder / f"{name}.hdp"
        if not path.exists():
            with main_job.quiet():
                programs.compile_model(model, path, inputs, f"--target={target}", *options)
        return open_program(path)


def random_inputs(length: int) -> Arrays:
    """A full sequence of random token ids."""
    ids = np.random.default_rng(SEED).integers(1000, 30000, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones((1, length), np.int64)}


# ---- SCALE-Sim ---------------------------------------------------------------------------------


def scalesim_part(bench: Bench) -> Part:
    """Cycles of the dense GEMMs of BERT-Base against SCALE-Sim's, and both simulators' times."""
    gemms: Table = []
    worst = ours = theirs = 0.0
    for size, names in bench.sizes.gemms.items():
        hardware = dataclasses.replace(load_hardware("validation"), pe_rows=size, pe_columns=size)
        for name, case in scalesim_gemm.bert_base(size, size, names).items():
            answer = scalesim_peer.simulate(case)
            found = scalesim_gemm.measure(case, hardware)
            difference = 100 * abs(found.compute - answer.demands) / answer.demands
            worst, ours, theirs = (
                max(worst, difference), ours + found.seconds, theirs + answer.seconds
            )  # fmt: skip
            gemms.append({
                "array": f"{size}x{size}", "GEMM (m x k x n)": str(case), "of BERT-Base": name,
                "SCALE-Sim, cycles": answer.demands, "heatc, PE cycles": found.compute,
                "difference, %": difference, "heatc, to the end": found.total,
                "SCALE-Sim, s": answer.seconds, "heatc, cycles alone, s": found.seconds,
                "heatc, with values, s": found.with_values,
                "SCALE-Sim's run": "cached" if answer.cached else "this run",
            })  # fmt: skip
    what = f"dense GEMMs of BERT-Base on an equal output-stationary array, against {scalesim_peer.PINS[0]}"
    rows = [
        Row(f"{what}: compute cycles, each GEMM", worst, "% largest difference", 5, "<="),
        Row(
            f"{what}: simulation time, all of them, cycles without values",
            theirs / ours,
            "x faster",
            1000,
            ">=",
        ),
    ]
    tables: dict[str, Json] = {"scalesim: GEMMs with ideal memory": gemms}
    if bench.sizes.finite:
        tables["scalesim: 128x768x768 with finite bandwidth"] = finite_bandwidth()
    tables["scalesim: the linears as the compiler tiles them"] = compiled_linears(bench)
    return Part(rows, tables)


FINITE = ((4, 256), (16, 256), (4, 2048))
"""(words a cycle, KiB of SRAM for each operand) of the comparison with finite bandwidth"""


def finite_bandwidth() -> Table:
    """Stall cycles of one linear beside SCALE-Sim's, at equal words a cycle."""
    table: Table = []
    for words, sram in FINITE:
        case = Case(128, 768, 768, words=words, sram_kib=sram)
        answer = scalesim_peer.simulate(case)
        base = load_hardware("validation")
        bandwidth = words * DTYPES["i16"] * base.clock_hz
        hardware = dataclasses.replace(base, dram_bytes_per_second=bandwidth)
        found = scalesim_gemm.measure(case, hardware, step=64, repeats=1)
        table.append({
            "words a cycle": words, "SRAM an operand in SCALE-Sim, KiB": sram,
            "SCALE-Sim, stall cycles": answer.stalls,
            "heatc, stall cycles": found.total - found.compute,
            "heatc, bytes moved": found.dram_bytes,
            "least stalls of one port (bytes / width - compute)": max(
                0, found.dram_bytes // (words * DTYPES["i16"]) - found.compute
            ),
        })  # fmt: skip
    return table


def compiled_linears(bench: Bench) -> Table:
    """PE cycles of a compiled BERT-Base layer on the validation preset, by module."""
    model = bench.bert("bert-base-1", num_hidden_layers=1)
    inputs = random_inputs(128)
    program = bench.compiled(model, inputs, "validation", "--hdp-rule=none")
    measured = measure(program, inputs)
    paths = Locations(program.debug)
    linears = (("attention.self.query", 768, 768), ("intermediate.dense", 3072, 768),
               ("output.dense", 768, 3072))  # fmt: skip
    table: Table = []
    for suffix, n, k in linears:
        path = f"encoder.layer.0.{suffix}"
        busy = measured.result.pc_busy[Engine.PE.value]
        cycles = sum(busy[pc] for pc in range(len(busy)) if paths.at(pc).path == path)
        expected = scalesim_peer.simulate(Case(128, n, k)).demands
        table.append({
            "module": path, "GEMM (m x k x n)": str(Case(128, n, k)),
            "SCALE-Sim, cycles": expected, "heatc, PE cycles of the compiled tiles": cycles,
            "difference, %": 100 * (cycles - expected) / expected,
        })  # fmt: skip
    return table


# ---- attention ---------------------------------------------------------------------------------


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

    def mask(self, pc: int, state: MachineState, importance: Any, rho: Any, first: Any) -> Any:
        kept, sums = super().mask(pc, state, importance, rho, first)
        self.masks.append(kept)
        return kept, sums

    def gate(self, pc: int, state: MachineState, tau: Any, importance: str = "abs") -> units.Mask:
        self.gates.append(super().gate(pc, state, tau, importance))
        return self.gates[-1]


class Decided(Shapes):
    """No arithmetic: prunes what an earlier run of the same program pruned."""

    def __init__(self, before: Deciding):
        self.masks, self.gates = iter(before.masks), iter(before.gates)

    def mask(self, pc: int, state: MachineState, importance: Any, rho: Any, first: Any) -> Any:
        return next(self.masks), np.zeros(1, np.int64)

    def gate(self, pc: int, state: MachineState, tau: Any, importance: str = "abs") -> units.Mask:
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
        return energy_report([self.result], self.hardware, self.debug)

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


class Point(NamedTuple):
    """What an attention costs against a dense one on PEs that do not split; `pruned` in %."""

    pruned: float
    cycles: float
    joules: float


def attention_part(bench: Bench) -> Part:
    """Attention of BERT-Base, dense against rule `paper`, at several lengths, on both presets."""
    model = bench.bert("bert-base-attention", num_hidden_layers=bench.sizes.layers)
    table: Table = []
    pays: Table = []
    for target in PRESETS:
        for length in bench.sizes.lengths:
            inputs = random_inputs(length)
            dense = measure(bench.compiled(model, inputs, target, "--hdp-rule=none"), inputs)
            key: dict[str, Json] = {"preset": target, "S": length}
            first = {**key, "rule": "dense", "against dense": 1.0, **dense.attention()}
            table.append(first)
            for score in ("zero", "neginf"):
                options = (*programs.paper(0.0, 0.0), f"--pruned-score={score}")
                program = bench.compiled(model, inputs, target, *options)
                points = {split: list[Point]() for split in SPLITS}
                for rho_b in SWEEP if score == "neginf" else RHO_B:
                    changed = with_ratio(program, rho_b)
                    found = measure(changed, inputs)
                    ratio = found.watch.cycles / dense.watch.cycles
                    entry = found.attention()
                    pruned = cast(float, entry["blocks pruned, %"])
                    for split in SPLITS:
                        narrow = on_split_pes(changed, inputs, found, split)
                        joules = attention_joules(narrow) / attention_joules(dense)
                        points[split].append(
                            Point(pruned, narrow.watch.cycles / dense.watch.cycles, joules)
                        )
                    rule = f"paper, rho_B {rho_b:g}, pruned score {score}"
                    table.append({**key, "rule": rule, "against dense": ratio, **entry})
                for split in SPLITS:
                    most = max(points[split])
                    pays.append({
                        **key, "pruned score": score, "PEs split to, bit": split,
                        "cheaper than dense from, % of blocks pruned": break_even(
                            [(p.pruned, p.cycles) for p in points[split]]
                        ),
                        "at the most pruned, % of blocks": most.pruned,
                        "cycles against dense there": most.cycles,
                        "energy against dense there": most.joules,
                    })  # fmt: skip
    return Part([], {
        "attention: BERT-Base, dense against rule paper": table,
        "attention: the sparsity at which pruning starts to pay": pays,
    })  # fmt: skip


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """Where the cost falls to 1, by linear interpolation; None if it does not."""
    ordered = sorted(points)
    if ordered[0][1] <= 1:
        return ordered[0][0]
    for (x0, y0), (x1, y1) in itertools.pairwise(ordered):
        if y1 <= 1:
            return x0 + (y0 - 1) / (y0 - y1) * (x1 - x0)
    return None


# ---- models and mechanisms ---------------------------------------------------------------------


def long_texts(number: int, length: int) -> Iterator[Arrays]:
    """Samples of `length` tokens, each of real sentences one after the other."""
    sentences = iter(data.sentences("test", 200))
    for _ in range(number):
        text = ""
        while len(data.token_ids([text], length + 1)[0]) <= length:
            text = f"{text} {next(sentences)}"
        yield {name: array for name, array in data.encode([text], length).items()}


def models_part(bench: Bench) -> Part:
    """BERT-Tiny, MiniLM and BERT-Base at 128 tokens: the whole model, the host's share shown."""
    tiny = {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 512,
    }
    length = bench.sizes.lengths[0]
    random = [random_inputs(length)]
    models = {
        "BERT-Tiny (random weights)": (bench.bert("bert-tiny", **tiny), random),
        "MiniLM (real texts)": (data.model_folder(), list(long_texts(bench.sizes.texts, length))),
        "BERT-Base (random weights)": (bench.bert("bert-base", num_hidden_layers=bench.sizes.depth), random),
    }  # fmt: skip
    rules = {"dense": ("--hdp-rule=none",), "paper, rho_B 0": programs.paper(0.0, 0.0)}
    table: Table = []
    for target in PRESETS:
        for name, (model, samples) in models.items():
            for rule, options in rules.items():
                program = bench.compiled(model, samples[0], target, *options)
                runs = [measure(program, sample) for sample in samples]
                table.append({
                    "preset": target, "model": name, "S": length, "texts": len(runs), "rule": rule,
                    **whole(runs),
                })  # fmt: skip
    return Part([], {"models: the whole model at one length": table})


def whole(runs: Sequence[Measured]) -> dict[str, Json]:
    """Figures of whole runs, the mean over them."""

    def mean(value: Callable[[Measured], float]) -> float:
        return statistics.fmean(value(run) for run in runs)

    kept, ranked = (sum(getattr(r.result, f"blocks_{n}") for r in runs) for n in ("kept", "total"))
    return {
        "cycles": round(mean(lambda r: r.result.cycles)),
        "host, % of all cycles": mean(lambda r: 100 * float(r.result.busy["host"].sum()) / r.result.cycles),
        "attention, % of all cycles": mean(lambda r: 100 * r.watch.cycles / r.result.cycles),
        "PE utilisation, %": mean(
            lambda r: 100 * float(r.result.busy["pe"].sum()) / (r.result.cycles * r.hardware.cores)
        ),
        "DRAM bytes": round(mean(lambda r: r.result.dram_bytes_read + r.result.dram_bytes_written)),
        "attention load balance, %": mean(
            lambda r: 100 * float(r.watch.busy[Engine.PE].mean()) / max(1, int(r.watch.busy[Engine.PE].max()))
        ),
        "blocks pruned, %": 100 * (1 - kept / ranked) if ranked else 0.0,
        "energy, mJ": mean(lambda r: 1e3 * r.energy.joules),
        "host, % of the energy": mean(lambda r: 100 * r.energy.unit_joules("host") / r.energy.joules),
        "DRAM, % of the energy": mean(lambda r: 100 * r.energy.unit_joules("dram") / r.energy.joules),
    }  # fmt: skip


def mechanisms(hardware: Hardware) -> dict[str, Hardware]:
    """The hardware, the same with each mechanism of the datapath off, and with PEs that split."""
    switches = [key for key in SCHEMA if key.kind is bool]
    machines = {"all on": hardware}
    for key in switches:
        machines[f"{key.path.split('.')[-1]} off"] = dataclasses.replace(
            hardware, **{key.attribute: False}
        )
    machines["PEs that split to 8 bit"] = dataclasses.replace(hardware, split_bits=8)
    return machines


def mechanisms_part(bench: Bench) -> Part:
    """MiniLM on real texts with each mechanism switched off in turn."""
    length = bench.sizes.lengths[0]
    samples = list(long_texts(bench.sizes.texts, length))
    options = (*programs.paper(0.25, TAU_H), "--pruned-score=neginf")
    table: Table = []
    for target in PRESETS:
        program = bench.compiled(data.model_folder(), samples[0], target, *options)
        base: list[Measured] = []
        for name, hardware in mechanisms(load_hardware(target)).items():
            runs = [measure(program, sample, hardware) for sample in samples]
            base = base or runs
            attention = sum(run.watch.cycles for run in runs)
            moved = sum(run.watch.bytes for run in runs)
            table.append({
                "preset": target, "mechanisms": name,
                "attention cycles": round(attention / len(runs)),
                "against all on": attention / sum(run.watch.cycles for run in base),
                "attention DRAM bytes": moved // len(runs),
                "DRAM bytes against all on": moved / sum(run.watch.bytes for run in base),
                "attention energy, uJ": 1e6 * statistics.fmean(map(attention_joules, runs)),
                "model cycles": round(statistics.fmean(run.result.cycles for run in runs)),
                "blocks pruned, %": 100 * (1 - sum(r.result.blocks_kept for r in runs)
                                           / sum(r.result.blocks_total for r in runs)),
                "heads pruned, %": 100 * (1 - sum(r.result.heads_kept for r in runs)
                                          / sum(r.result.heads_total for r in runs)),
            })  # fmt: skip
    return Part([], {
        "mechanisms: each one switched off in turn": table,
        "mechanisms: overlap of stages": overlap(bench, samples),
    })  # fmt: skip


def overlap(bench: Bench, samples: Sequence[Arrays]) -> Table:
    """What overlap of stages is worth without a head gate, which orders a head's work anyway."""
    rules = {
        "dense": ("--hdp-rule=none",),
        "paper, rho_B 0.25, neginf": (*programs.paper(0.25, 0.0), "--pruned-score=neginf"),
    }
    table: Table = []
    for target, (rule, options) in itertools.product(PRESETS, rules.items()):
        program = bench.compiled(data.model_folder(), samples[0], target, *options)
        hardware = load_hardware(target)
        alone = dataclasses.replace(hardware, stage_overlap=False)
        on, off = (
            statistics.fmean(measure(program, sample, hw).watch.cycles for sample in samples)
            for hw in (hardware, alone)
        )
        table.append({
            "preset": target, "rule": rule, "attention cycles": round(on),
            "stage_overlap off": round(off), "off against on": off / on,
        })  # fmt: skip
    return table


# ---- softmax unit ------------------------------------------------------------------------------


def softmax_part(bench: Bench) -> Part:
    """The exp unit on all of its inputs, and what the unit does to sentence embeddings."""
    row, table = exponential_errors()
    return Part([row], {
        "softmax: 2^-d by the whole part of d": table,
        "softmax: MiniLM embeddings, unit against exact softmax": softmax_embeddings(bench),
    })  # fmt: skip


def exponential_errors() -> tuple[Row, Table]:
    """Every distance until the result is 0: all fractions, for each whole part of d."""
    fractions = np.arange(1 << units.EXP_BITS, dtype=np.int64)
    table: Table = []
    polynomial = 0.0
    for shift in range(units.EXP_BITS + 1):
        found = units.exp2_unit(fractions + (shift << units.EXP_BITS)).astype(np.float64)
        exact = np.exp2(units.EXP_BITS - shift - fractions / 2.0**units.EXP_BITS)
        relative = 100 * float(np.max(np.abs(found - exact) / exact))
        if shift == 0:
            polynomial = relative
        table.append({
            "whole part of d": shift, "inputs": len(fractions),
            "largest relative error, %": relative,
            "largest error, 2^-16": float(np.max(np.abs(found - exact))),
        })  # fmt: skip
    what = "softmax unit: max relative error of exp, the polynomial on all 65,536 fractions"
    return Row(what, polynomial, "%", 0.4, "<="), table


def exact_softmax(
    scores: torch.Tensor, point: int, scale: float, included: torch.Tensor | None = None
) -> torch.Tensor:
    """`oracle.softmax` in float64, rounded once to the probabilities' codes."""
    values = scores.to(torch.float64) * 2.0**-point * scale
    if included is not None:
        values = values.masked_fill(~included, -math.inf)
    result = torch.softmax(values, -1).nan_to_num()
    return torch.round(result * 2.0**units.PROBABILITY_POINT).to(torch.int64)


def softmax_embeddings(bench: Bench) -> Table:
    """Cosines of sentence embeddings of the oracle with and without the unit's approximations."""
    texts = data.sentences("test", bench.sizes.sentences)
    inputs = data.encode(texts[:1], 64)
    table: Table = []
    rules = {"none": ("--hdp-rule=none",), "paper, rho_B 0": programs.paper(0.0, 0.0)}
    for rule, options in rules.items():
        program = bench.compiled(data.model_folder(), inputs, "hdp-edge", *options)
        chosen = oracle.Rule("none") if rule == "none" else oracle.Rule("paper", 0.0, 0.0)
        encoder = oracle.load(data.model_folder(), programs.points(program.path), chosen)
        cosines: list[float] = []
        for ids in data.token_ids(texts, 64):
            arguments = (ids, range(len(ids)), [0] * len(ids))
            with_unit = encoder(*arguments).outputs[HIDDEN].double().mean(0)
            with mock.patch.object(oracle, "softmax", exact_softmax):
                exact = encoder(*arguments).outputs[HIDDEN].double().mean(0)
            cosines.append(float(torch.nn.functional.cosine_similarity(with_unit, exact, dim=0)))
        table.append({
            "rule": rule, "sentences": len(cosines), "least cosine": min(cosines),
            "median cosine": statistics.median(cosines),
        })  # fmt: skip
    return table


# ---- speed -------------------------------------------------------------------------------------


def speed_part(bench: Bench) -> Part:
    """`hdp-run`'s work (values, cycles, energy) on BERT-Base against the NumPy program, and its memory."""
    model = bench.bert("bert-base", num_hidden_layers=bench.sizes.depth)
    inputs = random_inputs(bench.sizes.lengths[0])
    path = bench.folder / "bert-base.py"
    with main_job.quiet():
        programs.compile_model(model, path, inputs)
    size = 4 * sum(
        p.numel() for p in cast(Any, transformers.BertModel).from_pretrained(model).parameters()
    )
    plain = NumpyProgram(path)
    table: Table = []
    rows: list[Row] = []
    shape = f"BERT-Base 1x{bench.sizes.lengths[0]} (random weights)"
    for rule, options in (("none", ("--hdp-rule=none",)), ("paper", programs.paper(0.0, 0.0))):
        program = bench.compiled(model, inputs, "hdp-edge", *options)
        machine, plain_seconds = alternately(
            bench.sizes.repeats, lambda p=program: charged(p, inputs), lambda: plain(inputs)
        )
        command, peak, start = hdp_run(bench, program, inputs)
        above = (peak - start) / size
        what = f"{shape}, functional + timing + energy, hdp-edge, rule {rule}"
        time_row = Row(
            f"{what}: against the NumPy executor", machine / plain_seconds, "x its time", 5, "<="
        )
        memory_row = Row(
            f"{what}: peak memory of hdp-run above its start", above, "x fp32 weights", 2, "<="
        )
        rows += [time_row, memory_row]
        table.append({
            "rule": rule, "simulation, s": machine, "NumPy program, s": plain_seconds,
            "hdp-run, whole command, s": command, "hdp-run, peak MiB": peak / 2**20,
            "hdp-run, MiB at its start": start / 2**20, "fp32 weights, MiB": size / 2**20,
        })  # fmt: skip
    program = bench.compiled(model, inputs, "hdp-edge", *programs.paper(0.0, 0.0))
    seconds = timing_alone(bench, program, inputs)
    what = f"hdp-run --model=timing on stored masks, {shape}, hdp-edge, rule paper, whole command"
    rows.append(Row(what, seconds, "s", 2, "<="))
    return Part(rows, {f"speed: {shape}": table})


def timing_alone(bench: Bench, program: Program, inputs: Arrays) -> float:
    """Median seconds of the command that computes no values."""
    source, masks = bench.folder / "in.npz", bench.folder / "masks.npz"
    np.savez(source, **cast(Any, inputs))
    programs.command("run", [program.path, "--inputs", source, "--save-masks", masks, "-q"])
    arguments = (program.path, "--model=timing", "--masks", masks, "-q")
    repeats = min(3, bench.sizes.repeats)
    return main_job.median(bench.folder, repeats, "heatc.tools.run", *arguments).seconds


def charged(program: Program, inputs: Arrays) -> float:
    """One simulation with its energy, as `hdp-run` does it."""
    results = simulate(program, inputs).results
    return energy_report(results, program.manifest.hardware, program.debug).joules


def alternately(repeats: int, *calls: Callable[[], object]) -> tuple[float, ...]:
    """Median seconds of each call; they take turns, so that a busy computer slows all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for mine, call in zip(times, calls):
            start = time.perf_counter()
            call()
            if turn:
                mine.append(time.perf_counter() - start)
    return tuple(statistics.median(mine) for mine in times)


def hdp_run(bench: Bench, program: Program, inputs: Arrays) -> tuple[float, int, int]:
    """Seconds and peak bytes of the command, and what it needs before it opens a program."""
    source, target = bench.folder / "in.npz", bench.folder / "out.npz"
    np.savez(source, **cast(Any, inputs))
    arguments = (program.path, "--inputs", source, "-o", target, "-q")
    run = main_job.median(bench.folder, min(3, bench.sizes.repeats), "heatc.tools.run", *arguments)
    start = main_job.watched(bench.folder, "heatc.tools.run", "--help")
    return run.seconds, run.peak_bytes, start.peak_bytes


# ---- the page ----------------------------------------------------------------------------------

NOTES: Mapping[str, str] = {
    "scalesim": """\
The `validation` preset has one array, ideal memory, and folds one after the other. SCALE-Sim's
output-stationary fold takes `k + rows + columns - 2` cycles, results included
(`systolic_compute_os.py`: k steps, skewed over rows and columns), and folds follow one another:
`folds * (k + rows + columns - 2)`, which is what `mm` costs with `fold_overlap: false`, so the two
agree exactly: what the comparison tests is that instructions, tiles and accounting add nothing to it.
hdp-edge and hdp-server let folds overlap (one fill and drain an instruction) and charge the results'
way out (`drain`), which SCALE-Sim hides. Its operations on heads are single products here.
SCALE-Sim reports the index of the last cycle as "Total Cycles"; its cycles here are one more.
Its times are those of its classes without trace files, which its command always writes.

With finite bandwidth the two model different memories. heatc: one DMA engine for all operands, A
loaded once, B and C in double-buffered parts of 64 columns; a stall is what is left of the total
after the PE cycles. SCALE-Sim: a port of its own for each operand; what fits the first half of an
SRAM is there before cycle 0 at no cost; its read buffer is a window over the operand in prefetch
order that only moves forward and wraps around, so a fold that needs weights which the window has
left waits until the whole operand has passed; and each wait is added twice (`read_buffer.py`:
`offset += potential_stall_cycles`, once always and once if positive). This is read off its source,
not traced. With an SRAM that holds the operand, all of it is prefetched and nothing stalls. The last
column is the bound of a single port.
""",
    "attention": """\
BERT-Base with random weights (seed 0), of which only {layers} layers are run, since all are alike; figures
are for one layer, from the first to the last work of its attention. Masks of random weights are
meaningless for accuracy and fine for cost. `dense` is the same compiler, int16, without pruning.
The integer pass is work too: rule `paper` computes I_Q I_K everywhere and two more products on kept
blocks, so that it starts behind dense; integer and fraction parts are two planes each of Q and K, so that
more bytes move, and where a head's keys do not fit the local buffer they are fetched again
for every tile of queries and every product ("MACs a DRAM byte" is the operand reuse). "K columns that
no row needs" is what fetch-upon-mask can save: far less than the blocks pruned. `pruned score zero` is the paper's rule and still multiplies
all probabilities with V; `neginf` leaves pruned scores out of the softmax and of P V.
"PEs split to" is `pe_array.split`, 16 for the presets' PEs of one 16-bit multiplier: where they split, the
integer pass and the fraction products take fewer steps, since their planes are as narrow as their binary
points allow (docs/design/energy.md, operand widths). Programs and masks are the same, the tiles those planned
for the preset; dense attention has 16-bit operands, takes the same cycles on any of them, and is the one
on the preset here. There are no planes of 4 bit: such PEs take the cycles of 8-bit ones and cost more.
""",
    "models": """\
BERT-Tiny: 2 layers, width 128, 2 heads; with random weights its integer scores are all 0, so that every
block is as important as every other and none is pruned. MiniLM runs on real sentences, joined to full
length. Embedding, layer norm, GELU and pooling run on the host and are charged.
""",
    "mechanisms": """\
MiniLM on real sentences joined to 128 tokens, rule `paper` with rho_B 0.25, tau_H {tau}, pruned score
`neginf`, so that fetch-upon-mask and head exit have work to save. With the head gate
of this setting a head's work is ordered by the gate and `stage_overlap` finds nothing to overlap; the
second table has it without a gate. `fold_overlap` is an assumption of ours and no mechanism of the paper,
as are PEs that split (`pe_array.split`), which no preset has.
""",
    "softmax": """\
The unit computes 2^-d for distances d >= 0 with 16 fraction bits: a polynomial on the fraction,
shifted by the whole part. The figure with a goal is that of the polynomial on every fraction. The
result keeps 16 fraction bits, so the *relative* error of small powers grows with every shift, while
the absolute one stays below the second column's bound; small powers hardly count in a softmax.
""",
    "speed": "Medians of this computer, warm, in one process, both programs taking turns.\n",
}


def page(content: Mapping[str, Any]) -> str:
    """docs/machine_figures.md: rows and tables of the result file."""
    values = {"layers": FULL.layers, "tau": TAU_H}
    lines = [
        "# The machine model's figures",
        "",
        "Written by `python bench/machine.py` from bench/results/machine.json; do not edit.",
        "Cycles, bytes and joules are modelled, seconds are this computer's.",
        "",
    ]
    cells = [
        (r["what"], cell(r["measured"]), f"{r['sense']} {cell(r['goal'])}", r["unit"], "yes" if r["holds"] else "NO")
        for r in content["rows"]
    ]  # fmt: skip
    lines += [figures.table([("what", "measured", "goal", "unit", "holds"), *cells]), ""]
    shown = ""
    for name, entries in content["tables"].items():
        part = name.split(":")[0]
        if part != shown:
            origin = content["provenance"]["parts"][part]
            lines += [f"## {part.capitalize()}", "", NOTES[part].format(**values)]
            lines += [f"{origin['date']}, commit {origin['commit']}, {origin['cpu']}.", ""]
            shown = part
        header = list(dict.fromkeys(key for entry in entries for key in entry))
        body = [[cell(entry.get(key)) for key in header] for entry in entries]
        lines += [f"### {name.split(': ', 1)[1]}", "", figures.table([header, *body]), ""]
    return "\n".join(lines).rstrip() + "\n"


def cell(value: Json) -> str:
    """A value of a table for people."""
    if value is None:
        return "never"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.7f}" if 0.999 < value < 1 else f"{value:.4g}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{int(value):,}"
    return str(value)


# ---- the command -------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Bench], Part]] = {
    "scalesim": scalesim_part,
    "speed": speed_part,
    "attention": attention_part,
    "models": models_part,
    "mechanisms": mechanisms_part,
    "softmax": softmax_part,
}


def run_parts(names: Sequence[str], sizes: Sizes) -> dict[str, Part]:
    """Runs parts one after the other."""
    with tempfile.TemporaryDirectory(prefix="heatc-machine-") as folder:
        bench = Bench(sizes, Path(folder))
        return parts.run({name: partial(PARTS[name], bench) for name in names})


def write(found: Mapping[str, Part], arguments: Sequence[str]) -> None:
    """Merges parts into the result file, in the order of `PARTS`, and writes the page."""
    origin = report.provenance(" ".join(["python bench/machine.py", *arguments]), SEED)
    parts.merge(RESULT, found, tuple(PARTS), origin)
    write_page()


def write_page() -> None:
    """Writes docs/machine_figures.md from the result file."""
    PAGE.write_text(page(json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Runs the parts asked for; 0 if every row of them holds."""
    parser = argparse.ArgumentParser(description="the HDP machine model, validated and measured")
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="one part; writes nothing"
    )
    parser.add_argument("--parts", help=f"merge these into the results: {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small shapes; writes nothing")
    parser.add_argument("--page", action="store_true", help="only write docs/machine_figures.md")
    options = parser.parse_args(arguments)
    if options.page:
        write_page()
        return 0
    names = options.only or (options.parts.split(",") if options.parts else list(PARTS))
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part is called {unknown[0]!r}: {', '.join(PARTS)}")
    try:
        found = run_parts(names, QUICK if options.quick else FULL)
    except (data.MissingError, programs.CommandError, HeatcError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [row for part in found.values() for row in part.rows]
    report.show(rows)
    if options.quick or options.only:
        for part in found.values():
            print(json.dumps(part.tables, indent=1))
    else:
        write(found, arguments)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
