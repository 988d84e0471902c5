"""
The house as numbers: what programs are, what they cost, and how large the sources are.

    python bench/house.py programs --root . -o build/before.json      what a checkout compiles
    python bench/house.py compare build/before.json build/after.json  whether two are the same

A rebuilding of the compiler must not change what it makes. `programs` compiles models by targets,
rules, formats and lengths through the documented commands, and keeps hashes of words, weights and
outputs, modelled cycles, joules and bytes. `--root` is the checkout whose heatc is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
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

from bench.support import programs, report
from bench.support.data import texts as data
from bench.support.programs import Arrays, NumpyProgram

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Records or compares; 1 where something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("programs")
    one.add_argument("--root", type=Path, default=report.ROOT, help="a checkout of heatc")
    one.add_argument("--only", default="", help="cases whose name has this text")
    one.add_argument("-o", dest="output", type=Path, required=True)
    two = commands.add_parser("compare")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    args = parser.parse_args(arguments)
    if args.command == "programs":
        sys.path.insert(0, str(args.root.resolve()))
        found = record(args.root, args.only)
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    before, after = (
        json.loads(path.read_text(encoding="utf-8")) for path in (args.before, args.after)
    )
    lines = list(differences(before["cases"], after["cases"]))
    for line in lines:
        print(line)
    print(f"{len(before['cases'])} programs of {before['commit']}, {len(lines)} differences")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
