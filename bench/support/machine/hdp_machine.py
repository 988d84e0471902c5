"""
The machine's side of bench/hdp_accuracy.py: what pruned programs compute, what they cost, and how
long `heatc-tune calibrate` takes.

Values are compared bit for bit with oracle/encoder.py, which imports nothing of heatc. Cycles, bytes
and joules are modelled; where BERT-Base is measured its weights are random, all layers are alike,
and a plan is one setting for all heads, chosen by the sparsity that it gives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bench import main_job
from bench.support import programs, report, sources
from bench.support.machine.attention import break_even
from bench.support.machine.models import long_texts
from bench.support.machine.setup import PRESETS, Bench, random_inputs
from bench.support.machine.watch import Measured, attention_joules, measure, with_ratio
from bench.support.programs import Arrays, Run
from bench.support.report import Json
from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.container import Program
from heatc.hardware import load_hardware
from heatc.hardware.costs import ACTIONS, leakage_watts
from heatc.isa.table import ISA
from heatc.machine.energy import action_counts, unit_of
from heatc.plan import read_plan
from heatc.rules import make_rule
from heatc.tuning.common.plan_data import plan_data
from oracle import rules
from oracle.encoder import Encoder, equal_lengths
from oracle.rules import Attention

LENGTHS = (64, 128, 256, 384, 512)
SWEPT = (128, 512)
"""Lengths at which the break-even is looked for"""
SPLITS = (16, 8)
"""`pe_array.split`: the presets' PEs, and ones that split"""
HEADS = 12
DEPTH = 12
"""Of BERT-Base"""
ALWAYS = 1e6
"""A tau_H above every importance"""
RATIOS = (0.25, 0.7, 0.9, 0.99)
GATED = (0, 4, 8, 11)
TEXTS = 2
CHUNK = 128
"""Sentences of one cached run"""

Floats = npt.NDArray[np.floating]
Table = list[dict[str, Json]]


# ---- what programs compute ----------------------------------------------------------------------


def padded(rows: Sequence[Sequence[int]], length: int) -> Arrays:
    """The model's inputs, int64 (n, length) each, of sentences given by their token ids."""
    arrays = {
        name: np.zeros((len(rows), length), np.int64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    for index, row in enumerate(rows):
        arrays["input_ids"][index, : len(row)] = row
        arrays["attention_mask"][index, : len(row)] = 1
    return arrays


def agreement(
    program: Path, encoder: Encoder, rows: Sequence[Sequence[int]], length: int
) -> list[str]:
    """
    Runs a program and its PyTorch form on sentences and compares masks, gates and outputs.

    Args:
        program: a compiled classifier.
        encoder: the PyTorch form, with the same rules and binary points.
        rows: the real token ids of each sentence.
        length: tokens of the program.

    Returns:
        For each sentence the first thing that differs in a bit, "" where nothing does.
    """
    with _silent():
        run = programs.run_hdp(program, padded(rows, length), layers=True)
    starts = np.cumsum([0, *map(len, rows)])
    found = [""] * len(rows)
    for indices in equal_lengths(rows):
        logits, attentions = encoder.forward(torch.tensor([rows[index] for index in indices]))
        for place, index in enumerate(indices):
            tokens = slice(int(starts[index]), int(starts[index + 1]))
            different = _difference(run, index, tokens, place, attentions)
            same = np.array_equal(run.outputs["logits"][index], logits[place].numpy())
            found[index] = different or ("" if same else "logits")
    return found


def _difference(
    run: Run, index: int, tokens: slice, place: int, attentions: Sequence[Attention]
) -> str:
    """The first attention that differs in a sentence; `place` is the sentence's in `attentions`."""
    for layer, one in enumerate(attentions):
        name = f"bert.encoder.layer.{layer}.attention.self"
        if one.blocks is not None:
            found = run.layers[f"mask/{name}"][index]
            expected = np.zeros_like(found)
            rows, columns = one.blocks.shape[-2:]
            expected[:, :rows, :columns] = one.blocks[place].numpy()
            if not np.array_equal(found, expected):
                return f"mask of {name}"
        if one.heads is not None:
            gate = one.heads[place].numpy()
            # No gate in the program: no head of the layer has a threshold.
            found = run.layers[f"gate/{name}"][index] if f"gate/{name}" in run.layers else True
            if not np.array_equal(np.broadcast_to(found, gate.shape), gate):
                return f"gate of {name}"
        codes = one.output[place].transpose(0, 1).flatten(1).numpy()
        if not np.array_equal(run.layers[f"codes/{name}"][tokens], codes):
            return f"codes of {name}"
    return ""


class _Chunk(NamedTuple):
    """Sentences of like length for one run of a program, and where its logits are kept."""

    program: Path
    rows: list[list[int]]
    length: int
    path: Path


def predict(
    program: Path, rows: Sequence[list[int]], length: int, folder: Path
) -> tuple[Floats, float]:
    """
    Logits (n, labels) of a program by `hdp-run`, sentences of like length together.

    What was run before an interruption is in `folder`, keyed by the program's bytes, the sources
    of the machine and the sentences. One process a core.

    Returns:
        the logits, and the seconds that this call took.
    """
    began = time.monotonic()
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    parts = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    key = hashlib.sha256(
        program.read_bytes() + sources.digest("heatc.backends.hdp.simulation").encode()
    )
    chunks: list[_Chunk] = []
    for part in parts:
        own = key.copy()
        own.update(repr([rows[index] for index in part]).encode())
        path = folder / f"{own.hexdigest()[:32]}.npy"
        chunks.append(_Chunk(program, [rows[index] for index in part], length, path))
    folder.mkdir(parents=True, exist_ok=True)
    # A process of its own reads the environment before its BLAS starts; threads of several
    # processes on few cores wait for each other (measured: five times slower).
    with _one_thread(), ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        list(pool.map(_run_chunk, [chunk for chunk in chunks if not chunk.path.is_file()]))
    joined = np.concatenate([np.load(chunk.path) for chunk in chunks])
    logits = np.empty_like(joined)
    logits[[index for part in parts for index in part]] = joined
    return logits, time.monotonic() - began


@contextlib.contextmanager
def _one_thread() -> Generator[None]:
    """Processes that are started meanwhile compute with one thread each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run_chunk(chunk: _Chunk) -> None:
    with _silent():
        run = programs.run_hdp(chunk.program, padded(chunk.rows, chunk.length))
    part = chunk.path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as stream:
        np.save(stream, run.outputs["logits"])
    part.replace(chunk.path)


@contextlib.contextmanager
def _silent() -> Generator[None]:
    """Keeps what commands print off the terminal, unless they fail."""
    with main_job.quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield


# ---- calibration --------------------------------------------------------------------------------


class Calibration(NamedTuple):
    """One `heatc-tune calibrate`: wall and CPU seconds, load averages (1 min) around it."""

    seconds: float
    cpu_seconds: float
    load_before: float
    load_after: float


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def calibrate(
    model: Path, rows: Sequence[Sequence[int]], length: int, goal: str, output: Path,
    work: Path | None = None,
) -> Calibration:  # fmt: skip
    """
    Runs the command in a process of its own, from nothing unless `work` has a part of it.

    Args:
        model: a Hugging Face folder.
        rows: the real token ids of each sentence.
        length: tokens that they are padded to.
        goal: as `--goal` has it.
        output: the plan; the data lies beside it.
        work: where an interrupted run goes on; beside the plan where None.

    Raises:
        CommandError: it did not end with 0.
    """
    folder = output.parent
    source = folder / "calibration.npz"
    np.savez(source, **padded(rows, length))  # pyright: ignore[reportArgumentType]
    command = [sys.executable, "-m", "heatc.tools.tune", "calibrate", model, "--data", source]
    command += ["--goal", goal, "-o", output, "--work-dir", work or folder / "work"]
    # A user sets no number of threads: all cores.
    environment = {key: value for key, value in os.environ.items() if key not in THREADS}
    before, used = os.getloadavg()[0], _children_seconds()
    began = time.monotonic()
    result = subprocess.run(
        [str(word) for word in command],
        check=False, capture_output=True, text=True, cwd=report.ROOT, env=environment,
    )  # fmt: skip
    seconds = time.monotonic() - began
    if result.returncode != 0:
        raise programs.CommandError(f"heatc-tune ended with {result.returncode}: {result.stderr}")
    print(result.stdout, file=sys.stderr)
    return Calibration(seconds, _children_seconds() - used, before, os.getloadavg()[0])


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rules_of(plan: Path, layers: int) -> list[rules.Rule]:
    """The rules of a plan as the PyTorch form takes them, in the order of the layers."""
    found = read_plan(plan).rules
    names = [f"bert.encoder.layer.{layer}.attention.self" for layer in range(layers)]
    return [
        rules.Rule(**{f.name: _plain(getattr(found[name], f.name)) for f in FIELDS})
        if name in found
        else rules.Rule()
        for name in names
    ]


FIELDS = [field for field in dataclasses.fields(rules.Rule) if field.name != "approximate"]


def _plain(value: Any) -> Any:
    """One value for all heads as a number."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


# ---- what programs cost -------------------------------------------------------------------------


class Cost(NamedTuple):
    """Modelled cycles, DRAM bytes and joules."""

    cycles: float
    dram_bytes: float
    joules: float

    @classmethod
    def attention(cls, found: Measured) -> Cost:
        """Of the attentions of a run, a layer."""
        layers = len(found.watch.spans)
        watch = found.watch
        return cls(*(x / layers for x in (watch.cycles, watch.bytes, attention_joules(found))))

    @classmethod
    def whole(cls, found: Measured) -> Cost:
        """Of a whole run."""
        result = found.result
        moved = result.dram_bytes_read + result.dram_bytes_written
        return cls(result.cycles, moved, found.energy.joules)

    @classmethod
    def mean(cls, costs: Sequence[Cost]) -> Cost:
        """The mean over runs."""
        return cls(*np.mean(costs, axis=0).tolist())

    def deeper(self, two: Cost, layers: int) -> Cost:
        """Of a model with `layers` layers, from its costs with one (this) and with two."""
        return Cost(*(a + (layers - 1) * (b - a) for a, b in zip(self, two)))

    def entry(self, dense: Cost) -> dict[str, Json]:
        """The columns of a table."""
        return {
            "cycles": round(self.cycles),
            "cycles / dense": round(self.cycles / dense.cycles, 3),
            "DRAM, bytes": round(self.dram_bytes),
            "DRAM / dense": round(self.dram_bytes / dense.dram_bytes, 3),
            "energy, uJ": round(1e6 * self.joules, 1),
            "energy / dense": round(self.joules / dense.joules, 3),
        }


class Setting(NamedTuple):
    """One setting of rule `ours` for all layers: the first `gated` heads are always pruned."""

    name: str
    gated: int
    rho_b: float = 0.0

    def write(self, path: Path, layers: int) -> Path:
        """The setting as a plan of a BERT with so many layers."""
        taus = (ALWAYS,) * self.gated + (0.0,) * (HEADS - self.gated)
        options = {"rho_b": (self.rho_b,), "tau_h": taus if self.gated else (0.0,)}
        names = [f"encoder.layer.{layer}.attention.self" for layer in range(layers)]
        rule = make_rule("ours", options)
        path.write_text(json.dumps(plan_data(dict.fromkeys(names, rule))), encoding="utf-8")
        return path


class Workshop(NamedTuple):
    """Where models and programs of the measurements are."""

    bench: Bench

    def bert_base(self, length: int, target: str, setting: Setting | None, layers: int) -> Program:
        """BERT-Base cut to `layers` layers, dense or with a setting."""
        model = self.bench.bert(f"bert-base-{layers}", num_hidden_layers=layers)
        options = ["--hdp-rule=none"]
        if setting is not None:
            plan = setting.write(self.bench.folder / "setting.json", layers)
            options = [f"--plan={plan}"]
        return self.compiled(model, random_inputs(length), target, *options)

    def compiled(self, model: Path, inputs: Arrays, target: str, *options: str) -> Program:
        """A program of a model for inputs of this shape."""
        path = self.bench.folder / "program.hdp"
        with _silent():
            programs.compile_model(model, path, inputs, f"--target={target}", *options)
        return open_program(path)

    def nearest(self, length: int, setting: Setting, share: float) -> Setting:
        """The setting with the rho_B whose net sparsity on random inputs is nearest to a share."""
        inputs = random_inputs(length)
        program = self.bert_base(length, "hdp-edge", setting, 1)
        found: dict[float, float] = {}
        low, high = -1.0, 1.0
        for _ in range(8):
            rho = (low + high) / 2
            found[rho] = net_sparsity(with_ratio(program, rho), inputs)
            low, high = (low, rho) if found[rho] > share else (rho, high)
        best = min(found, key=lambda rho: abs(found[rho] - share))
        return setting._replace(rho_b=best)


def net_sparsity(program: Program, inputs: Arrays) -> float:
    """Share of blocks pruned by an unpadded pass, all blocks of a pruned head included."""
    masks = simulate(program, inputs, masks=True).masks
    kept, total = 0, 0
    for key, mask in masks.items():
        if not key.startswith("mask/"):
            continue
        gate = masks.get(key.replace("mask/", "gate/"), np.ones(mask.shape[:2], np.bool_))
        kept += int(np.logical_and(mask, gate[..., None, None]).sum())
        total += mask.size
    return 1 - kept / total if total else 0.0


def settings(workshop: Workshop, length: int, net: float, heads: float) -> list[Setting]:
    """The plan's sparsity as one setting: by blocks and heads as the plan does it, by blocks alone."""
    both = Setting("heads and blocks", round(heads * HEADS))
    alone = Setting("blocks alone", 0)
    return [workshop.nearest(length, one, net) for one in (both, alone)]


def buys(
    workshop: Workshop, model: Path, plan: Path, net: float, heads: float,
    lengths: Sequence[int] = LENGTHS,
) -> dict[str, Json]:  # fmt: skip
    """
    Cost of attention (a layer) and of the whole model, dense and at the plan's sparsity.

    Args:
        workshop: where programs are made.
        model: the fine-tuned classifier, which has the plan.
        plan: its plan.
        net: the net sparsity that settings of BERT-Base come near to.
        heads: the share of heads that the plan prunes.
        lengths: tokens.
    """
    tables: dict[str, Table] = {"attention": [], "whole model": []}
    for length in lengths:
        chosen = settings(workshop, length, net, heads)[:1]
        for target in PRESETS:
            key: dict[str, Json] = {"preset": target, "S": length}
            for name, found in (
                ("MiniLM", minilm_costs(workshop, length, target, model, plan)),
                ("BERT-Base", bert_base_costs(workshop, length, target, chosen)),
            ):
                _, (dense_attention, dense_whole), _ = found[0]
                for rule, (attention, whole), sparsity in found:
                    one: dict[str, Json] = {
                        "model": name, **key, "rule": rule,
                        "net_sparsity_percent": round(100 * sparsity, 2),
                    }  # fmt: skip
                    tables["attention"].append(one | attention.entry(dense_attention))
                    tables["whole model"].append(one | whole.entry(dense_whole))
            print(f"cost at {length} tokens on {target}", file=sys.stderr, flush=True)
    return {f"what it buys: {name}": sorted(table, key=_place) for name, table in tables.items()}


def _place(line: Mapping[str, Json]) -> tuple[str, str]:
    """Where a line of a table belongs."""
    return str(line["preset"]), str(line["model"])


Line = tuple[str, tuple[Cost, Cost], float]
"""A rule, its costs (attention a layer, whole model) and its net sparsity"""


def minilm_costs(
    workshop: Workshop, length: int, target: str, model: Path, plan: Path
) -> list[Line]:
    """MiniLM dense and with its plan, on real sentences joined to full length."""
    samples = list(long_texts(TEXTS, length))
    lines: list[Line] = []
    for rule, option in (("dense", "--hdp-rule=none"), ("plan 85 %", f"--plan={plan}")):
        program = workshop.compiled(model, samples[0], target, option)
        runs = [measure(program, sample) for sample in samples]
        both = tuple(Cost.mean([of(run) for run in runs]) for of in (Cost.attention, Cost.whole))
        sparsity = float(np.mean([net_sparsity(program, sample) for sample in samples]))
        lines.append((rule, (both[0], both[1]), sparsity))
    return lines


def bert_base_costs(
    workshop: Workshop, length: int, target: str, chosen: Sequence[Setting]
) -> list[Line]:
    """BERT-Base dense and with settings; the whole model from runs of one and of two layers."""
    inputs = random_inputs(length)
    lines: list[Line] = []
    for setting in (None, *chosen):
        made = [workshop.bert_base(length, target, setting, layers) for layers in (1, 2)]
        one, two = (measure(program, inputs) for program in made)
        whole = Cost.whole(one).deeper(Cost.whole(two), DEPTH)
        lines.append((_name(setting), (Cost.attention(two), whole), net_sparsity(made[1], inputs)))
    return lines


def _name(setting: Setting | None) -> str:
    if setting is None:
        return "dense"
    heads = f", {setting.gated} of {HEADS} heads" if setting.gated else ""
    return f"{setting.name}: rho_B {setting.rho_b:g}{heads}"


def at_512(workshop: Workshop, net: float, heads: float, length: int = 512) -> dict[str, Json]:
    """Attention of BERT-Base on hdp-edge at the plan's sparsity, and where cycles and energy go."""
    inputs = random_inputs(length)
    chosen = settings(workshop, length, net, heads)
    made = {_name(s): workshop.bert_base(length, "hdp-edge", s, 1) for s in (None, *chosen)}
    summary: Table = []
    runs: dict[tuple[str, int], Measured] = {}
    for split in SPLITS:
        hardware = dataclasses.replace(load_hardware("hdp-edge"), split_bits=split)
        for name, program in made.items():
            runs[name, split] = measure(program, inputs, hardware)
            cost = Cost.attention(runs[name, split])
            dense = Cost.attention(runs["dense", split])
            sparsity = round(100 * net_sparsity(program, inputs), 2)
            one: dict[str, Json] = {"PEs split to, bit": split, "rule": name}
            summary.append(one | {"net_sparsity_percent": sparsity} | cost.entry(dense))
    both = _name(chosen[0])
    pairs = {
        f"{'dense' if name == 'dense' else 'pruned'}, {split}-bit PEs": (made[name], found)
        for (name, split), found in runs.items()
        if name in ("dense", both)
    }
    title = f"attention at {length} tokens"
    return {
        title: summary,
        f"{title}: cycles by instruction": by_instruction(pairs, cycles=True),
        f"{title}: energy by instruction": by_instruction(pairs, cycles=False),
        f"{title}: energy by unit": by_unit(pairs),
    }


Pairs = Mapping[str, tuple[Program, Measured]]


def by_instruction(pairs: Pairs, *, cycles: bool) -> Table:
    """Busy cycles (the mean over cores) or microjoules of attention, by instruction."""
    found: dict[str, dict[str, float]] = {}
    for column, (program, one) in pairs.items():
        energy = one.energy.pc_joules
        busy = np.sum([np.asarray(b) for b in one.result.pc_busy.values()], axis=0)
        for pc, instruction in enumerate(program.instructions):
            if one.watch.layer[pc] is None:
                continue
            known = ISA[instruction.mnemonic]
            # The DMA engine is one for all cores.
            engines = 1 if known.engine.value == "dma" else one.hardware.cores
            value = float(busy[pc]) / engines if cycles else 1e6 * float(energy[pc])
            line = found.setdefault(known.mnemonic, dict.fromkeys(pairs, 0.0))
            line[column] += value
    table: Table = []
    for mnemonic in sorted(found, key=lambda m: (ISA[m].engine.value, -max(found[m].values()))):
        line = {column: round(value, 1) for column, value in found[mnemonic].items()}
        if any(line.values()):
            known = ISA[mnemonic]
            table.append({"engine": known.engine.value, "instruction": f"`{mnemonic}`: {known.summary}", **line})  # fmt: skip
    return table


def by_unit(pairs: Pairs) -> Table:
    """Microjoules of attention by unit, and the leakage of all units while it runs."""
    found: dict[str, dict[str, float]] = {}
    for column, (_, one) in pairs.items():
        inside = np.array([layer is not None for layer in one.watch.layer])
        counts = action_counts(one.result, one.hardware)[inside].sum(axis=0)
        for action, count in zip(ACTIONS, counts.tolist()):
            line = found.setdefault(unit_of(action), dict.fromkeys(pairs, 0.0))
            line[column] += 1e-12 * count * getattr(one.hardware, f"energy_{action}_aj")
        seconds = one.watch.cycles / one.hardware.clock_hz
        line = found.setdefault("leakage of all units", dict.fromkeys(pairs, 0.0))
        line[column] += 1e6 * seconds * sum(leakage_watts(one.hardware).values())
    return [
        {"unit": unit, **{column: round(value, 2) for column, value in line.items()}}
        for unit, line in found.items()
        if any(round(value, 2) for value in line.values())
    ]


def pays(workshop: Workshop, blocks: float, lengths: Sequence[int] = SWEPT) -> dict[str, Json]:
    """
    From which net sparsity attention of BERT-Base costs less than dense, by blocks and by heads.

    `blocks` is the share of blocks that are pruned where the number of heads is what varies.
    """
    table: Table = []
    for length in lengths:
        level = workshop.nearest(length, Setting("", 0), blocks)
        ways = {
            "blocks alone": [Setting("", 0, rho) for rho in RATIOS],
            f"heads, {100 * blocks:.0f} % of blocks": [level._replace(gated=n) for n in GATED],
        }
        for target in PRESETS:
            for way, swept in ways.items():
                table += _swept(workshop, length, target, way, swept)
    return {"the net sparsity at which attention starts to cost less": table}


def _swept(
    workshop: Workshop, length: int, target: str, way: str, swept: Sequence[Setting]
) -> Table:
    """One line for each kind of PEs."""
    inputs = random_inputs(length)
    dense = workshop.bert_base(length, target, None, 1)
    made = [workshop.bert_base(length, target, setting, 1) for setting in swept]
    shares = [100 * net_sparsity(program, inputs) for program in made]
    table: Table = []
    for split in SPLITS:
        hardware = dataclasses.replace(load_hardware(target), split_bits=split)
        base = Cost.attention(measure(dense, inputs, hardware))
        costs = [Cost.attention(measure(program, inputs, hardware)) for program in made]
        cycles = [(s, c.cycles / base.cycles) for s, c in zip(shares, costs)]
        joules = [(s, c.joules / base.joules) for s, c in zip(shares, costs)]
        table.append({
            "preset": target, "S": length, "pruned": way, "PEs split to, bit": split,
            "fewer cycles from, % net": _point(break_even(cycles)),
            "less energy from, % net": _point(break_even(joules)),
            "most pruned, % net": round(max(shares), 2),
            "cycles / dense there": round(max(cycles)[1], 3),
            "energy / dense there": round(max(joules)[1], 3),
        })  # fmt: skip
    return table


def _point(value: float | None) -> float | str:
    return "never" if value is None else round(value, 1)
