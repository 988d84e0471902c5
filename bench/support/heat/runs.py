"""
The runs behind bench/heat_front.py: searches, distillations, predictions, costs.

Each is kept in the user's cache folder under a key of its content (plan, recipe, text, model,
options), so that a bench that was interrupted goes on, and two figures of one plan are of one
training. What a claim rests on is what compiled programs say, never the training's own figures.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.support import programs, report, sources
from bench.support.data import teacher
from bench.support.data import texts as data
from bench.support.heat.families import Layers
from bench.support.machine import hdp_machine
from bench.support.programs import NumpyProgram
from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.container import Program
from heatc.backends.hdp.debug import attentions
from heatc.backends.hdp.masks import LENGTHS
from heatc.backends.hdp.simulation import Simulation, simulate_timing
from heatc.hardware import Hardware
from heatc.machine.energy import energy_report
from heatc.plan import SCHEMA

LENGTH = 64
BATCH = 50
"""Sentences of a batch of the NumPy program"""
PASSES = 2
"""Times that a set is run through a NumPy program"""
TOGETHER = 16
"""Sentences of a pass of the HDP program"""
SEED = 0
ALL = "all sentences"
"""Of every judged set together: what a point loses is known best on the most sentences."""

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


class JudgedSet(NamedTuple):
    """Sentences with labels, by name."""

    name: str
    labels: Labels
    rows: list[list[int]]


@dataclass(frozen=True)
class Budget:
    """
    How long a distillation trains, and on what beside the task's 8,066 sentences.

    `extra` is how many sentences of each other domain at most; epochs and rates are of both stages.
    Features alone are what brings most in so many epochs (docs/design/distillation.md).
    """

    epochs: str = "4+0"
    rates: str = "2e-3,1e-4"
    extra: int = 1000
    seed: int = SEED


FRONT = Budget()
"""Of every point of every front."""


def model() -> Path:
    """The fine-tuned MiniLM."""
    return teacher.teacher(teacher.SENTIMENT)


def config() -> dict[str, Any]:
    """The model's config.json."""
    return json.loads((model() / "config.json").read_text(encoding="utf-8"))


def folder(kind: str, *parts: object) -> Path:
    """Where a run of this content is kept."""
    text = "\n".join([model().name, *(str(part) for part in parts)])
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    return data.cache_folder().parent / "heat_front" / kind / key


def say(text: str) -> None:
    """To people, not to files."""
    print(text, file=sys.stderr, flush=True)


# ---- text --------------------------------------------------------------------------------------


@cache
def judged() -> dict[str, JudgedSet]:
    """The sets that figures are reported on; without npm there is no text out of domain."""
    snippets = {"test": list(data.labelled("test"))}
    try:
        parts = data.out_of_domain().values()
        snippets["out of domain"] = [snippet for part in parts for snippet in part]
    except data.MissingError as error:
        say(f"no out-of-domain rows: {error}")
    return {name: _judged(name, found) for name, found in snippets.items()}


@cache
def dev() -> JudgedSet:
    """What points are chosen on."""
    return _judged("dev", list(data.labelled("dev")))


def _judged(name: str, snippets: Sequence[data.Snippet]) -> JudgedSet:
    labels = np.array([snippet.label for snippet in snippets], np.int64)
    return JudgedSet(name, labels, data.token_ids([s.text for s in snippets], LENGTH))


def texts(extra: int, into: Path) -> list[str]:
    """Writes the text of a training; the options of `heatc-tune distill` that name it."""
    into.mkdir(parents=True, exist_ok=True)

    def write(name: str, texts: Sequence[str], labels: Labels | None = None) -> str:
        path = into / f"{name}.npz"
        arrays: dict[str, Any] = dict(data.encode(texts, LENGTH))
        if labels is not None:
            arrays["labels"] = labels
        np.savez(path, **arrays)
        return str(path)

    def split(name: data.Split) -> str:
        found = data.labelled(name)
        labels = np.array([s.label for s in found], np.int64)
        return write(name, [s.text for s in found], labels)

    options = ["--data", split("train"), "--dev", split("dev")]
    for name, texts in data.unlabelled().items() if extra else ():
        options += ["--extra", write(name, texts[:extra])]
    return options


# ---- commands ----------------------------------------------------------------------------------


def tune(command: str, *options: object, threads: int = 0) -> float:
    """
    Runs `heatc-tune COMMAND` on so many threads, 0 for all; returns its seconds.

    Raises `CommandError`.
    """
    words = [sys.executable, "-m", "heatc.tools.tune", command, *map(str, options)]
    own = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    began = time.monotonic()
    result = subprocess.run(
        words, check=False, capture_output=True, text=True, cwd=report.ROOT, env=os.environ | own
    )
    if result.returncode:
        raise programs.CommandError(f"heatc-tune ended with {result.returncode}: {result.stderr}")
    return time.monotonic() - began


class Trained(NamedTuple):
    """A plan with its factors, what its training cost, and where it was."""

    plan: Path
    seconds: float
    report: dict[str, Any]


def teacher_folder() -> Path:
    """What the teacher gave for the texts of trainings: 3 GB for those of a front."""
    return data.cache_folder().parent / "heat_front" / "teacher"


def train_all(points: Sequence[tuple[Layers | str, Budget]]) -> None:
    """
    Trains what is not there yet, as many at once as there are cores, on one thread each.

    Two threads make a step 1.4 times faster, two students side by side twice as many steps.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda point: trained(*point, threads=1), points))


def trained(what: Layers | str, budget: Budget = FRONT, threads: int = 0) -> Trained:
    """
    The plan of these layers, or of these words of `--heat`, after a distillation.

    A run that was interrupted goes on. Paths and fusion are the compiler's to choose, and no part
    of the key.
    """
    bare = what if isinstance(what, str) else _bare(what)
    text = bare if isinstance(bare, str) else json.dumps(bare, sort_keys=True)
    place = folder("trained", text, json.dumps(asdict(budget)))
    plan, meta = place / "plan.json", place / "seconds.json"
    if not meta.is_file():
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(bare, str):
            start: list[object] = ["--heat", bare]
        else:
            write_plan(place / "untrained.json", bare)
            start = ["--plan", place / "untrained.json"]
        _distil(place, start, budget, threads)
    found = json.loads(plan.with_suffix(".report.json").read_text(encoding="utf-8"))
    seconds = json.loads(meta.read_text(encoding="utf-8"))["seconds"]
    # Of a run that was interrupted the command's own time is that of the last part.
    return Trained(plan, max(seconds, found.get("seconds", 0.0)), found)


def _bare(layers: Layers) -> Layers:
    return {
        path: {"heat": {k: v for k, v in one["heat"].items() if k not in ("path", "fuse")}}
        for path, one in layers.items()
    }


def with_layers(base: Path, more: Layers) -> Path:
    """A plan with its factors and more to its layers."""
    content = json.loads(base.read_text(encoding="utf-8"))
    place = folder("with layers", json.dumps(content), json.dumps(more))
    place.mkdir(parents=True, exist_ok=True)
    factors = content["factors"]["file"]
    shutil.copy(base.parent / factors, place / factors)
    keep(place / "plan.json", {**content, "layers": {**content["layers"], **more}})
    return place / "plan.json"


def trained_on(base: Path, more: Layers, budget: Budget) -> Path:
    """A trained plan with more to its layers (rules), its factors trained on under them."""
    content = json.loads(base.read_text(encoding="utf-8"))
    place = folder("trained on", json.dumps(content), json.dumps(more), json.dumps(asdict(budget)))
    plan, meta = place / "plan.json", place / "seconds.json"
    if meta.is_file():
        return plan
    place.mkdir(parents=True, exist_ok=True)
    _distil(place, ["--plan", with_layers(base, more)], budget)
    return plan


def calibrated(
    base: Path, hw: str, goal: str, tokens: int, texts: int, *words: str
) -> dict[str, Any]:
    """
    The report of `heatc-tune calibrate --plan BASE`, and its `layers` as the plan has them.

    On so many texts of so many tokens, dev sentences one behind the other, without labels.
    """
    used = sources.digest("heatc.tools.tune")
    place = folder(
        "calibrated", base.read_text(encoding="utf-8"), hw, goal, tokens, texts, words, used
    )
    plan = place / "plan.json"
    if not plan.is_file():
        place.mkdir(parents=True, exist_ok=True)
        rows = joined(dev().rows, tokens)[:texts]
        np.savez(place / "text.npz", **hdp_machine.padded(rows, tokens))  # pyright: ignore[reportArgumentType]
        options = ["--plan", base, "--data", place / "text.npz", "--goal", goal, "--hw", hw, *words]
        seconds = tune(
            "calibrate", model(), *options, "-o", plan, "--work-dir", place / "work", "-q"
        )
        say(f"calibrated {plan} in {seconds:.0f} s")
    report = json.loads(plan.with_suffix(".report.json").read_text(encoding="utf-8"))
    return {**report, "plan": plan_layers(plan)}


def _distil(place: Path, start: Sequence[object], budget: Budget, threads: int = 0) -> None:
    """Leaves plan.json and seconds.json in the folder; `start` says what is trained."""
    plan = place / "plan.json"
    with tempfile.TemporaryDirectory(prefix="heatc-bench-") as name:
        options = [*start, *texts(budget.extra, Path(name)), "--epochs", budget.epochs, "-o", plan]
        options += ["--rates", budget.rates, "--seed", budget.seed, "--quiet"]
        options += ["--keep-teacher", teacher_folder(), "--work-dir", place / "work"]
        seconds = tune("distill", model(), *options, threads=threads)
    meta = {"seconds": seconds, "threads": threads, "load": os.getloadavg()[1]}
    keep(place / "seconds.json", meta)
    shutil.rmtree(place / "work", ignore_errors=True)
    say(f"distilled {plan} in {seconds:.0f} s")


def untrained(layers: Layers) -> Path:
    """The plan of these layers, whose factors the compiler makes."""
    path = folder("untrained", json.dumps(layers, sort_keys=True)) / "plan.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_plan(path, layers)
    return path


def write_plan(path: Path, layers: Mapping[str, Any]) -> None:
    """A plan.json of layers alone."""
    plan = {
        "schema": SCHEMA,
        "model_sha256": None,
        "hw_sha256": None,
        "seed": SEED,
        "layers": layers,
    }
    keep(path, plan)


def keep(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a small JSON file, whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def plan_layers(path: Path) -> Layers:
    """The layers of a plan.json."""
    return json.loads(path.read_text(encoding="utf-8"))["layers"]


# ---- programs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """
    How a model is compiled: a plan or None for the dense model, and further options of `heatc`.

    Attention is dense unless the plan prunes it. Where a plan brings no factors they are decomposed on training text.
    """

    plan: Path | None = None
    options: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The options of the command."""
        if self.plan is None:
            return ["--hdp-rule", "none", *self.options]
        content = json.loads(self.plan.read_text(encoding="utf-8"))
        given = ["--plan", str(self.plan), *self.options]
        factorises = any("heat" in one for one in content["layers"].values())
        if factorises and not content.get("factors") and "--calibrate" not in given:
            given += ["--calibrate", str(_calibration())]
        return given

    def key(self) -> str:
        """What the program depends on beside the compiler."""
        plan = "" if self.plan is None else self.plan.read_text(encoding="utf-8")
        return plan + repr(self.options)


def decomposed(words: str) -> Form:
    """The model factorised as these words of `--heat` say, and not trained."""
    return Form(options=("--heat", words, "--calibrate", str(_calibration())))


@cache
def _calibration() -> Path:
    """Training text for factors that no plan brings."""
    path = folder("text", "calibration") / "train.npz"
    write_text(path, 512)
    return path


def write_text(path: Path, count: int) -> None:
    """The inputs of so many training sentences."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **data.encode(data.sentences("train", count), LENGTH))  # pyright: ignore[reportArgumentType]


def program(form: Form, suffix: str, batch: int, length: int) -> Path:
    """The compiled program, kept by its content and the compiler's sources."""
    place = folder("programs", form.key(), suffix, batch, length, _compiler())
    path = place / f"model{suffix}"
    if not path.is_file():
        place.mkdir(parents=True, exist_ok=True)
        inputs = {name: np.zeros((batch, length), np.int64) for name in INPUTS}
        programs.compile_model(model(), path, inputs, *form.words())
    return path


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@cache
def _compiler() -> str:
    """A digest of all that compiles, so that no program of an older compiler is taken."""
    return sources.digest("heatc.tools.main")


# ---- accuracy ----------------------------------------------------------------------------------


class Answers(NamedTuple):
    """Predicted classes of a set, and the seconds they took (warm, loading apart)."""

    classes: Labels
    seconds: float


def by_numpy(form: Form, judged_on: JudgedSet) -> Answers:
    """What the NumPy program answers, in batches of 50 padded to 64."""
    path = program(Form(form.plan, (*form.options, "--target", "numpy")), ".py", BATCH, LENGTH)
    kept = path.with_name(f"{judged_on.name}.npz")
    if not kept.is_file():
        run = NumpyProgram(path)
        inputs = hdp_machine.padded(judged_on.rows, LENGTH)
        parts: list[npt.NDArray[np.floating[Any]]] = []
        seconds = math.inf
        # The first pass also grows the program's buffers: the faster one counts.
        for _ in range(PASSES):
            began = time.perf_counter()
            parts = [
                run({name: array[i : i + BATCH] for name, array in inputs.items()})["logits"]
                for i in range(0, len(judged_on.rows), BATCH)
            ]
            seconds = min(seconds, time.perf_counter() - began)
        np.savez(kept, classes=np.concatenate(parts).argmax(-1), seconds=seconds)
    with np.load(kept) as found:
        return Answers(found["classes"], float(found["seconds"]))


def by_hdp(form: Form, hw: str, judged_on: JudgedSet) -> Answers:
    """What `hdp-run` answers."""
    path = program(Form(form.plan, (*form.options, "--hw", hw)), ".hdp", TOGETHER, LENGTH)
    place = folder("predictions", path.parent.name)
    logits, seconds = hdp_machine.predict(path, judged_on.rows, LENGTH, place)
    return Answers(logits.argmax(-1), seconds)


class Compared(NamedTuple):
    """Against the dense program of the same kind, in percent and points, paired; 95 % interval."""

    accuracy: float
    lost: float
    low: float
    high: float
    changed: float


def compare(found: Labels, dense: Labels, labels: Labels) -> Compared:
    """How answers differ from the dense program's."""
    before, after = dense == labels, found == labels
    lost = 100.0 * (before.astype(float) - after.astype(float))
    half = 1.96 * float(lost.std(ddof=1)) / len(lost) ** 0.5
    mean = float(lost.mean())
    changed = 100.0 * float((found != dense).mean())
    return Compared(100.0 * float(after.mean()), mean, mean - half, mean + half, changed)


def accuracy(form: Form, judged_on: JudgedSet) -> Compared:
    """Of the NumPy program."""
    found, dense = (by_numpy(f, judged_on).classes for f in (form, Form()))
    return compare(found, dense, judged_on.labels)


def accuracy_on_all(form: Form) -> Compared:
    """Of the NumPy program, on the sentences of all judged sets as one set."""
    sets = judged().values()
    found, dense = (np.concatenate([by_numpy(f, s).classes for s in sets]) for f in (form, Form()))
    return compare(found, dense, np.concatenate([s.labels for s in sets]))


def right(form: Form, set_name: str) -> npt.NDArray[np.bool_]:
    """Which sentences of a judged set, or of all of them, the NumPy program has right."""
    sets = [s for name, s in judged().items() if set_name in (name, ALL)]
    return np.concatenate([by_numpy(form, s).classes == s.labels for s in sets])


# ---- costs (modelled) --------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Modelled, a sentence on average: cycles, seconds, joules, energy x time, busy cycles."""

    cycles: float
    seconds: float
    joules: float
    edp: float
    macs: float
    dram_bytes: float
    busy: dict[str, float] = field(hash=False)
    joules_of: dict[str, float] = field(hash=False)

    @property
    def cycle(self) -> float:
        """Seconds of a cycle."""
        return self.seconds / self.cycles

    @property
    def regime(self) -> str:
        """What is busy for most of the time: memory, compute (of the busiest kind) or host."""
        return max(self.busy, key=lambda engine: self.busy[engine])


def lengths_of(judged_on: JudgedSet) -> dict[int, int]:
    """How many sentences have each number of tokens."""
    return dict(sorted(Counter(len(row) for row in judged_on.rows).items()))


def cost(
    form: Form, hw: str, lengths: Mapping[int, int], rows: Sequence[list[int]], room: int,
    hardware: Hardware | None = None,
) -> Cost:  # fmt: skip
    """
    What sentences cost, by the simulator.

    Args:
        form: dense attention costs the same for all sentences of a length; with a pruning rule
            the sentences decide, see `rows`.
        hw: what it is compiled for.
        lengths: tokens of a sentence to how many sentences have them.
        rows: the sentence that stands for those of its length, by `len`; cut or repeated
            otherwise.
        room: tokens that the program has room for.
        hardware: what it runs on, if other than `hw`.
    """
    path = program(Form(form.plan, (*form.options, "--hw", hw)), ".hdp", 1, room)
    opened = open_program(path)
    by_length = {len(row): row for row in rows}
    found: list[tuple[int, Cost]] = []
    for tokens, count in lengths.items():
        row = by_length.get(tokens) or joined(rows, tokens)[0]
        run = _run(opened, row, room, hardware)
        target = hardware or opened.manifest.hardware
        energy = energy_report(run.results, target)
        cores = target.cores
        busy = {
            engine: float(values.sum()) / (cores if engine in programs.CORE_ENGINES else 1)
            for engine, values in run.result.busy.items()
            if engine != "control"
        }
        result = run.result
        moved = result.dram_bytes_read + result.dram_bytes_written
        joules_of = {unit: energy.unit_joules(unit) for unit in energy.dynamic_joules}
        one = Cost(
            result.cycles, energy.seconds, energy.joules, energy.delay_product, result.macs, moved,
            busy, joules_of,
        )  # fmt: skip
        found.append((count, one))
    return _mean(found)


def _run(opened: Program, row: list[int], room: int, hardware: Hardware | None) -> Simulation:
    """A sentence's run; without a rule its length alone decides, and no values are computed."""
    if any(one.mask_pcs or one.gate_pcs for one in attentions(opened.debug).values()):
        return simulate(opened, hdp_machine.padded([row], room), hardware)
    return simulate_timing(opened, {LENGTHS: np.array([len(row)], np.int64)}, hardware)


def joined(rows: Sequence[list[int]], tokens: int) -> list[list[int]]:
    """Real sentences one behind the other, cut into texts of so many tokens; a short rest is left out."""
    first, last, step = rows[0][0], rows[0][-1], tokens - 2
    words = [token for row in rows for token in row[1:-1]]
    starts = range(0, max(1, len(words) - step + 1), step)
    return [[first, *words[at : at + step], last] for at in starts]


def _mean(found: Sequence[tuple[int, Cost]]) -> Cost:
    whole = sum(count for count, _ in found)

    def mean(values: Sequence[float]) -> float:
        return sum(count * value for (count, _), value in zip(found, values)) / whole

    def each(name: str) -> dict[str, float]:
        dicts: list[dict[str, float]] = [getattr(one, name) for _, one in found]
        return {key: mean([d[key] for d in dicts]) for key in dicts[0]}

    plain = ("cycles", "seconds", "joules", "edp", "macs", "dram_bytes")
    numbers = {name: mean([getattr(one, name) for _, one in found]) for name in plain}
    return Cost(**numbers, busy=each("busy"), joules_of=each("joules_of"))
