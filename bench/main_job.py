"""
The main job on the real model: every figure of it, by one command.

    python bench/main_job.py                 all rows; writes bench/results/main_job.json
    python bench/main_job.py --only paper    one part (see --help); writes nothing
    python bench/main_job.py --quick         few sentences; writes nothing

all-MiniLM-L6-v2 is compiled to NumPy and to HDP programs by `heatc` and run on real sentences;
PyTorch and `oracle/bert.py`, an independent model of the equations, are the references.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import transformers
from rich.console import Console

from bench.support import programs, report
from bench.support.data import texts as data
from bench.support.parts import Part
from bench.support.programs import Array, Arrays, NumpyProgram, Run
from bench.support.report import Json, Row
from oracle import bert as oracle

LENGTH = 64
"""Tokens of the padded programs; longer sentences are cut."""

RHO_B = (-0.5, 0.0, 0.25)
TAU_H = (0.0, 1.3)
"""Off, and a threshold that prunes some heads of some sentences."""

SIDES: tuple[data.Side, ...] = ("right", "left", "both")
SEED = 0
HIDDEN = "last_hidden_state"


@dataclass(frozen=True)
class Sizes:
    """How much of each part is run."""

    sentences: int = 64
    paper_sentences: int = 200
    padding_sentences: int = 12
    repeats: int = 5


FULL = Sizes()
QUICK = Sizes(sentences=8, paper_sentences=3, padding_sentences=2, repeats=2)


class Bench:
    """What the parts share: sizes, the model, a folder for programs."""

    def __init__(self, sizes: Sizes, folder: Path):
        self.sizes = sizes
        self.folder = folder
        self.model = data.model_folder(verify=True)

    def texts(self, number: int) -> list[str]:
        """The first sentences of the test split."""
        return data.sentences("test", number)

    def compiled(self, name: str, inputs: Mapping[str, Array], *options: object) -> Path:
        """The real model compiled for the shapes of `inputs`, into a file of this name."""
        path = self.folder / name
        if not path.exists():
            with quiet():
                programs.compile_model(self.model, path, inputs, *options)
        return path


def batches(inputs: Mapping[str, Array], size: int) -> Iterator[Arrays]:
    """Cuts arrays (N, ...) into batches (size, ...); the last is filled up by repetition."""
    number = len(next(iter(inputs.values())))
    for start in range(0, number, size):
        index = np.minimum(np.arange(start, start + size), number - 1)
        yield {name: value[index] for name, value in inputs.items()}


def batched(run: Callable[[Arrays], Array], inputs: Mapping[str, Array], size: int) -> Array:
    """Runs all batches and joins their results, without the repetitions."""
    number = len(next(iter(inputs.values())))
    return np.concatenate([run(batch) for batch in batches(inputs, size)])[:number]


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keeps remarks of the commands off the terminal unless the command fails."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text):
            yield
    except BaseException:
        sys.stderr.write(text.getvalue())
        raise


# ---- NumPy and HDP without pruning, against PyTorch --------------------------------------------


def pytorch(model: Path) -> Callable[[Arrays], Array]:
    """The model in PyTorch, as `last_hidden_state` float32 (B, S, d) of its inputs."""
    cast(Any, transformers.utils).logging.disable_progress_bar()
    loaded = cast(Any, transformers.BertModel).from_pretrained(model).eval()

    def run(inputs: Arrays) -> Array:
        with torch.no_grad():
            tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}
            return loaded(**tensors)[HIDDEN].numpy()

    return run


def embeddings(hidden: Array, mask: Array) -> Array:
    """Sentence embeddings: the mean over real tokens, float64 (N, d)."""
    weights = mask[..., None].astype(np.float64)
    return (hidden * weights).sum(1) / weights.sum(1)


def cosine(a: Array, b: Array) -> Array:
    """Cosines of the rows of two matrices."""
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def numpy_part(bench: Bench) -> Part:
    """The NumPy program against PyTorch: largest absolute error on unpadded tokens."""
    number = bench.sizes.sentences
    inputs = data.encode(bench.texts(number), LENGTH)
    expected = batched(pytorch(bench.model), inputs, 8)
    real = inputs["attention_mask"].astype(bool)
    rows: list[Row] = []
    for size in (1, 8):
        shapes = next(batches(inputs, size))
        program = NumpyProgram(bench.compiled(f"minilm_{size}.py", shapes))
        hidden = batched(lambda batch, run=program: run(batch)[HIDDEN], inputs, size)
        error = float(np.abs(hidden - expected)[real].max())
        what = f"NumPy program against PyTorch, MiniLM, {number} real sentences, batch {size}"
        rows.append(Row(f"{what}, padded to {LENGTH}", error, "max abs error", 1e-4, "<="))
    return Part(rows)


def hdp_part(bench: Bench) -> Part:
    """The HDP program without pruning: least cosine of a sentence embedding with PyTorch's."""
    inputs = data.encode(bench.texts(bench.sizes.sentences), LENGTH)
    mask = inputs["attention_mask"]
    program = bench.compiled("none_8.hdp", next(batches(inputs, 8)), "--hdp-rule=none")
    hidden = batched(lambda batch: run_hdp(program, batch).outputs[HIDDEN], inputs, 8)
    expected = embeddings(batched(pytorch(bench.model), inputs, 8), mask)
    cosines = cosine(embeddings(hidden, mask), expected)
    what = "HDP program without pruning (--hdp-rule=none), same sentences"
    row = Row(f"{what}, every sentence embedding", float(cosines.min()), "cosine", 0.999, ">=")
    tables: dict[str, Json] = {
        "hdp none, cosine of sentence embeddings": {
            "sentences": len(cosines),
            "least": float(cosines.min()),
            "median": float(np.median(cosines)),
        }
    }
    return Part([row], tables)


def run_hdp(program: Path, inputs: Mapping[str, Array], *, layers: bool = False) -> Run:
    """`hdp-run` without its remarks."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        return programs.run_hdp(program, inputs, layers=layers)


# ---- rule `paper` against the oracle -----------------------------------------------------------


class Agreement(NamedTuple):
    """What a comparison of one setting with the oracle found."""

    identical: int
    sentences: int
    blocks_pruned: float
    heads_pruned: float
    heads_pruned_sentences: int
    first_difference: str


def paper_part(bench: Bench) -> Part:
    """Masks, gates and outputs of every layer against the oracle, bit for bit."""
    number = bench.sizes.paper_sentences
    texts = bench.texts(number)
    entries: list[Json] = []
    identical = 0
    for rho_b, tau_h in itertools.product(RHO_B, TAU_H):
        result = agreement(bench, texts, rho_b, tau_h)
        identical += result.identical
        entries.append({"rho_b": rho_b, "tau_h": tau_h, **result._asdict()})
    settings = len(RHO_B) * len(TAU_H)
    what = (
        f"--hdp-rule=paper at rho_B in {{-0.5, 0, 0.25}}, tau_H on ({TAU_H[1]}) and off, "
        f"{number} real sentences: masks and outputs of every layer bit-identical with the oracle"
    )
    row = Row(what, identical, "sentences x settings", number * settings, ">=")
    return Part([row], {"hdp paper against the oracle": entries})


def agreement(bench: Bench, texts: Sequence[str], rho_b: float, tau_h: float) -> Agreement:
    """Compares the program of one setting with the oracle on all texts."""
    inputs = data.encode(texts, LENGTH)
    shapes = next(batches(inputs, min(8, len(texts))))
    name = f"paper_{rho_b}_{tau_h}.hdp"
    program = bench.compiled(name, shapes, *programs.paper(rho_b, tau_h))
    run = run_hdp(program, inputs, layers=True)
    rule = oracle.Rule("paper", rho_b, tau_h)
    traces, differences = compare(run, inputs, programs.points(program), bench.model, rule)
    blocks, heads, touched = pruned_shares(traces)
    first = next((f"sentence {i}: {d}" for i, d in enumerate(differences) if d), "")
    return Agreement(differences.count(""), len(traces), blocks, heads, touched, first)


def compare(
    run: Run, inputs: Mapping[str, Array], points: Mapping[str, int], model: Path, rule: oracle.Rule
) -> tuple[list[oracle.Trace], list[str]]:
    """
    Runs the oracle on every sentence of a run and compares the two, bit for bit.

    Args:
        run: `hdp-run --layers`.
        inputs: what it was given, each (N, S); padding anywhere.
        points: the binary points of the program.
        model: the folder of the model.
        rule: the rule of the program.

    Returns:
        The oracle's traces, and for each sentence the first difference ("" if there is none).
    """
    encoder = oracle.load(model, points, rule)
    masks = inputs["attention_mask"].astype(bool)
    number, length = inputs["input_ids"].shape
    places = inputs.get("position_ids", np.tile(np.arange(length), (number, 1)))
    types = inputs.get("token_type_ids", np.zeros_like(places))
    traces: list[oracle.Trace] = []
    differences: list[str] = []
    start = 0
    for row, mask in enumerate(masks):
        ids, where, kinds = (x[row][mask].tolist() for x in (inputs["input_ids"], places, types))
        trace = encoder(ids, where, kinds)
        tokens = slice(start, start + len(ids))
        traces.append(trace)
        differences.append(difference(run, row, tokens, mask, trace))
        # The pooler reads position 0: where it is masked, its row follows the tokens'.
        start = tokens.stop + ("pooler_output" in trace.outputs and not mask[0])
    return traces, differences


def difference(run: Run, row: int, tokens: slice, mask: Array, trace: oracle.Trace) -> str:
    """
    The first thing in which a program's run differs from the oracle's; "" if nothing does.

    Args:
        run: `hdp-run` with `--layers`.
        row: the sentence's place in the batch.
        tokens: the sentence's rows in packed tensors.
        mask: the sentence's attention mask, bool (S,).
        trace: the oracle's run of that sentence.
    """
    base = next(name for name in trace.codes if name.endswith("layer.0.attention.self"))
    for index, found in enumerate(trace.attentions):
        name = base.replace("layer.0.", f"layer.{index}.")
        if found.blocks is None or found.heads is None:
            continue
        blocks = np.zeros_like(run.layers[f"mask/{name}"][row])
        number = found.blocks.shape[-1]
        blocks[:, :number, :number] = found.blocks.numpy()
        if not np.array_equal(blocks, run.layers[f"mask/{name}"][row]):
            return f"mask of {name}"
        gate = run.layers.get(f"gate/{name}", np.ones((row + 1, len(blocks)), bool))[row]
        if not np.array_equal(found.heads.numpy(), gate):
            return f"gate of {name}"
    for name, codes in trace.codes.items():
        if "pooler." not in name and name != "classifier":
            rows = tokens
        elif mask[0]:
            rows = slice(row, row + 1)
        else:  # the pooler reads position 0 of the padded tensor, which is no token
            continue
        if not same_codes(run, name, rows, codes):
            return f"codes of {name}"
    hidden = run.outputs[HIDDEN][row]
    if not np.array_equal(hidden[mask], trace.outputs[HIDDEN].numpy()) or hidden[~mask].any():
        return HIDDEN
    return ""


def same_codes(run: Run, name: str, rows: slice, codes: torch.Tensor) -> bool:
    """
    Whether a run has the oracle's codes of a tensor.

    Queries and keys of rule `paper` leave the PE array as integer and fraction parts.
    """
    if f"codes/{name}.integer" not in run.layers:
        return np.array_equal(run.layers[f"codes/{name}"][rows], codes.numpy())
    point = int(run.layers[f"point/{name}.fraction"])
    parts = zip(("integer", "fraction"), oracle.integer_fraction(codes, point))
    return all(
        np.array_equal(run.layers[f"codes/{name}.{part}"][rows], expected.numpy())
        for part, expected in parts
    )


def pruned_shares(traces: Sequence[oracle.Trace]) -> tuple[float, float, int]:
    """Shares of pruned blocks and heads, and the number of sentences with a pruned head."""
    found = [attention for trace in traces for attention in trace.attentions]
    blocks = np.concatenate([a.blocks.numpy().ravel() for a in found if a.blocks is not None])
    heads = np.concatenate([a.heads.numpy() for a in found if a.heads is not None])
    touched = sum(
        any(a.heads is not None and not bool(a.heads.all()) for a in trace.attentions)
        for trace in traces
    )
    return 1 - float(blocks.mean()), 1 - float(heads.mean()), touched


# ---- padding -----------------------------------------------------------------------------------


def padding_part(bench: Bench) -> Part:
    """A sentence in a program of its own length against padded ones, on three sides."""
    number = bench.sizes.padding_sentences
    texts = distinct_lengths(bench.texts(200), number)
    identical, cases, error = 0, 0, 0.0
    extra: dict[str, int] = dict.fromkeys((*programs.CORE_ENGINES, "dma", "host"), 0)
    for text in texts:
        length = len(data.token_ids([text], LENGTH)[0])
        inputs = data.encode([text], length, positions=True)
        hdp = run_hdp(padding_program(bench, inputs, "hdp"), inputs)
        plain = NumpyProgram(padding_program(bench, inputs, "py"))(inputs)[HIDDEN]
        for side in SIDES:
            padded = data.encode([text], LENGTH, side, positions=True)
            real = padded["attention_mask"][0].astype(bool)
            run = run_hdp(padding_program(bench, padded, "hdp"), padded)
            found = NumpyProgram(padding_program(bench, padded, "py"))(padded)[HIDDEN]
            cases += 1
            hidden = run.outputs[HIDDEN][0]
            same = np.array_equal(hidden[real], hdp.outputs[HIDDEN][0])
            identical += same and not hidden[~real].any()
            error = max(error, float(np.abs(found[0][real] - plain[0]).max()))
            for engine in extra:
                extra[engine] = max(extra[engine], abs(run.busy(engine) - hdp.busy(engine)))
    what = f"padded (left, right, both) against unpadded, {len(texts)} sentences in {LENGTH} tokens"
    rows = [
        Row(f"{what}: HDP bit-identical", identical, "cases", cases, ">="),
        Row(f"{what}: NumPy", error, "max abs difference", 1e-5, "<="),
        Row(
            f"{what}: padding costs no cycles in attention or linears",
            max(extra[engine] for engine in programs.CORE_ENGINES), "busy cycles more [modelled]", 0, "<=",
        ),
    ]  # fmt: skip
    return Part(rows, {"padding, largest difference of busy cycles [modelled]": dict(extra)})


def padding_program(bench: Bench, inputs: Mapping[str, Array], kind: Literal["hdp", "py"]) -> Path:
    """The program of rule `paper` (HDP) or of no pruning (NumPy) for inputs of this length."""
    options = programs.paper(0.0, TAU_H[1]) if kind == "hdp" else ()
    return bench.compiled(f"padding_{inputs['input_ids'].shape[1]}.{kind}", inputs, *options)


def distinct_lengths(texts: Sequence[str], number: int) -> list[str]:
    """Texts whose lengths differ, spread over the lengths that occur."""
    by_length: dict[int, str] = {}
    for text, ids in zip(texts, data.token_ids(texts, LENGTH)):
        by_length.setdefault(len(ids), text)
    lengths = sorted(by_length)
    picks = np.linspace(0, len(lengths) - 1, min(number, len(lengths))).round().astype(int)
    return [by_length[lengths[index]] for index in picks]


# ---- BERT-Base and start-up --------------------------------------------------------------------

WATCHED = """
import json, sys, time
report, module, *arguments = sys.argv[1:]
if module == "import":
    import torch
    code = 0
else:
    import importlib
    try:
        code = importlib.import_module(module).main(arguments)
    except SystemExit as end:
        code = end.code
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
with open(report, "w") as file:
    json.dump({"peak_bytes": peak, "torch": "torch" in sys.modules}, file)
sys.exit(code)
"""
"""Runs a tool's entry point as its command does, and tells what the process needed."""


HEATC_OPT = (sys.executable, "-c", "import sys; from heatc.tools.opt import main; sys.exit(main())")
"""What the installed script `heatc-opt` consists of."""


class Measured(NamedTuple):
    """
    One process: wall time from start to end, peak resident size, whether it has torch, and what it
    wrote to standard error.
    """

    seconds: float
    peak_bytes: int
    torch: bool
    errors: str = ""


def watched(folder: Path, module: str, *arguments: object) -> Measured:
    """Runs a tool (or "import", which only imports torch) in a process of its own."""
    answer = folder / "watched.json"
    command = [sys.executable, "-c", WATCHED, str(answer), module, *map(str, arguments)]
    start = time.perf_counter()
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if result.returncode != 0:
        raise programs.CommandError(f"{module} ended with {result.returncode}: {result.stderr}")
    content = json.loads(answer.read_text(encoding="utf-8"))
    return Measured(seconds, content["peak_bytes"], content["torch"], result.stderr)


def median(folder: Path, repeats: int, module: str, *arguments: object) -> Measured:
    """The medians of several processes, after one that warms the file cache."""
    runs = [watched(folder, module, *arguments) for _ in range(repeats + 1)][1:]
    return Measured(
        statistics.median(run.seconds for run in runs),
        int(statistics.median(run.peak_bytes for run in runs)),
        any(run.torch for run in runs),
    )


def bert_base(folder: Path) -> int:
    """Saves a BERT-Base with random weights; returns the size of its weights in bytes."""
    cast(Any, torch).manual_seed(SEED)
    model: Any = transformers.BertModel(transformers.BertConfig())
    model.save_pretrained(folder)
    return sum(
        value.numel() * 4 for value in model.state_dict().values() if value.is_floating_point()
    )


def bert_base_part(bench: Bench) -> Part:
    """Compile time, compile memory and run time of the BERT-Base shape."""
    model, program = bench.folder / "bert-base", bench.folder / "bert-base.hdp"
    size = bert_base(model)
    repeats = min(3, bench.sizes.repeats)
    shapes = "input_ids=1x128:i64,attention_mask=1x128:i64"
    bare = median(bench.folder, repeats, "import")
    arguments = [model, "-o", program, "--inputs", shapes, "--hdp-rule=paper"]
    compiled = median(bench.folder, repeats, "heatc.tools.main", *arguments, "--no-verify")
    checked = median(bench.folder, repeats, "heatc.tools.main", *arguments)
    generator = np.random.default_rng(SEED)
    inputs = bench.folder / "bert-base.npz"
    ids = generator.integers(1000, 30000, (1, 128))
    np.savez(inputs, input_ids=ids, attention_mask=np.ones((1, 128), np.int64))
    output = bench.folder / "bert-base-out.npz"
    ran = median(
        bench.folder, repeats, "heatc.tools.run", program, "--inputs", inputs, "-o", output
    )
    what = "BERT-Base shape (random weights, 1x128)"
    above = (checked.peak_bytes - bare.peak_bytes) / size
    rows = [
        Row(f"{what}: heatc --no-verify ... -o prog.hdp beyond importing torch",
            compiled.seconds - bare.seconds, "s", 10, "<="),
        Row(f"{what}: heatc's peak memory above torch itself", above, "x fp32 weights", 2, "<="),
        Row(f"{what}: hdp-run", ran.seconds, "s", 10, "<="),
    ]  # fmt: skip
    tables: dict[str, Json] = {
        "bert-base": {
            "weights, MiB": size / 2**20,
            "import torch, s": bare.seconds,
            "import torch, peak MiB": bare.peak_bytes / 2**20,
            "heatc --no-verify, whole command, s": compiled.seconds,
            "heatc, whole command, s": checked.seconds,
            "heatc, peak MiB": checked.peak_bytes / 2**20,
            "program, MiB": program.stat().st_size / 2**20,
            "hdp-run, whole command, s": ran.seconds,
            "hdp-run, peak MiB": ran.peak_bytes / 2**20,
        }
    }
    return Part(rows, tables)


def start_part(bench: Bench) -> Part:
    """How long `heatc-opt --version` takes, and whether it imports torch."""
    seen = watched(bench.folder, "heatc.tools.opt", "--version")
    times: list[float] = []
    for _ in range(bench.sizes.repeats + 1):
        start = time.perf_counter()
        subprocess.run([*HEATC_OPT, "--version"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    rows = [
        Row("heatc-opt --version", statistics.median(times[1:]), "s", 0.3, "<="),
        Row("heatc-opt --version imports no torch", int(not seen.torch), "yes = 1", 1, ">="),
    ]
    tables: dict[str, Json] = {
        "heatc-opt --version, s": {"least": min(times), "all": sorted(times)}
    }
    return Part(rows, tables)


# ---- the command -------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Bench], Part]] = {
    "numpy": numpy_part,
    "hdp": hdp_part,
    "paper": paper_part,
    "padding": padding_part,
    "bert-base": bert_base_part,
    "start": start_part,
}


def main(arguments: Sequence[str]) -> int:
    """Runs the parts asked for; 0 if every row of them holds."""
    parser = argparse.ArgumentParser(description="the main job on the real model, measured")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="one part alone")
    parser.add_argument("--quick", action="store_true", help="few sentences")
    parser.add_argument(
        "-o", "--output", type=Path, help="the result file; default for a whole run only"
    )
    options = parser.parse_args(arguments)
    whole = not options.only and not options.quick
    output = options.output or (report.RESULTS / "main_job.json" if whole else None)
    console = Console(stderr=True)
    total = Part([])
    with tempfile.TemporaryDirectory(prefix="heatc-main-job-") as folder:
        try:
            bench = Bench(QUICK if options.quick else FULL, Path(folder))
            for name in options.only or PARTS:
                start = time.perf_counter()
                part = PARTS[name](bench)
                total.rows += part.rows
                total.tables |= part.tables
                found = ", ".join(report.number(row.measured) for row in part.rows)
                console.print(f"{name}: {found} ({time.perf_counter() - start:.0f} s)")
        except (data.MissingError, programs.CommandError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    report.show(total.rows)
    if output is not None:
        command = " ".join(["python bench/main_job.py", *arguments])
        report.write(output, total.rows, total.tables, report.provenance(command, SEED))
    return int(not all(row.holds for row in total.rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
