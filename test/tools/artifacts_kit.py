"""Every command of the registry with every path that it can be given, and files of every kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import heatc
from heatc import commands, kinds
from heatc.artifacts import Command, Input
from heatc.errors import HeatcError
from heatc.files import safetensors_bytes
from heatc.kinds import Kind
from heatc.names import phase_files
from heatc.readers.npz import write_npz
from heatc.targets import Numpy, Options, pipeline
from heatc.targets.hdp import FORMS
from heatc.targets.numpy import FORM as NUMPY
from heatc.targets.text import IR
from heatc.tools import assemble, export, main, opt, report, run, tune

MODULE = """
func.func @main(%x: tensor<1x4xf32> {heatc.name = "x"}) -> (tensor<1x2xf32> {heatc.name = "y"}) {
  %w = einsum.weight ["w"] : tensor<2x4xf32>
  %y = nn.linear %x, %w : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  func.return %y : tensor<1x2xf32>
}
"""
PLAN = {"schema": 1, "layers": {}, "factors": {"file": "given.safetensors", "sha256": "0" * 64}}
HEAT = "low-rank,rank=1,init=plain"


@dataclass(frozen=True)
class Case:
    """A right command line: paths by their keys in the registry, words, and what the tool adds."""

    command: Command
    call: Callable[[list[str]], int]
    paths: Mapping[str, str | list[str]]
    words: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def options(self) -> dict[str, str]:
        """The options by their keys."""
        return {x.key: x.option for x in (*self.command.reads, *self.command.writes)}

    @property
    def values(self) -> dict[str, Any]:
        """What the tool gives to the registry."""
        return {**dict.fromkeys(self.options), **self.more, **self.paths}

    def run(self) -> int:
        """Run the command; its exit code."""
        argv: list[str] = []
        for key, value in self.paths.items():
            for path in [value] if isinstance(value, str) else value:
                is_option = self.options[key].startswith("-")
                argv += [self.options[key], path] if is_option else [path]
        return self.call([*argv, *self.words])

    def moved(self, found: Input, path: Path) -> Case | None:
        """The same with an input elsewhere; None where no option names it itself."""
        for key, value in self.paths.items():
            many = [value] if isinstance(value, str) else value
            if self.options[key] == found.option and str(found.path) in many:
                new = [str(path) if old == str(found.path) else old for old in many]
                return replace(self, paths={**self.paths, key: new})
        return None


def _compile(argv: list[str]) -> int:
    """`heatc.compile` as a command."""
    names = ("model", "plan", "calibrate", "target", "output", "remarks", "dump_divergence")
    try:
        heatc.compile(**dict(zip(names, argv, strict=True)))
    except HeatcError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


def _inserting(words: tuple[str, ...], argv: list[str]) -> int:
    """`heatc` with a pass more, and other words."""
    return main.main([*argv, "--insert-pass", "cse:after=raise-einsum", *words])


def _tune(command: str, argv: list[str]) -> int:
    return tune.main([command, *argv])


HDP, ASSEMBLY = FORMS

CASES = {
    "heatc to NumPy": Case(
        commands.HEATC,
        main.main,
        {
            "config": "heatc.toml",
            "model": "m.mlir",
            "weights": ["w.safetensors", "v.safetensors"],
            "calibrate": "c.npz",
            "output": "x.py",
            "json": "s.json",
            "remarks": "r.jsonl",
            "dump_phases_to": "phases",
            "dump_divergence": "divergence",
        },
        ("--heat", "low-rank,rank=1"),
        {
            "form": NUMPY,
            "has_factors": True,
            "phases": phase_files(
                [s.name for s in pipeline(Options(Numpy(), heat={"rank": (1,)}))]
            )[:2],
        },
    ),
    "heatc to IR": Case(
        commands.HEATC,
        main.main,
        {"model": "m.mlir", "weights": ["w.safetensors"], "output": "x.mlir"},
        ("--heat", HEAT, "--target", "numpy"),
        {"form": IR, "has_factors": True},
    ),
    "heatc to HDP": Case(
        commands.HEATC,
        main.main,
        {"model": "folder", "plan": "plan.json", "hw": "hw.yaml", "output": "x.hdp"},
        more={"form": HDP, "has_factors": False},
    ),
    "heatc to assembly": Case(
        commands.HEATC,
        main.main,
        {"model": "m.pt", "output": "x.s"},
        more={"form": ASSEMBLY, "has_factors": False},
    ),
    "heatc with a pipeline": Case(
        commands.HEATC,
        main.main,
        {
            "plan": "plan.json",
            "calibrate": "c.npz",
            "model": "m.mlir",
            "weights": ["w.safetensors"],
            "output": "x.mlir",
            "remarks": "r.jsonl",
            "dump_phases_to": "phases",
        },
        ("--target", "numpy", "--pass-pipeline", "apply-plan,heat-decompose"),
        {"form": IR, "has_factors": True, "phases": ["00-captured.mlir"]},
    ),
    "heatc with a pass more": Case(
        commands.HEATC,
        partial(_inserting, ()),
        {"model": "folder", "plan": "plan.json", "hw": "hw.yaml", "output": "x.hdp"},
        more={"form": HDP, "has_factors": False},
    ),
    "heatc with a pass more, calibrated": Case(
        commands.HEATC,
        partial(_inserting, ("--heat", "low-rank,rank=1")),
        {"model": "m.mlir", "calibrate": "c.npz", "output": "x.py"},
        more={"form": NUMPY, "has_factors": True},
    ),
    "heatc.compile": Case(
        commands.COMPILE,
        _compile,
        {
            "model": "folder",
            "plan": "plan.json",
            "calibrate": "c.npz",
            "target": "hw.yaml",
            "output": "x.hdp",
            "remarks": "r.jsonl",
            "dump_divergence": "divergence",
        },
        more={"form": HDP, "has_factors": False},
    ),
    "heatc-opt": Case(
        commands.HEATC_OPT,
        opt.main,
        {
            "plan": "plan.json",
            "hw": "hw.yaml",
            "weights": ["w.safetensors", "v.safetensors"],
            "calibrate": "c.npz",
            "factors": "f.safetensors",
            "input_file": "m.mlir",
            "output_file": "x.mlir",
            "remarks": "r.jsonl",
        },
        ("-p", "apply-plan,heat-decompose"),
    ),
    "heatc-tune calibrate": Case(
        commands.CALIBRATE,
        partial(_tune, "calibrate"),
        {
            "config": "heatc.toml",
            "json": "s.json",
            "model": "m.mlir",
            "weights": "w.safetensors",
            "data": "c.npz",
            "plan": "plan.json",
            "hw": "hw.yaml",
            "output": "x.json",
            "work_dir": "work",
        },
        ("--goal", "sparsity>=0.5"),
    ),
    "heatc-tune search": Case(
        commands.SEARCH,
        partial(_tune, "search"),
        {
            "config": "heatc.toml",
            "json": "s.json",
            "model": "folder",
            "weights": "w.safetensors",
            "data": "c.npz",
            "dev": "d.npz",
            "hw_space": "space.yaml",
            "output": "front",
            "work_dir": "work",
        },
        ("--points", "2", "--goal", "edp>=2x"),
        {"points": 2, "goal": "edp>=2x", "machines": 2},
    ),
    "heatc-tune search on one machine": Case(
        commands.SEARCH,
        partial(_tune, "search"),
        {"model": "m.mlir", "data": "c.npz", "hw": "hw.yaml", "output": "front"},
        ("--points", "1"),
        {"points": 1, "goal": None, "machines": 0},
    ),
    "heatc-tune compress": Case(
        commands.COMPRESS,
        partial(_tune, "compress"),
        {
            "config": "heatc.toml",
            "json": "s.json",
            "model": "m.mlir",
            "weights": "w.safetensors",
            "data": "c.npz",
            "dev": "d.npz",
            "extra": ["e.npz"],
            "hw": "hw.yaml",
            "output": "small",
            "work_dir": "work",
        },
        ("--points", "2"),
        {"points": 2, "is_numpy": False},
    ),
    "heatc-tune compress to NumPy": Case(
        commands.COMPRESS,
        partial(_tune, "compress"),
        {"model": "folder", "data": "c.npz", "output": "small"},
        ("--points", "1", "--target", "numpy"),
        {"points": 1, "is_numpy": True},
    ),
    "heatc-tune distill": Case(
        commands.DISTILL,
        partial(_tune, "distill"),
        {
            "config": "heatc.toml",
            "json": "s.json",
            "model": "m.mlir",
            "weights": "w.safetensors",
            "data": "c.npz",
            "extra": ["e.npz"],
            "dev": "d.npz",
            "plan": "plan.json",
            "output": "x.json",
            "work_dir": "work",
            "keep_teacher": "teacher",
        },
    ),
    "heatc-tune eval": Case(
        commands.EVAL,
        partial(_tune, "eval"),
        {
            "config": "heatc.toml",
            "subjects": ["p.hdp", "plan.json"],
            "model": "m.mlir",
            "weights": "w.safetensors",
            "data": "c.npz",
            "calibrate": "d.npz",
            "hw": "hw.yaml",
            "result": "x.json",
        },
    ),
    "heatc-tune eval of text": Case(
        commands.EVAL,
        partial(_tune, "eval"),
        {"subjects": ["m.mlir"], "text": "t.csv", "tokenizer": "folder", "result": "x.json"},
    ),
    "heatc-tune data": Case(
        commands.DATA,
        partial(_tune, "data"),
        {
            "config": "heatc.toml",
            "json": "s.json",
            "text": "t.csv",
            "tokenizer": "folder",
            "output": "x.npz",
        },
    ),
    "heatc-export": Case(
        commands.EXPORT,
        export.main,
        {
            "json": "s.json",
            "model": "folder",
            "plan": "plan.json",
            "calibrate": "c.npz",
            "output": "exported",
        },
        more={"formats": ["torch", "onnx"]},
    ),
    "heatc-export to ONNX": Case(
        commands.EXPORT,
        export.main,
        {"model": "m.pt", "plan": "plan.json", "output": "exported"},
        ("--formats", "onnx"),
        {"formats": ["onnx"]},
    ),
    "hdp-run": Case(
        commands.HDP_RUN,
        run.main,
        {
            "config": "heatc.toml",
            "program": "p.hdp",
            "inputs": "c.npz",
            "reference": "d.npz",
            "hw": "hw.yaml",
            "output": "x.npz",
            "json": "s.json",
            "layers": "layers.npz",
            "save_masks": "masks.npz",
            "trace": "t.json",
            "stats": "stats",
        },
        ("--keep-masks", "2"),
        {"model": "both", "keep_masks": 2},
    ),
    "hdp-run, timing": Case(
        commands.HDP_RUN,
        run.main,
        {"program": "p.hdp", "masks": "m.npz", "trace": "t.pftrace", "stats": "stats"},
        ("--model=timing",),
        {"model": "timing", "keep_masks": 0},
    ),
    "hdp-run, sweep": Case(
        commands.HDP_RUN,
        run.main,
        {
            "program": "p.hdp",
            "inputs": "c.npz",
            "recompile": "folder",
            "plan": "plan.json",
            "hw": "hw.yaml",
            "stats": "stats",
        },
        ("--sweep", "cores=4,8"),
        {"model": "both", "keep_masks": 0, "sweep": ["cores=4,8"]},
    ),
    "heatc-report": Case(
        commands.REPORT_PAGE, report.main, {"runs": ["plan.json"], "output": "page.html"}
    ),
    "hdp-as": Case(commands.HDP_AS, assemble.main, {"input": "p.s", "output": "p.bin"}),
}


def write_inputs(folder: Path) -> None:
    """What the cases read, as far as it is looked at before the work."""
    (folder / "folder").mkdir()
    (folder / "folder" / "config.json").write_text("{}")
    for name in ("w", "v", "given", "folder/model"):
        save_file({name: np.zeros((2, 4), np.float32)}, folder / f"{name}.safetensors")
    for name in "cdem":
        np.savez(folder / f"{name}.npz", x=np.zeros((1, 4), np.float32))
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "t.csv").write_text("text,label\na,0\n")
    (folder / "heatc.toml").write_text("# no option\n")
    (folder / "hw.yaml").write_text("base: hdp-edge\n")
    (folder / "space.yaml").write_text("base: hdp-edge\ncores: [4, 8]\n")
    (folder / "m.mlir").write_text(MODULE)
    (folder / "config.json").write_text("{}")
    for name in ("m.pt", "p.hdp", "p.s"):
        (folder / name).write_text(f"# {name}\n")


def sample(kind: Kind) -> bytes:
    """The least file of a kind."""
    if isinstance(kind, kinds.Copy):
        return kind.source.read_bytes()
    if kind.at_end:
        stream = BytesIO()
        write_npz(stream, {"x": np.zeros(3)}, kind)
        return stream.getvalue()
    if kind in _SAFETENSORS:
        return safetensors_bytes({"x": np.zeros(3, np.float32)}, kind)
    if kind.lead:
        return f"{kind.line()}text\n".encode()
    return _SAMPLES.get(kind) or kind.json_text({"schema": 1}).encode()


_SAFETENSORS = (
    kinds.WEIGHTS,
    kinds.IR_FACTORS,
    kinds.IR_WEIGHTS,
    kinds.PLAN_FACTORS,
    kinds.EXPORT_WEIGHTS,
)

_SAMPLES = {
    kinds.PAGE: f"<!DOCTYPE html>\n<!-- {kinds.PAGE.mark} -->\n".encode(),
    kinds.PROGRAM: b'"""\nx as a NumPy program, written by heatc 0.0.\n"""\n',
    kinds.HDP: b"PK\x03\x04" + bytes(26) + b"program.bin" + bytes(23) + b"HDPPROG\0",
    kinds.BINARY: b"HDPPROG\0",
    kinds.REMARKS: b'{"pass": "dce", "layer": "", "place": ""}\n',
    kinds.SWEEP_CSV: b"point,cores,total_cycles,time_seconds\n",
    kinds.LAYERS_CSV: b"module_path,instructions,macs,ranked_blocks\n",
    kinds.ONNX: b"\x08\x0a\x12" + bytes([len(kinds.ONNX.mark)]) + kinds.ONNX.mark.encode(),
    kinds.TRACE: f'{{"otherData":{{"producer":"{kinds.TRACE.mark}"}}}}'.encode(),
}

KINDS = [kind for kind in vars(kinds).values() if isinstance(kind, Kind)]
