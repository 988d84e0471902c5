"""
The house as numbers: what programs are, what they cost, and how large the sources are.

    python bench/house.py programs --root . -o build/before.json      what a checkout compiles
    python bench/house.py compare build/before.json build/after.json  whether two are the same
    python bench/house.py sources --root .                            lines, repetitions, imports
    python bench/house.py times --before CHECKOUT --after .           how long both take, in turns
    python bench/house.py all --before CHECKOUT                       all of it, for the result file

A rebuilding of the compiler must not change what it makes. `programs` compiles models by targets,
rules, formats and lengths through the documented commands, and keeps hashes of words, weights and
outputs, modelled cycles, joules and bytes. `--root` is the checkout whose heatc is measured. `times`
alternates between two checkouts, each command in a process of its own; run it alone on the machine.
`all` writes bench/results/house.json; parts that are not asked for stay as they are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console

from bench.support import parts, programs, report
from bench.support.data import texts as data
from bench.support.house import lines, times
from bench.support.parts import Part
from bench.support.programs import Arrays, NumpyProgram
from bench.support.report import Json, Row

PRESETS = ("hdp-edge", "hdp-server", "hdp-edge-vector", "hdp-server-vector")
RULES = {
    "paper": ("--hdp-rule=paper", "--rho-b=0.1", "--tau-h=1.3"),
    "paper neginf": ("--hdp-rule=paper", "--rho-b=0.25", "--pruned-score=neginf"),
    "ours": ("--hdp-rule=ours", "--tau-h=1.1"),
    "topk": ("--hdp-rule=topk", "--density=0.3"),
    "energon": ("--hdp-rule=energon",),
    "sanger": ("--hdp-rule=sanger",),
    "spatten": ("--hdp-rule=spatten", "--ratio=0.5"),
}
FORMATS = ("low-rank", "tucker", "cp", "tt", "ttm")
ROUNDING = 1e-12
"""Sums of joules may differ so much, relative; everything else is equal or not."""


@dataclass(frozen=True)
class Case:
    """A model compiled for a target with some options, and run on a batch."""

    model: str
    target: str
    batch: int
    length: int
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The case in a line."""
        return " ".join((self.model, f"{self.batch}x{self.length}", self.target, *self.options))


def cases() -> Iterator[Case]:
    """All of them: models by targets, rules, formats and lengths."""
    for target in (*PRESETS, "numpy"):
        yield Case("bert", target, 2, 8)
        yield Case("bert", target, 2, 40)
    for options in RULES.values():
        yield Case("bert", "hdp-edge", 2, 24, options)
        yield Case("bert", "hdp-edge", 1, 40, options)
        yield Case("bert", "hdp-server-vector", 2, 40, options)
    for name in FORMATS:
        for target in ("hdp-edge", "hdp-server-vector", "numpy"):
            yield Case("bert", target, 2, 40, (f"--heat={name},ratio=0.5,init=plain",))
    for options in ((), RULES["ours"], RULES["spatten"], ("--padding=compute",)):
        yield Case("classifier", "hdp-edge", 3, 20, options)
    yield Case("classifier", "numpy", 3, 20)
    yield Case("classifier", "numpy", 3, 20, ("--padding=compute",))
    for length in (16, 128):
        for target in (*PRESETS, "numpy"):
            yield Case("minilm", target, 1, length)
        yield Case("minilm", "hdp-edge", 1, length, RULES["ours"])
    for name in ("low-rank", "ttm"):
        yield Case("minilm", "hdp-edge-vector", 1, 128, (f"--heat={name},ratio=0.5,init=plain",))


def model_folders(folder: Path) -> dict[str, Path]:
    """MiniLM, and two small encoders with random weights."""
    import torch
    import transformers

    torch.manual_seed(5)
    config: Any = cast(Any, transformers.BertConfig)(
        vocab_size=90,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=160,
        max_position_embeddings=64,
        initializer_range=0.2,
        num_labels=3,
    )
    made = {
        "bert": transformers.BertModel(config),
        "classifier": transformers.BertForSequenceClassification(config),
    }
    for name, model in made.items():
        model.eval().save_pretrained(folder / name)
    return {"minilm": data.model_folder(), **{name: folder / name for name in made}}


def inputs_of(case: Case) -> Arrays:
    """Random ids; rows are padded on the right, on the left, and with a hole, in turn."""
    rng = np.random.default_rng(case.batch * 1000 + case.length)
    size = (case.batch, case.length)
    mask = np.ones(size, np.int64)
    quarter = case.length // 4
    for row in range(case.batch):
        mask[row, slice(-quarter, None) if row % 2 == 0 else slice(0, quarter)] = 0
    if case.batch > 2:
        mask[2] = 1
        mask[2, quarter : 2 * quarter] = 0
    ids = rng.integers(0, 90, size)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def measured(case: Case, model: Path, folder: Path) -> dict[str, Any]:
    """What the case's program is, and what it gives and costs."""
    inputs = inputs_of(case)
    output = folder / ("prog.py" if case.target == "numpy" else "prog.hdp")
    options = [f"--target={case.target}", *case.options]
    programs.compile_model(model, output, inputs, *options)
    if case.target == "numpy":
        outputs = NumpyProgram(output)(inputs)
        weights = output.with_suffix(".safetensors")
        return {"source": digest(output.read_bytes()), "weights": digest(weights.read_bytes())} | {
            "outputs": digest_of(outputs)
        }
    run = programs.run_hdp(output, inputs)
    with zipfile.ZipFile(output) as archive:
        parts = {name: digest(archive.read(name)) for name in archive.namelist()}
    modelled = run.stats["modelled"]
    numbers = {k: v for k, v in modelled.items() if isinstance(v, int | float)}
    parts.pop("manifest.json")
    return {**parts, "points": points(output), **numbers, "outputs": digest_of(run.outputs)}


def points(program: Path) -> str:
    """The binary points that the compiler chose."""
    return digest(json.dumps(programs.points(program), sort_keys=True).encode())


def digest(content: bytes) -> str:
    """The first 16 digits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def digest_of(arrays: Mapping[str, Any]) -> str:
    """Of all values and shapes, in the order of their names."""
    text = b"".join(
        f"{name} {value.shape} {value.dtype}".encode() + np.ascontiguousarray(value).tobytes()
        for name, value in sorted(arrays.items())
    )
    return digest(text)


def use(root: Path) -> None:
    """Imports heatc from a checkout."""
    sys.path.insert(0, str(root))
    import heatc

    assert Path(heatc.__file__).is_relative_to(root), f"{heatc.__file__} is not of {root}"


def record(root: Path, only: str) -> dict[str, Any]:
    """All cases of a checkout."""
    console, found = Console(stderr=True), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="heatc-house-") as name:
        folder = Path(name)
        models = model_folders(folder)
        for case in cases():
            if only in case.name:
                found[case.name] = measured(case, models[case.model], folder)
                console.print(case.name, highlight=False)
    return {"cases": found, "commit": report.commit(root)}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What is not the same, a line each."""
    for name in {**before, **after}:
        known, found = before.get(name), after.get(name)
        if known is None or found is None:
            yield f"{name}: only {'after' if known is None else 'before'}"
            continue
        for key in {**known, **found}:
            if not same(known.get(key), found.get(key)):
                yield f"{name}: {key} was {known.get(key)}, is {found.get(key)}"


def same(known: Any, found: Any) -> bool:
    """Equal, but for the last digits of sums."""
    if isinstance(known, float) and isinstance(found, float):
        return abs(known - found) <= ROUNDING * max(abs(known), abs(found))
    return known == found


# ---- the result file --------------------------------------------------------------------------

RESULT = report.RESULTS / "house.json"
CASES = 60
"""Programs that are compared, at the least."""
SLOWER = 1.05
"""How much longer the rebuilt compiler may take."""
PARTS = ("programs", "sources", "imports", "times")
MODELS = ("minilm", "bert-base")


def programs_part(before: Path, only: str) -> Part:
    """Both checkouts compile all cases, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="heatc-house-") as name:
        known, found = (
            _recorded(root, only, Path(name) / f"{number}.json")
            for number, root in enumerate((before, report.ROOT))
        )
    unlike = list(differences(known["cases"], found["cases"]))
    rows = [
        Row(
            "programs compared: models, targets, rules, formats",
            len(found["cases"]),
            "programs",
            CASES,
            ">=",
        ),
        Row(
            "differences in words, weights, outputs, cycles, joules or bytes",
            len(unlike),
            "figures",
            0,
            "<=",
        ),
    ]
    commits = {"before": known["commit"], "after": found["commit"]}
    return Part(rows, {"programs: differences": unlike, "programs: commits": commits})


def _recorded(root: Path, only: str, output: Path) -> dict[str, Any]:
    words = ["programs", "--root", str(root), "--only", only, "-o", str(output)]
    subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.DEVNULL)
    return json.loads(output.read_text(encoding="utf-8"))


def sizes_of(root: Path) -> dict[str, int]:
    """Lines by folder, large files, and places that repeat another one."""
    files = lines.sources(root)
    count = sum(lines.lines_of(files, folder) for folder in lines.FOLDERS)
    found = {f"lines under {', '.join(f'{folder}/' for folder in lines.FOLDERS)}": count}
    found[f"files of more than {lines.LARGE} lines"] = len(lines.large(files))
    found[f"pairs of places that share {lines.SHARED} equal lines or more"] = len(
        lines.pairs(files)
    )
    return found


def sources_part(before: Path) -> Part:
    """The sources now: large files and repeated places are no more than before. Lines are told alone."""
    known, found = sizes_of(before), sizes_of(report.ROOT)
    judged = [what for what in found if not what.startswith("lines")]
    rows = [Row(what, found[what], _unit(what), known[what], "<=") for what in judged]
    tables: dict[str, Json] = {}
    for name, root in (("before", before), ("after", report.ROOT)):
        files = lines.sources(root)
        tables[f"sources: lines {name}"] = {f: lines.lines_of(files, f) for f in lines.FOLDERS}
        tables[f"sources: large files {name}"] = lines.large(files)
        tables[f"sources: pairs {name}"] = [
            f"{one}:{at} {other}:{there} ({count} lines)"
            for (one, at), (other, there), count in lines.pairs(files)
        ]
    return Part(rows, tables)


def _unit(what: str) -> str:
    return what.partition(" ")[0]


def imports_of(root: Path) -> dict[str, Any]:
    """A checkout's circular imports and modules without a layer, in a process of its own."""
    script = report.ROOT / "bench" / "support" / "house" / "imports.py"
    command = [sys.executable, str(script), str(root.resolve())]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return json.loads(run.stdout)


def imports_part(before: Path) -> Part:
    """Circles of imports, and modules that no layer of the contract has."""
    known, found = imports_of(before), imports_of(report.ROOT)
    rows = [
        Row("circular imports", len(found["circles"]), "circles", 0, "<="),
        Row("modules outside the layer contract", len(found["outside"]), "modules", 0, "<="),
    ]
    return Part(rows, {"imports: before": known, "imports: after": found})


def times_part(before: Path, after: Path, models: Sequence[str], rounds: int) -> Part:
    """Compile time and `hdp-run --model=timing` of two checkouts in turns."""
    rows: list[Row] = []
    tables: dict[str, Json] = {}
    with tempfile.TemporaryDirectory(prefix="heatc-house-") as name:
        folder = Path(name)
        for model in models:
            path = data.model_folder() if model == "minilm" else times.bert_base(folder / model)
            inputs = inputs_of(Case(model, times.TARGET, 1, times.LENGTH))
            found = times.compared((before, after), path, inputs, folder, rounds)
            for what, pair in found.items():
                text = f"{what}, {model} 1x{times.LENGTH}, {times.TARGET}: medians after / before"
                rows.append(Row(text, pair.ratio, "x its time", SLOWER, "<="))
                tables[f"times: {model}: {what}"] = pair.table()
    return Part(rows, tables)


def everything(args: argparse.Namespace) -> int:
    """The parts that are asked for, as a table and in the result file."""
    calls = {
        "programs": lambda: programs_part(args.before, args.only),
        "sources": lambda: sources_part(args.before),
        "imports": lambda: imports_part(args.before),
        "times": lambda: times_part(args.before, report.ROOT, args.models, args.rounds),
    }
    found = parts.run({name: calls[name] for name in args.parts})
    report.show([row for part in found.values() for row in part.rows])
    command = f"python bench/house.py all --before CHECKOUT --parts {','.join(args.parts)}"
    origin = {**report.provenance(command, times.SEED), "before": report.commit(args.before)}
    parts.merge(args.output, found, PARTS, origin)
    return 0


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Reads some of these names, with commas between."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return found

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("programs")
    one.add_argument("--root", type=Path, default=report.ROOT, help="a checkout of heatc")
    one.add_argument("--only", default="", help="cases whose name has this text")
    one.add_argument("-o", dest="output", type=Path, required=True)
    two = commands.add_parser("compare")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    three = commands.add_parser("sources")
    three.add_argument("--root", type=Path, default=report.ROOT, help="a checkout of heatc")
    for name in ("times", "all"):
        added = commands.add_parser(name)
        added.add_argument("--before", type=Path, required=True, help="a checkout of heatc")
        added.add_argument("--models", type=_names(MODELS), default=list(MODELS), metavar="A,B")
        added.add_argument("--rounds", type=int, default=9, help="runs of each, default 9")
        if name == "times":
            added.add_argument("--after", type=Path, default=report.ROOT, help="another one")
            continue
        added.add_argument("--parts", type=_names(PARTS), default=list(PARTS), metavar="A,B")
        added.add_argument("--only", default="", help="programs whose name has this text")
        added.add_argument("-o", dest="output", type=Path, default=RESULT, help="the result file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what was asked for; 1 where two recordings of programs differ."""
    args = _parser().parse_args(arguments)
    match args.command:
        case "programs":
            use(args.root.resolve())
            found = record(args.root, args.only)
            args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        case "compare":
            return compare(args.before, args.after)
        case "sources":
            print(json.dumps({**sizes_of(args.root), **imports_of(args.root)}, indent=1))
        case "times":
            part = times_part(args.before, args.after, args.models, args.rounds)
            report.show(part.rows)
            print(json.dumps(part.tables, indent=1))
        case _:
            return everything(args)
    return 0


def compare(before: Path, after: Path) -> int:
    """Prints what two recordings do not share."""
    known, found = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    unlike = list(differences(known["cases"], found["cases"]))
    for line in unlike:
        print(line)
    print(f"{len(known['cases'])} programs of {known['commit']}, {len(unlike)} differences")
    return int(bool(unlike))


if __name__ == "__main__":
    sys.exit(main())
