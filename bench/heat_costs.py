"""
What factorised layers cost, and how near they stay: every figure of HEAT.

    python bench/heat_costs.py                      all parts; writes bench/results/heat_costs.json
    python bench/heat_costs.py --parts table,paths  some parts, merged into that file
    python bench/heat_costs.py --only minilm        one part (see --help); writes nothing
    python bench/heat_costs.py --quick              small sizes; writes nothing

What runs on the HDP machine is in bench/support/heat/machine.py. Multiply-accumulates are counted, cosines are of NumPy programs on held-out sentences, seconds are
those of this computer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench import main_job
from bench.support import parts, programs, report
from bench.support.data import texts as data
from bench.support.heat import machine as heat_machine
from bench.support.heat import page as heat_page
from bench.support.parts import Part
from bench.support.programs import Array, NumpyProgram
from bench.support.report import Json, Row
from heatc.errors import HeatcError
from heatc.heat.formats import FORMATS, Format, Modes, Spec, default_modes
from heatc.passes.analysis.paths import (
    Network,
    best_path,
    count,
    from_linear,
    left_to_right,
    plan_paths,
)
from heatc.passes.analysis.ranks import largest_within, layer_network

RESULT = report.RESULTS / "heat_costs.json"
SEED = 0
COUNTED = ("macs", "traffic", "peak")


@dataclass(frozen=True)
class Sizes:
    """How much of each part is run."""

    train: int = 512
    test: int = 300
    length: int = 64
    layers: int = 12
    samples: int = 32
    repeats: int = 15


FULL = Sizes()
QUICK = Sizes(24, 8, 64, 2, 2, 3)


@dataclass(frozen=True)
class Bench:
    """What the parts share: sizes, and a folder for models and programs."""

    sizes: Sizes
    folder: Path


# ---- the cost table ---------------------------------------------------------------------------

TTM2, TTM3 = ((24, 32), (24, 32)), ((8, 8, 12), (8, 8, 12))
TT3 = ((8, 8, 12), (12, 8, 8))


@dataclass(frozen=True)
class Known:
    """A published row: shares of the dense layer, None where none was given."""

    format: Format
    modes: tuple[Modes, Modes]
    ranks: Modes
    parameters: float
    best: float
    naive: float | None = None


KNOWN = (
    Known("ttm", TTM2, (8,), 0.022, 0.58, 0.58),
    Known("ttm", TTM2, (32,), 0.087, 1.08, 2.33),
    Known("ttm", TTM3, (8, 8), 0.010, 0.79, 0.88),
    Known("ttm", TTM3, (32, 32), 0.122, 1.10, 11.5),
    Known("tt", TT3, (16,) * 5, 0.018, 0.044),
    Known("tt", TT3, (64,) * 5, 0.28, 0.197),
    Known("cp", TTM3, (128,), 0.012, 0.33),
    Known("tucker", TTM3, (4, 4, 6, 4, 4, 6), 0.016, 0.035),
    Known("tucker", TTM3, (6, 6, 9, 6, 6, 9), 0.179, 0.22),
)


def table_part(bench: Bench) -> Part:
    """Parameters and multiply-accumulates of a layer of 768 to 768 at 384 tokens."""
    dense, tokens = 768 * 768, 384
    table: list[dict[str, Json]] = []
    off, figures = 0, 0
    for known in KNOWN:
        spec = Spec(known.format, *known.modes, known.ranks)
        network = layer_network(spec, tokens)
        best, naive = best_path(network, "macs"), left_to_right(len(network.terms))
        found = (
            spec.parameters / dense,
            best.cost.macs / (dense * tokens),
            count(network, naive).macs / (dense * tokens),
        )
        for value, wanted in zip(found, (known.parameters, known.best, known.naive)):
            if wanted is not None:
                figures += 1
                off += not _rounds_to(value, wanted)
        table.append(
            {
                "format": f"{spec.format} {spec.shape} r={max(spec.ranks)}",
                "parameters / dense": found[0],
                "MACs best path / dense": found[1],
                "MACs left to right / dense": found[2],
                "best path": " ".join(map(str, best.path)),
            }
        )
    what = "cost table (TTM, TT, CP, Tucker on 768x768, M=384): parameters and MACs off the known"
    row = Row(f"{what} {figures} figures", off, "figures", 0, "<=")
    return Part([row], {"table: 768x768, M=384": table})


def _rounds_to(value: float, wanted: float) -> bool:
    """Whether a figure is the one wanted, to the digits in which that was given."""
    return abs(value - wanted) <= 0.51 * 10.0 ** -len(f"{wanted}".partition(".")[2])


# ---- paths ------------------------------------------------------------------------------------

ISSUE_248 = Network.of(
    ["iP", "sP", "PQ", "jQ", "tQ", "ti", "sj"],
    "",
    {"i": 300, "j": 300, "P": 2000, "Q": 2000, "s": 50, "t": 50},
)
SHAPES = ((768, 768), (768, 3072), (3072, 768))


def format_networks(tokens: int = 128) -> list[Network]:
    """Networks of all formats with 4 to 9 operands, BERT-Base's shapes, at two ratios."""
    found: list[Network] = []
    for format_ in FORMATS:
        for inputs, outputs in SHAPES:
            for modes in (2, 3, 4):
                if format_ == "low-rank" or (format_ == "tucker" and modes == 4):
                    continue
                for ratio in (0.1, 0.4):
                    ins, outs = default_modes(format_, inputs, outputs, modes)
                    spec = largest_within(format_, ins, outs, ratio, tokens)
                    if spec is not None and 4 <= len(spec.terms) + 1 <= 9:
                        found.append(layer_network(spec, tokens))
    return found


def other_paths(network: Network) -> dict[str, Any]:
    """What opt_einsum and cotengra propose, in our form."""
    opt_einsum: Any = import_module("opt_einsum")
    cotengra: Any = import_module("cotengra")
    inputs, result, sizes = [set(t) for t in network.terms], set(network.result), network.sizes
    n = len(inputs)
    found: dict[str, Any] = {}
    for wish in ("flops", "size", "write"):
        search = opt_einsum.DynamicProgramming(minimize=wish)
        found[f"opt_einsum dp {wish}"] = from_linear(search(inputs, result, sizes), n)
        optimal = cotengra.OptimalOptimizer(minimize=wish)
        path = optimal(network.terms, network.result, sizes)
        found[f"cotengra optimal {wish}"] = from_linear(path, n)
    if n <= 7:
        found["opt_einsum optimal"] = from_linear(
            opt_einsum.paths.optimal(inputs, result, sizes), n
        )
    return found


def paths_part(bench: Bench) -> Part:
    """Path quality against other searches, and the time for a whole model."""
    networks = [*format_networks(), ISSUE_248]
    worse = better = compared = 0
    table: list[dict[str, Json]] = []
    for network in networks:
        others = other_paths(network)
        for objective in COUNTED:
            start = time.perf_counter()
            own = best_path(network, objective).cost.value(objective)
            seconds = time.perf_counter() - start
            theirs = min(count(network, p).value(objective) for p in others.values())
            compared += 1
            worse += own > theirs
            better += own < theirs
            table.append(
                {
                    "network": network.equation,
                    "objective": objective,
                    "heatc": own,
                    "best of the others": theirs,
                    "heatc, s": seconds,
                }
            )
    first = "path quality and time against opt_einsum optimal/dp and cotengra"
    own = best_path(ISSUE_248, "macs").cost.macs
    theirs = min(count(ISSUE_248, p).macs for p in other_paths(ISSUE_248).values())
    rows = [
        Row(f"{first}: {len(networks)} networks of all formats (4 to 9 operands), worse in",
            worse, f"of {compared} comparisons", 0, "<="),
        Row(f"{first}: opt_einsum issue 248's network, MACs", own / theirs, "of theirs", 1, "<="),
        *planning_rows(),
    ]  # fmt: skip
    tables: dict[str, Json] = {
        "paths: each network": table,
        "paths: comparisons": {
            "worse": worse,
            "better": better,
            "equal": compared - worse - better,
        },
    }
    return Part(rows, tables)


def planning_rows() -> list[Row]:
    """Seconds to plan the 72 linears of BERT-Base, all of one format."""
    rows: list[Row] = []
    for format_ in FORMATS:
        ends = [*((768, 768),) * 4, (768, 3072), (3072, 768)] * 12
        specs = [largest_within(format_, *default_modes(format_, i, o), 0.4, 128) for i, o in ends]
        networks = [layer_network(spec, 128) for spec in specs if spec is not None]
        start = time.perf_counter()
        plan_paths(networks, "traffic")
        seconds = time.perf_counter() - start
        what = f"planning all of BERT-Base ({format_}, {len(networks)} linears)"
        rows.append(Row(what, seconds, "s", 2, "<="))
    return rows


# ---- MiniLM -----------------------------------------------------------------------------------

LINEARS = "layers=encoder.*"
JOINT = f"low-rank,ratio=0.5,joint,spread,{LINEARS}"
VARIANTS = (
    ("plain SVD", f"low-rank,ratio=0.5,init=plain,{LINEARS}"),
    ("activation-aware", f"low-rank,ratio=0.5,statistics=original,correct-bias=false,{LINEARS}"),
    ("and means into biases", f"low-rank,ratio=0.5,statistics=original,{LINEARS}"),
    ("and Q, K, V jointly", f"low-rank,ratio=0.5,statistics=original,joint,{LINEARS}"),
    ("and each layer aiming at the original", f"low-rank,ratio=0.5,joint,{LINEARS}"),
    ("and ranks spread over layers", JOINT),
)
OTHERS = (
    ("tt", f"tt,ratio=0.5,{LINEARS}"),
    ("tucker", f"tucker,modes=2,ratio=0.5,{LINEARS}"),
    ("ttm", f"ttm,ratio=0.5,{LINEARS}"),
    ("cp", f"cp,modes=2,ratio=0.5,refinements=20,{LINEARS}"),
)


def sentence_embeddings(bench: Bench, name: str, heat: str | None) -> Array:
    """Embeddings of held-out sentences by a NumPy program, factorised on training sentences."""
    sizes = bench.sizes
    model = data.model_folder(verify=True)
    inputs = data.encode(data.sentences("test", sizes.test), sizes.length)
    batch = {key: value[:1] for key, value in inputs.items()}
    calibration = bench.folder / "train.npz"
    if not calibration.exists():
        train = data.encode(data.sentences("train", sizes.train), sizes.length)
        arrays: dict[str, Any] = dict(train)
        np.savez(calibration, **arrays)
    options: list[str] = []
    if heat is not None:
        options = [f"--heat={heat}"]
        options += [] if "init=plain" in heat else [f"--calibrate={calibration}"]
    program = bench.folder / f"{name.replace(' ', '_').replace(',', '')}.py"
    with main_job.quiet():
        programs.compile_model(model, program, batch, *options)
    run = NumpyProgram(program)

    def hidden(part: Mapping[str, Array]) -> Array:
        return run(part)[main_job.HIDDEN]

    return main_job.embeddings(
        main_job.batched(hidden, inputs, 1), np.asarray(inputs["attention_mask"])
    )


def minilm_part(bench: Bench) -> Part:
    """Mean cosine of sentence embeddings at half of the multiply-accumulates, no retraining."""
    reference = sentence_embeddings(bench, "dense", None)
    table: list[dict[str, Json]] = []
    last = 0.0
    for name, heat in VARIANTS:
        cosines = main_job.cosine(sentence_embeddings(bench, name, heat), reference)
        last = float(cosines.mean())
        table.append({"variant": name, "mean cosine": last, "lowest": float(cosines.min()),
                      "--heat": heat})  # fmt: skip
    what = (
        "MiniLM, every encoder linear low-rank at 50 % of the MACs, no retraining: "
        f"mean cosine of sentence embeddings, {bench.sizes.test} held-out sentences"
    )
    return Part([Row(what, last, "cosine", 0.80, ">=")], {"minilm: variants": table})


def formats_part(bench: Bench) -> Part:
    """The other formats beside it, at equal multiply-accumulates."""
    reference = sentence_embeddings(bench, "dense", None)
    table: list[dict[str, Json]] = []
    for name, heat in OTHERS:
        cosines = main_job.cosine(sentence_embeddings(bench, name, heat), reference)
        table.append({"format": name, "mean cosine": float(cosines.mean()), "--heat": heat})
    return Part([], {"formats: MiniLM at 50 % of the MACs": table})


# ---- BERT-Base --------------------------------------------------------------------------------


def bert_base(bench: Bench) -> tuple[Path, int]:
    """A BERT-Base with random weights as a folder, and the size of its weights in bytes."""
    import torch
    import transformers

    path = bench.folder / "bert-base"
    untyped: Any = transformers
    torch.manual_seed(SEED)  # pyright: ignore[reportUnknownMemberType]
    model: Any = untyped.BertModel(untyped.BertConfig(num_hidden_layers=bench.sizes.layers))
    with main_job.quiet():
        model.save_pretrained(path)
    size = sum(v.numel() * 4 for v in model.state_dict().values() if v.is_floating_point())
    return path, size


def calibration_file(bench: Bench) -> Path:
    """Random full sequences."""
    path = bench.folder / "random.npz"
    ids = np.random.default_rng(SEED).integers(1000, 30000, (bench.sizes.samples, 128))
    arrays: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    np.savez(path, **arrays)
    return path


def pass_seconds(bench: Bench, model: Path, heat: str, calibration: Path) -> tuple[float, int]:
    """Seconds of heat-decompose in a process of its own, and that process's peak memory."""
    output = bench.folder / "factors.py"
    shapes = "input_ids=1x128:i64,attention_mask=1x128:i64"
    arguments = ["-o", output, "--inputs", shapes, f"--heat={heat}", "--timing"]
    arguments += [f"--calibrate={calibration}"]
    timed = main_job.watched(bench.folder, "heatc.tools.main", model, *arguments)
    lines = [line.split() for line in timed.errors.splitlines() if "heat-decompose" in line]
    return float(lines[0][0]) / 1e3, timed.peak_bytes


def time_part(bench: Bench) -> Part:
    """Decomposing all linears of the encoder of BERT-Base, low-rank and TT."""
    model, size = bert_base(bench)
    calibration = calibration_file(bench)
    bare = main_job.watched(bench.folder, "import")
    what = f"decomposing BERT-Base ({6 * bench.sizes.layers} linears, "
    rows: list[Row] = []
    os.environ["XDG_CACHE_HOME"] = str(bench.folder / "cache")
    for format_ in ("low-rank", "tt"):
        heat = f"{format_},ratio=0.4,{LINEARS}"
        seconds, peak = pass_seconds(bench, model, heat, calibration)
        cached = f"{heat},statistics=original"
        pass_seconds(bench, model, cached, calibration)
        again, _ = pass_seconds(bench, model, cached, calibration)
        above = (peak - bare.peak_bytes) / size
        tokens = 128 * bench.sizes.samples
        rows += [
            Row(f"{what}{format_}), calibration statistics included, {tokens} tokens",
                seconds, "s", 60, "<="),
            Row(f"{what}{format_}) with statistics at hand", again, "s", 30, "<="),
            Row(f"{what}{format_}), peak memory above torch itself", above, "x fp32 weights", 3,
                "<="),
        ]  # fmt: skip
    return Part(rows)


def numpy_part(bench: Bench) -> Part:
    """The factorised NumPy program against the dense one."""
    model, _ = bert_base(bench)
    ids = np.random.default_rng(SEED).integers(1000, 30000, (1, 128))
    inputs = {"input_ids": ids, "attention_mask": np.ones((1, 128), np.int64)}
    runs: dict[str, Callable[[], Any]] = {}
    wishes = {"dense": None, "low-rank 0.4": 0.4, "low-rank 0.2": 0.2, "tt 0.4": 0.4, "tt 0.2": 0.2}
    for name, ratio in wishes.items():
        path = bench.folder / f"{name.replace(' ', '_').replace('.', '')}.py"
        modes = ",modes=2" if name.startswith("tucker") else ""
        heat = f"{name.split()[0]},ratio={ratio}{modes},init=plain,refinements=0,{LINEARS}"
        with main_job.quiet():
            programs.compile_model(model, path, inputs, *([f"--heat={heat}"] if ratio else []))
        program = NumpyProgram(path)
        runs[name] = lambda program=program: program(inputs)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(bench.sizes.repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    # The first round warms; the rounds are interleaved, so that a busy moment hits all alike.
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    what = "NumPy program factorised against the dense NumPy program, BERT-Base, 1x128"
    rows = [
        Row(f"{what}, low-rank at {percent} % of the MACs",
            medians["dense"] / medians[f"low-rank 0.{percent // 10}"], "x faster", goal, ">=")
        for percent, goal in ((40, 1.6), (20, 2.0))
    ]  # fmt: skip
    table: list[dict[str, Json]] = [
        {"program": name, "median, ms": 1e3 * value, "lowest, ms": 1e3 * min(seconds[name][1:])}
        for name, value in medians.items()
    ]
    return Part(rows, {"numpy: BERT-Base 1x128": table})


# ---- the machine ------------------------------------------------------------------------------


def machine_specs() -> list[Spec]:
    """The linears of BERT-Base in every format, at 40 % of the multiply-accumulates."""
    found: list[Spec] = []
    for format_ in FORMATS:
        for inputs, outputs in SHAPES:
            modes = default_modes(format_, inputs, outputs)
            spec = largest_within(format_, *modes, 0.4, heat_machine.TOKENS)
            assert spec is not None
            found.append(spec)
    return found


def words_part(bench: Bench) -> Part:
    """DRAM words of a tensor-train matrix on the machine."""
    return heat_machine.words_part()


def agreement_part(bench: Bench) -> Part:
    """The cost model of the machine against its simulator, layer by layer."""
    return heat_machine.agreement_part(machine_specs())


ABLATED: tuple[tuple[Format, float], ...] = (("tt", 0.4),)
"""Formats of the whole model in the ablation, and their share of the multiply-accumulates."""


def ablation_part(bench: Bench) -> Part:
    """Paths and fusion of a whole BERT-Base on the machine."""
    model, _ = bert_base(bench)
    return heat_machine.ablation_part(model, ABLATED)


PARTS: dict[str, Callable[[Bench], Part]] = {
    "table": table_part,
    "paths": paths_part,
    "words": words_part,
    "agreement": agreement_part,
    "ablation": ablation_part,
    "minilm": minilm_part,
    "formats": formats_part,
    "time": time_part,
    "numpy": numpy_part,
}


# ---- running and writing ----------------------------------------------------------------------


def run_part(name: str, sizes: Sizes) -> Part:
    """Runs a part in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="heatc-heat-") as folder:
        return PARTS[name](Bench(sizes, Path(folder)))


def run_parts(names: Sequence[str], sizes: Sizes) -> dict[str, Part]:
    """Runs parts one after the other."""
    return parts.run({name: partial(run_part, name, sizes) for name in names})


def write(found: Mapping[str, Part], arguments: Sequence[str]) -> None:
    """Merges parts into the result file, in the order of `PARTS`, and writes the page."""
    origin = report.provenance(" ".join(["python bench/heat_costs.py", *arguments]), SEED)
    parts.merge(RESULT, found, tuple(PARTS), origin)
    write_page()


def write_page() -> None:
    """Writes docs/heat_figures.md from the result file."""
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    heat_page.PAGE.write_text(heat_page.page(content), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Runs the parts asked for; 0 if every row of them holds."""
    parser = argparse.ArgumentParser(description="what factorised layers cost")
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="one part; writes nothing"
    )
    parser.add_argument("--parts", help=f"merge these into the results: {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    parser.add_argument("--page", action="store_true", help="only write docs/heat_figures.md")
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
