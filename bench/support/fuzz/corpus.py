"""
The corpus: small good files of every kind, from which hostile ones are made.

`python -m bench.support.fuzz.corpus FOLDER [COMMIT...]` builds it: a model of one layer, compiled for every
target and rule, its IR after every pass, inputs, masks, references, plans and factors, and programs
that earlier versions of heatc wrote, made by those versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]

RULES: Mapping[str, Sequence[str]] = {
    "none": (),
    "paper": ("--rho-b", "0.25", "--tau-h", "0.5"),
    "ours": (),
    "topk": ("--density", "0.5"),
    "energon": (),
    "sanger": (),
    "spatten": ("--ratio", "0.5"),
}
MACHINES = ("hdp-edge", "hdp-edge-vector", "hdp-server")

OLD = ("d74cb79", "0e03334", "4954777", "6f4230f", "a46b9d6", "280fc6c")
"""Commits whose programs a later heatc may no longer run: each changed what a program holds."""

BOMB = 1 << 31
"""Bytes of the array in a small .npz."""

LENGTH, WIDTH = 6, 8

SMALL = """\
func.func @main(%x: tensor<3x4xf32> {heatc.name = "x"}) -> (tensor<3x2xf32> {heatc.name = "y"}) {
  %up = einsum.weight ["up.weight"] : tensor<8x4xf32>
  %bias = einsum.weight ["up.bias"] : tensor<8xf32>
  %0 = nn.linear %x, %up, %bias : (tensor<3x4xf32>, tensor<8x4xf32>, tensor<8xf32>) -> tensor<3x8xf32>
  %down = einsum.weight ["down.weight"] : tensor<2x8xf32>
  %y = nn.linear %0, %down : (tensor<3x8xf32>, tensor<2x8xf32>) -> tensor<3x2xf32>
  func.return %y : tensor<3x2xf32>
}
"""
"""A model of two layers, whose text takes no time to read."""

INPUTS = "input_ids=1x8:i64,attention_mask=1x8:i64"


class Corpus:
    """The files of a corpus by name, read once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._bytes: dict[str, bytes] = {}
        self._values: dict[tuple[str, str], Any] = {}

    def names(self, pattern: str) -> tuple[str, ...]:
        """The names that match a glob, sorted."""
        return self.keep("names", pattern, lambda: self._glob(pattern))

    def _glob(self, pattern: str) -> tuple[str, ...]:
        found = (p for p in self.folder.glob(pattern) if p.is_file())
        return tuple(sorted(p.relative_to(self.folder).as_posix() for p in found))

    def bytes(self, name: str) -> bytes:
        """The content of a file."""
        if name not in self._bytes:
            self._bytes[name] = (self.folder / name).read_bytes()
        return self._bytes[name]

    def text(self, name: str) -> str:
        """The content of a text file."""
        return self.keep("text", name, lambda: self.bytes(name).decode())

    def json(self, name: str) -> Any:
        """The content of a JSON file; not to be changed."""
        return self.keep("json", name, lambda: json.loads(self.bytes(name)))

    def keep(self, what: str, name: str, make: Any) -> Any:
        """What `make()` gives for a name, made once: a parsed form of a file, for instance."""
        if (what, name) not in self._values:
            self._values[what, name] = make()
        return self._values[what, name]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all names and contents."""
        digest = hashlib.sha256()
        for name in self._glob("**/*"):
            digest.update(f"{name}\n".encode() + self.bytes(name))
        return digest.hexdigest()


# ---- building -----------------------------------------------------------------------------------


def build(folder: Path, old: Sequence[str] = OLD) -> None:
    """Builds the corpus in a new folder, with programs of the `old` commits."""
    from bench.support.fuzz import models

    folder.mkdir(parents=True)
    models.save_archive(folder / "tiny.pt2", LENGTH, WIDTH)
    models.save_bert(folder)
    _write_arrays(folder)
    _write_weights(folder)
    _write_plans(folder)
    _write_programs(folder)
    _write_ir(folder)
    _write_machines(folder)
    _write_old(folder, old)


def _tool(folder: Path, module: str, *arguments: str) -> None:
    """Runs a tool in this process; one that fails on good input is no start for hostile ones."""
    import contextlib
    import importlib
    import io

    errors = io.StringIO()
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            code = importlib.import_module(f"heatc.tools.{module}").main(list(arguments))
    finally:
        os.chdir(before)
    if code:
        raise RuntimeError(f"{module} {' '.join(arguments)}: exit {code}\n{errors.getvalue()}")


def _write_arrays(folder: Path) -> None:
    import numpy as np

    from bench.support.fuzz import arrays

    rng = np.random.default_rng(0)

    def save(name: str, samples: int, length: int, **more: Any) -> None:
        ids = rng.integers(0, 24, (samples, length))
        lengths = rng.integers(1, length + 1, samples)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        np.savez(folder / name, input_ids=ids, attention_mask=mask, **more)

    save("in.npz", 2, 6)
    save("many.npz", 7, 6)
    save("data.npz", 16, 6, labels=rng.integers(0, 2, 16))
    save("bert.npz", 1, 8)
    (folder / "bomb.npz").write_bytes(arrays.bomb("input_ids", BOMB))


def _write_weights(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save

    from bench.support.fuzz import ir
    from heatc.api import Compilation
    from heatc.targets import Numpy, Options

    compilation = Compilation(Options(Numpy(), level=0))
    compilation.capture(folder / "tiny.pt2")
    weights = {name: compilation.weights[name].copy() for name in compilation.weights}
    (folder / "tiny.safetensors").write_bytes(save(weights))
    # With locations: plans name layers by them.
    (folder / "tiny.mlir").write_text(ir.printed(compilation.module), encoding="utf-8")
    (folder / "small.mlir").write_text(SMALL, encoding="utf-8")
    shapes = {"up.weight": (8, 4), "up.bias": (8,), "down.weight": (2, 8)}
    rng = np.random.default_rng(0)
    small = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    (folder / "small.safetensors").write_bytes(save(small))


def _write_plans(folder: Path) -> None:
    """A plan of rules, one of factors without and one with their file."""
    from heatc.plan import SCHEMA

    rule = {
        "rule": "ours",
        "point": 2,
        "importance": "positive",
        "rho_b": [0.1, 0.2],
        "tau_h": [0.0, 0.5],
    }
    heat = {"format": "low-rank", "ranks": [4]}
    tt = {"format": "tt", "shape": "2x4|4x4", "ranks": [2, 4, 4]}
    layers = {"wide": {"heat": heat}, "narrow": {"heat": {**heat, "fuse": True}}}
    plans: dict[str, Any] = {
        "rules": {"attention": {"hdp": rule}},
        "heat": {**layers, "wide": {"heat": tt}},
        "both": {"attention": {"hdp": rule}, **layers},
    }
    for name, entries in plans.items():
        text = json.dumps({"schema": SCHEMA, "seed": 0, "layers": entries}, indent=1)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    words = ("distill", "tiny.pt2", "--heat", "low-rank,ratio=0.6", "--data", "data.npz")
    options = ("--epochs", "1+1", "--quiet", "--work-dir", "work", "-o", "trained.json")
    _tool(folder, "tune", *words, *options)
    for path in sorted((folder / "work").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "work").rmdir()
    (folder / "trained.report.json").unlink()


def _write_programs(folder: Path) -> None:
    """Programs by machine and rule, with what hdp-run writes for them."""
    (folder / "hdp").mkdir()
    for machine in MACHINES:
        for rule, options in RULES.items():
            if machine != "hdp-edge" and rule not in ("none", "ours"):
                continue
            name = f"hdp/{machine}-{rule}"
            given = ("--target", machine, "--hdp-rule", rule, *options, "-o", f"{name}.hdp")
            _tool(folder, "main", "tiny.pt2", *given)
            outputs = ("--save-masks", f"{name}.masks.npz", "--layers", f"{name}.layers.npz")
            given = ("--inputs", "in.npz", "-o", f"{name}.out.npz", *outputs, "--quiet")
            _tool(folder, "run", f"{name}.hdp", *given)
    _tool(folder, "main", "tiny.pt2", "--plan", "trained.json", "--hw", "hdp-edge-vector",
          "-o", "hdp/trained.hdp")  # fmt: skip
    _write_text(folder)


def _write_text(folder: Path) -> None:
    """The words of the programs alone, and their text."""
    import contextlib
    import io
    import zipfile

    from heatc.tools import objdump

    for path in sorted((folder / "hdp").glob("*.hdp")):
        with zipfile.ZipFile(path) as archive:
            path.with_suffix(".bin").write_bytes(archive.read("program.bin"))
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            objdump.main(["-d", str(path)])
        path.with_suffix(".s").write_text(text.getvalue(), encoding="utf-8")


def _write_ir(folder: Path) -> None:
    """The IR after every pass of some pipelines, and the pieces of the passes' own tests."""
    pipelines = {
        "numpy": ("--target", "numpy", "-o", "x.py"),
        "none": ("--hdp-rule", "none", "-o", "x.hdp"),
        "ours": ("--hdp-rule", "ours", "-o", "x.hdp"),
        "spatten": ("--hdp-rule", "spatten", "-o", "x.hdp"),
        "server": ("--target", "hdp-server", "--hdp-rule", "topk", "-o", "x.hdp"),
        "plan": ("--hw", "hdp-edge-vector", "--plan", "trained.json", "-o", "x.hdp"),
    }
    with tempfile.TemporaryDirectory() as outputs:
        for name, options in pipelines.items():
            *given, last = options
            target = str(Path(outputs) / last)
            _tool(folder, "main", "tiny.pt2", *given, target, "--dump-phases-to", f"ir/{name}")
    tests = sorted((ROOT / "test").glob("*/*.mlir"))
    for path in tests:
        for number, piece in enumerate(re.split(r"^// -----.*$", path.read_text(), flags=re.M)):
            lines = [line for line in piece.splitlines() if not line.strip().startswith("//")]
            target = folder / "ir" / "tests" / f"{path.stem}-{number}.mlir"
            target.parent.mkdir(exist_ok=True)
            target.write_text("\n".join(lines).strip() + "\n", encoding="utf-8")


def _write_machines(folder: Path) -> None:
    from heatc.hardware import load_hardware, render
    from heatc.hardware.description import SCHEMA_VERSION

    (folder / "whole.yaml").write_text(render(load_hardware("hdp-edge")), encoding="utf-8")
    some = "name: mine\nbase: hdp-edge\ncores: 4\nbuffers:\n  shared: 512 KiB\n"
    some = f"schema: {SCHEMA_VERSION}\n{some}"
    (folder / "some.yaml").write_text(some, encoding="utf-8")
    space = "base: hdp-edge\nbudget: [area <= 12 mm2, energy <= 5 mJ]\ncores: [4, 8]\n"
    (folder / "space.yaml").write_text(space, encoding="utf-8")


def _write_old(folder: Path, commits: Sequence[str]) -> None:
    """
    Programs of earlier versions, made by those versions, with what they gave.

    Without the history of the project there are none.
    """
    (folder / "old").mkdir()
    for commit in commits:
        with tempfile.TemporaryDirectory() as place:
            packed = Path(place) / "heatc.tar"
            command = ["git", "archive", "-o", str(packed), commit]
            if subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode:
                continue
            subprocess.run(["tar", "-xf", str(packed)], cwd=place, check=True)
            environment = {**os.environ, "PYTHONPATH": place}
            name = f"old/{commit}"
            for words in (
                ["main", "bert", "--inputs", INPUTS, "-o", f"{name}.hdp"],
                ["run", f"{name}.hdp", "--inputs", "bert.npz", "-o", f"{name}.out.npz"],
            ):
                tool = [sys.executable, "-m", f"heatc.tools.{words[0]}", *words[1:]]
                subprocess.run(tool, cwd=folder, env=environment, check=True, capture_output=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2:] or OLD)
