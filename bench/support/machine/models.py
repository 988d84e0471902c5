"""The parts `models` and `mechanisms` of bench/machine.py: whole models, and each mechanism off."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence

from bench import main_job
from bench.support import programs
from bench.support.data import texts as data
from bench.support.machine.setup import PRESETS, Bench, Table, random_inputs
from bench.support.machine.watch import Measured, attention_joules, measure
from bench.support.parts import Part
from bench.support.programs import Arrays
from bench.support.report import Json
from heatc.hardware import SCHEMA, Hardware, load_hardware
from heatc.isa.table import Engine

TAU_H = main_job.TAU_H[1]


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
